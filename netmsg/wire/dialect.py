"""What a connection needs of the dialect that its ends speak: how to write, and what the received bytes mean.

Version 1 is the one in which the queues are kept, and needs nothing done to them. A dialect is a file of its own, which
`netmsg.wire.sniffing` names beside the first bytes by which it is told; nothing else knows which there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from ..errors import RemoteProtocolError
from .messages import READ_SIZE, Capabilities, Frame, Queued, Run

__all__ = ["RunDecoder", "Dialect"]


class RunDecoder(ABC):
    """Turns the bytes of one connection into runs, within a bound: see `netmsg.wire.framing.EnvelopeDecoder`."""

    error: RemoteProtocolError | None = None
    """What is wrong with the bytes: the runs returned before and with it are good, and there will be no more."""
    read_size: int = READ_SIZE
    """How many bytes to receive next; `READ_SIZE` unless a large message has begun."""
    envelopes: int = 0
    """How much has been decoded that is no message; with the messages, the measure of a peer's being alive."""
    stopped: bool = False
    """Whether the last `decode` ended for want of room, or of time, with more to decode."""

    @property
    @abstractmethod
    def buffered(self) -> int:
        """How many received bytes wait to be decoded."""

    @property
    def idle(self) -> bool:
        """Whether `only_message` may tell a message from the next bytes alone."""
        return False

    @abstractmethod
    def hold(self, chunk: bytes) -> None:
        """Add ``chunk`` without decoding anything yet."""

    @abstractmethod
    def decode(self, chunk: bytes, room: int) -> list[Run]:
        """Add ``chunk`` and decode what is complete, but at most ``room`` messages, and for a few milliseconds, which
        others wait for; the rest is kept for later."""

    def only_message(self, chunk: bytes) -> bytes | None:
        """The payload of the one message, sent at most once, that ``chunk`` is exactly, if there is a short way to
        tell; for anything else ``None``, and ``chunk`` is still to be decoded."""
        return None

    @abstractmethod
    def discard(self) -> None:
        """Let go of what has been received and not decoded: there will be no more."""


class Dialect(ABC):
    """One connection's. It reads no clock, waits for nothing, and knows nothing of peers and queues."""

    name: str
    """What `PeerInfo.dialect` says."""
    heartbeat: bytes
    """What is sent while there is nothing else to send."""
    decoder: RunDecoder
    """It is handed what is received; and decodes it once the peer has been let in."""

    @abstractmethod
    def opening(self, identity: bytes) -> bytes:
        """What the end of ``identity``, which has dialled, says before it knows what the other end speaks."""

    @abstractmethod
    def greet(self) -> bytes | None:
        """The identity of the other end, taken from what the decoder holds; ``None`` until it is complete.

        Raises `RemoteProtocolError`.
        """

    def answer(self) -> bytes:
        """What is to be said after a call of `greet`, also of one that raised; nothing the next time."""
        return b""

    @abstractmethod
    def welcome(self, identity: bytes, capabilities: Capabilities, *, opened: bool) -> bytes:
        """What lets the other end in. ``opened``: this one has said its opening, though perhaps in another dialect."""

    @abstractmethod
    def acknowledgements(self, message_ids: Iterable[bytes]) -> bytes:
        """Of messages received; nothing for none."""

    def refusal(self, message_id: bytes) -> bytes:
        """That somebody else is to have a message; nothing where that cannot be said. To those who understand it."""
        return b""

    def subscriptions(self, prefixes: Iterable[bytes], wanted: bool) -> bytes:
        """That what begins with these is wanted, or not any more; nothing where that cannot be said. To those who
        understand it."""
        return b""

    def capabilities(self, body: bytes) -> Capabilities:
        """The meaning of what was received as `CAPABILITIES`. Raises `RemoteProtocolError`."""
        raise RemoteProtocolError(f"{self.name} has no capabilities")

    def encoder(self) -> Callable[[Queued], Frame] | None:
        """What turns a queued message into one of this dialect; ``None`` where it is written as it is.

        It is called by whoever writes, under the lock of the queue, and may be interrupted. What it makes may be
        written in part or not at all: then the queued message goes to somebody else.
        """
        return None
