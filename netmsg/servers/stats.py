"""What a server tells about itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ServerStats"]


@dataclass(frozen=True)
class ServerStats:
    """A snapshot: ``connections``, ``handshakes``, ``waiting`` and ``workers`` as they are now, all others counted
    since the start; those that do not apply to the server are 0."""

    connections: int = 0
    """Now, in every state."""
    accepted: int = 0
    handshakes: int = 0
    """Connections in their TLS handshake now."""
    handshakes_failed: int = 0
    waiting: int = 0
    """Handler calls that wait for a worker now."""
    workers: int = 0
    """Worker threads now."""
    packets_received: int = 0
    """Packets or datagrams that were handed to a handler."""
    packets_sent: int = 0
    """Packets or datagrams that were accepted for sending."""
    unanswered: int = 0
    """Answers of a `DatagramServer` that were given up, because their client did not read."""
    bad_packets: int = 0
    overlong_datagrams: int = 0
    handler_errors: int = 0
    """Exceptions of handlers that were logged."""
    accept_pauses: int = 0
    """How often accepting paused because of ``max_connections``."""
    accept_errors: int = 0
    """How often accepting failed, for want of descriptors among others."""
    closed_idle: int = 0
    """Clients that were closed because they were silent: for ``idle_timeout``, or so long that others had their
    worker."""
    closed_slow: int = 0
    """Clients that were closed because they did not receive what they were sent."""
    closed_blocked: int = 0
    """Clients that were closed because too many workers waited to send, and theirs the longest."""
    closed_unsent: int = 0
    """Clients that were cut off when the time of `shutdown` was up, and not all that was sent to them had gone."""
