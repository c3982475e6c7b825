"""Connections that have been accepted and have not said who they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

__all__ = ["MOST_STRANGERS", "Stranger", "Strangers"]

MOST_STRANGERS: Final = 256
PATIENCE: Final = 0.2
"""Seconds that one has to say something, from when it came or was answered, before it may have to go for the sake of
others."""
FAR_AWAY: Final = 1.0
"""The same for one that was answered, as long as most have said nothing: its next word may be on its way."""
SHARE: Final = 8
"""Of them this part may have to go at a time, so that not all are looked at for each newcomer."""
EVICTED: Final = "evicted: too many connections have not finished their handshake"


class Stranger(Protocol):
    """One of them."""

    @property
    def answered(self) -> bool:
        """Whether it has said enough to be answered: the beginning of a TLS handshake."""

    @property
    def unheard(self) -> bool:
        """Whether something has been received from it that was not looked at yet."""

    def fileno(self) -> int:
        """Its descriptor."""

    def close(self, reason: str, error: BaseException | None) -> None:
        """Turn it away."""


class Strangers:
    """A bounded number of them. When there are too many, and more want to come, those go that have said nothing for a
    while, the oldest first. Who has said something that we have not got round to hear is spared: it is this end that is
    behind, and whoever wants to come waits in the backlog. On the network thread."""

    def __init__(self, readable: Callable[[Iterable[int]], set[int]]) -> None:
        """``readable`` tells of which descriptors something is to be read."""
        self._readable = readable
        self._since: dict[Stranger, float] = {}
        """From when on it is waited for."""
        self._answered: set[Stranger] = set()
        """Those of whom that was noticed."""
        self._evicting = False

    def __len__(self) -> int:
        return len(self._since)

    def add(self, stranger: Stranger, now: float) -> None:
        self._since[stranger] = now

    def discard(self, stranger: Stranger) -> None:
        """It has said who it is, or has gone."""
        self._since.pop(stranger, None)
        self._answered.discard(stranger)

    def is_full(self, limit: int, now: float, is_awaited: Callable[[], bool]) -> bool:
        """Whether there may be no more of them, after some had to go if there are as many as ``limit`` (or 256) and
        ``is_awaited()`` says that somebody else wants to come."""
        limit = min(limit, MOST_STRANGERS)
        if len(self) >= limit and self._since and not self._evicting and is_awaited():
            self._evicting = True  # closing them comes back to here
            try:
                self._evict(max(len(self) - limit + 1, limit // SHARE), now)
            finally:
                self._evicting = False
        return len(self) >= limit

    def _evict(self, count: int, now: float) -> None:
        for one in self._since:
            if one.answered and one not in self._answered:
                self._answered.add(one)
                self._since[one] = now
        answered = self._answered
        patience = FAR_AWAY if 2 * len(answered) <= len(self) else PATIENCE
        tried = [one for one, since in self._since.items()
                 if now - since >= (patience if one in answered else PATIENCE)]
        if not tried:
            return
        ready = self._readable(one.fileno() for one in tried)
        silent = [one for one in tried if one.fileno() not in ready and not one.unheard]
        for one in silent[:count]:
            one.close(EVICTED, None)
