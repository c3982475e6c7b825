"""How long nothing has moved."""

from __future__ import annotations

import time
from typing import Final

__all__ = ["Patience"]

LOOKS: Final = 4
"""In the time in which nothing may move: no event tells that the other end has taken a few bytes."""


class Patience:
    """For whoever looks again and again whether something has moved. Pure, but for the clock."""

    __slots__ = ("_seconds", "_seen", "_since")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: object = None
        self._since = 0.0

    def left(self, seen: object) -> float:
        """In how many seconds to look again; 0 when for so long ``seen`` has been the same at every look."""
        now = time.monotonic()
        if seen != self._seen:
            self._seen = seen
            self._since = now
        left = self._since + self._seconds - now
        return min(left, self._seconds / LOOKS) if left > 0 else 0.0
