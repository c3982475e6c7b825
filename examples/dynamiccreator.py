"""Create jobs for workers that are found through a proxy, so that there may be any number of job creators.

Both the creators and the workers connect; what they connect to is the proxy. In three terminals, or many more:

    python3 examples/proxy.py
    python3 examples/dynamiccreator.py
    python3 examples/worker.py --connect 127.0.0.1:25002

With several proxies, none of which has to be up, jobs go to those that are, in turn; see ``proxy.py``:

    PROXY_HOSTNAMES="127.0.0.1;127.0.0.2;127.0.0.3" python3 examples/dynamiccreator.py

With ``--at-least-once`` no job is lost when a proxy dies in which it was.
"""

import argparse
import itertools
import os
import sys
import time

from netmsg import DeliveryGuarantee, SendMode, Søcket


def address(text: str, default_port: int | None = None) -> tuple[str, int]:
    """``host:port``, or the host alone where there is a default for the port."""
    host, colon, port = text.partition(":")
    return host, int(port) if colon or default_port is None else default_port


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Send jobs to the proxies that are up, in turn.",
        epilog="PROXY_HOSTNAMES in the environment, 'host[:port];host[:port];...', says where to connect if --connect "
               "does not; the default port is 25001 there.")
    parser.add_argument("--connect", metavar="HOST:PORT", type=address, action="append",
                        help="a proxy; may be given several times (127.0.0.1:25001)")
    parser.add_argument("--name", default="job", help="what the jobs are called (%(default)s)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between jobs (%(default)s)")
    parser.add_argument("--count", type=int, help="end after so many jobs")
    parser.add_argument("--at-least-once", action="store_true",
                        help="keep each job until a worker has it, should a proxy die; it may be done twice then")
    args = parser.parse_args()

    addresses = [("127.0.0.1", 25001)]
    if args.connect:
        addresses = args.connect
    elif os.environ.get("PROXY_HOSTNAMES"):
        addresses = [address(proxy, 25001) for proxy in os.environ["PROXY_HOSTNAMES"].split(";")]

    guarantee = DeliveryGuarantee.AT_LEAST_ONCE if args.at_least_once else DeliveryGuarantee.AT_MOST_ONCE
    with Søcket(send_mode=SendMode.ROUNDROBIN, delivery_guarantee=guarantee) as sock:
        for host, port in addresses:
            print(f"connecting to {host}:{port}")
            sock.connect(host, port)
        for number in itertools.islice(itertools.count(1), args.count):
            sock.send(f"{args.name} {number}".encode())
            print(f"created {args.name} {number}")
            time.sleep(args.interval)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
