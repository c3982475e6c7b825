"""Receive a message from any peer and publish it to every peer, its sender included.

Run it in one terminal and ``chat.py`` in two others; what is typed in one appears in both:

    python3 examples/relay.py
    python3 examples/chat.py
    python3 examples/chat.py

With ``--round-robin`` each message goes to one peer only, the next message to the next peer, and so on.
"""

import argparse
import sys

from netmsg import SendMode, Søcket


def main() -> None:
    parser = argparse.ArgumentParser(description="Send every message that arrives to every peer.")
    parser.add_argument("--round-robin", action="store_true", help="send each message to one peer, in turn")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (%(default)s)")
    parser.add_argument("--port", type=int, default=25000, help="port to bind to, 0 for a free one (%(default)s)")
    args = parser.parse_args()

    with Søcket(send_mode=SendMode.ROUNDROBIN if args.round_robin else SendMode.PUBLISH) as sock:
        sock.bind(args.host, args.port)
        print("bound to port", sock.bound_port)
        for message in sock.messages():
            sock.send(message)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
