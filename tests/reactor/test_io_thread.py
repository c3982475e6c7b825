"""The selector thread: calls, timers, readiness, work, and what happens when a step fails."""

from __future__ import annotations

import contextlib
import gc
import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.pairs import TIMEOUT
from support.servers import said
from support.tenants import Tenant

from netmsg import ClosedError, IOThread, Søcket
from netmsg.reactor.reactor import READ, WRITE, Reactor, Timer


@pytest.fixture
def io() -> Iterator[Reactor]:
    with contextlib.closing(Reactor()) as thread:
        thread.attach(Tenant(thread))
        yield thread


def ask(io: Reactor, function: Any, *arguments: Any) -> Any:
    """Call on the loop, and wait for what it returns."""
    answer: list[Any] = []
    done = threading.Event()

    def call() -> None:
        answer.append(function(*arguments))
        done.set()

    io.call(call)
    assert done.wait(TIMEOUT)
    return answer[0]


class Recorder:
    """A watcher that notes its events, and does what it is told at each."""

    def __init__(self, action: Any = None) -> None:
        self.events: list[int] = []
        self.errors: list[Exception] = []
        self.told = threading.Event()
        self._action = action

    def _on_event(self, events: int) -> None:
        self.events.append(events)
        if self._action is not None:
            self._action()
        self.told.set()

    def _crashed(self, error: Exception) -> None:
        self.errors.append(error)
        self.told.set()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    left.setblocking(False)
    with left, right:
        yield left, right


def timers() -> int:
    """How many timers there are in this process."""
    gc.collect()
    return sum(isinstance(thing, Timer) for thing in gc.get_objects())


def test_cancelled_timers_do_not_pile_up() -> None:
    before = timers()
    io = Reactor()
    keep = [io.call_later(3600, print) for _ in range(100)]
    for _ in range(20_000):
        io.call_later(3600, print).cancel()
    assert timers() - before < 3000
    assert [timer for timer in keep if timer.function is None] == []


def test_a_timer_that_never_comes_is_none() -> None:
    before = timers()
    io = Reactor()
    timer = io.call_later(float("inf"), print)
    timer.cancel()
    del timer
    assert timers() == before
    io.close()


def test_the_thread_starts_with_its_first_user_and_ends_at_close() -> None:
    before = threading.active_count()
    io = Reactor()
    assert threading.active_count() == before
    io.attach(Tenant(io))
    assert threading.active_count() == before + 1
    io.close()
    assert threading.active_count() == before
    io.close()
    with pytest.raises(ClosedError):
        io.attach(Tenant(io))


def test_a_thread_without_users_costs_nothing_to_close() -> None:
    io = Reactor()
    io.close()
    assert io.closed


def test_calls_are_made_on_the_thread_in_order(io: Reactor) -> None:
    order: list[int] = []
    for number in range(1000):
        io.call(order.append, number)
    name = ask(io, lambda: threading.current_thread().name)
    assert order == list(range(1000))
    assert name == f"netmsg-io-{io.number}"
    assert not io.is_current and ask(io, lambda: io.is_current)


def test_timers_fire_in_order_unless_cancelled(io: Reactor) -> None:
    order: list[str] = []
    done = threading.Event()

    def third() -> None:
        order.append("third")
        done.set()

    def start() -> None:
        io.call_later(0.03, third)
        io.call_later(0.01, order.append, "first")
        io.call_later(0.02, order.append, "second")
        io.call_later(0.015, order.append, "never").cancel()

    io.call(start)
    assert done.wait(TIMEOUT)
    assert order == ["first", "second", "third"]


def test_readiness_is_told_until_it_is_no_longer_watched_for(io: Reactor,
                                                             pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    recorder: Recorder = Recorder(lambda: io.watch(left, 0, recorder))
    ask(io, io.watch, left, READ, recorder)
    right.send(b"x")
    assert recorder.told.wait(TIMEOUT)
    ask(io, lambda: None)
    assert recorder.events == [READ]
    recorder.told.clear()
    ask(io, io.watch, left, READ | WRITE, recorder)
    assert recorder.told.wait(TIMEOUT)
    assert recorder.events[1:] == [READ | WRITE]


def test_no_event_reaches_a_descriptor_that_was_closed_in_the_same_round(io: Reactor) -> None:
    """Two are ready at once; the handler of either closes both. A new descriptor of the same number stays untouched."""
    lefts, rights = zip(*(socket.socketpair() for _ in range(2)))
    told: list[int] = []
    closed: list[int] = []
    done = threading.Event()

    def close_both() -> None:
        told.append(1)
        if closed:
            return
        for left in lefts:
            closed.append(left.fileno())
            io.watch(left, 0, recorder)
            io.close_afterwards(left.close)
        # While this round goes on the numbers are not free, so no stranger can have them.
        with socket.socket() as stranger:
            closed.append(stranger.fileno())
        done.set()

    recorder = Recorder(close_both)

    def start() -> None:
        for left, right in zip(lefts, rights):
            left.setblocking(False)
            io.watch(left, READ, recorder)
            right.send(b"x")

    io.call(start)
    assert done.wait(TIMEOUT)
    ask(io, lambda: None)
    assert closed[2] not in closed[:2]
    assert all(left.fileno() == -1 for left in lefts)
    for right in rights:
        right.close()


def test_a_step_that_fails_closes_what_it_belongs_to(io: Reactor, pair: tuple[socket.socket, socket.socket],
                                                     caplog: pytest.LogCaptureFixture) -> None:
    left, right = pair

    def fail() -> None:
        io.watch(left, 0, recorder)
        raise ZeroDivisionError

    recorder = Recorder(fail)
    ask(io, io.watch, left, READ, recorder)
    right.send(b"x")
    assert recorder.told.wait(TIMEOUT)
    assert [type(error) for error in recorder.errors] == [ZeroDivisionError]
    assert ask(io, lambda: "still running") == "still running"
    said(caplog)
    assert "a step of the network thread failed" in caplog.text


def test_a_failure_that_belongs_to_nobody_fails_all_users(caplog: pytest.LogCaptureFixture) -> None:
    io = Reactor()
    tenants = [Tenant(io), Tenant(io)]
    for tenant in tenants:
        io.attach(tenant)

    def fail() -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR):
        io.call(fail)
        for tenant in tenants:
            assert tenant.ended.wait(TIMEOUT)
    assert [type(tenant.failure[0]) for tenant in tenants] == [ZeroDivisionError] * 2
    io.close()


class Job:
    """A piece of work that may be bursting."""

    def __init__(self) -> None:
        self.looks = 0
        self.burst = 0
        self.done = threading.Event()

    def bursting(self) -> bool:
        self.looks += 1
        self.burst -= 1
        return self.burst >= 0

    def on_work(self) -> None:
        self.done.set()

    def _crashed(self, error: Exception) -> None:
        raise error


def test_work_is_seen_by_a_thread_that_sleeps(io: Reactor) -> None:
    for _ in range(200):
        job = Job()
        io.work[job] = None
        io.wake()
        assert job.done.wait(TIMEOUT)


def test_work_whose_producer_is_bursting_is_looked_at_again(io: Reactor) -> None:
    job = Job()
    job.burst = 5
    io.work[job] = None
    io.wake()
    assert job.done.wait(TIMEOUT)
    assert job.looks == 6


def test_work_added_without_a_wake_up_is_found_at_the_next_round(io: Reactor) -> None:
    """A producer that an interrupt stopped between the two leaves nothing wrong behind."""
    forgotten, job = Job(), Job()
    io.work[forgotten] = None
    io.work[job] = None
    io.wake()
    assert forgotten.done.wait(TIMEOUT) and job.done.wait(TIMEOUT)


def test_what_users_hold_of_it_closes_it_and_its_users() -> None:
    with IOThread() as io:
        sock = Søcket(io_thread=io, linger=0).bind(port=0)
        (name,) = [thread.name for thread in threading.enumerate() if repr(io) == f"<IOThread {thread.name} open>"]
        assert name.startswith("netmsg-io-")
        assert not io.closed
    assert io.closed and sock.closed and repr(io).endswith(" closed>")
    assert name not in [thread.name for thread in threading.enumerate()]
    io.close()
    with pytest.raises(ClosedError), Søcket(io_thread=io, linger=0) as late:
        late.bind(port=0)
