"""Endpoints that are not dialled, because the peer to which they lead is there by another connection."""

from __future__ import annotations

from typing import Protocol

from .lane import Lane
from .neighbours import Way
from .peers import Peer

__all__ = ["Resting", "Roads"]


class Roads(Protocol):
    """The sending half, as it is needed here."""

    def find(self, identity: bytes) -> Lane | None:
        """The way to a peer that is connected."""

    def bring(self, endpoint: object, peer: Peer) -> None:
        """An endpoint has turned out to lead to a peer that is there by another way."""


class Resting:
    """Belongs to the network thread."""

    def __init__(self, roads: Roads) -> None:
        self._roads = roads
        self._ways: dict[bytes, list[Way]] = {}
        """By the identity of the peer."""

    def rest(self, peer: Peer, other: Peer) -> None:
        """Do not dial again what led to ``peer``, for ``other`` is a connection to the same one."""
        endpoint, peer.endpoint = peer.endpoint, None
        if endpoint is not None:
            endpoint.rest(other.identity)
            if other.lane.dialled is None:  # or what is kept for it would wait for another endpoint than the one it has
                other.lane.dialled = endpoint
            self._roads.bring(endpoint, other)
            self._ways.setdefault(other.identity, []).append(endpoint)

    def wake(self, identity: bytes) -> None:
        """Dial again what leads to a peer, if it has gone by all other ways."""
        if self._ways and self._roads.find(identity) is None:
            for endpoint in self._ways.pop(identity, ()):
                endpoint.wake("the other connection to this peer has gone")
