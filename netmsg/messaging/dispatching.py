"""Who writes what has just been queued: its sender, at once, or the network thread, which is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..reactor.reactor import Reactor
from .connections import each
from .lane import Lane
from .life import Life
from .room import Room
from .routing import Router

if TYPE_CHECKING:
    from .peers import Peer

__all__ = ["BURST", "Dispatch"]

BURST: Final = 512
"""With so many frames gathered, a sender writes by itself."""
QUIET: Final = 60e-6
"""Seconds without a send after which one message is written at once, by its sender."""
QUIET_PEERS: Final = 16
"""To more peers than this a publisher leaves the writing to the network thread."""


class Dispatch:
    """Asked by any thread that has appended to a queue. ``give_back`` is called for what came into that of a peer which
    is gone."""

    def __init__(self, life: Life, io: Reactor, router: Router, room: Room, give_back: Callable[[Lane], None]) -> None:
        self.last_send = 0.0
        """When something was last handed on to be written: see `QUIET`."""
        self._life = life
        self._io = io
        self._stopwatch = io.machine.stopwatch
        self._router = router
        self._room = room
        self._give_back = give_back
        self._fanout = _Fanout(life, router)

    def answering(self) -> None:
        """Somebody has waited for what it gets now: what is sent next is no burst, but an answer."""
        self.last_send = 0.0

    def kick(self, peer: Peer) -> None:
        """Something has just been appended to the queue of ``peer``: see that it gets on its way."""
        io = self._io
        count = len(peer.queue)
        if count < BURST and peer in io.work and not io.asleep:
            return
        if peer.direct:
            if count >= BURST:
                self.last_send = self._stopwatch()
                peer.write_burst()
                if self._room.asked:
                    self._room.made(peer)
            elif peer not in io.work:
                now = self._stopwatch()
                quiet = now - self.last_send > QUIET
                self.last_send = now
                if quiet:
                    peer.write_burst()
                    if self._room.asked:
                        self._room.made(peer)
                    if not peer.queue and not self._life.closing:  # it may be just this that is waited for
                        return
        if peer.lane.dead:
            self._give_back(peer.lane)  # at once: the next message of this thread is to stay behind it
            return
        io.work[peer] = None
        if io.asleep:
            io.wake()

    def kick_all(self) -> None:
        """The same after a publication."""
        io = self._io
        fanout = self._fanout
        ring = self._router.ring
        now = self._stopwatch()
        quiet = now - self.last_send > QUIET and fanout not in io.work
        burst = bool(ring) and len(ring[0].queue) >= BURST
        self.last_send = now
        if burst or (quiet and len(ring) <= QUIET_PEERS):
            left = False
            for lane in ring:
                if lane.owner.direct:
                    lane.owner.write_burst()
                left = left or bool(lane.queue)
            if self._room.asked:
                for lane in ring:
                    self._room.made(lane.owner)
            if burst:
                fanout.bursts += 1
            elif not left and not self._life.closing:
                return
        io.work[fanout] = None
        if io.asleep:
            io.wake()


class _Fanout:
    """All peers of a publisher as one piece of work, so that a publication asks once, and not once a peer."""

    def __init__(self, life: Life, router: Router) -> None:
        self.bursts = 0
        self._seen = 0
        self._life = life
        self._router = router
        self._crashed = life.crash  # it is none of the peers' own

    def bursting(self) -> bool:
        seen, self._seen = self._seen, self.bursts
        return seen != self.bursts

    def on_work(self) -> None:
        closing = self._life.closing  # then whoever waits for the end wants to hear of it
        each((lane.owner for lane in self._router.ring if closing or not lane.empty), lambda peer: peer.on_work())
