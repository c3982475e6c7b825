"""What a Søcket and its peers look like at one moment."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..tls import TLSInfo

__all__ = ["PeerInfo", "SocketStats"]


class PeerInfo(NamedTuple):
    """One connected peer, at one moment."""

    identity: bytes
    address: Any
    """(host, port) of the other end, or a UNIX path."""
    tls: TLSInfo | None
    dialect: str
    connected_since: float
    """Seconds since the epoch."""
    sent: int
    """Messages handed to the kernel."""
    received: int
    queued: int
    """Messages waiting to be sent."""
    unacked: int


class SocketStats(NamedTuple):
    """Counters of a Søcket since it was made."""

    sent: int
    """Messages handed to the kernel, resends included."""
    received: int
    """Messages received, duplicates included."""
    bytes_sent: int
    bytes_received: int
    queued: int
    """Messages waiting to be sent now, with a peer or without."""
    unacked: int
    """At-least-once messages waiting to be acknowledged now."""
    resent: int
    duplicates: int
    """Messages received twice and delivered once."""
    dropped: dict[str, int]
    """Messages lost on purpose or in spite of it, by cause."""
    undelivered: int
    """At-least-once messages given up on."""
    connections: int
    """Peers there have been."""
    disconnections: int
    peers: dict[bytes, PeerInfo]
    """Those connected now, by identity."""
