"""The bottom of a stream: where its bytes go, how a thread waits for them, and what wakes it."""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Callable, Sized
from contextlib import AbstractContextManager
from threading import get_ident
from typing import Final, Protocol

from ..deadline import Deadline
from ..errors import ClosedError
from ..sockets.lingering import all_acknowledged, reset_on_close, unacknowledged
from ..sockets.waiting import WRITE, Occupancy, ready_sockets
from ..standing_in import this_thread
from ..transports.plain import PlainTransport, Transport, UNIXTransport
from ..waiting import Ticket
from .other_end import BRIEFLY, OtherEnd

__all__ = ["Link", "SocketLink", "Woken"]

LINGER_STEP: Final = 0.01
"""Seconds between two looks at whether the other end has acknowledged everything: the kernel does not tell."""


class Link(Protocol):
    """What a `ByteStream` stands on."""

    transport: Transport
    moved: bool
    """Set by the stream when bytes have come or gone."""

    def blocked(self) -> AbstractContextManager[object]:
        """What surrounds a wait of whoever sends, or closes, once it is no brief one."""

    def wait(self, events: int, deadline: Deadline, unless: Sized = ()) -> int:
        """Wait until one of ``events`` (READ, WRITE) is possible; 0 once woken, or while there is something in
        ``unless``. Raises ``TimeoutError``; `OthersWaitError` where who waits to send is to wait no more."""

    def wait_for_file(self, descriptor: int, events: int, deadline: Deadline) -> bool:
        """The same for a file that is sent or received to, such as a pipe: false where it may be too early."""

    def wait_by(self, ticket: Ticket, deadline: Deadline) -> bool:
        """`netmsg.waiting.wait_by`, for a turn of others who send. Raises `OthersWaitError`."""

    def linger(self, events: int, deadline: Deadline) -> None:
        """The same for the one who closes, whom nothing wakes; for a moment at most where no event tells that the
        other end has what was sent."""

    def wake(self) -> None:
        """Have all that wait, now or later, return. Callable from a signal handler."""

    def look_again(self) -> None:
        """Have all that wait now look at their ``unless``, to which something has been added."""

    def hurry(self) -> None:
        """Break the connection off: who still waits for the other end finds it gone."""

    @property
    def over(self) -> bool:
        """Whether nothing can be sent any more either, and who tries is told, perhaps, why: once."""

    def settled(self) -> bool:
        """Whether the other end has all that was sent, and nothing is left that closing could destroy."""

    def go_under_tls(self) -> None:
        """Before TLS is put over the transport."""

    def close(self) -> None:
        """When no thread waits any more, nor moves bytes."""

    def reset(self) -> None:
        """Have `close` drop what was sent and is not there yet."""

    def forked(self) -> None:
        """In a forked child: close this process's copies."""


class Woken:
    """A link that has descriptors, and is woken by any thread at any time: who does that is inside, and they go when
    nobody is. Those who wait are seen to by the stream."""

    def __init__(self) -> None:
        self._occupancy = Occupancy()
        self._wake_up = self._occupancy.wake_up

    def _dispose(self) -> None:
        """May be called several times."""

    def _inside(self, work: Callable[..., None], *arguments: object) -> None:
        """``work(*arguments)``, unless the descriptors have gone."""
        occupancy = self._occupancy
        claim = object()
        try:
            occupancy.inside[claim] = None
            if not occupancy.over:
                work(*arguments)
        finally:
            del occupancy.inside[claim]
            if occupancy.closing:
                occupancy.left(self._dispose)

    def close(self) -> None:
        self._occupancy.closing = True
        self._occupancy.left(self._dispose)

    def forked(self) -> None:
        self._occupancy.forked(self._dispose)


class SocketLink(Woken, OtherEnd):
    """A connected socket, which this owns."""

    def __init__(self, sock: socket.socket) -> None:
        Woken.__init__(self)
        OtherEnd.__init__(self)
        sock.setblocking(False)
        self.sock = sock
        self.unix: UNIXTransport | None = None
        if hasattr(sock, "recvmsg") and sock.family == getattr(socket, "AF_UNIX", None):
            self.unix = UNIXTransport(sock)
        self.transport: Transport = self.unix or PlainTransport(sock)
        self.waits: dict[int, int] = {}
        """Which threads wait now, and for which events."""
        self.in_vain: tuple[int, float] | None = None
        """Which thread was the last to wait for nothing, and until when."""
        self._unacknowledged = 0  # of what has been sent, when that was last looked at
        self._given_up = False
        self._told = False

    def wait(self, events: int, deadline: Deadline, unless: Sized = ()) -> int:
        ident = get_ident()
        inner = ident in self.waits  # of a signal handler, which came while this thread waits
        try:
            self.silent_since()  # that is, from now on, if bytes have moved since the last wait
            self.waits[ident] = events
            wanted = {self.sock.fileno(): events}
            if events == WRITE and this_thread.pool is not None:
                ready = self._wake_up.ready(wanted, deadline.sooner(BRIEFLY), unless)
                if ready is None:
                    ready = self.wait_to_send(self._wake_up.ready, wanted, deadline, unless)
            else:
                ready = self._wake_up.wait(wanted, deadline, unless)
        except TimeoutError:
            self.in_vain = ident, time.monotonic()
            raise
        finally:
            if not inner:
                self.waits.pop(ident, None)
        if ready:
            self.moved = True
            return ready[0][1]
        if self._given_up:
            return self._run_out(self.sock.fileno(), events)
        return 0

    def seen_moving(self) -> float:
        """`silent_since`, with a look at what no event tells of, as long as there is no room for much."""
        before, self._unacknowledged = self._unacknowledged, unacknowledged(self.sock)
        if self._unacknowledged != before:
            self.moved = True
        return self.silent_since()

    def _silent_since(self) -> float:
        if not (self._lingering or WRITE in self.waits.copy().values()):
            return math.inf  # who sends, and whom all others wait for, waits for something else, such as a file
        return self.seen_moving()

    def give_up(self) -> None:
        """Whoever waits, now or next, runs out of time, and who waits once more has no stream any more. From any
        thread."""
        self._given_up = True
        self.wake()

    def _run_out(self, descriptor: int, events: int) -> int:
        if self._told:
            ready = ready_sockets({descriptor: events}, None, Deadline(0))
            if ready:
                return ready[0][1]  # there is nothing to wait for
            raise ClosedError("the stream was given up: its other end was silent for too long")
        self._told = True
        raise TimeoutError("the other end was silent, and others wait")

    def wait_for_file(self, descriptor: int, events: int, deadline: Deadline) -> bool:
        if self._wake_up.wait({descriptor: events}, deadline):
            return True
        return self._given_up and bool(self._run_out(descriptor, events))

    def linger(self, events: int, deadline: Deadline) -> None:
        if deadline.expired:
            raise TimeoutError("timed out")
        self._lingering = True
        ready_sockets({self.sock.fileno(): events}, None, deadline.sooner(LINGER_STEP))

    def wake(self) -> None:
        self._inside(self._wake_up.set)

    def look_again(self) -> None:
        if self.waits:  # who comes to wait from now on looks first
            self._inside(self._wake_up.nudge)

    def hurry(self) -> None:
        self._inside(self._shut_down)

    def _shut_down(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is not connected any more

    @property
    def over(self) -> bool:
        poll = select.poll()
        poll.register(self.sock, 0)
        return bool(poll.poll(0))

    def settled(self) -> bool:
        return all_acknowledged(self.sock)

    def go_under_tls(self) -> None:
        if self.unix is not None:
            self.unix.refuse_descriptors()

    def _dispose(self) -> None:
        try:
            self.sock.close()
        except OSError:
            pass  # somebody else has closed the descriptor
        if self.unix is not None:
            self.unix.close()

    def reset(self) -> None:
        """Have `close` drop what was sent and is not there yet, and tell the other end at once."""
        self._inside(reset_on_close, self.sock)
