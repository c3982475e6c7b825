"""What becomes of a message for which there is no room: the policies of `OnFull`, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from itertools import filterfalse
from typing import Any, Final, NamedTuple, Protocol

from ..aside import aside
from ..deadline import Deadline
from ..errors import QueueFullError, SendTimeoutError
from ..wire.messages import Kind, Message, Queued, message_id_of
from .acknowledgements import Acknowledgements
from .choices import OnFull, SendMode
from .drafts import Draft
from .lane import Lane
from .life import Life
from .receipts import Receipt
from .room import QUEUE_IS_FULL, Room
from .routing import Placed, Router
from .settings import Settings
from .squeezing import Drop, squeeze_in

__all__ = ["Overflow", "Sending", "Settled"]

QUEUE_WAS_FULL: Final = "the send queue was full"
STUCK_LOOK: Final = 0.25
"""Seconds between two looks at whether a full peer takes anything, where `OnFull.DISCONNECT` asks."""
STUCK_MARGIN: Final = 1.0
"""Seconds, over the interval of heartbeats, in which one that keeps up takes something."""


class Settled(NamedTuple):
    """A message that need not be tried again."""

    receipt: Receipt | None
    lanes: Iterable[Lane]
    """Lanes that have got something to send."""


class Sending(Protocol):
    """What a policy asks of those for whom it decides."""

    def message(self, draft: Draft) -> tuple[Receipt | None, Queued]:
        """As it is queued. Under the lock."""

    def dropped(self, reason: str, count: int, identity: bytes | None, listed: list[Drop] | None = None) -> None:
        """Count so many messages as lost, take them off the front of a list, and tell."""

    def taken(self, lane: Lane) -> int:
        """How many bytes its peer's computer has taken. A system call."""

    def routed_again(self, requests: Iterable[Queued]) -> None:
        """These will not be sent where they were: those who have asked give them to others."""

    def disconnect(self, lanes: list[Lane], deadline: Deadline) -> bool:
        """Close these connections, and wait until they are; false if there was no time for that."""


class Overflow:
    """Asked by any thread whose message has found no room. ``route`` guards the router."""

    def __init__(self, settings: Settings, life: Life, route: AbstractContextManager[Any], router: Router, room: Room,
                 acks: Acknowledgements, sending: Sending, now: Callable[[], float]) -> None:
        self._policy = settings.on_full
        self._patience = (settings.heartbeat_interval + STUCK_MARGIN
                          + (settings.resend_after if settings.reliable else 0.0))
        self._life = life
        self._route = route
        self._router = router
        self._room = room
        self._acks = acks
        self._sending = sending
        self._now = now

    def cope(self, draft: Draft, receipt: Receipt | None, deadline: Deadline) -> Settled | None:
        """Make room, wait for some (``None``: it is to be tried again), or settle the matter without."""
        policy = self._policy
        if policy is OnFull.DROP_OLDEST:
            return self._drop_oldest(draft)
        self._room.lacking(draft.identity)
        if policy is OnFull.RAISE:
            raise QueueFullError(QUEUE_IS_FULL)
        if policy is OnFull.DROP_NEWEST:
            return self._drop_newest(draft, receipt)
        if policy is OnFull.DISCONNECT:
            if self._is_published(draft.identity):
                return self._publish_or_disconnect(draft, deadline)
            return self._disconnect_or_drop(draft, receipt, deadline)
        self._room.wait(draft, deadline)
        return None

    def _is_published(self, identity: bytes | None) -> bool:
        return identity is None and self._router.mode is SendMode.PUBLISH and bool(self._router.ring)

    # Drop the oldest. At most once `Sender.send` does so at once, without letting go of the lock.

    def _drop_oldest(self, draft: Draft) -> Settled | None:
        """At least once a receipt has to be told, where no interrupt can come, which would have the oldest forgotten by
        the one and not by the other."""
        outcome: list[Settled] = []
        aside(lambda: self._squeeze_in(draft, outcome))
        return outcome[0] if outcome else None

    def _squeeze_in(self, draft: Draft, outcome: list[Settled]) -> None:
        """Nothing once the Søcket closes."""
        outstanding = self._acks.ledger.outstanding
        with self._route:
            if self._life.over:
                return
            receipt, message = self._sending.message(draft)
            assert receipt is not None
            placed, lanes = self._router.place(message, draft.identity)
            if placed is not Placed.FULL:
                outstanding[receipt.message_id] = receipt
                outcome.append(Settled(receipt, lanes))
                return
            dropped: list[Drop] = []
            squeezed = squeeze_in(self._router, message, draft.identity, dropped)
            if squeezed.refused:
                receipt._fail(QUEUE_WAS_FULL)
            else:
                outstanding[receipt.message_id] = receipt
                for gone, _ in dropped:
                    self._acks.ledger.give_up(message_id_of(gone), "dropped: the send queue was full")
            outcome.append(Settled(receipt, squeezed.lanes))
        self.tell(dropped)
        self._acks.wake_all()

    def tell(self, dropped: list[Drop]) -> None:
        """What has gone for the sake of what came, and take it out of the list. Whoever is interrupted calls this
        again: then none is left out."""
        self._room.lacking(None)
        while True:  # not "while dropped": see `netmsg.streams.turns.Turn`
            if not dropped:
                break
            message, whose = dropped[0]
            if isinstance(message, Message) and message.kind is Kind.REQUEST:
                self._sending.routed_again((message,))
                del dropped[0]
            else:
                self._sending.dropped("send queue full", 1, whose, dropped)

    # Drop the newest

    def _drop_newest(self, draft: Draft, receipt: Receipt | None) -> Settled | None:
        if receipt is not None:
            receipt._fail(QUEUE_WAS_FULL)
        elif self._is_published(draft.identity):
            return self._publish_to_others(draft)
        self._sending.dropped("send queue full", 1, draft.identity)
        return Settled(receipt, ())

    def _publish_to_others(self, draft: Draft) -> Settled | None:
        router = self._router
        with self._route:
            if not router.ring:
                return None  # they have gone meanwhile, and it is to wait for the next one
            message = self._sending.message(draft)[1]
            audience = router.audience(message)
            full = dict.fromkeys(router.full_lanes(audience=audience))
            others = [*filterfalse(full.__contains__, audience)]
            router.publish(message, others)
        for lane in full:
            self._sending.dropped("send queue full", 1, lane.identity)
        return Settled(None, others)

    # Disconnect

    def _publish_or_disconnect(self, draft: Draft, deadline: Deadline) -> Settled | None:
        """Disconnect those that do not keep up. Where there are only such as have not been sent yet what was kept for
        them, publish past the mark: they have had no chance to take it."""
        router = self._router
        with self._route:
            message = self._sending.message(draft)[1]
            audience = router.audience(message)
            behind = router.lanes_behind(audience)
            if router.ring and not behind:
                router.publish(message, audience)
                return Settled(None, audience)
        self._disconnect(behind, None, deadline)
        return None

    def _disconnect_or_drop(self, draft: Draft, receipt: Receipt | None, deadline: Deadline) -> Settled | None:
        """There may soon be room, for the others do keep up: then nobody has to go, and otherwise one who has taken
        nothing for too long."""
        with self._route:
            full = self._router.full_lanes(draft.identity, once=draft.is_answer)
        self._stuck(full)  # from now on
        if not full:
            if self._room.is_there(draft):  # since the message was refused
                return None
            return self._drop_newest(draft, receipt)
        try:
            self._room.wait(draft, deadline.sooner(STUCK_LOOK))
        except SendTimeoutError:
            stuck = self._stuck(full)
            if stuck:
                self._disconnect(stuck[:1], draft.identity, deadline)
            elif deadline.expired:
                raise
        return None

    def _stuck(self, lanes: list[Lane]) -> list[Lane]:
        """Those that have made no progress for too long since they were first seen to be full."""
        taken = [(lane, self._sending.taken(lane)) for lane in lanes]
        with self._route:
            return self._without_progress(taken)

    def _without_progress(self, taken: list[tuple[Lane, int]]) -> list[Lane]:
        now = self._now()
        stuck = []
        for lane, taken_bytes in taken:
            reliable = bool(lane.unacked)
            progress = lane.acknowledged if reliable else taken_bytes
            if progress != lane.progress:
                lane.progress, lane.progress_at = progress, now
            elif now - lane.progress_at >= self._patience and not lane.dead and (reliable or lane.owner.blocked):
                stuck.append(lane)
        return stuck

    def _disconnect(self, lanes: list[Lane], identity: bytes | None, deadline: Deadline) -> None:
        if not self._sending.disconnect(lanes, deadline):
            raise self._room.too_late("the send ran out of time", identity)
