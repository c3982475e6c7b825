"""The peers of a Søcket: who comes, who is let in, who takes over from whom, and who has gone.

A newcomer says who it is (`greeted`), is perhaps asked about, and is let in, unless its identity is connected already:
`netmsg.messaging.admission` says what happens then. There may be several connections of one identity at a time, of
which one alone exchanges messages; the others are *retired*, which is to say read to their end, in the order in which
they were opened.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from ..reactor.reactor import Reactor
from ..sockets.addresses import host_and_port
from ..wire.messages import Capabilities, Features
from .accounts import Accounts
from .admission import Claim, Decision, Verdict, decide
from .asking import Asking
from .carriers import Carrier
from .choices import SendMode
from .closing import Closing
from .connections import Connections
from .doors import Doors
from .events import Connected, Disconnected, DuplicatePeer, EventQueue, HandshakeFailed
from .life import Life
from .neighbours import Neighbours
from .peers import Peer
from .receiving import Receiver
from .resting import Resting
from .sending import Sender
from .settings import Settings
from .sweeping import Sweep

if TYPE_CHECKING:
    from .places import Places
    from .reconnecting import Endpoint

__all__ = ["Population"]

PROBE_MARGIN: Final = 1.0
LOOK_EVERY: Final = 0.2
"""Seconds between two looks at whether one that waits for a verdict has gone."""
MOST_READS: Final = 64
"""So many reads, at most, of a connection that another one replaces."""
GONE: Final = "the peer closed the connection"


class Population:
    """Belongs to the network thread."""

    def __init__(self, identity: bytes, settings: Settings, life: Life, io: Reactor, events: EventQueue, places: Places,
                 connections: Connections, doors: Doors, accounts: Accounts, sender: Sender, receiver: Receiver,
                 closing: Closing, sweep: Sweep, asking: Asking | None) -> None:
        self._identity = identity
        self._settings = settings
        self._machine = io.machine
        self._life = life
        self._io = io
        self._events = events
        self._places = places
        self._connections = connections
        self._doors = doors
        self._accounts = accounts
        self._sender = sender
        self._receiver = receiver
        self._closing = closing
        self._sweep = sweep
        self._asking = asking
        self._resting = Resting(sender)
        features = Features.REQUESTS | Features.NACK
        if settings.send_mode is SendMode.PUBLISH:
            features |= Features.SUBSCRIPTIONS
        capabilities = Capabilities(settings.heartbeat_interval, settings.recv_hwm, features)
        self._neighbours = Neighbours(identity, capabilities, settings, life, io, receiver, sender, self)

    # Coming

    def accepted(self, sock: socket.socket, address: Any, carrier: Carrier) -> None:
        address = host_and_port(address or sock.getsockname())
        if self._life.closed:
            sock.close()
            return
        peer = self._make(sock, address, None, carrier)
        self._doors.came(peer)
        self._start(peer)

    def connected(self, sock: socket.socket, target: tuple[str, int] | str, endpoint: Endpoint,
                  carrier: Carrier) -> Peer:
        """An endpoint has dialled successfully."""
        address: Any = target
        if not isinstance(target, str):
            try:
                address = host_and_port(sock.getpeername())
            except OSError:
                pass  # gone already: reading will tell
        peer = self._make(sock, address, endpoint, carrier)
        self._io.scope(peer._crashed).call(self._start, peer)
        return peer

    def _make(self, sock: socket.socket, address: Any, endpoint: Endpoint | None, carrier: Carrier) -> Peer:
        peer = Peer(self._neighbours, sock, address, endpoint, carrier)
        self._connections.handshaking[peer] = None  # from now on it is closed with the others, in a forked child too
        return peer

    def wants(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint without a connection is to be dialled again."""
        return not self._life.closing or self._closing.wants(endpoint)

    def without(self, endpoint: Endpoint) -> None:
        """An endpoint is not dialled any more."""
        self._closing.check_closed()

    def _start(self, peer: Peer) -> None:
        if self._life.closed:
            peer.close("closed", None)
        elif peer in self._connections.handshaking:  # and not closed meanwhile
            self._doors.regulate()
            peer.start()

    def greeted(self, peer: Peer) -> None:
        """A peer has said who it is."""
        self._doors.introduced(peer)
        self._doors.regulate()
        if peer.identity == self._identity:
            peer.close("the Søcket is connected to itself, or to one of the same identity", None)
        elif self._asking is None:
            self._authorized(peer)
        else:
            self._asking.add(peer)

    def judged(self, peer: Peer, verdict: bool, error: BaseException | None) -> None:
        """``authorize`` has answered."""
        if peer not in self._connections.handshaking:
            return
        if error is not None:
            peer.close(f"authorize() raised {error!r:.200}", error)
        elif not verdict:
            peer.close("not authorized", None)
        else:
            self._authorized(peer)

    def _authorized(self, peer: Peer) -> None:
        lane = self._sender.find(peer.identity)
        if lane is None:
            self._let_in(peer)
        else:
            old: Peer = lane.owner
            self._carry_out(decide(self._claim(peer, old), self._settings.on_duplicate), peer, old)

    # Two connections under one identity

    def _claim(self, peer: Peer, old: Peer) -> Claim:
        hung_up = self._machine.hung_up
        return Claim(self._identity, peer.identity, peer.endpoint is not None, old.endpoint is not None,
                     old.open_for - peer.known_for, old.endpoint is not None or old.has_spoken,
                     hung_up(old.sock), hung_up(peer.sock),
                     peer.certificate is not None and peer.certificate == old.certificate,
                     self._accounts.connections_of(peer.identity))

    def _carry_out(self, decision: Decision, peer: Peer, old: Peer) -> None:
        verdict, reason, alive, crossed = decision
        if verdict is Verdict.REFUSE:
            self._refuse(peer, reason)
        elif verdict is Verdict.REFUSE_FOR_THE_OLD:
            if self._was_heard(old):
                self._introduce(peer, old)
            self._refuse_for(old, peer, reason)
        elif verdict is Verdict.READ:
            self._tell(peer, f"the new connection is closed: {reason}")
            self._read_only(peer, old, reason)
        elif verdict is Verdict.HAND_OVER:
            self._tell(old, f"the old connection is closed: {reason}" if alive else reason)
            self._hand_over(old, peer, reason if alive else GONE, alive=alive, crossed=crossed)
        elif verdict is Verdict.FOLLOW:
            self.cannot_send(old, reason, None)
            self._authorized(peer)
        elif verdict is Verdict.REPLACE:
            self._replace(old, peer, reason)
        else:
            self._challenge(old, peer)

    def _tell(self, peer: Peer, reason: str) -> None:
        self._events.add(DuplicatePeer(peer.address, peer.identity, reason))

    def _refuse(self, peer: Peer, reason: str) -> None:
        """Its identity is taken."""
        self._tell(peer, f"the new connection is closed: {reason}")
        peer.close(reason, None)

    def _refuse_for(self, old: Peer, peer: Peer, reason: str) -> None:
        """The identity is taken. If it is we who have dialled, there is no need to do so again before ``old`` goes."""
        self._resting.rest(peer, old)
        self._refuse(peer, reason)

    def _replace(self, old: Peer, new: Peer, reason: str) -> None:
        """Exchange messages by ``new``, and by ``old`` no more, which is closed when what has come is read."""
        self._tell(old, f"the old connection is closed: {reason}")
        if old.following:  # its turn to be read has not come: then all is read in turn
            self._hand_over(old, new, reason, alive=False, replaced=True)
            return
        self._dismiss_challenger(old, new)
        self._read_what_is_there(old)
        if self._sender.find(new.identity) is None:
            self._let_in(new)  # that was its end
        elif self._open(new):
            if new.endpoint is None:
                self._resting.rest(old, new)  # or two that dial each other would take over from each other for ever
            self._sender.succeed(old, new, finish=False, same=False)
            self._gone(old, reason, None)
            old.close(reason, None)
            self._opened(new)

    def _read_what_is_there(self, old: Peer) -> None:
        """Within the marks; and no more than others can wait for."""
        for _ in range(MOST_READS):
            before = old.received_bytes
            old.read_now()
            if old.received_bytes == before:
                break

    def _hand_over(self, old: Peer, new: Peer, reason: str, *, alive: bool, crossed: bool = False,
                   replaced: bool = False) -> None:
        """The same, but the peer is ``alive``, or has said goodbye: all that it sent on ``old`` is read, and first; or
        what has come of it, if that is ``replaced``."""
        self._dismiss_challenger(old, new)
        if new in self._connections.handshaking:
            self._resting.rest(old, new)
            self._connections.retired[old.identity] = old
            new.follow(old, send=not alive)
            self._open(new)
            self._sender.succeed(old, new, finish=not replaced, same=crossed)
            self._gone(old, reason, None)
            self._opened(new)
            new.on_work()  # HELLO here first, so that the end of ``old`` is known for what it is
            old.retire(reason, replaced=replaced)

    def _read_only(self, peer: Peer, other: Peer, reason: str) -> None:
        """The peer has two connections, and ``other`` stays: what it has sent on ``peer`` meanwhile is read, first."""
        self._resting.rest(peer, other)
        if self._open(peer):
            self._connections.retired[peer.identity] = peer
            other.follow(peer, send=True)
            peer.retire(reason)

    def _dismiss_challenger(self, old: Peer, new: Peer) -> None:
        challenger, old.challenger = old.challenger, None
        if challenger is not None and challenger is not new:
            self._refuse(challenger, "a newer connection under this identity")

    def _challenge(self, old: Peer, peer: Peer) -> None:
        """Find out which of two connections under one identity is alive."""
        if old.challenger is not None:
            self._refuse_for(old, old.challenger, "a newer connection under this identity")
        old.challenger = peer
        if not old.probe_until:
            old.probe_until = self._machine.clock() + self._time_to_show(old)
            self._receiver.stop_lending()
            if self._is_unread(old):
                old.heartbeat()  # its system can acknowledge
        self._give_time(old, peer)

    def _give_time(self, old: Peer, challenger: Peer) -> None:
        challenger.challenge(old, min(LOOK_EVERY, max(0.0, old.probe_until - self._machine.clock())))

    def _time_to_show(self, old: Peer) -> float:
        return min(old.announced_interval, old.liveness.timeout) + PROBE_MARGIN

    def _was_heard(self, peer: Peer) -> bool:
        """Whether it has shown itself lately; or else its other end may be gone, and is to be told that it dials in
        vain."""
        return self._machine.clock() - peer.liveness.last_heard <= self._time_to_show(peer)

    @staticmethod
    def _is_unread(peer: Peer) -> bool:
        """Whether its silence says nothing, because we do not listen."""
        return peer.paused or peer.following

    def survived(self, peer: Peer) -> None:
        """A peer whose identity somebody else claims has shown itself."""
        peer.probe_until = 0.0
        challenger, peer.challenger = peer.challenger, None
        if challenger is not None:
            self._introduce(challenger, peer)
            self._refuse_for(peer, challenger, "the identity is connected already, and alive")

    @staticmethod
    def _introduce(newcomer: Peer, old: Peer) -> None:
        """Where both ends have dialled, the other one need not dial again while ``old`` is alive: it learns that by
        whom it has reached."""
        if old.announced and old.endpoint is not None:
            newcomer.introduce()

    def probe_over(self, old: Peer, challenger: Peer) -> None:
        """``old`` has had its time, or a part of it."""
        if old.challenger is not challenger or challenger not in self._connections.handshaking:
            return
        machine = self._machine
        if (challenger.endpoint is None) != (old.endpoint is None) and machine.hung_up(challenger.sock):
            old.challenger = None  # both ends have dialled, and the other one has decided that the old one stays
            self._authorized(challenger)
        elif machine.clock() < old.probe_until:
            self._give_time(old, challenger)
        elif (self._is_unread(old) and not machine.hung_up(old.sock)
                and machine.acknowledged_within(old.sock, self._time_to_show(old))):
            self.survived(old)
        else:
            old.read_now()
            if old.challenger is challenger:
                old.challenger = None
                self._replace(old, challenger, "no sign of life, and its identity has connected again")

    # Being let in

    def _let_in(self, peer: Peer) -> None:
        """Exchange messages with ``peer``, which has said who it is. One that has gone meanwhile, having waited in the
        backlog for longer than it would, is read to its end: what waits for a peer is not for this one."""
        if self._life.closing and not self._closing.has_for(peer.identity, peer.endpoint):
            peer.close("closed", None)  # what it sends would be lost
            return
        retired = self._connections.retired.get(peer.identity)
        if retired is not None:
            peer.follow(retired, send=True)
        if not self._open(peer):
            return
        gone = self._machine.hung_up(peer.sock)
        if not gone:
            self._sender.join(peer)
        self._opened(peer)
        if gone:
            self._connections.retired[peer.identity] = peer
            peer.retire(GONE)
            self._dial_again(peer, GONE, None)

    def _open(self, peer: Peer) -> bool:
        if peer not in self._connections.handshaking:
            return False
        self._connections.count_in(peer)
        # Messages are kept for what we dial; and perhaps we dial it too, or by another way as well.
        kept, lane = self._sender.router.copies, peer.lane
        ways = [endpoint for endpoint in self._places.endpoints if endpoint.leads_to == peer.identity]
        if lane.dialled not in kept:
            lane.dialled = next((way for way in ways if way in kept), lane.dialled or next(iter(ways), None))
        peer.let_in(self._accounts.open(peer))
        return True

    def _opened(self, peer: Peer) -> None:
        peer.known = True
        self._connections.made += 1
        if peer.endpoint is not None:
            peer.endpoint.opened(peer.identity)
        self._events.add(Connected(peer.address, peer.identity))
        self._changed()
        self._sweep.begin()
        self._io.work[peer] = None
        if self._life.closing:
            self._closing.close_places()

    def _changed(self) -> None:
        self._connections.changed.notify_all()
        self._sender.wake_all()

    # Going

    @staticmethod
    def _dial_again(peer: Peer, reason: str, error: BaseException | None) -> None:
        """What leads to ``peer``, though it is still read."""
        endpoint, peer.endpoint = peer.endpoint, None
        if endpoint is not None:
            endpoint.ended(peer.open_for, reason, error)

    def cannot_send(self, peer: Peer, reason: str, error: BaseException | None) -> None:
        """``peer`` can be sent nothing any more: its messages go to the others, or wait, while it is read to its
        end; and what leads to it is dialled again."""
        self._connections.retired[peer.identity] = peer
        self._sender.leave(peer)
        peer.retire(reason)
        self._gone(peer, reason, error)
        self._changed()
        self._dial_again(peer, reason, error)
        self._resting.wake(peer.identity)
        self._let_in_challenger(peer)

    def lost(self, peer: Peer, reason: str, error: BaseException | None) -> None:
        """A connection has ended."""
        if peer in self._connections.open:
            self._sender.leave(peer)
            self._sender.ended(peer)
            self._connections.count_out(peer)
            self._accounts.leave(peer)
            if peer.known:
                self._gone(peer, reason, error)
                self._changed()
        else:
            self._stranger_lost(peer, reason, error)
        self._let_in_challenger(peer)
        if peer.endpoint is not None:
            peer.endpoint.ended(peer.open_for, reason, error)
        self._resting.wake(peer.identity)
        self._doors.regulate()
        if self._life.closing:
            self._closing.left(peer)

    def _stranger_lost(self, peer: Peer, reason: str, error: BaseException | None) -> None:
        """It had not been let in."""
        self._connections.count_stranger_out(peer)
        self._doors.introduced(peer)
        if self._asking is not None:
            self._asking.forget(peer)
        lane = self._sender.find(peer.identity)
        if lane is not None and lane.owner.challenger is peer:
            lane.owner.challenger = None
            self._resting.rest(peer, lane.owner)  # the other end was the first to decide that the old one stays
        if reason:
            self._events.add(HandshakeFailed(peer.address, peer.identity or None, reason, error,
                                             phase="" if self._life.closing else peer.phase,
                                             dialled=peer.endpoint is not None))

    def _let_in_challenger(self, peer: Peer) -> None:
        challenger, peer.challenger = peer.challenger, None
        if challenger is not None:
            self._let_in(challenger)

    def _gone(self, peer: Peer, reason: str, error: BaseException | None) -> None:
        peer.known = False
        self._connections.lost += 1
        self._events.add(Disconnected(peer.address, peer.identity, reason, error))

    # Closing

    def flushed(self, peer: Peer) -> None:
        """It has been sent what there was."""
        self._closing.finish_peer(peer)

    def acknowledged(self) -> None:
        """Somebody has acknowledged something."""
        self._closing.finish_peers()

    def handed_back(self) -> None:
        """Somebody has handed something back."""
        self._closing.look_for_others()
