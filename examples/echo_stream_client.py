"""A connection-oriented client: lines to ``echo_stream_server.py``, and what comes back.

    python3 examples/echo_stream_server.py
    python3 examples/echo_stream_client.py
"""

import argparse
import sys

from netmsg import connect_tcp, connect_unix

MESSAGE = """\
A few lines of text
including non-ASCII characters: €£
to test the operation
of both server
and client."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Have lines echoed.")
    parser.add_argument("--host", default="localhost", help="host to connect to (%(default)s)")
    parser.add_argument("--port", type=int, default=8881, help="port to connect to (%(default)s)")
    parser.add_argument("--unix", metavar="PATH", help="a UNIX socket instead; @ is the abstract namespace")
    args = parser.parse_args()

    if args.unix:
        stream = connect_unix(args.unix.replace("@", "\0", 1), timeout=10)
    else:
        stream = connect_tcp(args.host, args.port, timeout=10)
    with stream:
        for line in MESSAGE.splitlines():
            data = line.encode("utf-8")
            stream.send_all(data)
            print(f"SENT {len(data)} bytes")
            print(f"RCVD {stream.receive_exactly(len(data), timeout=10).decode('utf-8')!r}")
    print("Disconnected from server")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
