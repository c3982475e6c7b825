"""Happy eyeballs: which address is tried when."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netmsg.sockets.addresses import Address
from netmsg.sockets.racing import ATTEMPT_DELAY, Race, interleave

SIX, FOUR, OTHER = 10, 2, 30
SIXES: list[Address] = [(SIX, ("2001:db8::%d" % number, 80, 0, 0)) for number in range(4)]
FOURS: list[Address] = [(FOUR, ("192.0.2.%d" % number, 80)) for number in range(4)]
REFUSED = ConnectionRefusedError("refused")


def starts(race: Race, until: float = 100.0) -> list[tuple[float, Address]]:
    """Every attempt that is started up to ``until``, with none of them ending."""
    started = []
    while race.next_at is not None and race.next_at <= until:
        now = race.next_at
        address = race.start(now)
        assert address is not None
        started.append((now, address))
    return started


# The order


def test_families_alternate_beginning_with_the_first() -> None:
    assert interleave([*SIXES[:3], *FOURS[:2]]) == [SIXES[0], FOURS[0], SIXES[1], FOURS[1], SIXES[2]]
    assert interleave([FOURS[0], *SIXES[:2]]) == [FOURS[0], SIXES[0], SIXES[1]]


def test_nothing_interleaved_is_nothing() -> None:
    assert interleave([]) == []


@given(st.lists(st.tuples(st.sampled_from([SIX, FOUR, OTHER]), st.integers()), max_size=20))
def test_interleaving_keeps_all_addresses_and_the_order_within_each_family(addresses: list[Address]) -> None:
    result = interleave(addresses)
    for family in (SIX, FOUR, OTHER):
        assert [one for one in result if one[0] == family] == [one for one in addresses if one[0] == family]
    assert len(result) == len(addresses)
    assert result[:1] == addresses[:1]


@given(st.integers(0, 10), st.integers(0, 10))
def test_two_families_alternate_for_as_long_as_there_are_both(sixes: int, fours: int) -> None:
    result = interleave([(SIX, number) for number in range(sixes)] + [(FOUR, number) for number in range(fours)])
    runs = [len(list(run)) for _, run in groupby(family for family, _ in result)]
    assert all(length == 1 for length in runs[:-1])


# The timing


def test_attempts_are_started_a_quarter_of_a_second_apart() -> None:
    assert starts(Race([*SIXES[:2], FOURS[0]])) == [(0.0, SIXES[0]), (0.25, FOURS[0]), (0.5, SIXES[1])]
    assert ATTEMPT_DELAY == 0.25


def test_the_first_attempt_starts_at_whatever_time_it_is() -> None:
    race = Race([SIXES[0], FOURS[0]])
    assert race.start(1234.0) == SIXES[0]
    assert race.next_at == 1234.25


def test_it_is_not_time_for_an_attempt_before_the_delay_is_over() -> None:
    race = Race([SIXES[0], FOURS[0]])
    assert race.start(10.0) == SIXES[0]
    assert race.start(10.0) is None
    assert race.start(10.24) is None
    assert race.start(10.25) == FOURS[0]


def test_a_late_look_starts_one_attempt_and_puts_the_next_off() -> None:
    race = Race([SIXES[0], FOURS[0], SIXES[1]])
    race.start(0.0)
    assert race.start(5.0) == FOURS[0]
    assert race.start(5.0) is None
    assert race.next_at == 5.25


def test_a_failure_starts_the_next_attempt_at_once() -> None:
    race = Race([SIXES[0], FOURS[0], SIXES[1]])
    race.start(10.0)
    race.failed(SIXES[0], REFUSED, 10.125)
    assert race.next_at == 10.125
    assert race.start(10.125) == FOURS[0]
    assert race.next_at == 10.375
    assert race.start(10.25) is None


def test_a_late_failure_of_an_early_attempt_starts_the_next_at_once_too() -> None:
    race = Race([*SIXES[:2], *FOURS[:2]])
    race.start(0.0)
    race.start(0.25)
    race.failed(SIXES[0], REFUSED, 0.375)
    assert race.start(0.375) == SIXES[1]
    assert race.next_at == 0.625


def test_no_attempt_is_left_to_ask_for_once_all_have_been_started() -> None:
    race = Race([SIXES[0], FOURS[0]])
    starts(race)
    assert race.next_at is None
    assert race.start(100.0) is None
    race.failed(SIXES[0], REFUSED, 100.0)
    assert race.next_at is None


@given(st.integers(0, 4), st.integers(0, 4))
def test_refused_by_every_address_they_are_all_tried_without_any_delay(sixes: int, fours: int) -> None:
    addresses = SIXES[:sixes] + FOURS[:fours]
    race = Race(addresses)
    tried = []
    while (address := race.start(7.0)) is not None:
        tried.append(address)
        assert not race.lost
        race.failed(address, REFUSED, 7.0)
    assert tried == interleave(addresses)
    assert race.failures == [(address, REFUSED) for address in tried]
    assert race.lost


# The end


def test_a_race_without_addresses_is_lost_from_the_start() -> None:
    race = Race([])
    assert race.lost
    assert race.next_at is None
    assert race.start(0.0) is None


def test_a_race_is_not_lost_while_an_attempt_is_running_or_waiting() -> None:
    race = Race([SIXES[0], FOURS[0]])
    assert not race.lost
    race.start(0.0)
    race.failed(SIXES[0], REFUSED, 0.0)
    assert not race.lost
    race.start(0.0)
    assert not race.lost
    race.failed(FOURS[0], REFUSED, 9.0)
    assert race.lost


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_failures_are_kept_in_the_order_in_which_they_came(order: tuple[int, ...]) -> None:
    race = Race(SIXES[:3])
    starts(race)
    errors = [ConnectionRefusedError(str(number)) for number in order]
    for number, error in zip(order, errors):
        assert not race.lost
        race.failed(SIXES[number], error, 1.0)
    assert race.failures == [(SIXES[number], error) for number, error in zip(order, errors)]
    assert race.lost
