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


class Alarm(TimeoutError):
    """What the handler of an alarm usually raises: no timeout of the library's."""


@contextmanager
def handling(error: type[BaseException] = Interrupted) -> Iterator[None]:
    """SIGUSR1 raises ``error`` in the main thread."""
    def interrupt(*_: object) -> None:
        raise error

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def missed_signal(error: type[BaseException] = Interrupted) -> Iterator[None]:
    """After a little while, in which the main thread will have come to block, a signal that does not end its system
    call: the kernel hands it to another thread. (One that comes right before the system call ends it no more.) Where
    the main thread is not blocked yet, it is interrupted all the same."""
    def strike() -> None:
        threading.Event().wait(LITTLE)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    with handling(error):
        striking = Background(strike)
        try:
            yield
        finally:
            striking.join()
