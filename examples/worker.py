"""Do the jobs that come from one address or from several: the one worker of all the recipes that have workers.

From one job creator, and from two:

    python3 examples/worker.py
    python3 examples/worker.py --connect 127.0.0.1:25001 --connect 127.0.0.1:25003

From one proxy, and from several, whose addresses then come from the environment; see ``proxy.py``:

    python3 examples/worker.py --connect 127.0.0.1:25002
    PROXY_HOSTNAMES="127.0.0.1;127.0.0.2;127.0.0.3" python3 examples/worker.py

However many connections there are, messages come out of the one `recv`. Addresses where nobody is yet do no harm.
"""

import argparse
import itertools
import os
import sys

from netmsg import Søcket


def address(text: str, default_port: int | None = None) -> tuple[str, int]:
    """``host:port``, or the host alone where there is a default for the port."""
    host, colon, port = text.partition(":")
    return host, int(port) if colon or default_port is None else default_port


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Do the jobs that arrive.",
        epilog="PROXY_HOSTNAMES in the environment, 'host[:port];host[:port];...', says where to connect if --connect "
               "does not; the default port is 25002 there.")
    parser.add_argument("--connect", metavar="HOST:PORT", type=address, action="append",
                        help="a job creator or proxy; may be given several times (127.0.0.1:25001)")
    parser.add_argument("--count", type=int, help="end after so many jobs")
    args = parser.parse_args()

    addresses = [("127.0.0.1", 25001)]
    if args.connect:
        addresses = args.connect
    elif os.environ.get("PROXY_HOSTNAMES"):
        addresses = [address(proxy, 25002) for proxy in os.environ["PROXY_HOSTNAMES"].split(";")]

    with Søcket() as sock:
        for host, port in addresses:
            print(f"connecting to {host}:{port}")
            sock.connect(host, port)
        for work in itertools.islice(sock.messages(), args.count):
            print("doing", work.decode())  # <do work>


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
