"""Who is let in: authorization, and what to do about an identity that is connected already."""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from ..sockets.liveness import acknowledged_within, hung_up
from .events import DuplicatePeer

if TYPE_CHECKING:
    from .engine import Engine
    from .peers import Peer

__all__ = ["Admission", "OnDuplicate"]

PROBE_MARGIN: Final = 1.0
MOST_OF_ONE: Final = 128
"""Connections of one identity, those included that are only read to their end."""
AT_ONCE: Final = 0.5
"""Seconds since when one connection is open, at most, if both ends have dialled at once."""
CROSSED: Final = "both ends dialled: the other connection stays"


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
        self._to_ask: dict[Peer, None] = {}
        """Those that ``authorize`` is to be asked about, oldest first; whoever goes meanwhile is forgotten."""
        self._asking = False

    def greeted(self, peer: Peer) -> None:
        """The peer has said who it is."""
        if peer.identity == self._engine.identity:
            peer.close("the Søcket is connected to itself, or to one of the same identity", None)
        elif self._settings.authorize is None:
            self._authorized(peer)
        else:
            self._to_ask[peer] = None
            self._ask()

    def _ask(self) -> None:
        """Ask about one after the other: the user's function may take its time."""
        authorize = self._settings.authorize
        if self._asking or not self._to_ask or authorize is None:
            return
        peer = next(iter(self._to_ask))
        del self._to_ask[peer]
        self._asking = True
        info = peer.info()

        def judge() -> bool:
            return bool(authorize(info))  # what it is taken for is the user's own code, too

        def judged(verdict: Any, error: BaseException | None) -> None:
            self._io.call(self._answered)
            self._io.call(peer.judged, verdict, error)

        self._engine.authorizing.run(judge, (), judged)

    def _answered(self) -> None:
        self._asking = False
        self._ask()

    def forget(self, peer: Peer) -> None:
        """It has gone."""
        self._to_ask.pop(peer, None)

    def judged(self, peer: Peer, verdict: bool, error: BaseException | None) -> None:
        """``authorize`` has answered."""
        if peer not in self._engine.handshaking:
            return
        if error is not None:
            peer.close(f"authorize() raised {error!r:.200}", error)
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
        at_once = crossing and old.open_for < AT_ONCE
        if self._engine.receiver.connections_of(peer.identity) >= MOST_OF_ONE:
            self.refuse(peer, "too many connections under this identity are still to be read")
        elif hung_up(peer.sock):  # nothing is to be handed over to one that has gone
            if crossing:
                self._engine.read_only(peer, old, CROSSED)
            else:
                self.refuse(peer, "its peer has closed it")
        elif not crossing and policy is not OnDuplicate.REJECT and hung_up(old.sock):
            # Its goodbye waits behind messages that nobody has taken: they are not lost.
            self._tell(old, "the old connection has been closed by its peer, which has connected again")
            self._engine.hand_over(old, peer, "the peer closed the connection", alive=False)
        elif at_once:
            # The connection dialled by the greater identity stays, on either side.
            dialler = self._engine.identity if peer.endpoint is not None else peer.identity
            if dialler == max(self._engine.identity, peer.identity):
                self._tell(old, f"the old connection is closed: {CROSSED}")
                self._engine.hand_over(old, peer, CROSSED, alive=True)
            else:
                self._tell(peer, f"the new connection is closed: {CROSSED}")
                self._engine.read_only(peer, old, CROSSED)
        elif not crossing and peer.certificate is not None and peer.certificate == old.certificate:
            self._replace(old, peer, "the same certificate, connecting again")
        elif policy is OnDuplicate.TAKEOVER:
            self._replace(old, peer, "taken over")
        elif policy is OnDuplicate.REJECT:
            self._refuse_for(old, peer, "the identity is connected already")
        else:
            self._challenge(old, peer)

    def _challenge(self, old: Peer, peer: Peer) -> None:
        """Find out which of two connections under one identity is alive."""
        if old.challenger is not None:
            self._refuse_for(old, old.challenger, "a newer connection under this identity")
        old.challenger = peer
        peer.challenge()
        now = time.monotonic()
        if not old.probe_until:
            old.probe_until = now + self._time_to_show(old)
            self._engine.receiver.conversation.end()
            if self._is_unread(old):
                old.heartbeat()  # its system can acknowledge
        self._io.call_later(max(0.0, old.probe_until - now), peer.probe_over, old)

    def _time_to_show(self, old: Peer) -> float:
        return min(old.announced_interval, old.liveness.timeout) + PROBE_MARGIN

    @staticmethod
    def _is_unread(peer: Peer) -> bool:
        """Whether its silence says nothing, because we do not listen."""
        return peer.paused or peer.following

    def survived(self, peer: Peer) -> None:
        """A peer whose identity somebody else claims has shown itself."""
        peer.probe_until = 0.0
        challenger, peer.challenger = peer.challenger, None
        if challenger is not None:
            self._refuse_for(peer, challenger, "the identity is connected already, and alive")

    def probe_over(self, old: Peer, challenger: Peer) -> None:
        """``old`` has had its time."""
        if old.challenger is not challenger or challenger not in self._engine.handshaking:
            return
        if self._is_unread(old) and not hung_up(old.sock) and acknowledged_within(old.sock, self._time_to_show(old)):
            self.survived(old)
            return
        old.look()
        if old.challenger is challenger:
            old.challenger = None
            self._replace(old, challenger, "no sign of life, and its identity has connected again")

    def _replace(self, old: Peer, new: Peer, reason: str) -> None:
        self._tell(old, f"the old connection is closed: {reason}")
        self._engine.replace(old, new, reason)

    def _refuse_for(self, old: Peer, peer: Peer, reason: str) -> None:
        """The identity is taken. If it is we who have dialled, there is no need to do so again before ``old`` goes."""
        self._engine.rest(peer, old)
        self.refuse(peer, reason)

    def refuse(self, peer: Peer, reason: str) -> None:
        """Its identity is taken."""
        self._tell(peer, f"the new connection is closed: {reason}")
        peer.close(reason, None)

    def _tell(self, peer: Peer, reason: str) -> None:
        self._events.add(DuplicatePeer(peer.address, peer.identity, reason))

    def _crashed(self, error: Exception) -> None:
        """A step on the network thread failed."""
        self._engine._crashed(error)
