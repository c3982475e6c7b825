"""The processes of the demo: started, heard, killed and ended, with a deadline on every wait."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

__all__ = ["DemoFailed", "Process", "Processes", "Report"]

PATIENCE: Final = 10.0
"""Seconds that anything may take. Starting Python counts."""

ROLES: Final = "netmsg.cli.demo_roles"
ROOT: Final = Path(__file__).parents[2]
"""Where the package is, so that the processes find the same one."""

Report = dict[str, Any]
"""What a process said: its ``kind``, and facts that go with it."""


class DemoFailed(Exception):
    """The demo cannot go on: something did not happen in time, or a process ended that should not."""


class Process:
    """One process, and all that it has reported."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.reports: list[Report] = []
        self.popen = popen
        self.partial = b""
        self.may_end = False

    def heard(self, kind: str) -> list[Report]:
        """Its reports of one kind."""
        return [report for report in self.reports if report["kind"] == kind]


class Processes:
    """All processes of the demo. As a context manager it leaves none behind.

    Everything happens in the caller's thread: reports are read while waiting for something, and in the order in which
    each process made them.

    :param tell: is called with every process and report, to show it.
    """

    def __init__(self, tell: Callable[[Process, Report], None]) -> None:
        self.all: list[Process] = []
        """Those that have ended, too."""
        self._tell = tell
        self._selector = selectors.DefaultSelector()

    def start(self, name: str, role: str, **options: object) -> Process:
        """Start ``role`` with its command line ``options``."""
        arguments = [f"--{option.replace('_', '-')}={value}" for option, value in options.items() if value is not True]
        arguments += [f"--{option.replace('_', '-')}" for option, value in options.items() if value is True]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        # A process group of its own: Ctrl-C is for the demo, which then ends the others. Should it not come to that,
        # they end by themselves, when their standard input does.
        popen = subprocess.Popen([sys.executable, "-m", ROLES, role, *arguments], bufsize=0, process_group=0,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
        process = Process(name, popen)
        self.all.append(process)
        assert popen.stdout is not None
        self._selector.register(popen.stdout, selectors.EVENT_READ, process)
        return process

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Listen until the condition, of what has been reported, is true. Raises `DemoFailed`."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                raise DemoFailed(f"{what}: that did not happen within {PATIENCE:g} s")
            for key, _ in self._selector.select(left):
                self._read(key.data)

    def kill(self, process: Process) -> None:
        """``kill -9``: no goodbye. What it had reported before is still heard."""
        process.may_end = True
        process.popen.kill()
        self.wait_until(lambda: self._ended(process), f"the end of {process.name}")

    def end(self, *processes: Process) -> None:
        """Tell them that they are not needed any more, and hear them out. Raises `DemoFailed` if one complains."""
        for process in processes:
            process.may_end = True
            assert process.popen.stdin is not None
            process.popen.stdin.close()
        for process in processes:
            self.wait_until(lambda: self._ended(process), f"the end of {process.name}")
            if process.popen.returncode != 0:
                raise DemoFailed(f"{process.name} ended with exit status {process.popen.returncode}")

    def _ended(self, process: Process) -> bool:
        return process.popen.stdout is None or process.popen.stdout.closed

    def _read(self, process: Process) -> None:
        stdout = process.popen.stdout
        assert stdout is not None
        data = os.read(stdout.fileno(), 65536)
        *lines, process.partial = (process.partial + data).split(b"\n")
        for line in lines:
            report: Report = json.loads(line)
            process.reports.append(report)
            self._tell(process, report)
        if not data:
            self._selector.unregister(stdout)
            stdout.close()
            process.popen.wait(PATIENCE)
            if not process.may_end:
                failures = "".join(f" ({report['why']})" for report in process.heard("failed"))
                raise DemoFailed(f"{process.name} ended unasked, with exit status {process.popen.returncode}{failures}")

    def close(self) -> None:
        """Kill those that still run. Idempotent."""
        for process in self.all:
            process.popen.kill()
        for process in self.all:
            process.popen.wait(PATIENCE)
            for pipe in (process.popen.stdin, process.popen.stdout):
                if pipe is not None:
                    pipe.close()
        self._selector.close()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
