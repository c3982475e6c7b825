"""Waiting for what a server does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable

from .pairs import TIMEOUT


def eventually(condition: Callable[[], object], timeout: float = TIMEOUT) -> None:
    """Wait until ``condition()`` is true: for states that no event tells of."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it has not come true in time"
        time.sleep(0.002)
