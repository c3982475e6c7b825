"""Programs that run as processes of their own, and tell what they do by what they print."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

TIMEOUT = 20.0
"""Seconds that a test waits for a line, or for an end, before it fails. Starting Python counts."""

PYTHON = (sys.executable, "-X", "dev", "-W", "error")
"""How tests run a program: whatever it leaves open is heard of."""

ROOT = Path(__file__).resolve().parents[2]


class Program:
    """A Python program, as `PYTHON` runs it; or another interpreter's.

    Its standard output is read here, while waiting for something and in the test's own thread; nothing is read in the
    background. Standard error goes to a file, which cannot fill up and stall the program.

    :param arguments: for the interpreter: a path, or ``-m`` and a module, and what follows.
    :param env: is added to the environment.
    :param interpreter: what runs it.
    """

    def __init__(self, *arguments: str | os.PathLike[str], env: Mapping[str, str] | None = None,
                 interpreter: Sequence[str] = PYTHON) -> None:
        self.lines: list[str] = []
        """What it has printed, as far as it has been read."""
        self._seen = 0  # how many of them `wait_for` and `read_line` have passed
        self._partial = b""
        self._at_end = False
        self._name = " ".join(os.path.basename(argument) for argument in arguments)
        self._errors = tempfile.TemporaryFile()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **(env or {})}
        with interruptible():
            self._process = subprocess.Popen(
                [*interpreter, *arguments], env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input = self._process.stdin
        self._output = self._process.stdout

    def write_line(self, text: str) -> None:
        """Type a line. Short ones only: a program that does not read would block the test."""
        self._input.write(text.encode() + b"\n")
        self._input.flush()

    def end_input(self) -> None:
        """What Ctrl-D does."""
        self._input.close()

    def read_line(self, timeout: float = TIMEOUT) -> str:
        """The next line that it prints."""
        return self.wait_for("", timeout).string

    def wait_for(self, pattern: str, timeout: float = TIMEOUT) -> re.Match[str]:
        """The next line in which the regular expression is found; those before it are passed over."""
        found: re.Match[str] | None = None

        def look() -> bool:
            nonlocal found
            while found is None and self._seen < len(self.lines):
                found = re.search(pattern, self.lines[self._seen])
                self._seen += 1
            return found is not None

        wait_until(look, self, timeout=timeout)
        assert found is not None
        return found

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        """What a service manager does."""
        self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """What Ctrl-Z does, and cannot be refused: it stands still until it may `go_on`."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a chance to say goodbye."""
        self._process.kill()

    def finish(self, timeout: float = TIMEOUT) -> int:
        """Wait for its end, and read what it prints until then. Returns the exit status."""
        deadline = time.monotonic() + timeout
        wait_until(lambda: self._at_end, self, timeout=timeout)
        return self._process.wait(max(0.0, deadline - time.monotonic()))

    def errors(self) -> str:
        """What it has written to standard error."""
        # pread, as the program writes at the position that both share.
        return os.pread(self._errors.fileno(), 1_000_000, 0).decode(errors="replace")

    def complaints(self) -> str:
        """The same without what netmsg has logged: that somebody is away for a while is no fault of a program."""
        return re.sub(r"^Søcket [0-9a-f]{8}: .*\n", "", self.errors(), flags=re.MULTILINE)

    def close(self) -> None:
        """End it, in whatever way, and give back what it held here. Idempotent."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(TIMEOUT)
        self._output.close()
        self._errors.close()
        try:
            self._input.close()
        except BrokenPipeError:
            pass  # a line that it did not live to read

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        last = self.lines[-20:]
        return f"{self._name}\n  printed {len(self.lines)} lines, at last {last}\n  and to stderr {self.errors()!r}"

    def fileno(self) -> int:
        """For `wait_until`: readable when something was printed; -1 after the end of the output."""
        return -1 if self._at_end else self._output.fileno()

    def read_available(self) -> None:
        """For `wait_until`: take what was printed, when `fileno` is readable."""
        data = os.read(self._output.fileno(), 65536)
        if not data:
            self._at_end = True
        *lines, self._partial = (self._partial + data).split(b"\n")
        self.lines += [line.decode() for line in lines]


def wait_until(condition: Callable[[], bool], *programs: Program, timeout: float = TIMEOUT) -> None:
    """Read what ``programs`` print until the condition, of what they printed, is true.

    Fails when the time is over, and at once when all of them have ended and the condition is still false.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        poll = select.poll()
        by_descriptor = {program.fileno(): program for program in programs if program.fileno() != -1}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.POLLIN)
        left = deadline - time.monotonic()
        ready = poll.poll(left * 1000) if by_descriptor and left > 0 else []
        if not ready:
            why = "in time" if by_descriptor else "before the end of the output"
            raise AssertionError(f"it did not happen {why}:\n" + "\n".join(map(str, programs)))
        for descriptor, _ in ready:
            by_descriptor[descriptor].read_available()


@contextmanager
def interruptible() -> Iterator[None]:
    """See to it that this program, and one that is started in here, can be interrupted.

    A process inherits it if SIGINT is ignored, as it is when the tests run under ``nohup`` or behind a shell's ``&``;
    a handler, however, is not inherited, so that the program begins with the default.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if before is signal.SIG_IGN:
            signal.signal(signal.SIGINT, before)
