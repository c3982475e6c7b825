"""Give a name and print the greeting: the client of ``unix_server.py``.

    python3 examples/unix_server.py /tmp/mysock
    python3 examples/unix_client.py /tmp/mysock
"""

import argparse
import sys

from netmsg import connect_unix


def main() -> None:
    parser = argparse.ArgumentParser(description="Be greeted by unix_server.py.")
    parser.add_argument("path", help="where the server's socket is")
    parser.add_argument("--name", default="Client", help="whom to greet (%(default)s)")
    args = parser.parse_args()

    with connect_unix(args.path, timeout=10) as client:
        client.send_all(args.name.encode() + b"\n")
        print(client.receive_until(b"\n", 1024, timeout=10).decode())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
