"""Messages that were lost, by cause. Pure."""

from __future__ import annotations

from ..locks import new_lock

__all__ = ["Losses"]


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
