"""The receive queue, by itself: who is woken, what is counted, what a descriptor says."""

from __future__ import annotations

import select
import sys
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, until

from netmsg.deadline import Deadline
from netmsg.messaging import inbox as inbox_module
from netmsg.messaging.credit import Credit
from netmsg.messaging.inbox import Batch, Inbox, ReliableBatch
from netmsg.waiting import Signal


def watch(batch: ReliableBatch) -> None:
    raise AssertionError("nothing here is to be acknowledged")


def inbox() -> Inbox:
    return Inbox(watch, lambda batch: None)


def deliver(box: Inbox, credit: Credit, *messages: bytes) -> None:
    size = sum(map(len, messages))
    credit.arrived += len(messages)
    credit.arrived_bytes += size
    box.deliver(Batch(credit, messages, len(messages), size))


def account() -> Credit:
    return Credit(b"sender", 100, 1000)


@pytest.mark.parametrize("take", ["take", "take_many"])
def test_what_is_taken_is_counted_when_its_batch_is_exhausted(take: str) -> None:
    box, credit = inbox(), account()
    deliver(box, credit, b"1", b"23")
    deliver(box, credit, b"4")
    if take == "take":
        assert [box.take(Deadline(0)) for _ in range(2)] != []
        assert box.take(Deadline(0)) is not None
        with pytest.raises(TimeoutError):
            box.take(Deadline(0))
    else:
        assert box.take_many(10, Deadline(0)) == [b"1", b"23"]
        assert credit.pending == 1
        assert box.take_many(10, Deadline(0)) == [b"4"]
    assert credit.pending == 0 and credit.taken_bytes == 4


def test_with_a_descriptor_the_last_message_counts_as_taken_at_once() -> None:
    """Who waits in a selector comes back when there is more, and there may be no more before there is room."""
    box, credit = inbox(), account()
    descriptor = box.fileno()
    deliver(box, credit, b"1", b"2")
    for pending in (2, 0):
        assert select.select([descriptor], [], [], TIMEOUT)[0]
        box.take(Deadline(0))
        assert credit.pending == pending
    assert not select.select([descriptor], [], [], 0)[0]


def test_who_is_interrupted_after_it_was_woken_leaves_the_message_to_another() -> None:
    box, credit = inbox(), account()

    def interrupted(batch: Batch, message: Any) -> bytes:
        raise KeyboardInterrupt

    first = Background(box.take_as, interrupted, Deadline(TIMEOUT))
    until(lambda: len(box.waiters.waiting) == 1)
    second = Background(box.take, Deadline(TIMEOUT))
    until(lambda: len(box.waiters.waiting) == 2)
    deliver(box, credit, b"message")
    box.waiters.notify()
    with pytest.raises(KeyboardInterrupt):
        first.result()
    assert second.result()[1] == b"message"


def test_the_descriptor_stays_readable_when_it_is_closed_in_the_middle_of_a_taking(
        monkeypatch: pytest.MonkeyPatch) -> None:
    box, credit = inbox(), account()

    class ClosedMeanwhile(Signal):
        def clear(self) -> None:
            box.close()
            super().clear()

    monkeypatch.setattr(inbox_module, "Signal", ClosedMeanwhile)
    deliver(box, credit, b"message")
    descriptor = box.fileno()
    box.take(Deadline(0))
    assert select.select([descriptor], [], [], 0)[0] == [descriptor]


def test_who_is_interrupted_with_several_in_hand_leaves_a_descriptor_that_tells_of_them() -> None:
    strikes: list[BaseException] = [KeyboardInterrupt()]

    def finished(batch: Batch) -> None:
        if strikes:
            raise strikes.pop()

    box = Inbox(lambda batch: None, finished)
    descriptor = box.fileno()
    try:
        box.deliver(Batch(Credit(b"", 10, 1000), [b"1", b"2"], 2, 2))
        with pytest.raises(KeyboardInterrupt):
            box.take_many(10, Deadline(0))
        assert select.select([descriptor], [], [], 0)[0]
        assert box.take_many(10, Deadline(0)) == [b"1", b"2"]
        assert not select.select([descriptor], [], [], 0)[0]
    finally:
        box.close()


def test_what_counts_as_taken_is_replaced_no_more() -> None:
    """Or what comes in its place would count for ever."""
    batch = Batch(Credit(b"a", 10, 1000), [b"old"], 1, 3)
    assert Inbox.replace(batch, b"newer", 5) and [*batch.queue] == [b"newer"] and batch.large_bytes == 5
    batch.count = batch.large_bytes = 0
    assert not Inbox.replace(batch, b"newest", 6) and [*batch.queue] == [b"newer"]
    batch.count = 1
    batch.queue.clear()
    assert not Inbox.replace(batch, b"newest", 6)


def everything(box: Inbox) -> list[bytes]:
    got: list[bytes] = []
    while True:
        try:
            taken = box.take(Deadline(0))
        except TimeoutError:
            return got
        assert taken is not None
        got.append(taken[1])


@pytest.mark.parametrize("begun", [False, True])
def test_what_is_held_waits_and_counts_and_comes_next_when_it_is_let_go_of(begun: bool) -> None:
    box, his, hers = inbox(), account(), Credit(b"other", 100, 1000)
    deliver(box, his, b"1", b"2")
    if begun:
        assert box.take(Deadline(0)) is not None
    box.hold(b"sender", "one")
    box.hold(b"sender", "two")
    deliver(box, his, b"3")
    deliver(box, hers, b"a")
    assert everything(box) == [b"a"]
    assert his.pending == 3
    deliver(box, his, b"4")
    deliver(box, hers, b"b")
    box.let_go(b"sender", "one")
    box.let_go(b"sender", "one")
    assert everything(box) == [b"b"], "somebody else still holds it"
    deliver(box, his, b"5")
    deliver(box, hers, b"c")
    box.let_go(b"sender", "two")
    box.let_go(b"sender", "two")
    assert everything(box) == [*([] if begun else [b"1"]), b"2", b"3", b"4", b"5", b"c"]
    assert his.pending == hers.pending == 0


def test_who_is_held_and_let_go_of_loses_his_place_to_nobody_behind_him() -> None:
    box, his, hers = inbox(), account(), Credit(b"other", 100, 1000)
    for _ in range(3):
        deliver(box, his, b"his")
        deliver(box, hers, b"hers")
    for _ in range(2):
        assert box.take(Deadline(0)) is not None
    for _ in range(9):
        box.hold(b"sender", "one")
        box.let_go(b"sender", "one")
    assert everything(box) == [b"his", b"hers"] * 2


def test_what_is_held_wakes_nobody_and_what_is_let_go_does() -> None:
    box, credit = inbox(), account()
    box.hold(b"sender", "one")
    taker = Background(box.take_as, lambda batch, message: message, Deadline(TIMEOUT))
    until(lambda: len(box.waiters.waiting) == 1)
    deliver(box, credit, b"1")
    box.waiters.notify()
    until(lambda: not box._batches and len(box.waiters.waiting) == 1)
    box.let_go(b"sender", "one")
    assert taker.result() == b"1"


def test_a_descriptor_is_readable_for_what_is_not_held() -> None:
    box, credit = inbox(), account()
    descriptor = box.fileno()
    deliver(box, credit, b"1")
    assert select.select([descriptor], [], [], TIMEOUT)[0]
    box.hold(b"sender", "one")
    assert not select.select([descriptor], [], [], 0)[0]
    deliver(box, credit, b"2")
    assert not select.select([descriptor], [], [], 0)[0]
    deliver(box, Credit(b"other", 100, 1000), b"a")
    assert select.select([descriptor], [], [], TIMEOUT)[0]
    assert everything(box) == [b"a"]
    assert not select.select([descriptor], [], [], 0)[0]
    box.let_go(b"sender", "one")
    assert select.select([descriptor], [], [], TIMEOUT)[0]
    assert everything(box) == [b"1", b"2"]
    assert not select.select([descriptor], [], [], 0)[0]


def test_what_is_held_at_the_end_is_not_forgotten() -> None:
    box, credit = inbox(), account()
    deliver(box, credit, b"1")
    deliver(box, credit, b"2")
    box.hold(b"sender", "one")
    assert everything(box) == []
    assert [message for batch in box.release() for message in batch.queue] == [b"1", b"2"]


def let_go_of_all(box: Inbox, askers: list[bytes]) -> None:
    for asker in askers:
        box.let_go(asker, "one")


def test_the_end_and_being_let_go_of_may_come_at_the_same_time() -> None:
    interval = sys.getswitchinterval()
    try:
        sys.setswitchinterval(1e-5)
        for _ in range(40):
            box, askers = inbox(), [b"%d" % number for number in range(100)]
            for asker in askers:
                box.hold(asker, "one")
                deliver(box, Credit(asker, 100, 1000), b"x")
            assert everything(box) == []
            letting_go = Background(let_go_of_all, box, askers)
            left = box.release()
            letting_go.result()
            assert len([batch for batch in (*left, *box.release()) if batch.queue]) == 100
    finally:
        sys.setswitchinterval(interval)
