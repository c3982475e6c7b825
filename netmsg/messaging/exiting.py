"""Daemonic threads at the exit of the interpreter.

Søckets left open are closed then, which wakes every thread that waits for one of them. In a daemonic thread the
`ClosedError` would only print a traceback in the last moment of a program that ends in good order; so they stay blocked
instead, as they would in any call of the standard library, and end with the process. Those that come later, such as one
that sends something from time to time, do get it, but nothing is printed of a daemonic thread that it ends.
"""

from __future__ import annotations

import threading
from _thread import allocate_lock

from ..errors import ClosedError
from .life import Life

__all__ = ["begin", "check_open", "explains", "stay_blocked"]

_has_begun = False


def begin() -> None:
    """The interpreter is about to exit: only daemonic threads and the main thread are left."""
    global _has_begun
    if not _has_begun:
        _has_begun = True
        _keep_quiet()


def _keep_quiet() -> None:
    """Print no traceback of daemonic threads that end because everything has been closed."""
    tell = threading.excepthook

    def tell_unless_closed(args: threading.ExceptHookArgs) -> None:
        if not (args.exc_value is not None and explains(args.exc_value) and args.thread is not None
                and args.thread.daemon):
            tell(args)

    threading.excepthook = tell_unless_closed


def stay_blocked() -> None:
    """At exit, and in a daemonic thread of the user's: never return. Only for calls that had to wait: whoever has just
    come may hold a lock, such as that of a logging handler, which the exit needs."""
    thread = threading.current_thread()
    if _has_begun and thread.daemon and not thread.name.startswith("netmsg-"):
        for_ever = allocate_lock()
        for_ever.acquire()
        while True:
            for_ever.acquire()


def explains(error: BaseException) -> bool:
    """Whether somebody was told so only because the interpreter exits: it is not worth a word."""
    return _has_begun and isinstance(error, ClosedError)


def check_open(life: Life) -> None:
    """Raises `ForkedError`, `ClosedError`; or does not return, see `stay_blocked`: no lock may be held."""
    if life.closing:
        stay_blocked()
    life.check_open()
