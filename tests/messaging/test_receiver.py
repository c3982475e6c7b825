"""The receiving half of a Søcket, by itself: peers, accounts and the way back to them are stand-ins."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from support.servers import said
from support.stand_ins import HandWaiters, Loop, settings

from netmsg.deadline import Deadline
from netmsg.errors import ClosedError, ForkedError
from netmsg.messaging import conversation
from netmsg.messaging import inbox as inbox_module
from netmsg.messaging.choices import AckMode
from netmsg.messaging.conversation import TURNS
from netmsg.messaging.credit import Credit
from netmsg.messaging.deliveries import Delivery
from netmsg.messaging.inbox import Batch, RequestBatch
from netmsg.messaging.lane import Lane
from netmsg.messaging.life import Life
from netmsg.messaging.receiving import ACK_DELAY, LONG_RUN, Receiver
from netmsg.wire.envelope import ack_frames

A, B = b"a" * 16, b"b" * 16


class Peer:
    """One that has sent something."""

    def __init__(self, identity: bytes, io: Any) -> None:
        self.identity = identity
        self.io = io
        self.credit = Credit(identity, 1000, 1 << 20)
        self.lane = Lane(identity, nullcontext(), self)
        self.lent = False
        self.sock = self
        self.written = b""
        self.refused: list[bytes] = []

    def fileno(self) -> int:
        return 7

    def lend(self) -> bool:
        self.lent = True
        return True

    def take_back(self) -> None:
        self.lent = False

    def acknowledge(self, message_ids: list[bytes]) -> None:
        self.lane.add_control(ack_frames(message_ids))
        self.io.work[self] = None

    def refuse(self, message_id: bytes) -> None:
        self.refused.append(message_id)

    def bursting(self) -> bool:
        return False

    def on_work(self) -> None:
        self.written += b"".join(self.lane.control)
        self.lane.control.clear()

    def take_written(self) -> bytes:
        """What it has been sent since the last look."""
        written, self.written = self.written, b""
        return written


class Scene:
    """It is the accounts, and the way back, too."""

    def __init__(self, **changes: Any) -> None:
        self.loop = Loop()
        self.life = Life()
        self.crashes: list[BaseException] = []
        self.life.on_crash = self.crashes.append
        self.lanes: dict[bytes, Lane] = {}
        self.taken: list[Credit] = []
        self.answers = 0
        self.losses: list[tuple[str, int, bytes | None]] = []
        self.answered: list[tuple[object, ...]] = []
        there: Any = self
        self.receiver = Receiver(settings(**changes), self.life, self.loop.io, there, self, there)

    any = False
    """Whether it has subscriptions,"""
    prefix = b""
    """which is this one."""

    def wants(self, payload: bytes) -> bool:
        return payload.startswith(self.prefix)

    def find(self, identity: bytes) -> Lane | None:
        return self.lanes.get(identity)

    def dropped(self, reason: str, count: int, identity: bytes | None) -> None:
        self.losses.append((reason, count, identity))

    def answering(self) -> None:
        self.answers += 1

    def answer(self, identity: bytes, correlation_id: bytes, data: bytes, *, fails: bool,
               timeout: float | None) -> None:
        self.answered.append((identity, correlation_id, data, fails, timeout))

    def taken_from(self, credit: Credit) -> None:
        self.taken.append(credit)

    # What the test has happen

    def peer(self, identity: bytes = A) -> Any:
        peer = Peer(identity, self.loop.io)
        self.lanes[identity] = peer.lane
        return peer

    def take(self) -> bytes:
        """As `Søcket.recv` does."""
        taken = self.receiver.inbox.take(Deadline(0))
        assert taken is not None
        message: bytes = taken[1]
        return message

    def take_delivery(self) -> Delivery:
        delivery = self.receiver.inbox.take_as(
            lambda batch, message: Delivery(self.receiver, batch, message[1], message[0]), Deadline(0))
        assert delivery is not None
        return delivery

    def look(self, peer: Any) -> bytes:
        """What has been acknowledged by the end of the next look at what has been taken."""
        self.loop.pass_time(0.0015)
        acks: bytes = peer.take_written()
        return acks

    def acks(self, peer: Any) -> bytes:
        """What has been acknowledged by now."""
        self.loop.settle()
        acks: bytes = peer.take_written()
        return acks

    @property
    def is_empty(self) -> bool:
        try:
            self.receiver.inbox.take(Deadline(0))
        except TimeoutError:
            return True
        return False


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scene]:
    def make(**changes: Any) -> Scene:
        with monkeypatch.context() as patch:
            patch.setattr(inbox_module, "Waiters", HandWaiters)
            return Scene(**changes)

    monkeypatch.setattr(HandWaiters, "meanwhile", HandWaiters.meanwhile)
    monkeypatch.setattr(conversation, "Signal", Signal)
    return make


@pytest.fixture
def scene(scenes: Callable[..., Scene]) -> Scene:
    return scenes()


class Signal:
    """In the place of a descriptor that wakes."""

    def set(self) -> None:
        pass


def ids(*numbers: int) -> list[bytes]:
    return [b"%016d" % number for number in numbers]


def bodies(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


# What arrives


def test_messages_are_taken_in_the_order_in_which_they_came(scene: Scene) -> None:
    a, b = scene.peer(A), scene.peer(B)
    scene.receiver.arrived(a, bodies(0, 1))
    scene.receiver.one_arrived(b, b"2")
    scene.receiver.reliable_arrived(a, ids(3), bodies(3))
    assert [scene.take() for _ in range(4)] == bodies(0, 1, 2, 3) and scene.is_empty


def test_what_arrives_counts_against_the_mark_until_it_is_taken(scene: Scene) -> None:
    a = scene.peer()
    scene.receiver.arrived(a, [b"12", b"345"])
    scene.receiver.one_arrived(a, b"6789")
    assert (a.credit.pending, a.credit.pending_bytes) == (3, 9)
    for _ in range(3):
        scene.take()
    assert scene.is_empty
    assert (a.credit.pending, a.credit.pending_bytes) == (0, 0)


@pytest.mark.parametrize("hwm_bytes, mode, weighed", [
    (1 << 30, AckMode.ON_RECV, False),
    (1000, AckMode.ON_RECV, True),
    (1 << 30, AckMode.MANUAL, True),
], ids=["ample", "scarce", "one by one"])
def test_many_small_ones_are_weighed_only_where_that_matters(scenes: Callable[..., Scene], hwm_bytes: int,
                                                             mode: AckMode, weighed: bool) -> None:
    scene = scenes(recv_hwm=10, recv_hwm_bytes=hwm_bytes, ack_mode=mode)
    a = scene.peer()
    scene.receiver.arrived(a, [b"x"] * LONG_RUN)
    assert a.credit.pending == LONG_RUN and a.credit.pending_bytes == (LONG_RUN if weighed else 0)


@pytest.mark.parametrize("arrive", [
    lambda receiver, peer: receiver.arrived(peer, [b"message"]),
    lambda receiver, peer: receiver.one_arrived(peer, b"message"),
    lambda receiver, peer: receiver.reliable_arrived(peer, ids(0), [b"message"]),
], ids=["several", "one", "at least once"])
def test_whoever_waits_is_woken_before_the_network_thread_sleeps(scene: Scene,
                                                                 arrive: Callable[[Receiver, Any], None]) -> None:
    a = scene.peer()
    waiters: Any = scene.receiver.inbox.waiters

    def meanwhile() -> None:
        arrive(scene.receiver, a)
        assert waiters.woken == 0
        scene.loop.settle()

    HandWaiters.meanwhile = staticmethod(meanwhile)
    taken = scene.receiver.inbox.take(Deadline(1))
    assert taken is not None and taken[1] == b"message"


def test_who_has_room_again_is_told_when_somebody_waits_for_that(scene: Scene) -> None:
    a = scene.peer()
    scene.receiver.arrived(a, bodies(0, 1))
    scene.take()
    a.credit.waits = True
    scene.take()
    assert scene.is_empty and scene.taken == []
    scene.loop.settle()
    assert scene.taken == [a.credit]


def test_once_it_closes_what_arrives_is_neither_delivered_nor_acknowledged(scene: Scene) -> None:
    a = scene.peer()
    scene.life.begin_closing()
    scene.receiver.arrived(a, [b"0"])
    scene.receiver.one_arrived(a, b"1")
    scene.receiver.reliable_arrived(a, ids(2), bodies(2))
    assert scene.is_empty and scene.acks(a) == b"" and a.credit.pending == 0


# Acknowledgements: when taken


def test_a_message_is_acknowledged_when_it_is_taken_and_not_before(scene: Scene) -> None:
    a = scene.peer()
    scene.receiver.reliable_arrived(a, ids(0, 1, 2), bodies(0, 1, 2))
    assert scene.look(a) == b""
    scene.take()
    assert scene.look(a) == ack_frames(ids(0))
    scene.take()
    scene.take()
    assert scene.look(a) == ack_frames(ids(1, 2))
    assert scene.is_empty and scene.look(a) == b"" and scene.loop.delays == []


def test_what_is_taken_between_two_looks_is_acknowledged_by_the_next(scene: Scene) -> None:
    a = scene.peer()
    scene.receiver.reliable_arrived(a, ids(*range(10)), bodies(*range(10)))
    scene.take()
    assert scene.acks(a) == ack_frames(ids(0))
    for _ in range(4):
        scene.take()
    assert scene.acks(a) == b""
    assert scene.look(a) == ack_frames(ids(1, 2, 3, 4))
    for number in (5, 6, 7):
        scene.take()
        scene.loop.pass_time(ACK_DELAY)
        assert scene.acks(a) == ack_frames(ids(number)) and len(scene.loop.delays) == 1


def test_nobody_looks_for_as_long_as_nothing_is_taken(scene: Scene) -> None:
    a = scene.peer()
    scene.receiver.reliable_arrived(a, ids(0, 1), bodies(0, 1))
    scene.take()
    scene.loop.pass_time(1.0)
    assert scene.loop.delays == [] and scene.acks(a) == ack_frames(ids(0))
    scene.take()
    assert scene.look(a) == ack_frames(ids(1))


def test_acknowledgements_go_by_the_connection_that_is_there_now(scene: Scene) -> None:
    old = scene.peer()
    scene.receiver.reliable_arrived(old, ids(0), bodies(0))
    new = scene.peer()
    scene.take()
    assert scene.look(new) == ack_frames(ids(0)) and scene.acks(old) == b""


def test_where_no_connection_is_left_the_resend_is_acknowledged(scene: Scene) -> None:
    a = scene.peer()
    scene.receiver.reliable_arrived(a, ids(0), bodies(0))
    scene.lanes.clear()
    scene.take()
    assert scene.look(a) == b""
    again = scene.peer()
    scene.receiver.reliable_arrived(again, ids(0), bodies(0))
    assert scene.acks(again) == ack_frames(ids(0)) and scene.is_empty


def test_duplicates_are_not_delivered_and_not_acknowledged_before_the_first_is_taken(scene: Scene) -> None:
    a = scene.peer()
    scene.receiver.reliable_arrived(a, ids(0, 1), bodies(0, 1))
    scene.receiver.reliable_arrived(a, ids(0, 1), bodies(0, 1))
    assert scene.acks(a) == b"" and scene.receiver.arrivals.duplicates == 2
    assert [scene.take(), scene.take()] == bodies(0, 1) and scene.is_empty
    assert a.credit.pending == 0
    assert scene.look(a) == ack_frames(ids(0, 1))


def test_ids_count_for_each_sender_by_itself(scene: Scene) -> None:
    a, b = scene.peer(A), scene.peer(B)
    scene.receiver.reliable_arrived(a, ids(0), [b"a's"])
    scene.receiver.reliable_arrived(b, ids(0), [b"b's"])
    assert [scene.take(), scene.take()] == [b"a's", b"b's"]


# Acknowledgements: on arrival


def test_on_arrival_a_message_is_acknowledged_at_once(scenes: Callable[..., Scene]) -> None:
    scene = scenes(ack_mode=AckMode.ON_ARRIVAL)
    a = scene.peer()
    scene.receiver.reliable_arrived(a, ids(0, 1), bodies(0, 1))
    assert scene.acks(a) == ack_frames(ids(0, 1)) and a.credit.pending == 2
    assert [scene.take(), scene.take()] == bodies(0, 1)
    assert scene.look(a) == b""


# Acknowledgements: by hand


@pytest.fixture
def manual(scenes: Callable[..., Scene]) -> Scene:
    return scenes(ack_mode=AckMode.MANUAL)


def test_by_hand_a_message_is_acknowledged_when_it_is_answered_for(manual: Scene) -> None:
    a = manual.peer()
    manual.receiver.reliable_arrived(a, ids(0, 1), [b"12", b"345"])
    first, second = manual.take_delivery(), manual.take_delivery()
    assert (first.data, first.identity, second.data) == (b"12", A, b"345") and manual.look(a) == b""
    second.ack()
    second.ack()
    assert manual.look(a) == ack_frames(ids(1))
    first.ack()
    assert manual.look(a) == ack_frames(ids(0))


def test_by_hand_it_counts_against_the_mark_until_then(manual: Scene) -> None:
    a = manual.peer()
    manual.receiver.reliable_arrived(a, ids(0, 1), [b"12", b"345"])
    first, second = manual.take_delivery(), manual.take_delivery()
    assert manual.is_empty
    assert (a.credit.pending, a.credit.pending_bytes) == (2, 5)
    a.credit.waits = True
    first.ack()
    second.nack()
    manual.loop.settle()
    assert (a.credit.pending, a.credit.pending_bytes) == (0, 0) and manual.taken == [a.credit, a.credit]


def test_what_is_refused_is_delivered_again_when_it_is_sent_again(manual: Scene) -> None:
    a = manual.peer()
    manual.receiver.reliable_arrived(a, ids(0), bodies(0))
    manual.take_delivery().nack()
    assert manual.look(a) == b"" and a.refused == ids(0), "its sender is told, once"
    manual.receiver.reliable_arrived(a, ids(0), bodies(0))
    manual.take_delivery().ack()
    assert manual.look(a) == ack_frames(ids(0)) and a.refused == ids(0)


def test_a_refusal_is_told_by_the_connection_that_there_is_now(manual: Scene) -> None:
    a = manual.peer()
    manual.receiver.reliable_arrived(a, ids(0, 1), bodies(0, 1))
    first, second = manual.take_delivery(), manual.take_delivery()
    del manual.lanes[A]
    first.nack()
    manual.loop.settle()
    new = manual.peer()
    second.nack()
    manual.loop.settle()
    assert a.refused == [] and new.refused == ids(1)


@pytest.mark.parametrize("first, acks", [("ack", ack_frames(ids(0))), ("nack", b"")])
def test_the_first_answer_counts(manual: Scene, first: str, acks: bytes) -> None:
    a = manual.peer()
    manual.receiver.reliable_arrived(a, ids(0), bodies(0))
    delivery = manual.take_delivery()
    getattr(delivery, first)()
    delivery.nack()
    delivery.ack()
    assert manual.look(a) == acks and a.credit.pending == 0


def test_for_a_message_at_most_once_there_is_nothing_to_answer(manual: Scene) -> None:
    a = manual.peer()
    manual.receiver.one_arrived(a, b"plain")
    delivery = manual.take_delivery()
    delivery.ack()
    assert manual.look(a) == b"" and manual.is_empty and a.credit.pending == 0


def test_nothing_is_answered_for_once_it_is_closed(manual: Scene) -> None:
    a = manual.peer()
    manual.receiver.reliable_arrived(a, ids(0, 1), bodies(0, 1))
    first, second = manual.take_delivery(), manual.take_delivery()
    manual.life.begin_closing()
    with pytest.raises(ClosedError):
        first.ack()
    manual.life.fork()
    with pytest.raises(ForkedError):
        second.nack()


# Only the newest


@pytest.fixture
def newest() -> Scene:
    return Scene(conflate=True)


@pytest.mark.parametrize("manual", [False, True])
def test_of_each_sender_the_newest_message_is_kept(manual: bool) -> None:
    scene = Scene(conflate=True, ack_mode=AckMode.MANUAL if manual else AckMode.ON_RECV)
    a, b = scene.peer(A), scene.peer(B)
    scene.receiver.arrived(a, [b"1", b"2", b"three"])
    scene.receiver.one_arrived(b, b"x")
    scene.receiver.one_arrived(a, b"4")
    assert scene.losses == [("conflated", 2, A), ("conflated", 1, A)]
    assert (a.credit.pending, a.credit.pending_bytes) == (1, 1)
    assert [scene.take_delivery().data if manual else scene.take() for _ in range(2)] == [b"4", b"x"]
    assert scene.is_empty
    assert (a.credit.pending, a.credit.pending_bytes, b.credit.pending_bytes) == (0, 0, 0)


def test_what_has_been_taken_is_not_replaced(newest: Scene) -> None:
    a = newest.peer()
    for number in range(3):
        newest.receiver.one_arrived(a, b"%d" % number)
        assert newest.take() == b"%d" % number
    assert newest.losses == [] and newest.is_empty


def test_what_is_sent_at_least_once_and_requests_are_all_kept(newest: Scene) -> None:
    a = newest.peer()
    newest.receiver.reliable_arrived(a, ids(0, 1), bodies(0, 1))
    newest.receiver.requests_arrived(a, ids(2, 3), bodies(2, 3))
    newest.receiver.arrived(a, [b"old", b"new"])
    assert a.credit.pending == 5 and newest.losses == [("conflated", 1, A)]


# Only what is wanted


@pytest.mark.parametrize("mode", [AckMode.ON_RECV, AckMode.MANUAL])
def test_of_what_is_sent_at_most_once_what_is_wanted_is_delivered(mode: AckMode) -> None:
    scene = Scene(ack_mode=mode)
    a = scene.peer()
    scene.any, scene.prefix = True, b"x"
    scene.receiver.arrived(a, [b"x1", b"y", b"x2", b""])
    scene.receiver.one_arrived(a, b"y")
    scene.receiver.one_arrived(a, b"x3")
    assert a.credit.pending == 3
    got = [scene.take_delivery().data if mode is AckMode.MANUAL else scene.take() for _ in range(3)]
    assert got == [b"x1", b"x2", b"x3"] and scene.is_empty


def test_what_is_sent_at_least_once_and_requests_come_in_any_case(scene: Scene) -> None:
    a = scene.peer()
    scene.any, scene.prefix = True, b"x"
    scene.receiver.reliable_arrived(a, ids(0), [b"y"])
    scene.receiver.requests_arrived(a, ids(1), [b"z"])
    assert scene.take() == b"y" and a.credit.pending == 2


# The end


def test_at_the_end_what_has_been_taken_is_acknowledged_and_the_rest_is_not(scene: Scene) -> None:
    a, b = scene.peer(A), scene.peer(B)
    scene.receiver.reliable_arrived(a, ids(0, 1, 2), bodies(0, 1, 2))
    scene.receiver.reliable_arrived(b, ids(0), bodies(0))
    assert [scene.take(), scene.take()] == bodies(0, 1)
    scene.receiver.acknowledge_taken()
    assert scene.acks(a) == ack_frames(ids(0, 1)) and scene.acks(b) == b""
    scene.loop.settle()
    assert scene.look(a) == b"", "once"


def test_a_step_that_fails_is_the_end_of_the_søcket(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    a = scene.peer()
    scene.receiver.reliable_arrived(a, ids(0), bodies(0))
    scene.lanes[A] = None  # type: ignore[assignment]
    scene.lanes = None  # type: ignore[assignment]
    scene.take()
    scene.loop.settle()
    assert [type(error) for error in scene.crashes] == [AttributeError]
    said(caplog)


# Conversations


def test_messages_that_come_alone_and_are_waited_for_begin_a_conversation(scene: Scene) -> None:
    a = scene.peer()
    waiters: Any = scene.receiver.inbox.waiters
    waiters.waiting.append("somebody")
    for number in range(TURNS):
        scene.receiver.one_arrived(a, b"%d" % number)
    scene.loop.settle()
    assert a.lent
    scene.receiver.stop_lending()
    assert not a.lent


@pytest.mark.parametrize("waiting", [True, False])
def test_several_at_once_or_nobody_who_waits_begin_none(scene: Scene, waiting: bool) -> None:
    a = scene.peer()
    waiters: Any = scene.receiver.inbox.waiters
    for number in range(4 * TURNS):
        if waiting:
            waiters.waiting.append("somebody")
        if waiting and number % 10 == 9:
            scene.receiver.arrived(a, bodies(0, 1))
        else:
            scene.receiver.one_arrived(a, b"%d" % number)
        waiters.waiting.clear()
    scene.loop.settle()
    assert not a.lent


# Requests


def asked(scene: Scene, *payloads: bytes) -> Any:
    peer = scene.peer()
    scene.receiver.requests_arrived(peer, ids(*range(len(payloads))), [*payloads])
    return peer


def as_delivery(scene: Scene) -> Delivery:
    def make(batch: Batch, message: Any) -> Delivery:
        assert isinstance(batch, RequestBatch) and not batch.bare
        return Delivery(scene.receiver, batch, message[1], None, message[0])

    delivery = scene.receiver.inbox.take_as(make, Deadline(0))
    assert delivery is not None
    return delivery


@pytest.mark.parametrize("mode", AckMode)
def test_requests_count_against_the_mark_until_they_are_taken(scenes: Callable[..., Scene], mode: AckMode) -> None:
    scene = scenes(ack_mode=mode)
    peer = asked(scene, b"1", b"22")
    assert (peer.credit.pending, peer.credit.pending_bytes) == (2, 3)
    as_delivery(scene)
    assert as_delivery(scene).data == b"22"
    scene.receiver.count_taken()
    assert (peer.credit.pending, peer.credit.pending_bytes) == (0, 0)


def test_they_are_answered_on_the_way_back(scenes: Callable[..., Scene]) -> None:
    scene = scenes()
    asked(scene, b"1", b"2")
    as_delivery(scene).reply(b"yes", timeout=3)
    as_delivery(scene).fail("no")
    assert scene.answered == [(A, *ids(0), b"yes", False, 3), (A, *ids(1), b"no", True, None)]


def test_none_is_taken_unasked(scenes: Callable[..., Scene]) -> None:
    scene = scenes()
    asked(scene, b"1")
    assert scene.receiver.inbox.refill().queue and scene.receiver.inbox.current.queue == deque()


def test_they_are_taken_with_others(scenes: Callable[..., Scene]) -> None:
    scene = scenes()
    peer = asked(scene, b"1", b"2", b"3")
    scene.receiver.arrived(peer, [b"4"])
    assert scene.receiver.inbox.take_many(2, Deadline(0)) == [b"1", b"2"]
    assert [scene.receiver.inbox.take_many(9, Deadline(0)) for _ in range(2)] == [[b"3"], [b"4"]]


def test_once_it_closes_nobody_answers(scenes: Callable[..., Scene]) -> None:
    scene = scenes()
    asked(scene, b"1")
    request = as_delivery(scene)
    scene.life.begin_closing()
    with pytest.raises(ClosedError):
        request.reply(b"yes")
    asked(scene, b"2")
    assert scene.receiver.inbox.refill().queue == deque() and scene.answered == []
