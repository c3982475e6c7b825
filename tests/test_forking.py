"""What a forked child lets go of."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable
from typing import cast

import pytest
from support.pairs import Background

from netmsg.errors import ForkedError
from netmsg.forking import close_in_child, current_process
from netmsg.interrupts import in_main_thread
from netmsg.reactor.reactor import Reactor, User


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
