"""How much an outbox holds, for whom, and how much of that memory has. Pure.

The messages for anybody, and those for each peer, are a *stream* each, in the order in which they were sent. Memory has
the oldest of a stream, and only as many as somebody is there to get; the others wait *beyond*, in the file, from where
they are loaded page by page. Behind them the newest are still to be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .kept import Limits

__all__ = ["Reservoir", "Stream"]

NOTHING: Final = b""
"""A message id before any other."""


class Stream:
    """What there is for anybody, or for one peer."""

    __slots__ = ("addressee", "asked", "beyond", "count", "loaded", "size", "unwritten", "visit")

    def __init__(self, addressee: bytes | None, count: int = 0, size: int = 0) -> None:
        self.addressee = addressee
        self.count = self.beyond = count
        """How many messages there are, and how many of them memory does not have,"""
        self.size = size
        """and how many bytes they are together."""
        self.unwritten = 0
        """How many are not in the file yet; they are among those beyond."""
        self.loaded = NOTHING
        """The id of the newest that memory has had."""
        self.asked = False
        """Whether a page is about to be loaded."""
        self.visit = 0
        """How often memory has forgotten what it had: what was asked for before is not what is wanted."""

    @property
    def is_behind(self) -> bool:
        """Whether the file has something that memory has not: then what is newer has to wait there, too."""
        return self.beyond > self.unwritten


class Reservoir:
    """The streams of one outbox."""

    def __init__(self, limits: Limits, counts: Mapping[bytes | None, tuple[int, int]]) -> None:
        """``counts`` is what is in the file: messages and bytes, by addressee."""
        self._limits = limits
        self._anybodys = Stream(None, *counts.get(None, (0, 0)))
        self._addressed = {addressee: Stream(addressee, *its) for addressee, its in counts.items()
                           if addressee is not None}
        self.count = sum(count for count, _ in counts.values())
        """How many messages there are, together,"""
        self.beyond = self.count
        """and how many of them memory does not have."""

    def stream(self, addressee: bytes | None) -> Stream:
        if addressee is None:
            return self._anybodys
        stream = self._addressed.get(addressee)
        if stream is None:
            stream = self._addressed[addressee] = Stream(addressee)
        return stream

    def find(self, addressee: bytes) -> Stream | None:
        """If there is anything for that peer."""
        return self._addressed.get(addressee)

    def has_for(self, identity: bytes) -> bool:
        """Whether something waits beyond that a peer may get."""
        stream = self._addressed.get(identity)
        return self._anybodys.beyond > 0 or (stream is not None and stream.beyond > 0)

    # The marks

    def room(self, addressee: bytes | None) -> tuple[int, int]:
        """How many messages, and bytes, it may be more; negative, perhaps."""
        stream = self._anybodys if addressee is None else self._addressed.get(addressee)
        if stream is None:
            return self._limits.messages, self._limits.bytes
        return self._limits.messages - stream.count, self._limits.bytes - stream.size

    def has_room(self, addressee: bytes | None) -> bool:
        """Whether one more may come."""
        return min(self.room(addressee)) > 0

    @property
    def is_roomy(self) -> bool:
        """Whether it is worth waking those who wait for room for messages to anybody: it is not only for one or two,
        and more soon, for what waits in the file goes out meanwhile."""
        return self.has_room(None) and self._anybodys.beyond <= self._limits.messages // 2

    # What happens to messages

    def comes(self, stream: Stream, count: int, size: int) -> None:
        """So many are going to be written."""
        stream.count += count
        stream.size += size
        stream.beyond += count
        stream.unwritten += count
        self.count += count
        self.beyond += count

    def written(self, stream: Stream, count: int) -> None:
        """They have been."""
        stream.unwritten -= count

    def not_written(self, stream: Stream, count: int, size: int) -> None:
        """They cannot be."""
        stream.unwritten -= count
        self._out(stream, count)
        self.goes(stream, count, size)

    def loads(self, stream: Stream, count: int, last: bytes) -> None:
        """Memory has so many now, the oldest of those that it had not, up to this id."""
        stream.loaded = last
        self._out(stream, count)

    def forgets(self, stream: Stream, count: int) -> None:
        """Memory has so many no more, which is all that it had of this stream."""
        stream.beyond += count
        self.beyond += count
        stream.loaded = NOTHING
        stream.visit += 1

    def goes(self, stream: Stream, count: int, size: int) -> None:
        """So many that memory had need not be kept any more."""
        stream.count -= count
        stream.size -= size
        self.count -= count
        self.tidy(stream)

    def there_are_no_more(self, stream: Stream) -> None:
        """The file turns out to have nothing beyond, but for what is still to be written: then it was less than it
        seemed."""
        missing = stream.beyond - stream.unwritten
        stream.count -= missing
        self.count -= missing
        self._out(stream, missing)

    def tidy(self, stream: Stream) -> None:
        """Do not remember a peer for whom there is nothing."""
        if not stream.count and not stream.asked and stream.addressee is not None:
            self._addressed.pop(stream.addressee, None)

    def _out(self, stream: Stream, count: int) -> None:
        stream.beyond -= count
        self.beyond -= count
