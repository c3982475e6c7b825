"""Programs with an outbox, and such as remember what they have had, are killed at any moment, again and again."""

from __future__ import annotations

import os
import random
import signal
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.aiomsg_process import reserved_port
from support.processes import Program
from support.soaking import Outcome

KILLS = 200 if os.environ.get("NETMSG_SOAK") else 4
"""Of each victim."""

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing can be killed")

SENDER = """
    import os, sys, time
    from netmsg import DeliveryGuarantee, Søcket
    path, port, log, life = sys.argv[1], int(sys.argv[2]), os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND), sys.argv[4]
    sock = Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, outbox=path, send_hwm=300, resend_after=1.0,
                  reconnection_delay=lambda: 0.02).connect(port=port)
    print("ready", flush=True)
    number = 0
    while life != "last":
        number += 1
        message = f"{life}.{number}\\n".encode()
        sock.send(message)
        os.write(log, message)
    while sock.stats().unacked:
        time.sleep(0.01)
    sock.close()
"""
RECEIVER = """
    import os, sys
    from netmsg import AckMode, Søcket
    path, port, log, life = sys.argv[1], int(sys.argv[2]), os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND), sys.argv[4]
    sock = Søcket(ack_mode=AckMode.MANUAL, dedupe_path=path if "a file" in sys.argv else None).bind(port=port)
    print("ready", flush=True)
    for delivery in sock.deliveries():
        os.write(log, f"{life} got ".encode() + delivery.data)
        delivery.ack()
        os.write(log, f"{life} acknowledged ".encode() + delivery.data)
"""


class Stage:
    """The two, with their files."""

    def __init__(self, directory: Path, port: int) -> None:
        self.memory = "a file"
        """What the receiver remembers in what it has had."""
        self._port = str(port)
        self._directory = directory
        self._lives = 0
        for name, code in (("sender", SENDER), ("receiver", RECEIVER)):
            (directory / f"{name}.py").write_text(textwrap.dedent(code), encoding="utf-8")
            (directory / f"{name}.log").touch()

    def start(self, name: str, life: str = "") -> Program:
        self._lives += 1
        where = self._directory
        program = Program(where / f"{name}.py", where / f"{name}.file", self._port, where / f"{name}.log",
                          life or str(self._lives), self.memory)
        program.wait_for("ready")
        return program

    def log(self, name: str) -> list[str]:
        return (self._directory / f"{name}.log").read_text(encoding="ascii").splitlines()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with reserved_port() as port:
        yield Stage(tmp_path, port)


def kill(program: Program) -> None:
    program.kill()
    program.finish()
    program.close()


class Received(NamedTuple):
    """Something that the receiver has written down."""

    life: str
    what: str
    """``got``, or ``acknowledged``."""
    message: str


def kill_again_and_again(stage: Stage, victims: tuple[str, ...]) -> tuple[set[str], list[Received]]:
    """What was accepted, and what the receiver has had."""
    dice = random.Random(17)
    running = {name: stage.start(name) for name in ("receiver", "sender")}
    try:
        for _ in range(KILLS):
            time.sleep(dice.uniform(0.0, 0.3))
            for victim in victims:
                kill(running[victim])
            for victim in reversed(victims):
                running[victim] = stage.start(victim)
        kill(running["sender"])
        last = running["sender"] = stage.start("sender", "last")
        assert last.finish(60.0) == 0, last
    finally:
        for program in running.values():
            program.close()
    accepted = set(stage.log("sender"))
    assert len(accepted) > 10 * KILLS
    return accepted, [Received(*line.split()) for line in stage.log("receiver")]


def doubled(received: list[Received], *, forever: bool) -> list[str]:
    """What came again though it had been acknowledged; or, not ``forever``, in the same life of the receiver."""
    seen: set[tuple[str, str]] = set()
    again = []
    for life, what, message in received:
        one = ("" if forever else life), message
        if what == "got" and one in seen:
            again.append(message)
        if what == ("acknowledged" if forever else "got"):
            seen.add(one)
    return again


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("victims", "memory"), [
    (("sender",), "a file"), (("receiver",), "a file"), (("sender", "receiver"), "a file"),
    (("sender",), "nothing"), (("sender", "receiver"), "nothing")],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "+".join(value))
def test_nothing_accepted_is_lost_and_nothing_acknowledged_comes_again(
        stage: Stage, victims: tuple[str, ...], memory: str, tell: Callable[[Outcome], None]) -> None:
    """To a receiver that keeps in a file what it has had; to another one, not in one of its lives."""
    stage.memory = memory
    accepted, received = kill_again_and_again(stage, victims)
    got = {message for _, what, message in received if what == "got"}
    lost, again = accepted - got, doubled(received, forever=memory == "a file")
    tell(Outcome(f"kill -9; the receiver remembers in {memory}", "one sender with an outbox, as fast as it can",
                 f"{KILLS} kills of {' and '.join(victims)}", len(accepted), len(accepted & got), len(again),
                 len(lost)))
    assert not lost and not again
