"""The sending half of a Søcket: from `Søcket.send` to the queues of the peers, and what comes back of it.

The way of a message, and why none is lost on it
------------------------------------------------
Three meet on it: threads of the user's, of which there may be many; the network thread; and in the main thread signal
handlers, which may raise between two instructions (where, says `netmsg.uninterrupted`). No lock is taken on the usual
way. What can happen between which two steps:

1. *A peer is chosen*, from `Sender.fast_ring`, a snapshot that nobody changes. Before the next step the peer may go, or
   others may come. Then the message is in the queue of one that is dead: see 4.
2. *The frame is appended* to the peer's queue, by one call into C. Interrupted before, it was not sent; behind it, it
   was, whatever `send` raises. Nobody but the writer takes anything from the head of a queue, and appends of others do
   not disturb it.
3. *Somebody is told.* First append, then look: if the peer is on the list of work now, the network thread is still to
   look at its queue, for it takes a peer off the list before it does. If not, `Sender.kick` writes at once, or puts the
   peer on the list and wakes the thread, if that is asleep. (It writes `asleep`, looks at the list once more, and
   sleeps: whoever comes second sees the other.) Interrupted between 2 and 3, the frame waits in the queue for the next
   `send`, or for the regular look, which finds whatever is `Peer.stuck`.
4. *Is the peer dead?* When a peer goes, the network thread empties `fast_ring`, sets `Lane.dead`, and takes the queue,
   under ``route``; a sender appends, and looks at ``dead``. Whoever comes second finds the frame, and gives it back: to
   the others, or to those who wait. Both may do so, for `Router.give_back` takes what there is, once. The sender does
   it before it returns, so that the next message of its thread stays behind this one.
5. *The frame is written*, with others, by whoever holds the lane's lock. A `Write` is stored before the system call,
   and the call itself appends to its counts how much has gone. Frames stay at the head of the queue until `end_write`
   takes them out, which makes no call but the one that deletes them. So an interrupt, or the end of the peer, before
   the system call finds a write that has not begun; behind it, one of which it is known how far it has come: it is gone
   on with, or given back but for those frames that have gone whole.
6. *The kernel takes no more.* The network thread is told, and waits for room. Interrupted in between, the lane is not
   idle and nobody waits for room: that is being stuck, as in 3.

Messages that the usual way does not take (by identity, published, at least once, at the mark) are placed under
``route``, in blocks without a call that move them and count them at once: see `Router` and `netmsg.messaging.kept`.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from ..aside import aside
from ..deadline import Deadline
from ..errors import LocalProtocolError, QueueFullError, SendTimeoutError
from ..locks import new_lock
from ..reactor.reactor import Reactor
from ..waiting import Waiters
from ..wire.envelope import data_frame, reliable_frame
from ..wire.messages import Capabilities, Kind, Queued, message_id_of
from . import exiting
from .choices import OnFull, SendMode
from .connections import Connections, each
from .delivery import Ledger
from .events import Dropped, EventQueue, Full, Undelivered
from .kept import Limits
from .lane import Lane
from .life import Life
from .losses import Losses
from .receipts import Receipt
from .routing import Departure, Placed, Router, Squeezed
from .settings import Settings

if TYPE_CHECKING:
    from .peers import Peer

__all__ = ["BURST", "Sender"]

BURST: Final = 512
"""With so many frames gathered, a sender writes by itself."""
QUIET: Final = 60e-6
"""Seconds without a send after which one message is written at once, by its sender."""
QUIET_PEERS: Final = 16
"""To more peers than this a publisher leaves the writing to the network thread."""
QUEUE_IS_FULL: Final = "the send queue is at its high-water mark"
QUEUE_WAS_FULL: Final = "the send queue was full"
STUCK_LOOK: Final = 0.25
"""Seconds between two looks at whether a full peer takes anything, where `OnFull.DISCONNECT` asks."""
STUCK_MARGIN: Final = 1.0
"""Seconds, over the interval of heartbeats, in which one that keeps up takes something."""
UNKNOWN_WINDOW: Final = 200
"""Unacknowledged messages to a peer that did not say how many it holds. Some drop acknowledgements beyond 256."""


class Sender:
    """What one Søcket sends: the router and the ledger, under one lock, and the threads that wait for room."""

    def __init__(self, settings: Settings, life: Life, io: Reactor, events: EventQueue, losses: Losses,
                 connections: Connections, trouble: Callable[[], str]) -> None:
        self._settings = settings
        self._life = life
        self._io = io
        self._events = events
        self._losses = losses
        self._connections = connections
        self.trouble = trouble
        """What is wrong with the endpoints, for the text of an error."""
        self.reliable = settings.reliable
        self.route = new_lock()
        self.router = Router(settings.send_mode, Limits(settings.send_hwm, settings.send_hwm_bytes),
                             reliable=self.reliable)
        self.ledger: Ledger[Receipt] = Ledger(secrets.token_bytes(8), settings.resend_after, settings.max_resends,
                                              random.random)
        self.fast_ring: tuple[Peer, ...] = ()
        """The peers among which plain round-robin messages may be dealt without the ``route`` lock; empty whenever
        anything at all has to be considered."""
        self.ack_waiters = 0
        """How many threads wait for acknowledgements, which stand behind data in the network."""
        self._senders = Waiters()
        self._addressing_senders = Waiters()
        self._receipt_waiters = Waiters()
        self.last_send = 0.0
        """When something was last handed on to be written: see `QUIET`."""
        self._fanout = _Fanout(self)
        self._credit = 0  # copies that may be published before a peer's queue has to be looked at
        self._full_reported = False

    def _crashed(self, error: Exception) -> None:
        """A step on the network thread failed."""
        self._life.on_crash(error)

    # From any thread: looking

    def find(self, identity: bytes) -> Lane | None:
        """The way to a peer that is connected."""
        return self.router.find(identity)

    # From any thread: sending

    def answering(self) -> None:
        """Somebody has waited for what it gets now: what is sent next is no burst, but an answer."""
        self.last_send = 0.0

    def send(self, data: bytes, identity: bytes | None, timeout: float | None) -> Receipt | None:
        """Send one message the long way. Raises what `Søcket.send` does."""
        deadline = None
        squeezed = None
        drops_oldest = self._settings.on_full is OnFull.DROP_OLDEST
        while True:
            if self._life.over:  # before the lock, which in a forked child may be held for ever
                self._life.check_open()
            with self.route:
                if self._life.over:
                    self._life.check_open()
                receipt, message = self._message(data, identity)
                if self.reliable:
                    placed, lanes = self.router.place(message, identity)
                else:
                    placed, lanes = self._place(message, identity)
                if placed is Placed.FULL and drops_oldest and not self.reliable:
                    squeezed = self.router.squeeze_in(message, identity)
                    self._credit = 0
                    lanes = squeezed.lanes
                    placed = Placed.QUEUED if lanes or squeezed.refused else Placed.WAITING
                if placed is not Placed.FULL:
                    if receipt is not None:
                        self.ledger.outstanding[receipt.message_id] = receipt
                    if placed is Placed.WAITING:
                        self.fast_ring = ()
                    break
            if drops_oldest:
                outcome: list[tuple[Receipt, Iterable[Lane]]] = []
                aside(lambda: self._squeeze_in(data, identity, outcome))
                if outcome:
                    receipt, lanes = outcome[0]
                    break
                continue
            if deadline is None:
                deadline = Deadline(timeout)
            if self._cope_with_full(data, receipt, identity, deadline):
                return receipt
        if placed is Placed.ABSENT:
            self._dropped("peer not connected", 1, identity)
        elif self._settings.send_mode is SendMode.PUBLISH and identity is None:
            if lanes:
                self.kick_all()
        else:
            for lane in lanes:
                self.kick(lane.owner)
        if squeezed is not None:
            self._report_squeezed(squeezed)
        return receipt

    def _squeeze_in(self, data: bytes, identity: bytes | None, outcome: list[tuple[Receipt, Iterable[Lane]]]) -> None:
        """At least once: send a message in the place of the oldest one, whose receipt is told. Where no interrupt can
        come, which would have that one forgotten by the one and not by the other. Nothing once the Søcket closes."""
        with self.route:
            if self._life.over:
                return
            receipt, message = self._message(data, identity)
            assert receipt is not None
            placed, lanes = self.router.place(message, identity)
            if placed is not Placed.FULL:
                self.ledger.outstanding[receipt.message_id] = receipt
                outcome.append((receipt, lanes))
                return
            squeezed = self.router.squeeze_in(message, identity)
            if squeezed.refused:
                receipt._fail(QUEUE_WAS_FULL)
            else:
                self.ledger.outstanding[receipt.message_id] = receipt
                for dropped, _ in squeezed.dropped:
                    self.ledger.give_up(message_id_of(dropped), "dropped: the send queue was full")
            outcome.append((receipt, squeezed.lanes))
        self._report_squeezed(squeezed)

    def _report_squeezed(self, squeezed: Squeezed) -> None:
        self._report_full(None)
        for _, peer in squeezed.dropped:
            self._dropped("send queue full", 1, peer)
        if self.reliable:
            self._receipt_waiters.notify_all()

    def _message(self, data: bytes, identity: bytes | None) -> tuple[Receipt | None, Queued]:
        """``data`` as it is queued."""
        router = self.router
        if self.reliable:
            receipt = Receipt(self, self.ledger.new_id())
            return receipt, reliable_frame(receipt.message_id, data, router.large, identity)
        kind = router.bare if identity is None else Kind.ADDRESSED
        return None, data_frame(data, router.large, kind, identity)

    def _place(self, message: Queued, identity: bytes | None) -> tuple[Placed, Iterable[Lane]]:
        """Queue a message. Under ``route``."""
        if identity is None and self._credit > 0 and type(message) is bytes:
            self._credit -= 1
            ring = self.router.ring
            try:
                for lane in ring:
                    lane.queue.append(message)
            except BaseException:
                self.router.publish_to_rest(message, ring, lane)
                raise
            return Placed.QUEUED, ring
        placed, lanes = self.router.place(message, identity)
        if self._settings.send_mode is SendMode.PUBLISH:
            ring = self.router.ring
            self._credit = 0 if not ring or identity is not None else (
                self._settings.send_hwm - max(len(lane.queue) for lane in ring))
        return placed, lanes

    def _refresh(self) -> None:
        """Say anew whether messages may be dealt without the lock. Under ``route``."""
        router = self.router
        if (self.reliable or self._settings.send_mode is SendMode.PUBLISH or router.waiting or self._life.closing
                or self._life.forked):
            self.fast_ring = ()
        else:
            self.fast_ring = tuple(lane.owner for lane in router.ring)
            if self._life.over:  # meanwhile: closing takes no lock
                self.fast_ring = ()

    def kick(self, peer: Peer) -> None:
        """Something has just been appended to the queue of ``peer``: see that it gets on its way."""
        io = self._io
        count = len(peer.queue)
        if count < BURST and peer in io.work and not io.asleep:
            return
        if peer.direct:
            if count >= BURST:
                self.last_send = time.perf_counter()
                peer.write_burst()
                self._room_made(peer)
            elif peer not in io.work:
                now = time.perf_counter()
                quiet = now - self.last_send > QUIET
                self.last_send = now
                if quiet:
                    peer.write_burst()
                    if self._senders.waiting or self._addressing_senders.waiting or self._full_reported:
                        self._room_made(peer)
                    if not peer.queue and not self._life.closing:  # it may be just this that is waited for
                        return
        if peer.lane.dead:
            self.give_back(peer.lane)  # at once: the next message of this thread is to stay behind it
            return
        io.work.add(peer)
        if io.asleep:
            io.wake()

    def kick_all(self) -> None:
        """The same after a publication."""
        io = self._io
        fanout = self._fanout
        ring = self.router.ring
        now = time.perf_counter()
        quiet = now - self.last_send > QUIET and fanout not in io.work
        burst = bool(ring) and len(ring[0].queue) >= BURST
        self.last_send = now
        if burst or (quiet and len(ring) <= QUIET_PEERS):
            left = False
            for lane in ring:
                if lane.owner.direct:
                    lane.owner.write_burst()
                left = left or bool(lane.queue)
            if self._senders.waiting or self._full_reported:
                for lane in ring:
                    self._room_made(lane.owner)
            if burst:
                fanout.bursts += 1
            elif not left and not self._life.closing:
                return
        io.work.add(fanout)
        if io.asleep:
            io.wake()

    # When there is no room

    def _cope_with_full(self, data: bytes, receipt: Receipt | None, identity: bytes | None,
                        deadline: Deadline) -> bool:
        """There is no room: make some, wait for some, or settle the matter (true)."""
        self._report_full(identity)
        policy = self._settings.on_full
        if policy is OnFull.RAISE:
            raise QueueFullError(QUEUE_IS_FULL)
        if policy is OnFull.DROP_NEWEST:
            self._drop_newest(data, receipt, identity)
            return True
        if policy is OnFull.DISCONNECT:
            if identity is None and self._settings.send_mode is SendMode.PUBLISH and self.router.ring:
                return self._publish_or_disconnect(data, deadline)
            with self.route:
                full = self.router.full_lanes(identity)
                self._stuck(full)  # from now on
            if not full:
                self._drop_newest(data, receipt, identity)
                return True
            self._disconnect_who_is_stuck(full, identity, deadline)
            return False
        self._wait_for_room(identity, deadline)
        return False

    def _publish_or_disconnect(self, data: bytes, deadline: Deadline) -> bool:
        """Disconnect those that do not keep up. Where there are only such as have not been sent yet what was kept for
        them, publish past the mark (true): they have had no chance to take it."""
        with self.route:
            behind = self.router.lanes_behind()
            published = bool(self.router.ring) and not behind
            if published:
                self.router.publish(self._message(data, None)[1], self.router.ring)
                self._credit = 0
        if published:
            self.kick_all()
        else:
            self._disconnect(behind, deadline)
        return published

    def _disconnect_who_is_stuck(self, full: list[Lane], identity: bytes | None, deadline: Deadline) -> None:
        """There may soon be room, for the others do keep up: then nobody has to go, and otherwise one who has taken
        nothing for too long."""
        try:
            self._wait_for_room(identity, deadline.sooner(STUCK_LOOK))
        except SendTimeoutError:
            with self.route:
                stuck = self._stuck(full)
            if stuck:
                self._disconnect(stuck[:1], deadline)
            elif deadline.expired:
                raise

    def _stuck(self, lanes: list[Lane]) -> list[Lane]:
        """Those that have made no progress for too long since they were first seen to be full. Under ``route``."""
        now = time.monotonic()
        settings = self._settings
        patience = settings.heartbeat_interval + STUCK_MARGIN + (settings.resend_after if self.reliable else 0.0)
        stuck = []
        for lane in lanes:
            progress = lane.acknowledged if self.reliable else lane.taken_bytes
            if progress != lane.progress:
                lane.progress, lane.progress_at = progress, now
            elif now - lane.progress_at >= patience and not lane.dead and (self.reliable or lane.owner.blocked):
                stuck.append(lane)
        return stuck

    def _disconnect(self, lanes: list[Lane], deadline: Deadline) -> None:
        for lane in lanes:
            self._io.call(lane.owner.close, "it did not keep up", None)
        self._wait_while(lambda: any(not lane.dead for lane in lanes), deadline)

    def _report_full(self, identity: bytes | None) -> None:
        if not self._full_reported:
            self._events.add(Full(None, identity, QUEUE_IS_FULL))
            self._full_reported = True

    def _drop_newest(self, data: bytes, receipt: Receipt | None, identity: bytes | None) -> None:
        if receipt is not None:
            receipt._fail(QUEUE_WAS_FULL)
        elif self._settings.send_mode is SendMode.PUBLISH and identity is None and self.router.ring:
            with self.route:
                full = set(self.router.full_lanes())
                self.router.publish(self._message(data, None)[1], self.router.others(full))
                self._credit = 0
            for lane in full:
                self._dropped("send queue full", 1, lane.identity)
            self.kick_all()
            return
        self._dropped("send queue full", 1, identity)

    def _wait_for_room(self, identity: bytes | None, deadline: Deadline) -> None:
        """Block until there may be room. Raises `SendTimeoutError` at the deadline.

        Woken by room, a peer's coming or going, and close.
        """
        if self._io.is_current:
            raise LocalProtocolError("a send that would block, on the network thread itself")
        waiters = self._senders if identity is None else self._addressing_senders
        try:
            self.ack_waiters += 1
            if self.reliable:
                self._io.call(self._read_past_marks)
            if not waiters.wait(lambda: self._life.over or self._may_place(identity), deadline):
                raise SendTimeoutError("no room in the send queue in time")
        finally:
            self.ack_waiters -= 1
        if self._life.closing:
            exiting.stay_blocked()

    def _may_place(self, identity: bytes | None) -> bool:
        router = self.router
        if identity is not None:
            lane = router.find(identity)
            if lane is not None and router.has_room(lane):
                return True
            return router.parked.has_room(identity) if self.reliable else lane is None
        ring = router.ring
        if ring and self._settings.send_mode is SendMode.PUBLISH:
            return all(router.has_room(lane) for lane in ring)
        if ring and not router.waiting and any(router.has_room(lane) for lane in ring):
            return True
        return (self.reliable or not ring or bool(router.waiting)) and router.waiting_has_room()

    def _wait_while(self, condition: Callable[[], bool], deadline: Deadline) -> None:
        if not self._connections.changed.wait(lambda: self._life.closing or not condition(), deadline):
            raise SendTimeoutError("the send ran out of time")

    def _room_made(self, peer: Peer) -> None:
        """The queue of ``peer`` has become shorter: wake the senders if it is worth it."""
        router = self.router
        if self._addressing_senders.waiting and (router.has_room(peer.lane)
                                                 or (self.reliable and router.parked.has_room(peer.identity))):
            self._addressing_senders.notify_all()
        if (self._senders.waiting or self._full_reported) and self._roomy():
            self._full_reported = False
            self._senders.notify_all()

    def _roomy(self) -> bool:
        """Whether a queue that was full is down to half: waking for every single message would be slow."""
        half = self._settings.send_hwm // 2
        ring = self.router.ring
        if self.reliable or not ring:
            return len(self.router.waiting) <= half and self._may_place(None)
        if not self._may_place(None):
            return False
        lengths = [len(lane.queue) for lane in ring]
        return (max if self._settings.send_mode is SendMode.PUBLISH else min)(lengths) <= half

    def _dropped(self, reason: str, count: int, identity: bytes | None) -> None:
        self._losses.drop(reason, count)
        self._events.add(Dropped(None, identity, reason, count=count))

    def wake_all(self) -> None:
        """Peers have come or gone, or the Søcket closes: whoever waits has to look again. Takes no lock."""
        self._senders.notify_all()
        self._addressing_senders.notify_all()
        self._receipt_waiters.notify_all()

    def is_outstanding(self, message_id: bytes) -> bool:
        """Whether a message is neither acknowledged nor given up on."""
        return message_id in self.ledger.outstanding

    def wait_for_receipt(self, receipt: Receipt, deadline: Deadline) -> bool:
        """Wait until the message is acknowledged or given up on; false at the deadline."""
        self._life.check_process()
        if receipt._settled:
            return True
        try:
            self.ack_waiters += 1
            self._io.call(self._read_past_marks)
            settled = self._receipt_waiters.wait(lambda: receipt._settled, deadline)
        finally:
            self.ack_waiters -= 1
        if receipt.failed:
            exiting.stay_blocked()
        return settled

    # The network thread: peers that come and go

    def join(self, peer: Peer) -> None:
        """A peer has been let in."""
        peer.lane.window = self._window(UNKNOWN_WINDOW)
        with self.route:
            self.router.join(peer.lane)
            self._credit = 0
            self._refresh()

    def leave(self, peer: Peer) -> None:
        """A peer has gone: what it was not sent goes to the others, or waits; so does what it was sent and has not
        acknowledged, which counts as sent again."""
        with self.route:
            self.fast_ring = ()  # what is sent from here on goes behind what is given back
            hopeless = self._count_resends(peer.lane) if self.reliable else []
            self.ledger.taken_back(peer.lane.unacked)
            peer.lane.finishing = False
            departure = self.router.leave(peer.lane)
            self._credit = 0
            self._refresh()
        self._departed(departure, peer.lane)
        for message_id in hopeless:
            self._given_up(peer, message_id)

    def succeed(self, old: Peer, new: Peer, *, finish: bool) -> None:
        """Another connection to the same peer is to take the place of ``old``; see `Router.succeed`. What the old one
        was sent, and has not acknowledged, goes out again; where it does not ``finish``, that counts as sent again."""
        new.lane.window = self._window(UNKNOWN_WINDOW)
        with self.route:
            self.fast_ring = ()
            hopeless = self._count_resends(old.lane) if self.reliable and not finish else []
            self.ledger.taken_back(old.lane.unacked)
            self.router.succeed(old.lane, new.lane, finish=finish)
            self._credit = 0
            self._refresh()
        for message_id in hopeless:
            self._given_up(old, message_id)

    def bring(self, endpoint: object, peer: Peer) -> None:
        """An endpoint has turned out to lead to a peer that is there by another way."""
        with self.route:
            ready = self.router.bring(peer.lane, endpoint)
            self._credit = 0
        self._departed(Departure([], ready), peer.lane)

    def settle(self) -> None:
        """Once this has returned, what is sent the long way is placed, or will be refused: the Søcket closes."""
        with self.route:
            self.fast_ring = ()

    def take_all(self, peers: Iterable[Peer]) -> int:
        """The end: give up all that has not been sent, or not been acknowledged, and say how many messages it is."""
        with self.route:
            given_up = len(self.router.take_all())
            for peer in peers:
                lane = peer.lane
                lane.finishing = False
                if self.reliable:
                    given_up += len(lane.unacked)
                    lane.unacked.clear()
                else:
                    with lane.lock:
                        given_up += len(lane.take_back())
            self.ledger.give_up_all("unacknowledged when the Søcket was closed")
        if given_up:
            self._dropped("given up at close", given_up, None)
        self._receipt_waiters.notify_all()
        return given_up

    def give_back(self, lane: Lane) -> None:
        """It was appended to the queue of a peer that is gone. From any thread; done where no interrupt can come, which
        would lose what is on its way from one place to another."""
        aside(lambda: self._give_back(lane))

    def _give_back(self, lane: Lane) -> None:
        with self.route:
            self.fast_ring = ()  # what is sent from here on goes behind what is given back
            departure = self.router.give_back(lane)
            late = len(self.router.take_all()) if self._life.closed else 0
            self._refresh()
        self._departed(departure, lane)
        if late:
            self._dropped("given up at close", late, None)

    def _departed(self, departure: Departure, lane: Lane) -> None:
        if departure.dead:
            self._dropped("peer gone", len(departure.dead), lane.identity)
        self._work_for(departure.ready)

    def _work_for(self, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            self._io.work.add(lane.owner)
            self._io.wake()

    def _window(self, announced: int) -> int:
        settings = self._settings
        bound = min(announced, settings.send_hwm)
        return max(1, bound if settings.max_unacked is None else min(bound, settings.max_unacked))

    def capable(self, peer: Peer, capabilities: Capabilities) -> None:
        """A netmsg peer has told about itself."""
        peer.announced_interval = capabilities.heartbeat_interval
        peer.liveness.announced(capabilities.heartbeat_interval)
        with self.route:
            peer.lane.window = self._window(capabilities.window)
            lanes = self.router.refill(peer.lane) if self.reliable else []
        self._work_for(lanes)

    # The network thread: what comes back

    def acknowledged(self, peer: Peer, message_ids: list[bytes]) -> None:
        """ACKs have been received."""
        with self.route:
            # What was sent by a connection that another one has taken over from is expected by that.
            lane = (self.router.find(peer.identity) if peer.retired else None) or peer.lane
            known, lanes = self.router.acknowledged(lane, message_ids)
            self.ledger.settle(known)
        self._work_for(lanes)
        if self._receipt_waiters.waiting:
            self._receipt_waiters.notify_all()
        self._room_made(peer)

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

    def _read_past_marks(self) -> None:
        """Somebody waits for ACKs: see `Reading.room`."""
        for peer in tuple(self._connections.open):
            if peer.paused and self._waits_for(peer):
                peer.resume_safely()

    def expects_acknowledgements(self, peer: Peer) -> bool:
        """Whether somebody waits for acknowledgements that come by this connection."""
        return bool(self.ack_waiters) and self._waits_for(peer)

    def _waits_for(self, peer: Peer) -> bool:
        """Whether acknowledgements are expected on this connection, or on one that is read behind it."""
        if peer.lane.unacked:
            return True
        lane = self.router.find(peer.identity) if peer.retired or peer.following else None
        return lane is not None and bool(lane.unacked)

    # The network thread: sending again

    def resend(self, peer: Peer, now: float) -> None:
        lane = peer.lane
        with self.route:
            due = self.ledger.due(lane, now)
            if not due:
                return
            hopeless = []
            for message in due:
                if message.give_up:
                    hopeless.append(message.message_id)
                    self._give_up(lane, message.message_id)
                else:
                    self.router.send_again(lane, message.message_id)
            lanes = self.router.refill(lane)
        for message_id in hopeless:
            self._given_up(peer, message_id)
        if hopeless:
            self._room_made(peer)
        self._work_for([lane, *lanes])

    def _count_resends(self, lane: Lane) -> list[bytes]:
        """What a departing peer was sent and did not acknowledge is going to be sent again: count that, and give up
        what has been sent as often as it may. Under ``route``."""
        now = time.monotonic()
        queued = set(map(message_id_of, lane.queue))
        hopeless = [message_id for message_id in lane.unacked
                    if message_id not in queued and not self.ledger.may_resend(message_id, now)]
        for message_id in hopeless:
            self._give_up(lane, message_id)
        return hopeless

    def _give_up(self, lane: Lane, message_id: bytes) -> None:
        """A message has been sent as often as it may, in vain. Under ``route``."""
        self.router.forget(lane, message_id)
        self.ledger.give_up(message_id, self._in_vain)

    def _given_up(self, peer: Peer, message_id: bytes) -> None:
        self._losses.undelivered += 1
        self._receipt_waiters.notify_all()
        self._events.add(Undelivered(peer.address, peer.identity, self._in_vain, message_id=message_id))

    @property
    def _in_vain(self) -> str:
        return f"not acknowledged after {self._settings.max_resends} resends"


class _Fanout:
    """All peers of a publisher as one piece of work, so that a publication asks once, and not once a peer."""

    def __init__(self, sender: Sender) -> None:
        self.bursts = 0
        self._seen = 0
        self._sender = sender

    def bursting(self) -> bool:
        seen, self._seen = self._seen, self.bursts
        return seen != self.bursts

    def on_work(self) -> None:
        sender = self._sender
        closing = sender._life.closing  # then whoever waits for the end wants to hear of it
        each((lane.owner for lane in sender.router.ring if closing or not lane.empty), lambda peer: peer.on_work())

    def _crashed(self, error: Exception) -> None:
        self._sender._crashed(error)
