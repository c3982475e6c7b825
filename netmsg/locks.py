"""Locks that an interrupt (Ctrl-C) cannot leave locked.

A lock of ``threading`` in a ``with`` statement is one wherever the interpreter looks for no signals between
``__enter__`` and the block. CPython 3.14 does (https://github.com/python/cpython/issues/148874; those before and after
it do not): a handler that raises there skips ``__exit__``, and the lock stays locked for good.
"""

from __future__ import annotations

import sys
import threading
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol

from .uninterrupted import ONCE

__all__ = ["Guarded", "Lock", "new_lock", "new_reentrant_lock"]

LOOKS_FOR_SIGNALS: Final = sys.version_info[:2] == (3, 14)
"""Whether this interpreter does so between ``__enter__`` and the block."""


class Lock(Protocol):
    """What is used of a lock: ``with`` and `locked`."""

    def __enter__(self) -> Any:
        """Wait until it is unlocked, and lock it."""

    def __exit__(self, *exception: Any) -> Any:
        """Unlock it."""

    def locked(self) -> bool:
        """Whether anybody has locked it."""


class Guarded:
    """A lock of ``threading``, for ``with``, that no interrupt leaves locked in any version.

    ``__enter__`` is a function in Python, behind whose return nobody looks for signals, and inside of it `map` takes
    the lock and its end is noted by an unpacking: see `netmsg.uninterrupted`. ``__exit__`` has to be the lock's own: a
    function in Python could be interrupted before it has done anything.
    """

    __slots__ = ("__exit__", "_acquire", "_lock")

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._acquire = lock.acquire
        self.__exit__ = lock.__exit__

    def __enter__(self) -> None:
        _, = map(self._acquire, ONCE)

    def locked(self) -> bool:
        locked: bool = self._lock.locked()
        return locked


def new_lock() -> Lock:
    """A ``threading.Lock``, or something that serves as one in ``with``."""
    return Guarded(threading.Lock()) if LOOKS_FOR_SIGNALS else threading.Lock()


def new_reentrant_lock() -> AbstractContextManager[Any]:
    """A ``threading.RLock``, or something that serves as one in ``with``."""
    return Guarded(threading.RLock()) if LOOKS_FOR_SIGNALS else threading.RLock()
