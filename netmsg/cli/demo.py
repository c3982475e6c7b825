"""``netmsg demo``: what the library is for, shown with real processes, some of which get killed.

The figures of the last line are counted from what the processes reported (see `count`); nothing in it is assumed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .demo_processes import DemoFailed, Process, Processes, Report

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["Tally", "add_to", "count", "run"]

SUBSCRIBERS: Final = 2
TIMES: Final = 5
"""Sent by each of the two servers."""
INTERVAL: Final = 0.4
WORKERS: Final = 3
JOBS: Final = 12
JOB_SECONDS: Final = 0.6
LEAST_RECONNECTIONS: Final = 2

IN_WORDS: Final = {
    "listening": "listens on port {port}",
    "connected": "is connected",
    "disconnected": "has lost its connection, and tries again by itself",
    "publishing": "sends time no. {number} to {copies} subscribers",
    "received": "prints no. {number}: {time}",
    "handing out": "has {jobs} jobs to be done",
    "began": "begins job {job}",
    "done": "has done job {job}",
    "all acknowledged": "has it in writing that all {jobs} jobs are done",
}
"""How reports are shown, by kind; those of other kinds are not."""


class Tally(NamedTuple):
    """What was counted. An item is a job, or one subscriber's copy of one time."""

    sent: frozenset[tuple[object, ...]]
    """Items accepted by the sending program's Søcket: for times, a copy for each peer connected at that moment, which
    is all that publishing promises."""
    delivered: frozenset[tuple[object, ...]]
    """Items that arrived: for jobs, that were done."""
    duplicates: int
    """How often an item arrived (or was done) that had been before."""
    reconnections: int
    """How often a subscriber or worker was connected after it had been before."""

    @property
    def lost(self) -> int:
        return len(self.sent - self.delivered)

    @property
    def good(self) -> bool:
        """Everything arrived, nothing arrived that was not sent, and there was something to recover from."""
        return self.sent == self.delivered and self.reconnections >= LEAST_RECONNECTIONS

    def __str__(self) -> str:
        return (f"{len(self.sent)} sent, {len(self.delivered)} delivered, {self.duplicates} duplicates, "
                f"{self.lost} lost, {self.reconnections} reconnections")


def count(processes: Iterable[Iterable[Report]]) -> Tally:
    """Count what processes reported: each process's reports, in their order."""
    sent: set[tuple[object, ...]] = set()
    delivered: Counter[tuple[object, ...]] = Counter()
    reconnections = 0
    for reports in processes:
        identity = None
        connected = 0
        for report in reports:
            kind = report["kind"]
            if kind == "started":
                identity = report["identity"]
            elif kind == "published":
                sent.update(("time", report["number"], to) for to in report["to"])
            elif kind == "received":
                delivered["time", report["number"], identity] += 1
            elif kind == "accepted":
                sent.add(("job", report["job"]))
            elif kind == "done":
                delivered["job", report["job"]] += 1
            elif kind == "connected":
                connected += 1
        reconnections += max(0, connected - 1)
    return Tally(frozenset(sent), frozenset(delivered), delivered.total() - len(delivered), reconnections)


class Screen:
    """Shows who does what, as it happens."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def headline(self, *lines: str) -> None:
        print("", *lines, "", sep="\n", flush=True)

    def line(self, who: str, what: str) -> None:
        print(f"{time.monotonic() - self._began:5.1f} s  {who:<13} {what}", flush=True)

    def tell(self, process: Process, report: Report) -> None:
        words = IN_WORDS.get(report["kind"])
        if words is not None:
            again = report["kind"] == "connected" and len(process.heard("connected")) > 1
            self.line(process.name, words.format(**report) + (" again" if again else ""))


def time_server_act(screen: Screen, processes: Processes) -> None:
    """A time server is killed and started again, and its subscribers carry on."""
    screen.headline("Act 1: a time server and two subscribers. Every time goes to both.",
                    "The server will be killed; nothing in the subscribers' code is prepared for that.")
    server = processes.start("time server", "time-server", subscribers=SUBSCRIBERS, count=TIMES, interval=INTERVAL)
    port = _port(processes, server)
    subscribers = [processes.start(f"subscriber {number}", "subscriber", port=port)
                   for number in range(1, SUBSCRIBERS + 1)]
    # Killed only when all it sent has arrived: publishing is at most once, and what a killed server has still in its
    # memory, or in its kernel's, would be lost, as it may.
    _wait_for_time(processes, TIMES, server, *subscribers)
    screen.line("demo", f"kills the time server (process {server.popen.pid}, kill -9)")
    processes.kill(server)
    processes.wait_until(lambda: all(subscriber.heard("disconnected") for subscriber in subscribers),
                         "the subscribers noticing that the server has gone")
    screen.line("demo", f"starts it again, on the same port {port}")
    server = processes.start("time server", "time-server", port=port, subscribers=SUBSCRIBERS, first=TIMES + 1,
                             count=TIMES, interval=INTERVAL)
    _wait_for_time(processes, 2 * TIMES, server, *subscribers)
    processes.end(*subscribers)
    processes.end(server)


def job_queue_act(screen: Screen, processes: Processes, *, lose_a_job: bool) -> None:
    """A worker is killed in the middle of a job, and another one does it."""
    screen.headline("Act 2: a job queue with three workers. A job counts as done when its worker says so,",
                    "at the end of it. One worker will be killed in the middle of a job.")
    creator = processes.start("job creator", "job-creator", workers=WORKERS, jobs=JOBS)
    port = _port(processes, creator)
    workers = [processes.start(f"worker {number}", "worker", port=port, job_seconds=JOB_SECONDS,
                               **({"skip_first": True} if lose_a_job and number == 1 else {}))
               for number in range(1, WORKERS + 1)]
    victim = workers.pop(1)
    processes.wait_until(lambda: len(victim.heard("began")) >= 2, f"{victim.name} beginning its second job")
    screen.line("demo", f"kills {victim.name} (process {victim.popen.pid}, kill -9) in job {_last_job(victim)}")
    processes.kill(victim)
    workers.append(processes.start(f"worker {WORKERS + 1}", "worker", port=port, job_seconds=JOB_SECONDS))
    screen.line("demo", f"starts worker {WORKERS + 1} in its place")
    processes.wait_until(lambda: bool(creator.heard("all acknowledged")), "the acknowledgement of all jobs")
    processes.end(*workers)
    processes.end(creator)


def _port(processes: Processes, process: Process) -> int:
    processes.wait_until(lambda: bool(process.heard("listening")), f"{process.name} listening")
    port: int = process.heard("listening")[0]["port"]
    return port


def _wait_for_time(processes: Processes, number: int, server: Process, *subscribers: Process) -> None:
    def is_there() -> bool:
        return (any(report["number"] == number for report in server.heard("published"))
                and all(any(report["number"] == number for report in subscriber.heard("received"))
                        for subscriber in subscribers))

    processes.wait_until(is_there, f"time no. {number} arriving at all subscribers")


def _last_job(worker: Process) -> Any:
    return worker.heard("began")[-1]["job"]


def run(arguments: argparse.Namespace) -> int:
    """Show both acts, and count. Returns the exit status: whether everything sent was delivered."""
    screen = Screen()
    print("netmsg demo: processes on this computer that talk to each other over 127.0.0.1,",
          "and what becomes of their messages when some of them are killed.", sep="\n", flush=True)
    try:
        with Processes(screen.tell) as processes:
            time_server_act(screen, processes)
            job_queue_act(screen, processes, lose_a_job=arguments.lose_a_job)
            tally = count(process.reports for process in processes.all)
    except DemoFailed as failure:
        print(f"demo: failed: {failure}", file=sys.stderr, flush=True)
        return 1
    screen.headline("Counted from what the processes reported. Sent: jobs accepted, and times, one for each connected",
                    "subscriber. Delivered: jobs done, and times printed. Duplicates: those done or printed again.")
    print(f"demo: {tally}", flush=True)
    return 0 if tally.good else 1


def add_to(commands: Commands) -> None:
    """Describe the command to the parser."""
    parser = commands.add_parser(
        "demo", help="show the library at work, in 8 seconds",
        description="Runs a time server with subscribers, and a job queue with workers, as processes on this computer; "
                    "kills some of them; and counts what arrived.",
        epilog="The exit status is 0 if everything that was sent was delivered.")
    parser.add_argument("--lose-a-job", action="store_true", help=argparse.SUPPRESS)  # to see that it would be found
    parser.set_defaults(run=run)
