"""Collects figures from the programs of this machine, by UNIX datagrams: one line of JSON each.

    python3 examples/metrics_collector.py /tmp/metrics
    python3 examples/metrics_reporter.py /tmp/metrics requests 1 2 3

UNIX datagrams are neither lost nor reordered, and the socket's file says who may send.
"""

import argparse
import collections
import sys
import threading
from typing import Any

from netmsg import DatagramPeer, DatagramServer, JSONCodec, create_unix_datagram_socket


class Collector:
    """The sums so far. Handlers run in several threads at once, hence the lock."""

    def __init__(self) -> None:
        self.sums: collections.Counter[str] = collections.Counter()
        self.lock = threading.Lock()

    def handle(self, client: DatagramPeer[Any], metric: Any) -> None:
        name, value = metric["name"], metric["value"]
        with self.lock:
            self.sums[name] += value
            print(f"{name} {self.sums[name]}")
        client.send_packet({"sum": self.sums[name]})


def main() -> None:
    parser = argparse.ArgumentParser(description="Add up what is reported.")
    parser.add_argument("path", help="where to listen")
    args = parser.parse_args()

    sock = create_unix_datagram_socket(path=args.path, mode=0o600)
    with DatagramServer(Collector().handle, sock, codec=JSONCodec()) as server:
        print("listening on", args.path)
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
