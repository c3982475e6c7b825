"""The receiving half of a Søcket: from the frames that arrive to the inbox, and the acknowledgements back.

All of it belongs to the network thread, but for the two calls that the takers of the inbox make.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..wire.envelope import ack_frames
from ..wire.framing import READ_SIZE
from .delivery import AckMode, Arrivals
from .conversation import Conversation
from .credit import Credit
from .inbox import Batch, Inbox, RequestBatch

if TYPE_CHECKING:
    from .engine import Engine
    from .peers import Peer
    from .smart_socket import Delivery

__all__ = ["Receiver"]

ACK_DELAY: Final = 0.001
MOST_MARKS: Final = 10
LONG_RUN: Final = 64
"""Messages that came at once."""


class Receiver:
    """What one Søcket receives."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.io = engine.io
        self._ack_mode = engine.settings.ack_mode
        self.manual = self._ack_mode is AckMode.MANUAL
        # A long run came out of one read, so its messages are small. Where the mark in messages holds for so many small
        # ones before the mark in bytes does, they need not be weighed.
        settings = engine.settings
        self._weighs_all = self.manual or settings.recv_hwm * (READ_SIZE // LONG_RUN) > settings.recv_hwm_bytes
        self.inbox = Inbox(self._watch_batch, self._finish_batch, manual=self.manual)
        self.conversation = Conversation(self, self.inbox.waiters)
        self.inbox.special_ticket = self.conversation.ticket
        self.arrivals = Arrivals(engine.settings.dedupe)
        self._accounts: dict[bytes, _Account] = {}
        self._orphans: dict[bytes, Pending] = {}
        """What those have pending that have gone."""
        self._orphaned = Pending(0, 0)
        """All of them together."""
        self.is_flooded = False
        """Whether that is so much that nobody new is let in."""

    # Marks

    def open_account(self, peer: Peer) -> Credit:
        """The credit of an identity that has connected."""
        account = self._accounts.get(peer.identity)
        if account is None:
            settings = self._engine.settings
            account = _Account(Credit(peer.identity, settings.recv_hwm, settings.recv_hwm_bytes), [])
            self._accounts[peer.identity] = account
        account.peers.append(peer)
        self._note_orphan(account)
        return account.credit

    def connections_of(self, identity: bytes) -> int:
        """How many an identity has, those included that are only read to their end."""
        account = self._accounts.get(identity)
        return 0 if account is None else len(account.peers)

    def leave_account(self, peer: Peer) -> None:
        """The connection has gone; what it brought and nobody took still counts."""
        account = self._accounts.get(peer.identity)
        if account is not None and peer in account.peers:
            account.peers.remove(peer)
            account.credit.waits = True
            self._taken_from(account.credit)

    def _taken_from(self, credit: Credit) -> None:
        """Messages of an identity have been taken that somebody waits for."""
        account = self._accounts.get(credit.identity)
        if account is None:
            return
        for peer in tuple(account.peers):
            if peer.paused:
                peer.resume_safely()  # which may be its end, and bring us here again
        if not account.peers and credit.pending <= 0:
            self._accounts.pop(credit.identity, None)
        credit.waits = not account.peers or any(peer.paused for peer in account.peers)
        self._note_orphan(account)

    def _note_orphan(self, account: _Account) -> None:
        """Those who come, leave something, and go, each under another name, may together have so many times the marks
        here; then newcomers wait outside until some of it is taken."""
        credit = account.credit
        before = self._orphans.pop(credit.identity, NOTHING_PENDING)
        now = NOTHING_PENDING
        if not account.peers and credit.pending > 0:
            now = self._orphans[credit.identity] = Pending(credit.pending, credit.pending_bytes)
        messages, size = (total - old + new for total, old, new in zip(self._orphaned, before, now))
        self._orphaned = Pending(messages, size)
        flooded = messages >= MOST_MARKS * credit.hwm or size >= MOST_MARKS * credit.hwm_bytes
        if flooded != self.is_flooded:
            self.is_flooded = flooded
            self._engine.regulate_accepting()

    # What arrives

    def arrived(self, peer: Peer, payloads: list[bytes]) -> None:
        """DATA has been received."""
        self.conversation.interrupt()
        if not self._engine.closing:
            self._deliver(peer, zip(repeat(None), payloads) if self.manual else payloads, payloads, None)

    def one_arrived(self, peer: Peer, payload: bytes) -> None:
        """A single small DATA message has been received: the short way of `arrived`."""
        if self.manual or self._engine.closing:
            self.arrived(peer, [payload])
            return
        size = len(payload)
        credit = peer.credit
        credit.arrived += 1
        credit.arrived_bytes += size
        inbox = self.inbox
        inbox.deliver(Batch(credit, (payload,), 1, size))
        if inbox.waiters.waiting:
            self.io.notices.append(inbox.waiters.notify)
            self.conversation.overhear(peer)

    def requests_arrived(self, peer: Peer, message_ids: list[bytes], payloads: list[bytes]) -> None:
        """DATA_REQ has been received."""
        if self._engine.closing:
            return  # and not acknowledged, for nobody will take it
        found = self.arrivals.sort(peer.identity, message_ids, payloads)
        if found.again:
            self._send_acks(peer.identity, found.again)
        if not found.bodies:
            return
        mode = self._ack_mode
        if mode is AckMode.ON_RECV:
            self._deliver(peer, found.bodies, found.bodies, found.message_ids)
        elif mode is AckMode.MANUAL:
            # They count until they are acknowledged: see `settle_delivery`.
            self._deliver(peer, zip(found.message_ids, found.bodies), found.bodies, None, until_taken=False)
        else:
            self._deliver(peer, found.bodies, found.bodies, None)
            self._acknowledge(peer.identity, found.message_ids)

    def _deliver(self, peer: Peer, messages: Iterable[Any], payloads: list[bytes], message_ids: list[bytes] | None, *,
                 until_taken: bool = True) -> None:
        count = len(payloads)
        size = sum(map(len, payloads)) if count < LONG_RUN or self._weighs_all else 0
        credit = peer.credit
        credit.arrived += count
        credit.arrived_bytes += size
        inbox = self.inbox
        if message_ids is not None:
            inbox.deliver(RequestBatch(credit, payloads, message_ids, size))
        elif until_taken:
            inbox.deliver(Batch(credit, messages, count, size))
        else:
            inbox.deliver(Batch(credit, messages))
        if inbox.waiters.waiting:
            self.io.notices.append(inbox.waiters.notify)

    # What is taken

    def _finish_batch(self, batch: Batch) -> None:
        """All of a batch has been taken. By the taker, who may be interrupted and say it twice."""
        if isinstance(batch, RequestBatch):
            self.io.call(self._look_at_batch, batch)
        credit = batch.credit
        if credit is not None and credit.waits:
            self.io.call(self._taken_from, credit)

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
        released = self.arrivals.acknowledge(sender, message_ids)
        if released:
            self._send_acks(sender, released)

    def _send_acks(self, sender: bytes, message_ids: list[bytes]) -> None:
        """On the newest connection under that identity; if there is none, the resend will ask again."""
        lane = self._engine.sender.router.find(sender)
        if lane is not None:
            lane.add_control(ack_frames(message_ids))
            self.io.work.add(lane.owner)

    def settle_delivery(self, delivery: Delivery, accept: bool) -> None:
        """A manual acknowledgement, or a refusal; the first that is said of a delivery counts."""
        message_id = delivery._message_id
        if delivery._settled or message_id is None:
            return
        delivery._settled = True
        if accept:
            self._acknowledge(delivery.identity, [message_id])
        else:
            self.arrivals.refuse(delivery.identity, message_id)
        credit = delivery._credit
        if credit is not None:
            credit.arrived -= 1
            credit.arrived_bytes -= len(delivery.data)
            if credit.waits:
                self._taken_from(credit)

    def acknowledge_taken(self) -> None:
        """At the end: what has been taken is acknowledged, and the rest discarded."""
        for batch in self.inbox.release():
            taken = batch.taken_ids()
            if taken:
                self._acknowledge(batch.identity, taken)

    def answering(self) -> None:
        """The taker has waited for what it gets now: what it sends next is no burst. By the taker."""
        self._engine.sender.last_send = 0.0

    def _crashed(self, error: Exception) -> None:
        """A step on the network thread failed."""
        self._engine._crashed(error)


class Pending(NamedTuple):
    """What nobody has taken yet."""

    messages: int
    bytes: int


NOTHING_PENDING: Final = Pending(0, 0)


class _Account(NamedTuple):
    """The credit of one identity and its connections: one, but for a change of connection, or none any more."""

    credit: Credit
    peers: list[Peer]
