"""Reports figures to ``metrics_collector.py``, one a datagram.

    python3 examples/metrics_collector.py /tmp/metrics
    python3 examples/metrics_reporter.py /tmp/metrics requests 1 2 3
"""

import argparse
import sys

from netmsg import DatagramClient, JSONCodec


def main() -> None:
    parser = argparse.ArgumentParser(description="Report figures.")
    parser.add_argument("path", help="where the collector listens")
    parser.add_argument("name", help="what is counted")
    parser.add_argument("values", nargs="+", type=float, help="the figures")
    args = parser.parse_args()

    with DatagramClient(args.path, JSONCodec()) as client:
        for value in args.values:
            client.send_packet({"name": args.name, "value": value})
            print("sum:", client.recv_packet(timeout=5)["sum"])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
