"""How long to wait before dialling again. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["Backoff"]

FIRST: Final = 0.1
LONGEST: Final = 2.0


class Backoff:
    """Exponential, with full jitter: a random time between 0 and a bound that doubles from 0.1 s to 2 s.

    ``random`` returns numbers from 0 to 1. With jitter the clients of a server that was restarted come back spread
    out; see https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._bound = FIRST

    def next(self) -> float:
        """Seconds to wait now."""
        delay = self._random() * self._bound
        self._bound = min(LONGEST, self._bound * 2)
        return delay

    def reset(self) -> None:
        """The connection was stable."""
        self._bound = FIRST
