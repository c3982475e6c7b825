"""The regular look at all peers: heartbeats, silence, resends. One coarse sweep, and no timer a peer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..reactor.reactor import Reactor
from .connections import Connections, each
from .life import Life
from .sending import Sender
from .settings import Settings

if TYPE_CHECKING:
    from .peers import Peer

__all__ = ["Sweep"]

LOOK_EVERY: Final = 1.0
LOOK_AT_MOST_EVERY: Final = 0.001


class Sweep:
    """Goes on for as long as there are peers. Belongs to the network thread."""

    def __init__(self, settings: Settings, life: Life, io: Reactor, connections: Connections, sender: Sender) -> None:
        self._life = life
        self._io = io
        self._clock = io.clock
        self._steps = io.scope(life.crash)
        self._connections = connections
        self._sender = sender
        self._heartbeat_interval = settings.heartbeat_interval
        self._every = max(LOOK_AT_MOST_EVERY, min(LOOK_EVERY, settings.heartbeat_interval / 8,
                                                  settings.heartbeat_timeout / 8, settings.resend_after / 8))
        self._going_on = False
        self._last = 0.0

    def begin(self) -> None:
        """There is a peer. Idempotent."""
        if not self._going_on:
            self._going_on = True
            self._last = self._clock()
            self._steps.call_later(self._every, self._look)

    def _look(self) -> None:
        if not self._connections.open or self._life.closed:
            self._going_on = False
            return
        now = self._clock()
        late = now - self._last > self._every + self._heartbeat_interval
        self._last = now
        self._steps.call_later(self._every, self._look)
        each(self._connections.open, lambda peer: self._look_at(peer, now, late))

    def _look_at(self, peer: Peer, now: float, late: bool) -> None:
        liveness = peer.liveness
        liveness.heard(now, peer.session.decoder.envelopes + peer.received_messages, peer.received_bytes)
        liveness.said(now, peer.lane.sent_bytes)
        if peer.paused or peer.following:
            liveness.last_heard = now  # it may well have spoken
            peer.look_for_room()
        elif late:
            liveness.excuse(now)
        if liveness.dead(now):
            before = peer.received_bytes
            peer.read_now()
            if peer.received_bytes == before and peer in self._connections.open:
                peer.close(f"nothing heard for {liveness.timeout:g} s", None)
            return
        if liveness.heartbeat_due(now, self._every / 2):
            peer.heartbeat()
        if peer.stuck:
            self._io.work[peer] = None
        if self._sender.reliable:
            self._sender.resend(peer, now)
