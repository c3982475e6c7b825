"""The thread on which users' functions are called. Here the test is that thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from netmsg.errors import ClosedError
from netmsg.reactor import callbacks
from netmsg.reactor.callbacks import Callbacks


class Case:
    """Callbacks with a thread that is one in name only, and what has been told."""

    def __init__(self) -> None:
        self.works: list[Callable[[], None]] = []
        self.complaints: list[tuple[str, BaseException]] = []
        self.told: list[tuple[Any, BaseException | None]] = []
        self.no_more_threads: RuntimeError | None = None
        self.callbacks = Callbacks("authorize", lambda name, error: self.complaints.append((name, error)))

    def thread(self, *, target: Callable[[], None], name: str, daemon: bool) -> Any:
        def start() -> None:
            if self.no_more_threads is not None:
                raise self.no_more_threads
            self.works.append(target)

        assert name.startswith("netmsg-callback-") and daemon
        return SimpleNamespace(start=start)

    def run(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.callbacks.run(function, arguments, lambda result, error: self.told.append((result, error)))

    def work(self) -> None:
        """Be the thread, to its end."""
        self.callbacks.close()
        work, = self.works
        work()


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Case:
    case = Case()
    monkeypatch.setattr(callbacks, "threading",
                        SimpleNamespace(Thread=case.thread, current_thread=threading.current_thread))
    return case


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_one_is_called_after_the_other_and_each_answer_is_told(case: Case, error: BaseException) -> None:
    case.run(divmod, 7, 2)
    case.run(fail, error)
    case.run(len, "abc")
    assert case.told == []
    case.work()
    assert case.told == [((3, 1), None), (None, error), (3, None)]
    assert case.complaints == [("authorize", error)]


def test_nothing_is_called_any_more_once_closed(case: Case) -> None:
    case.callbacks.close()
    case.run(fail, AssertionError("called"))
    (result, error), = case.told
    assert result is None and isinstance(error, ClosedError)
    assert case.works == []


def test_who_comes_while_too_many_wait_is_refused_at_once(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "MOST_WAITING", 3)
    for number in range(4):
        case.run(abs, number)
    (_, error), = case.told
    assert isinstance(error, TimeoutError) and "authorize() has not returned" in str(error)
    case.work()
    assert case.told[1:] == [(0, None), (1, None), (2, None)]


def test_without_a_thread_the_answer_is_why_and_the_next_one_tries_again(case: Case) -> None:
    case.no_more_threads = RuntimeError("can't start new thread")
    case.run(abs, -1)
    assert case.told == [(None, case.no_more_threads)]
    case.no_more_threads = None
    case.run(abs, -2)
    case.work()
    assert case.told[1:] == [(2, None)]


def test_an_answer_that_nobody_can_deal_with_is_logged_and_the_next_is_called(
        case: Case, caplog: pytest.LogCaptureFixture) -> None:
    case.callbacks.run(abs, (-1,), lambda result, error: fail(SystemExit(3)))
    case.run(abs, -2)
    case.work()
    assert case.told == [(2, None)]
    assert [(record.levelno, record.name) for record in caplog.records] == [(logging.ERROR, "netmsg.messaging")]
