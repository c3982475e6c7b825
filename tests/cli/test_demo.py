"""The demo, run as its users run it, and the counting behind its last line."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import Program

from netmsg.cli.demo import Tally, count
from netmsg.cli.demo_processes import Report

LAST_LINE = r"demo: (\d+) sent, (\d+) delivered, (\d+) duplicates, (\d+) lost, (\d+) reconnections"
MOST_SECONDS = 20
MARK = "NETMSG_TEST_DEMO"


class Demo(Program):
    """A demo whose processes can be told from all others: they inherit a mark in their environment."""

    def __init__(self, *options: str) -> None:
        self._mark = f"{MARK}={uuid.uuid4()}"
        super().__init__("-m", "netmsg", "demo", *options, env=dict([self._mark.split("=")]))

    def processes(self, containing: str = "") -> dict[int, str]:
        """Those that run now, the demo itself not included: process id and command line."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment = (path / "environ").read_bytes().split(b"\0")
                words = (path / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue  # ended meanwhile, or somebody else's
            if self._mark.encode() in environment and "netmsg.cli.demo_roles" in words:
                found[int(path.name)] = " ".join(words)
        return {pid: line for pid, line in found.items() if containing in line}

    def figures(self) -> list[int]:
        """Of the last line."""
        match = re.fullmatch(LAST_LINE, self.lines[-1])
        assert match is not None, self
        return [int(figure) for figure in match.groups()]

    def ports(self) -> set[int]:
        return {int(port) for port in re.findall(r"listens on port (\d+)", "\n".join(self.lines))}


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    """Closes what is put into it."""
    started: list[Demo] = []
    yield started
    for demo in started:
        demo.close()


def start(demos: list[Demo], *options: str) -> Demo:
    demos.append(Demo(*options))
    return demos[-1]


def test_everything_that_is_sent_is_delivered(demos: list[Demo]) -> None:
    began = time.monotonic()
    demo = start(demos)
    assert demo.finish(MOST_SECONDS) == 0, demo
    assert time.monotonic() - began < MOST_SECONDS
    sent, delivered, _, lost, reconnections = demo.figures()
    assert sent == delivered > 0
    assert lost == 0
    assert reconnections >= 2
    assert not demo.errors()
    text = "\n".join(demo.lines)
    assert re.search(r"demo +kills the time server", text)
    assert re.search(r"subscriber \d +is connected again", text)
    killed_in = re.search(r"demo +kills worker 2 .* in job (\d+)", text)
    assert killed_in is not None
    assert re.search(rf"worker [134] +has done job {killed_in[1]}$", text, re.MULTILINE)
    # Nothing is left behind.
    assert demo.processes() == {}
    assert len(demo.ports()) == 2
    for port in demo.ports():
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", port)) != 0


def test_a_job_that_is_acknowledged_and_not_done_is_found(demos: list[Demo]) -> None:
    demo = start(demos, "--lose-a-job")
    assert demo.finish(MOST_SECONDS) == 1, demo
    sent, delivered, _, lost, _ = demo.figures()
    assert lost == 1
    assert delivered == sent - 1
    assert demo.processes() == {}


def test_ctrl_c_ends_all_processes(demos: list[Demo]) -> None:
    demo = start(demos)
    demo.wait_for("prints no. 2")
    assert len(demo.processes()) == 3
    demo.interrupt()
    assert demo.finish() == 130
    assert demo.processes() == {}
    assert not demo.errors()


def test_processes_of_a_demo_that_was_killed_end_by_themselves(demos: list[Demo]) -> None:
    demo = start(demos)
    demo.wait_for("prints no. 2")
    descriptors = [os.pidfd_open(pid) for pid in demo.processes()]
    try:
        assert len(descriptors) == 3
        demo.kill()
        for descriptor in descriptors:
            assert select.select([descriptor], [], [], 20)[0], demo.processes()
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@pytest.mark.parametrize("role, moment, name", [
    (" subscriber ", "prints no. 1", r"subscriber \d"), (" job-creator ", "has done job 1", "job creator")])
def test_a_process_that_dies_unasked_ends_the_demo(demos: list[Demo], role: str, moment: str, name: str) -> None:
    demo = start(demos)
    demo.wait_for(moment)
    os.kill(next(iter(demo.processes(role))), signal.SIGKILL)
    assert demo.finish() == 1
    assert re.search(rf"^demo: failed: {name} ended unasked, with exit status -9$", demo.errors(), re.MULTILINE)
    assert not any(line.startswith("demo: ") for line in demo.lines)
    assert demo.processes() == {}


# What is counted

def published(number: int, *to: str) -> Report:
    return {"kind": "published", "number": number, "to": list(to)}


def subscriber(identity: str, *numbers: int, connections: int = 1) -> list[Report]:
    return [{"kind": "started", "identity": identity}, *[{"kind": "connected"}] * connections,
            *({"kind": "received", "number": number, "time": ""} for number in numbers)]


def jobs(kind: str, *numbers: int) -> list[Report]:
    return [{"kind": kind, "job": number} for number in numbers]


def figures(tally: Tally) -> tuple[int, int, int, int, int]:
    return len(tally.sent), len(tally.delivered), tally.duplicates, tally.lost, tally.reconnections


def test_a_time_counts_once_for_each_subscriber_that_it_was_sent_to() -> None:
    server = [published(1, "a", "b"), published(2, "a")]
    tally = count([server, subscriber("a", 1, 2, connections=3), subscriber("b", 1)])
    assert figures(tally) == (3, 3, 0, 0, 2)
    assert tally.good


def test_a_time_that_reached_the_wrong_subscriber_is_lost_though_the_sums_agree() -> None:
    server = [published(1, "a", "b"), published(2, "a")]
    tally = count([server, subscriber("a", 1, connections=3), subscriber("b", 1, 2)])
    assert figures(tally) == (3, 3, 0, 1, 2)
    assert not tally.good


def test_a_job_done_twice_is_a_duplicate_and_not_lost() -> None:
    worker: list[Report] = [{"kind": "connected"}] * 3
    tally = count([jobs("accepted", 1, 2), worker + jobs("done", 1), jobs("began", 2) + jobs("done", 1, 2)])
    assert figures(tally) == (2, 2, 1, 0, 2)
    assert tally.good


def test_a_job_begun_and_not_done_is_lost() -> None:
    tally = count([jobs("accepted", 1, 2), jobs("began", 1, 2) + jobs("done", 1)])
    assert figures(tally) == (2, 1, 0, 1, 0)
    assert str(tally) == "2 sent, 1 delivered, 0 duplicates, 1 lost, 0 reconnections"
    assert not tally.good


def test_the_first_connection_of_each_process_is_no_reconnection() -> None:
    assert count([[{"kind": "connected"}], [{"kind": "connected"}]]).reconnections == 0


def test_nothing_to_recover_from_is_no_success() -> None:
    assert not count([jobs("accepted", 1), jobs("done", 1)]).good
