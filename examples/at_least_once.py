"""Send at least once: every message is kept, and sent again, until a receiver acknowledges it.

Start two receivers, and kill the one or the other; whatever it had not received goes to the one that is left:

    python3 examples/at_least_once.py
    python3 examples/receiver.py --connect
    python3 examples/receiver.py --connect

Sending waits for nothing: each `send` returns a receipt, to be asked, or waited for, later. The receiver needs no code
for it, as receiving a message acknowledges it. It may get one twice, and later than those that were sent after it.
"""

import argparse
import itertools
import sys
import time

from netmsg import DeliveryGuarantee, Receipt, SendMode, Søcket


def main() -> None:
    parser = argparse.ArgumentParser(description="Send messages until they are acknowledged.")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (%(default)s)")
    parser.add_argument("--port", type=int, default=25000, help="port to bind to, 0 for a free one (%(default)s)")
    parser.add_argument("--resend-after", type=float, default=5.0,
                        help="seconds to wait for an acknowledgement before sending again (%(default)s)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between messages (%(default)s)")
    parser.add_argument("--count", type=int, help="end after so many messages, when all are acknowledged")
    args = parser.parse_args()

    with Søcket(
        send_mode=SendMode.ROUNDROBIN,
        delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE,
        resend_after=args.resend_after,
    ) as sock:
        sock.bind(args.host, args.port)
        print("bound to port", sock.bound_port)
        unacked: list[Receipt] = []
        for number in itertools.islice(itertools.count(1), args.count):
            receipt = sock.send(f"123 #{number}".encode())
            unacked = [each for each in (*unacked, receipt) if not each.acked]
            print(f"sent 123 #{number}, not acknowledged yet: {len(unacked)}")
            time.sleep(args.interval)
        for receipt in unacked:
            receipt.wait()
        print("all acknowledged")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
