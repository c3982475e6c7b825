"""Which inputs are worth to be kept: those that reach what no other one does, and as short as that goes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import netmsg

from .driving import CORPUS, corpus_of, name_of
from .targets import TARGETS

__all__ = ["reached", "shortened", "take_over"]

PACKAGE = str(Path(netmsg.__file__).parent)
Steps = frozenset[tuple[str, int, int]]
"""From one line of a file to another."""


def reached(function: Callable[[bytes], None], data: bytes) -> Steps:
    """The steps within netmsg; none of an input that fails."""
    steps: set[tuple[str, int, int]] = set()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE):
            return None
        before = 0

        def line(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal before
            steps.add((name, before, frame.f_lineno))
            before = frame.f_lineno
            return line

        return line

    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        function(data)
    except Exception:
        return frozenset()
    finally:
        sys.settrace(outer)
    return frozenset(steps)


def shortened(data: bytes, still: Callable[[bytes], bool]) -> bytes:
    """With stretches taken away for which it ``still`` does what it is kept for."""
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + size:]
            if still(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data


def take_over(target: str, found: Iterable[bytes]) -> list[Path]:
    """Into the corpus; the files that were made."""
    function = TARGETS[target].function
    there: set[tuple[str, int, int]] = set()
    for data in corpus_of(target).values():
        there |= reached(function, data)
    made = []
    for data in sorted(found, key=len):
        new = reached(function, data) - there
        if new:
            data = shortened(data, lambda shorter: new <= reached(function, shorter))
            there |= reached(function, data)
            path = CORPUS / target / name_of(data)
            path.write_bytes(data)
            made.append(path)
    return made
