"""Byte streams inside one process: the same contract without a network, for tests and lessons."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sized

from ..checks import check_size
from ..deadline import Deadline
from ..locks import new_reentrant_lock
from ..sockets.waiting import READ, WRITE
from ..standing_in import this_thread
from ..tls import TLSInfo
from ..transports.plain import Buffer, Transport
from ..waiting import Waiters
from .byte_stream import ByteStream
from .links import Woken
from .other_end import BRIEFLY, OtherEnd

__all__ = ["MemoryLink", "memory_links", "memory_stream_pair"]


class _MemoryStream(ByteStream):
    def __repr__(self) -> str:
        return f"<memory stream {'closed' if self.closed else 'open'}>"


def memory_stream_pair(*, buffer_size: int = 65536) -> tuple[ByteStream, ByteStream]:
    """Two streams that are connected to each other. Each direction holds up to ``buffer_size`` bytes that have been
    sent and not received; beyond that, sending blocks."""
    check_size("buffer_size", buffer_size)
    one, other = memory_links(buffer_size)
    return _MemoryStream(one), _MemoryStream(other)


def memory_links(buffer_size: int) -> tuple[MemoryLink, MemoryLink]:
    one, other = _Pipe(buffer_size), _Pipe(buffer_size)
    other.changed = one.changed
    return MemoryLink(one, other), MemoryLink(other, one)


class _Pipe:
    """One direction of a pair of memory links."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.chunks: deque[bytes] = deque()
        self.position = 0  # how much of the first of them has been taken
        self.held = 0
        self.ended = False
        self.broken = False
        self.lock = new_reentrant_lock()  # guards all of these; a leaf, but for a signal handler that closes
        self.changed = Waiters()
        """Who waits for any change; both directions of a pair share it."""

    def put(self, data: Buffer, taken: list[int]) -> None:
        """Append to ``taken`` how much of ``data`` there was room for."""
        try:
            self._put(data, taken)
            self.changed.notify_all()
        except BlockingIOError:
            raise
        except BaseException:
            self.changed.notify_all()  # whoever waits for it has to learn of it, even if this was interrupted
            raise

    def _put(self, data: Buffer, taken: list[int]) -> None:
        with self.lock:
            if self.broken:
                raise BrokenPipeError(errno.EPIPE, "the other end was closed")
            room = self.size - self.held
            if room <= 0:
                raise BlockingIOError
            chunk = bytes(memoryview(data)[:room])
            size = len(chunk)
            chunks = self.chunks
            # No call from here on, and so no interrupt between the one and the other.
            chunks += (chunk,)
            self.held += size
            taken += (size,)

    def get(self, max_bytes: int, target: deque[bytes]) -> None:
        """Move a chunk to ``target``; ``b""`` for the end."""
        try:
            self._get(max_bytes, target)
            self.changed.notify_all()
        except BlockingIOError:
            raise
        except BaseException:
            self.changed.notify_all()
            raise

    def _get(self, max_bytes: int, target: deque[bytes]) -> None:
        with self.lock:
            if not self.chunks:
                if self.broken:
                    raise ConnectionResetError(errno.ECONNRESET, "the other end was aborted")
                if self.ended:
                    target.append(b"")
                    return
                raise BlockingIOError
            first = self.chunks[0]
            start = self.position
            end = min(start + max_bytes, len(first))
            piece = first[start:end]
            whole = end == len(first)
            # No call from here on, and so no interrupt between the one and the other.
            target += (piece,)
            if whole:
                del self.chunks[0]
                self.position = 0
            else:
                self.position = end
            self.held -= end - start

    def end(self) -> None:
        try:
            self.ended = True
            self.changed.notify_all()
        except BaseException:
            self.changed.notify_all()
            raise

    def sever(self) -> None:
        try:
            self.broken = True
            self.changed.notify_all()
        except BaseException:
            self.changed.notify_all()
            raise


class _MemoryTransport:
    """One end of two pipes, as a `Transport`."""

    handshaking = False
    answered = False
    calls_back = False
    tls: TLSInfo | None = None
    readable = False
    unsent = False
    finishing = False
    stalled = False
    receive_into: Callable[[memoryview], int] | None = None

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._received: deque[bytes] = deque()
        self._taken: list[int] = []

    def handshake(self) -> None:
        """There is none."""

    def receive(self, max_bytes: int, /) -> bytes:
        received = self._received
        if not received:
            self._incoming.get(max_bytes, received)
        chunk = received[0]
        if len(chunk) > max_bytes:  # left by an interrupted call that wanted more
            received[0] = chunk[max_bytes:]
            return chunk[:max_bytes]
        del received[0]
        return chunk

    def send_one(self, buffer: Buffer, /) -> int:
        taken = self._taken
        if not taken:
            self._outgoing.put(buffer, taken)
        count = taken[0]
        del taken[0]
        return count

    def send_many(self, buffers: list[Buffer], /) -> int:
        return self.send_one(buffers[0])

    @property
    def begun(self) -> bool:
        return bool(self._taken)

    def report(self, counts: list[int], /) -> None:
        taken = self._taken
        # No call from here on, and so no interrupt.
        counts += taken
        del taken[:]

    def flush(self) -> None:
        """Nothing is ever kept back."""

    def end_sending(self) -> None:
        self._outgoing.end()


class MemoryLink(Woken, OtherEnd):
    """One end of a connection inside this process. A descriptor it has only once somebody waits for a file."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        Woken.__init__(self)
        OtherEnd.__init__(self)
        self.transport: Transport = _MemoryTransport(incoming, outgoing)
        self._incoming = incoming
        self._outgoing = outgoing
        self._woken = False

    def _possible(self, events: int) -> int:
        incoming, outgoing = self._incoming, self._outgoing
        readable = incoming.chunks or incoming.ended or incoming.broken
        writable = outgoing.held < outgoing.size or outgoing.broken
        return (READ if events & READ and readable else 0) | (WRITE if events & WRITE and writable else 0)

    def wait(self, events: int, deadline: Deadline, unless: Sized = ()) -> int:
        self.silent_since()  # that is, from now on, if bytes have moved since the last wait
        if events == WRITE and this_thread.pool is not None:
            possible = self._ready(events, deadline.sooner(BRIEFLY), unless)
            if possible is None:
                possible = self.wait_to_send(self._ready, events, deadline, unless)
        else:
            possible = self._ready(events, deadline, unless)
            if possible is None:
                raise TimeoutError("timed out")
        if possible:
            self.moved = True
        return possible

    def _ready(self, events: int, deadline: Deadline, unless: Sized) -> int | None:
        if not self._incoming.changed.wait(lambda: self._woken or unless or self._possible(events), deadline):
            return None
        return 0 if self._woken else self._possible(events)

    def wait_for_file(self, descriptor: int, events: int, deadline: Deadline) -> bool:
        return bool(self._wake_up.wait({descriptor: events}, deadline))

    def linger(self, events: int, deadline: Deadline) -> None:
        self._lingering = True
        if not self._incoming.changed.wait(lambda: self._possible(events), deadline):
            raise TimeoutError("timed out")

    def wake(self) -> None:
        self._woken = True
        self._inside(self._wake_up.set)
        self._incoming.changed.notify_all()

    def look_again(self) -> None:
        self._incoming.changed.notify_all()

    def hurry(self) -> None:
        self._incoming.sever()
        self._outgoing.sever()

    @property
    def over(self) -> bool:
        return False  # it tells as often as it is asked

    def settled(self) -> bool:
        return True

    def go_under_tls(self) -> None:
        """Nothing has to be known of it."""

    def _dispose(self) -> None:
        self._outgoing.end()
        self._incoming.sever()

    def reset(self) -> None:
        self._outgoing.sever()
