"""Which process this is, without a system call; what a fork has to wait for; and what a forked child has to let go of.

A child has copies of all descriptors: of a listening socket, for one, which would go on taking connections that nobody
accepts after the parent has closed its own. And it has all that modules keep about threads, which are the parent's.

Everything that has to let go is registered here, for the order matters. First the process is another, by which objects
tell that they are the parent's. Then the modules forget, each after those that it imports: which thread is the main
one, the lock of the log, and the network threads, whom nobody may wake any more, for a wake-up would reach the
parent's. Last come the objects, which rely on all of this, and not on each other.

What is not ours, and has locks of its own, cannot forget that another thread had them when the process was forked. So
nobody forks while a thread is in there: see `Hold`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from _thread import RLock
from collections import deque
from collections.abc import Callable
from itertools import repeat
from operator import methodcaller
from typing import Any, Final, Protocol

__all__ = ["Hold", "Process", "close_in_child", "current_process", "forget_in_child", "hold_at_fork"]

log = logging.getLogger("netmsg.forking")

PATIENCE: Final = 5.0
"""Seconds for which a fork waits for those who hold it up, and they for it. Beyond, they may be waiting for each other:
somebody else's hook, in the same fork, for a lock that one of them has."""


class Process:
    """Stands for one process; a forked child makes another."""


class Held(Protocol):
    """An object that holds descriptors. It compares by identity."""

    def _forked(self) -> None:
        """In a forked child: close this process's copies, and touch nothing that is the parent's too. Perhaps others
        that it holds have been called already, and perhaps not."""


class Hold:
    """Holds up every fork by another thread while a thread is in a ``with`` block of it: see `hold_at_fork`. One that
    forks in there does not wait for itself."""

    def __init__(self) -> None:
        self._lock: Any = RLock()

    def __enter__(self) -> None:
        self._lock.acquire(timeout=PATIENCE)

    def __exit__(self, *exception: object) -> None:
        if self._lock._is_owned():  # or it has lasted too long
            self._lock.release()

    def _keep_out(self, until: float) -> None:
        """Let nobody in; but go on at a certain time, by the monotonic clock."""
        take = methodcaller("acquire", timeout=max(0.0, until - time.monotonic()))
        _kept_out.locks.extend(filter(take, (self._lock,)))  # what is taken is noted, whatever interrupts


class _KeptOut(threading.local):
    """What a thread that forks has taken."""

    def __init__(self) -> None:
        self.locks: list[Any] = []


_current = Process()
_held: weakref.WeakSet[Any] = weakref.WeakSet()
_forgetting: list[Callable[[], None]] = []
_holds: weakref.WeakSet[Hold] = weakref.WeakSet()
_adding = Hold()  # guards that nobody comes with a new one while a fork keeps all others out
_kept_out = _KeptOut()


def current_process() -> Process:
    """Compare by identity with one kept earlier: they differ in a forked child."""
    return _current


def close_in_child(held: Held) -> None:
    """Have ``held._forked()`` called in every child that is forked while ``held`` is alive, after all modules have
    forgotten."""
    _held.add(held)


def forget_in_child(function: Callable[[], None]) -> Callable[[], None]:
    """A decorator for functions of modules that have something to forget in a forked child."""
    _forgetting.append(function)
    return function


def hold_at_fork() -> Hold:
    """A new one, for the blocks of one thread at a time. It is respected as long as it is alive."""
    hold = Hold()
    with _adding:
        _holds.add(hold)
    return hold


def _before_fork() -> None:
    until = time.monotonic() + PATIENCE
    _adding._keep_out(until)
    for hold in tuple(_holds):
        hold._keep_out(until)


def _let_in() -> None:
    locks = _kept_out.locks
    deque(map(RLock.release, map(locks.pop, repeat(-1, len(locks)))), maxlen=0)  # in one step: no interrupt leaves one


def _after_fork_in_child() -> None:
    global _adding, _current, _holds
    _let_in()
    _adding, _holds = Hold(), weakref.WeakSet()  # what could not be taken belongs to threads that are not here
    _current = Process()
    for call in (*_forgetting, *(held._forked for held in tuple(_held))):
        try:
            call()
        except BaseException:  # the others have to let go all the same; Python would only print what gets out of here
            log.warning("a forked child could not let go of everything", exc_info=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_let_in, after_in_child=_after_fork_in_child)
    os.register_at_fork(after_in_parent=_let_in)  # for an interrupt at its beginning would skip the first
