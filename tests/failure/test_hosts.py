"""Programs on hosts of their own, whose network fails: what was sent arrives, once and in order."""

from __future__ import annotations

import json
import os
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hosts import Network, network
from support.processes import Program
from support.soaking import Outcome

SOAKS = bool(os.environ.get("NETMSG_SOAK"))
HEARTBEAT_TIMEOUT = 0.8
"""Seconds, of both programs."""

LEEWAY = 8.0
"""Seconds until a silence is told of that was too long: busy machines need some."""

SETTLING = 60.0
"""Seconds in which, when the network is well again, everything is to have arrived."""

BOTH = """
    import json, sys, threading, time
    from netmsg import Connecting, DeliveryGuarantee, Disconnected, Søcket

    told = {"attempts": 0, "losses": 0}

    def say(line):
        # In one go, for both threads do.
        sys.stdout.write(line + "\\n")

    def listen(sock):
        for event in sock.events():
            if isinstance(event, Connecting):
                told["attempts"] += 1
            elif isinstance(event, Disconnected):
                told["losses"] += 1
                say("lost")

    def begin(**options):
        sock = Søcket(heartbeat_interval=0.2, heartbeat_timeout=0.8, handshake_timeout=2.0, linger=0, **options)
        threading.Thread(target=listen, args=(sock,), daemon=True).start()
        return sock
"""
SENDER = BOTH + """
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
    with begin(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE) as sock:
        sock.connect(sys.argv[1], int(sys.argv[2])).wait_for_peers()
        say("sends")
        number = 0
        while not stop.wait(0.002):
            sock.send(b"%d" % number)
            number += 1
        say(f"sent {number}")
        while sock.stats().unacked:
            time.sleep(0.01)
        say(json.dumps({**told, "sent": number, "cpu": time.process_time()}))
"""
RECEIVER = BOTH + """
    with begin() as sock:
        sock.bind(sys.argv[1], 0)
        say(f"port {sock.bound_port}")
        received = 0
        for data in sock.messages():
            if data == b"the last":
                break
            assert data == b"%d" % received, (data, received)
            received += 1
        say(json.dumps({**told, "received": received}))
"""


class Stage:
    """A sender on the left host, which sends five hundred numbers a second, and a receiver on the right one."""

    def __init__(self, hosts: Network, directory: Path) -> None:
        self.hosts = hosts
        for name, code in (("sender", SENDER), ("receiver", RECEIVER)):
            (directory / f"{name}.py").write_text(textwrap.dedent(code), encoding="utf-8")
        right = hosts.right
        self.receiver = right.run(directory / "receiver.py", right.address)
        self._port = self.receiver.wait_for(r"port (\d+)")[1]
        self.sender = hosts.left.run(directory / "sender.py", right.address, self._port)
        self.sender.wait_for("sends")

    def finish(self, tell: Callable[[Outcome], None], faults: str) -> dict[str, Any]:
        """What the sender has to tell, when everything has arrived, once and in order."""
        self.sender.write_line("stop")
        assert self.sender.finish(SETTLING) == 0, self.sender
        assert not self.sender.complaints()
        last = self.hosts.left.run("-c", LAST, self.hosts.right.address, self._port)
        with last:
            assert last.finish() == 0, last
        assert self.receiver.finish() == 0, self.receiver
        sent, received = told_by(self.sender)["sent"], told_by(self.receiver)["received"]
        tell(Outcome("the network between two hosts", "one sender, at least once, 500 messages a second", faults, sent,
                     received, 0, sent - received))
        assert received == sent > 0
        return told_by(self.sender)

    def close(self) -> None:
        for program in self.sender, self.receiver:
            program.close()


def told_by(program: Program) -> dict[str, Any]:
    """At its end."""
    told: dict[str, Any] = json.loads(next(line for line in program.lines if line.startswith("{")))
    return told


LAST = """
import sys
from netmsg import Søcket
with Søcket().connect(sys.argv[1], int(sys.argv[2])) as sock:
    sock.send(b"the last")
"""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with network() as hosts:
        stage = Stage(hosts, tmp_path)
        try:
            yield stage
        finally:
            stage.close()


def go_on(seconds: float) -> None:
    """Let it take its course."""
    time.sleep(max(0.0, seconds))


@pytest.mark.timeout(200)
@pytest.mark.parametrize("seconds", [1, 10, 60] if SOAKS else [1])
@pytest.mark.parametrize("way", ["lost=1", "to=left lost=1", "to=right lost=1"])
def test_what_a_pulled_cable_holds_up_arrives_in_order(stage: Stage, way: str, seconds: int,
                                                       tell: Callable[[Outcome], None]) -> None:
    go_on(0.3)
    began = time.monotonic()
    stage.hosts.have(way)
    for program in stage.sender, stage.receiver:
        program.wait_for("lost")  # it is noticed, for nobody says that he is alive
    assert time.monotonic() - began < HEARTBEAT_TIMEOUT + LEEWAY
    go_on(began + seconds - time.monotonic())
    lasted = time.monotonic() - began
    stage.hosts.have("")
    sent = stage.finish(tell, f"{seconds} s of {way}")
    assert sent["attempts"] <= 20 + 4 * lasted, "it is dialled all the time"
    assert sent["cpu"] < 3.0 + 0.4 * lasted, "it looks all the time whether somebody is there"


def test_a_host_that_gets_another_address_connects_again(stage: Stage, tell: Callable[[Outcome], None]) -> None:
    go_on(0.3)
    stage.hosts.left.move_to("10.213.7.77")
    stage.sender.wait_for("lost")
    go_on(0.3)
    stage.finish(tell, "another address")


@pytest.mark.timeout(200)
@pytest.mark.parametrize("way", ["lost=0.1", "delayed=0.05", "doubled=0.5", "lost=0.05 delayed=0.02 doubled=0.2"])
def test_a_bad_network_loses_and_doubles_nothing(stage: Stage, way: str, tell: Callable[[Outcome], None]) -> None:
    stage.hosts.have(way)
    seconds = 20.0 if SOAKS else 1.0
    go_on(seconds)
    stage.finish(tell, f"{seconds:g} s of {way}")
