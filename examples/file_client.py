"""Fetches a file from ``file_server.py``.

    python3 examples/file_server.py examples
    python3 examples/file_client.py README.md /tmp/copy
"""

import argparse
import os
import sys
from pathlib import Path

from netmsg import connect_tcp


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch a file.")
    parser.add_argument("name", help="of the file there")
    parser.add_argument("target", type=Path, help="of the file here")
    parser.add_argument("--host", default="localhost", help="where the server is (%(default)s)")
    parser.add_argument("--port", type=int, default=8889, help="the server's port (%(default)s)")
    args = parser.parse_args()

    with connect_tcp(args.host, args.port, timeout=5) as server:
        server.send_all(os.fsencode(args.name) + b"\n", timeout=5)
        answer = server.receive_until(b"\n", timeout=30).decode()
        if not answer.isdigit():
            print(answer)
            return 1
        with args.target.open("wb") as file:
            print(server.receive_file(file, int(answer), timeout=300), "bytes")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
