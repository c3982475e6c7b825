"""Stand between two services that both come and go: two sockets that bind, and what arrives at one leaves by the other.

A job that its creator sends at least once is acknowledged to it when a worker has acknowledged it here; so a proxy may
be killed at any moment, and nothing is lost.

In three terminals, with as many creators and workers as you like:

    python3 examples/proxy.py
    python3 examples/dynamiccreator.py
    python3 examples/worker.py --connect 127.0.0.1:25002

So that no proxy is a single point of failure, run several, unchanged, each at its own address. On Linux all of
127.0.0.0/8 is this machine; elsewhere use ports, ``--port 25011 --worker-port 25012`` and so on, and say so in the
list, which for the creators names the one port and for the workers the other:

    python3 examples/proxy.py --host 127.0.0.1
    python3 examples/proxy.py --host 127.0.0.2
    python3 examples/proxy.py --host 127.0.0.3
    export PROXY_HOSTNAMES="127.0.0.1;127.0.0.2;127.0.0.3"
    python3 examples/dynamiccreator.py
    python3 examples/worker.py

Without a worker the jobs wait here, up to the high-water mark, and then the creators are slowed down: nothing piles up
for ever.
"""

import argparse
import sys

from netmsg import DeliveryGuarantee, Søcket, proxy


def main() -> None:
    parser = argparse.ArgumentParser(description="Pass on jobs from the creators to the workers that connect.")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (%(default)s)")
    parser.add_argument("--port", type=int, default=25001, help="port for the creators (%(default)s)")
    parser.add_argument("--worker-port", type=int, default=25002, help="port for the workers (%(default)s)")
    args = parser.parse_args()

    with Søcket() as creators, Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE) as workers:
        creators.bind(args.host, args.port)
        workers.bind(args.host, args.worker_port)
        print("creators: bound to port", creators.bound_port)
        print("workers: bound to port", workers.bound_port)
        proxy(creators, workers)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
