"""Interrupts at will: one at the n-th place where it can strike, or a storm of them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import netmsg

LIBRARY = os.path.dirname(netmsg.__file__)
TESTS = os.path.dirname(os.path.dirname(__file__))

raise_signal: Any = ctypes.pythonapi["PyErr_SetInterruptEx"]
raise_signal.restype = None


class Pending:
    """Indexing it with the number of a signal raises that, in C: whoever does that is not interrupted by it before the
    next place where the interpreter looks for signals."""

    __getitem__ = raise_signal


PENDING: Final[Any] = Pending()
NUMBER: Final = signal.SIGUSR1


class Struck(KeyboardInterrupt):
    """What stands for Ctrl-C here."""


class Strike:
    """Raise ``error`` in this thread at the ``number``-th place of the library's code where an interrupt can strike: at
    the beginning of a function, and at the return of a call into C. (At the end of a loop's round too, which only a
    storm tries.) Once, and also while another exception is on its way."""

    def __init__(self, number: int, error: Callable[[str], BaseException] = Struck) -> None:
        self._error = error
        self.left = number
        """How many places are still to come; 0 once it has struck."""

    @property
    def struck(self) -> bool:
        return not self.left

    def __enter__(self) -> Strike:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_return" and getattr(argument, "__name__", "") == "__enter__":
            return  # CPython 3.15 tells of this one, too; but no interrupt comes between it and the block
        if (event in ("call", "c_return") and self.left and frame.f_code.co_filename.startswith(LIBRARY)
                and not _collecting(frame)):
            self.left -= 1
            if not self.left:
                raise self._error(f"{event} in {frame.f_code.co_qualname}, line {frame.f_lineno}")


def _collecting(frame: FrameType | None) -> bool:
    """Whether this is on behalf of an object that goes away: Python lets no interrupt through from there."""
    while frame is not None and frame.f_code.co_name not in ("__del__", "_remove"):
        frame = frame.f_back
    return frame is not None


class SignalStrike(Strike):
    """The same by a signal that is pending all the time, in the main thread: so the places are those where the
    interpreter really looks, whatever version it is of, at the end of a loop's round and inside of C as well. ``error``
    may also do something, and return ``None``: what another thread does, to which the interpreter changes there. If it
    cannot yet, it sets `left` anew.

    Code of the tests is passed over, as if it were in C: what stands in for a socket is to be called as a built-in
    function is, by way of `functools.partial`, if there is to be a place behind it.

    Not under a tracer (so ``pytest.mark.untraced``): CPython 3.11 looks again and again at the beginning of a traced
    function, as long as a signal is pending.
    """

    def __init__(self, number: int, error: Callable[[str], BaseException | None] = Struck) -> None:
        super().__init__(number)
        self._act = error
        self._over = False
        self._before: Any = None

    def __enter__(self) -> SignalStrike:
        self._before = signal.signal(NUMBER, self._look)
        self._over = self.struck
        PENDING[NUMBER]
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        signal.signal(NUMBER, self._before)  # which looks for signals first

    def _look(self, number: int, frame: FrameType | None) -> None:
        if self._over:
            return
        if frame is not None and _in_the_library(frame):
            self.left -= 1
            if not self.left:
                error = self._act(f"in {frame.f_code.co_qualname}, line {frame.f_lineno}")
                self._over = self.struck
                if error is not None:
                    raise error
            if self._over:
                return
        PENDING[NUMBER]  # and from here to the return nobody looks


def _in_the_library(frame: FrameType | None) -> bool:
    """Whether this is the library, or what it calls of the interpreter's, and not on behalf of an object that goes
    away."""
    inside = False
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(LIBRARY):
            inside = True
        elif file.startswith(TESTS) or "site-packages" in file:
            break
        if frame.f_code.co_name in ("__del__", "_remove"):
            return False
        frame = frame.f_back
    return inside


def strike_everywhere(trial: Callable[[Strike], None], error: Callable[[str], BaseException] = Struck, *,
                      kind: type[Strike] = Strike) -> int:
    """Repeat ``trial``, with a strike at the first place, at the second and so on, until there is none left: how many
    there were."""
    number = 0
    while True:
        number += 1
        strike = kind(number, error)
        trial(strike)
        if not strike.struck:
            return number - 1


class Storm:
    """How an interrupt of the kernel's timer is dealt out: `Struck`, but never in the test's own lines, which could not
    tell what they had already counted, and only while ``raging``."""

    def __init__(self) -> None:
        self.raging = True
        self.strikes = 0

    def strike(self, number: int, frame: FrameType | None) -> None:
        if not self.raging or frame is None or frame.f_code.co_filename.startswith(TESTS) or _collecting(frame):
            return
        inner: FrameType | None = frame
        while inner is not None:
            if inner.f_code.co_filename.startswith(LIBRARY):
                self.strikes += 1
                raise Struck
            if "site-packages" in inner.f_code.co_filename:
                return  # what others do when garbage is collected, and the interpreter lets nothing through from there
            inner = inner.f_back


@contextmanager
def storm(every: float = 0.0004) -> Iterator[Storm]:
    """A timer of the kernel's, which strikes wherever the program is just then, and not only where it lets another
    thread run. The test must leave SIGALRM to it: ``pytest.mark.timeout(method="thread")``."""
    raging = Storm()
    before = signal.signal(signal.SIGALRM, raging.strike)
    signal.setitimer(signal.ITIMER_REAL, every, every)
    try:
        yield raging
    finally:
        raging.raging = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
