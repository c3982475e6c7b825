"""Who waits for what stands behind messages in the network: acknowledgements, replies, and room.

A peer whose messages nobody takes is not read any further, once it has reached the marks. But acknowledgements and
replies come by the same connection, behind those messages; whoever waits for them has to read past the marks, or both
ends may wait for ever. So has whoever waits for room for a reply: perhaps the other end does the same, and reads
nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import TYPE_CHECKING

from ..reactor.reactor import Reactor
from .connections import Connections
from .life import Life
from .requests import Requests
from .routing import Router

if TYPE_CHECKING:
    from .peers import Peer

__all__ = ["Expecting"]


class Expecting:
    """Asked by the network thread, and told by any."""

    def __init__(self, life: Life, io: Reactor, connections: Connections, router: Router, requests: Requests) -> None:
        self.acknowledgements = 0
        """How many threads wait for some."""
        self.followers: set[object] = set()
        """Who else waits for some, with no thread."""
        self.room_for_replies: dict[object, Collection[bytes]] = {}
        """The identities of those whom threads wait to send a reply, for each of these threads."""
        self._numbers = itertools.count(1)
        self._wanted = self._done = 0
        """How often somebody has begun to wait, and up to which of these it has been seen to."""
        self._steps = io.scope(life.crash)
        self._connections = connections
        self._router = router
        self._requests = requests

    def read_on(self) -> None:
        """Somebody begins to wait. From any thread."""
        if self._connections.open:  # or, without a network thread, these calls would pile up
            self._wanted = next(self._numbers)
            self._steps.call(self._read_past_marks)

    # The network thread

    def _read_past_marks(self) -> None:
        if self._done == self._wanted:
            return  # together with others
        self._done = self._wanted
        for peer in tuple(self._connections.open):
            if peer.paused and self.expects(peer):
                peer.resume_safely()

    def expects(self, peer: Peer) -> bool:
        """Whether somebody waits for what comes by this connection, or by one that is read behind it."""
        if self.acknowledgements or self.followers:
            if peer.lane.unacked:
                return True
            lane = self._router.find(peer.identity) if peer.retired or peer.following else None
            if lane is not None and lane.unacked:
                return True
        if self._requests.unplaced:
            there = self._router.find(peer.identity)
            if there is not None and not there.owner.announced:
                return True  # whether it can answer
        return (self._requests.awaited(peer.identity)
                or any(peer.identity in askers for askers in self.room_for_replies.copy().values()))
