"""Threads that wait, and what wakes them."""

from __future__ import annotations

import gc
import os
import select
import threading

import pytest
from support.pairs import Background, until
from support.strikes import Strike, Struck, strike_everywhere

from netmsg.deadline import Deadline
from netmsg.waiting import Line, Signal, Ticket, Waiters, leave, new_ticket


def readable(signal: Signal) -> bool:
    return bool(select.select([signal], [], [], 0)[0])


def test_a_signal_is_readable_from_set_to_clear() -> None:
    signal = Signal()
    assert not readable(signal)
    signal.clear()
    signal.set()
    signal.set()
    assert readable(signal)
    signal.clear()
    assert not readable(signal)


def test_a_signal_never_blocks() -> None:
    signal = Signal()
    for _ in range(100_000):
        signal.set()
    assert readable(signal)


def test_a_signal_whose_descriptor_somebody_else_has_closed_can_be_closed() -> None:
    """As happens where a program closes a stream's descriptor underfoot, and the signal gets that number."""
    signal = Signal()
    os.close(signal.fileno())
    signal.close()
    assert signal.fileno() == -1


def test_a_signal_is_closed_when_it_is_collected() -> None:
    signal = Signal()
    descriptor = signal.fileno()
    del signal
    gc.collect()
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_what_is_ready_already_is_not_waited_for() -> None:
    assert Waiters().wait(lambda: True, Deadline(0))


def test_a_wait_ends_at_its_deadline() -> None:
    assert not Waiters().wait(lambda: False, Deadline(0.01))
    assert not Waiters().wait(lambda: False, Deadline(0))


def test_notify_wakes_one_thread_and_notify_all_the_rest() -> None:
    waiters = Waiters()
    ready: list[int] = []
    took = threading.Lock()

    def take() -> int:
        while True:
            assert waiters.wait(lambda: ready, Deadline(10))
            with took:
                if ready:
                    return ready.pop()

    threads = [Background(take) for _ in range(3)]
    until(lambda: len(waiters.waiting) == 3)
    ready.append(1)
    waiters.notify()
    until(lambda: len(waiters.waiting) == 2)
    ready.extend([2, 3])
    waiters.notify_all()
    assert sorted(thread.result() for thread in threads) == [1, 2, 3]
    assert not waiters.waiting


def test_a_special_ticket_is_waited_by_while_there_is_one() -> None:
    waiters = Waiters()
    tries: list[str] = []

    class Special:
        def acquire(self, blocking: bool, timeout: float) -> bool:
            tries.append("special")
            return True

        def release(self) -> None:
            raise AssertionError("nobody is notified here")

    def special() -> Ticket | None:
        return Special() if len(tries) < 3 else None

    assert not waiters.wait(lambda: False, Deadline(0.01), special)
    assert tries == ["special"] * 3


def test_who_is_interrupted_hands_the_wake_up_on() -> None:
    waiters = Waiters()
    ready: list[int] = []

    class Interrupted:
        def acquire(self, blocking: bool, timeout: float) -> bool:
            ready.append(1)
            raise KeyboardInterrupt

        def release(self) -> None:
            raise RuntimeError("woken already")

    other = Background(waiters.wait, lambda: ready, Deadline(10))
    until(lambda: waiters.waiting)
    with pytest.raises(KeyboardInterrupt):
        waiters.wait(lambda: False, Deadline(10), Interrupted)
    assert other.result() is True and not waiters.waiting


def test_an_interrupted_waiter_leaves_nothing_behind_that_could_eat_a_wake_up() -> None:
    def trial(strike: Strike) -> None:
        waiters = Waiters()
        ready: list[int] = []
        try:
            with strike:
                waiters.wait(lambda: False, Deadline(0.001))
        except Struck:
            pass
        assert not waiters.waiting
        other = Background(waiters.wait, lambda: ready, Deadline(10))
        until(lambda: waiters.waiting)
        ready.append(1)
        waiters.notify()
        assert other.result() is True

    assert strike_everywhere(trial) > 5


def test_a_wake_up_for_somebody_else_is_handed_on() -> None:
    """Whoever need not wait after all may have been woken meanwhile: by what another waits for."""
    waiters = Waiters()
    ready: list[int] = []
    other = Background(waiters.wait, lambda: len(ready) > 1, Deadline(10))
    until(lambda: waiters.waiting)
    queued = waiters.waiting[0]
    waiters.waiting.clear()  # the other one shall stand behind

    def look() -> bool:
        if queued not in waiters.waiting:
            waiters.waiting.append(queued)
            ready.extend([1, 2])
            waiters.notify()
        return True

    assert waiters.wait(look, Deadline(0))
    assert other.result() is True


def test_who_stands_in_a_line_is_woken_by_the_one_before() -> None:
    tickets = [new_ticket() for _ in range(4)]
    line = Line(tickets)
    assert [ticket.locked() for ticket in tickets] == [True] * 4
    line.wake_next()
    assert [ticket.locked() for ticket in tickets] == [False, True, True, True]
    assert leave(tickets[1])
    line.wake_next()
    assert [ticket.locked() for ticket in tickets] == [False, False, False, True]
    assert not leave(tickets[2]), "it has been woken, and has to wake the next one"
    line.wake_next()
    line.wake_next()
    assert not tickets[3].locked()


def test_an_interrupted_signal_leaves_no_descriptor_open() -> None:
    def trial(strike: Strike) -> None:
        before = len(os.listdir("/proc/self/fd"))
        try:
            with strike:
                signal = Signal()
                signal.set()
                signal.close()
        except Struck:
            pass
        signal = Signal()
        del signal
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before

    assert strike_everywhere(trial) > 2
