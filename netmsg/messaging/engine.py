"""What a Søcket is made of, behind its face.

`Sender`      what is sent: the router, the ledger, the threads that wait for room
`Receiver`    what is received: the inbox, the duplicates, the acknowledgements; the `Conversation` of its taker
`Admission`   who is let in
`Engine`      the peers, the endpoints and listeners, the regular look at them, the life and the end

===========================  ==============================================================================
lock, in the order of        guards; what is done under it
taking
===========================  ==============================================================================
`Engine._beginning`          whether there is a network thread when the end comes
`Sender.route`               the `Router` and the `Ledger`; never a system call
`Lane.lock` (one a peer)     the head of that peer's queue, the write in progress, the right to read, the
                             life of its descriptor; one non-blocking send or receive
`Inbox._lock`                the change of batch; a leaf, never with another
===========================  ==============================================================================

No lock is held while waiting. Everything that is marked so belongs to the network thread alone; what comes from
elsewhere is posted to it with `Reactor.call`, which takes no lock.
"""

from __future__ import annotations

import _thread
import atexit
import logging
import os
import socket
import ssl
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ..aside import aside
from ..deadline import Deadline
from ..errors import ClosedError, ForkedError
from ..interrupts import interrupts
from ..locks import new_lock
from ..reactor.accepting import Acceptor
from ..reactor.reactor import Reactor, Timer
from ..sockets.addresses import host_and_port
from ..sockets.liveness import hung_up
from ..speaking import say_soon
from ..waiting import Waiters
from ..wire.envelope import Capabilities
from .admission import Admission, OnDuplicate
from . import exiting
from .callbacks import Callbacks
from .delivery import AckMode, DeliveryGuarantee
from .events import AcceptError, Connected, Disconnected, EventQueue, HandshakeFailed, Listening, strip
from .inbox import NOTHING
from .peers import Peer, PeerInfo
from .receiving import Receiver
from .reconnecting import Endpoint
from .reporting import Reporter, phase_of, trouble
from .routing import OnFull, SendMode
from .sending import Sender
from .strangers import LOOK_AGAIN, Strangers

__all__ = ["Engine", "Settings", "SocketStats"]

log = logging.getLogger("netmsg.messaging")

HERE: Final = os.path.dirname(__file__)
LOOK_EVERY: Final = 1.0
LOOK_AT_MOST_EVERY: Final = 0.001
GONE: Final = "the peer closed the connection"
BRIEFLY: Final = 0.1
"""Seconds that `close` waits for a function of the user's to return."""


class Settings(NamedTuple):
    """The arguments of a Søcket, checked."""

    send_mode: SendMode
    delivery_guarantee: DeliveryGuarantee
    reconnection_delay: Callable[[], float] | None
    send_hwm: int
    send_hwm_bytes: int
    recv_hwm: int
    recv_hwm_bytes: int
    on_full: OnFull
    max_message_size: int
    max_connections: int
    heartbeat_interval: float
    heartbeat_timeout: float
    handshake_timeout: float
    ack_mode: AckMode
    resend_after: float
    max_resends: int | None
    max_unacked: int | None
    dedupe: int
    on_duplicate: OnDuplicate
    authorize: Callable[[PeerInfo], bool] | None
    linger: float


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


class Engine:
    """The core of one Søcket. The user's object, `Søcket`, is a shell over it, so that it can be collected while the
    network thread still flushes what it left."""

    def __init__(self, identity: bytes, settings: Settings, io: Reactor) -> None:
        self.identity = identity
        self.settings = settings
        self.capabilities = Capabilities(settings.heartbeat_interval, settings.recv_hwm)
        self.io = io
        self.reporter = Reporter(self)
        self.events = EventQueue(self.reporter.tell)
        self.authorizing = Callbacks("authorize", self._complain)
        self.delaying = Callbacks("reconnection_delay", self._complain)
        self.closing = False
        """Set first thing by `close`; read everywhere."""
        self.closed = False
        self._over = False  # the very last
        self.sender = Sender(self)
        self.receiver = Receiver(self)
        self.admission = Admission(self)
        self.acceptors: list[Acceptor] = []
        self._endpoints: list[Endpoint] = []
        self._resting: dict[bytes, list[Endpoint]] = {}
        """Endpoints that reach a peer which is connected to us by another connection, by its identity."""
        self._retired: dict[bytes, Peer] = {}
        """The newest connection of each identity that is only read to its end."""
        self.open_peers: set[Peer] = set()
        """Those let in, also those that are only read to their end."""
        self.handshaking: dict[Peer, None] = {}
        """Those not let in yet, oldest first."""
        self._strangers = Strangers()
        self._regulating = False
        self.peer_waiters = Waiters()
        self._close_waiters = Waiters()
        self._beginning = new_lock()
        self._attached = False
        self._forked = False
        self._failure: BaseException | None = None
        self._looking = False
        self._winding_down = False  # the network thread's
        self._lingering: list[Timer] = []
        self._settling = False
        self._settled = False
        self._look_every = max(LOOK_AT_MOST_EVERY, min(LOOK_EVERY, settings.heartbeat_interval / 8,
                                                       settings.heartbeat_timeout / 8, settings.resend_after / 8))
        self._last_look = 0.0
        self._given_up = 0
        self._connections = self._disconnections = 0
        self._past_sent = self._past_received = self._past_bytes_sent = self._past_bytes_received = 0
        self._moving = False  # see `_count_out`
        self._moves = 0
        _engines.add(self)

    # From any thread: making connections

    def check_fork(self) -> None:
        """Raises `ForkedError`."""
        if self._forked:
            raise ForkedError("this Søcket belongs to the parent process")

    def check_open(self) -> None:
        """Raises `ForkedError`, `ClosedError`."""
        self.check_fork()
        if self.closing:
            raise ClosedError("the Søcket is closed") from self._failure

    @property
    def over(self) -> bool:
        """Whether nobody need wait for anything any more."""
        return self.closing or self._forked

    def _attach(self) -> None:
        self.check_open()
        if not self._attached:
            aside(self._attach_now)
            self.check_open()

    def _attach_now(self) -> None:
        with self._beginning:
            if self._attached or self.closed:
                return
            self.io.attach(self)
            self._attached = True
        if self.closing:  # by another thread, which may not have known that there is something to detach
            self.io.call(self._begin_close, 0.0)

    def listen(self, sock: socket.socket, context: ssl.SSLContext | None) -> Any:
        """Accept peers on a listening socket, which this takes over and closes if it raises; returns its address."""
        acceptor = None
        try:
            self._attach()
            acceptor = Acceptor(self.io, sock, lambda conn, address: self._accepted(conn, address, context),
                                lambda error: self.events.add(AcceptError(address, None, str(error), error)))
            address = host_and_port(acceptor.address)
            self.io.call(self._start_accepting, acceptor)
            self.events.add(Listening(address))
            # No call from here on, and so no interrupt.
            acceptors = self.acceptors
            acceptors += (acceptor,)
        except BaseException:
            if acceptor is None:
                sock.close()
            else:
                self.io.call(acceptor.close)
            raise
        if self.closing:  # meanwhile
            self.io.call(acceptor.close)
        return address

    def _start_accepting(self, acceptor: Acceptor) -> None:
        if self.closed:
            acceptor.close()
        else:
            if self.regulate_accepting():
                acceptor.pause()  # it need not be among the others yet
            acceptor.start()

    def connect(self, target: tuple[str, int] | str, context: ssl.SSLContext | None, server_hostname: str | None,
                connect_timeout: float) -> None:
        """Dial ``target`` from now on, until closed."""
        self._attach()
        endpoint = Endpoint(self, target, ssl_context=context, server_hostname=server_hostname,
                            connect_timeout=connect_timeout, reconnection_delay=self.settings.reconnection_delay)
        endpoints = self._endpoints
        try:
            self.io.call(endpoint.start)
            # No call from here on, and so no interrupt.
            endpoints += (endpoint,)
        except BaseException:
            self.io.call(endpoint.stop)
            raise
        if self.closing:  # meanwhile
            self.io.call(endpoint.stop)

    # From any thread: waiting

    def wait_for_peers(self, count: int, deadline: Deadline) -> bool:
        self.peer_waiters.wait(lambda: self.over or len(self.sender.router.ring) >= count, deadline)
        self.check_open()
        return len(self.sender.router.ring) >= count

    def _complain(self, function: str, error: BaseException) -> None:
        """A function of the user's has raised."""
        self.reporter.complain(function, "raised", error=error)

    def trouble(self) -> str:
        """For the text of a ``TimeoutError``: what is wrong with the endpoints."""
        return trouble([endpoint.trouble for endpoint in tuple(self._endpoints) if endpoint.trouble],
                       self.reporter.refusal, bool(self._endpoints), bool(self.acceptors))

    # The network thread: connections coming

    def _accepted(self, sock: socket.socket, address: Any, context: ssl.SSLContext | None) -> None:
        address = host_and_port(address or sock.getsockname())
        peer = Peer(self, sock, address, None, context, None)
        self._strangers.add(peer, self.io.now)
        self._start(peer)

    def connected(self, sock: socket.socket, target: tuple[str, int] | str, endpoint: Endpoint,
                  context: ssl.SSLContext | None, server_hostname: str | None) -> Peer:
        """An endpoint has dialled successfully."""
        address: Any = target
        if not isinstance(target, str):
            try:
                address = host_and_port(sock.getpeername())
            except OSError:
                pass  # gone already: reading will tell
        peer = Peer(self, sock, address, endpoint, context, server_hostname)
        self.io.call(self._start, peer)
        return peer

    def _start(self, peer: Peer) -> None:
        if self.closed:
            peer.sock.close()
            return
        if peer.sock.family in (socket.AF_INET, socket.AF_INET6):
            try:
                peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                pass  # gone already: reading will tell
        self.handshaking[peer] = None
        self.regulate_accepting()
        peer.start()

    def regulate_accepting(self) -> bool:
        """At ``max_connections``, or while there are too many strangers, newcomers wait in the backlog. Whether they
        do."""
        known = len(self.open_peers) + len(self.handshaking) - len(self._strangers)
        full = (self.receiver.is_flooded
                or self._strangers.is_full(self.settings.max_connections - known, time.monotonic(), self._is_awaited))
        for acceptor in self.acceptors:
            if full:
                acceptor.pause()
            else:
                acceptor.resume()
        if full and self._strangers and not self._regulating:
            self._regulating = True
            self.io.call_later(LOOK_AGAIN, self._regulate_again)
        return full

    def _is_awaited(self) -> bool:
        """Whether anybody waits outside."""
        return any(acceptor.is_awaited for acceptor in self.acceptors)

    def _regulate_again(self) -> None:
        self._regulating = False
        if not self.closed:
            self.regulate_accepting()

    def greeted(self, peer: Peer) -> None:
        """A peer has said who it is."""
        self._strangers.discard(peer)
        self.regulate_accepting()
        self.admission.greeted(peer)

    # The network thread: connections let in

    def let_in(self, peer: Peer) -> None:
        """Exchange messages with ``peer``, which has said who it is. One that has gone meanwhile, having waited in the
        backlog for longer than it would, is read to its end: what waits for a peer is not for this one."""
        if self.closing and not self._has_for(peer.identity, peer.endpoint):
            peer.close("closed", None)  # what it sends would be lost
            return
        retired = self._retired.get(peer.identity)
        if retired is not None:
            peer.follow(retired, send=True)
        if not self._open(peer):
            return
        gone = hung_up(peer.sock)
        if not gone:
            self.sender.join(peer)
        self._opened(peer)
        if gone:
            self._retired[peer.identity] = peer
            peer.retire(GONE)
            self._dial_again(peer, GONE, None)

    def replace(self, old: Peer, new: Peer, reason: str) -> None:
        """Exchange messages by ``new``, and by ``old`` no more, which is closed when what has come is read."""
        self._dismiss_challenger(old, new)
        old.look()
        if self.sender.router.find(new.identity) is None:
            self.let_in(new)  # that was its end
        elif self._open(new):
            self.sender.succeed(old, new, finish=False)
            self._gone(old, reason, None)
            old.close(reason, None)
            self._opened(new)

    def hand_over(self, old: Peer, new: Peer, reason: str, *, alive: bool) -> None:
        """The same, but the peer is ``alive``, or has said goodbye: all that it sent on ``old`` is read, and first."""
        self._dismiss_challenger(old, new)
        if new in self.handshaking:
            self.rest(old, new)
            self._retired[old.identity] = old
            new.follow(old, send=not alive)
            self._open(new)
            self.sender.succeed(old, new, finish=True)
            new.on_work()  # HELLO here first, so that the end of ``old`` is known for what it is
            old.retire(reason)
            self._gone(old, reason, None)
            self._opened(new)

    def _dismiss_challenger(self, old: Peer, new: Peer) -> None:
        challenger, old.challenger = old.challenger, None
        if challenger is not None and challenger is not new:
            self.admission.refuse(challenger, "a newer connection under this identity")

    def read_only(self, peer: Peer, other: Peer, reason: str) -> None:
        """The peer has two connections, and ``other`` stays: what it has sent on ``peer`` meanwhile is read, first."""
        self.rest(peer, other)
        if self._open(peer):
            self._retired[peer.identity] = peer
            other.follow(peer, send=True)
            peer.retire(reason)

    def retire(self, peer: Peer, reason: str, error: BaseException) -> None:
        """``peer`` can be sent nothing any more: its messages go to the others, or wait, while it is read to its
        end; and what leads to it is dialled again."""
        self._retired[peer.identity] = peer
        self.sender.leave(peer)
        peer.retire(reason)
        self._gone(peer, reason, error)
        self._peers_changed()
        self._dial_again(peer, reason, error)
        self._wake_resting(peer.identity)
        self._let_in_challenger(peer)

    @staticmethod
    def _dial_again(peer: Peer, reason: str, error: BaseException | None) -> None:
        """What leads to ``peer``, though it is still read."""
        endpoint, peer.endpoint = peer.endpoint, None
        if endpoint is not None:
            endpoint.ended(peer.open_for, reason, error)

    def rest(self, peer: Peer, other: Peer) -> None:
        """Do not dial again what leads to a peer that is there by another connection."""
        endpoint, peer.endpoint = peer.endpoint, None
        if endpoint is not None:
            endpoint.rest(other.identity)
            if other.lane.dialled is None:  # or what is kept for it would wait for another endpoint than the one it has
                other.lane.dialled = endpoint
            self.sender.bring(endpoint, other)
            self._resting.setdefault(other.identity, []).append(endpoint)

    def _wake_resting(self, identity: bytes) -> None:
        if self._resting and self.sender.router.find(identity) is None:
            for endpoint in self._resting.pop(identity, ()):
                endpoint.wake("the other connection to this peer has gone")

    def _open(self, peer: Peer) -> bool:
        if peer not in self.handshaking:
            return False
        del self.handshaking[peer]
        self.open_peers.add(peer)
        # Messages are kept for what we dial; and perhaps we dial it too, or by another way as well.
        kept, lane = self.sender.router.copies, peer.lane
        ways = [endpoint for endpoint in self._endpoints if endpoint.leads_to == peer.identity]
        if lane.dialled not in kept:
            lane.dialled = next((way for way in ways if way in kept), lane.dialled or next(iter(ways), None))
        peer.let_in(self.receiver.open_account(peer))
        return True

    def _opened(self, peer: Peer) -> None:
        peer.known = True
        self._connections += 1
        if peer.endpoint is not None:
            peer.endpoint.opened(peer.identity)
        self.events.add(Connected(peer.address, peer.identity))
        self._peers_changed()
        if not self._looking:
            self._looking = True
            self._last_look = time.monotonic()
            self.io.call_later(self._look_every, self._look)
        self.io.work.add(peer)
        if self.closing:
            self._settle_endpoints()

    def _peers_changed(self) -> None:
        self.peer_waiters.notify_all()
        self.sender.wake_all()

    # The network thread: connections going

    def lost(self, peer: Peer, reason: str, error: BaseException | None) -> None:
        """A connection has ended."""
        if peer in self.open_peers:
            self.sender.leave(peer)
            self._count_out(peer)
            self.receiver.leave_account(peer)
            if self._retired.get(peer.identity) is peer:
                del self._retired[peer.identity]
            if peer.known:
                self._gone(peer, reason, error)
                self._peers_changed()
        else:
            self._past_bytes_received += peer.received_bytes
            self.handshaking.pop(peer, None)
            self._strangers.discard(peer)
            self.admission.forget(peer)
            lane = self.sender.router.find(peer.identity)
            if lane is not None and lane.owner.challenger is peer:
                lane.owner.challenger = None
                self.rest(peer, lane.owner)  # the other end was the first to decide that the old one stays
            if reason:
                self.events.add(HandshakeFailed(peer.address, peer.identity or None, reason, error,
                                                phase="" if self.closing else phase_of(peer),
                                                dialled=peer.endpoint is not None))
        self._let_in_challenger(peer)
        if peer.endpoint is not None:
            peer.endpoint.ended(peer.open_for, reason, error)
        self._wake_resting(peer.identity)
        self.regulate_accepting()
        if self.closing and self.sender.router.waiting:
            for endpoint in self._endpoints:
                endpoint.revive()  # who has been said goodbye to may take what this one has left
        self.check_closed()

    def _count_out(self, peer: Peer) -> None:
        """What it has sent and received counts among the past from now on, which `stats` sees at once or not at all."""
        lane = peer.lane
        self._moving = True
        self._past_sent += lane.sent_messages
        self._past_received += peer.received_messages
        self._past_bytes_sent += lane.sent_bytes
        self._past_bytes_received += peer.received_bytes
        self.open_peers.discard(peer)
        self._moves += 1
        self._moving = False

    def _let_in_challenger(self, peer: Peer) -> None:
        challenger, peer.challenger = peer.challenger, None
        if challenger is not None:
            self.let_in(challenger)

    def _gone(self, peer: Peer, reason: str, error: BaseException | None) -> None:
        peer.known = False
        self._disconnections += 1
        self.events.add(Disconnected(peer.address, peer.identity, reason, error))

    # The network thread: the regular look

    def _look(self) -> None:
        """Heartbeats, silence and resends: one coarse sweep over the peers."""
        if not self.open_peers or self.closed:
            self._looking = False
            return
        now = time.monotonic()
        late = now - self._last_look > self._look_every + self.settings.heartbeat_interval
        self._last_look = now
        self.io.call_later(self._look_every, self._look)
        for peer in tuple(self.open_peers):
            try:
                self._look_at(peer, now, late)
            except Exception as failure:  # it is that peer's end, and nobody else's
                say_soon(log, logging.ERROR, "looking at a peer failed", exc_info=failure)
                peer._crashed(failure)

    def _look_at(self, peer: Peer, now: float, late: bool) -> None:
        liveness = peer.liveness
        liveness.heard(now, peer.session.decoder.envelopes + peer.received_messages, peer.received_bytes)
        liveness.said(now, peer.lane.sent_bytes)
        if peer.paused or peer.following:
            liveness.last_heard = now  # it may well have spoken
            peer.look_for_room()
        elif late:
            liveness.excuse(now)
        if liveness.dead(now):
            before = peer.received_bytes
            peer.look()
            if peer.received_bytes == before and peer in self.open_peers:
                peer.close(f"nothing heard for {liveness.timeout:g} s", None)
            return
        if liveness.heartbeat_due(now, self._look_every / 2):
            peer.heartbeat()
        if peer.stuck:
            self.io.work.add(peer)
        if self.sender.reliable:
            self.sender.resend(peer, now)

    # The end

    def close(self, linger: float) -> int:
        """See `Søcket.close`. Takes no lock before everything is under way: a signal handler may call this."""
        self.begin_close(linger)
        if self.io.is_current or self._forked or interrupts(HERE):
            return 0
        margin = Deadline(None if linger == float("inf") else linger + 5.0)
        try:
            self._close_waiters.wait(lambda: self._over, margin)
        except BaseException:
            self.io.call(self._begin_close, 0.0)  # who interrupts the lingering has lingered enough
            raise
        self.authorizing.join(BRIEFLY)
        self.delaying.join(BRIEFLY)
        self.io.join(5.0)
        return self._given_up

    def begin_close(self, linger: float) -> None:
        """Start closing, and return at once. Called again it may shorten the lingering; and it does what an interrupt
        has kept the first from doing."""
        self.closing = True
        if self._forked:
            return  # what wakes those who wait is shared with the parent, and in the child nobody waits
        if self._attached:
            self.io.call(self._begin_close, linger)  # first, so that an interrupt from here on leaves nothing undone
        self._turn_away()
        if self._attached or self.closed:
            return
        if interrupts(HERE):
            _thread.start_new_thread(self._end_unattached, ())  # this one may hold the locks that it takes
            return
        try:
            aside(self._end_unattached)
        except RuntimeError:  # no thread can be started any more: the interpreter is exiting
            self._end_unattached()

    def _end_unattached(self) -> None:
        """There is no network thread that it could be left to, unless one has begun meanwhile."""
        with self._beginning:
            if not self._attached:
                self._end()

    def _turn_away(self) -> None:
        """Once closing: nobody sends any more, and nobody receives, or waits to. May be repeated."""
        self.sender.fast_ring = ()
        self.receiver.inbox.close()
        self._peers_changed()

    def _begin_close(self, linger: float) -> None:
        if self.closed:
            self.io.detach(self)
            return
        if not self._winding_down:
            self._winding_down = True
            self._turn_away()
            self._wind_down()
        if linger == 0:
            for peer in tuple(self.open_peers):
                if peer.lane.control:
                    peer.on_work()  # the acknowledgements of what has been taken, as far as that goes at once
            self._end()
        elif linger != float("inf") and not self.closed:
            self._lingering.append(self.io.call_later(linger, self._end))

    def _wind_down(self) -> None:
        """Acknowledge what has been taken, stop what is not needed to send the rest, and send the rest."""
        self.receiver.conversation.end()
        self.receiver.acknowledge_taken()
        self._settle_endpoints()
        for endpoint in self._endpoints:
            endpoint.hurry()
        for peer in tuple(self.open_peers):
            peer.resume()
            self.finish_peer(peer)
        self.check_closed()

    def wants(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint without a connection is to be dialled again."""
        if not self.closing:
            return True
        return not self.closed and self.sender.router.unplaced > 0 and (
            not endpoint.took_leave or self._has_for(endpoint.leads_to, endpoint))

    def _has_for(self, identity: bytes, way: Endpoint | None) -> bool:
        """Once closing: whether something waits for the peer of that identity, which this or another way leads to."""
        router = self.sender.router
        return bool(router.waiting or router.parked.of(identity)
                    or any(router.copies.get(one) for one in self._endpoints
                           if one is way or one.leads_to in (identity, b"")))

    def _settle_endpoints(self) -> None:
        """Once closing: when no message waits for a peer any more, or may have to, none is dialled or let in."""
        if self.sender.router.unplaced or self._settling:
            return
        if not self._settled:
            if any(not peer.lane.empty or peer.lane.unacked for peer in self.open_peers):
                return
            self._settled = True
            for peer in tuple(self.open_peers):
                self.finish_peer(peer)  # it may have been idle since before the last message found its way
        self._settling = True  # closing a peer comes back to here, and there may be thousands
        for acceptor in self.acceptors:
            acceptor.close()
        for endpoint in self._endpoints:
            if endpoint.peer is None or endpoint.connecting:
                endpoint.stop()
        for peer in tuple(self.handshaking):
            peer.close("closed", None)
        self._settling = False

    def finish_peer(self, peer: Peer) -> None:
        """Once closing: say goodbye to a peer that has been sent everything and acknowledged everything, whatever is
        still kept for others: it would go on sending. Not before the winding down has begun, which first acknowledges
        what has been taken."""
        if (self._winding_down and peer in self.open_peers and not peer.closing
                and peer.lane.empty and not peer.lane.unacked and not self._has_for(peer.identity, peer.endpoint)):
            if peer.endpoint is not None:
                peer.endpoint.took_leave = True
            peer.finish()

    def check_closed(self) -> None:
        """Once closing: the end, if nothing is left to wait for."""
        if not self._winding_down or self.closed or not self._attached:
            return
        self._settle_endpoints()
        if self.open_peers or self.handshaking:
            return
        if self.sender.router.unplaced and (self._endpoints or self.acceptors):
            return
        self._end()

    def _end(self) -> None:
        """Let go of everything; what has not been sent or acknowledged by now is given up."""
        if self.closed:
            return
        self.closed = True
        for timer in self._lingering:
            timer.cancel()  # it would keep all of this alive
        self.authorizing.close()
        self.delaying.close()
        self._given_up = self.sender.take_all(self.open_peers)
        for acceptor in self.acceptors:
            acceptor.close()
        for endpoint in self._endpoints:
            endpoint.stop()
        for peer in (*self.open_peers, *self.handshaking):
            peer.close("closed", None)
        self.receiver.inbox.release()
        self.receiver.conversation.end()
        self.events.close()
        self.reporter.close()
        _engines.discard(self)
        if self._attached:
            self.io.detach(self)
            self.io.bury(self._tell_closed)  # behind the sockets: who has closed may bind the same address at once
        else:
            self._tell_closed()

    def _tell_closed(self) -> None:
        self._over = True
        self._close_waiters.notify_all()

    # What the reactor asks of its users

    def _io_closing(self, deadline: Deadline) -> None:
        remaining = deadline.remaining()
        linger = self.settings.linger
        self.begin_close(linger if remaining is None else min(linger, remaining))

    def _io_failed(self, cause: BaseException | None) -> None:
        self._failure = cause
        if cause is not None:
            strip(cause)  # the log has the rest
        self.closing = True
        self._turn_away()
        self._end()
        self._peers_changed()

    def forked(self) -> None:
        """This is a forked child: close its copies of the descriptors, and touch nothing that is shared."""
        self._forked = True
        self.sender.fast_ring = ()
        self.receiver.inbox.current = NOTHING
        for peer in (*self.open_peers, *self.handshaking):
            peer.abandon()
        for acceptor in self.acceptors:
            acceptor.abandon()
        for endpoint in self._endpoints:
            endpoint.abandon()

    @property
    def is_forked(self) -> bool:
        return self._forked

    def _crashed(self, error: Exception) -> None:
        """A step that belongs to no connection failed: nothing can be said for this Søcket any more."""
        self._io_failed(error)

    # From any thread: looking

    def peers(self) -> list[PeerInfo]:
        self.check_fork()
        return [lane.owner.info() for lane in self.sender.router.ring]

    def stats(self) -> SocketStats:
        self.check_fork()
        while True:
            moves = self._moves
            stats = self._stats()
            if not self._moving and moves == self._moves:
                return stats

    def _stats(self) -> SocketStats:
        infos = self.peers()
        connections = tuple(self.open_peers)  # more than `infos`: some are read to their end only
        return SocketStats(
            sent=self._past_sent + sum(peer.lane.sent_messages for peer in connections),
            received=self._past_received + sum(peer.received_messages for peer in connections),
            bytes_sent=self._past_bytes_sent + sum(peer.lane.sent_bytes for peer in connections),
            bytes_received=self._past_bytes_received + sum(peer.received_bytes for peer in connections),
            queued=self.sender.router.unplaced + sum(len(peer.lane.queue) for peer in connections),
            unacked=len(self.sender.ledger.outstanding),
            resent=self.sender.ledger.resent,
            duplicates=self.receiver.arrivals.duplicates,
            dropped=dict(self.sender.drops),
            undelivered=self.sender.undelivered,
            connections=self._connections,
            disconnections=self._disconnections,
            peers={info.identity: info for info in infos},
        )


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _close_all() -> None:
    """At interpreter exit, as if every Søcket left open were closed: first all begin to, then all are waited for."""
    exiting.begin()
    engines = [engine for engine in tuple(_engines) if not engine.is_forked]
    for engine in engines:
        engine.begin_close(engine.settings.linger)
    try:
        for engine in engines:
            engine.close(engine.settings.linger)
    except KeyboardInterrupt:
        for engine in engines:
            engine.close(0.0)


atexit.register(_close_all)


def _after_fork_in_child() -> None:
    for engine in tuple(_engines):
        engine.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
