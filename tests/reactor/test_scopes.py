"""Whom what happens on the network thread belongs to, and what each round does. No thread, no socket, no time."""

from __future__ import annotations

import errno
import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support.loops import Descriptor, by_hand
from support.machines import Clock, HandPoller
from support.pairs import TIMEOUT
from support.servers import said

from netmsg.deadline import Deadline
from netmsg.reactor.accepting import PAUSE, Acceptor
from netmsg.reactor.reactor import LONGEST, PACE, READ, WRITE, Reactor, Scope, Timer


class Thing:
    """Something on the loop, with all kinds of steps that fail."""

    def __init__(self, loop: Scope) -> None:
        self.io = loop.scope(self.crashed)
        self.errors: list[Exception] = []

    def crashed(self, error: Exception) -> None:
        self.errors.append(error)

    def method(self) -> None:
        raise ZeroDivisionError

    @staticmethod
    def static() -> None:
        raise ZeroDivisionError

    def __call__(self) -> None:
        raise ZeroDivisionError


def function(*_: object) -> None:
    raise ZeroDivisionError


def nothing(*_: object) -> None:
    pass


class Other:
    """Has methods that fail, and is no user of the loop."""

    def method(self) -> None:
        raise ZeroDivisionError


KINDS: dict[str, Callable[[Thing], Callable[[], None]]] = {
    "bound method": lambda thing: thing.method,
    "static method": lambda thing: thing.static,
    "method of another object": lambda thing: Other().method,
    "function": lambda thing: function,
    "lambda": lambda thing: lambda: function(),
    "partial of a function": lambda thing: functools.partial(function, 1),
    "partial of a method": lambda thing: functools.partial(thing.method),
    "callable object": lambda thing: thing,
    "function in C": lambda thing: functools.partial(divmod, 1, 0),
}
WAYS: dict[str, Callable[[Thing, Callable[[], None]], object]] = {
    "call": lambda thing, step: thing.io.call(step),
    "timer": lambda thing, step: thing.io.call_later(0, step),
    "afterwards": lambda thing, step: thing.io.afterwards(step),
    "close_afterwards": lambda thing, step: thing.io.close_afterwards(step),
}


class Handling:
    def __init__(self, step: Callable[[], object]) -> None:
        self.step = step
        self.events: list[int] = []

    def _on_event(self, events: int) -> None:
        self.events.append(events)
        self.step()


@pytest.fixture
def hand() -> tuple[Reactor, HandPoller, Clock]:
    return by_hand()


@pytest.mark.parametrize("end", ["cancelled", "run"])
def test_a_timer_that_is_over_keeps_nothing_alive(hand: tuple[Reactor, HandPoller, Clock], end: str) -> None:
    class Owner:
        def crashed(self, error: Exception) -> None:
            """What is called is the one thing, and whom it belongs to the other."""

    io, _, _ = hand
    owner, argument = Owner(), Owner()
    gone = weakref.ref(owner), weakref.ref(argument)
    timer = io.scope(owner.crashed).call_later(600.0, nothing, argument)
    if end == "cancelled":
        timer.cancel()
    else:
        io.round()
        io.round()
    del owner, argument
    assert timer.function is None and [one() for one in gone] == [None, None]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_that_fails_closes_what_asked_for_it(kind: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    io, _, _ = by_hand()
    thing, neighbour = Thing(io), Thing(io)
    after: list[str] = []
    WAYS[way](thing, KINDS[kind](thing))
    WAYS[way](neighbour, lambda: after.append("the next one"))
    io.call_later(0, after.append, "a timer")
    io.round()
    io.round()
    assert [type(error) for error in thing.errors] == [ZeroDivisionError]
    assert neighbour.errors == [] and sorted(after) == ["a timer", "the next one"]
    said(caplog)
    assert caplog.text.count("a step of the network thread failed") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_that_fails_closes_what_asked_for_it(kind: str, hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, poller, _ = hand
    thing, neighbour = Thing(io), Handling(bool)
    one, other = Descriptor(), Descriptor()
    thing.io.watch(one, READ, Handling(KINDS[kind](thing)))
    io.watch(other, READ | WRITE, neighbour)
    poller.happens(one, READ)
    poller.happens(other, READ)
    io.round()
    assert [type(error) for error in thing.errors] == [ZeroDivisionError] and neighbour.events == [READ]


class Owner:
    """What is asked of the reactor itself belongs to the object whose method it is."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []

    def step(self, *_: object) -> None:
        raise ZeroDivisionError

    on_work = step
    _on_event = step

    def bursting(self) -> bool:
        return False

    def _crashed(self, error: Exception) -> None:
        self.errors.append(error)


@pytest.mark.parametrize("ask", [
    lambda io, owner: io.call(owner.step),
    lambda io, owner: io.call(functools.partial(functools.partial(owner.step, 1), 2), 3),
    lambda io, owner: io.call_later(0, owner.step),
    lambda io, owner: io.afterwards(owner.step),
    lambda io, owner: io.close_afterwards(owner.step),
    lambda io, owner: io.before_sleep(owner.step),
    lambda io, owner: io.work.setdefault(owner),
])
def test_what_is_asked_of_the_reactor_itself_belongs_to_the_object_whose_method_it_is(
        ask: Callable[[Reactor, Owner], object], hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, _, _ = hand
    owner = Owner()
    ask(io, owner)
    io.round()
    io.round()
    assert [type(error) for error in owner.errors] == [ZeroDivisionError]
    assert not io.work


def test_a_handler_belongs_to_itself_where_the_reactor_watches_for_it(hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, poller, _ = hand
    owner, sock = Owner(), Descriptor()
    io.watch(sock, READ, owner)
    poller.happens(sock, READ)
    io.round()
    assert len(owner.errors) == 1


def test_what_belongs_to_nobody_leaves_the_round(hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, _, _ = hand
    io.call(function)
    with pytest.raises(ZeroDivisionError):
        io.round()


def test_what_cannot_be_closed_harms_nobody_else(hand: tuple[Reactor, HandPoller, Clock],
                                                 caplog: pytest.LogCaptureFixture) -> None:
    io, _, _ = hand
    after: list[int] = []
    io.scope(function).call(function)
    io.call(after.append, 1)
    io.round()
    assert after == [1]
    said(caplog)
    assert "closing what had failed failed, too" in caplog.text


def test_a_scope_of_a_scope_is_one_of_its_own(hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, _, _ = hand
    outer = Thing(io)
    inner = Thing(outer.io)
    inner.io.call(inner.method)
    io.round()
    assert len(inner.errors) == 1 and outer.errors == []


# Rounds

def test_calls_come_first_then_events_timers_and_work_and_what_is_put_off_last(
        hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, poller, _ = hand
    order: list[str] = []
    sock = Descriptor()

    class Working(Owner):
        def on_work(self, *_: object) -> None:
            order.append("work")

    io.close_afterwards(lambda: order.append("closed"))
    io.afterwards(lambda: order.append("afterwards"))
    io.work[Working()] = None
    io.call_later(0, order.append, "timer")
    io.watch(sock, READ, Handling(lambda: order.append("event")))
    io.call(order.append, "call")
    io.before_sleep(lambda: order.append("told"))
    poller.happens(sock, READ)
    io.round()
    assert order == ["told", "call", "event", "timer", "work", "afterwards", "closed"]


def test_a_call_that_a_call_asks_for_is_made_in_the_next_round(hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, poller, _ = hand
    order: list[int] = []

    def first() -> None:
        order.append(1)
        io.call(order.append, 2)

    io.call(first)
    io.round()
    assert order == [1] and poller.woken == 0
    io.round()
    assert order == [1, 2] and poller.timeouts == [0.0, 0.0]


def test_timers_come_at_their_time_in_order_and_not_once_cancelled(hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, poller, clock = hand
    begun = clock.now
    told: list[tuple[str, float]] = []

    def tell(name: str) -> None:
        told.append((name, clock.now - begun))

    io.call_later(3, tell, "third")
    io.call_later(1, tell, "first")
    io.call_later(2, tell, "second")
    io.call_later(1.5, tell, "never").cancel()
    io.call_later(float("inf"), tell, "never")
    for _ in range(4):
        io.round()
    assert told == [("first", 1.0), ("second", 2.0), ("third", 3.0)]
    assert poller.timeouts == [1.0, 0.5, 0.5, 1.0]


def test_how_long_it_sleeps(hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, poller, _ = hand
    io.round()
    io.call_later(2 * LONGEST, nothing)
    io.round()
    io.work[Owner()] = None
    io.round()
    assert poller.timeouts == [None, LONGEST, 0.0]


def test_a_worker_whose_producer_writes_by_itself_is_looked_at_again_in_a_moment(
        hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, poller, _ = hand

    class Bursting(Owner):
        def bursting(self) -> bool:
            return True

    io.work[Bursting()] = None
    io.round()
    io.round()
    assert poller.timeouts == [0.0, PACE] and len(io.work) == 1


@pytest.mark.parametrize("turn", [1, -1], ids=["forwards", "backwards"])
def test_work_is_done_in_the_order_in_which_it_came(turn: int, hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, _, _ = hand
    order: list[Owner] = []

    class Working(Owner):
        def on_work(self, *_: object) -> None:
            order.append(self)

    workers = [Working() for _ in range(50)][::turn]
    for worker in (*workers, workers[0]):  # who has something more to do keeps its place
        io.work[worker] = None
    io.round()
    assert order == workers and not io.work


def test_what_comes_while_work_is_done_is_done_in_the_next_round(hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, _, _ = hand
    order: list[str] = []

    class Working(Owner):
        def __init__(self, name: str, *others: Working) -> None:
            super().__init__()
            self.name = name
            self.others = others

        def on_work(self, *_: object) -> None:
            order.append(self.name)
            io.work.update(dict.fromkeys(self.others))

    last = Working("last")
    first = Working("first", last)
    io.work[first] = None
    io.round()
    assert order == ["first"] and list(io.work) == [last]
    io.round()
    assert order == ["first", "last"]


# A round is settling, waiting, going on; and somebody else may wait


@pytest.mark.parametrize("ask, timeout", [
    (lambda io: None, None),
    (lambda io: io.call_later(2.0, nothing), 2.0),
    (lambda io: io.call_later(-2.0, nothing), 0.0),
    (lambda io: io.call_later(2 * LONGEST, nothing), LONGEST),
    (lambda io: io.work.setdefault(Owner()), 0.0),
    (lambda io: io.call(nothing), 0.0),
    (lambda io: io.before_sleep(functools.partial(io.call, nothing)), 0.0),
], ids=["nothing", "a timer", "one that is due", "one for later than can be waited for", "work", "a call",
        "a call that a notice makes"])
def test_it_settles_and_says_how_long_it_may_be_left_alone(ask: Callable[[Reactor], object], timeout: float | None,
                                                           hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, poller, _ = hand
    ask(io)
    assert io.settle() == timeout
    assert poller.timeouts == [], "it waits for nothing itself"


def test_from_settling_to_going_on_it_is_woken_for_what_there_is_to_do(hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, poller, clock = hand
    order: list[str] = []
    sock = Descriptor()
    io.watch(sock, READ, Handling(lambda: order.append("event")))
    io.call_later(2.0, order.append, "timer")
    io.settle()
    assert order == [] and io.asleep
    io.call(order.append, "call")
    assert poller.woken == 1
    clock.now += 3.0
    poller.happens(sock, READ)
    io.go_on(poller.poll(0.0))
    assert order == ["call", "event", "timer"] and not io.asleep
    assert poller.woken == 0, "it has seen that, too"
    assert io.now == clock.now
    io.call(nothing)
    assert poller.woken == 0


def test_who_goes_on_without_an_event_does_what_is_due(hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, _, clock = hand
    order: list[str] = []
    io.call_later(2.0, order.append, "timer")
    io.settle()
    io.go_on([])
    assert order == []
    io.settle()
    clock.now += 2.0
    io.go_on([])
    assert order == ["timer"]


def test_it_is_woken_only_where_it_may_be_waiting(hand: tuple[Reactor, HandPoller, Clock],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    io, poller, _ = hand
    seen: list[tuple[bool, int]] = []
    poll = poller.poll

    def look(timeout: float | None) -> Any:
        io.call(nothing)
        io.wake()
        seen.append((io.asleep, poller.woken))
        return poll(timeout)

    io.call(nothing)
    io.wake()
    assert poller.woken == 0
    monkeypatch.setattr(poller, "poll", look)
    io.round()
    assert seen == [(True, 2)] and poller.woken == 0 and not io.asleep


def test_a_forked_child_wakes_nobody(hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, poller, _ = hand
    io.polling = io.asleep = True  # as the parent's thread has left it
    io.forked()
    io.call(nothing)
    io.wake()
    assert poller.woken == 0


# Accepting

class Listening(Descriptor):
    """In the place of a listening socket: what its ``accept`` returns or raises."""

    def __init__(self, *arrivals: Any) -> None:
        self.arrivals = [*arrivals]
        self.closed = False

    def getsockname(self) -> tuple[str, int]:
        return "192.0.2.1", 80

    def accept(self) -> tuple[Any, Any]:
        if not self.arrivals:
            raise BlockingIOError
        arrival = self.arrivals.pop(0)
        if isinstance(arrival, Exception):
            raise arrival
        return arrival, ("192.0.2.2", 1)

    def close(self) -> None:
        self.closed = True


class Accepted(Descriptor):
    closed = False

    def setblocking(self, blocking: bool) -> None:
        assert not blocking

    def close(self) -> None:
        self.closed = True


def accepting(io: Scope, listener: Any, accepted: Callable[[Any, Any], None],
              failed: Callable[[OSError], None]) -> Acceptor:
    acceptor = Acceptor(io, listener, accepted, failed)
    acceptor.start()
    return acceptor


def test_a_connection_that_cannot_be_served_is_closed_and_the_listener_goes_on(
        hand: tuple[Reactor, HandPoller, Clock], caplog: pytest.LogCaptureFixture) -> None:
    io, poller, _ = hand
    bad, good = Accepted(), Accepted()
    listener = Listening(bad, good)
    served: list[Any] = []

    def serve(sock: Any, address: Any) -> None:
        io.watch(sock, READ, Handling(bool))
        if sock is bad:
            raise ZeroDivisionError
        served.append(sock)

    accepting(io, listener, serve, function)
    poller.happens(listener, READ)
    io.round()
    assert served == [good] and bad.closed and not good.closed and not listener.closed
    assert set(poller.watched) == {listener, good}
    said(caplog)
    assert "could not be served" in caplog.text


@pytest.mark.parametrize("failed", [bool, function], ids=["told", "not told"])
@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "too many"), ArithmeticError("a fault of our own")])
def test_an_acceptor_that_fails_rests_and_goes_on(error: Exception, failed: Any,
                                                  hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, poller, clock = hand
    begun = clock.now
    listener = Listening(error)
    accepting(io, listener, function, failed)
    poller.happens(listener, READ)
    io.round()
    assert not listener.closed and listener not in poller.watched
    io.round()
    assert clock.now == begun + PAUSE and listener in poller.watched


def test_it_knows_whether_anybody_waits_in_the_backlog(hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, _, _ = hand
    machine: Any = io.machine
    listener = Listening()
    acceptor = accepting(io, listener, function, function)
    assert not acceptor.is_awaited
    machine.speaking.add(listener.fileno())
    assert acceptor.is_awaited
    acceptor.close()
    assert not acceptor.is_awaited


# With its thread

class Dweller:
    def __init__(self, io: Reactor, failing: bool) -> None:
        self.io = io
        self.failing = failing
        self.told = threading.Event()

    def _io_failed(self, cause: BaseException | None) -> None:
        self.told.set()
        if self.failing:
            raise ZeroDivisionError
        self.io.detach(self)

    def _io_closing(self, deadline: Deadline) -> None:
        self._io_failed(None)


@pytest.mark.parametrize("end", [lambda io: io.call(function), lambda io: io.close()], ids=["failure", "close"])
def test_a_user_that_cannot_end_keeps_no_other_from_ending(end: Callable[[Reactor], None]) -> None:
    io = Reactor()
    dwellers = [Dweller(io, failing) for failing in (True, False, True, False)]
    for dweller in dwellers:
        io.attach(dweller)
    end(io)
    for dweller in dwellers:
        assert dweller.told.wait(TIMEOUT)
    io.join(TIMEOUT)
    assert io.ident is None and io.closed


def test_it_is_over_when_it_is_closed_and_nobody_is_left_and_nothing_to_be_called(
        hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, _, _ = hand
    dweller, last = Dweller(io, failing=False), Dweller(io, failing=False)
    assert not io.is_over, "a user may yet come"
    io.attach(dweller)
    io.attach(last)
    io.close()
    assert not io.is_over, "they are to be told"
    io.call(io.call, nothing)
    io.round()
    assert dweller.told.is_set() and last.told.is_set()
    assert not io.is_over, "what its last user asks for is done"
    io.round()
    assert io.is_over


def test_its_users_are_told_in_the_order_in_which_they_came(hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, _, _ = hand
    order: list[Dweller] = []

    class Noting(Dweller):
        def _io_closing(self, deadline: Deadline) -> None:
            order.append(self)

    dwellers = [Noting(io, failing=False) for _ in range(20)]
    for dweller in dwellers[::-1]:
        io.attach(dweller)
    io.close()
    io.round()
    assert order == dwellers[::-1]


def test_its_machine_has_one_thread_for_it_which_runs_until_it_is_over(hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, poller, _ = hand
    machine: Any = io.machine
    dweller, other = Dweller(io, failing=False), Dweller(io, failing=False)
    io.attach(dweller)
    io.attach(other)
    thread, = machine.threads
    assert thread.name == f"netmsg-io-{io.number}"
    currents: list[bool] = []
    io.call(lambda: currents.append(io.is_current))
    io.close()
    assert thread.joined
    thread.run()
    assert currents == [True] and not io.is_current
    assert dweller.told.is_set() and other.told.is_set() and io.is_over and poller.closed


def test_a_timer_is_asked_for_in_a_scope_as_anywhere(hand: tuple[Reactor, HandPoller, Clock]) -> None:
    io, _, _ = hand
    timer = Thing(io).io.call_later(1, function)
    assert isinstance(timer, Timer)
    timer.cancel()
    io.round()
