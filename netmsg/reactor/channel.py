"""One non-blocking connection on the reactor, whoever uses it: the socket and its transport, the TLS handshake, what
the selector is asked for, the goodbye and the end.

::

       ┌──────────────────── ENDED ──┐
       ▼             ┌────────▲      │
    SHAKING ◀──▶ OPEN ───────────────┼──▶ LEAVING ──▶ CLOSED, as from each of them
                     └──────▶ BROKEN ┘

What comes is told to a `User`; what goes is the user's business, under the lock of its `Outlet`, which also keeps the
descriptor open for as long as somebody sends. Everything else belongs on the loop, but for what is said of `unread`.
"""

from __future__ import annotations

import socket
from enum import Enum
from typing import Final, Protocol

from ..errors import as_broken, bare
from ..forking import forget_in_child
from ..locks import Lock
from ..sockets.lingering import reset_on_close
from ..sockets.options import prepare
from ..transports.plain import Transport
from .farewell import Farewell
from .handshaking import Handshake, PendingHandshakes
from .reactor import READ, WRITE, Scope

__all__ = ["Channel", "Outlet", "State", "TRANSITIONS", "User"]

READ_SIZE: Final = 65_536
READS_A_ROUND: Final = 16


class State(Enum):
    SHAKING = "shaking hands"
    OPEN = "open"
    ENDED = "ended"
    """The other end has finished; it may still receive."""
    BROKEN = "broken"
    """Receiving has failed."""
    LEAVING = "leaving"
    """We have finished, and drop what comes."""
    CLOSED = "closed"


SHAKING, OPEN, ENDED, BROKEN, LEAVING, CLOSED = State

TRANSITIONS: Final = {
    SHAKING: {OPEN, CLOSED},
    OPEN: {SHAKING, ENDED, BROKEN, LEAVING, CLOSED},
    ENDED: {SHAKING, LEAVING, CLOSED},
    BROKEN: {LEAVING, CLOSED},
    LEAVING: {CLOSED},
    CLOSED: set(),
}


class User(Protocol):
    """Whom a connection is for. On the loop."""

    def shaken(self, error: OSError | None) -> None:
        """The handshake is over, be it because there is none, or has failed."""

    def received(self, chunk: bytes) -> bool | None:
        """Bytes have come. Whether to go on receiving at once, if there are more."""

    def nothing_came(self) -> None:
        """There was nothing to be received, or nothing more."""

    def ended(self, error: OSError | None) -> None:
        """Nothing comes any more: the other end has finished, or the connection broke, and ``error`` says so to whoever
        asks."""

    def has_room(self) -> None:
        """What was blocked can go on."""

    def left(self, *, given_up: bool) -> None:
        """`Channel.leave` has come to its end; ``given_up``: the other end has not taken what it was sent."""

    def _crashed(self, error: Exception) -> None:
        """A step has failed: close."""


class Outlet(Protocol):
    """What is to be sent, by whatever thread."""

    lock: Lock
    """Under it one non-blocking send is made at a time."""
    blocked: bool
    """Whether the rest waits until there is room."""
    failure: OSError | None
    """What sending has failed with: nothing is sent any more."""

    def drop(self) -> bool:
        """Send nothing any more: the socket is about to be closed. Whether something was left, in the middle of which
        the other end is not to see an end. Under the lock."""


class Nobody:
    """The user of a closed connection, which is to keep nobody alive."""

    def shaken(self, error: OSError | None) -> None:
        """Nobody hears."""

    def received(self, chunk: bytes) -> None:
        """Nobody hears."""

    def nothing_came(self) -> None:
        """Nobody hears."""

    def ended(self, error: OSError | None) -> None:
        """Nobody hears."""

    def has_room(self) -> None:
        """Nobody hears."""

    def left(self, *, given_up: bool) -> None:
        """Nobody hears."""

    def _crashed(self, error: Exception) -> None:
        """Nobody hears."""


NOBODY: Final = Nobody()


class Channel:
    """A connected socket, from the first byte to the last."""

    __slots__ = ("user", "socket", "transport", "state", "reading", "paused", "more", "unread", "read_size", "watched",
                 "_io", "_outlet", "_handshake", "_going_on", "_farewell")

    def __init__(self, io: Scope, sock: socket.socket, transport: Transport, outlet: Outlet, user: User) -> None:
        self.user: User = user
        """May be another one at any time: see `netmsg.reactor.sniffing`."""
        self.socket = sock
        self.transport = transport
        self.state = SHAKING
        self.reading = True
        """Whether the user wants to hear of what comes. To say no costs nothing until something does; to say yes,
        `watch`."""
        self.paused = False
        """Whether something has come and was not received, since it was not wanted, or something was `unread`: then
        nothing is until the user says no more, and `watch`."""
        self.more = False
        """Whether the transport holds something that no selector tells of."""
        self.unread: list[bytes] = []
        """What was received and could not be made use of yet: one chunk at most, for the user to put here. While it is
        there nothing is received. Any thread may take it, and then has to look whether more was to be received:
        whether it is `paused`, or there is `more`."""
        self.read_size = READ_SIZE
        self.watched = 0
        """What the selector is asked for: to be looked at."""
        self._io = io
        self._outlet = outlet
        self._handshake: Handshake | None = None
        self._going_on = False  # will receive in the next round
        self._farewell: Farewell | None = None
        try:
            prepare(sock)
        except OSError:
            pass  # gone already: reading tells

    def _go(self, state: State) -> None:
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"a connection cannot go from {self.state.value} to {state.value}")
        self.state = state

    @property
    def shaking(self) -> bool:
        return self.state is SHAKING

    @property
    def leaving(self) -> bool:
        return self.state is LEAVING

    @property
    def closed(self) -> bool:
        return self.state is CLOSED

    def fileno(self) -> int:
        return self.socket.fileno()

    # The handshake

    def open(self, timeout: float | None, pending: PendingHandshakes | None = None, *,
             speaks_first: bool = False) -> None:
        """Begin, with the TLS handshake if there is one: within ``timeout`` seconds, among those that are ``pending``.
        ``speaks_first``: it is for this end to begin."""
        if self.transport.handshaking:
            self._shake(self.transport, timeout, pending, speaks_first)
        else:
            self._shaken(self.transport, None)

    def upgrade(self, transport: Transport, timeout: float | None, pending: PendingHandshakes | None = None) -> None:
        """Go on over another transport, which is over this one, once its handshake is over. All that was to be sent
        before has to have gone."""
        self._go(SHAKING)
        self._shake(transport, timeout, pending, False)

    def _shake(self, transport: Transport, timeout: float | None, pending: PendingHandshakes | None,
               speaks_first: bool) -> None:
        self._ask_for(0)
        self._handshake = Handshake(self._io, self.socket, transport, timeout,
                                    lambda error: self._shaken(transport, error), pending, speaks_first=speaks_first)
        self._handshake.start()

    def _shaken(self, transport: Transport, error: OSError | None) -> None:
        self._handshake = None
        self._go(OPEN)
        if error is None:
            self.transport = transport
            self.more = transport.readable
        self.user.shaken(error)

    @property
    def handshake_moves(self) -> int:
        """Another number whenever something has moved in a handshake that is under way. From any thread."""
        handshake = self._handshake
        return 0 if handshake is None else handshake.moves

    def cancel_handshake(self) -> None:
        """Leave it, without telling; everything goes on as before."""
        if self._handshake is not None:
            self._handshake.cancel()
            self._handshake = None
            self._go(OPEN)

    # Receiving, and room to send

    def watch(self) -> None:
        """Have the selector tell of what is wanted now."""
        state = self.state
        if state is SHAKING or state is CLOSED:
            return
        events = 0
        if state is LEAVING:
            if self._farewell is None or not self._farewell.has_ended:
                events = READ
        elif state is OPEN and self.reading and not self.paused:
            events = READ
        outlet, transport = self._outlet, self.transport
        if (outlet.blocked and not transport.stalled or transport.unsent) and outlet.failure is None \
                and state is not BROKEN:
            events |= WRITE
        if events != self.watched:
            self._ask_for(events)

    def _ask_for(self, events: int) -> None:
        if self.watched or events:
            self._io.watch(self.socket, events, self)
            self.watched = events

    def go_on(self) -> None:
        """Receive what the selector does not tell of, if it is wanted now."""
        if self.more and not self._going_on:
            self._on_event(READ)

    def receive(self) -> None:
        """Receive once, as if it had been told that something has come."""
        self.watch()
        self._on_event(READ)

    def take_in(self, got: bytes | OSError) -> None:
        """Go on as if this had been received, or raised, just now: somebody has received it in this one's place."""
        if self.state is not OPEN:
            return
        if isinstance(got, OSError):
            self._ended(BROKEN, as_broken(bare(got)))
        elif got:
            self.user.received(got)
        else:
            self._ended(ENDED, None)

    def _on_event(self, events: int) -> None:
        if events != READ and events & WRITE and self.watched & WRITE:
            self._go_on_sending()
        if not (events & READ and self.watched & READ):  # by now
            return
        if not self.reading or self.unread:
            if self._farewell is not None:
                self._farewell.discard()
                self.watch()
            else:
                self._pause()
            return
        rounds = READS_A_ROUND
        transport = self.transport
        while True:
            try:
                chunk = transport.receive(self.read_size)
            except BlockingIOError:
                self.user.nothing_came()
                break
            except OSError as error:
                self._ended(BROKEN, as_broken(bare(error)))
                return
            if not chunk:
                self._ended(ENDED, None)
                return
            if not self.user.received(chunk):
                break
            rounds -= 1
            if not rounds or self.state is not OPEN or not self.reading or self.unread:
                break
        self.more = transport.readable
        if self.more and not self.unread and not self._going_on:
            self._going_on = True
            self._io.call(self._go_on_later)  # others have their turn first, and no event will come
        if self.watched != READ or self._outlet.blocked or transport.unsent:
            if self._outlet.blocked and transport.stalled:
                self.user.has_room()  # perhaps: what it waited for was to come, and not to go
            self.watch()

    def _go_on_later(self) -> None:
        self._going_on = False
        self.go_on()

    def _pause(self) -> None:
        self.paused = True
        self.watch()
        if self.reading and not self.unread:  # it was taken meanwhile, by who has not seen that there is more
            self.paused = False
            self.watch()
            self.go_on()

    def _ended(self, state: State, error: OSError | None) -> None:
        self.more = False
        self._go(state)
        self.watch()
        self.user.ended(error)

    def _go_on_sending(self) -> None:
        if self._farewell is not None:
            try:
                self.transport.flush()
            except OSError:
                self.user.left(given_up=False)  # there is nobody to hear it
                return
            self._farewell.flushed()
            self.watch()
        else:
            self.user.has_room()

    def flush(self) -> None:
        """Send what the transport itself has kept back."""
        if self.transport.unsent:
            try:
                self.transport.flush()
            except OSError:
                pass  # reading tells

    # The end

    def end_sending(self) -> None:
        """Half-close, behind what the kernel has. Raises what the transport does."""
        self.transport.end_sending()
        self.watch()

    def leave(self, patience: float, *, answered: bool) -> None:
        """Half-close, now that the kernel has everything; what comes from now on is dropped. When the other end has
        it all, too, the user is told to close: see `Farewell`."""
        has_ended = self.state is ENDED
        try:
            self.end_sending()
        except OSError:
            self.user.left(given_up=False)
            return
        self._go(LEAVING)
        if has_ended and not self.transport.unsent:
            self.user.left(given_up=False)
            return
        self.reading = False
        self._farewell = Farewell(self._io, self.socket, self.transport, self.user, patience, answered=answered,
                                  has_ended=has_ended)
        self.watch()
        self._farewell.begin()

    def close(self, *, reset: bool = False) -> None:
        """Close, once nobody sends: nothing is told any more. ``reset``: over TCP the other end sees that this was not
        all, and what it has not got yet is dropped. Idempotent."""
        if self.state is CLOSED:
            return
        if reset:
            reset_on_close(self.socket)
        if self._handshake is not None:
            self._handshake.cancel()
            self._handshake = None
        if self._farewell is not None:
            self._farewell.cancel()
            self._farewell = None
        self._ask_for(0)
        _closing.add(self)
        self._go(CLOSED)
        self._io.close_afterwards(self._close_socket)
        self.user = NOBODY

    def _close_socket(self) -> None:
        with self._outlet.lock:  # nobody is to meet a stranger's descriptor
            if self._outlet.drop():
                reset_on_close(self.socket)  # an end would say that this was all
            self.socket.close()
        _closing.discard(self)

    def abandon(self) -> None:
        """In a forked child: close this process's copy, and nothing else."""
        self.socket.close()

    def _crashed(self, error: Exception) -> None:
        self.user._crashed(error)


_closing: set[Channel] = set()
"""Those that are closed but for their descriptor, which the loop sees to. Nobody else knows of them any more."""


@forget_in_child
def _after_fork_in_child() -> None:
    for channel in _closing:
        channel.abandon()
    _closing.clear()
