"""Messages that were lost, by cause. Pure."""

from __future__ import annotations

from typing import Final

from ..locks import new_lock

__all__ = ["CONFLATED", "Losses", "NO_PEER", "NO_ROOM_FOR_REPLY", "WANTED"]

CONFLATED: Final = "conflated"
NO_PEER: Final = "no peer"
NO_ROOM_FOR_REPLY: Final = "no room for the reply"
WANTED: Final = frozenset({CONFLATED, NO_PEER})
"""The causes that a Søcket is told to have: `conflate`, and `OnNoPeer.DROP`."""


class Losses:
    """Counted by any thread."""

    def __init__(self) -> None:
        self.dropped: dict[str, int] = {}
        self.undelivered = 0
        """At-least-once messages given up on. The network thread's."""
        self._lock = new_lock()  # guards `dropped`; a leaf

    def drop(self, cause: str, count: int) -> None:
        with self._lock:
            self.dropped[cause] = self.dropped.get(cause, 0) + count
