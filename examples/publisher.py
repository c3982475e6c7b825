"""Publish news to every peer, from the end that binds or from the end that connects.

Which end binds has nothing to do with which end sends. In two terminals, or more, the publisher that binds

    python3 examples/publisher.py
    python3 examples/receiver.py --connect

and the publisher that connects, with the same code but for one line:

    python3 examples/publisher.py --connect
    python3 examples/receiver.py

Bind the end that has a lasting address, and connect the one of which there come to be more and fewer.
"""

import argparse
import itertools
import sys
import time

from netmsg import SendMode, Søcket


def address(text: str) -> tuple[str, int]:
    """``host:port``, or the port alone."""
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", int(port)


def main() -> None:
    parser = argparse.ArgumentParser(description="Publish news to every peer.")
    parser.add_argument("--connect", metavar="HOST:PORT", type=address, nargs="?", const="127.0.0.1:25000",
                        help="connect instead of binding (to %(const)s where none is given)")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (%(default)s)")
    parser.add_argument("--port", type=int, default=25000, help="port to bind to, 0 for a free one (%(default)s)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between messages (%(default)s)")
    parser.add_argument("--count", type=int, help="end after so many messages")
    args = parser.parse_args()

    with Søcket(send_mode=SendMode.PUBLISH) as sock:
        if args.connect:
            sock.connect(*args.connect)
        else:
            sock.bind(args.host, args.port)
            print("bound to port", sock.bound_port)
        for number in itertools.islice(itertools.count(1), args.count):
            sock.send(f"News! #{number}".encode())
            time.sleep(args.interval)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
