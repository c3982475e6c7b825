"""One run of one contender: two processes, a deadline, and whatever happens no process left."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from .peers.contract import BINDERS, SINK, SOURCE, Report
from .workloads import PEERS, Contender

ROOT = Path(__file__).resolve().parent.parent


class RunFailed(Exception):
    """A process failed, or was not done by the deadline."""


@dataclass(frozen=True)
class Run:
    """What both sides reported."""

    source: Report
    sink: Report

    @property
    def value(self) -> float:
        """What was measured, by the one side or the other."""
        value = self.source.value if self.sink.value is None else self.sink.value
        assert value is not None
        return value

    @property
    def bottleneck(self) -> str:
        """Which side had no time to spare: ``source``, ``sink``, ``both``; or ``neither``, when each waits for the
        other."""
        busiest = max(self.source.cpu, self.sink.cpu)
        if busiest < 0.8:
            return "neither"
        if abs(self.source.cpu - self.sink.cpu) < 0.1:
            return "both"
        return SOURCE if self.source.cpu == busiest else SINK


class Side:
    """One of the two processes. Leaving it kills the process, if it is still there."""

    def __init__(self, contender: Contender, role: str, size: int, count: int, port: int) -> None:
        self.role = role
        module = f"benchmarks.peers.{PEERS[contender.peer]}"
        self._output = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, role, contender.pattern, str(size), str(count), str(port)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdout is not None
        self.stdout = self._process.stdout

    def __enter__(self) -> Side:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        self.stdout.close()

    def read(self) -> bool:
        """Take what it has printed, waiting for more; return whether there can be more. Raises `RunFailed`."""
        data = os.read(self.stdout.fileno(), 2**16)
        self._output += data
        if not data and (self._process.wait() or not self.lines):
            raise RunFailed(f"the {self.role} ended with status {self._process.returncode}")
        return bool(data)

    @property
    def lines(self) -> list[bytes]:
        """The complete lines it has printed."""
        return self._output.split(b"\n")[:-1]

    @property
    def report(self) -> Report:
        return Report(**json.loads(self.lines[-1]))


def run(contender: Contender, size: int, count: int, seconds: float) -> Run:
    """Run both sides to their end. Raises `RunFailed`: when one fails or ``seconds`` are over the other is killed."""
    deadline = time.monotonic() + seconds
    binder = BINDERS.get(contender.pattern, SINK)
    with Side(contender, binder, size, count, 0) as first, selectors.DefaultSelector() as selector:
        selector.register(first.stdout, selectors.EVENT_READ, first)
        while not first.lines:
            _read(selector, deadline)
        port = int(first.lines[0])
        with Side(contender, SOURCE if binder == SINK else SINK, size, count, port) as second:
            selector.register(second.stdout, selectors.EVENT_READ, second)
            while selector.get_map():
                _read(selector, deadline)
            reports = {side.role: side.report for side in (first, second)}
    return Run(reports[SOURCE], reports[SINK])


def _read(selector: selectors.BaseSelector, deadline: float) -> None:
    """Read from the sides that have something to say."""
    ready = selector.select(max(0.0, deadline - time.monotonic()))
    if not ready:
        waiting = " and ".join(key.data.role for key in selector.get_map().values())
        raise RunFailed(f"not done in time: {waiting}")
    for key, _ in ready:
        side: Side = key.data
        if not side.read():
            selector.unregister(side.stdout)
