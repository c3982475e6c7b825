"""A connection-oriented server: what a client sends goes back to it, until it has finished. Over TCP or a UNIX socket.

    python3 examples/echo_stream_server.py
    python3 examples/echo_stream_client.py

The same with ``--host ::1``, with ``--unix /tmp/echo``, and with ``--unix @echo`` (the abstract namespace of Linux),
for both. SIGTERM and Ctrl-C end it in good order.
"""

import argparse
import signal
import sys
import threading

from netmsg import SocketStream, create_tcp_server, create_unix_server


def handle(client: SocketStream) -> None:
    print("Connected from", repr(client.remote_address))
    with client:
        for received in client:
            print(f"Recv: {received.decode('utf-8', errors='replace')!r}")
            client.send_all(received)
    print("Disconnected from", repr(client.remote_address))


def main() -> None:
    parser = argparse.ArgumentParser(description="Send everything back.")
    parser.add_argument("--host", default="localhost", help="interface to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8881, help="port to listen on, 0 for a free one (%(default)s)")
    parser.add_argument("--unix", metavar="PATH", help="a UNIX socket instead")
    args = parser.parse_args()

    if args.unix:
        server = create_unix_server(args.unix.replace("@", "\0", 1))
        print("listening on", args.unix)
    else:
        server = create_tcp_server(args.port, args.host)
        print("listening on port", server.port)
    signal.signal(signal.SIGTERM, lambda *_: server.close())
    with server:
        for client in server.accept_connections():
            threading.Thread(target=handle, args=(client,)).start()
    print("closed")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
