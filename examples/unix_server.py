"""``tcp_server.py`` on a UNIX socket: only this machine can connect, and the file's permissions say who may.

    python3 examples/unix_server.py /tmp/mysock
    python3 examples/unix_client.py /tmp/mysock
"""

import argparse
import sys
import threading

from netmsg import EndOfStream, SocketStream, create_unix_server


def serve(client: SocketStream) -> None:
    with client:
        try:
            name = client.receive_until(b"\n", 1024, timeout=30)
        except EndOfStream:
            return
        client.send_all(b"Hello, %s, process %d\n" % (name, client.peer_credentials.pid))


def main() -> None:
    parser = argparse.ArgumentParser(description="Say hello to clients on this machine.")
    parser.add_argument("path", help="where the socket is to be")
    args = parser.parse_args()

    with create_unix_server(args.path, mode=0o600) as server:
        print("listening on", server.addresses[0])
        for client in server.accept_connections():
            threading.Thread(target=serve, args=(client,)).start()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
