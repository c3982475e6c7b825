"""What one publisher is told of our subscriptions, bit by bit. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from operator import itemgetter
from typing import Final

from .topics import MOST_SUBSCRIPTIONS

__all__ = ["Telling"]

MOST_CHANGES: Final = 4 * MOST_SUBSCRIPTIONS
"""So many wait, before those go that have come to nothing."""


class Telling:
    """In the order in which it happens, so that there are never more subscriptions at the other end than there are
    here."""

    def __init__(self) -> None:
        self._told: set[bytes] = set()  # the prefixes of what the other end knows to be wanted
        self._changes: deque[tuple[bytes, bool]] = deque()

    def __bool__(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._changes)

    def __len__(self) -> int:
        return len(self._changes)

    def change(self, prefixes: Iterable[bytes], wanted: bool) -> None:
        """What begins with these is wanted, or not any more."""
        self._changes.extend((prefix, wanted) for prefix in prefixes)
        if len(self._changes) > MOST_CHANGES:
            last = [(prefix, wanted) for prefix, wanted in dict(self._changes).items()
                    if wanted != (prefix in self._told)]
            self._changes = deque(sorted(last, key=itemgetter(1)))  # first those that make room

    def next(self) -> tuple[bytes, bool]:
        """A prefix, and whether it is wanted: it is told."""
        prefix, wanted = self._changes.popleft()
        (self._told.add if wanted else self._told.discard)(prefix)
        return prefix, wanted
