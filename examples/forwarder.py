"""A TCP forwarder: whoever connects to it is connected on to somewhere else.

    python3 examples/echo_stream_server.py
    python3 examples/forwarder.py --to localhost 8881
    python3 examples/echo_stream_client.py --port 8888

Each connection has a worker for one direction and a thread for the other; either end may finish first.
"""

import argparse
import sys
import threading

from netmsg import ByteStream, SocketStream, StreamServer, connect_tcp, create_tcp_server


def pump(source: ByteStream, target: ByteStream) -> None:
    """Everything from the one to the other, and the end too."""
    try:
        for chunk in source:
            target.send_all(chunk)
        target.send_eof()
    except OSError:
        source.abort()  # the one cannot go on without the other
        target.abort()


class Forwarder:
    """Where to."""

    def __init__(self, host: str, port: int) -> None:
        self.target = host, port

    def handle(self, client: SocketStream) -> None:
        try:
            server = connect_tcp(*self.target, timeout=5)
        except OSError as error:
            print("cannot forward:", error)
            client.abort()
            return
        with server:
            back = threading.Thread(target=pump, args=(server, client))
            back.start()
            pump(client, server)
            back.join()


def main() -> None:
    parser = argparse.ArgumentParser(description="Forward connections.")
    parser.add_argument("--port", type=int, default=8888, help="port to listen on, 0 for a free one (%(default)s)")
    parser.add_argument("--to", nargs=2, metavar=("HOST", "PORT"), default=("localhost", "8881"),
                        help="where to (localhost 8881)")
    args = parser.parse_args()

    forwarder = Forwarder(args.to[0], int(args.to[1]))
    with StreamServer(forwarder.handle, create_tcp_server(args.port)) as server:
        print("listening on port", server.port)
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
