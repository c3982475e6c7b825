"""The demo, the end that connects: print the times that ``time_server.py`` sends.

Run the server in one terminal and this in another, in either order:

    python3 examples/time_server.py
    python3 examples/time_client.py

There is no code for a server that is away, or goes away: connecting, and connecting again, is what the Søcket does.
"""

import argparse
import itertools
import sys

from netmsg import Søcket


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the times that a time server sends.")
    parser.add_argument("--host", default="127.0.0.1", help="where the server is (%(default)s)")
    parser.add_argument("--port", type=int, default=25000, help="the server's port (%(default)s)")
    parser.add_argument("--count", type=int, help="end after so many messages")
    args = parser.parse_args()

    with Søcket() as sock:
        sock.connect(args.host, args.port)
        for message in itertools.islice(sock.messages(), args.count):
            print(message.decode())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
