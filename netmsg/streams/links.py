"""The bottom of a stream: where its bytes go, how a thread waits for them, and what wakes it."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from threading import get_ident
from typing import Final, Protocol

from ..deadline import Deadline
from ..errors import ClosedError
from ..sockets.lingering import all_acknowledged, reset_on_close
from ..sockets.waiting import WRITE, Occupancy, ready_sockets
from ..transports.plain import PlainTransport, Transport, UNIXTransport
from ..waiting import Ticket, wait_by

__all__ = ["BRIEFLY", "Link", "SocketLink", "Woken"]

LINGER_STEP: Final = 0.01
"""Seconds between two looks at whether the other end has acknowledged everything: the kernel does not tell."""
BRIEFLY: Final = 0.005
"""Seconds that whoever sends, or closes, waits for the other end before it counts as blocked."""


class Link(Protocol):
    """What a `ByteStream` stands on."""

    transport: Transport
    moved: bool
    """Set by the stream when bytes have come or gone."""
    blocked: Callable[[], AbstractContextManager[object]]
    """What surrounds a wait of whoever sends, or closes, once it is no brief one. For whoever made the stream."""

    def wait(self, events: int, deadline: Deadline, unless: Collection[object] = ()) -> int:
        """Wait until one of ``events`` (READ, WRITE) is possible; 0 once woken, or while there is something in
        ``unless``. Raises ``TimeoutError``."""

    def wait_for_file(self, descriptor: int, events: int, deadline: Deadline) -> bool:
        """The same for a file that is sent or received to, such as a pipe: false where it may be too early."""

    def wait_by(self, ticket: Ticket, deadline: Deadline) -> bool:
        """`netmsg.waiting.wait_by`, for a turn of others who send."""

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


class SocketLink(Woken):
    """A connected socket, which this owns."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        sock.setblocking(False)
        self.sock = sock
        self.unix: UNIXTransport | None = None
        if hasattr(sock, "recvmsg") and sock.family == getattr(socket, "AF_UNIX", None):
            self.unix = UNIXTransport(sock)
        self.transport: Transport = self.unix or PlainTransport(sock)
        self.waits: set[int] = set()
        """Which threads wait now."""
        self.in_vain: tuple[int, float] | None = None
        """Which thread was the last to wait for nothing, and until when."""
        self.blocked: Callable[[], AbstractContextManager[object]] = nullcontext
        self.moved = True
        self._moved_at = 0.0
        self._given_up = False
        self._told = False

    def wait(self, events: int, deadline: Deadline, unless: Collection[object] = ()) -> int:
        ident = get_ident()
        inner = ident in self.waits  # of a signal handler, which came while this thread waits
        try:
            self.silent_since()  # that is, from now on, if bytes have moved since the last wait
            self.waits.add(ident)
            if events == WRITE and self.blocked is not nullcontext:
                ready = self._wait_to_send(deadline, unless)
            else:
                ready = self._wake_up.wait({self.sock.fileno(): events}, deadline, unless)
        except TimeoutError:
            self.in_vain = ident, time.monotonic()
            raise
        finally:
            if not inner:
                self.waits.discard(ident)
        if ready:
            self.moved = True
            return ready[0][1]
        if self._given_up:
            return self._run_out(self.sock.fileno(), events)
        return 0

    def _wait_to_send(self, deadline: Deadline, unless: Collection[object]) -> list[tuple[int, int]]:
        wanted = {self.sock.fileno(): WRITE}
        ready = self._wake_up.ready(wanted, deadline.sooner(BRIEFLY), unless)
        if ready is not None:
            return ready
        with self.blocked():
            return self._wake_up.wait(wanted, deadline, unless)

    def wait_by(self, ticket: Ticket, deadline: Deadline) -> bool:
        if self.blocked is nullcontext:
            return wait_by(ticket, deadline)
        if wait_by(ticket, deadline.sooner(BRIEFLY)):
            return True
        if deadline.expired:
            return False
        with self.blocked():  # who waits for one that waits for the other end waits for that, too
            return wait_by(ticket, deadline)

    def silent_since(self) -> float:
        """When the stream was last seen to have moved bytes (``time.monotonic()``). The clock is only read here, and so
        not for each of them; a wait that ends because its time is up is no end of the silence."""
        if self.moved:
            self.moved = False
            self._moved_at = time.monotonic()
        return self._moved_at

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
