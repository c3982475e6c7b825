"""The demo, the end that binds: send the current time once a second.

Run it in one terminal and ``time_client.py`` in another, in either order:

    python3 examples/time_server.py
    python3 examples/time_client.py

Then kill one of them and start it again: the connection comes back by itself. While there is no client the times are
kept, and the first one to come gets them all; with several clients each time goes to one of them, in turn.
"""

import argparse
import itertools
import sys
import time

from netmsg import Søcket


def main() -> None:
    parser = argparse.ArgumentParser(description="Send the current time to whoever connects.")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (%(default)s)")
    parser.add_argument("--port", type=int, default=25000, help="port to bind to, 0 for a free one (%(default)s)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between messages (%(default)s)")
    parser.add_argument("--count", type=int, help="end after so many messages")
    args = parser.parse_args()

    with Søcket() as sock:
        sock.bind(args.host, args.port)
        print("bound to port", sock.bound_port)
        for _ in itertools.islice(itertools.count(), args.count):
            sock.send(time.ctime().encode())
            time.sleep(args.interval)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
