"""A conversation: two ends that take turns, one small message at a time.

The time of such a round trip is the waking of threads. Ordinarily the network thread is woken by what arrives, and then
wakes the thread that waits in ``recv``. While a conversation lasts, the waiting thread polls and reads the connections
by itself, and the network thread sleeps.

Only reading is lent, and only what is exactly one small message is taken. Anything else, be it a heartbeat, half of one
or the end, stays where it is and ends the conversation: the network thread takes the right to read back and goes on as
ever. The right (`Peer.lent`) is guarded by the lane's lock, so it can be taken back at any moment, and an interrupt in
the waiting thread leaves nothing half done: what it has read is kept by the peer until it is delivered. Rejected: that
the waiting thread runs the whole loop, where an interrupt can strike in the middle of anything.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Final

from ..reactor.reactor import LONGEST, Reactor, Timer
from ..waiting import Signal, Waiters
from .connections import each

if TYPE_CHECKING:
    from .peers import Peer

__all__ = ["Conversation"]

TURNS: Final = 16
"""After so many messages in a row that came alone and were waited for, reading is lent."""
POLL: Final = hasattr(select, "poll")
POLLIN: Final = select.POLLIN if POLL else 0
PAUSE: Final = 0.01
"""Seconds without a message after which a conversation is over: then nobody may be reading at all."""
MOST: Final = 8
"""Peers in one conversation: the waiting thread polls them all anew for every message, and with more of them the
network thread does that better."""


class Conversation:
    """The conversation that the one taker of an inbox has, perhaps, with a few plain peers.

    It is a ticket of `Waiters` as well: whoever waits by it is woken by messages, and by what wakes any other.
    """

    def __init__(self, io: Reactor, waiters: Waiters, answering: Callable[[], None]) -> None:
        """``answering()`` is called by the taker, when it has waited for what it gets now."""
        self._io = io
        self._answering = answering
        self._waiters = waiters
        self._turns = 0
        self._last_turn = 0.0
        self._speakers: set[Peer] = set()
        self._lent: dict[int, Peer] = {}
        """By descriptor, everybody who is lent; replaced and never changed, for the taker reads it unlocked."""
        self._lendings = 0
        """How often it has been replaced."""
        self._polling: tuple[select.poll | None, int] = None, 0
        """What the taker polls with, and the lending it is made for; not here while it is polling, for only one can."""
        self._open = False  # set by the network thread, cleared by either
        self._heard = False
        self._woken = False
        self._taker = 0  # the thread that has the ticket and does not wait by it yet
        self._timer: Timer | None = None
        self._wake_up: Signal | None = None

    # The network thread

    def overhear(self, peer: Peer) -> None:
        """A message came alone, and was waited for."""
        now = self._io.now
        if not POLL or now - self._last_turn > PAUSE or len(self._waiters.waiting) > 1:
            self.interrupt()
        self._last_turn = now
        self._turns += 1
        self._speakers.add(peer)
        if self._turns == TURNS:
            self._io.call(self._begin)

    def interrupt(self) -> None:
        """Something else came than one message at a time."""
        self._turns = 0
        self._speakers.clear()

    def _begin(self) -> None:
        """Begin a conversation with those who took turns, or have them join the one that is going on."""
        speakers = tuple(self._speakers)
        self.interrupt()
        if not self._open:
            self.end()  # the taker has left it already
        if len(self._lent) + len(speakers) > MOST:
            self.end()
            return
        if self._wake_up is None:
            try:
                self._wake_up = Signal()
            except OSError:
                return  # no descriptor is left: the network thread goes on reading
        joining = {peer.sock.fileno(): peer for peer in speakers if not peer.lent and peer.lend()}
        if not joining:
            return
        if not self._lent:
            self._timer = self._io.call_later(PAUSE, self._look)
        self._lend(self._lent | joining)
        self._open = True
        self._waiters.notify_all()  # whoever waits does not poll those who join

    def _lend(self, lent: dict[int, Peer]) -> None:
        self._lent = lent
        self._lendings += 1  # only then: who polls for this one has looked at no older peers

    def _look(self) -> None:
        """End what is not going on any more."""
        if self._heard:
            self._heard = False
            self._timer = self._io.call_later(PAUSE, self._look)
        else:
            self.end()

    def end(self) -> None:
        """The network thread reads again, beginning with what has been read and not delivered."""
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lent = self._lent
        self._lend({})
        each(lent.values(), lambda peer: peer.take_back())
        if lent:
            self._waiters.notify_all()

    def _crashed(self, error: Exception) -> None:
        """A step on the network thread failed: without conversations everything goes on as well."""
        self.end()

    # The taker

    def ticket(self) -> Conversation | None:
        """What to wait by while a conversation lasts."""
        if not self._open:
            return None
        me = get_ident()
        # No call until it is taken, and so no other thread comes between. Who does not hold this ticket would not hear
        # of the messages, and two that hold it would take each other's wake-ups.
        if not self._waiters.waiting and (not self._taker or self._taker == me):
            self._taker = me
            self._woken = False
            return self
        self._finish()
        return None

    def acquire(self, blocking: bool, timeout: float) -> bool:
        """Wait for messages, and deliver them; false if nothing happened for ``timeout`` seconds (-1: for ever)."""
        self._taker = 0  # it is in the queue of those who wait: from here on that is what others see
        lending = self._lendings
        lent = self._lent
        poll, made_for = self._polling
        self._polling = None, 0
        if poll is None or made_for != lending:
            poll = self._new_poll(lent)
        ready = poll.poll(timeout * 1000 if timeout <= LONGEST else LONGEST * 1000)
        self._polling = poll, lending
        for descriptor, events in ready:
            peer = lent.get(descriptor)
            if peer is None:
                assert self._wake_up is not None
                self._wake_up.clear()
            elif events == POLLIN and peer.hear():
                self._heard = True
                self._answering()
            else:
                self._finish()
        return bool(ready) or timeout > LONGEST

    def _new_poll(self, lent: dict[int, Peer]) -> select.poll:
        assert self._wake_up is not None
        poll = select.poll()
        poll.register(self._wake_up.ends[0], POLLIN)
        for descriptor in lent:
            poll.register(descriptor, POLLIN)
        return poll

    def _finish(self) -> None:
        self._open = False
        self._io.call(self.end)

    def release(self) -> None:
        """Wake the waiting thread. Raises ``RuntimeError`` if that has been done already."""
        woken = self._woken
        self._woken = True
        if self._wake_up is not None:
            self._wake_up.set()  # in any case: who was to do it before may have been interrupted on the way here
        if woken:
            raise RuntimeError("woken already")
