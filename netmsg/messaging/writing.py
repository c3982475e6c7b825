"""The writing side of one connection of a Søcket: what its `Lane` holds goes to the kernel, as far as that takes it.

A plain connection is written by whoever has something to send, a user's thread or the network thread, under the lane's
lock; one under TLS or WebSocket by the network thread alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..errors import bare
from ..locks import Lock
from ..reactor.reactor import Scope
from ..transports.encrypted import PLAINTEXT_PIECE, TLSTransport
from ..transports.plain import Transport
from ..transports.websocket import FRAME_SIZE, WebSocketTransport
from .lane import Lane

__all__ = ["Writing"]

UNBOUNDED: Final = 1 << 62
LARGEST_PIECE: Final = max(PLAINTEXT_PIECE, FRAME_SIZE)
"""So many bytes are sealed or framed at a time, at most, and counted when all of them have gone."""


class Writing:
    """See `netmsg.reactor.channel.Outlet`."""

    __slots__ = ("lock", "blocked", "stopped", "failure", "_io", "_lane", "_wrapped", "_send_one", "_send_many",
                 "_on_work", "_bursts", "_bursts_seen", "_over")

    def __init__(self, io: Scope, lock: Lock, lane: Lane, transport: Transport, on_work: Callable[[], None]) -> None:
        """``on_work`` is called on the loop when a sender's own thread could not write everything."""
        self.lock = lock
        self.blocked = False
        """Whether to wait for room below. Under TLS or WebSocket that is for the transport to say, which may as well
        wait for what comes."""
        self.stopped = False
        """Whether it could not go on, for whatever reason."""
        self.failure: OSError | None = None
        self._io = io
        self._lane = lane
        self.go_over(transport)
        self._on_work = on_work
        self._bursts = 0
        self._bursts_seen = 0
        self._over = False

    def go_over(self, transport: Transport) -> None:
        """Write by ``transport`` from now on: nothing has been written by another one, or all of it is through."""
        self._wrapped = transport if isinstance(transport, (TLSTransport, WebSocketTransport)) else None
        self._lane.uncounted = LARGEST_PIECE if self._wrapped else 0
        self._send_one = transport.send_one
        self._send_many = transport.send_many

    @property
    def direct(self) -> bool:
        """Whether threads other than the network thread may write."""
        return self._wrapped is None

    def bursting(self) -> bool:
        """See `netmsg.reactor.scopes.Worker`."""
        seen, self._bursts_seen = self._bursts_seen, self._bursts
        return seen != self._bursts

    def write_burst(self) -> None:
        """Write from a sender's own thread, when much has gathered or nothing was going on.

        If the kernel takes no more, or the connection is broken, the network thread is told.
        """
        lock = self.lock
        if self.stopped or lock.locked():
            return  # somebody is writing, or nobody can
        self._bursts += 1
        with lock:
            self.write(UNBOUNDED)
        if self.stopped or self.failure is not None:
            self._io.call(self._on_work)

    def write(self, times: int) -> None:
        """Write until nothing is left or the kernel takes no more, ``times`` times at most. Under the lock.

        ``extend(map(send, ...))`` is one call into C: the count is stored as soon as the bytes are gone, and no
        interrupt can come between.
        """
        lane = self._lane
        if self._over or self.failure is not None:
            return
        self.stopped = self.blocked = False
        while times > 0:
            times -= 1
            write = lane.writing
            if write is None:
                write = lane.begin_write()
                if write is None:
                    return
                buffers = write.buffers
            elif write.done:
                lane.end_write(write)
                continue
            else:
                buffers = write.remaining()
            try:
                if len(buffers) == 1:
                    write.counts.extend(map(self._send_one, buffers))
                else:
                    write.counts.extend(map(self._send_many, (buffers,)))
            except BlockingIOError:
                self.stopped = True
                self.blocked = self._wrapped is None
                return
            except OSError as error:
                self.failure = error  # before any call
                bare(error)
                return
            if write.counts[-1] == write.size or write.done:
                lane.end_write(write)
                if not lane.queue:
                    return

    def end(self) -> None:
        """Write no more."""
        with self.lock:
            self._over = True
            if self._wrapped is not None and self._lane.writing is not None:
                self._lane.writing.counts.append(self._wrapped.unreported())

    def abandon(self) -> None:
        """The same in a forked child, where the lock may be held for ever."""
        self._over = True

    def drop(self) -> bool:
        """See `netmsg.reactor.channel.Outlet`: an end in the middle of a frame is seen for what it is."""
        return False
