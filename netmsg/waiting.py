"""Threads that wait for something another thread brings about.

``threading.Condition`` is not used here: an interrupt (Ctrl-C) inside one leaves its lock held or releases it twice.
A waiting thread instead blocks on a raw lock of its own, which ``KeyboardInterrupt`` can break at any point without
harming anybody else.
"""

from __future__ import annotations

import os
import sys
from _thread import LockType, allocate_lock
from collections import deque
from collections.abc import Callable
from itertools import starmap
from typing import Final, Protocol

from .deadline import Deadline
from .interrupts import SIGNAL_CHECK, in_main_thread

__all__ = ["Signal", "Ticket", "Waiters"]

ONE: Final = (1).to_bytes(8, sys.byteorder)
"""What is added to the counter of an eventfd, or eight bytes for a pipe."""


class Ticket(Protocol):
    """What one thread waits by: held, until somebody releases it. A raw lock is one."""

    def acquire(self, blocking: bool, timeout: float) -> bool:
        """Wait until it is released, or for ``timeout`` seconds (-1: for ever): then false."""

    def release(self) -> None:
        """Wake the thread that waits. Raises ``RuntimeError`` if that has been done already."""


class Signal:
    """A descriptor that is readable from `set` to `clear`, for those who wait in a selector. Neither blocks.

    It is closed when the object is collected, and by `close` only where nobody can be waiting any more: its number
    would be a stranger's.
    """

    __slots__ = ("_receiver", "_sender", "_opened")

    def __init__(self) -> None:
        self._receiver = self._sender = -1
        self._opened: list[tuple[int, ...]] = []
        # One call into C, so that an interrupt (Ctrl-C) leaves no descriptor behind of which nobody knows.
        if hasattr(os, "eventfd"):
            self._opened.extend(zip(map(os.eventfd, (0,), (os.EFD_NONBLOCK | os.EFD_CLOEXEC,))))
        else:
            self._opened.extend(starmap(os.pipe, ((),)))
        opened = self._opened[0]
        self._receiver = opened[0]
        self._sender = opened[-1]
        self._opened = []
        if self._receiver != self._sender:
            os.set_blocking(self._receiver, False)
            os.set_blocking(self._sender, False)

    def fileno(self) -> int:
        return self._receiver

    def set(self) -> None:
        try:
            os.write(self._sender, ONE)
        except BlockingIOError:
            pass  # readable enough

    def clear(self) -> None:
        try:
            os.read(self._receiver, 65536)
        except BlockingIOError:
            pass

    def close(self) -> None:
        ends = {self._receiver, self._sender}
        self._receiver = self._sender = -1
        for end in ends:
            if end >= 0:
                os.close(end)

    def __del__(self) -> None:
        if hasattr(self, "_opened"):
            for end in (end for ends in self._opened for end in ends):  # interrupted in between
                os.close(end)
            self.close()


def _lock() -> LockType:
    lock = allocate_lock()
    lock.acquire()
    return lock


def _acquire(ticket: Ticket, deadline: Deadline) -> bool:
    """Wait by ``ticket``; false once ``deadline`` has expired. In the main thread with a look for signals now and
    then: see `SIGNAL_CHECK`."""
    if not in_main_thread():
        return ticket.acquire(True, deadline.lock_timeout())
    while True:
        left = deadline.lock_timeout()
        if ticket.acquire(True, SIGNAL_CHECK if left < 0 else min(left, SIGNAL_CHECK)):
            return True
        if 0 <= left <= SIGNAL_CHECK:
            return False


class Waiters:
    """The threads that wait for one condition. It guards nothing: the condition is state kept elsewhere.

    The one who changes that state calls `notify` or `notify_all` *after* the change; both are safe from any thread and
    from a signal handler. A waiter joins the queue *before* it looks at the state, so no change can slip between.
    """

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: deque[Ticket] = deque()

    def wait(self, ready: Callable[[], object], deadline: Deadline,
             special: Callable[[], Ticket | None] | None = None) -> bool:
        """Block until ``ready()`` is true, and return ``True``; ``False`` once ``deadline`` has expired.

        ``ready`` must not consume what it finds: an interrupt between finding and returning would lose it.
        Woken by `notify`, `notify_all`, the deadline, and signals whose handlers raise. ``special`` may provide a
        ticket that wakes on other occasions as well.
        """
        while True:
            ticket = (special() if special is not None else None) or _lock()
            try:
                self.waiting.append(ticket)
                if ready():
                    return True
                woken = _acquire(ticket, deadline)
                if ready():
                    return True
                if not woken:
                    return False
            except BaseException:
                # Interrupted after it was woken: somebody else has to have the wake-up.
                self._leave(ticket)
                self.notify()
                raise
            finally:
                self._leave(ticket)

    def notify(self) -> None:
        """Wake one thread, the longest waiting that has not been woken already."""
        for ticket in tuple(self.waiting):
            try:
                ticket.release()
            except RuntimeError:  # woken already
                continue
            return

    def notify_all(self) -> None:
        """Wake every waiting thread."""
        for ticket in tuple(self.waiting):
            try:
                ticket.release()
            except RuntimeError:  # woken already
                pass

    def _leave(self, ticket: Ticket) -> None:
        try:
            self.waiting.remove(ticket)
        except ValueError:
            pass
