"""What a Søcket is made of, behind its face: the peers, the endpoints and listeners, the queues, the life and the end.

===========================  ==============================================================================
lock, in the order of        guards; what is done under it
taking
===========================  ==============================================================================
`Engine.route`               the `Router` and the `Ledger`; never a system call
`Lane.lock` (one a peer)     the head of that peer's queue, the write in progress, the life of its
                             descriptor; one non-blocking send
`Inbox._lock`                the change of batch; a leaf, never with another
===========================  ==============================================================================

No lock is held while waiting. Everything that is marked so belongs to the network thread alone; what comes from
elsewhere is posted to it with `IOThread.call`, which takes no lock.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import secrets
import socket
import ssl
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from enum import Enum
from itertools import repeat
from types import FrameType
from typing import Any, Final, NamedTuple

from ..deadline import Deadline
from ..errors import ClosedError, ForkedError, LocalProtocolError, QueueFullError, SendTimeoutError
from ..reactor.io_thread import IOThread
from ..reactor.listening import Acceptor
from ..waiting import Waiters
from ..wire.envelope import Capabilities, Frame, ack_frames, data_frame, message_id_of, request_frame
from .callbacks import Callbacks
from .delivery import AckMode, Arrivals, DeliveryGuarantee, Ledger
from .events import (AcceptError, Connected, Disconnected, Dropped, DuplicatePeer, EventQueue, Full, HandshakeFailed,
                     Listening, Undelivered)
from .inbox import NOTHING, Batch, Inbox, RequestBatch
from .lane import Addressed, Lane
from .peers import Peer, PeerInfo
from .receipts import Receipt
from .reconnecting import Endpoint
from .routing import Departure, Limits, OnFull, Placed, Router, SendMode

__all__ = ["Engine", "OnDuplicate", "Settings", "SocketStats"]

log = logging.getLogger("netmsg.messaging")

BURST: Final = 512
"""With so many frames gathered, a sender writes by itself."""
QUIET: Final = 60e-6
"""Seconds without a send after which one message is written at once, by its sender."""
QUIET_PEERS: Final = 16
"""To more peers than this a publisher leaves the writing to the network thread."""
ACK_DELAY: Final = 0.001
PENDING_HANDSHAKES: Final = 256
UNKNOWN_WINDOW: Final = 1000
"""Unacknowledged messages to a peer that did not say how many it holds."""
PROBE_MARGIN: Final = 1.0
LOOK_EVERY: Final = 1.0


class OnDuplicate(Enum):
    """What happens when a second connection arrives under the identity of a connected peer."""

    PROBE = "probe"
    """The old one stays if it shows a sign of life within a heartbeat interval and a second; else the new one."""
    REJECT = "reject"
    """The old one stays."""
    TAKEOVER = "takeover"
    """The new one replaces it."""


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

    def __init__(self, identity: bytes, settings: Settings, io: IOThread | None) -> None:
        self.identity = identity
        self.settings = settings
        self.reliable = settings.delivery_guarantee is DeliveryGuarantee.AT_LEAST_ONCE
        self.capabilities = Capabilities(settings.heartbeat_interval, settings.recv_hwm)
        self.io = io if io is not None else IOThread.private()
        self.route = threading.Lock()
        self.router = Router(settings.send_mode, Limits(settings.send_hwm, settings.send_hwm_bytes),
                             reliable=self.reliable)
        self.ledger: Ledger[Receipt] = Ledger(secrets.token_bytes(8), settings.resend_after, settings.max_resends,
                                              random.random)
        self.fast_ring: tuple[Peer, ...] = ()
        """The peers among which plain round-robin messages may be dealt without the ``route`` lock; empty whenever
        anything at all has to be considered."""
        self.events = EventQueue()
        self.inbox = Inbox(self._watch_batch, self._finish_batch, manual=settings.ack_mode is AckMode.MANUAL)
        self.callbacks = Callbacks()
        self.manual = settings.ack_mode is AckMode.MANUAL
        self.closing = False
        """Set first thing by `close`; read everywhere."""
        self.closed = False
        self.ack_waiters = 0
        """How many threads wait for acknowledgements, which stand behind data in the network."""
        self.acceptors: list[Acceptor] = []
        self._endpoints: list[Endpoint] = []
        self._peers: set[Peer] = set()  # let in
        self._handshaking: dict[Peer, None] = {}  # not yet; oldest first
        self._senders = Waiters()
        self._addressing_senders = Waiters()
        self._peer_waiters = Waiters()
        self._receipt_waiters = Waiters()
        self._close_waiters = Waiters()
        self._finished: list[Batch] = []
        self._arrivals = Arrivals(settings.dedupe)
        self._last_send = 0.0
        self._fanout = _Fanout(self)
        self._credit = 0  # copies that may be published before a peer's queue has to be looked at
        self._attached = False
        self._forked = False
        self._failure: BaseException | None = None
        self._looking = False
        self._settling = False
        self._look_every = min(LOOK_EVERY, settings.heartbeat_interval / 8, settings.heartbeat_timeout / 8,
                               settings.resend_after / 8)
        self._last_look = 0.0
        self._full_reported = False
        self._given_up = 0
        self._drops: dict[str, int] = {}
        self._undelivered = 0
        self._connections = self._disconnections = 0
        self._past_sent = self._past_received = self._past_bytes_sent = self._past_bytes_received = 0
        _engines.add(self)

    # From any thread: making connections

    def check_open(self) -> None:
        """Raises `ForkedError`, `ClosedError`."""
        if self._forked:
            raise ForkedError("this Søcket belongs to the parent process")
        if self.closing:
            raise ClosedError("the Søcket is closed") from self._failure

    def _attach(self) -> None:
        self.check_open()
        if not self._attached:
            self.io.attach(self)
            self._attached = True

    def listen(self, sock: socket.socket, context: ssl.SSLContext | None) -> Any:
        """Accept peers on a listening socket, which this takes over; returns its address."""
        self._attach()
        acceptor = Acceptor(self.io, sock, lambda conn, address: self._accepted(conn, address, context),
                            lambda error: self.events.add(AcceptError(acceptor.address, None, str(error), error)))
        self.acceptors.append(acceptor)
        self.events.add(Listening(acceptor.address))
        self.io.call(acceptor.start)
        return acceptor.address

    def connect(self, target: tuple[str, int] | str, context: ssl.SSLContext | None, server_hostname: str | None,
                connect_timeout: float) -> None:
        """Dial ``target`` from now on, until closed."""
        self._attach()
        endpoint = Endpoint(self, target, ssl_context=context, server_hostname=server_hostname,
                            connect_timeout=connect_timeout, reconnection_delay=self.settings.reconnection_delay)
        self._endpoints.append(endpoint)
        self.io.call(endpoint.start)

    # From any thread: sending

    def send(self, data: bytes, identity: bytes | None, timeout: float | None) -> Receipt | None:
        """Send one message the long way. Raises what `Søcket.send` does."""
        deadline = None
        while True:
            with self.route:
                if self.closing or self._forked:
                    self.check_open()
                receipt, frame = self._frame(data, identity)
                if self.reliable:
                    placed, lanes = self.router.place(frame, identity)
                else:
                    placed, lanes = self._place(frame, identity)
                if placed is not Placed.FULL:
                    if receipt is not None:
                        self.ledger.outstanding[receipt.message_id] = receipt
                    if placed is Placed.WAITING:
                        self.fast_ring = ()
                    break
            if deadline is None:
                deadline = Deadline(timeout)
            if self._cope_with_full(data, receipt, identity, deadline):
                return receipt
        if placed is Placed.ABSENT:
            self._dropped("peer not connected", 1, identity)
        elif self.settings.send_mode is SendMode.PUBLISH and identity is None:
            if lanes:
                self.kick_all()
        else:
            for lane in lanes:
                self.kick(lane.owner)
        return receipt

    def _frame(self, data: bytes, identity: bytes | None) -> tuple[Receipt | None, Frame]:
        """``data`` as it goes over the wire."""
        large = self.router.large
        receipt = None
        if self.reliable:
            receipt = Receipt(self, self.ledger.new_id())
            frame = request_frame(receipt.message_id, data, large)
        else:
            frame = data_frame(data, large)
        if identity is not None:
            frame = (Addressed(frame[0]), frame[1]) if isinstance(frame, tuple) else Addressed(frame)
        return receipt, frame

    def _place(self, frame: Frame, identity: bytes | None) -> tuple[Placed, Iterable[Lane]]:
        """Queue a frame. Under ``route``."""
        if identity is None and self._credit > 0 and type(frame) is bytes:
            self._credit -= 1
            for lane in self.router.ring:
                lane.queue.append(frame)
            return Placed.QUEUED, self.router.ring
        placed, lanes = self.router.place(frame, identity)
        if self.settings.send_mode is SendMode.PUBLISH:
            ring = self.router.ring
            self._credit = 0 if not ring or identity is not None else (
                self.settings.send_hwm - max(len(lane.queue) for lane in ring))
        return placed, lanes

    def _refresh(self) -> None:
        """Say anew whether messages may be dealt without the lock. Under ``route``."""
        router = self.router
        if (self.reliable or self.settings.send_mode is SendMode.PUBLISH or router.waiting or self.closing
                or self._forked):
            self.fast_ring = ()
        else:
            self.fast_ring = tuple(lane.owner for lane in router.ring)

    def kick(self, peer: Peer) -> None:
        """Something has just been appended to the queue of ``peer``: see that it gets on its way."""
        io = self.io
        count = len(peer.queue)
        if count < BURST and peer in io.work and not io.asleep:
            return
        if peer.direct:
            if count >= BURST:
                self._last_send = time.perf_counter()
                peer.write_burst()
                self._room_made(peer)
            elif peer not in io.work:
                now = time.perf_counter()
                quiet = now - self._last_send > QUIET
                self._last_send = now
                if quiet:
                    peer.write_burst()
                    if not peer.queue:
                        return
        if peer.lane.dead:
            io.call(self._give_back, peer.lane)
            return
        io.work.add(peer)
        if io.asleep:
            io.wake()

    def kick_all(self) -> None:
        """The same after a publication."""
        io = self.io
        fanout = self._fanout
        ring = self.router.ring
        now = time.perf_counter()
        quiet = now - self._last_send > QUIET and fanout not in io.work
        burst = bool(ring) and len(ring[0].queue) >= BURST
        self._last_send = now
        if burst or (quiet and len(ring) <= QUIET_PEERS):
            left = False
            for lane in ring:
                if lane.owner.direct:
                    lane.owner.write_burst()
                left = left or bool(lane.queue)
            if burst:
                fanout.bursts += 1
            elif not left:
                return
        io.work.add(fanout)
        if io.asleep:
            io.wake()

    def _give_back(self, lane: Lane) -> None:
        """A sender has found out that it appended to the queue of a peer that is gone. On the network thread."""
        with self.route:
            self.fast_ring = ()  # what is sent from here on goes behind what is given back
            departure = self.router.give_back(lane)
            self._refresh()
        self._departed(departure, lane)

    def _cope_with_full(self, data: bytes, receipt: Receipt | None, identity: bytes | None,
                        deadline: Deadline) -> bool:
        """There is no room: make some, wait for some, or settle the matter (true)."""
        if not self._full_reported:
            self._full_reported = True
            self.events.add(Full(None, identity, "the send queue is at its high-water mark"))
        policy = self.settings.on_full
        if policy is OnFull.RAISE:
            raise QueueFullError("the send queue is at its high-water mark")
        if policy is OnFull.DROP_NEWEST:
            self._drop_newest(data, receipt, identity)
            return True
        if policy is OnFull.DROP_OLDEST:
            if self._drop_oldest(identity):
                return False
            self._drop_newest(data, receipt, identity)  # the oldest ones are being written
            return True
        if policy is OnFull.DISCONNECT:
            with self.route:
                lanes = self.router.full_lanes(identity)
            if not lanes:
                self._drop_newest(data, receipt, identity)
                return True
            for lane in lanes:
                self.io.call(lane.owner.close, "it did not keep up", None)
            self._wait_while(lambda: any(not lane.dead for lane in lanes), deadline)
            return False
        self._wait_for_room(identity, deadline)
        return False

    def _drop_newest(self, data: bytes, receipt: Receipt | None, identity: bytes | None) -> None:
        if receipt is not None:
            receipt.fail("the send queue was full")
        elif self.settings.send_mode is SendMode.PUBLISH and identity is None:
            with self.route:
                full = set(self.router.full_lanes())
                rest = [lane for lane in self.router.ring if lane not in full]
                self.router.publish(data_frame(data, self.router.large), rest)
                self._credit = 0
            for lane in full:
                self._dropped("send queue full", 1, lane.identity)
            self.kick_all()
            return
        self._dropped("send queue full", 1, identity)

    def _drop_oldest(self, identity: bytes | None) -> bool:
        """Drop what makes room for a message; false if there is nothing that may be dropped now."""
        with self.route:
            if self.settings.send_mode is SendMode.PUBLISH and identity is None and self.router.ring:
                dropped = []
                for lane in self.router.full_lanes():
                    with lane.lock:
                        frame = lane.drop_oldest()
                    if frame is not None:
                        dropped.append((frame, lane.identity))
            else:
                frame = self.router.drop_oldest(identity)
                dropped = [(frame, identity or b"")] if frame is not None else []
        for frame, peer in dropped:
            self._fail_receipt(frame, "dropped: the send queue was full")
            self._dropped("send queue full", 1, peer or None)
        return bool(dropped)

    def _fail_receipt(self, frame: Frame, reason: str) -> None:
        message_id = message_id_of(frame)
        if message_id is not None:
            with self.route:
                receipt = self.ledger.give_up(message_id)
            if receipt is not None:
                receipt.fail(reason)
                self._receipt_waiters.notify_all()

    def _wait_for_room(self, identity: bytes | None, deadline: Deadline) -> None:
        """Block until there may be room. Raises `SendTimeoutError` at the deadline.

        Woken by room, a peer's coming or going, and close.
        """
        if self.io.is_current:
            raise LocalProtocolError("a send that would block, on the network thread itself")
        waiters = self._senders if identity is None else self._addressing_senders
        try:
            self.ack_waiters += 1
            if self.reliable:
                self.io.call(self._read_past_marks)
            if not waiters.wait(lambda: self.closing or self._forked or self._may_place(identity), deadline):
                raise SendTimeoutError("no room in the send queue in time")
        finally:
            self.ack_waiters -= 1

    def _may_place(self, identity: bytes | None) -> bool:
        router = self.router
        if identity is not None:
            lane = router.find(identity)
            if lane is not None and router.has_room(lane):
                return True
            return router.waiting_has_room() if self.reliable else lane is None
        ring = router.ring
        if ring and self.settings.send_mode is SendMode.PUBLISH:
            return all(router.has_room(lane) for lane in ring)
        if ring and not router.waiting and any(router.has_room(lane) for lane in ring):
            return True
        return (self.reliable or not ring or bool(router.waiting)) and router.waiting_has_room()

    def _wait_while(self, condition: Callable[[], bool], deadline: Deadline) -> None:
        if not self._peer_waiters.wait(lambda: self.closing or not condition(), deadline):
            raise SendTimeoutError("the send ran out of time")

    def _room_made(self, peer: Peer) -> None:
        """The queue of ``peer`` has become shorter: wake the senders if it is worth it."""
        if self._addressing_senders.waiting and self.router.has_room(peer.lane):
            self._addressing_senders.notify_all()
        if (self._senders.waiting or self._full_reported) and self._roomy():
            self._full_reported = False
            self._senders.notify_all()

    def _roomy(self) -> bool:
        """Whether a queue that was full is down to half: waking for every single message would be slow."""
        half = self.settings.send_hwm // 2
        ring = self.router.ring
        if self.reliable or not ring:
            return self.router.unplaced <= half and self._may_place(None)
        if not self._may_place(None):
            return False
        lengths = [len(lane.queue) for lane in ring]
        return (max if self.settings.send_mode is SendMode.PUBLISH else min)(lengths) <= half

    def _dropped(self, reason: str, count: int, identity: bytes | None) -> None:
        self._drops[reason] = self._drops.get(reason, 0) + count
        self.events.add(Dropped(None, identity, reason, count=count))

    # From any thread: waiting

    def wait_for_peers(self, count: int, deadline: Deadline) -> bool:
        self._peer_waiters.wait(lambda: self.closing or self._forked or len(self.router.ring) >= count, deadline)
        self.check_open()
        return len(self.router.ring) >= count

    def wait_for_receipt(self, receipt: Receipt, deadline: Deadline) -> bool:
        if receipt.settled:
            return True
        try:
            self.ack_waiters += 1
            self.io.call(self._read_past_marks)
            return self._receipt_waiters.wait(lambda: receipt.settled, deadline)
        finally:
            self.ack_waiters -= 1

    # The network thread: connections coming

    def _accepted(self, sock: socket.socket, address: Any, context: ssl.SSLContext | None) -> None:
        if len(self._peers) + len(self._handshaking) >= self.settings.max_connections - 1:
            for acceptor in self.acceptors:
                acceptor.pause()
        if sum(1 for peer in self._handshaking if peer.endpoint is None) >= PENDING_HANDSHAKES:
            oldest = next(peer for peer in self._handshaking if peer.endpoint is None)
            oldest.close("evicted: too many connections have not finished their handshake", None)
        if isinstance(address, tuple):
            address = address[:2]
        elif not address:
            address = sock.getsockname()
        self._start(Peer(self, sock, address, None, context, None))

    def connected(self, sock: socket.socket, target: tuple[str, int] | str, endpoint: Endpoint,
                  context: ssl.SSLContext | None, server_hostname: str | None) -> Peer:
        """An endpoint has dialled successfully."""
        address: Any = target
        if not isinstance(target, str):
            try:
                address = sock.getpeername()[:2]
            except OSError:
                pass  # gone already: reading will tell
        peer = Peer(self, sock, address, endpoint, context, server_hostname)
        self.io.call(self._start, peer)
        return peer

    def _start(self, peer: Peer) -> None:
        if peer.sock.family in (socket.AF_INET, socket.AF_INET6):
            peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._handshaking[peer] = None
        peer.start()

    def greeted(self, peer: Peer) -> None:
        """The peer has said who it is."""
        if peer.identity == self.identity:
            peer.close("the Søcket is connected to itself, or to one of the same identity", None)
        elif self.settings.authorize is None:
            self._authorized(peer)
        else:
            self.callbacks.run(self.settings.authorize, (peer.info(),),
                               lambda verdict, error: self.io.call(self._judged, peer, verdict, error))

    def _judged(self, peer: Peer, verdict: Any, error: Exception | None) -> None:
        if peer not in self._handshaking:
            return
        if error is not None:
            peer.close(f"authorize() raised {error!r}", error)
        elif not verdict:
            peer.close("not authorized", None)
        else:
            self._authorized(peer)

    def _authorized(self, peer: Peer) -> None:
        lane = self.router.find(peer.identity)
        if lane is None:
            self._let_in(peer)
            return
        old: Peer = lane.owner
        policy = self.settings.on_duplicate
        crossing = (old.endpoint is None) != (peer.endpoint is None)
        if peer.certificate is not None and peer.certificate == old.certificate:
            self._replace(old, peer, "the same certificate, connecting again")
        elif crossing:
            # Both dialled at once: the connection dialled by the greater identity stays, on either side.
            dialler = self.identity if peer.endpoint is not None else peer.identity
            if dialler == max(self.identity, peer.identity):
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
            old.challenger = peer
            self.io.call_later(old.announced_interval + PROBE_MARGIN, self._probe_over, old, peer)

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
        self.events.add(DuplicatePeer(old.address, old.identity, f"the old connection is closed: {reason}"))
        old.close(reason, None)
        self._let_in(new)

    def _refuse(self, peer: Peer, reason: str) -> None:
        self.events.add(DuplicatePeer(peer.address, peer.identity, f"the new connection is closed: {reason}"))
        peer.close(reason, None)

    def _let_in(self, peer: Peer) -> None:
        if peer not in self._handshaking:
            return
        del self._handshaking[peer]
        self._peers.add(peer)
        self._connections += 1
        peer.lane.window = self._window(UNKNOWN_WINDOW)
        peer.let_in()
        with self.route:
            self.router.join(peer.lane)
            self._credit = 0
            self._refresh()
        if peer.endpoint is not None:
            peer.endpoint.opened()
        self.events.add(Connected(peer.address, peer.identity))
        self._peers_changed()
        if not self._looking:
            self._looking = True
            self._last_look = time.monotonic()
            self.io.call_later(self._look_every, self._look)
        self.io.work.add(peer)
        if self.closing:
            self._settle_endpoints()

    def _window(self, announced: int) -> int:
        settings = self.settings
        bound = min(announced, settings.send_hwm)
        return max(1, bound if settings.max_unacked is None else min(bound, settings.max_unacked))

    def capable(self, peer: Peer, capabilities: Capabilities) -> None:
        """A netmsg peer has told about itself."""
        peer.announced_interval = capabilities.heartbeat_interval
        with self.route:
            peer.lane.window = self._window(capabilities.window)
            lanes = self.router.refill(peer.lane) if self.reliable else []
        self._work_for(lanes)

    def _work_for(self, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            self.io.work.add(lane.owner)
            self.io.wake()

    def _peers_changed(self) -> None:
        self._peer_waiters.notify_all()
        self._senders.notify_all()
        self._addressing_senders.notify_all()

    # The network thread: connections going

    def lost(self, peer: Peer, reason: str, error: BaseException | None) -> None:
        """A connection has ended."""
        self._past_bytes_received += peer.received_bytes
        if peer in self._peers:
            self._peers.discard(peer)
            self._disconnections += 1
            with self.route:
                self.fast_ring = ()  # what is sent from here on goes behind what is given back
                hopeless = self._count_resends(peer.lane) if self.reliable else []
                departure = self.router.leave(peer.lane)
                self.ledger.forget(peer.lane)
                self._credit = 0
                self._refresh()
            self._past_sent += peer.lane.sent_messages
            self._past_received += peer.received_messages
            self._past_bytes_sent += peer.lane.sent_bytes
            self._departed(departure, peer.lane)
            for message_id, receipt in hopeless:
                self._give_up(peer, message_id, receipt)
            self.events.add(Disconnected(peer.address, peer.identity, reason, error))
            self._peers_changed()
        else:
            self._handshaking.pop(peer, None)
            if reason:
                self.events.add(HandshakeFailed(peer.address, peer.identity or None, reason, error))
        challenger, peer.challenger = peer.challenger, None
        if challenger is not None:
            self._let_in(challenger)
        if peer.endpoint is not None:
            peer.endpoint.ended(peer.open_for, reason, error)
        if not self.closing:
            for acceptor in self.acceptors:
                acceptor.resume()
        self.check_closed()

    def _departed(self, departure: Departure, lane: Lane) -> None:
        if departure.dead:
            self._dropped("peer gone", len(departure.dead), lane.identity)
        self._work_for(departure.ready)

    def _count_resends(self, lane: Lane) -> list[tuple[bytes, Receipt | None]]:
        """What a departing peer was sent and did not acknowledge is going to be sent again: count that, and take out
        what has been sent as often as it may. Under ``route``."""
        queued = {message_id_of(frame) for frame in lane.queue}
        hopeless = [message_id for message_id in lane.unacked
                    if message_id not in queued and not self.ledger.may_resend(message_id)]
        for message_id in hopeless:
            self.router.forget(lane, message_id)
        return [(message_id, self.ledger.give_up(message_id)) for message_id in hopeless]

    def _give_up(self, peer: Peer, message_id: bytes, receipt: Receipt | None) -> None:
        """A message has been sent as often as it may, in vain."""
        self._undelivered += 1
        reason = f"not acknowledged after {self.settings.max_resends} resends"
        if receipt is not None:
            receipt.fail(reason)
        self._receipt_waiters.notify_all()
        self.events.add(Undelivered(peer.address, peer.identity, reason, message_id=message_id))

    # The network thread: messages

    def arrived(self, peer: Peer, payloads: list[bytes]) -> None:
        """DATA has been received."""
        if not self.closing:
            self._deliver(peer, zip(repeat(None), payloads) if self.manual else payloads, payloads, None)

    def one_arrived(self, peer: Peer, payload: bytes) -> None:
        """A single small DATA message has been received: the short way of `arrived`."""
        if self.manual or self.closing:
            self.arrived(peer, [payload])
            return
        size = len(payload)
        peer.pending += 1
        peer.pending_bytes += size
        inbox = self.inbox
        inbox.deliver(Batch(peer, peer.identity, (payload,), 1, size))
        if inbox.waiters.waiting:
            self.io.notices.append(inbox.waiters.notify)

    def requests_arrived(self, peer: Peer, message_ids: list[bytes], payloads: list[bytes]) -> None:
        """DATA_REQ has been received."""
        if self.closing:
            return  # and not acknowledged, for nobody will take it
        found = self._arrivals.sort(peer.identity, message_ids, payloads)
        if found.again:
            self._send_acks(peer.identity, found.again)
        if not found.bodies:
            return
        mode = self.settings.ack_mode
        if mode is AckMode.ON_RECV:
            self._deliver(peer, found.bodies, found.bodies, found.message_ids)
            return
        if mode is AckMode.MANUAL:
            batch = self._deliver(peer, zip(found.message_ids, found.bodies), found.bodies, None)
            batch.count = batch.large_bytes = 0  # these count until they are acknowledged: see `settle_delivery`
        else:
            self._deliver(peer, found.bodies, found.bodies, None)
            self._acknowledge(peer.identity, found.message_ids)

    def _deliver(self, peer: Peer, messages: Iterable[Any], payloads: list[bytes],
                 message_ids: list[bytes] | None) -> Batch:
        # A long run came out of one read of 256 KiB: only in short ones can there be large messages.
        size = sum(map(len, payloads)) if len(payloads) < 64 or self.manual else 0
        count = len(payloads)
        batch = (Batch(peer, peer.identity, messages, count, size) if message_ids is None
                 else RequestBatch(peer, peer.identity, payloads, message_ids, size))
        peer.pending += count
        peer.pending_bytes += size
        inbox = self.inbox
        inbox.deliver(batch)
        if inbox.waiters.waiting:
            self.io.notices.append(inbox.waiters.notify)
        return batch

    def settle_finished(self) -> None:
        """Count what has been taken as taken."""
        finished = self._finished
        while finished:
            batch = finished.pop()
            peer = batch.peer
            if peer is not None:
                peer.pending -= batch.count
                peer.pending_bytes -= batch.large_bytes
                batch.count = batch.large_bytes = 0

    def _finish_batch(self, batch: Batch) -> None:
        """All of a batch has been taken. By the taker, who may be interrupted and say it twice."""
        self._finished.append(batch)
        peer = batch.peer
        if isinstance(batch, RequestBatch):
            self.io.call(self._look_at_batch, batch)
        if peer is not None and peer.paused:
            self.io.call(peer.resume)

    def _watch_batch(self, batch: RequestBatch) -> None:
        """Somebody begins to take from a batch that is to be acknowledged. By the taker."""
        self.io.call(self._look_at_batch, batch)

    def _look_at_batch(self, batch: RequestBatch) -> None:
        """Acknowledge what has been taken, and look again soon for as long as more is."""
        taken = batch.taken_ids()
        if taken:
            self._acknowledge(batch.identity, taken)
        if batch.queue and not batch.ticking:
            batch.ticking = True
            self.io.call_later(ACK_DELAY, self._look_at_batch_again, batch)

    def _look_at_batch_again(self, batch: RequestBatch) -> None:
        taken = batch.taken_ids()
        if not taken:
            self.inbox.unwatch(batch)
            batch.ticking = False
            taken = batch.taken_ids()
        if taken:
            self._acknowledge(batch.identity, taken)
        if batch.ticking and batch.queue:
            self.io.call_later(ACK_DELAY, self._look_at_batch_again, batch)
        else:
            batch.ticking = False

    def _acknowledge(self, sender: bytes, message_ids: list[bytes]) -> None:
        released = self._arrivals.acknowledge(sender, message_ids)
        if released:
            self._send_acks(sender, released)

    def _send_acks(self, sender: bytes, message_ids: list[bytes]) -> None:
        """On the newest connection under that identity; if there is none, the resend will ask again."""
        lane = self.router.find(sender)
        if lane is not None:
            lane.add_control(ack_frames(message_ids))
            self.io.work.add(lane.owner)

    def settle_delivery(self, peer: Peer | None, sender: bytes, message_id: bytes, size: int, accept: bool) -> None:
        """A manual acknowledgement, or a refusal."""
        if accept:
            self._acknowledge(sender, [message_id])
        else:
            self._arrivals.refuse(sender, message_id)
        if peer is not None:
            peer.pending -= 1
            peer.pending_bytes -= size
            if peer.paused:
                peer.resume()

    def acknowledged(self, peer: Peer, message_ids: list[bytes]) -> None:
        """ACKs have been received."""
        with self.route:
            known, lanes = self.router.acknowledged(peer.lane, message_ids)
            self.ledger.settle(known)
        self._work_for(lanes)
        if self._receipt_waiters.waiting:
            self._receipt_waiters.notify_all()
        self._room_made(peer)
        if self.closing and not self.router.unplaced:
            for remaining in tuple(self._peers):
                self._finish_peer(remaining)

    def flushed(self, peer: Peer) -> None:
        """A peer's queue has been written, as far as possible."""
        if self.router.waiting and not self.reliable:
            with self.route:
                lanes = self.router.distribute()
                self._refresh()
            self._work_for(lanes)
        self._room_made(peer)
        if peer.paused:
            peer.resume()
        if self.closing:
            self._finish_peer(peer)

    def _read_past_marks(self) -> None:
        """Somebody waits for ACKs: see `Peer.room`."""
        for peer in tuple(self._peers):
            if peer.paused and peer.lane.unacked:
                peer.resume()

    # The network thread: the regular look

    def _look(self) -> None:
        """Heartbeats, silence and resends: one coarse sweep over the peers."""
        if not self._peers or self.closed:
            self._looking = False
            return
        now = time.monotonic()
        late = now - self._last_look > self._look_every + self.settings.heartbeat_interval
        self._last_look = now
        for peer in tuple(self._peers):
            self._look_at(peer, now, late)
        self.io.call_later(self._look_every, self._look)

    def _look_at(self, peer: Peer, now: float, late: bool) -> None:
        liveness = peer.liveness
        liveness.heard(now, peer.session.decoder.envelopes + peer.received_messages, peer.received_bytes)
        liveness.said(now, peer.lane.sent_bytes)
        if peer.paused:
            liveness.last_heard = now  # it may well have spoken
        elif late:
            liveness.excuse(now)
        if liveness.dead(now):
            before = peer.received_bytes
            peer.look()
            if peer.received_bytes == before and peer in self._peers:
                peer.close(f"nothing heard for {liveness.timeout:g} s", None)
            return
        if liveness.heartbeat_due(now, self._look_every / 2):
            peer.heartbeat()
        if peer.stuck:
            self.io.work.add(peer)
        if self.reliable:
            self._resend(peer, now)

    def _resend(self, peer: Peer, now: float) -> None:
        lane = peer.lane
        with self.route:
            due = self.ledger.due(lane, now)
            if due is None:
                return
            if due.give_up:
                self.router.forget(lane, due.message_id)
                receipt = self.ledger.give_up(due.message_id)
                lanes = self.router.refill(lane)
            else:
                lane.large_bytes += len(due.frame[1]) + len(due.frame[0]) if isinstance(due.frame, tuple) else 0
                lane.queue.append(due.frame)
                lanes = [lane]
        if due.give_up:
            self._give_up(peer, due.message_id, receipt)
            self._room_made(peer)
        self._work_for(lanes)

    # The end

    def close(self, linger: float) -> int:
        """See `Søcket.close`. Takes no lock before everything is under way: a signal handler may call this."""
        self.begin_close(linger)
        if self.io.is_current or self._forked or _interrupts_the_engine():
            return 0
        margin = Deadline(None if linger == float("inf") else linger + 5.0)
        try:
            self._close_waiters.wait(lambda: self.closed, margin)
        except BaseException:
            self.io.call(self._end)  # who interrupts the lingering has lingered enough
            raise
        self.callbacks.join(1.0)
        self.io.join(5.0)
        return self._given_up

    def begin_close(self, linger: float) -> None:
        """Start closing, and return at once."""
        first = not self.closing
        self.closing = True
        self.fast_ring = ()
        self.inbox.close()
        self._peers_changed()
        if not first or self._forked:
            return
        if self._attached:
            self.io.call(self._begin_close, linger)
        else:
            self._end()

    def _begin_close(self, linger: float) -> None:
        if self.closed:
            return
        self._wind_down()
        if linger == 0:
            for peer in tuple(self._peers):
                if peer.lane.control:
                    peer.on_work()  # the acknowledgements of what has been taken, as far as that goes at once
            self._end()
        elif linger != float("inf"):
            self.io.call_later(linger, self._end)

    def _wind_down(self) -> None:
        """Acknowledge what has been taken, stop what is not needed to send the rest, and send the rest."""
        for batch in self.inbox.release():
            if batch is not NOTHING:
                taken = batch.taken_ids()
                if taken:
                    self._acknowledge(batch.identity, taken)
        self.callbacks.close()
        self._settle_endpoints()
        for peer in tuple(self._peers):
            peer.resume()
            self._finish_peer(peer)
        self.check_closed()

    def wants(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint without a connection is to be dialled again."""
        return not self.closing or (not self.closed and self.router.unplaced > 0)

    def _settle_endpoints(self) -> None:
        """Once closing: when no message waits for a peer any more, none is dialled or let in."""
        if self.router.unplaced or self._settling:
            return
        self._settling = True  # closing a peer comes back to here, and there may be thousands
        for acceptor in self.acceptors:
            acceptor.close()
        for endpoint in self._endpoints:
            if endpoint.peer is None or endpoint.connecting:
                endpoint.stop()
        for peer in tuple(self._handshaking):
            peer.close("closed", None)
        self._settling = False

    def _finish_peer(self, peer: Peer) -> None:
        """Once closing: say goodbye to a peer that has been sent everything and acknowledged everything."""
        if (peer in self._peers and not peer.closing and peer.lane.empty and not peer.lane.unacked
                and not self.router.unplaced):
            peer.finish()

    def check_closed(self) -> None:
        """Once closing: the end, if nothing is left to wait for."""
        if not self.closing or self.closed or not self._attached:
            return
        self._settle_endpoints()
        if self._peers or self._handshaking:
            return
        if self.router.unplaced and (self._endpoints or self.acceptors):
            return
        self._end()

    def _end(self) -> None:
        """Let go of everything; what has not been sent or acknowledged by now is given up."""
        if self.closed:
            return
        self.closed = True
        with self.route:
            given_up = self.router.take_all()
            for peer in self._peers:
                lane = peer.lane
                if self.reliable:
                    given_up += list(lane.unacked.values())
                    lane.unacked.clear()
                else:
                    with lane.lock:
                        given_up += lane.take_back()
            receipts = list(self.ledger.outstanding.values())
            self.ledger.outstanding.clear()
        for receipt in receipts:
            receipt.fail("unacknowledged when the Søcket was closed")
        self.callbacks.close()
        self._given_up = len(given_up)
        if given_up:
            self._dropped("given up at close", len(given_up), None)
        for acceptor in self.acceptors:
            acceptor.close()
        for endpoint in self._endpoints:
            endpoint.stop()
        for peer in (*self._peers, *self._handshaking):
            peer.close("closed", None)
        self.inbox.release()
        self.events.close()
        self._receipt_waiters.notify_all()
        if self._attached:
            self.io.detach(self)
        _engines.discard(self)
        self._close_waiters.notify_all()

    # What the IOThread asks of its users

    def io_closing(self, deadline: Deadline) -> None:
        remaining = deadline.remaining()
        linger = self.settings.linger
        self.begin_close(linger if remaining is None else min(linger, remaining))

    def io_failed(self, cause: BaseException | None) -> None:
        self._failure = cause
        self.closing = True
        self.fast_ring = ()
        self.inbox.close()
        self._end()
        self._peers_changed()

    def forked(self) -> None:
        """This is a forked child: close its copies of the descriptors, and touch nothing that is shared."""
        self._forked = True
        self.fast_ring = ()
        self.inbox.current = NOTHING
        for peer in (*self._peers, *self._handshaking):
            peer.abandon()
        for acceptor in self.acceptors:
            acceptor.abandon()

    @property
    def is_forked(self) -> bool:
        return self._forked

    def crashed(self, error: Exception) -> None:
        """A step that belongs to no connection failed: nothing can be said for this Søcket any more."""
        self.io_failed(error)

    # From any thread: looking

    def peers(self) -> list[PeerInfo]:
        return [lane.owner.info() for lane in self.router.ring]

    def stats(self) -> SocketStats:
        lanes = self.router.ring
        peers = [lane.owner for lane in lanes]
        infos = [peer.info() for peer in peers]
        return SocketStats(
            sent=self._past_sent + sum(info.sent for info in infos),
            received=self._past_received + sum(info.received for info in infos),
            bytes_sent=self._past_bytes_sent + sum(lane.sent_bytes for lane in lanes),
            bytes_received=self._past_bytes_received + sum(peer.received_bytes for peer in peers),
            queued=self.router.unplaced + sum(info.queued for info in infos),
            unacked=len(self.ledger.outstanding),
            resent=self.ledger.resent,
            duplicates=self._arrivals.duplicates,
            dropped=dict(self._drops),
            undelivered=self._undelivered,
            connections=self._connections,
            disconnections=self._disconnections,
            peers={info.identity: info for info in infos},
        )


class _Fanout:
    """All peers of a publisher as one piece of work, so that a publication asks once, and not once a peer."""

    def __init__(self, engine: Engine) -> None:
        self.bursts = 0
        self._seen = 0
        self._engine = engine

    def bursting(self) -> bool:
        seen, self._seen = self._seen, self.bursts
        return seen != self.bursts

    def on_work(self) -> None:
        for lane in self._engine.router.ring:
            if not lane.empty:
                lane.owner.on_work()

    def crashed(self, error: Exception) -> None:
        self._engine.crashed(error)


_HERE = os.path.dirname(__file__)


def _interrupts_the_engine() -> bool:
    """Whether this call of ``close`` comes from a signal handler, or a finalizer, that interrupted netmsg's own code in
    this very thread: then waiting could be for a lock held further up this stack."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    while frame is not None and not frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    return frame is not None


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _close_all() -> None:
    """At interpreter exit, as if every Søcket left open were closed: first all begin to, then all are waited for."""
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
