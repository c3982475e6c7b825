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
   look at its queue, for it takes a peer off the list before it does. If not, `Dispatch.kick` writes at once, or puts
   the peer on the list and wakes the thread, if that is asleep. (It writes `asleep`, looks at the list once more, and
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
``route``, in blocks without a call that move them and count them at once: see `Router`, `Lane.give` and
`netmsg.messaging.kept`. What becomes of those for which there is no room at all is up to the `Overflow`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..aside import aside
from ..deadline import Deadline
from ..errors import QueueFullError, RemoteProtocolError, SendTimeoutError
from ..interrupts import in_main_thread
from ..locks import new_lock
from ..reactor.reactor import Reactor
from ..storage.committing import Written
from ..storage.outbox import Change
from ..wire.envelope import data_frame, failure_frame, reliable_frame, reply_frame
from ..wire.messages import Capabilities, Features, Kind, Queued
from .acknowledgements import Acknowledgements
from .choices import OnFull, OnNoPeer, SendMode
from .conflating import conflate, place_newest
from .connections import Connections
from .dispatching import Dispatch
from .drafts import Draft
from .events import Dropped, EventQueue
from .expecting import Expecting
from .kept import Limits
from .lane import Lane
from .life import Life
from .losses import CONFLATED, NO_PEER, NO_ROOM_FOR_REPLY, Losses
from .overflow import Overflow
from .receipts import Receipt
from .requesting import Requesting
from .requests import Requests
from .reservoir import Reservoir
from .room import Room
from .routing import Departure, Placed, Router
from .settings import Settings
from .squeezing import Drop, squeeze_in
from .storing import Outbox
from .storing import Sending as StoredSending
from .storing import StoredReceipt, Storing
from .subscribing import Subscriptions
from .topics import MOST_SUBSCRIPTIONS

if TYPE_CHECKING:
    from .peers import Peer

__all__ = ["Sender"]

AT_LEAST: Final = 1.0
"""Seconds that the disk is given where the time was up before it was asked."""
UNKNOWN_WINDOW: Final = 200
"""Unacknowledged messages to a peer that did not say how many it holds. Some drop acknowledgements beyond 256."""


class Sender:
    """What one Søcket sends: the router and the ledger, under one lock."""

    def __init__(self, settings: Settings, life: Life, io: Reactor, events: EventQueue, losses: Losses,
                 connections: Connections, trouble: Callable[[], str],
                 outbox: Written[Outbox, Change] | None = None) -> None:
        """``outbox`` is its file, if there is one, and who writes that."""
        self._settings = settings
        self._life = life
        self._io = io
        self._events = events
        self._losses = losses
        self._connections = connections
        self.reliable = settings.reliable
        self.conflates = settings.conflate
        self.route = new_lock()
        limits = Limits(settings.send_hwm, settings.send_hwm_bytes)
        self.router = router = Router(settings.send_mode, limits, reliable=self.reliable,
                                      keeps=settings.on_no_peer is OnNoPeer.KEEP,
                                      stored=None if outbox is None else Reservoir(limits, outbox.file.counts()))
        self.storing = storing = None if outbox is None else Storing(
            *outbox, life, self.route, router,
            lambda message_id: StoredReceipt(self._acks, message_id), self._work_for, lambda: self._room.wake_all())
        self._requests = requests = Requests()
        self._expecting = expecting = Expecting(life, io, connections, router, requests)
        self._acks = acks = Acknowledgements(settings, life, io, events, losses, router, expecting,
                                             trouble, storing)
        self.ledger = acks.ledger
        self.fast_ring: tuple[Peer, ...] = ()
        """The peers among which plain round-robin messages may be dealt without the ``route`` lock; empty whenever
        anything at all has to be considered."""
        self._room = room = Room(life, io, events, router, expecting, requests, trouble)
        self._overflow = Overflow(settings, life, self.route, router, room, acks, self, io.clock)
        self._drops_oldest = settings.on_full is OnFull.DROP_OLDEST
        self._dispatch = dispatch = Dispatch(life, io, router, room, self.give_back)
        self.subscriptions = Subscriptions(life, io, connections)
        self.find = router.find
        self.kick = dispatch.kick
        self.answering = dispatch.answering
        self.expects = expecting.expects
        self.requesting = Requesting(life, io, self.route, router, requests, expecting, room, self.kick,
                                     self.ledger.new_id, trouble)

    # From any thread: sending

    def send(self, data: bytes, identity: bytes | None, timeout: float | Deadline | None) -> Receipt | None:
        """Send one message the long way. Raises what `Søcket.send` does. Whoever revokes a deadline calls `wake_all`.
        """
        if self.storing is not None:
            return self.store((data,), identity, timeout)[0]
        if self.conflates:
            self._send_newest(data, identity)
            return None
        if not self._drops_oldest or self.reliable:
            return self._send(data, identity, timeout, None)
        return self._squeeze(data, identity, timeout)

    def store(self, payloads: Sequence[bytes], identity: bytes | None,
              timeout: float | Deadline | None) -> list[Receipt]:
        """The same, with an outbox, for several messages, which are written in one transaction if there is room for
        all. What it raises says in ``sent`` how many of them are stored."""
        deadline = timeout if isinstance(timeout, Deadline) else Deadline(timeout)
        receipts: list[Receipt] = []
        try:
            while True:
                if len(receipts) == len(payloads):
                    return receipts
                receipts += self._store_some(payloads[len(receipts):], identity, deadline)
        except (QueueFullError, SendTimeoutError) as error:
            error.sent = len(receipts)
            raise

    def room_for(self, identity: bytes | None) -> tuple[int, int]:
        """How many messages, and bytes, the outbox has room for; none, perhaps."""
        assert self.router.stored is not None
        return self.router.stored.room(identity)

    def _store_some(self, payloads: Sequence[bytes], identity: bytes | None, deadline: Deadline) -> list[Receipt]:
        """As many as there is room for; none, where there may be some now."""
        begun: list[StoredSending | None] = []
        lines_up = not in_main_thread()
        aside(lambda: begun.append(self._begin_storing(payloads, identity, lines_up)))  # wholly, or not at all
        sending = begun[0]
        if sending is None:
            rejected = StoredReceipt(self._acks, self.ledger.new_id())
            settled = self._overflow.cope(Draft(payloads[0], identity), rejected, deadline)
            return [] if settled is None else [rejected]
        if not sending.wait(Deadline(AT_LEAST) if deadline.expired else deadline):
            raise self._room.too_late("the message is being stored, and it is not known whether it will be", identity)
        return sending.receipts

    def _begin_storing(self, payloads: Sequence[bytes], identity: bytes | None,
                       lines_up: bool = False) -> StoredSending | None:
        assert self.storing is not None
        if self._life.over:  # see `_send`
            self._life.check_open()
        with self.route:
            if self._life.over:
                self._life.check_open()
            return self.storing.begin(payloads, identity, lines_up=lines_up)

    @property
    def unacked(self) -> int:
        """How many messages are neither acknowledged nor given up on."""
        return len(self.ledger.outstanding) if self.router.stored is None else self.router.stored.count

    def follow(self, receipt: Receipt, tell: Callable[[bool], None]) -> None:
        """Have ``tell(acknowledged)`` called, once, when it is decided what becomes of the message, perhaps at once,
        and perhaps under the lock: it may take none. From any thread."""
        with self.route:
            if receipt.message_id in self.ledger.outstanding:
                self.ledger.followers[receipt.message_id] = tell
                return
        tell(not receipt.failed)

    def begin_following(self, who: object) -> None:
        """Acknowledgements are waited for, by no thread: see `Expecting`. From any thread, as the end of it, and both
        may be repeated."""
        self._expecting.followers.add(who)
        self._expecting.read_on()

    def end_following(self, who: object) -> None:
        self._expecting.followers.discard(who)

    def _send_newest(self, data: bytes, identity: bytes | None) -> None:
        """In the place of what waits; it need never wait for room."""
        dropped: list[Drop] = []
        try:
            if self._life.over:  # see `_send`
                self._life.check_open()
            with self.route:
                if self._life.over:
                    self._life.check_open()
                _, message = self._message(data, identity, None, False)
                placed, lanes = place_newest(self.router, message, identity, self.ledger.new_id(), dropped)
        finally:
            self._tell_conflated(dropped)
        self._told_of(placed, lanes, identity)

    def _tell_conflated(self, dropped: list[Drop]) -> None:
        while True:  # not "while dropped": see `netmsg.streams.turns.Turn`
            if not dropped:
                break
            self.dropped(CONFLATED, 1, dropped[0][1], dropped)

    def _conflate(self, lanes: Iterable[Lane]) -> None:
        """Messages have come together in these queues."""
        if self.conflates:
            dropped: list[Drop] = []
            with self.route:
                conflate(self.router, lanes, dropped)
            self._tell_conflated(dropped)

    def answer(self, identity: bytes, correlation_id: bytes, data: bytes, *, fails: bool,
               timeout: float | None) -> None:
        """Send the reply to a request, or why there is none, at most once. Raises the same."""
        send = self._squeeze if self._drops_oldest else self._send
        send(data, identity, timeout, answers=correlation_id, fails=fails)

    def has_room_for_answer(self, identity: bytes) -> bool:
        """Whether a reply to that peer would find room now, if it is there; or is to be tried, for who has none may
        have to be disconnected."""
        lane = self.find(identity)
        return (lane is None or self.router.has_room(lane, once=True)
                or self._settings.on_full is OnFull.DISCONNECT)

    def wait_for_room_for_answers(self, identities: Collection[bytes], ready: Callable[[], object],
                                  deadline: Deadline) -> None:
        """See `netmsg.messaging.answering.RoomForReplies`, as what is said of the next three."""
        self._room.wait_for_answers(identities, ready, deadline)

    def listen(self, tell: Callable[[], None]) -> None:
        """See `Room.listen`, as what is said of the next one."""
        self._room.listen(tell)

    def unlisten(self, tell: Callable[[], None]) -> None:
        self._room.unlisten(tell)

    def taken_by(self, identity: bytes) -> int:
        lane = self.find(identity)
        return 0 if lane is None else self.taken(lane)

    def taken(self, lane: Lane) -> int:
        """How many bytes its peer's computer has taken: the kernel here takes in large steps, some seconds apart where
        the peer is slow, and lets it go in small ones. A system call."""
        return lane.taken_bytes - self._io.machine.unacknowledged(lane.owner.sock)

    def look_again(self) -> None:
        self._room.wake_all()

    def no_room_for_answer(self, identity: bytes) -> None:
        self.dropped(NO_ROOM_FOR_REPLY, 1, identity)

    def _squeeze(self, data: bytes, identity: bytes | None, timeout: float | Deadline | None,
                 **answer: Any) -> Receipt | None:
        """Where the oldest one is dropped without letting go of the lock."""
        dropped: list[Drop] = []
        try:
            return self._send(data, identity, timeout, dropped, **answer)
        finally:
            if dropped:
                try:
                    self._overflow.tell(dropped)
                except BaseException:
                    self._overflow.tell(dropped)  # the rest of them
                    raise

    def _send(self, data: bytes, identity: bytes | None, timeout: float | Deadline | None,
              dropped: list[Drop] | None = None, answers: bytes | None = None, fails: bool = False) -> Receipt | None:
        """``dropped`` is a list where the oldest one is dropped; it is noted there. See `Draft`."""
        deadline = None
        while True:
            if self._life.over:  # before the lock, which in a forked child may be held for ever
                self._life.check_open()
            with self.route:
                if self._life.over:
                    self._life.check_open()
                receipt, message = self._message(data, identity, answers, fails)
                placed, lanes = self.router.place(message, identity)
                if placed is not Placed.FULL:
                    if receipt is not None:
                        self.ledger.outstanding[receipt.message_id] = receipt
                    if placed is Placed.WAITING:
                        self.fast_ring = ()
                    break
                if dropped is not None:
                    lanes = squeeze_in(self.router, message, identity, dropped).lanes
                    break
            if deadline is None:
                deadline = timeout if isinstance(timeout, Deadline) else Deadline(timeout)
            settled = self._overflow.cope(Draft(data, identity, answers, fails), receipt, deadline)
            if settled is not None:
                receipt, lanes = settled
                break
        self._told_of(placed, lanes, identity)
        return receipt

    def _told_of(self, placed: Placed, lanes: Iterable[Lane], identity: bytes | None) -> None:
        """A message has been placed, or there was nobody for it."""
        if placed is Placed.ABSENT:
            self.dropped(NO_PEER if identity is None else "peer not connected", 1, identity)
        elif identity is None and self._settings.send_mode is SendMode.PUBLISH and not self.router.topics:
            if lanes:
                self._dispatch.kick_all()
        else:
            for lane in lanes:
                self.kick(lane.owner)

    def message(self, draft: Draft) -> tuple[Receipt | None, Queued]:
        """As it is queued. Under ``route``."""
        return self._message(*draft)

    def _message(self, data: bytes, identity: bytes | None, answers: bytes | None,
                 fails: bool) -> tuple[Receipt | None, Queued]:
        router = self.router
        if answers is not None:
            return None, (failure_frame(answers, data, identity) if fails else
                          reply_frame(answers, data, router.large, identity))
        if self.reliable:
            receipt = Receipt(self._acks, self.ledger.new_id())
            return receipt, reliable_frame(receipt.message_id, data, router.large, identity)
        kind = router.bare if identity is None else Kind.ADDRESSED
        return None, data_frame(data, router.large, kind, identity)

    def _refresh(self) -> None:
        """Say anew whether messages may be dealt without the lock. Under ``route``."""
        router = self.router
        if (self.reliable or self.conflates or self._settings.send_mode is SendMode.PUBLISH or router.waiting
                or self._life.closing or self._life.forked):
            self.fast_ring = ()
        else:
            self.fast_ring = tuple(lane.owner for lane in router.ring)
            if self._life.over:  # meanwhile: closing takes no lock
                self.fast_ring = ()

    def disconnect(self, lanes: list[Lane], deadline: Deadline) -> bool:
        """Close these connections, and wait until they are; false if there was no time for that."""
        for lane in lanes:
            self._io.call(lane.owner.close, "it did not keep up", None)
        return self._connections.changed.wait(lambda: self._life.closing or all(lane.dead for lane in lanes), deadline)

    def dropped(self, reason: str, count: int, identity: bytes | None, listed: list[Drop] | None = None) -> None:
        """Count so many messages as lost, take them off the front of a list, and tell."""
        self._losses.drop(reason, count)
        if listed:
            del listed[:count]
        self._events.add(Dropped(None, identity, reason, count=count))

    def close_file(self) -> None:
        """If there is one: write what is to be written, and let go of the file. Returns at once."""
        if self.storing is not None:
            self.storing.close()

    def join_file(self, timeout: float) -> None:
        """Wait for that, so many seconds."""
        if self.storing is not None:
            self.storing.join(timeout)

    def wake_all(self) -> None:
        """Peers have come or gone, or the Søcket closes: whoever waits has to look again. Takes no lock."""
        self._room.wake_all()
        self._acks.wake_all()
        self._requests.look_again()
        if self._life.over:
            self._requests.wake_all()

    def routed_again(self, requests: Iterable[Queued]) -> None:
        """They have not been sent, and those who have asked give them to others."""
        with self.route:
            self._requests.returned(requests)

    # The network thread: peers that come and go

    def join(self, peer: Peer) -> None:
        """A peer has been let in."""
        peer.lane.window = self._window(UNKNOWN_WINDOW)
        with self.route:
            self.router.join(peer.lane)
            lanes, hopeless = self._acks.welcome(peer.lane)
            if self.storing is not None:
                self.storing.look_for(peer.identity)
            self._refresh()
        self._acks.tell_given_up(peer, hopeless)
        self._work_for(lanes)
        self._conflate([peer.lane])

    def leave(self, peer: Peer) -> None:
        """A peer has gone: what it was not sent goes to the others, or waits; so does what it was sent and has not
        acknowledged, which counts as sent again."""
        with self.route:
            self.fast_ring = ()  # what is sent from here on goes behind what is given back
            hopeless = self._acks.count_resends(peer.lane) if self.reliable else []
            self.ledger.taken_back(peer.lane.unacked)
            peer.lane.finishing = False
            departure = self.router.leave(peer.lane)
            self._requests.returned(departure.requests)
            if self.storing is not None:
                self.storing.left(peer.identity)
            self._refresh()
        self._departed(departure, peer.lane)
        self._acks.tell_given_up(peer, hopeless)

    def ended(self, peer: Peer) -> None:
        """Behind `leave`: all that had come by its connection is read."""
        with self.route:
            self._requests.lost(peer.lane)

    def succeed(self, old: Peer, new: Peer, *, finish: bool, same: bool) -> None:
        """Another connection to the same peer is to take the place of ``old``; see `Router.succeed`. What the old one
        was sent, and has not acknowledged, goes out again; where it does not ``finish``, that counts as sent again. If
        it is still the ``same`` that it was, it can answer what it was asked by the old one."""
        new.lane.window = self._window(UNKNOWN_WINDOW)
        with self.route:
            self.fast_ring = ()
            hopeless = self._acks.count_resends(old.lane) if self.reliable and not finish else []
            self.ledger.taken_back(old.lane.unacked)
            self._requests.returned(self.router.succeed(old.lane, new.lane, finish=finish))
            if same:
                self._requests.moved(old.lane, new.lane)
            lanes, in_vain = self._acks.welcome(new.lane) if self.reliable and not finish else ([], [])
            self._refresh()
        self._work_for(lanes)
        self._conflate([new.lane])
        self._acks.tell_given_up(old, [*hopeless, *in_vain])

    def bring(self, endpoint: object, peer: Peer) -> None:
        """An endpoint has turned out to lead to a peer that is there by another way."""
        with self.route:
            ready = self.router.bring(peer.lane, endpoint)
        self._departed(Departure([], ready), peer.lane)

    def quiesce(self) -> None:
        """Once this has returned, what is sent the long way is placed, or will be refused: the Søcket closes."""
        with self.route:
            self.fast_ring = ()

    def send_past_marks(self, replies: Iterable[Draft]) -> None:
        """These have been given before the Søcket closed, and stood in line since."""
        for reply in replies:
            assert reply.identity is not None
            with self.route:
                lane = self.router.find(reply.identity)
                if lane is not None:
                    lane.give(self.message(reply)[1])
            self._told_of(Placed.ABSENT if lane is None else Placed.QUEUED, filter(None, (lane,)), reply.identity)

    def take_all(self, peers: Iterable[Peer]) -> int:
        """The end: give up all that has not been sent, or not been acknowledged, and say how many messages it is. What
        is in the outbox stays there."""
        with self.route:
            left = self.router.take_all()
            for peer in peers:
                lane = peer.lane
                lane.finishing = False
                left += self.router.take_back(lane)[0]
            given_up = len(left)
            if self.storing is not None:
                self.storing.keep_all()
                given_up = sum(map(self._is_not_stored, left))
            self.ledger.give_up_all("unacknowledged when the Søcket was closed")
        if given_up:
            self.dropped("given up at close", given_up, None)
        self._acks.wake_all()
        return given_up

    def _is_not_stored(self, message: Queued) -> bool:
        return self.router.kind_of(message) is not Kind.RELIABLE

    def give_back(self, lane: Lane) -> None:
        """It was appended to the queue of a peer that is gone. From any thread; done where no interrupt can come, which
        would lose what is on its way from one place to another."""
        aside(lambda: self._give_back(lane))

    def _give_back(self, lane: Lane) -> None:
        with self.route:
            self.fast_ring = ()  # what is sent from here on goes behind what is given back
            departure = self.router.give_back(lane)
            self._requests.returned(departure.requests)
            late = len(self.router.take_all()) if self._life.closed else 0
            self._refresh()
        self._departed(departure, lane)
        if late:
            self.dropped("given up at close", late, None)

    def _departed(self, departure: Departure, lane: Lane) -> None:
        self._conflate(departure.ready)
        if departure.dead:
            self.dropped("peer gone", len(departure.dead), lane.identity)
        self._work_for(departure.ready)

    def _work_for(self, lanes: Iterable[Lane]) -> None:
        peers = dict.fromkeys(lane.owner for lane in lanes)
        if peers:
            self._io.work.update(peers)
            self._io.wake()  # once: it is a system call

    def _window(self, announced: int) -> int:
        settings = self._settings
        bound = min(announced, settings.send_hwm)
        return max(1, bound if settings.max_unacked is None else min(bound, settings.max_unacked))

    def capable(self, peer: Peer, capabilities: Capabilities) -> None:
        """A netmsg peer has told about itself."""
        again, peer.announced = peer.announced, True
        peer.announced_interval = capabilities.heartbeat_interval
        peer.liveness.announced(capabilities.heartbeat_interval)
        with self.route:
            peer.lane.features = capabilities.features
            if peer.lane.window:  # or it has been said goodbye to
                peer.lane.window = self._window(capabilities.window)
            lanes, hopeless = self._acks.fill(peer.lane) if self.reliable else ([], [])
        self._acks.tell_given_up(peer, hopeless)
        self._work_for(lanes)
        self._requests.look_again()
        if Features.SUBSCRIPTIONS in capabilities.features and not again:
            self.subscriptions.tell_all(peer)

    # The network thread: what comes back

    def acknowledged(self, peer: Peer, message_ids: list[bytes]) -> None:
        """ACKs have been received."""
        with self.route:
            # What was sent by a connection that another one has taken over from is expected by that.
            lane = (self.router.find(peer.identity) if peer.retired else None) or peer.lane
            lanes, hopeless = self._acks.acknowledged(lane, message_ids)
        if hopeless:
            self._acks.tell_given_up(peer, hopeless)
        if lanes:
            self._work_for(lanes)
        self._acks.wake_all()
        if self._room.asked:
            self._room.made(peer)

    def handed_back(self, peer: Peer, message_ids: list[bytes]) -> None:
        """NACKs have been received."""
        with self.route:
            lane = (self.router.find(peer.identity) if peer.retired else None) or peer.lane
            lanes, hopeless = self._acks.handed_back(lane, message_ids)
        self._acks.tell_given_up(peer, hopeless)
        self._work_for([*lanes, *self.router.ring] if hopeless else lanes)
        if self._room.asked:
            self._room.made(peer)

    def subscribed(self, peer: Peer, prefixes: list[bytes]) -> None:
        """See `Outlet`."""
        with self.route:
            if not self.router.subscribe(peer.lane, prefixes):
                raise RemoteProtocolError(f"more than {MOST_SUBSCRIPTIONS} subscriptions")
        self._room.wake_all()

    def unsubscribed(self, peer: Peer, prefixes: list[bytes]) -> None:
        """See `Outlet`."""
        with self.route:
            for prefix in prefixes:
                self.router.topics.unsubscribe(peer.lane, prefix)
        self._room.wake_all()

    def answered(self, peer: Peer, correlation_ids: list[bytes], replies: list[bytes]) -> None:
        """Replies have been received."""
        with self.route:
            unknown = self._requests.answered(peer.identity, correlation_ids, replies)
        self._nobody_waits_for(unknown, peer)

    def refused(self, peer: Peer, correlation_ids: list[bytes], reasons: list[bytes]) -> None:
        """It has been received why there are none."""
        with self.route:
            unknown = self._requests.failed(peer.identity, correlation_ids, reasons)
        self._nobody_waits_for(unknown, peer)

    def _nobody_waits_for(self, count: int, peer: Peer) -> None:
        if count:
            self.dropped("reply that nobody waits for", count, peer.identity)

    def flushed(self, peer: Peer) -> None:
        """A peer's queue has been written, as far as possible."""
        if self.router.waiting and not self.reliable:
            with self.route:
                lanes = self.router.distribute()
                self._refresh()
            self._work_for(lanes)
        if self._room.asked:
            self._room.made(peer)
        if peer.paused:
            peer.resume()

    def resend(self, peer: Peer, now: float) -> None:
        """Look at what it has not acknowledged for too long."""
        with self.route:
            lanes, hopeless = self._acks.send_due(peer.lane, now)
        self._acks.tell_given_up(peer, hopeless)
        if hopeless and self._room.asked:
            self._room.made(peer)
        self._work_for([*lanes, *self.router.ring] if hopeless else lanes)  # closing, it may be what all waited for
