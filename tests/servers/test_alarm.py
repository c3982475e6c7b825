"""A time that is put off, by a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest
from support.channels import Loop

from netmsg.servers import alarm as module
from netmsg.servers.alarm import Alarm


class Waiter:
    def __init__(self) -> None:
        self.loop = Loop()
        self.io: Any = self.loop
        self.alarm = Alarm()
        self.rung: list[float] = []

    def expect(self, seconds: float | None) -> None:
        self.alarm.expect(seconds)
        self.alarm.arm(self.io, self.fire)

    def fire(self) -> None:
        if self.alarm.fired(self.io, self.fire):
            self.rung.append(self.loop.now - 1000.0)


@pytest.fixture
def waiter(monkeypatch: pytest.MonkeyPatch) -> Waiter:
    waiter = Waiter()
    monkeypatch.setattr(module, "time", waiter.loop)
    return waiter


def test_it_rings_when_the_time_is_up(waiter: Waiter) -> None:
    waiter.expect(5.0)
    waiter.loop.advance(4.9)
    assert not waiter.rung
    waiter.loop.advance(1.0)
    assert waiter.rung == [5.0] and waiter.loop.pending == []


def test_to_put_it_off_costs_no_timer(waiter: Waiter) -> None:
    waiter.expect(5.0)
    timer = waiter.alarm.timer
    for _ in range(4):
        waiter.loop.advance(1.0)
        waiter.expect(5.0)
        assert waiter.alarm.timer is timer
    waiter.loop.advance(10.0)
    assert waiter.rung == [9.0]


def test_a_sooner_time_takes_the_place_of_a_later_one(waiter: Waiter) -> None:
    waiter.expect(50.0)
    waiter.expect(5.0)
    assert waiter.loop.pending == [5.0]
    waiter.loop.advance(100.0)
    assert waiter.rung == [5.0]


def test_who_waits_no_more_is_not_rung_for(waiter: Waiter) -> None:
    waiter.expect(5.0)
    waiter.expect(None)
    waiter.loop.advance(100.0)
    assert not waiter.rung and waiter.loop.pending == []


def test_never_needs_no_timer(waiter: Waiter) -> None:
    waiter.expect(None)
    assert waiter.loop.pending == []


def test_cancelled_it_is_silent(waiter: Waiter) -> None:
    waiter.alarm.cancel()
    waiter.expect(5.0)
    waiter.alarm.cancel()
    waiter.loop.advance(100.0)
    assert not waiter.rung
