"""Gives away the files of a directory. A client sends a name on a line; the answer is a line with the size, or with
what is wrong, and then the file, which the kernel copies.

    python3 examples/file_server.py examples
    python3 examples/file_client.py README.md /tmp/copy
"""

import argparse
import os
import sys
from pathlib import Path

from netmsg import SocketStream, StreamServer, create_tcp_server


class FileServer:
    """The directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()

    def handle(self, client: SocketStream) -> None:
        for line in client.receive_delimited_chunks(b"\n", 1000):
            path = (self.directory / os.fsdecode(line)).resolve()
            if not path.is_relative_to(self.directory) or not path.is_file():
                client.send_all(b"there is no such file here\n")
                continue
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                client.send_all(f"{size}\n".encode())
                client.send_file(file, count=size)
                print(f"{path.name}: {size} bytes to {client.remote_address}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Give away files.")
    parser.add_argument("directory", type=Path, help="with the files")
    parser.add_argument("--port", type=int, default=8889, help="port to listen on, 0 for a free one (%(default)s)")
    args = parser.parse_args()

    server = StreamServer(FileServer(args.directory).handle, create_tcp_server(args.port), wait_for_data=True,
                          idle_timeout=60)
    with server:
        print("listening on port", server.port)
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
