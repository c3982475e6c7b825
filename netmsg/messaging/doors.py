"""Who is let through the door at all: at ``max_connections``, or while too many have not said who they are, newcomers
wait in the backlog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..reactor.reactor import Reactor
from .connections import Connections
from .life import Life
from .strangers import Strangers

if TYPE_CHECKING:
    from .peers import Peer
    from .places import Places

__all__ = ["Doors"]

LOOK_AGAIN: Final = 0.02
"""Seconds until a stranger may have to go, while nobody else is accepted."""


class Doors:
    """Opens and closes them. Belongs to the network thread."""

    def __init__(self, max_connections: int, life: Life, io: Reactor, connections: Connections,
                 places: Places) -> None:
        self._max_connections = max_connections
        self._life = life
        self._io = io
        self._steps = io.scope(life.crash)
        self._connections = connections
        self._places = places
        self._strangers = Strangers(io.machine.readable)
        self._flooded = False
        self._looking_again = False

    def came(self, stranger: Peer) -> None:
        """Somebody has been accepted."""
        self._strangers.add(stranger, self._io.now)

    def introduced(self, peer: Peer) -> None:
        """One of them has said who it is, or has gone."""
        self._strangers.discard(peer)

    def flooded(self, yes: bool) -> None:
        """Those who have gone have left too much: nobody new may come until it has been taken. Or it has been."""
        self._flooded = yes
        self.regulate()

    def regulate(self) -> bool:
        """Look at how many there are. Whether newcomers have to wait."""
        there = len(self._connections.open) + len(self._connections.handshaking)
        room = self._max_connections - (there - len(self._strangers))
        full = self._flooded or self._strangers.is_full(room, self._io.clock(), self._is_awaited)
        for acceptor in self._places.acceptors:
            if full:
                acceptor.pause()
            else:
                acceptor.resume()
        if full and self._strangers and not self._looking_again:
            self._looking_again = True
            self._steps.call_later(LOOK_AGAIN, self._regulate_again)
        return full

    def _is_awaited(self) -> bool:
        """Whether anybody waits outside."""
        return any(acceptor.is_awaited for acceptor in self._places.acceptors)

    def _regulate_again(self) -> None:
        self._looking_again = False
        if not self._life.closed:
            self.regulate()
