"""Publish while nobody listens: messages are kept until the first peer is there, and then sent, in order.

Start this first, wait for some messages, and then start the receiver, which gets them from the very first:

    python3 examples/buffering.py
    python3 examples/receiver.py --connect

A second receiver gets what is sent from then on. Round-robin sockets keep messages just the same.
"""

import argparse
import itertools
import sys
import time

from netmsg import SendMode, Søcket


def main() -> None:
    parser = argparse.ArgumentParser(description="Publish messages, whether or not somebody is there.")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (%(default)s)")
    parser.add_argument("--port", type=int, default=25000, help="port to bind to, 0 for a free one (%(default)s)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between messages (%(default)s)")
    parser.add_argument("--count", type=int, help="end after so many messages")
    args = parser.parse_args()

    with Søcket(send_mode=SendMode.PUBLISH) as sock:
        sock.bind(args.host, args.port)
        print("bound to port", sock.bound_port)
        for number in itertools.islice(itertools.count(1), args.count):
            sock.send(f"123 #{number}".encode())
            print(f"sent 123 #{number}, peers: {len(sock.peers())}")
            time.sleep(args.interval)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
