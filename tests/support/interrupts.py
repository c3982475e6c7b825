"""Interrupts of the main thread, as Ctrl-C makes them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .pairs import Background

LITTLE = 0.05


class Interrupted(BaseException):
    """What the signal handler raises."""


@contextmanager
def handling() -> Iterator[None]:
    """SIGUSR1 raises `Interrupted` in the main thread."""
    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def missed_signal() -> Iterator[None]:
    """After a little while, in which the main thread will have come to block, a signal that does not end its system
    call: the kernel hands it to another thread. (One that comes right before the system call ends it no more.) Where
    the main thread is not blocked yet, it is interrupted all the same."""
    def strike() -> None:
        threading.Event().wait(LITTLE)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    with handling():
        striking = Background(strike)
        try:
            yield
        finally:
            striking.join()
