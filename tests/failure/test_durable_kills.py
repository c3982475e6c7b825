"""Programs with an outbox, and such as remember what they have had, are killed at any moment, again and again."""

from __future__ import annotations

import os
import random
import signal
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.aiomsg_process import reserved_port
from support.processes import Program

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


def kill_again_and_again(stage: Stage, victims: tuple[str, ...]) -> list[list[str]]:
    """Whatever was accepted has come in the end. Of each that came: which life of the receiver it was in, what was done
    with it, and the message."""
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
    accepted, received = stage.log("sender"), [line.split() for line in stage.log("receiver")]
    assert len(accepted) > 10 * KILLS
    assert set(accepted) <= {message for _, what, message in received if what == "got"}, "lost"
    return received


VICTIMS = [("sender",), ("receiver",), ("sender", "receiver")]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("victims", VICTIMS, ids="+".join)
def test_nothing_accepted_is_lost_and_nothing_acknowledged_comes_again(stage: Stage, victims: tuple[str, ...]) -> None:
    """To a receiver that keeps in a file what it has had."""
    received = kill_again_and_again(stage, victims)
    acknowledged: set[str] = set()
    for _, what, message in received:
        assert not (what == "got" and message in acknowledged), f"{message} came again"
        if what == "acknowledged":
            acknowledged.add(message)
    assert acknowledged


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("victims", VICTIMS[::2], ids="+".join)
def test_without_a_file_nothing_is_lost_and_nothing_comes_twice_in_one_life_of_the_receiver(
        stage: Stage, victims: tuple[str, ...]) -> None:
    stage.memory = "nothing"
    received = kill_again_and_again(stage, victims)
    seen: set[tuple[str, str]] = set()
    for life, what, message in received:
        if what == "got":
            assert (life, message) not in seen, f"{message} came again to receiver {life}"
            seen.add((life, message))
