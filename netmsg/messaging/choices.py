"""The words in which a Søcket is told how to behave. Pure."""

from __future__ import annotations

from enum import Enum

__all__ = ["AckMode", "DeliveryGuarantee", "OnDuplicate", "OnFull", "OnNoPeer", "SendMode"]


class SendMode(Enum):
    """Which peers a message goes to: ``ROUNDROBIN``, the next in turn, or ``PUBLISH``, all of them."""

    ROUNDROBIN = "round-robin"
    """One: the next in turn that has room."""
    PUBLISH = "publish"
    """Every peer gets a copy."""


class DeliveryGuarantee(Enum):
    """What a send promises."""

    AT_MOST_ONCE = "at most once"
    """The message arrives once or, if a connection breaks at the wrong moment, not at all."""
    AT_LEAST_ONCE = "at least once"
    """The message is sent again until it is acknowledged."""


class AckMode(Enum):
    """When a received at-least-once message is acknowledged: ``ON_RECV`` (``recv`` hands it over), ``MANUAL``
    (`Delivery.ack`), or ``ON_ARRIVAL`` (it is queued)."""

    ON_RECV = "on recv"
    """When ``recv`` hands it over."""
    MANUAL = "manual"
    """When the application calls `Delivery.ack`."""
    ON_ARRIVAL = "on arrival"
    """When it is queued for ``recv``."""


class OnFull(Enum):
    """What a send does when its queue is at the high-water mark: ``BLOCK`` (wait for room, up to the timeout),
    ``DROP_OLDEST``, ``DROP_NEWEST``, ``RAISE`` (`QueueFullError`), or ``DISCONNECT`` the peer that does not keep up."""

    BLOCK = "block"
    """Wait for room, up to the timeout."""
    DROP_OLDEST = "drop-oldest"
    """Make room by dropping the oldest message of that queue."""
    DROP_NEWEST = "drop-newest"
    """Drop the message being sent."""
    RAISE = "raise"
    """Raise `QueueFullError`."""
    DISCONNECT = "disconnect"
    """Close the connection to the peer that does not keep up."""


class OnNoPeer(Enum):
    """What becomes of a message that is for anybody, or for everybody, while nobody is there: ``KEEP``, up to the
    high-water mark, for the first who comes; or ``DROP``, for what is only worth something while it is new."""

    KEEP = "keep"
    """It waits for the first peer that comes."""
    DROP = "drop"
    """It is dropped and counted; so is what the last peer to go was not sent."""


class OnDuplicate(Enum):
    """What happens when a second connection arrives under the identity of a connected peer: ``PROBE`` keeps the old one
    if it is alive, ``REJECT`` keeps it, ``TAKEOVER`` replaces it."""

    PROBE = "probe"
    """The old one stays if it shows a sign of life within a heartbeat interval and a second; else the new one."""
    REJECT = "reject"
    """The old one stays."""
    TAKEOVER = "takeover"
    """The new one replaces it."""
