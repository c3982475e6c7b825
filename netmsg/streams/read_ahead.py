"""The bytes that have been received and not been taken yet."""

from __future__ import annotations

from typing import Final

__all__ = ["ReadAhead"]

STREAK: Final = 8
"""After so many items in a row with the same delimiter, what has been received is split at once: at first, see
`ReadAhead.unsplit`."""


class ReadAhead:
    """What is unread is ``data`` from ``position`` on, then ``items``, and then ``more``.

    Received chunks are appended to ``more`` as they are. Taking moves ``position``: two plain assignments, which an
    interrupt cannot come between. ``items`` is only there while one item after the other is taken (those that cannot go
    the short way come to the front one by one: `settle_for`), and before anything else is taken it has to go, and what
    was given back has to come to the front: `settle`.
    """

    __slots__ = ("data", "delimiter", "items", "joining", "longest", "more", "position", "quick", "returned", "scanned",
                 "streak", "_chunk", "_counted", "_delimiter", "_held", "_needed", "_tail")

    def __init__(self) -> None:
        self.data = b""
        self.position = 0
        self.more: list[bytes] = []
        self.items: list[bytes] = []
        """What stands between delimiters, without them, the first one last."""
        self.delimiter = b""
        """The one by which ``items`` were split."""
        self.quick: bytes | None = None
        """The same, while items may be taken straight from ``items``: nothing unread comes before them then."""
        self.longest = 0
        """None of them is longer."""
        self.joining: list[bytes] = []
        """Items on their way back, if that was interrupted."""
        self.returned: list[bytes] = []
        """What calls that were interrupted after they had taken it give back, to be read next. Whoever adds to it sets
        ``quick`` to ``None``."""
        self.scanned = 0
        """How many unread bytes `find` has searched: all of them, where it has not found anything."""
        self.streak = 0
        """How many items have been taken in a row, those in ``items`` among them. Whoever takes anything else sets it
        to 0."""
        self._needed = STREAK
        self._delimiter = b""  # what is searched for; none whenever the chunks are changed, so that it begins anew
        self._chunk = 0  # how many chunks have been searched for it, `data` among them
        self._tail = b""  # the last of these, in which the delimiter may have begun
        self._counted = 0  # how many chunks of `more` have been counted
        self._held = 0  # how many bytes those are

    def __len__(self) -> int:
        """Asked again after more has come, it counts only that."""
        while self._counted < len(self.more):
            held = self._held + len(self.more[self._counted])
            self._held = held
            self._counted += 1
        return len(self.data) - self.position + self._held

    def split(self, delimiter: bytes, at: int, max_bytes: int) -> None:
        """The first item ends ``at`` bytes from here: after a few in a row split what follows it too. By a rule that
        keeps those who take turns between items and other things from splitting and joining all the time."""
        if delimiter is not self.delimiter:
            self.delimiter = delimiter
            self.streak = 0
        self.streak += 1
        end = self.position + at + len(delimiter)
        if self.streak < self._needed or len(self.data) - end <= at:
            return
        left = len(self.data) - end
        items = self.data[end:].split(delimiter)
        first = self.data[self.position:end]
        more = [items[-1], *self.more] if items[-1] else self.more
        del items[-1]
        items.reverse()
        streak = self.streak + len(items)
        longest = left if left <= max_bytes else max(map(len, items), default=0)
        # No call in between, and so no interrupt. What is in front of the items is for the caller to take.
        self.quick = None
        self._counted = self._held = 0
        self.streak = streak
        self.data, self.position, self.items, self.more, self.longest = first, 0, items, more, longest

    def unsplit(self) -> None:
        """Have everything in ``data`` and ``more`` again. Where more items were split than taken, that was a waste, and
        takes twice as many in a row the next time: for those who read lines and other things in turn."""
        if not self.joining:
            if not self.items:
                return
            self.joining = self.items
            self.items = []
        if self.streak < 2 * len(self.joining):
            self._needed *= 2
        self.streak = 0
        items = self.joining[::-1]
        items.append(b"")
        more = [self.delimiter.join(items), *self.more]
        self._delimiter = b""
        self._counted = self._held = 0
        self.more, self.joining = more, []

    def settle(self) -> None:
        """Have everything in ``data`` and ``more`` again, what was given back in front."""
        self.unsplit()
        given = tuple(self.returned)
        count = len(given)
        if count:
            more = [*given, self.data[self.position:], *self.more]
            more = [chunk for chunk in more if chunk]
            self._delimiter = b""
            self._counted = self._held = 0
            self.data, self.position, self.more = b"", 0, more
            del self.returned[:count]

    def settle_for(self, delimiter: bytes) -> None:
        """Enough of `settle` for one item: where they have been split by this delimiter already, the first alone."""
        if self.joining or self.returned or delimiter != self.delimiter:
            self.settle()
        elif self.position == len(self.data):  # otherwise the first one is there already
            self.searched()
            # No call from here on: another thread may take items the short way, and an interrupt could come.
            items = self.items
            if items:
                self.quick = None
                self.data = items[-1] + delimiter
                self.position = 0
                del items[-1]

    def front(self) -> int:
        """How many bytes can be taken from ``data``, into which the next chunk is moved if it is exhausted."""
        left = len(self.data) - self.position
        if left == 0 and self.more:
            left = len(self.more[0])
            self._delimiter = b""
            self._counted = self._held = 0
            self.data = self.more[0]
            self.position = 0
            del self.more[0]
        return left

    def forget_taken(self) -> None:
        """Keep nothing alive of what has been taken, while nothing comes. A search goes on where it was."""
        if self.position == len(self.data):
            self.data, self.position = b"", 0

    def gather(self, size: int) -> None:
        """Have the first ``size`` unread bytes together in ``data``."""
        if len(self.data) - self.position < size and self.more:
            joined = b"".join((self.data[self.position:], *self.more))
            empty: list[bytes] = []
            self._delimiter = b""
            self._counted = self._held = 0
            self.data = joined
            self.position = 0
            self.more = empty

    def find(self, delimiter: bytes) -> int:
        """Where ``delimiter`` begins, counted from the first unread byte; -1 if it is not there.

        Asked again after more has come, it searches only that: linear in what arrives, however it is cut up. Say
        `searched` once something has been taken.
        """
        if delimiter != self._delimiter:
            self.searched()
            self._delimiter = delimiter
        overlap = len(delimiter) - 1
        while self._chunk <= len(self.more):
            if self._chunk == 0:
                at = self.data.find(delimiter, self.position)
                if at >= 0:
                    return at - self.position
                chunk = self.data
                size = len(chunk) - self.position
                tail = chunk[max(self.position, len(chunk) - overlap):] if overlap else b""
            else:
                chunk = self._tail + self.more[self._chunk - 1]
                at = chunk.find(delimiter)
                if at >= 0:
                    return self.scanned - len(self._tail) + at
                size = len(self.more[self._chunk - 1])
                tail = chunk[max(0, len(chunk) - overlap):] if overlap else b""
            self._chunk += 1
            self.scanned += size
            self._tail = tail
        return -1

    def searched(self) -> None:
        """Search from the beginning the next time."""
        self._delimiter = b""
        self._chunk = self.scanned = 0
        self._tail = b""

    def peek_all(self) -> bytes:
        """Everything that is unread, and stays so."""
        self.settle()
        self.gather(len(self))
        return self.data[self.position:]

    def clear(self) -> None:
        """Forget what is unread. There is no call in here, and so no interrupt but before it."""
        self._delimiter = b""
        self._counted = self._held = 0
        self.quick = None
        self.data, self.position, self.more, self.items, self.joining, self.returned = b"", 0, [], [], [], []
