"""Create jobs, and hand them out in turn to the workers that are connected.

Start as many workers as you like; stop some and start others at any time:

    python3 examples/jobcreator.py
    python3 examples/worker.py
    python3 examples/worker.py

This is the end with a fixed address, so it binds. For it to be a service in two places, start a second one elsewhere
(here: ``--port 25003``), and give the workers both addresses; see ``worker.py``. Workers on other machines need
``--host 0.0.0.0``, which lets everybody in who can reach this machine.
"""

import argparse
import itertools
import sys
import time

from netmsg import SendMode, Søcket


def main() -> None:
    parser = argparse.ArgumentParser(description="Hand out jobs to the workers that connect, in turn.")
    parser.add_argument("--name", default="job", help="what the jobs are called (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (%(default)s)")
    parser.add_argument("--port", type=int, default=25001, help="port to bind to, 0 for a free one (%(default)s)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between jobs (%(default)s)")
    parser.add_argument("--count", type=int, help="end after so many jobs")
    args = parser.parse_args()

    with Søcket(send_mode=SendMode.ROUNDROBIN) as sock:
        sock.bind(args.host, args.port)
        print("bound to port", sock.bound_port)
        for number in itertools.islice(itertools.count(1), args.count):
            sock.send(f"{args.name} {number}".encode())
            print(f"created {args.name} {number}")
            time.sleep(args.interval)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
