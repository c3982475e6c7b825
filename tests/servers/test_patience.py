"""How long nothing has moved, by a clock of the test's own."""

from __future__ import annotations

import math

import pytest

from netmsg.servers import patience
from netmsg.servers.patience import Patience


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    return clock


def looks(patient: Patience, clock: Clock, moves: list[int]) -> float:
    """Looks until the time is up; what is seen follows ``moves``, one a look, and stays the last. How long it took."""
    begin = clock.now
    seen: object = None
    while True:
        seen = moves.pop(0) if moves else seen
        left = patient.left(seen)
        if not left:
            return clock.now - begin
        clock.now += left


def test_it_runs_out_when_nothing_moves(clock: Clock) -> None:
    assert looks(Patience(8.0), clock, [1]) == 8.0


def test_it_begins_anew_whenever_something_has_moved(clock: Clock) -> None:
    assert looks(Patience(8.0), clock, [1, 2, 2, 2, 3, 4, 5]) == 6 * 2.0 + 8.0


def test_some_have_none_and_some_have_no_end_of_it(clock: Clock) -> None:
    assert Patience(0.0).left(1) == 0
    assert Patience(math.inf).left(1) == math.inf
