"""What one peer is still to be sent: the messages queued, the write in progress, those not acknowledged. Pure.

A message stays at the head of the queue until the kernel has its last byte. The write in progress is one object, stored
before the system call, whose count of bytes the call itself appends to: so neither a death nor an interrupt between
the call and the bookkeeping loses a message, repeats one or splices two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from ..wire.messages import Features, Frame, Kind, Message, Queued, frame_of, frame_size, large_size

__all__ = ["Lane", "WITHDRAWN", "Write", "total_large"]

FRAMES_A_WRITE: Final = 512
LARGE_FRAMES_A_WRITE: Final = 64
LARGE_WRITE: Final = 1 << 20
_RELIABLE: Final = Kind.RELIABLE  # looking it up in its class would be slow


WITHDRAWN: Final = Message(Kind.REPLY, b"", 0, b"", None)
"""Goes out as nothing."""


class Write:
    """One write: some whole messages, and how far the kernel has taken them."""

    __slots__ = ("buffers", "control", "control_bytes", "counts", "large_bytes", "messages", "size", "sizes")

    def __init__(self, buffers: list[bytes | memoryview], size: int, messages: int, control: int = 0,
                 control_bytes: int = 0, large_bytes: int = 0, sizes: list[int] | None = None) -> None:
        self.buffers = buffers
        self.size = size
        self.messages = messages
        """How many from the head of the queue it holds."""
        self.control = control
        """How many control frames it begins with,"""
        self.control_bytes = control_bytes
        """of so many bytes together."""
        self.large_bytes = large_bytes
        self.sizes = sizes
        """How long each of them is as it was encoded; ``None`` where they are written as they are."""
        self.counts: list[int] = []
        """What each system call has taken."""

    @property
    def done(self) -> bool:
        return sum(self.counts) >= self.size

    def remaining(self) -> list[bytes | memoryview]:
        """The bytes still to be written."""
        done = sum(self.counts)
        if not done:
            return self.buffers
        for index, buffer in enumerate(self.buffers):
            if done < len(buffer):
                return [memoryview(buffer)[done:], *self.buffers[index + 1:]]
            done -= len(buffer)
        return []


class Lane:
    """One peer's way out.

    `queue` is appended to by any thread at any time. Everything else is done under ``lock`` (the peer's write lock),
    but for `unacked` and what is said of acknowledgements, which belong to the router and its lock.
    """

    __slots__ = ("acknowledged", "backlog", "backlog_bytes", "control", "control_bytes", "dead", "dialled", "encode",
                 "features", "finishing", "given", "held", "identity", "large_bytes", "lock", "newest", "owner",
                 "progress", "progress_at", "queue", "queued_since", "sent_bytes", "sent_log", "sent_messages",
                 "since", "unacked", "unacked_large", "uncounted", "visits", "window", "writing")

    def __init__(self, identity: bytes, lock: AbstractContextManager[Any], owner: Any = None, *,
                 window: int = 0, dialled: object = None) -> None:
        self.identity = identity
        self.lock = lock
        self.owner = owner
        self.dialled = dialled
        """What was dialled to reach this peer; ``None`` if the peer dialled us."""
        self.queue: list[Queued] = []
        """Messages, oldest first; always the same list."""
        self.encode: Callable[[Queued], Frame] | None = None
        """What makes of them what its peer understands: see `Dialect.encoder`."""
        self.features = Features(0)
        """What its peer has said that it understands."""
        self.control: list[bytes] = []
        """Control frames: they go out before the messages, and past the marks."""
        self.control_bytes = 0
        self.large_bytes = 0
        """Bytes of the large messages queued; small ones cannot reach the mark in bytes before that in messages."""
        self.writing: Write | None = None
        self.uncounted = 0
        """So many bytes of a write in progress, at most, may be on their way and not be counted yet."""
        self.dead = False
        """Set by the engine before it takes the queue back; read by senders after they appended."""
        self.held = False
        """Messages wait, and control frames alone go out: the connection before this one is still being read."""
        self.finishing = False
        """Another connection has taken over: the write in progress is still brought to its end, and no other begun."""
        self.sent_messages = 0
        self.sent_bytes = 0
        self.window = window
        """How many messages may be unacknowledged."""
        self.unacked: dict[bytes, Message] = {}
        """By message id, every at-least-once message given to this peer, oldest first, queued ones included."""
        self.unacked_large = 0
        self.given = 0
        """In a Søcket that sends at least once: messages queued here so far, those sent again included. What was queued
        as number n has been handed to the kernel once `sent_messages` is at least n."""
        self.sent_log: deque[tuple[float, int]] = deque()
        """What `sent_messages` was, at some times: for the `Ledger`."""
        self.acknowledged = 0
        """At-least-once messages that the peer has acknowledged."""
        self.since = 0
        """How many messages had been published when this peer came, by whatever connection it was that it came;"""
        self.queued_since = 0
        """and how many when the oldest message in its queue was, at the least;"""
        self.visits: tuple[tuple[int, int], ...] = ()
        """and when it had come and gone before."""
        self.backlog = 0
        """What `sent_messages` will be when it has been sent all that was kept for it before it came;"""
        self.backlog_bytes = 0
        """and how many bytes the large ones of those had."""
        self.newest = b""
        """Where only the newest message is kept: the id of the newest that was queued here."""
        self.progress = -1
        """How far the peer had come at `progress_at`, where that is looked at: for `OnFull.DISCONNECT`."""
        self.progress_at = 0.0

    @property
    def taken_bytes(self) -> int:
        """How many the kernel has, those of the write in progress included."""
        write = self.writing
        return self.sent_bytes + (sum(write.counts) if write is not None else 0)

    # Queueing: under the lock of the router

    def give(self, message: Queued) -> None:
        """Queue a message; one to be acknowledged is expected to be from now on."""
        queue = self.queue
        if isinstance(message, bytes):
            queue.append(message)
            return
        # From here to the append no call, so that an interrupt finds all of it done or nothing, and because the writer
        # subtracts from `large_bytes` under another lock.
        large = message.large
        self.large_bytes += large
        self.given = message.number = self.given + 1
        if message.kind is _RELIABLE:
            self.unacked_large += large
            self.unacked[message.message_id] = message
        queue.append(message)

    def send_again(self, message_id: bytes) -> None:
        """Queue an unacknowledged message once more."""
        message = self.unacked[message_id]
        queue = self.queue
        # No call but the last: see `give`.
        self.large_bytes += message.large
        self.given = message.number = self.given + 1
        queue.append(message)

    def acknowledge(self, message_ids: list[bytes]) -> list[bytes]:
        """The peer has acknowledged: those that were its to acknowledge."""
        known = []
        release = self.unacked.pop
        for message_id in message_ids:
            message = release(message_id, None)
            if message is not None:
                known.append(message_id)
                self.unacked_large -= message.large
        self.acknowledged += len(known)
        return known

    def forget(self, message_id: bytes) -> Message | None:
        """Stop expecting an acknowledgement: the message given up on."""
        message = self.unacked.pop(message_id, None)
        if message is not None:
            self.unacked_large -= message.large
        return message

    def take_unacked(self) -> list[Queued]:
        """All that the peer has to acknowledge: of that the queue may hold copies being sent again."""
        messages: list[Queued] = [*self.unacked.values()]
        self.unacked.clear()
        self.unacked_large = 0
        return messages

    # What was kept for its peer

    def note_backlog(self, messages: int, large_bytes: int) -> None:
        """So much of what is in the queue was kept before the peer could take any of it."""
        self.backlog = self.sent_messages + messages
        self.backlog_bytes = large_bytes

    def add_to_backlog(self, before: Lane, copies: list[Queued]) -> None:
        """That is what is left of such as were in the queue of ``before``, and these."""
        left = before.backlog - before.sent_messages
        self.note_backlog(max(0, left) + len(copies), (before.backlog_bytes if left > 0 else 0) + total_large(copies))

    # Writing: under the lane's

    def add_control(self, frame: bytes) -> None:
        """Queue a control frame, or several joined. Without the lock, but by one thread only."""
        size = len(frame)
        self.control.append(frame)
        self.control_bytes += size

    @property
    def empty(self) -> bool:
        return not self.queue and not self.control and self.writing is None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to write now."""
        return not self.control and self.writing is None and (self.held or self.finishing or not self.queue)

    def begin_write(self) -> Write | None:
        """The write in progress, or a new one of what is queued, or ``None``. Under the lock."""
        write = self.writing
        if write is not None:
            return write
        messages = [] if self.held or self.finishing else self.queue[:FRAMES_A_WRITE]
        if self.control:
            write = _gather(self.control[:], messages, self.encode)
        elif not messages:
            return None
        elif self.encode is not None:
            write = _gather([], messages, self.encode)
        else:
            try:
                data = b"".join(messages)  # type: ignore[arg-type]
            except TypeError:
                write = _join(messages)
            else:
                write = Write([data], len(data), len(messages))
        self.writing = write
        return write

    def end_write(self, write: Write) -> None:
        """Take what ``write`` held, now that it is done, from the head of the queue. Under the lock.

        Nothing here is a call: an interrupt finds all of it done, or none.
        """
        size = write.size
        messages = write.messages
        control = write.control
        large = write.large_bytes
        del self.queue[:messages]
        self.writing = None
        if control:
            del self.control[:control]
            self.control_bytes -= write.control_bytes
        self.large_bytes -= large
        self.sent_messages += messages
        self.sent_bytes += size

    @property
    def held_messages(self) -> int:
        """How many, from the head of the queue, the write in progress holds. Under the lock."""
        return self.writing.messages if self.writing is not None else 0

    def let_go(self) -> None:
        """Have the write in progress hold no longer those messages of which nothing has gone. Under the lock."""
        write = self.writing
        if write is None:
            return
        begun = sum(write.counts) + self.uncounted - write.control_bytes
        sizes = write.sizes or [*map(frame_size, self.queue[:write.messages])]
        kept = size = 0
        while kept < len(sizes) and size < begun:
            size += sizes[kept]
            kept += 1
        if kept == len(sizes):
            return
        size += write.control_bytes
        shorter = None
        if size:
            shorter = Write(_cut(write.buffers, size), size, kept, write.control, write.control_bytes,
                            total_large(self.queue[:kept]), sizes[:kept])
            shorter.counts = write.counts
        self.writing = shorter

    @property
    def can_drop(self) -> bool:
        """Whether there is a message that no write holds. Under the lock."""
        return len(self.queue) > self.held_messages

    def drop_oldest(self) -> Queued:
        """Take out the oldest one that no write holds, which is there. Under the lock."""
        return self.take_out(self.held_messages)

    def take_out(self, index: int) -> Queued:
        """Take out the one at ``index``, which no write holds. Under the lock."""
        message = self.queue[index]
        large = large_size(message)
        # No call from here on, and so no interrupt: it is dropped and no longer counted, or neither.
        self.large_bytes -= large
        del self.queue[index]
        return message

    def withdraw(self, message: Message, *, leave_gap: bool) -> None:
        """Take it out, if no write holds it: nobody wants it to be sent any more. ``leave_gap``: nothing takes its
        place, for the numbers of those behind it (see `given`) are to stay. Under the lock."""
        queue = self.queue
        gap = [WITHDRAWN] if leave_gap else []
        try:
            index = queue.index(message, self.held_messages)
        except ValueError:
            return
        # No call from here on.
        self.large_bytes -= message.large
        queue[index:index + 1] = gap

    def take_back(self) -> list[Queued]:
        """Empty the queue: all that was not handed to the kernel whole, in order. Under the lock; may be repeated.

        A message handed over in part counts as not sent: the peer cannot have got it. While `finishing`, those of the
        write in progress stay.
        """
        if self.finishing and self.writing is not None:
            count = len(self.queue)
            kept = self.writing.messages
            messages = self.queue[kept:count]
            del self.queue[kept:count]
            self.large_bytes -= total_large(messages)
            return messages
        write, self.writing = self.writing, None
        sent = 0
        if write is not None:
            done = sum(write.counts) - write.control_bytes
            for size in write.sizes or map(frame_size, self.queue[:write.messages]):
                done -= size
                if done < 0:
                    break
                sent += 1
        count = len(self.queue)  # a sender that appends from here on sees `dead`, and comes back for its own
        messages = self.queue[sent:count]
        del self.queue[:count]
        self.control.clear()
        self.control_bytes = 0
        self.large_bytes = 0
        self.sent_messages += sent
        return messages


def total_large(messages: list[Queued]) -> int:
    """How many bytes the large ones have."""
    return sum(map(large_size, messages))


def _cut(buffers: list[bytes | memoryview], size: int) -> list[bytes | memoryview]:
    """Their first ``size`` bytes, uncopied."""
    first: list[bytes | memoryview] = []
    for buffer in buffers:
        first.append(memoryview(buffer)[:size])
        size -= len(first[-1])
        if not size:
            break
    return first


def _join(messages: list[Queued]) -> Write:
    """A write of messages among which are not only bare ones."""
    try:
        data = b"".join([message if type(message) is bytes else message.frame  # type: ignore[union-attr, misc]
                         for message in messages])
    except TypeError:  # there are large ones among them
        return _gather([], messages, None)
    return Write([data], len(data), len(messages))


def _gather(controls: list[bytes], messages: list[Queued], encode: Callable[[Queued], Frame] | None) -> Write:
    """A write of ``controls`` and as many messages as make a good one, large payloads uncopied."""
    buffers: list[bytes | memoryview] = [b"".join(controls)] if controls else []
    control_bytes = len(buffers[0]) if controls else 0
    small: list[bytes] = []
    sizes: list[int] = []
    total = large = 0
    for message in messages:
        large += large_size(message)
        frame = frame_of(message) if encode is None else encode(message)
        if isinstance(frame, tuple):
            if small:
                buffers.append(b"".join(small))
                small = []
            buffers.extend(frame)
            size = len(frame[0]) + len(frame[1])
        else:
            small.append(frame)
            size = len(frame)
        sizes.append(size)
        total += size
        if total >= LARGE_WRITE or len(buffers) >= LARGE_FRAMES_A_WRITE:
            break
    if small:
        buffers.append(b"".join(small))
    return Write(buffers, control_bytes + total, len(sizes), len(controls), control_bytes, large,
                 None if encode is None else sizes)
