"""One time budget across the several steps of a call."""

from __future__ import annotations

import math
import threading
import time

__all__ = ["Deadline", "check_timeout"]


def check_timeout(timeout: float | None) -> None:
    """Raise ``ValueError`` for a negative or NaN ``timeout``, ``TypeError`` for one that is no number."""
    if timeout is None:
        return
    if isinstance(timeout, (str, bytes)):
        raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
    if math.isnan(timeout) or timeout < 0:
        raise ValueError(f"timeout must be None or at least 0, not {timeout!r}")


class Deadline:
    """The moment at which a call has had its time: ``timeout`` seconds after this object is made, or never.

    ``Deadline(None)`` never expires; ``Deadline(0)`` has expired already. Reads the monotonic clock, so that setting
    the wall clock changes nothing. Raises what `check_timeout` raises.
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
        """This moment, or the one ``timeout`` seconds from now if that comes first."""
        other = Deadline(timeout)
        return other if other._at < self._at else self

    @property
    def expired(self) -> bool:
        return self._at != math.inf and time.monotonic() >= self._at
