"""Give a name and print the greeting: the client of ``tcp_server.py``.

    python3 examples/tcp_server.py
    python3 examples/tcp_client.py
"""

import argparse
import sys

from netmsg import connect_tcp


def main() -> None:
    parser = argparse.ArgumentParser(description="Be greeted by tcp_server.py.")
    parser.add_argument("--host", default="localhost", help="host to connect to (%(default)s)")
    parser.add_argument("--port", type=int, default=1234, help="port to connect to (%(default)s)")
    parser.add_argument("--name", default="Client", help="whom to greet (%(default)s)")
    args = parser.parse_args()

    with connect_tcp(args.host, args.port, timeout=10) as client:
        client.send_all(args.name.encode() + b"\n")
        print(client.receive_until(b"\n", 1024, timeout=10).decode())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
