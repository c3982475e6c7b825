"""Say hello to everybody who connects and gives a name: a TCP server with a thread for each connection.

    python3 examples/tcp_server.py
    python3 examples/tcp_client.py
"""

import argparse
import sys
import threading

from netmsg import EndOfStream, SocketStream, create_tcp_server


def serve(client: SocketStream) -> None:
    with client:
        try:
            name = client.receive_until(b"\n", 1024, timeout=30)
        except EndOfStream:
            return  # it left without a word
        client.send_all(b"Hello, %s\n" % name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Say hello to TCP clients.")
    parser.add_argument("--host", default="localhost", help="interface to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=1234, help="port to listen on, 0 for a free one (%(default)s)")
    args = parser.parse_args()

    with create_tcp_server(args.port, args.host) as server:
        print("listening on port", server.port)
        for client in server.accept_connections():
            threading.Thread(target=serve, args=(client,)).start()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
