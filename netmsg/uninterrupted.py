"""What must not be interrupted, and the rule on which that rests.

The rule
--------
A signal handler is a function in Python, which the main thread runs somewhere between two of its instructions, and
which may raise: Ctrl-C does. Other threads come in between instructions, too. But CPython looks for either only at
certain places. There are three:

- where a function in Python begins, and where a generator goes on,
- where a call of something written in C has returned,
- where a loop jumps back to its beginning.

It does not look where a function in Python returns, nor anywhere else: not between assignments, attributes, items,
``del``, arithmetic, comparisons, unpacking, ``if``, ``try``, ``raise`` and ``except``, as long as what these work on
is written in C (no ``__setattr__``, ``__eq__``, ``__len__`` or property of Python's). Three things follow.

1. Statements without a call and without a loop are done all or not at all, and no other thread sees them half done.
   Such blocks are marked "no call from here on". They move things from where one has them to where another has: what an
   interrupt leaves is here or there, never both, never neither.
2. A call into C that makes further calls into C is one step. So ``results.extend(map(function, (argument,)))`` has
   noted what ``function`` returns (bytes that the kernel will not give again, a descriptor that is open now) before
   anybody can raise, and ``result, = map(function, (argument,))`` likewise: what ``map`` yields is unpacked without a
   look. Where a call of Python's more does not matter, it is written `keep`.
3. What a function in Python returns arrives, if the function has come to its ``return`` with no call behind the last
   thing it has done.

C code that blocks looks as well, when a signal has woken it: the handler of an interrupted ``poll`` or
``Lock.acquire`` runs before that has got anything. Finalizers run wherever an object goes away, but what is raised
there goes nowhere; still, other threads may come in between then, where a finalizer is written in Python.

Two versions are special. CPython 3.14 looks between ``__enter__`` and the block of a ``with``: see `netmsg.locks`. And
3.12 to 3.14 compile some jumps back so that no handler around the loop covers them: see `netmsg.streams.turns.Turn`,
and ``tests/test_loops.py``. That the rule holds is what ``tests/test_uninterrupted.py`` shows, by raising a signal in
the middle of each kind of statement; it is the first to fail under a version of Python that breaks it.

Without the global lock
-----------------------
An interpreter that has none looks for signals at the same places, but threads come in between anywhere. There the
functions that are `undivided` take a lock: one for all of them, for none of them calls anything. It is a leaf, and
never held for longer than a few instructions. What `keep` notes it notes in a list of the caller's own, and needs none.

``NETMSG_NO_GIL=1`` in the environment, read here once, tells an interpreter with the lock to do all as if it had none:
``make locked`` runs the tests so. Blocks that stand inside of hot functions, where a call more would cost too much,
are not `undivided`: that no other thread comes in between there is true under the global lock alone.

Beside this module, and above it: `netmsg.locks` for locks that no interrupt leaves locked, `netmsg.aside` for steps
that do make calls, `netmsg.interrupts` for who may be interrupted, and `netmsg.waiting` for who waits.
"""

from __future__ import annotations

import functools
import os
import sys
from _thread import RLock
from collections import deque
from collections.abc import Callable
from itertools import starmap
from typing import Any, Final, ParamSpec, TypeVar

from .forking import forget_in_child

__all__ = ["LOCKED", "keep", "locked", "move_first", "take_first", "take_last", "undivided"]

T = TypeVar("T")
P = ParamSpec("P")

LOCKED: Final = os.environ.get("NETMSG_NO_GIL") == "1" or not getattr(sys, "_is_gil_enabled", lambda: True)()
"""Whether `undivided` functions take a lock."""
ONCE: Final = (True,)
"""The argument of one call, by `map`."""
NOTHING: Final = ((),)
"""The arguments of one call, by `starmap`."""

_lock: Any = RLock()  # reentrant for the sake of handlers and finalizers that come before the function has begun


@forget_in_child
def _after_fork_in_child() -> None:
    """Another thread of the parent's may have it."""
    global _lock
    _lock = RLock()


def locked(function: Callable[P, T]) -> Callable[P, T]:
    """``function`` under the lock; what it has done and what it returns arrives, as without."""
    @functools.wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> T:
        lock = _lock
        acquire = map(lock.acquire, ONCE)
        work = starmap(functools.partial(function, **options) if options else function, (arguments,))
        release = starmap(lock.release, NOTHING)  # to make it is a call already
        # No call from here on but what these make. (An interrupt in ``acquire`` has got nothing.)
        _, = acquire
        try:
            result, = work
        finally:
            _, = release
        return result

    return call


def undivided(function: Callable[P, T]) -> Callable[P, T]:
    """A decorator for functions without a call and without a loop: once begun they are done, and no other thread comes
    in between. It costs nothing where there is a global lock. The tests look at their code."""
    return locked(function) if LOCKED else function


def keep(results: list[Any] | deque[Any], function: Callable[..., Any], *arguments: Any) -> None:
    """Append ``function(*arguments)`` to ``results``, which are the caller's own: if it has been done it is noted,
    whatever interrupts. ``function`` is written in C."""
    results.extend(starmap(function, (arguments,)))


@undivided
def take_first(items: Any) -> Any:
    """Like ``items.pop(0)``, but an interrupt comes either before or not at all. Raises ``IndexError``."""
    item = items[0]
    del items[0]
    return item


@undivided
def take_last(items: Any) -> Any:
    """Like ``items.pop()``, but an interrupt comes either before or not at all. Raises ``IndexError``."""
    item = items[-1]
    del items[-1]
    return item


@undivided
def move_first(source: list[list[Any]], target: list[Any]) -> bool:
    """Make the first of ``source`` the content of ``target``; false if there is none."""
    if not source:
        return False
    target[:] = source[0]
    del source[0]
    return True
