"""What one connection of a Søcket sees of the Søcket: where its messages go and come from, and among whom it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from ..reactor.reactor import Reactor
from ..wire.messages import Capabilities
from .inbox import Batch
from .lane import Lane
from .life import Life
from .settings import Settings

__all__ = ["Home", "Inlet", "Neighbours", "Outlet", "Way"]

P = TypeVar("P", contravariant=True)
"""A peer: who is told of it knows what it is, and those that it is made of do not."""
Q = TypeVar("Q")


class Wanting(Protocol):
    """What the application wants of what comes at most once."""

    any: bool
    """Whether it is not all of it."""


class Inlet(Protocol[P]):
    """Where the messages go that a peer sends: the receiving half of the Søcket."""

    by_hand: bool
    """Whether messages count until they are acknowledged."""

    @property
    def subscriptions(self) -> Wanting: ...

    def arrived(self, peer: P, payloads: list[bytes]) -> None: ...

    def one_arrived(self, peer: P, payload: bytes) -> None: ...

    def reliable_arrived(self, peer: P, message_ids: list[bytes], payloads: list[bytes]) -> None: ...

    def requests_arrived(self, peer: P, correlation_ids: list[bytes], payloads: list[bytes]) -> None: ...

    def count_taken(self) -> None:
        """Count as taken what was taken, although nobody has said so yet."""

    append_batch: Callable[[Batch], None]
    """By one call into C, which no interrupt can split; `appended` is to follow. From any thread."""

    def appended(self) -> None: ...

    def stop_lending(self) -> None:
        """Have `Peer.take_back` called for everybody who is `Peer.lent`."""


class Outlet(Protocol[P]):
    """Where the messages come from that a peer is sent: the sending half of the Søcket."""

    def acknowledged(self, peer: P, message_ids: list[bytes]) -> None: ...

    def handed_back(self, peer: P, message_ids: list[bytes]) -> None:
        """It wants others to have these."""

    def subscribed(self, peer: P, prefixes: list[bytes]) -> None:
        """Of what is published it wants what begins with one of these. Raises `RemoteProtocolError`."""

    def unsubscribed(self, peer: P, prefixes: list[bytes]) -> None: ...

    def answered(self, peer: P, correlation_ids: list[bytes], replies: list[bytes]) -> None: ...

    def refused(self, peer: P, correlation_ids: list[bytes], reasons: list[bytes]) -> None: ...

    def capable(self, peer: P, capabilities: Capabilities) -> None: ...

    def expects(self, peer: P) -> bool:
        """Whether somebody waits for acknowledgements or replies that come by this connection."""

    def give_back(self, lane: Lane) -> None:
        """Something is in the queue of a connection that sends no more."""

    def flushed(self, peer: P) -> None:
        """Its queue has been written, as far as possible."""


class Home(Protocol[P]):
    """Those among whom a peer is."""

    def greeted(self, peer: P) -> None:
        """It has said who it is."""

    def judged(self, peer: P, verdict: bool, error: BaseException | None) -> None:
        """``authorize`` has answered about it."""

    def survived(self, peer: P) -> None:
        """It has shown itself, and somebody else claims its identity."""

    def probe_over(self, old: P, challenger: P) -> None:
        """``old`` has had its time to do so."""

    def flushed(self, peer: P) -> None:
        """Its queue has been written, as far as possible, while the Søcket closes."""

    def acknowledged(self) -> None:
        """Messages have been acknowledged while the Søcket closes."""

    def handed_back(self) -> None:
        """Messages have been handed back while the Søcket closes."""

    def cannot_send(self, peer: P, reason: str, error: BaseException | None) -> None:
        """Nothing can be sent to it any more, though it is still read."""

    def lost(self, peer: P, reason: str, error: BaseException | None) -> None:
        """It has gone."""


class Way(Protocol):
    """What was dialled to reach a peer."""

    took_leave: bool
    """Whether the peer has been said goodbye to, because the Søcket closes."""

    def opened(self, identity: bytes) -> None: ...

    def ended(self, open_for: float, reason: str, error: BaseException | None) -> None: ...

    def rest(self, identity: bytes) -> None: ...

    def wake(self, reason: str) -> None: ...


class Neighbours(NamedTuple, Generic[Q]):
    """All that a peer needs of the Søcket it belongs to."""

    identity: bytes
    """The Søcket's own."""
    capabilities: Capabilities
    settings: Settings
    life: Life
    io: Reactor
    inlet: Inlet[Q]
    outlet: Outlet[Q]
    home: Home[Q]
