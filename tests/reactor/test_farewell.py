"""Waiting until the other end has everything, by a clock of the test's own."""

from __future__ import annotations

import pytest
from support.channels import Loop, Script, Socket, as_any

from netmsg.reactor.farewell import LINGER, Farewell


class Other:
    """The other end, which does not have everything yet."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.machine = self.loop.machine
        self.machine.missing = 100
        self.transport = Script()
        self.left_at: list[tuple[float, bool]] = []
        self.errors: list[Exception] = []

    def left(self, *, given_up: bool) -> None:
        self.left_at.append((self.loop.now - 1000.0, given_up))

    def _crashed(self, error: Exception) -> None:
        self.errors.append(error)

    def begin(self, patience: float = 5.0, *, answered: bool = True) -> Farewell:
        leaving = Farewell(as_any(self.loop), as_any(Socket()), self.transport, self, patience, answered=answered)
        leaving.begin()
        return leaving


@pytest.fixture
def other() -> Other:
    return Other()


def test_it_is_over_when_everything_has_arrived(other: Other) -> None:
    other.begin()
    other.loop.advance(3.0)
    assert not other.left_at
    other.machine.missing = 0
    other.loop.advance(0.3)
    (at, given_up), = other.left_at
    assert 3.0 <= at <= 3.2 and not given_up
    assert other.loop.pending == []


def test_at_once_if_it_has(other: Other) -> None:
    other.machine.missing = 0
    other.begin()
    assert other.left_at == [(0.0, False)]


def test_what_has_come_by_then_is_received_so_that_closing_is_no_reset(other: Other) -> None:
    other.machine.missing = 0
    other.transport.incoming += (b"un", b"read")
    other.begin()
    assert not other.transport.incoming and len(other.left_at) == 1


def test_but_not_without_end(other: Other) -> None:
    other.machine.missing = 0
    other.transport.incoming += [b"more"] * 1000
    other.begin()
    assert other.transport.incoming and len(other.left_at) == 1


def test_who_takes_nothing_is_given_up_and_who_takes_little_is_not(other: Other) -> None:
    other.begin(patience=5.0)
    for _ in range(10):
        other.loop.advance(4.0)
        other.machine.missing -= 1
    assert not other.left_at
    other.loop.advance(10.0)
    (at, given_up), = other.left_at
    assert 44.0 <= at <= 46.0 and given_up
    assert other.loop.pending == []


def test_a_goodbye_that_has_not_gone_is_something_that_it_has_not_got(other: Other) -> None:
    other.machine.missing = 0
    other.transport.unsent = True
    other.begin(patience=5.0)
    other.loop.advance(4.0)
    assert not other.left_at
    other.transport.unsent = False
    other.loop.advance(0.3)
    assert [given_up for _, given_up in other.left_at] == [False]


def test_everybody_has_a_moment(other: Other) -> None:
    other.begin(patience=0.0)
    other.loop.advance(LINGER - 0.3)
    assert not other.left_at
    other.loop.advance(0.6)
    assert [given_up for _, given_up in other.left_at] == [True]


@pytest.mark.parametrize("answered", [True, False])
def test_under_tls_who_was_told_something_may_say_goodbye(other: Other, answered: bool) -> None:
    other.machine.missing = 0
    other.transport.tls = object()
    leaving = other.begin(answered=answered)
    assert bool(other.left_at) is not answered
    if answered:
        other.transport.incoming.append(b"")
        leaving.discard()
        assert other.left_at == [(0.0, False)] and other.loop.pending == []


def test_but_not_for_ever(other: Other) -> None:
    other.machine.missing = 0
    other.transport.tls = object()
    other.begin()
    other.loop.advance(LINGER)
    assert other.left_at == [(LINGER, False)]


@pytest.mark.parametrize("what", [b"", ConnectionResetError()])
def test_the_other_end_may_end_it(other: Other, what: bytes | OSError) -> None:
    leaving = other.begin()
    other.transport.incoming.extend([b"more", what])
    leaving.discard()
    leaving.discard()
    assert other.left_at == [(0.0, False)] and other.loop.pending == []


def test_nothing_to_drop_is_no_end(other: Other) -> None:
    other.begin().discard()
    assert not other.left_at


def test_once_it_is_cancelled_nobody_hears_of_it(other: Other) -> None:
    other.begin().cancel()
    other.machine.missing = 0
    other.loop.advance(100.0)
    assert not other.left_at


def test_a_step_that_fails_is_told(other: Other) -> None:
    error = ValueError()
    other.begin()._crashed(error)
    assert other.errors == [error]
