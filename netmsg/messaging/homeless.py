"""Messages that were handed back while nobody else had room: whose turn it is when somebody has. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Set

from .lane import Lane

__all__ = ["Homeless"]


class Homeless:
    """Each with the lane that still has it, and by those who have refused it: there are few such circles, so that
    whoever has room need not be compared with every message."""

    def __init__(self) -> None:
        self._lanes: dict[bytes, Lane] = {}
        self._circles: dict[frozenset[bytes], dict[bytes, None]] = {}
        """By the identities of those who are not to have them, oldest first in each."""
        self._circle_of: dict[bytes, frozenset[bytes]] = {}

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def add(self, message_id: bytes, lane: Lane, refused_by: Set[bytes]) -> None:
        self.remove(message_id)
        circle = frozenset(refused_by)
        self._lanes[message_id] = lane
        self._circle_of[message_id] = circle
        self._circles.setdefault(circle, {})[message_id] = None

    def remove(self, message_id: bytes) -> None:
        """If it is here."""
        if self._lanes.pop(message_id, None) is not None:
            circle = self._circle_of.pop(message_id)
            members = self._circles[circle]
            del members[message_id]
            if not members:
                del self._circles[circle]

    def take_for(self, identity: bytes) -> Iterator[tuple[bytes, Lane]]:
        """One after the other, those that this peer has not refused, which are not here any more then."""
        for circle in tuple(self._circles):
            while identity not in circle and circle in self._circles:
                message_id = next(iter(self._circles[circle]))
                lane = self._lanes[message_id]
                self.remove(message_id)
                yield message_id, lane
