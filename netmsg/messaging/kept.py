"""Messages that have no connection yet, or none any more. Pure.

An interrupt (Ctrl-C) may come at any call. So what belongs together is changed in a row without one, or with one at its
end: the count and the message that it counts, and, in `Router`, the place that a message leaves and the one it goes to.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Final, NamedTuple

from ..wire.messages import Queued, large_size
from .lane import Lane

__all__ = ["Copies", "Kept", "Limits", "Mark", "Parked", "Published"]

MOST_GONE: Final = 1000
"""Of so many that have gone it is remembered when they were there,"""
MOST_VISITS: Final = 8
"""and of each of them how often."""
MOST_MARKS: Final = 10
"""So many times its marks a Søcket keeps for absent peers, all of them together."""


class Limits(NamedTuple):
    """The marks on a queue: in messages and in bytes."""

    messages: int
    bytes: int


class Kept(deque[Queued]):
    """Messages, oldest first, and how many bytes the large ones among them have."""

    large = 0

    def add(self, message: Queued) -> None:
        large = large_size(message)
        self.large += large
        self.append(message)

    def put_back(self, messages: list[Queued]) -> None:
        """In front of the others."""
        large = sum(map(large_size, messages))
        backwards = messages[::-1]
        self.large += large
        self.extendleft(backwards)

    def drop_oldest(self) -> Queued:
        message = self[0]
        large = large_size(message)
        self.large -= large
        del self[0]
        return message

    def is_full(self, limits: Limits) -> bool:
        return len(self) >= limits.messages or self.large >= limits.bytes


class Parked:
    """At-least-once messages for certain peers that are away, or full. The marks hold for each of these peers; all of
    them together may have ten times as many, so that those who never come back do not fill the memory."""

    def __init__(self, limits: Limits) -> None:
        self.count = 0
        self.large = 0
        """Bytes of the large ones. Changed, as `count` is, by whoever takes one away: see `Router`."""
        self._limits = limits
        self._together = Limits(MOST_MARKS * limits.messages, MOST_MARKS * limits.bytes)
        self._by_identity: dict[bytes, Kept] = {}

    def of(self, identity: bytes) -> Kept | None:
        """Those for one peer, if there are any."""
        return self._by_identity.get(identity) or None

    def has_room(self, identity: bytes) -> bool:
        kept = self._by_identity.get(identity)
        return not self._is_full and (kept is None or not kept.is_full(self._limits))

    @property
    def _is_full(self) -> bool:
        return self.count >= self._together.messages or self.large >= self._together.bytes

    def add(self, identity: bytes, message: Queued) -> None:
        kept = self._by_identity.setdefault(identity, Kept())
        large = large_size(message)
        self.count += 1
        self.large += large
        kept.large += large
        kept.append(message)

    def put_back(self, identity: bytes, messages: list[Queued]) -> None:
        """In front of the others for that peer."""
        if not messages:
            return
        kept = self._by_identity.setdefault(identity, Kept())
        count, large, backwards = len(messages), sum(map(large_size, messages)), messages[::-1]
        self.count += count
        self.large += large
        kept.large += large
        kept.extendleft(backwards)

    def drop_oldest(self, identity: bytes) -> Queued:
        """Of those for that peer."""
        kept = self._by_identity[identity]
        message = kept[0]
        large = large_size(message)
        self.count -= 1
        self.large -= large
        kept.large -= large
        del kept[0]
        self.tidy(identity)
        return message

    def tidy(self, identity: bytes) -> None:
        """Forget a peer for whom nothing is kept any more."""
        if not self._by_identity.get(identity, True):
            del self._by_identity[identity]

    def in_the_way(self, identity: bytes) -> bytes | None:
        """Whose oldest message has to go for one to ``identity``: its own, unless it is the others that have filled
        what there is for all together; then that of the peer for whom messages have been kept for the longest."""
        kept = self._by_identity.get(identity)
        if self._is_full and (kept is None or not kept.is_full(self._limits)):
            return next((one for one, messages in self._by_identity.items() if messages), None)
        return identity if kept else None

    def take(self, identity: bytes) -> list[Queued]:
        """All of those for one peer."""
        kept = self._by_identity.pop(identity, Kept())
        self.count -= len(kept)
        self.large -= kept.large
        return [*kept]

    def take_all(self) -> list[Queued]:
        """The end."""
        messages: list[Queued] = [message for kept in self._by_identity.values() for message in kept]
        self._by_identity.clear()
        self.count = self.large = 0
        return messages


class Mark(NamedTuple):
    """What is known of one message that was published."""

    whose: bytes
    """Whom it was for."""
    since: int
    """More than so many had been published before it was,"""
    until: int
    """and no more than so many with it."""


class Published(Kept):
    """What was published, for those to whom one endpoint leads."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: deque[Mark] = deque()

    def keep(self, message: Queued, mark: Mark) -> None:
        large = large_size(message)
        self.large += large
        self.marks += (mark,)
        self.append(message)

    def drop_oldest(self) -> Queued:
        message = self[0]
        large = large_size(message)
        self.large -= large
        del self.marks[0]
        del self[0]
        return message


class Copies(dict[object, Published]):
    """Published messages for peers that we dial and that went away, by what is dialled. Other threads may look how much
    it is, while peers come and go."""

    def __init__(self) -> None:
        super().__init__()
        self._gone: dict[bytes, tuple[tuple[int, int], ...]] = {}  # when those who have gone were there: `Lane.visits`

    def keep(self, lane: Lane, message: Queued, published: int, limits: Limits) -> bool:
        """One message more, which the queue of a peer had when so many had been published; false at the marks."""
        copies = self.setdefault(lane.dialled, Published())
        if copies.is_full(limits):  # there may be more than the marks allow: see `Lane.backlog`
            return False
        copies.keep(message, Mark(lane.identity, lane.queued_since, published))
        return True

    def comes(self, lane: Lane, published: int) -> None:
        """A peer comes, when so many messages have been published; perhaps it was there before."""
        lane.visits = self._gone.pop(lane.identity, ())
        lane.since = lane.queued_since = published

    def goes(self, lane: Lane, published: int) -> None:
        """It has gone."""
        visits = lane.visits
        since = lane.since
        if visits and visits[-1][1] == since:  # it has missed nothing in between
            since = visits[-1][0]
            visits = visits[:-1]
        visits = (*visits, (since, published))
        if len(visits) > MOST_VISITS:
            visits = ((visits[0][0], visits[1][1]), *visits[2:])  # as if it had been there in between, too
        self._gone[lane.identity] = visits
        if len(self._gone) > MOST_GONE:
            del self._gone[next(iter(self._gone))]

    def has_for(self, endpoint: object, identity: bytes, there: Lane | None) -> bool:
        """Whether anything is kept for an endpoint that this peer has not had, be it ``there`` or not."""
        copies = self.get(endpoint)
        if copies is None:
            return False
        visits = self._gone.get(identity, ()) if there is None else _visits(there)
        return any(_is_for(identity, visits, mark) for mark in copies.marks)

    def take(self, endpoint: object, lane: Lane) -> list[Queued]:
        """What is kept for an endpoint, which leads to this peer: what was for it, and what was for another one and was
        published when it was not there, for certain. What it may have had stays, for the other may come back."""
        if not self.has_for(endpoint, lane.identity, lane):
            return []
        its: list[Queued] = []
        others = Published()
        copies = self.pop(endpoint)
        visits = _visits(lane)
        for message, mark in zip(copies, copies.marks):
            if _is_for(lane.identity, visits, mark):
                its.append(message)
                lane.queued_since = min(lane.queued_since, mark.since)
            else:
                others.keep(message, mark)
        if others:
            self[endpoint] = others
        return its

    def longest_ones(self) -> list[Published]:
        """Those for the peers for whom most is kept: these stand at the mark."""
        longest = self.longest
        return [copies for copies in self.values() if len(copies) == longest] if longest else []

    def take_all(self) -> list[Queued]:
        """The end."""
        messages = [message for copies in self.values() for message in copies]
        self.clear()
        return messages

    @property
    def longest(self) -> int:
        """How many messages are kept for the peer for whom most are."""
        return max(map(len, tuple(self.values())), default=0)

    @property
    def largest(self) -> int:
        """How many bytes the large ones have of the peer for whom that is most."""
        return max((copies.large for copies in tuple(self.values())), default=0)

    @property
    def count(self) -> int:
        return sum(map(len, tuple(self.values())))


def _visits(there: Lane) -> tuple[tuple[int, int], ...]:
    return (*there.visits, (there.since, sys.maxsize))


def _is_for(identity: bytes, visits: tuple[tuple[int, int], ...], mark: Mark) -> bool:
    return mark.whose == identity or not any(since < mark.until and mark.since < until for since, until in visits)
