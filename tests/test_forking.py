"""What a forked child lets go of."""

from __future__ import annotations

import gc
import os
import threading
import time
import warnings
from collections.abc import Callable
from typing import cast

import pytest
from support.pairs import TIMEOUT, Background

import netmsg.forking
from netmsg.errors import ForkedError
from netmsg.forking import close_in_child, current_process, hold_at_fork
from netmsg.interrupts import in_main_thread
from netmsg.reactor.reactor import Reactor, User

fork_begins = threading.Event()
os.register_at_fork(before=fork_begins.set)  # it comes before those that were registered earlier


class Held:
    def __init__(self, forked: Callable[[], None]) -> None:
        self._forked = forked


def in_child(check: Callable[[], bool]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if check() else 1
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def test_a_child_is_another_process() -> None:
    parent = current_process()
    assert in_child(lambda: current_process() is not parent)
    assert current_process() is parent


def test_everything_that_is_held_is_let_go_of_even_if_something_cannot() -> None:
    let_go: list[str] = []

    def fail() -> None:
        raise OSError("cannot")

    held = [Held(lambda: let_go.append("one")), Held(fail), Held(lambda: let_go.append("other"))]
    for each in held:
        close_in_child(each)
    forgotten = Held(lambda: let_go.append("collected"))
    close_in_child(forgotten)
    del forgotten
    gc.collect()
    assert in_child(lambda: sorted(let_go) == ["one", "other"])
    assert let_go == []


def test_an_interrupt_in_the_child_does_not_keep_the_others_from_letting_go() -> None:
    let_go: list[str] = []

    def fail() -> None:
        raise KeyboardInterrupt

    held = [Held(lambda: let_go.append("one")), Held(fail), Held(lambda: let_go.append("other"))]
    for each in held:
        close_in_child(each)
    assert in_child(lambda: sorted(let_go) == ["one", "other"])


def test_modules_forget_before_objects_let_go() -> None:
    """An object that lets go must not wake the parent's network thread, nor take its own thread for another one."""
    looked: list[object] = []
    parent = current_process()
    io = Reactor()

    def look() -> None:
        looked.extend([current_process() is not parent, in_main_thread()])
        with pytest.raises(ForkedError):
            io.attach(cast(User, object()))
        looked.append(True)

    held = Held(look)
    close_in_child(held)
    assert Background(in_child, lambda: looked == [True, True, True]).result()


def test_whichever_thread_forks_is_the_main_one_in_the_child() -> None:
    assert in_main_thread() and not Background(in_main_thread).result()
    assert Background(in_child, in_main_thread).result()


def test_what_cannot_be_let_go_of_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise OSError("cannot")

    held = Held(fail)
    close_in_child(held)
    assert in_child(lambda: "could not let go" in caplog.text)


def test_a_fork_waits_for_those_who_hold_it_up() -> None:
    hold, is_in, steps = hold_at_fork(), threading.Event(), list[str]()

    def work() -> None:
        with hold:
            is_in.set()
            assert fork_begins.wait(TIMEOUT)
            steps.append("in the middle")
            time.sleep(0.01)
            steps.append("done")

    fork_begins.clear()
    working = Background(work)
    assert is_in.wait(TIMEOUT)
    assert in_child(lambda: steps == ["in the middle", "done"])
    working.result()


def test_then_it_goes_on_on_both_sides() -> None:
    hold, another = hold_at_fork(), hold_at_fork()

    def work() -> bool:
        with hold, another, hold_at_fork():
            return True

    for _ in range(2):
        assert in_child(lambda: work() and in_child(work)) and Background(work).result()


def test_who_forks_inside_does_not_wait_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netmsg.forking, "PATIENCE", 2 * TIMEOUT)
    hold = hold_at_fork()
    begun = time.monotonic()
    with hold:
        assert in_child(lambda: True)
    assert in_child(lambda: True) and time.monotonic() < begun + TIMEOUT
    with hold:
        pass
    assert in_child(lambda: True) and time.monotonic() < begun + TIMEOUT


def test_neither_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """One may wait in a block for what a hook of somebody else's has, which the fork goes through meanwhile."""
    monkeypatch.setattr(netmsg.forking, "PATIENCE", 0.05)
    hold, is_in, may_leave = hold_at_fork(), threading.Event(), threading.Event()

    def work() -> None:
        with hold:
            is_in.set()
            assert may_leave.wait(TIMEOUT)

    def work_anew() -> bool:
        monkeypatch.setattr(netmsg.forking, "PATIENCE", 2 * TIMEOUT)
        begun = time.monotonic()
        with hold_at_fork():
            return in_child(lambda: True) and time.monotonic() < begun + TIMEOUT

    working = Background(work)
    assert is_in.wait(TIMEOUT)
    assert in_child(work_anew)
    with hold:  # too long, too
        pass
    may_leave.set()
    working.result()
    with hold:
        pass
