"""Send numbered messages to ``identity_relay.py`` and wait for the answer to each.

In three terminals, and more of them with a ``--name`` each:

    python3 examples/identity_relay.py
    python3 examples/receiver.py --connect 127.0.0.1:25001
    python3 examples/identity_client.py --name bob

Every client sees the answers to its own messages only. The ids say to which: one that comes too late is not mistaken
for the next.
"""

import argparse
import itertools
import sys
import time

from netmsg import Søcket


def main() -> None:
    parser = argparse.ArgumentParser(description="Send numbered messages and print the answers.")
    parser.add_argument("--name", default="alice", help="what the message ids begin with (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="where the relay is (%(default)s)")
    parser.add_argument("--port", type=int, default=25000, help="the port that it receives on (%(default)s)")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds to wait for an answer (%(default)s)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between messages (%(default)s)")
    parser.add_argument("--count", type=int, help="end after so many messages")
    args = parser.parse_args()

    with Søcket() as sock:
        sock.connect(args.host, args.port)
        for number in itertools.islice(itertools.count(1), args.count):
            sock.send(f"{args.name}-{number}\x00greetings from {args.name}".encode())
            try:
                message_id, _, answer = sock.recv(timeout=args.timeout).partition(b"\x00")
            except TimeoutError:
                print(f"{args.name}-{number}: no answer yet")
            else:
                print(f"{message_id.decode()}: {answer.decode()}")
            time.sleep(args.interval)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
