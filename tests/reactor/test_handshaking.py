"""TLS handshakes under way: how many, which are given up, and what they end with."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.loops import Descriptor, Loop
from support.machines import HandMachine

from netmsg.reactor import handshaking
from netmsg.reactor.handshaking import Handshake, PendingHandshakes, step_aside
from netmsg.reactor.polling import READ


class Stub:
    """In the place of a handshake."""

    def __init__(self, pending: PendingHandshakes, machine: HandMachine) -> None:
        self.pending = pending
        self.machine = machine
        self.given_up = self.is_aside = False

    def fileno(self) -> int:
        return id(self)

    def hears(self) -> None:
        """What it waits for has come."""
        self.machine.speaking.add(self.fileno())

    def give_up(self) -> None:
        self.given_up = True
        self.pending.discard(self)  # type: ignore[arg-type]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Stub]:
    monkeypatch.setattr(handshaking, "MOST_PENDING", 3)
    machine = Loop().machine
    pending: Any = PendingHandshakes(machine.readable)

    def make() -> Stub:
        stub = Stub(pending, machine)
        pending.add(stub)
        return stub

    return make


def given_up(stubs: list[Stub]) -> list[int]:
    return [number for number, stub in enumerate(stubs) if stub.given_up]


def test_the_oldest_goes_when_there_are_too_many(begin: Callable[[], Stub]) -> None:
    stubs = [begin() for _ in range(3)]
    assert given_up(stubs) == []
    stubs += [begin() for _ in range(2)]
    assert given_up(stubs) == [0, 1]


def test_whose_step_is_done_aside_is_spared(begin: Callable[[], Stub]) -> None:
    stubs = [begin() for _ in range(3)]
    stubs[0].is_aside = True
    stubs.append(begin())
    assert given_up(stubs) == [1]


def test_who_waits_for_this_end_is_spared(begin: Callable[[], Stub]) -> None:
    stubs = []
    for number in range(6):
        stubs.append(begin())
        if number in (0, 1, 2, 4):
            stubs[-1].hears()
    # The fourth had three before it that were spared; the newest itself never goes.
    assert given_up(stubs) == [3]
    stubs += [begin(), begin()]
    assert given_up(stubs) == [3, 5, 6]


def test_but_not_twice_as_many(begin: Callable[[], Stub]) -> None:
    stubs = []
    for _ in range(10):
        stubs.append(begin())
        stubs[-1].hears()
    assert given_up(stubs) == [0, 1, 2, 3]


def test_who_has_ended_does_not_count(begin: Callable[[], Stub]) -> None:
    stubs = []
    for _ in range(10):
        stubs.append(begin())
        stubs[-1].pending.discard(stubs[-1])  # type: ignore[arg-type]
    assert given_up(stubs) == []


class Aside(Loop):
    """In place of the loop, of threads, and of the transport of a handshake whose steps go aside."""

    calls_back = True
    readable = unsent = False

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.steps: list[Callable[[], None]] = []
        self.watched: list[int] = []
        self.outcomes: list[BaseException | None] = []
        self.out_of_threads = False
        self.raised: list[BaseException] = []
        monkeypatch.setattr(handshaking, "threading", SimpleNamespace(Thread=self._thread))

    def _thread(self, *, target: Callable[[], None], name: str, daemon: bool) -> Any:
        if self.out_of_threads:
            return SimpleNamespace(start=lambda: self._fail(RuntimeError("can't start new thread")))
        return SimpleNamespace(start=lambda: self.steps.append(target))

    def _fail(self, error: BaseException) -> None:
        raise error

    def watch(self, sock: Any, events: int, watcher: Any) -> None:
        self.watched.append(events)

    def handshake(self) -> None:
        if self.raised:
            self._fail(self.raised.pop(0))

    def step(self) -> None:
        self.steps.pop(0)()
        self.run()


@pytest.fixture
def aside(monkeypatch: pytest.MonkeyPatch) -> Aside:
    return Aside(monkeypatch)


def begun(aside: Any) -> Handshake:
    handshake = Handshake(aside, Descriptor(), aside, 5.0, aside.outcomes.append)  # type: ignore[arg-type]
    handshake.start()
    return handshake


def test_a_step_aside_tells_the_loop_what_it_raised(aside: Any) -> None:
    wants_more = BlockingIOError()
    aside.raised = [wants_more, ZeroDivisionError("of the user's sni_callback")]
    for _ in range(3):
        step_aside(aside, aside, aside.outcomes.append)
        aside.step()
    assert aside.outcomes[0] is wants_more and aside.outcomes[2] is None
    assert isinstance(aside.outcomes[1], OSError) and "ZeroDivisionError" in str(aside.outcomes[1])


def test_a_handshake_ends_where_there_is_no_thread_for_it(aside: Any) -> None:
    aside.out_of_threads = True
    begun(aside)
    error, = aside.outcomes
    assert isinstance(error, OSError) and "can't start new thread" in str(error)
    aside.wait(10)
    assert len(aside.outcomes) == 1


def test_it_is_not_watched_while_a_step_is_aside_and_goes_on_with_what_comes(aside: Any) -> None:
    aside.raised = [BlockingIOError()]
    handshake = begun(aside)
    assert aside.watched == [0]
    aside.step()
    assert aside.watched == [0, READ]
    handshake._on_event(READ)
    aside.step()
    assert aside.outcomes == [None]


@pytest.mark.parametrize("end", [Handshake._too_slow, lambda handshake: handshake._crashed(ValueError("x"))],
                         ids=["too slow", "crashed"])
def test_what_a_step_comes_to_is_nothing_to_one_that_is_over(aside: Any, end: Callable[[Handshake], None]) -> None:
    handshake = begun(aside)
    end(handshake)
    assert len(aside.outcomes) == 1 and isinstance(aside.outcomes[0], OSError)
    aside.step()
    handshake._on_event(READ)
    aside.wait(10)
    assert len(aside.outcomes) == 1 and aside.steps == []
