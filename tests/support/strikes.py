"""Interrupts at will: one at the n-th place where it can strike, or a storm of them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import netmsg

LIBRARY = os.path.dirname(netmsg.__file__)
TESTS = os.path.dirname(os.path.dirname(__file__))


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


def strike_everywhere(trial: Callable[[Strike], None], error: Callable[[str], BaseException] = Struck) -> int:
    """Repeat ``trial``, with a strike at the first place, at the second and so on, until there is none left: how many
    there were."""
    number = 0
    while True:
        number += 1
        strike = Strike(number, error)
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
