"""The programs that the demo runs, each in a process of its own: ``python -m netmsg.cli.demo_roles ROLE ...``.

But for `report` and `end_with_input` these are programs such as any user of netmsg writes. A report is a line of JSON
on the standard output, by which the demo learns what happened. A role ends when its standard input does: when the demo
has no more use for it, and also when the demo itself has been killed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from netmsg import AckMode, ClosedError, Connected, DeliveryGuarantee, Disconnected, NetmsgError, SendMode, Søcket

HOST: Final = "127.0.0.1"
PATIENCE: Final = 10.0
"""Seconds that a role waits for other processes before it gives up."""


def report(kind: str, **facts: Any) -> None:
    """Tell the demo. A short line in one write, so that the lines of two threads never mix in the pipe."""
    try:
        os.write(sys.stdout.fileno(), json.dumps({"kind": kind, **facts}).encode() + b"\n")
    except BrokenPipeError:
        os._exit(1)  # the demo has gone: nobody is left to tell, or to work for


def end_with_input(sock: Søcket) -> threading.Thread:
    """Close ``sock`` at the end of the standard input, which ends every loop over it. Returns the thread that waits."""
    def wait() -> None:
        while os.read(0, 1024):
            pass
        sock.close()

    thread = threading.Thread(target=wait, name="input", daemon=True)
    thread.start()
    return thread


def report_connections(sock: Søcket) -> None:
    """Report, from a thread of its own, how connections come and go."""
    def follow() -> None:
        for event in sock.events():
            if isinstance(event, Connected):
                report("connected")
            elif isinstance(event, Disconnected) and not sock.closed:
                report("disconnected")

    threading.Thread(target=follow, name="events", daemon=True).start()


def time_server(arguments: argparse.Namespace) -> None:
    """Publish the time again and again, and report each time that was sent, and to whom."""
    with Søcket(send_mode=SendMode.PUBLISH) as sock:
        sock.bind(HOST, arguments.port)
        input_end = end_with_input(sock)
        report("listening", port=sock.bound_port)
        sock.wait_for_peers(arguments.subscribers, timeout=PATIENCE)
        for number in range(arguments.first, arguments.first + arguments.count):
            to = [peer.identity.hex() for peer in sock.peers()]
            report("publishing", number=number, copies=len(to))
            sock.send(f"{number} {time.ctime()}".encode())
            report("published", number=number, to=to)
            time.sleep(arguments.interval)  # a time server has nothing to do until it is later
        input_end.join()


def subscriber(arguments: argparse.Namespace) -> None:
    """Print the times of a server. There is no code here for a server that goes away and comes back."""
    with Søcket() as sock:
        report("started", identity=sock.identity.hex())
        end_with_input(sock)
        report_connections(sock)
        sock.connect(HOST, arguments.port)
        for message in sock.messages():
            number, _, text = message.decode().partition(" ")
            report("received", number=int(number), time=text)


def job_creator(arguments: argparse.Namespace) -> None:
    """Hand out jobs at least once: each goes to one worker, and to another if that one dies before it is done."""
    with Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, max_unacked=1) as sock:
        sock.bind(HOST, 0)
        input_end = end_with_input(sock)
        report("listening", port=sock.bound_port)
        sock.wait_for_peers(arguments.workers, timeout=PATIENCE)
        report("handing out", jobs=arguments.jobs)
        receipts = []
        for job in range(1, arguments.jobs + 1):
            receipts.append(sock.send(str(job).encode()))
            report("accepted", job=job)
        for receipt in receipts:
            receipt.wait(timeout=PATIENCE)
        report("all acknowledged", jobs=len(receipts))
        input_end.join()


def worker(arguments: argparse.Namespace) -> None:
    """Do one job after the other, and acknowledge each when it is done, not when it arrives."""
    with Søcket(ack_mode=AckMode.MANUAL) as sock:
        end_with_input(sock)
        report_connections(sock)
        sock.connect(HOST, arguments.port)
        skip = arguments.skip_first
        for delivery in sock.deliveries():
            job = int(delivery.data)
            if skip:
                skip = False
            else:
                report("began", job=job)
                time.sleep(arguments.job_seconds)  # this is the work
                report("done", job=job)
            delivery.ack()


def main(argv: Sequence[str] | None = None) -> int:
    """Play one role. Returns the exit status."""
    parser = argparse.ArgumentParser(description="One process of the demo.")
    roles = parser.add_subparsers(metavar="ROLE", required=True)

    role = roles.add_parser("time-server", description=time_server.__doc__)
    role.add_argument("--port", type=int, default=0)
    role.add_argument("--subscribers", type=int, default=1, help="how many to wait for")
    role.add_argument("--first", type=int, default=1, help="number of the first time")
    role.add_argument("--count", type=int, default=5)
    role.add_argument("--interval", type=float, default=1.0, help="seconds")
    role.set_defaults(play=time_server)

    role = roles.add_parser("subscriber", description=subscriber.__doc__)
    role.add_argument("--port", type=int, required=True)
    role.set_defaults(play=subscriber)

    role = roles.add_parser("job-creator", description=job_creator.__doc__)
    role.add_argument("--workers", type=int, default=1, help="how many to wait for")
    role.add_argument("--jobs", type=int, default=12)
    role.set_defaults(play=job_creator)

    role = roles.add_parser("worker", description=worker.__doc__)
    role.add_argument("--port", type=int, required=True)
    role.add_argument("--job-seconds", type=float, default=0.5)
    role.add_argument("--skip-first", action="store_true",
                      help="acknowledge the first job without doing it: a fault, for the demo to find")
    role.set_defaults(play=worker)

    arguments = parser.parse_args(argv)
    # That connections break and cannot be made again at once is what the demo shows, in words of its own.
    logging.getLogger("netmsg").setLevel(logging.ERROR)
    try:
        arguments.play(arguments)
    except ClosedError:
        pass  # the standard input ended in the middle of something
    except (OSError, NetmsgError) as error:
        report("failed", why=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
