"""The receiving half of a Søcket: from the frames that arrive to the inbox, and the acknowledgements back.

All of it belongs to the network thread, but for the two calls that the takers of the inbox make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..deadline import Deadline
from ..reactor.reactor import Reactor
from ..storage.committing import Written
from ..wire.messages import READ_SIZE
from . import exiting
from .accounts import Accounts
from .choices import AckMode
from .conversation import Conversation
from .deliveries import Delivery
from .delivery import Arrivals
from .inbox import Batch, Inbox, PairBatch, ReliableBatch, RequestBatch
from .lane import Lane
from .life import Life
from .losses import CONFLATED
from .remembering import Memory, Note, Remembering
from .settings import Settings
from .subscribing import Subscriptions

if TYPE_CHECKING:
    from .peers import Peer

__all__ = ["AnswerWay", "Receiver"]

ACK_DELAY: Final = 0.001
LONG_RUN: Final = 64
"""Messages that came at once."""


class AnswerWay(Protocol):
    """The sending half, as the receiving one needs it."""

    def find(self, identity: bytes) -> Lane | None:
        """The way to a peer that is connected."""

    def dropped(self, reason: str, count: int, identity: bytes | None) -> None:
        """Count messages as lost, and tell."""

    def answering(self) -> None:
        """Somebody has waited for what it gets now. From any thread."""

    def answer(self, identity: bytes, correlation_id: bytes, data: bytes, *, fails: bool,
               timeout: float | None) -> None:
        """Send the reply to a request, or why there is none. From any thread; may block, and raise what a send does."""


class Receiver:
    """What one Søcket receives."""

    def __init__(self, settings: Settings, life: Life, io: Reactor, accounts: Accounts, answers: AnswerWay,
                 subscriptions: Subscriptions, memory: Written[Memory, Sequence[bytes]] | None = None) -> None:
        """``memory`` is the file, if there is one, of what has been handed over, and who writes it."""
        self._life = life
        self._io = io
        self._steps = io.scope(life.crash)
        self._accounts = accounts
        self._answers = answers
        self.subscriptions = subscriptions
        self._ack_mode = settings.ack_mode
        self.manual = self.by_hand = self._ack_mode is AckMode.MANUAL
        """Whether messages that were sent at least once count until they are acknowledged: see `acknowledge_by_hand`.
        """
        self.conflates = settings.conflate
        self.max_message_size = settings.max_message_size
        # A long run came out of one read, so its messages are small. Where the mark in messages holds for so many small
        # ones before the mark in bytes does, they need not be weighed.
        self._weighs_all = self.manual or settings.recv_hwm * (READ_SIZE // LONG_RUN) > settings.recv_hwm_bytes
        self.inbox = Inbox(self._watch_batch, self._finish_batch)
        self.conversation = Conversation(io, self.inbox.waiters, answers.answering)
        self.inbox.special_ticket = self.conversation.ticket
        self.arrivals = Arrivals(settings.dedupe if memory is None else 0)
        self.remembering = None if memory is None else Remembering(*memory, life, self._steps)
        self.append_batch = self.inbox.append_batch
        self.appended = self.inbox.delivered
        self.count_taken = self.inbox.count_taken
        self.hold = self.inbox.hold
        self.let_go = self.inbox.let_go
        self.stop_lending = self.conversation.end

    # What arrives

    def arrived(self, peer: Peer, payloads: list[bytes]) -> None:
        """At-most-once messages have been received."""
        self.conversation.interrupt()
        if self._life.closing:
            return
        if self.subscriptions.any:
            payloads = [*filter(self.subscriptions.wants, payloads)]
        if self.conflates and payloads:
            payloads = self._only_newest(peer, payloads)
        if payloads:
            size = self._count(peer, payloads)
            batch = (PairBatch(peer.credit, zip(repeat(None), payloads), len(payloads), size) if self.manual else
                     Batch(peer.credit, payloads, len(payloads), size))
            self._deliver(batch)
            if self.conflates:
                peer.credit.newest = batch

    def _only_newest(self, peer: Peer, payloads: list[bytes]) -> list[bytes]:
        """What is left to be delivered of these, where the newest alone is kept: nothing if it could take the place of
        one that nobody has taken."""
        newest = payloads[-1]
        credit = peer.credit
        before, size = credit.newest, len(newest)
        old_size = before.large_bytes if isinstance(before, Batch) else 0
        replaced = isinstance(before, Batch) and self.inbox.replace(before, (None, newest) if self.manual else newest,
                                                                    size)
        if replaced:
            credit.arrived_bytes += size - old_size
        if len(payloads) - 1 + replaced:
            self._answers.dropped(CONFLATED, len(payloads) - 1 + replaced, peer.identity)
        return [] if replaced else [newest]

    def one_arrived(self, peer: Peer, payload: bytes) -> None:
        """A single small message has been received: the short way of `arrived`."""
        if self.manual or self.conflates or self.subscriptions.any or self._life.closing:
            self.arrived(peer, [payload])
            return
        size = len(payload)
        credit = peer.credit
        credit.arrived += 1
        credit.arrived_bytes += size
        inbox = self.inbox
        inbox.deliver(Batch(credit, (payload,), 1, size))
        if inbox.waiters.waiting:
            self._io.before_sleep(inbox.waiters.notify)
            self.conversation.overhear(peer)

    def requests_arrived(self, peer: Peer, correlation_ids: list[bytes], payloads: list[bytes]) -> None:
        """Requests have been received."""
        self.conversation.interrupt()
        if not self._life.closing:
            size = self._count(peer, payloads)
            self._deliver(RequestBatch(peer.credit, zip(correlation_ids, payloads), len(payloads), size))

    def reliable_arrived(self, peer: Peer, message_ids: list[bytes], payloads: list[bytes]) -> None:
        """At-least-once messages have been received."""
        if self._life.closing:
            return  # and not acknowledged, for nobody will take it
        if self.remembering is None:
            self._take_in(peer, message_ids, payloads)
            return
        size = self._count(peer, payloads)  # while it is looked for
        self.remembering.look_for(peer.identity, message_ids,
                                  partial(self._looked_for, peer, message_ids, payloads, size))

    def _looked_for(self, peer: Peer, message_ids: list[bytes], payloads: list[bytes], size: int,
                    known: frozenset[bytes]) -> None:
        """Those that are ``known`` were handed over before, perhaps by somebody who runs no more."""
        credit = peer.credit
        credit.arrived -= len(payloads)
        credit.arrived_bytes -= size
        if not self._life.closing:
            if known:
                self._send_acks(peer.identity, [message_id for message_id in message_ids if message_id in known])
                new = [(message_id, payload) for message_id, payload in zip(message_ids, payloads)
                       if message_id not in known]
                self.arrivals.duplicates += len(payloads) - len(new)
                message_ids, payloads = [message_id for message_id, _ in new], [payload for _, payload in new]
            self._take_in(peer, message_ids, payloads)
        if credit.waits:
            self._accounts.taken_from(credit)

    def _take_in(self, peer: Peer, message_ids: list[bytes], payloads: list[bytes]) -> None:
        found = self.arrivals.sort(peer.identity, message_ids, payloads)
        if found.again:
            self._send_acks(peer.identity, found.again)
        if not found.bodies:
            return
        mode, credit, payloads = self._ack_mode, peer.credit, found.bodies
        size = self._count(peer, payloads)
        if mode is AckMode.ON_RECV:
            self._deliver(ReliableBatch(credit, payloads, found.message_ids, size))
        elif mode is AckMode.MANUAL:
            # They count until they are acknowledged, and not until they are taken: see `_settle`.
            self._deliver(PairBatch(credit, zip(found.message_ids, payloads)))
        else:
            self._deliver(Batch(credit, payloads, len(payloads), size))
            self._acknowledge(peer.identity, found.message_ids)

    def _count(self, peer: Peer, payloads: list[bytes]) -> int:
        """These count against the marks of their sender from now on: with how many bytes."""
        count = len(payloads)
        size = sum(map(len, payloads)) if count < LONG_RUN or self._weighs_all else 0
        credit = peer.credit
        credit.arrived += count
        credit.arrived_bytes += size
        return size

    def _deliver(self, batch: Batch) -> None:
        inbox = self.inbox
        inbox.deliver(batch)
        if inbox.waiters.waiting:
            self._io.before_sleep(inbox.waiters.notify)

    # What is taken

    def _finish_batch(self, batch: Batch) -> None:
        """All of a batch has been taken. By the taker, who may be interrupted and say it twice."""
        if isinstance(batch, ReliableBatch) and batch.acknowledged < len(batch.message_ids):
            self._steps.call(self._look_at_batch, batch)
        credit = batch.credit
        if credit.waits:
            self._steps.call(self._accounts.taken_from, credit)

    def _watch_batch(self, batch: ReliableBatch) -> None:
        """Somebody begins to take from a batch that is to be acknowledged. By the taker."""
        self._steps.call(self._look_at_batch, batch)

    def _look_at_batch(self, batch: ReliableBatch) -> None:
        """Acknowledge what has been taken, and look again soon for as long as more is."""
        taken = batch.taken_ids()
        if taken:
            self._acknowledge(batch.identity, taken)
        if batch.queue and not batch.ticking:
            batch.ticking = True
            self._steps.call_later(ACK_DELAY, self._look_at_batch_again, batch)

    def _look_at_batch_again(self, batch: ReliableBatch) -> None:
        taken = batch.taken_ids()
        if not taken:
            self.inbox.unwatch(batch)
            batch.ticking = False
            taken = batch.taken_ids()
        if taken:
            self._acknowledge(batch.identity, taken)
        if batch.ticking and batch.queue:
            self._steps.call_later(ACK_DELAY, self._look_at_batch_again, batch)
        else:
            batch.ticking = False

    def _acknowledge(self, sender: bytes, message_ids: list[bytes]) -> None:
        if self.remembering is None:
            self._release(sender, message_ids)
        else:
            self.remembering.note(sender, message_ids, partial(self._release, sender, message_ids))

    def _release(self, sender: bytes, message_ids: list[bytes]) -> None:
        released = self.arrivals.acknowledge(sender, message_ids)
        if released:
            self._send_acks(sender, released)

    def _send_acks(self, sender: bytes, message_ids: list[bytes]) -> None:
        """On the newest connection under that identity; if there is none, the resend will ask again."""
        lane = self._answers.find(sender)
        if lane is not None:
            lane.owner.acknowledge(message_ids)

    def take_delivery(self, deadline: Deadline) -> Delivery | None:
        """The next message; ``None`` once closed. Raises ``TimeoutError``. For any thread."""
        return self.inbox.take_as(self._delivery, deadline)

    def _delivery(self, batch: Batch, message: Any) -> Delivery:
        if batch.bare:
            return Delivery(self, batch, message, None)
        its_id, data = message
        if isinstance(batch, RequestBatch):
            return Delivery(self, batch, data, None, its_id)
        return Delivery(self, batch, data, its_id)

    def acknowledge_by_hand(self) -> None:
        """Whatever is taken from here on is acknowledged by its taker alone, whatever the acknowledge mode. From any
        thread."""
        if self._ack_mode is AckMode.ON_ARRIVAL:
            self._ack_mode = AckMode.ON_RECV
        self._weighs_all = self.by_hand = True
        self.inbox.take_by_hand()

    def settle(self, delivery: Delivery, accept: bool) -> None:
        """See `Delivery`. From any thread."""
        exiting.check_open(self._life)
        if self.remembering is None or not accept or delivery._message_id is None:
            self.settle_soon(delivery, accept)
            return
        note = Note()
        self._steps.call(self._settle_by_note, delivery, note)
        self.remembering.wait(note)

    def settle_soon(self, delivery: Delivery, accept: bool) -> None:
        """The same, while closing too. Takes no lock, and does not raise."""
        if delivery._message_id is not None and not delivery._settled:
            self._steps.call(self._settle, delivery, accept)

    def answer(self, delivery: Delivery, data: bytes, *, fails: bool, timeout: float | None) -> None:
        """See `Delivery`. From any thread."""
        assert delivery._correlation_id is not None
        exiting.check_open(self._life)
        self._answers.answer(delivery.identity, delivery._correlation_id, data, fails=fails, timeout=timeout)

    def _settle(self, delivery: Delivery, accept: bool) -> None:
        """A manual acknowledgement, or a refusal; the first that is said of a delivery counts."""
        message_id = delivery._message_id
        if delivery._settled or message_id is None:
            return
        delivery._settled = True
        if accept and self.remembering is not None:
            self.remembering.note(delivery.identity, [message_id], partial(self._noted, delivery))
            return
        if accept:
            self._release(delivery.identity, [message_id])
        elif self.arrivals.refuse(delivery.identity, message_id):
            lane = self._answers.find(delivery.identity)
            if lane is not None:
                lane.owner.refuse(message_id)
        self._count_settled(delivery)

    def _settle_by_note(self, delivery: Delivery, note: Note) -> None:
        """The same, of an acknowledgement that a thread waits to be noted: if that fails, it may be tried again."""
        assert self.remembering is not None and delivery._message_id is not None
        if delivery._settled:
            self.remembering.follow(note, delivery._note)
            return
        delivery._settled = True
        delivery._note = note
        self.remembering.note_by_hand(delivery.identity, delivery._message_id, note, partial(self._noted, delivery),
                                      partial(setattr, delivery, "_settled", False))

    def _noted(self, delivery: Delivery) -> None:
        assert delivery._message_id is not None
        self._release(delivery.identity, [delivery._message_id])
        self._count_settled(delivery)

    def _count_settled(self, delivery: Delivery) -> None:
        credit = delivery._credit
        credit.arrived -= 1
        credit.arrived_bytes -= len(delivery.data)
        if credit.waits:
            self._accounts.taken_from(credit)

    def acknowledge_taken(self) -> None:
        """At the end: what has been taken is acknowledged, and the rest discarded."""
        for batch in self.inbox.release():
            taken = batch.taken_ids()
            if taken:
                self._acknowledge(batch.identity, taken)

    # The file of what has been handed over, if there is one

    def when_noted(self, tell: Callable[[], None]) -> None:
        """Have ``tell()`` called, once the Søcket closes, when all is noted and acknowledged that is to be."""
        if self.remembering is not None:
            self.remembering.when_idle = tell

    @property
    def is_noting(self) -> bool:
        """Whether something is to be acknowledged that is still being noted."""
        return self.remembering is not None and self.remembering.is_noting

    def close_file(self) -> None:
        """Write what there is, and let go of the file; returns at once."""
        if self.remembering is not None:
            self.remembering.close()

    def join_file(self, timeout: float) -> None:
        """Wait for that, so many seconds."""
        if self.remembering is not None:
            self.remembering.join(timeout)
