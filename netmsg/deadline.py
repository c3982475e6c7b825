"""One time budget across the several steps of a call."""

from __future__ import annotations

import math
import threading
import time
from typing import Final

from .checks import check_timeout

__all__ = ["Deadline", "Overtime", "Revocable"]

HELD: Final = 8 << 20
"""Bytes that a system holds ready for a connection at most, in one direction."""
LONGEST_OVERTIME: Final = 0.5
"""Seconds in which these can be moved."""


class Deadline:
    """The moment at which a call has had its time: ``timeout`` seconds after this object is made, or never.

    ``Deadline(None)`` never expires; ``Deadline(0)`` has expired already. Reads the monotonic clock, so that setting
    the wall clock changes nothing. Raises ``ValueError`` for a ``timeout`` that is negative or NaN, ``TypeError`` for
    what is no number.
    """

    __slots__ = ("_at",)

    def __init__(self, timeout: float | None) -> None:
        if timeout is None:
            self._at = math.inf
        else:
            check_timeout(timeout)
            self._at = time.monotonic() + float(timeout)

    def remaining(self) -> float | None:
        """Seconds left, 0.0 once expired, ``None`` for ever."""
        if self._at == math.inf:
            return None
        return max(0.0, self._at - time.monotonic())

    def lock_timeout(self) -> float:
        """Seconds left in the form that ``Lock.acquire(timeout=...)`` takes: -1 for ever."""
        if self._at == math.inf:
            return -1
        return min(max(0.0, self._at - time.monotonic()), threading.TIMEOUT_MAX)

    def sooner(self, timeout: float) -> Deadline:
        """This moment, or the one ``timeout`` seconds from now if that comes first. It is not checked again."""
        at = time.monotonic() + float(timeout)
        if at >= self._at:
            return self
        other = Deadline.__new__(Deadline)
        other._at = at
        return other

    @property
    def expired(self) -> bool:
        return self._at != math.inf and time.monotonic() >= self._at

    @property
    def overdue(self) -> float:
        """Seconds since it expired; 0.0 before."""
        return max(0.0, time.monotonic() - self._at) if self._at != math.inf else 0.0


class Revocable(Deadline):
    """One that never expires, unless it is revoked: then it has expired. Whoever waits has to be woken to see it."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(None)

    def revoke(self) -> None:
        """From any thread."""
        self._at = -math.inf


class Overtime:
    """How far a call that moves bytes may go on behind its deadline as long as it need not wait: as far as the system
    can have had bytes, or room for them, ready at that moment, all of which ``timeout=0`` gets. Otherwise another end
    that is fast enough would keep it inside for as long as it likes."""

    __slots__ = ("_deadline", "_left")

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._left = HELD

    def is_over(self, moved: int) -> bool:
        """After each round that moved so many bytes, and was not the last."""
        overdue = self._deadline.overdue
        if not overdue:
            return False
        self._left -= moved
        return self._left < 0 or overdue > LONGEST_OVERTIME
