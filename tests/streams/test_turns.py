"""Turns: nobody is passed over for ever, and whoever leaves the queue leaves nothing behind."""

from __future__ import annotations

import io
from collections.abc import Callable
from threading import Event, get_ident
from typing import Any

import pytest
from support.blocking import until_asleep
from support.pairs import TIMEOUT, Background, until
from support.strikes import Strike, Struck, strike_everywhere

from netmsg import ByteStream, ClosedError, LocalProtocolError, memory_stream_pair
from netmsg.deadline import Deadline
from netmsg.streams import turns
from netmsg.streams.turns import Claim, Turn
from netmsg.waiting import wait_by


def let_go(turn: Turn, claim: Claim) -> None:
    if turn.holder is claim:
        turn.holder = turn.heir
        turn.heir = None
    turn.pass_on()


def take_and_let_go(turn: Turn, timeout: float | None = TIMEOUT) -> None:
    claim = [get_ident()]
    try:
        turn.take(claim, Deadline(timeout))
    finally:
        let_go(turn, claim)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.0)


def test_who_comes_between_is_let_through_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", TIMEOUT)
    turn = Turn()
    claim = [get_ident()]
    turn.take(claim, Deadline(0))
    waiting = Background(take_and_let_go, turn)
    until_asleep(waiting)
    for _ in range(100):
        turn.holder = turn.heir  # as `let_go`, but that nobody is woken
        turn.take(claim, Deadline(0))
    assert waiting.is_alive()
    let_go(turn, claim)
    waiting.result()


@pytest.mark.usefixtures("impatient")
def test_who_has_waited_long_enough_is_handed_the_turn() -> None:
    turn = Turn()
    first = [get_ident()]
    turn.take(first, Deadline(0))
    order: list[int] = []

    def wait(number: int) -> None:
        claim = [get_ident()]
        try:
            turn.take(claim, Deadline(TIMEOUT))
            order.append(number)
        finally:
            let_go(turn, claim)

    waiting = []
    for number in range(3):
        waiting.append(Background(wait, number))
        until_asleep(*waiting)
    let_go(turn, first)
    take_and_let_go(turn)
    for thread in waiting:
        thread.result()
    assert order == [0, 1, 2]


@pytest.mark.usefixtures("impatient")
def test_who_loops_does_not_come_before_who_waits() -> None:
    turn = Turn()
    claim = [get_ident()]
    turn.take(claim, Deadline(0))
    had_it = Event()

    def wait() -> None:
        own = [get_ident()]
        try:
            turn.take(own, Deadline(TIMEOUT))
            had_it.set()
        finally:
            let_go(turn, own)

    waiting = Background(wait)
    until(lambda: turn.heir is not None)
    let_go(turn, claim)
    while waiting.is_alive():  # a newcomer gets it only once the other one is through
        try:
            turn.take(claim, Deadline(0))
        except TimeoutError:
            continue
        assert had_it.is_set()
        let_go(turn, claim)
    waiting.result()


@pytest.mark.usefixtures("impatient")
def test_an_heir_whose_time_is_up_is_none_any_more() -> None:
    turn = Turn()
    claim = [get_ident()]
    turn.take(claim, Deadline(0))
    waiting = [Background(take_and_let_go, turn, 0.05), Background(take_and_let_go, turn, 0.05)]
    for thread in waiting:
        with pytest.raises(TimeoutError):
            thread.result()
    assert turn.heir is None and not turn.waiting
    let_go(turn, claim)
    take_and_let_go(turn, 0)


@pytest.mark.usefixtures("impatient")
def test_an_interrupted_heir_passes_on_what_it_was_handed() -> None:
    def trial(strike: Strike) -> None:
        turn = Turn()
        held, may_go = Event(), Event()

        def hold() -> None:
            claim = [get_ident()]
            try:
                turn.take(claim, Deadline(TIMEOUT))
                held.set()
                assert may_go.wait(TIMEOUT)
                until(lambda: turn.heir is not None or ended)
            finally:
                let_go(turn, claim)

        ended: list[bool] = []
        holding = Background(hold)
        assert held.wait(TIMEOUT)
        claim = [get_ident()]
        try:
            may_go.set()
            with strike:
                turn.take(claim, Deadline(TIMEOUT))
        except Struck:
            pass
        finally:
            ended.append(True)
            let_go(turn, claim)
        holding.result()
        assert turn.holder is turn.heir is None and not turn.waiting
        take_and_let_go(turn, 0)

    assert strike_everywhere(trial) > 5


@pytest.mark.parametrize("timeout", [None, TIMEOUT, 0])
def test_nobody_waits_for_a_call_of_the_same_thread(timeout: float | None) -> None:
    turn = Turn()
    claim = [get_ident()]
    turn.take(claim, Deadline(0))
    with pytest.raises(LocalProtocolError, match="same thread"):
        take_and_let_go(turn, timeout)
    assert turn.holder is claim and not turn.waiting
    let_go(turn, claim)
    take_and_let_go(turn, 0)


def test_whoever_waits_can_be_refused_and_who_insists_waits_on() -> None:
    turn = Turn()
    claim = [get_ident()]
    turn.take(claim, Deadline(0))

    def insist() -> None:
        own = [get_ident()]
        try:
            turn.take(own, Deadline(TIMEOUT), insist=True)
        finally:
            let_go(turn, own)

    insisting: Any = Background(insist)
    waiting = [Background(take_and_let_go, turn) for _ in range(3)]
    until_asleep(insisting, *waiting)
    turn.refuse(lambda: ClosedError("closed"))
    for thread in waiting:
        with pytest.raises(ClosedError):
            thread.result()
    with pytest.raises(ClosedError):
        take_and_let_go(turn)
    assert insisting.is_alive()
    let_go(turn, claim)
    insisting.result()


def test_nobody_waits_behind_a_call_of_the_same_thread_that_waits() -> None:
    """As a signal handler would, while the main thread waits for another."""
    refused: list[bool] = []

    def interrupted(ticket: Any, deadline: Deadline) -> bool:
        if not refused:
            refused.append(False)
            with pytest.raises(LocalProtocolError, match="same thread"):
                take_and_let_go(turn)
            refused[0] = True
        return wait_by(ticket, deadline)

    turn = Turn(interrupted)
    claim = [get_ident()]
    turn.take(claim, Deadline(0))
    waiting = Background(take_and_let_go, turn)
    until(lambda: refused == [True])
    let_go(turn, claim)
    waiting.result()
    assert turn.holder is None and not turn.waiting


class Calling(io.BytesIO):
    """Calls something while it is read or written, as a signal handler may at any moment."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(b"content")
        self._call = call

    def read(self, size: int | None = -1, /) -> bytes:
        self._call()
        return super().read(size)

    def write(self, data: Any, /) -> int:
        self._call()
        return super().write(data)


@pytest.mark.parametrize("outer, inner", [
    (ByteStream.send_file, lambda stream: stream.send_all(b"x")),
    (ByteStream.send_file, lambda stream: stream.send_eof()),
    (ByteStream.receive_file, lambda stream: stream.receive()),
    (ByteStream.receive_file, lambda stream: stream.receive_until(b"\n")),
])
def test_a_call_from_inside_of_another_in_the_same_direction_is_refused(
        outer: Callable[[ByteStream, io.BytesIO], object], inner: Callable[[ByteStream], object]) -> None:
    one, other = memory_stream_pair()
    with one, other:
        other.send_all(b"content")
        with pytest.raises(LocalProtocolError, match="same thread"):
            Background(outer, one, Calling(lambda: inner(one))).result()
        assert one.receive(timeout=TIMEOUT) == b"content"
