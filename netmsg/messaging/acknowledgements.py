"""At least once, on the sending side: receipts and those who wait for them, what is sent again, what is given up on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ..deadline import Deadline
from ..reactor.reactor import Reactor
from ..waiting import Waiters
from ..wire.messages import Message, message_id_of
from . import exiting
from .delivery import Ledger
from .events import EventQueue, Undelivered
from .expecting import Expecting
from .lane import Lane
from .life import Life
from .losses import Losses
from .receipts import Receipt
from .routing import Router
from .settings import Settings
from .storing import Storing

if TYPE_CHECKING:
    from .peers import Peer

__all__ = ["Acknowledgements"]


class Acknowledgements:
    """Those that are still to come. The `ledger` is guarded by the lock of the router, as what is marked so."""

    def __init__(self, settings: Settings, life: Life, io: Reactor, events: EventQueue, losses: Losses,
                 router: Router, expecting: Expecting, trouble: Callable[[], str],
                 storing: Storing | None = None) -> None:
        self.ledger: Ledger[Receipt] = Ledger(io.machine.token(8), settings.resend_after, settings.max_resends,
                                              io.machine.chance, None if storing is None else storing.receipts)
        self.trouble = trouble
        """What is wrong with the endpoints, for the text of an error."""
        self._life = life
        self._clock = io.clock
        self._events = events
        self._losses = losses
        self._router = router
        self._expecting = expecting
        self._storing = storing
        self._in_vain = f"not acknowledged after {settings.max_resends} resends"
        self._waiters = Waiters()
        self._looked_at = -1.0  # when it was last looked whose time has come of what nobody wanted

    # Waiting for them

    def is_outstanding(self, message_id: bytes) -> bool:
        """Whether a message is neither acknowledged nor given up on."""
        return message_id in self.ledger.outstanding

    def wait_for_receipt(self, receipt: Receipt, deadline: Deadline) -> bool:
        """Wait until the message is acknowledged or given up on; false at the deadline."""
        self._life.check_process()
        if receipt._settled:
            return True
        try:
            self._expecting.acknowledgements += 1
            self._expecting.read_on()
            settled = self._waiters.wait(lambda: receipt._settled, deadline)
        finally:
            self._expecting.acknowledgements -= 1
        if receipt.failed:
            exiting.stay_blocked()
        return settled

    def wake_all(self) -> None:
        """Some have come, or never will. Takes no lock."""
        if self._waiters.waiting:
            self._waiters.notify_all()

    def acknowledged(self, lane: Lane, message_ids: list[bytes]) -> tuple[list[Lane], list[bytes]]:
        """A peer has acknowledged: the lanes that have got something to send, for there is room now, and the ids of
        what is given up on, to be told of. Under the lock."""
        if self._storing is not None:
            self._storing.gone(map(lane.unacked.get, dict.fromkeys(message_ids)))
        self.ledger.acknowledge(lane.acknowledge(message_ids))
        homeless = self._router.homeless
        if homeless.messages:
            there = {message_id: homeless.messages.get(message_id) for message_id in message_ids}
            known = homeless.acknowledge(lane.identity, message_ids)
            self.ledger.acknowledge(known)
            self._is_over(map(there.get, known))
        return self.fill(lane)

    def fill(self, lane: Lane) -> tuple[list[Lane], list[bytes]]:
        """There may be room at a peer: it gets what nobody else wanted, and what waits. The same."""
        lanes, hopeless = self.take_in(lane)
        lanes += self._router.refill(lane)
        if self._storing is not None:
            self._storing.look_for(lane.identity)
        return lanes, hopeless

    # Sending again

    def send_due(self, lane: Lane, now: float) -> tuple[list[Lane], list[bytes]]:
        """Queue once more what has been unacknowledged for too long: the lanes that have got something to send, and
        the ids of what is given up on instead, to be told of. Under the lock."""
        lanes, hopeless = self._offer_anew(now)
        due = self.ledger.due(lane, now)
        for message in due:
            if message.give_up:
                self._give_up(lane.forget(message.message_id))
                hopeless.append(message.message_id)
            else:
                lane.send_again(message.message_id)
                lanes.append(lane)
        if due:
            filled, in_vain = self.fill(lane)
        else:
            filled, in_vain = [], []
            if self._storing is not None:
                self._storing.look_for(lane.identity)
        return [*lanes, *filled], [*hopeless, *in_vain]

    # Handing back

    def handed_back(self, lane: Lane, message_ids: list[bytes]) -> tuple[list[Lane], list[bytes]]:
        """A peer wants others to have these. They get them as soon as they have room, but for those who have handed
        them back, too: if there is nobody, their time to be sent again has to come, as that of any other. The lanes
        that have got something to send, and the ids of what is given up on, to be told of. Under the lock."""
        now = self._clock()
        homeless = self._router.homeless
        lanes: list[Lane] = []
        hopeless: list[bytes] = []
        for message_id in message_ids:
            message = self._router.take_from(lane, message_id)
            if message is None:
                continue
            refused_by = self.ledger.refused(message_id, lane.identity, now)
            other = self._router.next_but(refused_by)
            if other is None and self.ledger.is_spent(message_id):
                self._give_up(message)
                hopeless.append(message_id)
            elif other is None:
                homeless.add(message, refused_by)
            elif self._hand_to(other, message, hopeless):
                lanes.append(other)
        filled, in_vain = self.fill(lane)
        return [*lanes, *filled], [*hopeless, *in_vain]

    def _hand_to(self, other: Lane, message: Message, hopeless: list[bytes]) -> bool:
        """Give to ``other`` what was handed back; or give it up, if it was sent again as often as it may."""
        message_id = message.message_id
        if not self.ledger.may_hand_on(message_id):
            self._give_up(message)
            hopeless.append(message_id)
            return False
        other.give(message)
        return True

    def welcome(self, lane: Lane) -> tuple[list[Lane], list[bytes]]:
        """A peer has come, perhaps not for the first time: then it may want now what it did not want before. The same.
        """
        self.ledger.forgive(lane.identity)
        self._router.homeless.forget(lane.identity)
        return self.take_in(lane)

    def take_in(self, other: Lane) -> tuple[list[Lane], list[bytes]]:
        """There is room at a peer: it gets what was handed back to nobody in particular. The same."""
        lanes: list[Lane] = []
        hopeless: list[bytes] = []
        router = self._router
        if router.homeless.messages and not other.dead:
            taking = router.homeless.take_for(other.identity)
            while router.has_room(other):
                message = next(taking, None)
                if message is None:
                    break
                if self._hand_to(other, message, hopeless):
                    lanes.append(other)
        return lanes, hopeless

    def _offer_anew(self, now: float) -> tuple[list[Lane], list[bytes]]:
        """What was handed back has its time, too, after which anybody may have it who has room. The same."""
        lanes: list[Lane] = []
        hopeless: list[bytes] = []
        router = self._router
        if router.homeless.messages and self._looked_at != now:  # or everything would be looked at for each peer
            self._looked_at = now
            due = [message_id for message_id in router.homeless.messages if self.ledger.begin_anew(message_id, now)]
            for message_id in due:
                router.homeless.forgive(message_id)
            for _ in due:
                lane = router.next_with_room()
                if lane is None:
                    break
                message = next(router.homeless.take_for(lane.identity))  # each of them would do
                if self._hand_to(lane, message, hopeless):
                    lanes.append(lane)
        return lanes, hopeless

    # The end of a connection, and of a message

    def count_resends(self, lane: Lane) -> list[bytes]:
        """What a departing peer was sent and did not acknowledge is going to be sent again: count that, and give up
        what has been sent as often as it may, to be told of. Under the lock."""
        now = self._clock()
        queued = set(map(message_id_of, lane.queue))
        hopeless = [message_id for message_id in lane.unacked
                    if message_id not in queued and not self.ledger.may_resend(message_id, now)]
        for message_id in hopeless:
            self._give_up(lane.forget(message_id))
        return hopeless

    def _give_up(self, message: Message | None) -> None:
        if message is not None:
            self.ledger.give_up(message.message_id, self._in_vain)
            self._is_over((message,))

    def _is_over(self, messages: Iterable[Message | None]) -> None:
        """These will not be sent any more."""
        if self._storing is not None:
            self._storing.gone(messages)

    def tell_given_up(self, peer: Peer, message_ids: Iterable[bytes]) -> None:
        """These have been sent as often as they may, in vain."""
        for message_id in message_ids:
            self._losses.undelivered += 1
            self._waiters.notify_all()
            self._events.add(Undelivered(peer.address, peer.identity, self._in_vain, message_id=message_id))
