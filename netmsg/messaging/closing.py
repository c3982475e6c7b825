"""The way of a Søcket from open to closed: lingering, taking leave of each peer, giving up.

`close` may be called by anybody at any moment, by a signal handler too. It notes that the Søcket closes, which needs no
lock, and leaves the rest to the network thread; if there is none, because nothing was ever bound or connected, it does
the rest itself.
"""

from __future__ import annotations

import _thread
import atexit
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..aside import aside
from ..deadline import Deadline
from ..interrupts import interrupts
from ..locks import new_lock
from ..reactor.callbacks import Callbacks
from ..reactor.reactor import Reactor, Timer
from ..waiting import Waiters
from . import exiting
from .answering import Answering
from .connections import Connections, each
from .events import EventQueue, strip
from .life import Life
from .receiving import Receiver
from .reporting import Reporter
from .sending import Sender

if TYPE_CHECKING:
    from .peers import Peer
    from .places import Places
    from .reconnecting import Endpoint

__all__ = ["Closing"]

HERE: Final = os.path.dirname(__file__)
BRIEFLY: Final = 0.1
"""Seconds that `close` waits for a function of the user's to return,"""
BRIEFLY_STORED: Final = 5.0
"""and for the disk."""


class Closing:
    """What of a Søcket the reactor knows, too: it is told when the network thread ends or fails."""

    def __init__(self, linger: float, life: Life, io: Reactor, events: EventQueue, reporter: Reporter, places: Places,
                 connections: Connections, sender: Sender, receiver: Receiver, answering: Answering,
                 callbacks: tuple[Callbacks, ...]) -> None:
        self._linger = linger
        self._life = life
        self._io = io
        self._steps = io.scope(self.fail)
        self._events = events
        self._reporter = reporter
        self._places = places
        self._connections = connections
        self._sender = sender
        self._receiver = receiver
        self._answering = answering
        self._callbacks = callbacks
        self._waiters = Waiters()
        self.begun = False
        """Whether `begin` has come to its end, or all but."""
        self.followers: list[Callable[[], None]] = []
        """Who else is to know when nobody sends or receives any more; told more than once, anywhere, and may not raise.
        """
        self._is_over = False  # the very last
        self._beginning = new_lock()  # guards whether there is a network thread when the end comes
        self._attached = False
        self._winding_down = False  # the network thread's, as all of these
        self._lingering: list[Timer] = []
        self._closing_places = False
        self._places_closed = False
        self._given_up = 0
        life.on_crash = self.fail
        receiver.when_noted(self._all_is_noted)
        _not_closed.add(self)

    # From any thread

    def attach(self) -> None:
        """Begin with the network: there is a thread from here on. Raises `ClosedError`, `ForkedError`."""
        self._life.check_open()
        if not self._attached:
            aside(self._attach)
            self._life.check_open()

    def _attach(self) -> None:
        with self._beginning:
            if self._attached or self._life.closed:
                return
            self._io.attach(self)
            self._attached = True
        if self._life.closing:  # by another thread, which may not have known that there is something to detach
            self._steps.call(self._begin, 0.0)

    def close(self, linger: float) -> int:
        """See `Søcket.close`. Takes no lock before everything is under way: a signal handler may call this."""
        self.begin(linger)
        if self._io.is_current or self._life.forked or interrupts(HERE):
            return 0
        margin = Deadline(None if linger == float("inf") else linger + 5.0)
        try:
            self._waiters.wait(lambda: self._is_over, margin)
        except BaseException:
            self._steps.call(self._begin, 0.0)  # who interrupts the lingering has lingered enough
            raise
        for callbacks in self._callbacks:
            callbacks.join(BRIEFLY)
        self._sender.join_file(BRIEFLY_STORED)
        self._receiver.join_file(BRIEFLY_STORED)
        self._io.join(5.0)
        return self._given_up

    def begin(self, linger: float) -> None:
        """Start closing, and return at once. Called again it may shorten the lingering; and it does what an interrupt
        has kept the first from doing."""
        if self._life.forked:
            self._life.begin_closing()
            return  # what wakes those who wait is shared with the parent, and in the child nobody waits
        told = self._attached
        if told:
            self._steps.call(self._begin, linger)  # first, so that an interrupt from here on leaves nothing undone
        self._life.begin_closing()
        if self._attached and not told:  # meanwhile
            self._steps.call(self._begin, linger)
        self._turn_away()
        if not (self._attached or self._life.closed):
            self._begin_unattached()
        self.begun = True

    def _begin_unattached(self) -> None:
        if interrupts(HERE):
            _thread.start_new_thread(self._end_unattached, ())  # this one may hold the locks that it takes
            return
        try:
            aside(self._end_unattached)
        except RuntimeError:  # no thread can be started any more: the interpreter is exiting
            self._end_unattached()

    def _end_unattached(self) -> None:
        """There is no network thread that it could be left to, unless one has begun meanwhile."""
        with self._beginning:
            if not self._attached:
                self._end()

    def _turn_away(self) -> None:
        """Once closing: nobody sends any more, and nobody receives, or waits to. May be repeated."""
        self._sender.fast_ring = ()
        self._receiver.inbox.close()
        self._connections.changed.notify_all()
        self._sender.wake_all()
        for tell in tuple(self.followers):
            tell()

    # The network thread: lingering

    def _begin(self, linger: float) -> None:
        self._life.begin_closing()
        if self._life.closed:
            self._io.detach(self)
            return
        if not self._winding_down:
            self._winding_down = True
            self._turn_away()
            self._wind_down()
        if linger == 0:
            # The acknowledgements of what has been taken, as far as that goes at once.
            each((peer for peer in self._connections.open if peer.lane.control), lambda peer: peer.on_work())
            self._end()
        elif linger != float("inf") and not self._life.closed:
            self._lingering.append(self._steps.call_later(linger, self._end))

    def _wind_down(self) -> None:
        """Acknowledge what has been taken, stop what is not needed to send the rest, and send the rest."""
        self._receiver.stop_lending()
        self._receiver.acknowledge_taken()
        self._sender.quiesce()
        self._sender.send_past_marks(self._answering.take_lines())
        self.close_places()
        for endpoint in self._places.endpoints:
            endpoint.hurry()
        each(self._connections.open, lambda peer: peer.resume())
        self.finish_peers()
        self.check_closed()

    def wants(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint without a connection is to be dialled again."""
        return not self._life.closed and self._sender.router.unplaced > 0 and (
            not endpoint.took_leave or self.has_for(endpoint.leads_to, endpoint))

    def has_for(self, identity: bytes, way: object) -> bool:
        """Whether something waits for the peer of that identity, which this or another way leads to."""
        router = self._sender.router
        if router.waits_for(identity):
            return True
        there = router.find(identity)
        return any(router.copies.has_for(one, identity, there)
                   for one in self._places.endpoints if one is way or one.leads_to in (identity, b""))

    def close_places(self) -> None:
        """When no message waits for a peer any more, or may have to, none is dialled or let in."""
        if self._sender.router.unplaced or self._closing_places:
            return
        if not self._places_closed:
            if any(not peer.lane.empty or peer.lane.unacked for peer in self._connections.open):
                return
            self._places_closed = True
            self.finish_peers()  # one may have been idle since before the last message found its way
        self._closing_places = True  # closing a peer comes back to here, and there may be thousands
        for acceptor in self._places.acceptors:
            acceptor.close()
        for endpoint in self._places.endpoints:
            if endpoint.peer is None or endpoint.connecting:
                endpoint.stop()
        for peer in tuple(self._connections.handshaking):
            peer.close("closed", None)
        self._closing_places = False

    def finish_peers(self) -> None:
        """Take leave of those who have all that they are to have."""
        each(self._connections.open, self.finish_peer)

    def finish_peer(self, peer: Peer) -> None:
        """Say goodbye to a peer that has been sent everything and acknowledged everything, whatever is still kept for
        others: it would go on sending. Not before the winding down has begun, which first acknowledges what has been
        taken."""
        if (self._winding_down and peer in self._connections.open and not peer.closing and not self._receiver.is_noting
                and peer.lane.empty and not peer.lane.unacked and not self.has_for(peer.identity, peer.endpoint)):
            if peer.endpoint is not None:
                peer.endpoint.took_leave = True
            peer.lane.window = 0  # nothing can be handed on to it any more
            peer.finish()

    def _all_is_noted(self) -> None:
        """What has been taken is acknowledged now: nobody need be kept for that."""
        self.finish_peers()
        self.check_closed()

    def left(self, peer: Peer) -> None:
        """A connection has ended."""
        self.look_for_others()
        self.check_closed()

    def look_for_others(self) -> None:
        """Who has been said goodbye to may take what somebody has left, or handed back."""
        if self._sender.router.waits_for_anybody:
            for endpoint in self._places.endpoints:
                endpoint.revive()

    def check_closed(self) -> None:
        """The end, if nothing is left to wait for."""
        if not self._winding_down or self._life.closed or not self._attached:
            return
        self.close_places()
        if self._connections.open or self._connections.handshaking:
            return
        places = self._places
        if self._sender.router.unplaced and not self._places_closed and (places.endpoints or places.acceptors):
            return  # once they are closed nobody is dialled or let in any more, and what comes back then is given up
        self._end()

    # The end

    def _end(self) -> None:
        """Let go of everything; what has not been sent or acknowledged by now is given up."""
        if not self._life.end():
            return
        for timer in self._lingering:
            timer.cancel()  # it would keep all of this alive
        for callbacks in self._callbacks:
            callbacks.close()
        self._given_up = self._sender.take_all(self._connections.open)
        for acceptor in self._places.acceptors:
            acceptor.close()
        for endpoint in self._places.endpoints:
            endpoint.stop()
        each((*self._connections.open, *self._connections.handshaking), lambda peer: peer.close("closed", None))
        self._receiver.inbox.release()
        self._receiver.stop_lending()
        self._sender.close_file()
        self._receiver.close_file()
        self._events.close()
        self._reporter.close()
        _not_closed.discard(self)
        if self._attached:
            self._io.detach(self)
            # Behind the sockets: then the same address can be bound at once.
            self._steps.close_afterwards(self._tell_over)
        else:
            self._tell_over()

    def _tell_over(self) -> None:
        self._is_over = True
        self._waiters.notify_all()

    def fail(self, cause: BaseException | None) -> None:
        """A step that belongs to no connection failed, or the network thread: nothing can be said for this Søcket any
        more."""
        self._life.failure = cause
        if cause is not None:
            strip(cause)  # the log has the rest
        self._life.begin_closing()
        self._turn_away()
        self._end()
        self._turn_away()

    # What the reactor asks of its users

    def _io_closing(self, deadline: Deadline) -> None:
        remaining = deadline.remaining()
        self.begin(self._linger if remaining is None else min(self._linger, remaining))

    def _io_failed(self, cause: BaseException | None) -> None:
        self.fail(cause)


_not_closed: weakref.WeakSet[Closing] = weakref.WeakSet()


def _close_all() -> None:
    """At interpreter exit, as if every Søcket left open were closed: first all begin to, then all are waited for."""
    exiting.begin()
    left_open = [closing for closing in tuple(_not_closed) if not closing._life.forked]
    for closing in left_open:
        closing.begin(closing._linger)
    try:
        for closing in left_open:
            closing.close(closing._linger)
    except KeyboardInterrupt:
        for closing in left_open:
            closing.close(0.0)


atexit.register(_close_all)
