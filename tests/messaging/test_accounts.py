"""Who has how much of the receive marks left, those included that have gone and left something."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.midst import in_the_midst, lines
from support.settings import settings

from netmsg.messaging.accounts import MOST_MARKS, Accounts
from netmsg.messaging.credit import Credit

HWM = 10
HWM_BYTES = 1000


class Holder:
    """A connection, of which the test says what happens when it is read again."""

    def __init__(self, identity: bytes = b"a", paused: bool = False) -> None:
        self.identity = identity
        self.paused = paused
        self.resumed = 0
        self.when_resumed: Callable[[], None] = self.read_on

    def read_on(self) -> None:
        self.paused = False

    def resume_safely(self) -> None:
        self.resumed += 1
        self.when_resumed()


class Bank:
    """The accounts, and what is told of a flood."""

    def __init__(self) -> None:
        self.told: list[bool] = []
        self.accounts = Accounts(settings(recv_hwm=HWM, recv_hwm_bytes=HWM_BYTES), self.told.append)

    def take(self, credit: Credit, messages: int, size: int = 0) -> None:
        """Take messages, and say so if somebody waits for it, as the receiving half does."""
        credit.taken += messages
        credit.taken_bytes += size
        if credit.waits:
            self.accounts.taken_from(credit)

    def leave_something(self, identity: bytes, messages: int, size: int = 0) -> Credit:
        """Come, have something delivered, and go."""
        holder = Holder(identity)
        credit = self.accounts.open(holder)
        credit.arrived += messages
        credit.arrived_bytes += size
        self.accounts.leave(holder)
        return credit


@pytest.fixture
def bank() -> Bank:
    return Bank()


def test_an_identity_has_the_marks_of_the_settings(bank: Bank) -> None:
    credit = bank.accounts.open(Holder(b"a"))
    assert (credit.identity, credit.hwm, credit.hwm_bytes) == (b"a", HWM, HWM_BYTES)
    assert credit.room() == HWM and not credit.waits


def test_all_connections_of_one_identity_share_a_credit(bank: Bank) -> None:
    first = bank.accounts.open(Holder(b"a"))
    assert bank.accounts.open(Holder(b"a")) is first
    assert bank.accounts.open(Holder(b"b")) is not first
    assert bank.accounts.connections_of(b"a") == 2
    assert bank.accounts.connections_of(b"b") == 1
    assert bank.accounts.connections_of(b"c") == 0


def test_who_connects_again_gets_no_second_allowance(bank: Bank) -> None:
    credit = bank.leave_something(b"a", HWM)
    assert bank.accounts.connections_of(b"a") == 0
    again = bank.accounts.open(Holder(b"a"))
    assert again is credit and again.room() == 0


def test_nothing_is_kept_of_who_has_gone_and_left_nothing(bank: Bank) -> None:
    credit = bank.leave_something(b"a", 0)
    assert bank.accounts.open(Holder(b"a")) is not credit


def test_nothing_is_kept_of_who_has_gone_once_all_is_taken(bank: Bank) -> None:
    credit = bank.leave_something(b"a", 2)
    bank.take(credit, 1)
    again = Holder(b"a")
    assert bank.accounts.open(again) is credit
    bank.accounts.leave(again)
    bank.take(credit, 1)
    assert bank.accounts.open(Holder(b"a")) is not credit


def test_while_another_connection_is_there_the_account_stays(bank: Bank) -> None:
    one, other = Holder(b"a"), Holder(b"a")
    credit = bank.accounts.open(one)
    bank.accounts.open(other)
    bank.accounts.leave(one)
    assert bank.accounts.connections_of(b"a") == 1
    assert bank.accounts.open(Holder(b"a")) is credit and not credit.waits


def test_who_was_never_let_in_may_leave_and_anybody_may_twice(bank: Bank) -> None:
    bank.accounts.leave(Holder(b"a"))
    holder = Holder(b"a")
    bank.accounts.open(holder)
    bank.accounts.leave(Holder(b"a"))
    assert bank.accounts.connections_of(b"a") == 1
    bank.accounts.leave(holder)
    bank.accounts.leave(holder)
    assert bank.accounts.connections_of(b"a") == 0


# What is taken


def test_those_are_read_again_that_are_paused(bank: Bank) -> None:
    paused, reading, stranger = Holder(b"a", paused=True), Holder(b"a"), Holder(b"b", paused=True)
    credit = bank.accounts.open(paused)
    bank.accounts.open(reading)
    bank.accounts.open(stranger)
    bank.accounts.taken_from(credit)
    assert (paused.resumed, reading.resumed, stranger.resumed) == (1, 0, 0)


def test_it_goes_on_waiting_while_somebody_is_paused_still(bank: Bank) -> None:
    holder = Holder(b"a", paused=True)
    holder.when_resumed = lambda: None  # there is too little room
    credit = bank.accounts.open(holder)
    bank.accounts.taken_from(credit)
    assert credit.waits
    holder.when_resumed = holder.read_on
    bank.accounts.taken_from(credit)
    assert not credit.waits


def test_it_waits_for_what_those_have_left_who_have_gone(bank: Bank) -> None:
    assert bank.leave_something(b"a", 1).waits


def test_what_is_taken_of_an_identity_that_is_forgotten_concerns_nobody(bank: Bank) -> None:
    holder = Holder(b"a", paused=True)
    bank.accounts.open(holder)
    bank.accounts.taken_from(Credit(b"b", HWM, HWM_BYTES))
    assert not holder.resumed and not bank.told


def test_a_late_word_about_a_credit_that_is_gone_does_not_concern_the_next(bank: Bank) -> None:
    gone = bank.leave_something(b"a", 1)
    bank.take(gone, 1)
    credit = bank.leave_something(b"a", 5)
    assert credit is not gone
    bank.accounts.taken_from(gone)  # two takers have said so
    assert bank.accounts.open(Holder(b"a")) is credit


def test_reading_on_may_be_the_end_of_a_connection(bank: Bank) -> None:
    ending, other = Holder(b"a", paused=True), Holder(b"a", paused=True)
    ending.when_resumed = lambda: bank.accounts.leave(ending)
    credit = bank.accounts.open(ending)
    bank.accounts.open(other)
    bank.accounts.taken_from(credit)
    assert other.resumed and bank.accounts.connections_of(b"a") == 1
    assert not credit.waits


def test_who_takes_the_place_of_one_that_ended_in_reading_on_has_an_account(bank: Bank) -> None:
    """The old one claims nothing any more: it must not take with it what its successor has."""
    ending, successor = Holder(b"a", paused=True), Holder(b"a", paused=True)
    credits = [bank.accounts.open(ending)]

    def be_succeeded() -> None:
        bank.accounts.leave(ending)
        credits.append(bank.accounts.open(successor))

    ending.when_resumed = be_succeeded
    bank.accounts.taken_from(credits[0])
    assert bank.accounts.connections_of(b"a") == 1
    bank.accounts.taken_from(credits[1])
    assert successor.resumed


def test_what_the_successor_leaves_is_counted(bank: Bank) -> None:
    ending = Holder(b"a", paused=True)

    def be_succeeded_by_one_that_goes_at_once() -> None:
        bank.accounts.leave(ending)
        bank.leave_something(b"a", MOST_MARKS * HWM)

    ending.when_resumed = be_succeeded_by_one_that_goes_at_once
    bank.accounts.taken_from(bank.accounts.open(ending))
    assert bank.told == [True]


def test_what_is_taken_at_any_moment_while_its_sender_goes_is_not_forgotten() -> None:
    """The taker only says so if it is waited for, and the network thread makes no second look by itself."""
    moments = []
    for function in (Accounts.leave, Accounts.taken_from, Accounts._note_orphan):
        for line in lines(function):
            bank, holder = Bank(), Holder(b"a")
            credit = bank.accounts.open(holder)
            credit.arrived = MOST_MARKS * HWM
            said: list[Credit] = []

            def take() -> None:
                credit.taken = credit.arrived
                if credit.waits:
                    said.append(credit)

            with in_the_midst(function, line, take) as happened:
                bank.accounts.leave(holder)
            if not happened:
                continue
            moments += happened
            for one in said:
                bank.accounts.taken_from(one)
            assert bank.accounts.open(Holder(b"a")) is not credit, "its account would be kept for ever"
            assert not bank.told or not bank.told[-1]
    assert len(moments) > 10


# What is left behind


@pytest.mark.parametrize("messages, size", [(HWM, 0), (0, HWM_BYTES)], ids=["messages", "bytes"])
def test_when_those_who_have_gone_have_left_too_much_it_is_told_until_some_is_taken(bank: Bank, messages: int,
                                                                                    size: int) -> None:
    left = [bank.leave_something(b"%d" % number, max(1, messages), size) for number in range(MOST_MARKS - 1)]
    assert not bank.told
    last = bank.leave_something(b"last", max(1, messages), size)
    bank.leave_something(b"even more", 1)
    assert bank.told == [True], "once"
    bank.take(left[0], max(1, messages), size)
    assert bank.told == [True, False]
    bank.take(last, max(1, messages), size)
    assert bank.told == [True, False]


def test_what_is_left_counts_no_more_once_its_identity_is_back(bank: Bank) -> None:
    for number in range(MOST_MARKS):
        bank.leave_something(b"%d" % number, HWM)
    assert bank.told == [True]
    back = Holder(b"0")
    bank.accounts.open(back)
    assert bank.told == [True, False]
    bank.accounts.leave(back)
    assert bank.told == [True, False, True]


def test_what_those_have_pending_who_are_there_is_no_flood(bank: Bank) -> None:
    for number in range(2 * MOST_MARKS):
        credit = bank.accounts.open(Holder(b"%d" % number))
        credit.arrived += HWM
        bank.accounts.taken_from(credit)
    assert not bank.told


class Model:
    """What there is, counted anew each time."""

    def __init__(self) -> None:
        self.bank = Bank()
        self.there: dict[bytes, list[Holder]] = {}
        self.credits: dict[bytes, Credit] = {}

    def come(self, identity: bytes, amount: int) -> None:
        holder = Holder(identity)
        self.there.setdefault(identity, []).append(holder)
        credit = self.bank.accounts.open(holder)
        before = self.credits.get(identity)
        if before is not None and (len(self.there[identity]) > 1 or before.pending):
            assert credit is before, "a second allowance"
        self.credits[identity] = credit

    def deliver(self, identity: bytes, amount: int) -> None:
        if self.there.get(identity):
            self.credits[identity].arrived += amount
            self.credits[identity].arrived_bytes += amount * amount

    def take(self, identity: bytes, amount: int) -> None:
        credit = self.credits.get(identity)
        if credit is not None:
            taken = min(amount, credit.pending)
            self.bank.take(credit, taken, credit.pending_bytes * taken // max(1, credit.pending))

    def go(self, identity: bytes, amount: int) -> None:
        if self.there.get(identity):
            self.bank.accounts.leave(self.there[identity].pop())

    @property
    def flooded(self) -> bool:
        left = [self.credits[identity] for identity, there in self.there.items()
                if not there and self.credits[identity].pending > 0]
        return (sum(credit.pending for credit in left) >= MOST_MARKS * HWM
                or sum(credit.pending_bytes for credit in left) >= MOST_MARKS * HWM_BYTES)


deeds = st.tuples(st.sampled_from([Model.come, Model.deliver, Model.take, Model.go]),
                  st.sampled_from([b"a", b"b", b"c"]), st.integers(1, 150))


@given(st.lists(deeds, max_size=40))
def test_a_flood_is_told_of_when_there_is_one_and_when_it_is_over(
        deeds: list[tuple[Callable[[Model, bytes, int], None], bytes, int]]) -> None:
    model = Model()
    for deed, identity, amount in deeds:
        deed(model, identity, amount)
        told = model.bank.told
        assert (bool(told) and told[-1]) == model.flooded
        assert all(one != then for one, then in zip(told, told[1:])), "each is told once"
        assert model.bank.accounts.connections_of(identity) == len(model.there.get(identity, ()))
