"""Who is let in: authorization, and what to do about an identity that is connected already."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from .events import DuplicatePeer

if TYPE_CHECKING:
    from .engine import Engine
    from .peers import Peer

__all__ = ["Admission", "OnDuplicate"]

PROBE_MARGIN: Final = 1.0


class OnDuplicate(Enum):
    """What happens when a second connection arrives under the identity of a connected peer: ``PROBE`` keeps the old one
    if it is alive, ``REJECT`` keeps it, ``TAKEOVER`` replaces it."""

    PROBE = "probe"
    """The old one stays if it shows a sign of life within a heartbeat interval and a second; else the new one."""
    REJECT = "reject"
    """The old one stays."""
    TAKEOVER = "takeover"
    """The new one replaces it."""


class Admission:
    """Decides, on the network thread, about every connection that has said HELLO."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._io = engine.io
        self._settings = engine.settings
        self._events = engine.events

    def greeted(self, peer: Peer) -> None:
        """The peer has said who it is."""
        if peer.identity == self._engine.identity:
            peer.close("the Søcket is connected to itself, or to one of the same identity", None)
        elif self._settings.authorize is None:
            self._authorized(peer)
        else:
            self._engine.callbacks.run(
                self._settings.authorize, (peer.info(),),
                lambda verdict, error: self._io.call(self._judged, peer, verdict, error))

    def _judged(self, peer: Peer, verdict: Any, error: BaseException | None) -> None:
        if peer not in self._engine.handshaking:
            return
        if error is not None:
            peer.close(f"authorize() raised {error!r}", error)
        elif not verdict:
            peer.close("not authorized", None)
        else:
            self._authorized(peer)

    def _authorized(self, peer: Peer) -> None:
        lane = self._engine.sender.router.find(peer.identity)
        if lane is None:
            self._engine.let_in(peer)
            return
        old: Peer = lane.owner
        policy = self._settings.on_duplicate
        crossing = (old.endpoint is None) != (peer.endpoint is None)
        if peer.certificate is not None and peer.certificate == old.certificate:
            self._replace(old, peer, "the same certificate, connecting again")
        elif crossing:
            # Both dialled at once: the connection dialled by the greater identity stays, on either side.
            dialler = self._engine.identity if peer.endpoint is not None else peer.identity
            if dialler == max(self._engine.identity, peer.identity):
                self._replace(old, peer, "both ends dialled: the other connection stays")
            else:
                self._refuse(peer, "both ends dialled: the other connection stays")
        elif policy is OnDuplicate.TAKEOVER:
            self._replace(old, peer, "taken over")
        elif policy is OnDuplicate.REJECT:
            self._refuse(peer, "the identity is connected already")
        else:
            if old.challenger is not None:
                self._refuse(old.challenger, "a newer connection under this identity")
            self._engine.receiver.conversation.end()
            old.challenger = peer
            peer.challenge()
            interval = min(old.announced_interval, self._settings.heartbeat_timeout)
            self._io.call_later(interval + PROBE_MARGIN, self._probe_over, old, peer)

    def survived(self, peer: Peer) -> None:
        """A peer whose identity somebody else claims has shown itself."""
        challenger, peer.challenger = peer.challenger, None
        if challenger is not None:
            self._refuse(challenger, "the identity is connected already, and alive")

    def _probe_over(self, old: Peer, challenger: Peer) -> None:
        if old.challenger is not challenger:
            return
        if old.paused:  # we do not read, so its silence says nothing
            self.survived(old)
        else:
            old.challenger = None
            self._replace(old, challenger, "no sign of life, and its identity has connected again")

    def _replace(self, old: Peer, new: Peer, reason: str) -> None:
        self._events.add(DuplicatePeer(old.address, old.identity, f"the old connection is closed: {reason}"))
        old.close(reason, None)
        self._engine.let_in(new)

    def _refuse(self, peer: Peer, reason: str) -> None:
        self._events.add(DuplicatePeer(peer.address, peer.identity, f"the new connection is closed: {reason}"))
        peer.close(reason, None)

    def crashed(self, error: Exception) -> None:
        """A step on the network thread failed."""
        self._engine.crashed(error)
