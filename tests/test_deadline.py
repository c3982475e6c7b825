"""One time budget across several steps, on a clock that the tests turn."""

from __future__ import annotations

import threading
from fractions import Fraction
from typing import Any

import pytest

from netmsg import deadline
from netmsg.deadline import HELD, Deadline, Overtime


class Clock:
    """Stands in for the ``time`` module."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(deadline, "time", made)
    return made


def test_the_time_left_runs_down_to_zero_and_stays_there(clock: Clock) -> None:
    budget = Deadline(2.5)
    left = []
    for clock.now in (1000.0, 1001.0, 1002.25, 1002.5, 1010.0):
        left.append(budget.remaining())
    assert left == [2.5, 1.5, 0.25, 0.0, 0.0]


def test_a_deadline_has_expired_at_its_moment_and_not_before(clock: Clock) -> None:
    budget = Deadline(2.5)
    clock.now = 1002.25
    assert not budget.expired
    clock.now = 1002.5
    assert budget.expired


def test_a_timeout_of_zero_has_expired_already(clock: Clock) -> None:
    budget = Deadline(0)
    assert budget.expired
    assert budget.remaining() == 0.0
    assert budget.lock_timeout() == 0.0


def test_without_a_timeout_a_deadline_never_expires(clock: Clock) -> None:
    budget = Deadline(None)
    clock.now = 1e12
    assert not budget.expired
    assert budget.remaining() is None
    assert budget.lock_timeout() == -1


def test_the_time_left_is_fit_for_a_lock(clock: Clock) -> None:
    budget = Deadline(2.5)
    assert budget.lock_timeout() == 2.5
    clock.now = 1003.0
    assert budget.lock_timeout() == 0.0


@pytest.mark.parametrize("timeout", [None, 0, 1e300, float("inf"), threading.TIMEOUT_MAX * 2])
def test_locks_take_whatever_a_deadline_gives_them(timeout: float | None) -> None:
    lock = threading.Lock()
    assert lock.acquire(True, Deadline(timeout).lock_timeout())


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), float("-inf"), -1e300])
def test_negative_and_nan_timeouts_are_value_errors(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be"):
        Deadline(timeout)


@pytest.mark.parametrize("timeout", ["1", b"1", [1], {}, object(), 1j])
def test_what_is_no_number_is_a_type_error(timeout: Any) -> None:
    with pytest.raises(TypeError):
        Deadline(timeout)


@pytest.mark.parametrize("timeout", [0, 1, 2.5, True, Fraction(1, 2), float("inf")])
def test_any_real_number_is_a_timeout(timeout: Any, clock: Clock) -> None:
    assert Deadline(timeout).remaining() == (None if timeout == float("inf") else timeout)


def test_overtime_lasts_for_so_many_bytes_and_so_long(clock: Clock) -> None:
    given = Deadline(1.0)
    overtime = Overtime(given)
    assert not overtime.is_over(1 << 40)
    clock.now += 1.25
    assert given.overdue == 0.25
    assert not overtime.is_over(HELD)
    assert overtime.is_over(1)
    late = Overtime(given)
    assert not late.is_over(1)
    clock.now += 1.0
    assert late.is_over(1)


def test_who_has_for_ever_is_never_overdue(clock: Clock) -> None:
    overtime = Overtime(Deadline(None))
    clock.now += 1e9
    assert Deadline(None).overdue == 0.0 and not overtime.is_over(1 << 40)
