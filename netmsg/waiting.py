"""Threads that wait for something another thread brings about.

``threading.Condition`` is not used here: an interrupt (Ctrl-C) inside one leaves its lock held or releases it twice.
A waiting thread instead blocks on a raw lock of its own, which ``KeyboardInterrupt`` can break at any point without
harming anybody else.
"""

from __future__ import annotations

import itertools
import os
import sys
from _thread import LockType, allocate_lock
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from .deadline import Deadline
from .interrupts import SIGNAL_CHECK, in_main_thread
from .uninterrupted import keep, take_last

__all__ = ["Line", "ONE", "Signal", "Ticket", "Waiters", "leave", "new_ticket", "wait_by"]

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

    __slots__ = ("ends",)

    def __init__(self) -> None:
        self.ends: list[int] = []
        """Where it is read first, and where it is written last: one and the same, of an eventfd. What an interrupt
        leaves of an object that is not finished is closed with it."""
        if hasattr(os, "eventfd"):
            keep(self.ends, os.eventfd, 0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:  # both ends in one call into C: see netmsg.uninterrupted
            self.ends.extend(itertools.chain.from_iterable(itertools.starmap(os.pipe, ((),))))
            for end in self.ends:
                os.set_blocking(end, False)

    def fileno(self) -> int:
        return self.ends[0] if self.ends else -1

    def set(self) -> None:
        ends = self.ends
        if ends:
            try:
                os.write(ends[-1], ONE)
            except BlockingIOError:
                pass  # readable enough

    def clear(self) -> None:
        ends = self.ends
        if ends:
            try:
                os.read(ends[0], 65536)
            except BlockingIOError:
                pass

    def close(self) -> None:
        ends = self.ends
        while ends:
            try:
                os.close(take_last(ends))
            except (IndexError, OSError):
                pass  # somebody else has closed it

    def __del__(self) -> None:
        if hasattr(self, "ends"):  # not where an interrupt came before anything else
            self.close()


def new_ticket() -> LockType:
    """A raw lock, held."""
    lock = allocate_lock()
    lock.acquire()
    return lock


def wait_by(ticket: Ticket, deadline: Deadline) -> bool:
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


def leave(ticket: Ticket) -> bool:
    """Nobody waits by it any more; false if it has been released meanwhile."""
    try:
        ticket.release()
    except RuntimeError:
        return False
    return True


class Line:
    """Threads that have waited for one and the same, and are woken one after the other, each by the one before it. One
    runs at a time, anyway: all that are woken at once wait for the interpreter, and snatch it from each other, which
    takes twice as many switches from thread to thread.
    """

    __slots__ = ("_tickets",)

    def __init__(self, tickets: Iterable[Ticket]) -> None:
        """Whoever waits by one of these calls `wake_next`, first of all when it is woken, or else `leave`: so it is
        not for a thread that may be interrupted."""
        self._tickets = deque(tickets)

    def wake_next(self) -> None:
        """Wake the next one that is still there."""
        tickets = self._tickets
        while True:
            try:
                tickets.popleft().release()
                return
            except RuntimeError:
                pass  # it has left
            except IndexError:
                return


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
        waiting = self.waiting
        while True:
            ticket = (special() if special is not None else None) or new_ticket()
            try:
                waiting.append(ticket)
                found = bool(ready())
                woken = found or wait_by(ticket, deadline)
                waiting.remove(ticket)
                if found and waiting:
                    self.notify()  # the wake-up that may have come meanwhile was for somebody else
                # Out of the queue, and only then the last look: of whatever this thread was woken for it knows now.
                found = bool(ready())
            except BaseException:
                # Whoever is interrupted leaves the queue and hands on the wake-up that may have come. Both are one call
                # into C with none before it, so that a further interrupt cannot keep either from being done.
                try:
                    waiting.remove(ticket)
                except ValueError:
                    pass
                finally:
                    try:
                        waiting[0].release()
                    except IndexError:
                        pass
                    except RuntimeError:  # woken already
                        self.notify()
                raise
            if found:
                return True
            if not woken:
                return False

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
