"""Messages that have no connection yet, or none any more. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from ..wire.envelope import Frame, frame_size

__all__ = ["Kept", "Limits", "Parked", "large_size"]

MOST_MARKS: Final = 10
"""So many times its marks a Søcket keeps for absent peers, all of them together."""


class Limits(NamedTuple):
    """The marks on a queue: in messages and in bytes."""

    messages: int
    bytes: int


def large_size(frame: Frame) -> int:
    """What ``frame`` counts for in bytes: nothing, unless it is kept as (header, payload)."""
    return frame_size(frame) if isinstance(frame, tuple) else 0


class Kept(deque[Frame]):
    """Frames, oldest first, and how many bytes the large ones among them have."""

    large = 0

    def add(self, frame: Frame) -> None:
        self.append(frame)
        if type(frame) is tuple:
            self.large += large_size(frame)

    def put_back(self, frames: list[Frame]) -> None:
        """In front of the others."""
        self.extendleft(reversed(frames))
        self.large += sum(map(large_size, frames))

    def take(self) -> Frame:
        """The oldest."""
        frame = self.popleft()
        if type(frame) is tuple:
            self.large -= large_size(frame)
        return frame

    def is_full(self, limits: Limits) -> bool:
        return len(self) >= limits.messages or self.large >= limits.bytes


class Parked:
    """At-least-once messages for certain peers that are away, or full. The marks hold for each of these peers; all of
    them together may have ten times as many, so that those who never come back do not fill the memory."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._together = Limits(MOST_MARKS * limits.messages, MOST_MARKS * limits.bytes)
        self._by_identity: dict[bytes, Kept] = {}
        self._count = 0
        self._large = 0

    def __len__(self) -> int:
        return self._count

    def of(self, identity: bytes) -> Kept | None:
        """Those for one peer, if there are any; not to be changed."""
        return self._by_identity.get(identity)

    def has_room(self, identity: bytes) -> bool:
        kept = self._by_identity.get(identity)
        return not self._is_full and (kept is None or not kept.is_full(self._limits))

    @property
    def _is_full(self) -> bool:
        return self._count >= self._together.messages or self._large >= self._together.bytes

    def add(self, identity: bytes, frame: Frame) -> None:
        self._by_identity.setdefault(identity, Kept()).add(frame)
        self._count += 1
        self._large += large_size(frame)

    def put_back(self, identity: bytes, frames: list[Frame]) -> None:
        """In front of the others for that peer."""
        if frames:
            self._by_identity.setdefault(identity, Kept()).put_back(frames)
            self._count += len(frames)
            self._large += sum(map(large_size, frames))

    def take(self, identity: bytes) -> Frame:
        """The oldest for that peer."""
        kept = self._by_identity[identity]
        frame = kept.take()
        if not kept:
            del self._by_identity[identity]
        self._count -= 1
        self._large -= large_size(frame)
        return frame

    def fullest(self, identity: bytes) -> bytes | None:
        """Whose oldest message has to go for one to ``identity``: its own, unless it is the others that have filled
        what there is for all together."""
        kept = self._by_identity.get(identity)
        if self._is_full and (kept is None or not kept.is_full(self._limits)):
            return max(self._by_identity, key=lambda one: len(self._by_identity[one]))
        return identity if kept else None

    def take_all(self) -> list[Frame]:
        """The end."""
        frames: list[Frame] = [frame for kept in self._by_identity.values() for frame in kept]
        self._by_identity.clear()
        self._count = self._large = 0
        return frames
