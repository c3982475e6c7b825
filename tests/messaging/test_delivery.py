"""At least once: what is sent again and when, and which arrivals are duplicates."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.lanes import lane, send_all, take

from netmsg.messaging.delivery import Arrivals, Ledger
from netmsg.messaging.lane import Lane
from netmsg.wire.envelope import reliable_frame

ALICE, BOB = b"alice", b"bob"


class Receipt:
    """What becomes of it, and whether the book still held it when it was told."""

    def __init__(self, book: Ledger[Receipt], message_id: bytes) -> None:
        self.book = book
        self.message_id = message_id
        self.failed = ""
        book.outstanding[message_id] = self

    def _fail(self, reason: str) -> None:
        assert self.message_id in self.book.outstanding, "between the two it would count as acknowledged"
        self.failed = reason


def ledger(*, resend_after: float = 1.0, max_resends: int | None = None,
           jitter: Callable[[], float] = lambda: 0.5) -> Ledger[Receipt]:
    """With that jitter every delay is twice the one before."""
    return Ledger(b"prefix__", resend_after, max_resends, jitter)


def message_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def queue(out: Lane, *numbers: int) -> None:
    """Give these to a lane, as the router does."""
    for number in numbers:
        out.given += 1
        message = out.unacked[message_id(number)] = reliable_frame(message_id(number), b"")
        message.number = out.given
        out.queue.append(message)


def in_flight(*numbers: int) -> Lane:
    """A lane that has sent these, and waits for their acknowledgement."""
    out = lane()
    queue(out, *numbers)
    send_all(out)
    return out


def look(book: Ledger[Receipt], out: Lane, now: float) -> list[int]:
    """The numbers of the messages that are due, which are then sent again at once."""
    due = book.due(out, now)
    numbers = [int.from_bytes(message.message_id, "big") for message in due]
    queue(out, *numbers)
    send_all(out)
    return numbers


def moments_of_resending(book: Ledger[Receipt], out: Lane, moments: list[float]) -> list[float]:
    return [now for now in moments if look(book, out, now)]


# Ids and receipts


def test_ids_are_sixteen_bytes_unique_and_ordered() -> None:
    book = ledger()
    ids = [book.new_id() for _ in range(600)]
    assert {len(made) for made in ids} == {16}
    assert {made[:8] for made in ids} == {b"prefix__"}
    assert ids == sorted(set(ids))


def test_what_is_acknowledged_is_no_longer_outstanding() -> None:
    book = ledger()
    Receipt(book, message_id(1))
    two = Receipt(book, message_id(2))
    book.acknowledge([message_id(1), message_id(3)])
    assert book.outstanding == {message_id(2): two}


def test_a_receipt_is_told_that_it_failed_before_the_book_forgets_it() -> None:
    book = ledger()
    one, two, three = (Receipt(book, message_id(number)) for number in (1, 2, 3))
    book.give_up(message_id(1), "in vain")
    book.give_up(message_id(1), "told already")
    assert one.failed == "in vain" and list(book.outstanding.values()) == [two, three]
    book.give_up_all("the end")
    assert two.failed == three.failed == "the end" and not book.outstanding


# When to send again


def test_the_first_look_at_a_message_starts_its_clock() -> None:
    book, out = ledger(), in_flight(1)
    assert book.due(out, 100.0) == []
    assert book.due(out, 100.99) == []
    (due,) = book.due(out, 101.0)
    assert due.message_id == message_id(1)
    assert not due.give_up


def test_every_message_is_sent_again_so_long_after_it_was_sent() -> None:
    book, out = ledger(), in_flight(1, 2)
    assert look(book, out, 0.0) == []
    queue(out, 3)
    send_all(out)
    assert look(book, out, 0.5) == []
    assert look(book, out, 1.0) == [1, 2]
    assert look(book, out, 1.5) == [3]
    assert look(book, out, 2.9) == []
    assert look(book, out, 3.0) == [1, 2]
    assert book.resent == 5


def test_the_delay_doubles_up_to_a_minute() -> None:
    book, out = ledger(), in_flight(1)
    moments = [number / 4 for number in range(4 * 400)]
    again = moments_of_resending(book, out, moments)
    assert [later - earlier for earlier, later in zip([0.0, *again], again)] == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    assert book.resent == len(again)


def test_it_may_be_sent_again_for_weeks() -> None:
    book = ledger(jitter=lambda: 1.0)
    for number in range(20_000):
        assert book.may_resend(message_id(1), 60.0 * number)
    assert book.resent == 20_000


@pytest.mark.parametrize(("drawn", "factor"), [(0.0, 1.5), (1.0, 2.5)])
def test_jitter_spreads_the_delay_around_its_double(drawn: float, factor: float) -> None:
    book, out = ledger(jitter=lambda: drawn), in_flight(1)
    assert moments_of_resending(book, out, [0.0, 1.0, 1.0 + factor - 0.01, 1.0 + factor]) == [1.0, 1.0 + factor]


def test_under_load_a_refused_message_is_sent_again_as_it_is_without() -> None:
    """New ones are sent and acknowledged all the time, and the queue is never empty."""
    book, out = ledger(), in_flight(1)
    resent = []
    for step in range(100):
        queue(out, 1000 + step)
        write = out.begin_write()
        assert write is not None
        queue(out, 2000 + step)  # not sent with the others
        take(write)
        out.end_write(write)
        out.unacked.pop(message_id(1000 + step))
        out.unacked.pop(message_id(1999 + step), None)
        for message in book.due(out, step / 10):
            resent.append((step / 10, message.message_id))
            queue(out, int.from_bytes(message.message_id, "big"))
    assert resent == [(1.0, message_id(1)), (3.0, message_id(1)), (7.0, message_id(1))]


def test_a_message_that_is_still_queued_is_not_sent_again() -> None:
    book, out = ledger(), in_flight(1)
    assert look(book, out, 0.0) == []
    queue(out, 2)
    assert [message.message_id for message in book.due(out, 50.0)] == [message_id(1)]
    queue(out, 1)
    assert book.due(out, 100.0) == []  # the first is due, too, but the other end has not been sent it yet
    send_all(out)
    assert book.due(out, 101.0) == []
    assert [message.message_id for message in book.due(out, 102.0)] == [message_id(1), message_id(2)]


def test_the_time_of_a_copy_that_waits_to_be_sent_begins_when_it_is() -> None:
    book, out = ledger(max_resends=1), in_flight(1)
    assert look(book, out, 0.0) == []
    (due,) = book.due(out, 1.0)
    queue(out, 1)  # and the kernel takes nothing for a while
    assert book.due(out, 3.0) == book.due(out, 10.0) == []
    send_all(out)
    assert book.due(out, 11.0) == []
    (due,) = book.due(out, 12.0)
    assert due.give_up


@pytest.mark.parametrize("looked", [True, False])
def test_the_time_of_what_another_connection_sends_begins_when_it_has_been_sent_there(looked: bool) -> None:
    book, out = ledger(max_resends=1), in_flight(1)
    assert look(book, out, 0.0) == []
    assert book.may_resend(message_id(1), 0.5)  # the connection has gone
    book.taken_back([message_id(1), message_id(2)])
    successor = lane()
    queue(successor, 1)
    if looked:
        assert book.due(successor, 10.0) == []
    send_all(successor)
    assert book.due(successor, 10.0) == book.due(successor, 11.9) == []
    (due,) = book.due(successor, 12.0)
    assert due.give_up


def test_looking_costs_no_more_when_much_is_on_its_way() -> None:
    """Messages that were sent lately are not gone through one by one: the look ends at the first of them."""
    class Counting(dict[bytes, Any]):
        seen = 0

        def items(self) -> Any:
            for item in super().items():
                self.seen += 1
                yield item

    book, out = ledger(), in_flight(*range(1000))
    out.unacked = Counting(out.unacked)
    for moment in (0.0, 0.3, 0.6, 0.9):
        assert book.due(out, moment) == []
    assert out.unacked.seen == 4


def test_nothing_is_sent_again_to_a_peer_with_nothing_in_flight() -> None:
    book, out = ledger(), in_flight()
    assert moments_of_resending(book, out, [0.0, 1.0, 100.0]) == []


def test_each_peer_has_a_clock_of_its_own() -> None:
    book, one, other = ledger(), in_flight(1), in_flight(2)
    assert look(book, one, 0.0) == look(book, other, 0.5) == []
    assert look(book, one, 1.0) == [1]
    assert look(book, other, 1.0) == []
    assert look(book, other, 1.5) == [2]


def test_a_message_is_given_up_on_after_it_was_sent_again_as_often_as_it_may() -> None:
    book, out = ledger(max_resends=2), in_flight(1)
    dues = []
    for now in range(20):
        for message in book.due(out, float(now)):
            dues.append((now, message.give_up))
            if message.give_up:
                out.unacked.clear()
                break
            queue(out, 1)
            send_all(out)
    assert dues == [(1, False), (3, False), (7, True)]
    assert book.resent == 2


def test_without_resends_the_first_silence_is_the_end() -> None:
    book, out = ledger(max_resends=0), in_flight(1)
    assert book.due(out, 0.0) == []
    (due,) = book.due(out, 1.0)
    assert due.give_up
    assert book.resent == 0


def test_being_routed_to_another_peer_counts_as_being_sent_again() -> None:
    book = ledger(max_resends=2)
    assert [book.may_resend(message_id(1), 0.0) for _ in range(3)] == [True, True, False]
    assert book.may_resend(message_id(2), 0.0)
    assert book.resent == 3


def test_resends_are_counted_anew_after_an_acknowledgement() -> None:
    book = ledger(max_resends=1)
    assert book.may_resend(message_id(1), 0.0)
    book.acknowledge([message_id(1)])
    assert book.may_resend(message_id(1), 0.0)


# Arrivals


def bodies(*numbers: int) -> list[bytes]:
    return [b"body %d" % number for number in numbers]


def ids(*numbers: int) -> list[bytes]:
    return [message_id(number) for number in numbers]


def new_of(arrivals: Arrivals, sender: bytes, *numbers: int) -> list[bytes]:
    return arrivals.sort(sender, ids(*numbers), bodies(*numbers)).bodies


def again_of(arrivals: Arrivals, sender: bytes, *numbers: int) -> list[bytes]:
    return arrivals.sort(sender, ids(*numbers), bodies(*numbers)).again


def test_new_messages_are_handed_on_and_held() -> None:
    arrivals = Arrivals(10)
    assert arrivals.sort(ALICE, ids(1, 2), bodies(1, 2)) == (ids(1, 2), bodies(1, 2), [], 0)
    assert arrivals.held(ALICE) == set(ids(1, 2))


def test_a_duplicate_of_a_held_message_is_dropped_unacknowledged() -> None:
    arrivals = Arrivals(10)
    new_of(arrivals, ALICE, 1)
    assert arrivals.sort(ALICE, ids(1, 2), bodies(1, 2)) == (ids(2), bodies(2), [], 1)
    assert arrivals.duplicates == 1


def test_a_duplicate_of_an_acknowledged_message_is_acknowledged_again() -> None:
    arrivals = Arrivals(10)
    new_of(arrivals, ALICE, 1)
    arrivals.acknowledge(ALICE, ids(1))
    assert arrivals.sort(ALICE, ids(2, 1), bodies(2, 1)) == (ids(2), bodies(2), ids(1), 1)
    assert arrivals.held(ALICE) == set(ids(2))


@pytest.mark.parametrize("numbers", [(1, 1), (1, 2, 1), (2, 1, 1, 3)])
def test_a_message_that_comes_twice_in_one_run_is_new_once(numbers: tuple[int, ...]) -> None:
    arrivals = Arrivals(10)
    once = list(dict.fromkeys(numbers))
    found = arrivals.sort(ALICE, ids(*numbers), bodies(*numbers))
    assert found == (ids(*once), bodies(*once), [], len(numbers) - len(once))
    assert arrivals.held(ALICE) == set(ids(*once))
    assert arrivals.duplicates == len(numbers) - len(once)


def test_a_message_is_acknowledged_once() -> None:
    arrivals = Arrivals(10)
    new_of(arrivals, ALICE, 1, 2)
    assert arrivals.acknowledge(ALICE, ids(1)) == ids(1)
    assert arrivals.acknowledge(ALICE, ids(1, 2, 3)) == ids(2)
    assert not arrivals.held(ALICE)


def test_a_refused_message_is_new_when_it_is_sent_again() -> None:
    arrivals = Arrivals(10)
    new_of(arrivals, ALICE, 1)
    assert arrivals.refuse(ALICE, message_id(1))
    assert not arrivals.refuse(ALICE, message_id(1))
    assert arrivals.acknowledge(ALICE, ids(1)) == []
    assert new_of(arrivals, ALICE, 1) == bodies(1)


def test_held_messages_are_remembered_however_many_are_acknowledged() -> None:
    arrivals = Arrivals(2)
    new_of(arrivals, ALICE, 0)
    for number in range(1, 500):
        new_of(arrivals, ALICE, number)
        arrivals.acknowledge(ALICE, ids(number))
    assert new_of(arrivals, ALICE, 0) == []
    assert arrivals.acknowledge(ALICE, ids(0)) == ids(0)


@given(st.integers(1, 8), st.lists(st.integers(1, 5), max_size=20))
def test_the_newest_acknowledged_ids_are_remembered(remember: int, batches: list[int]) -> None:
    arrivals = Arrivals(remember)
    count = 0
    for size in batches:
        batch = range(count, count + size)
        new_of(arrivals, ALICE, *batch)
        arrivals.acknowledge(ALICE, ids(*batch))
        count += size
    newest = range(max(0, count - remember), count)
    assert again_of(arrivals, ALICE, *newest) == ids(*newest)


@given(st.integers(1, 20), st.integers(0, 60))
def test_acknowledged_ids_are_forgotten_after_two_generations(remember: int, more: int) -> None:
    arrivals = Arrivals(remember)
    for number in range(2 * remember + more):
        new_of(arrivals, ALICE, number)
        arrivals.acknowledge(ALICE, ids(number))
    assert new_of(arrivals, ALICE, 0) == bodies(0)


def test_nothing_acknowledged_is_remembered_where_nothing_is_to_be() -> None:
    arrivals = Arrivals(0)
    new_of(arrivals, ALICE, 1)
    assert new_of(arrivals, ALICE, 1) == []
    arrivals.acknowledge(ALICE, ids(1))
    assert new_of(arrivals, ALICE, 1) == bodies(1)


@given(st.lists(st.tuples(st.sampled_from([ALICE, BOB]), st.sampled_from(["arrive", "acknowledge", "refuse"]),
                          st.lists(st.integers(0, 5), min_size=1, max_size=4)), max_size=40))
def test_every_message_of_each_sender_is_new_held_or_acknowledged(plan: list[tuple[bytes, str, list[int]]]) -> None:
    arrivals = Arrivals(1000)
    all_held: dict[bytes, set[int]] = {ALICE: set(), BOB: set()}
    all_acknowledged: dict[bytes, set[int]] = {ALICE: set(), BOB: set()}
    duplicates = 0
    for sender, step, numbers in plan:
        held, acknowledged = all_held[sender], all_acknowledged[sender]
        if step == "arrive":
            new = list(dict.fromkeys(number for number in numbers if number not in held | acknowledged))
            again = [number for number in numbers if number in acknowledged]
            expected = (ids(*new), bodies(*new), ids(*again), len(numbers) - len(new))
            assert arrivals.sort(sender, ids(*numbers), bodies(*numbers)) == expected
            held.update(new)
            duplicates += len(numbers) - len(new)
        elif step == "acknowledge":
            released = list(dict.fromkeys(number for number in numbers if number in held))
            assert arrivals.acknowledge(sender, ids(*numbers)) == ids(*released)
            held.difference_update(released)
            acknowledged.update(released)
        else:
            assert arrivals.refuse(sender, message_id(numbers[0])) == (numbers[0] in held)
            held.discard(numbers[0])
        assert arrivals.held(sender) == set(ids(*held))
    assert arrivals.duplicates == duplicates


@pytest.mark.parametrize("remember", [0, 1, 100])
def test_senders_of_whom_nothing_is_remembered_take_no_memory(remember: int) -> None:
    arrivals = Arrivals(remember)

    def hear_from(senders: range) -> None:
        for number in senders:
            sender = b"sender %08d" % number
            arrivals.sort(sender, ids(number), [b""])
            arrivals.acknowledge(sender, ids(number))

    hear_from(range(1000))
    tracemalloc.start()
    try:
        hear_from(range(1000, 6000))
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 1_000_000


def test_ids_count_per_sender() -> None:
    arrivals = Arrivals(10)
    assert new_of(arrivals, ALICE, 1) == bodies(1)
    assert new_of(arrivals, BOB, 1) == bodies(1)
    new_of(arrivals, ALICE, 3)
    arrivals.acknowledge(ALICE, ids(3))
    assert new_of(arrivals, BOB, 3) == bodies(3)


def test_another_senders_message_of_the_same_id_does_not_make_a_held_one_new() -> None:
    arrivals = Arrivals(10)
    new_of(arrivals, ALICE, 1)
    new_of(arrivals, BOB, 1)
    assert new_of(arrivals, ALICE, 1) == []
    assert new_of(arrivals, BOB, 1) == []


def test_another_senders_message_of_the_same_id_does_not_make_an_acknowledged_one_new() -> None:
    arrivals = Arrivals(10)
    for sender in (ALICE, BOB):
        new_of(arrivals, sender, 1)
        arrivals.acknowledge(sender, ids(1))
    assert again_of(arrivals, ALICE, 1) == ids(1)
    assert again_of(arrivals, BOB, 1) == ids(1)


def test_messages_of_the_same_id_are_acknowledged_to_each_of_their_senders() -> None:
    arrivals = Arrivals(10)
    new_of(arrivals, ALICE, 1)
    new_of(arrivals, BOB, 1)
    assert arrivals.acknowledge(ALICE, ids(1)) == ids(1)
    assert arrivals.acknowledge(BOB, ids(1)) == ids(1)
