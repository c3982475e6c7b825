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

KILLS = 200 if os.environ.get("NETMSG_SOAK") else 12

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
    path, port, log = sys.argv[1], int(sys.argv[2]), os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND)
    sock = Søcket(ack_mode=AckMode.MANUAL, dedupe_path=path).bind(port=port)
    print("ready", flush=True)
    for delivery in sock.deliveries():
        os.write(log, b"got " + delivery.data)
        delivery.ack()
        os.write(log, b"acknowledged " + delivery.data)
"""


class Stage:
    """The two, with their files."""

    def __init__(self, directory: Path, port: int) -> None:
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
                          life or str(self._lives))
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


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("victims", [("sender",), ("receiver",), ("sender", "receiver")], ids="+".join)
def test_nothing_accepted_is_lost_and_nothing_acknowledged_comes_again(stage: Stage, victims: tuple[str, ...]) -> None:
    dice = random.Random(17)
    running = {name: stage.start(name) for name in ("receiver", "sender")}
    try:
        for _ in range(KILLS // 3):
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
    accepted, received = stage.log("sender"), stage.log("receiver")
    acknowledged = {line.split()[1] for line in received if line.startswith("acknowledged")}
    got = {line.split()[1] for line in received if line.startswith("got")}
    assert len(accepted) > 10 * KILLS // 3
    assert set(accepted) <= got, "lost"
    seen: set[str] = set()
    for line in received:
        what, message = line.split()
        assert not (what == "got" and message in seen), f"{message} came again"
        if what == "acknowledged":
            seen.add(message)
    assert len(seen) == len(acknowledged)
