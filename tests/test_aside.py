"""Steps that no interrupt can split. What is interrupted runs in a process of its own."""

from __future__ import annotations

import threading

import pytest
from support.processes import Program

from netmsg.aside import aside

INTERRUPTED = """
import signal, threading
from netmsg.aside import aside

begun, go, ended = threading.Event(), threading.Event(), threading.Event()

def step():
    begun.set()
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    go.wait()
    ended.set()

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    aside(step)
except KeyboardInterrupt:
    print("interrupted", begun.is_set(), ended.is_set())
go.set()
print("done all the same", ended.wait(10))
"""


def test_a_step_aside_has_been_done_afterwards() -> None:
    done: list[threading.Thread] = []
    aside(lambda: done.append(threading.current_thread()))
    assert len(done) == 1 and done[0] is not threading.main_thread()


def test_off_the_main_thread_nothing_is_put_aside() -> None:
    done: list[threading.Thread] = []
    thread = threading.Thread(target=aside, args=(lambda: done.append(threading.current_thread()),))
    thread.start()
    thread.join()
    assert done == [thread]


def test_the_error_of_a_step_is_raised() -> None:
    def step() -> None:
        raise OSError("no more threads")

    with pytest.raises(OSError, match="no more threads"):
        aside(step)


def test_an_interrupt_ends_the_waiting_and_not_the_step() -> None:
    with Program("-c", INTERRUPTED) as program:
        assert program.read_line() == "interrupted True False"
        assert program.read_line() == "done all the same True"
        assert program.finish() == 0
