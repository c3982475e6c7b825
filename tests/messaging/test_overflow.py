"""What becomes of a message for which there is no room: each policy by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.lanes import lane
from support.routers import has_acknowledged, messages
from support.stand_ins import settings

from netmsg.deadline import Deadline
from netmsg.errors import QueueFullError, SendTimeoutError
from netmsg.messaging import overflow
from netmsg.messaging.choices import DeliveryGuarantee, OnFull, SendMode
from netmsg.messaging.delivery import Ledger
from netmsg.messaging.drafts import Draft
from netmsg.messaging.kept import Limits
from netmsg.messaging.lane import Lane
from netmsg.messaging.life import Life
from netmsg.messaging.overflow import Overflow
from netmsg.messaging.routing import Router
from netmsg.wire.envelope import data_frame, payload_of, reliable_frame

NO_HURRY = Deadline(None)


class Receipt:
    reason = ""

    def __init__(self, message_id: bytes = b"") -> None:
        self.message_id = message_id

    def _fail(self, reason: str) -> None:
        self.reason = reason


class Case:
    """It is the room, those who acknowledge and the sending half, too."""

    def __init__(self, policy: OnFull, peers: int = 1, *, mode: SendMode = SendMode.ROUNDROBIN,
                 reliable: bool = False) -> None:
        guarantee = DeliveryGuarantee.AT_LEAST_ONCE if reliable else DeliveryGuarantee.AT_MOST_ONCE
        self.router = Router(mode, Limits(3, 1 << 20), reliable=reliable)
        self.ledger: Ledger[Any] = Ledger(bytes(8), 5.0, None, lambda: 0.5)
        self.life = Life()
        self.now = 1000.0
        self.lost: list[tuple[str, int, bytes | None]] = []
        self.on_the_way = 0
        self.told_lacking: list[bytes | None] = []
        self.waited: list[bytes | None] = []
        self.disconnected: list[Lane] = []
        self.in_time = True
        self.there_comes_room = True
        self.has_come = False
        self.woken = 0
        self.meanwhile: Callable[[], None] = lambda: None
        part: Any = self
        self.overflow = Overflow(
            settings(on_full=policy, send_mode=mode, delivery_guarantee=guarantee, heartbeat_interval=5.0,
                     resend_after=3.0), self.life, part, self.router, part, part, part, lambda: self.now)
        self.lanes = [lane(b"%d" % number, window=1) for number in range(peers)]
        for one in self.lanes:
            one.owner = Owner()
            self.router.join(one)

    def cope(self, receipt: Any = None, to: bytes | None = None, deadline: Deadline = NO_HURRY) -> Any:
        return self.overflow.cope(Draft(b"new", to), receipt, deadline)

    # The lock

    def __enter__(self) -> None:
        self.meanwhile()

    def __exit__(self, *_: object) -> None:
        """Nobody else is there."""

    # The room

    def lacking(self, identity: bytes | None) -> None:
        self.told_lacking.append(identity)

    def is_there(self, draft: Draft) -> bool:
        return self.has_come

    def wait(self, draft: Draft, deadline: Deadline) -> None:
        self.waited.append(draft.identity)
        if not self.there_comes_room:
            raise self.too_late("no room", draft.identity)

    def too_late(self, what: str, identity: bytes | None) -> SendTimeoutError:
        return SendTimeoutError(what)

    # Those who acknowledge

    def wake_all(self) -> None:
        self.woken += 1

    # The sending half

    def message(self, draft: Draft) -> tuple[Any, Any]:
        if not self.router.reliable:
            return None, data_frame(draft.data)
        receipt = Receipt(self.ledger.new_id())
        return receipt, reliable_frame(receipt.message_id, draft.data, 1000, draft.identity)

    def dropped(self, reason: str, count: int, identity: bytes | None, listed: Any = None) -> None:
        self.lost.append((reason, count, identity))
        if listed is not None:
            del listed[:count]

    def taken(self, lane: Lane) -> int:
        return lane.taken_bytes - self.on_the_way

    def disconnect(self, lanes: list[Lane], deadline: Deadline) -> bool:
        self.disconnected += lanes
        return self.in_time


class Owner:
    blocked = True


def queued(one: Lane) -> list[bytes]:
    return [payload_of(message) for message in one.queue]


@pytest.fixture(autouse=True)
def nobody_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overflow, "aside", lambda step: step())


# Block


def test_block_waits_for_room_and_has_it_tried_again() -> None:
    case = Case(OnFull.BLOCK)
    assert case.cope(to=b"0") is None
    assert case.waited == case.told_lacking == [b"0"]


def test_block_ends_with_the_time() -> None:
    case = Case(OnFull.BLOCK)
    case.there_comes_room = False
    with pytest.raises(SendTimeoutError):
        case.cope()


# Raise


def test_raise_says_so_and_waits_for_nothing() -> None:
    case = Case(OnFull.RAISE)
    with pytest.raises(QueueFullError):
        case.cope()
    assert case.told_lacking == [None] and case.waited == []


# Drop the newest


def test_drop_newest_counts_it() -> None:
    case = Case(OnFull.DROP_NEWEST)
    assert case.cope(to=b"0") == (None, ())
    assert case.lost == [("send queue full", 1, b"0")]


def test_drop_newest_tells_its_receipt() -> None:
    case = Case(OnFull.DROP_NEWEST, reliable=True)
    receipt = Receipt()
    assert case.cope(receipt) == (receipt, ())
    assert receipt.reason == "the send queue was full" and case.lost == [("send queue full", 1, None)]


def test_drop_newest_leaves_out_those_alone_that_are_full() -> None:
    case = Case(OnFull.DROP_NEWEST, 3, mode=SendMode.PUBLISH)
    case.lanes[1].queue += messages(0, 1, 2)
    receipt, lanes = case.cope()
    assert receipt is None and lanes == [case.lanes[0], case.lanes[2]]
    assert [queued(one) for one in case.lanes] == [[b"new"], [b"0", b"1", b"2"], [b"new"]]
    assert case.lost == [("send queue full", 1, b"1")]


def test_drop_newest_waits_for_the_next_where_all_have_gone_meanwhile() -> None:
    case = Case(OnFull.DROP_NEWEST, 1, mode=SendMode.PUBLISH)

    def gone() -> None:
        case.router.leave(case.lanes[0])

    case.meanwhile = gone
    assert case.cope() is None and case.lost == []


# Drop the oldest, at least once


def reliable_case() -> tuple[Case, list[Receipt]]:
    """One message is on its way, and three wait."""
    case = Case(OnFull.DROP_OLDEST, reliable=True)
    receipts = []
    for number in range(4):
        receipt, message = case.message(Draft(b"%d" % number, None))
        case.router.place(message)
        case.ledger.outstanding[receipt.message_id] = receipt
        receipts.append(receipt)
    return case, receipts


def test_drop_oldest_tells_the_receipt_of_the_oldest_that_has_no_peer() -> None:
    case, receipts = reliable_case()
    new, lanes = case.cope()
    assert [bool(receipt.reason) for receipt in receipts] == [False, True, False, False] and lanes == ()
    assert list(map(payload_of, case.router.waiting)) == [b"2", b"3", b"new"]
    assert set(case.ledger.outstanding.values()) == {receipts[0], receipts[2], receipts[3], new}
    assert case.lost == [("send queue full", 1, None)] and case.woken == 1


def test_drop_oldest_drops_none_where_there_has_come_room() -> None:
    case, receipts = reliable_case()
    for one in receipts[:2]:
        has_acknowledged(case.router, case.lanes[0], [one.message_id])
    new, _ = case.cope()
    assert not any(receipt.reason for receipt in (*receipts, new)) and case.lost == []
    assert new.message_id in case.ledger.outstanding


def test_drop_oldest_does_nothing_once_it_closes() -> None:
    case, receipts = reliable_case()
    case.life.begin_closing()
    assert case.cope() is None and case.lost == []
    assert len(case.ledger.outstanding) == len(receipts)


def test_drop_oldest_refuses_the_new_one_where_nothing_can_go() -> None:
    case = Case(OnFull.DROP_OLDEST, 0, reliable=True)
    for number in range(30):  # as many as are kept for all together, each for another
        receipt, message = case.message(Draft(b"", b"%d" % number))
        case.router.place(message, b"%d" % number)
    for number in range(30):
        case.router.parked.of(b"%d" % number).clear()  # type: ignore[union-attr]
    new, lanes = case.cope(to=b"another")
    assert new.reason == "the send queue was full" and lanes == ()
    assert new.message_id not in case.ledger.outstanding


# Disconnect


def test_disconnect_those_that_do_not_keep_up_with_what_is_published() -> None:
    case = Case(OnFull.DISCONNECT, 2, mode=SendMode.PUBLISH)
    case.lanes[1].queue += messages(0, 1, 2)
    assert case.cope() is None
    assert case.disconnected == [case.lanes[1]] and queued(case.lanes[0]) == []


def test_disconnect_has_no_time_left_for_it() -> None:
    case = Case(OnFull.DISCONNECT, 1, mode=SendMode.PUBLISH)
    case.lanes[0].queue += messages(0, 1, 2)
    case.in_time = False
    with pytest.raises(SendTimeoutError, match="the send ran out of time"):
        case.cope()


def test_who_has_had_no_chance_to_take_what_was_kept_for_it_is_published_to_past_the_mark() -> None:
    case = Case(OnFull.DISCONNECT, 0, mode=SendMode.PUBLISH)
    for message in messages(0, 1, 2):
        case.router.place(message)
    case.router.join(there := lane(b"there"))
    assert case.cope() == (None, (there,))
    assert queued(there) == [b"0", b"1", b"2", b"new"] and case.disconnected == []


@pytest.mark.parametrize("reliable, patience", [(False, 6.0), (True, 9.0)])
def test_disconnect_who_has_taken_nothing_for_too_long(reliable: bool, patience: float) -> None:
    case = Case(OnFull.DISCONNECT, 2, reliable=reliable)
    case.there_comes_room = False
    for one in case.lanes:
        one.queue += messages(0, 1, 2)
    assert case.cope() is None and case.disconnected == [], "it has only just been seen"
    case.now += patience - 0.1
    assert case.cope() is None and case.disconnected == []
    case.now += 0.1
    assert case.cope() is None and case.disconnected == [case.lanes[0]], "one makes room enough"


@pytest.mark.parametrize("takes", [lambda one: setattr(one, "sent_bytes", one.sent_bytes + 1),
                                   lambda one: setattr(one.owner, "blocked", False),
                                   lambda one: setattr(one, "dead", True)],
                         ids=["takes something", "is written to", "is gone"])
def test_who_keeps_up_is_not_disconnected(takes: Callable[[Lane], None]) -> None:
    case = Case(OnFull.DISCONNECT)
    case.there_comes_room = False
    (there,) = case.lanes
    there.queue += messages(0, 1, 2)
    case.cope()
    case.now += 100.0
    takes(there)
    assert case.cope() is None and case.disconnected == []


def test_who_takes_little_out_of_a_large_buffer_keeps_up() -> None:
    """The kernel here says nothing while it still has much."""
    case = Case(OnFull.DISCONNECT)
    case.there_comes_room = False
    case.on_the_way = 1_000_000
    (there,) = case.lanes
    there.queue += messages(0, 1, 2)
    for _ in range(9):
        case.cope()
        case.now += 100.0
        case.on_the_way -= 1000
    assert case.disconnected == []
    case.cope()
    case.now += 100.0
    case.cope()
    assert case.disconnected == [there]


def test_disconnect_nobody_while_there_comes_room() -> None:
    case = Case(OnFull.DISCONNECT)
    case.lanes[0].queue += messages(0, 1, 2)
    for _ in range(3):
        case.now += 100.0
        assert case.cope() is None
    assert case.disconnected == []


def test_disconnect_ends_with_the_time() -> None:
    case = Case(OnFull.DISCONNECT)
    case.there_comes_room = False
    case.lanes[0].queue += messages(0, 1, 2)
    with pytest.raises(SendTimeoutError):
        case.cope(deadline=Deadline(0))


def test_disconnect_nobody_and_drop_nothing_where_there_has_come_room() -> None:
    case = Case(OnFull.DISCONNECT)
    case.has_come = True
    assert case.cope(to=b"0") is None
    assert not (case.disconnected or case.lost or case.waited)


def test_disconnect_where_there_is_nobody_drops_the_newest() -> None:
    case = Case(OnFull.DISCONNECT, 0)
    assert case.cope() == (None, ()) and case.lost == [("send queue full", 1, None)]
