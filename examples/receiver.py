"""Receive messages, from any number of peers, and print them.

By default it binds, for peers that connect; with ``--connect`` it connects, for peers that bind. Nothing else differs:

    python3 examples/receiver.py
    python3 examples/publisher.py --connect

    python3 examples/publisher.py
    python3 examples/receiver.py --connect

It is the other end of ``publisher.py``, ``buffering.py``, ``at_least_once.py`` and, on its second port,
``identity_relay.py``. The sender's choices - to all or in turn, at most once or at least once - need no code here.
"""

import argparse
import itertools
import sys

from netmsg import Søcket


def address(text: str) -> tuple[str, int]:
    """``host:port``, or the port alone."""
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", int(port)


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the messages that arrive.")
    parser.add_argument("--connect", metavar="HOST:PORT", type=address, nargs="?", const="127.0.0.1:25000",
                        help="connect instead of binding (to %(const)s where none is given)")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (%(default)s)")
    parser.add_argument("--port", type=int, default=25000, help="port to bind to, 0 for a free one (%(default)s)")
    parser.add_argument("--count", type=int, help="end after so many messages")
    args = parser.parse_args()

    with Søcket() as sock:
        if args.connect:
            sock.connect(*args.connect)
        else:
            sock.bind(args.host, args.port)
            print("bound to port", sock.bound_port)
        for message in itertools.islice(sock.messages(), args.count):
            print(f"Received: {message!r}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
