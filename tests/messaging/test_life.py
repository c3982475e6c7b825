"""The life of a Søcket: which state leads to which, and what may still be done in each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.midst import in_the_midst, lines

from netmsg import ClosedError, ForkedError
from netmsg.messaging.life import TRANSITIONS, Life, State

FAILURE = ArithmeticError("a step")


def close(life: Life) -> None:
    life.begin_closing()
    life.end()


def fail(life: Life) -> None:
    life.failure = FAILURE
    close(life)


WAYS: dict[State, Callable[[Life], object]] = {
    State.OPEN: Life.check_open,
    State.CLOSING: Life.begin_closing,
    State.CLOSED: close,
    State.FAILED: fail,
    State.FORKED: Life.fork,
}


def life_in(state: State) -> Life:
    life = Life()
    WAYS[state](life)
    assert life.state is state
    return life


def test_it_begins_open() -> None:
    life = Life()
    assert life.state is State.OPEN
    assert not life.closing and not life.over and not life.closed and not life.forked and life.failure is None


@pytest.mark.parametrize("state, then", [
    (State.OPEN, State.CLOSING),
    (State.CLOSING, State.CLOSING),
    (State.CLOSED, State.CLOSED),
    (State.FAILED, State.FAILED),
    (State.FORKED, State.FORKED),
])
def test_closing_may_begin_at_any_time_and_takes_nothing_back(state: State, then: State) -> None:
    life = life_in(state)
    life.begin_closing()
    assert life.state is then and life.closing and life.over
    life.begin_closing()
    assert life.state is then and life.closing and life.over


def test_a_signal_handler_may_begin_to_close_in_the_midst_of_the_same() -> None:
    struck = []
    for line in lines(Life.begin_closing):
        life = Life()
        with in_the_midst(Life.begin_closing, line, life.begin_closing) as happened:
            life.begin_closing()
        struck += happened
        assert life.state is State.CLOSING and life.closing and life.over
        assert life.end() and life.closed
    assert len(struck) == 4, "before each of its lines"


@pytest.mark.parametrize("state, ends, then", [
    (State.OPEN, False, State.OPEN),
    (State.CLOSING, True, State.CLOSED),
    (State.CLOSED, False, State.CLOSED),
    (State.FAILED, False, State.FAILED),
    (State.FORKED, False, State.FORKED),
])
def test_it_ends_once_and_only_when_it_closes(state: State, ends: bool, then: State) -> None:
    life = life_in(state)
    assert life.end() is ends
    assert life.state is then


def test_with_a_failure_the_end_is_another() -> None:
    life = life_in(State.CLOSING)
    life.failure = FAILURE
    assert life.end() and life.state is State.FAILED
    assert not life.end()


@pytest.mark.parametrize("state", State)
def test_in_a_forked_child_and_in_its_children_all_belongs_to_the_parent(state: State) -> None:
    life = life_in(state)
    for _ in range(2):
        life.fork()
        assert life.state is State.FORKED and life.forked and life.over
        assert not life.closed, "nothing was let go of here"


@pytest.mark.parametrize("state, closing, over, closed, forked", [
    (State.OPEN, False, False, False, False),
    (State.CLOSING, True, True, False, False),
    (State.CLOSED, True, True, True, False),
    (State.FAILED, True, True, True, False),
    (State.FORKED, False, True, False, True),
])
def test_what_is_true_of_each_state(state: State, closing: bool, over: bool, closed: bool, forked: bool) -> None:
    life = life_in(state)
    assert (life.closing, life.over, life.closed, life.forked) == (closing, over, closed, forked)


@pytest.mark.parametrize("state", [state for state in State if state is not State.FORKED])
def test_in_its_own_process_it_may_be_looked_at_in_every_state(state: State) -> None:
    life_in(state).check_process()


@pytest.mark.parametrize("state", State)
def test_in_a_child_it_may_neither_be_looked_at_nor_used(state: State) -> None:
    """Closed or not: whose it is is the more important."""
    life = life_in(state)
    life.fork()
    with pytest.raises(ForkedError, match="parent process"):
        life.check_process()
    with pytest.raises(ForkedError, match="parent process"):
        life.check_open()


def test_while_it_is_open_it_may_be_used() -> None:
    life_in(State.OPEN).check_open()


@pytest.mark.parametrize("state, cause", [(State.CLOSING, None), (State.CLOSED, None), (State.FAILED, FAILURE)])
def test_from_closing_on_it_may_not_be_used_and_says_what_failed(state: State, cause: Exception | None) -> None:
    with pytest.raises(ClosedError, match="the Søcket is closed") as caught:
        life_in(state).check_open()
    assert caught.value.__cause__ is cause


def test_what_fails_is_raised_until_somebody_deals_with_it() -> None:
    life = Life()
    with pytest.raises(ArithmeticError):
        life.on_crash(FAILURE)
    dealt_with: list[BaseException] = []
    life.on_crash = dealt_with.append
    life.on_crash(FAILURE)
    assert dealt_with == [FAILURE] and life.state is State.OPEN


STEPS: dict[str, Callable[[Life], object]] = {
    "begin to close": Life.begin_closing,
    "end": Life.end,
    "fail": fail,
    "fork": Life.fork,
}


@given(st.lists(st.sampled_from(list(STEPS)), max_size=8))
def test_whatever_is_called_in_whatever_order_it_goes_on_and_never_back(steps: list[str]) -> None:
    life = Life()
    for step in steps:
        before, closing, over = life.state, life.closing, life.over
        STEPS[step](life)
        passed = {before} | TRANSITIONS[before] | {after for state in TRANSITIONS[before]
                                                   for after in TRANSITIONS[state]}  # `fail` takes two steps
        assert life.state in passed
        assert life.closing >= closing and life.over >= over
        assert life.over or life.state is State.OPEN


def test_the_table_has_every_way_and_no_other() -> None:
    assert TRANSITIONS == {
        State.OPEN: {State.CLOSING, State.FORKED},
        State.CLOSING: {State.CLOSED, State.FAILED, State.FORKED},
        State.CLOSED: {State.FORKED},
        State.FAILED: {State.FORKED},
        State.FORKED: {State.FORKED},
    }
