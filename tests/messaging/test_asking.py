"""``authorize`` is asked about one newcomer after the other, and about nobody who has gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.loops import Loop

from netmsg.errors import ClosedError
from netmsg.messaging.asking import Asking
from netmsg.messaging.life import Life


class Newcomer:
    """Somebody who asks to be let in: what is known of it, and how it was judged."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.verdicts: list[tuple[Any, BaseException | None]] = []

    def info(self) -> Any:
        return self.name

    def judged(self, verdict: bool, error: BaseException | None) -> None:
        self.verdicts.append((verdict, error))


class Callbacks:
    """In place of the thread on which the user's function runs: it runs when the test lets it."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[..., Any], tuple[Any, ...], Callable[[Any, BaseException | None], None]]] = []
        self.closed = False

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...],
            done: Callable[[Any, BaseException | None], None]) -> None:
        if self.closed:
            done(None, ClosedError("the Søcket is closed"))
        else:
            self.waiting.append((function, arguments, done))

    def run_next(self) -> None:
        function, arguments, done = self.waiting.pop(0)
        try:
            result = function(*arguments)
        except Exception as error:
            done(None, error)
        else:
            done(result, None)


class Desk:
    """The asking, with all that it needs, and a function that lets everybody in but those who are ``unwanted``."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.unwanted: set[str] = set()
        self.loop: Any = Loop()
        self.callbacks: Any = Callbacks()
        self.life = Life()
        self.authorize_by(self.authorize)

    def authorize_by(self, function: Callable[[Any], Any]) -> None:
        self.asking = Asking(function, self.callbacks, self.life, self.loop)

    def authorize(self, info: Any) -> Any:
        self.asked.append(info)
        return info not in self.unwanted

    def add(self, *names: str) -> list[Newcomer]:
        newcomers = [Newcomer(name) for name in names]
        for newcomer in newcomers:
            self.asking.add(newcomer)
        return newcomers

    def answer(self) -> None:
        """The user's function answers once, and the network thread hears of it."""
        self.callbacks.run_next()
        self.loop.run()


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_the_answer_is_the_newcomers(desk: Desk) -> None:
    desk.unwanted.add("two")
    one, two = desk.add("one", "two")
    desk.answer()
    desk.answer()
    assert one.verdicts == [(True, None)] and two.verdicts == [(False, None)]


def test_it_asks_about_one_at_a_time_the_oldest_first(desk: Desk) -> None:
    desk.add("one", "two", "three")
    for asked in (["one"], ["one", "two"], ["one", "two", "three"]):
        assert len(desk.callbacks.waiting) == 1
        desk.answer()
        assert desk.asked == asked
    assert not desk.callbacks.waiting


def test_it_begins_anew_when_somebody_comes_later(desk: Desk) -> None:
    desk.add("one")
    desk.answer()
    (two,) = desk.add("two")
    desk.answer()
    assert two.verdicts == [(True, None)]


def test_the_newcomer_is_told_on_the_network_thread(desk: Desk) -> None:
    (one,) = desk.add("one")
    desk.callbacks.run_next()
    assert not one.verdicts
    desk.loop.run()
    assert one.verdicts == [(True, None)]


def test_the_next_is_asked_about_by_the_network_thread(desk: Desk) -> None:
    desk.add("one", "two")
    desk.callbacks.run_next()
    assert not desk.callbacks.waiting
    desk.loop.run()
    assert desk.callbacks.waiting


def test_nobody_is_asked_about_who_has_gone(desk: Desk) -> None:
    _, two, three = desk.add("one", "two", "three")
    desk.asking.forget(two)
    desk.answer()
    desk.answer()
    assert desk.asked == ["one", "three"] and not two.verdicts and three.verdicts


def test_who_goes_while_it_is_asked_about_does_not_hold_up_the_next(desk: Desk) -> None:
    one, two = desk.add("one", "two")
    desk.asking.forget(one)
    desk.answer()
    desk.answer()
    assert two.verdicts == [(True, None)]
    assert one.verdicts == [(True, None)], "it knows itself that it has gone"


def test_who_was_never_there_may_be_forgotten(desk: Desk) -> None:
    desk.asking.forget(Newcomer("nobody"))


def test_what_the_function_raises_is_the_newcomers(desk: Desk) -> None:
    def fail(info: Any) -> Any:
        raise error

    error = ArithmeticError("in authorize")
    desk.authorize_by(fail)
    one, two = desk.add("one", "two")
    desk.answer()
    desk.answer()
    assert one.verdicts == [(None, error)] and two.verdicts == [(None, error)]


@pytest.mark.parametrize("answer, verdict", [(None, False), ("yes", True), ([], False)])
def test_the_answer_is_taken_for_what_it_is_worth(desk: Desk, answer: Any, verdict: bool) -> None:
    desk.authorize_by(lambda info: answer)
    (one,) = desk.add("one")
    desk.answer()
    assert one.verdicts == [(verdict, None)]


def test_the_answers_own_code_runs_where_the_function_does(desk: Desk) -> None:
    class Undecided:
        def __bool__(self) -> bool:
            raise ArithmeticError("in __bool__")

    desk.authorize_by(lambda info: Undecided())
    (one,) = desk.add("one")
    desk.answer()
    ((verdict, error),) = one.verdicts
    assert verdict is None and isinstance(error, ArithmeticError)


def test_where_nobody_can_be_asked_any_more_all_are_told_so(desk: Desk) -> None:
    """However many they are: one answer does not come inside another."""
    first, *others = desk.add(*map(str, range(5000)))
    desk.callbacks.closed = True
    desk.answer()
    assert desk.asked == ["0"] and first.verdicts == [(True, None)]
    for newcomer in others:
        ((verdict, error),) = newcomer.verdicts
        assert not verdict and isinstance(error, ClosedError)


def test_one_of_whom_nothing_can_be_said_does_not_keep_others_from_being_asked_about(
        desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(newcomer: Newcomer) -> Any:
        raise ArithmeticError("on looking")

    with monkeypatch.context() as patch, pytest.raises(ArithmeticError):
        patch.setattr(Newcomer, "info", fail)
        desk.add("one")
    (two,) = desk.add("two")
    desk.answer()
    assert two.verdicts == [(True, None)]


def test_a_step_of_its_own_that_fails_is_the_whole_søckets(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(newcomer: Newcomer) -> Any:
        raise error

    crashes: list[BaseException] = []
    desk.life.on_crash = crashes.append
    error = ArithmeticError("on looking")
    one, _ = desk.add("one", "two")
    monkeypatch.setattr(Newcomer, "info", fail)
    desk.answer()
    assert crashes == [error] and one.verdicts == [(True, None)]


def test_a_step_of_the_newcomers_is_its_own(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(newcomer: Newcomer, verdict: bool, error: BaseException | None) -> None:
        raise ArithmeticError("on coming in")

    crashes: list[BaseException] = []
    desk.life.on_crash = crashes.append
    desk.add("one")
    monkeypatch.setattr(Newcomer, "judged", fail)
    with pytest.raises(ArithmeticError):
        desk.answer()
    assert crashes == []
