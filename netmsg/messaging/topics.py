"""What the peers of a publisher have subscribed to, and so who is to get a publication. Pure.

A publication is looked up once for each *length* that prefixes have, of which there are no more than 256, and not once
for each prefix.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from .lane import Lane

__all__ = ["MOST_SUBSCRIPTIONS", "Topics"]

MOST_SUBSCRIPTIONS: Final = 10_000
"""Of one connection."""


class Topics:
    """Guarded as the router is. Who has subscribed to nothing gets everything."""

    def __init__(self) -> None:
        self._by_prefix: dict[bytes, dict[Lane, None]] = {}
        self._lengths: Counter[int] = Counter()  # of the prefixes
        self._by_lane: dict[Lane, set[bytes]] = {}

    def __bool__(self) -> bool:
        """Whether anybody has subscribed."""
        return bool(self._by_lane)

    def subscribe(self, lane: Lane, prefix: bytes) -> bool:
        """May be repeated. False if a connection has as many as it may."""
        prefixes = self._by_lane.setdefault(lane, set())
        if prefix in prefixes:
            return True
        if len(prefixes) >= MOST_SUBSCRIPTIONS:
            return False
        prefixes.add(prefix)
        lanes = self._by_prefix.get(prefix)
        if lanes is None:
            lanes = self._by_prefix[prefix] = {}
            self._lengths[len(prefix)] += 1
        lanes[lane] = None
        return True

    def unsubscribe(self, lane: Lane, prefix: bytes) -> None:
        """From what it has not subscribed to as well."""
        prefixes = self._by_lane.get(lane)
        if prefixes is None or prefix not in prefixes:
            return
        prefixes.remove(prefix)
        if not prefixes:
            del self._by_lane[lane]
        lanes = self._by_prefix[prefix]
        del lanes[lane]
        if not lanes:
            del self._by_prefix[prefix]
            self._lengths[len(prefix)] -= 1
            if not self._lengths[len(prefix)]:
                del self._lengths[len(prefix)]

    def forget(self, lane: Lane) -> None:
        """It has gone."""
        for prefix in tuple(self._by_lane.get(lane, ())):
            self.unsubscribe(lane, prefix)

    def audience(self, data: bytes, ring: Sequence[Lane]) -> Sequence[Lane]:
        """Who of ``ring``, in which all are who have subscribed, is to get this publication. Under the lock, if it is
        to be right."""
        wanted: dict[Lane, None] = {}
        for length in tuple(self._lengths):  # who waits for room asks without the lock
            lanes = self._by_prefix.get(data[:length])
            if lanes is not None:
                wanted.update(lanes)
        if len(self._by_lane) == len(ring):
            return [*wanted]
        return [lane for lane in ring if lane in wanted or lane not in self._by_lane]
