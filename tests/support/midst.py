"""Something that happens in the midst of a function: what a signal handler or another thread does there."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["in_the_midst", "lines"]


def lines(function: Callable[..., Any]) -> range:
    """The numbers of the lines of a function, from that of its ``def`` on; the first ones are not carried out."""
    return range(len(inspect.getsourcelines(function)[0]))


@contextmanager
def in_the_midst(function: Callable[..., Any], line: int, act: Callable[[], None]) -> Iterator[list[int]]:
    """When ``function`` comes to its ``line``, ``act()`` comes first: once. Yields a list of the lines at which it
    did: none where that line is not come to."""
    code = inspect.unwrap(function).__code__
    happened: list[int] = []

    def watch(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code is not code:
            return None
        if event == "line" and frame.f_lineno == code.co_firstlineno + line and not happened:
            happened.append(line)
            act()
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield happened
    finally:
        sys.settrace(before)
