"""The log, for code that must not wait for it: what is to be said is queued, and said by a thread of its own.

A logging handler is the user's: it takes locks, it may block, raise, or send its lines through a Søcket. So it is never
called on a network thread or in the middle of a ``send``. The thread (``netmsg-log``) is there only while there is
something to say. What is left at the exit of the interpreter, when no thread can be started any more, is said there.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from .deadline import Deadline
from .forking import forget_in_child
from .locks import new_lock
from .waiting import Waiters

__all__ = ["at_once", "say", "say_soon", "soon", "wait_until_said"]

MOST_WAITING: Final = 10_000
"""What is to be said and has not been; beyond, the oldest is forgotten."""
START: Final = 1.0
"""Seconds after which a thread that was started and has not begun is not counted on any more."""
EXIT_PATIENCE: Final = 2.0
"""Seconds that the exit of the interpreter waits for a handler that is in the middle of something."""

_queue: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque(maxlen=MOST_WAITING)
_speaking = new_lock()  # held by the thread that empties the queue; whoever else wants to, leaves it to that one
_speaker = 0  # that thread
_started = -START  # when one was started that has not begun yet
_listeners = Waiters()  # those who wait until all has been said
_at_once = False  # see `at_once`


@contextmanager
def at_once() -> Iterator[None]:
    """For a program, or a part of a test, that starts no threads: whoever has something to say says it itself."""
    global _at_once
    before, _at_once = _at_once, True
    try:
        yield
    finally:
        _at_once = before


def soon(function: Callable[..., None], *arguments: Any) -> None:
    """Have ``function(*arguments)`` called by the thread that speaks.

    Takes no lock that a signal handler could meet half-way, and does not wait for what is said. From any thread.
    """
    global _started
    if _at_once:
        try:
            function(*arguments)
        except BaseException:  # see `say`
            _complain()
        return
    # Append first, look second; `_speak` lets go first, and looks second. So nothing waits for the next.
    _queue.append((function, arguments))
    if _speaking.locked() or time.monotonic() < _started + START:
        return
    _started = time.monotonic()
    try:
        threading.Thread(target=_speak, name="netmsg-log", daemon=True).start()
    except RuntimeError:
        _started = -START  # out of threads: the next one will do; or the interpreter is exiting: see `_speak_at_exit`


def say(log: logging.Logger, level: int, text: str, *arguments: Any, **options: Any) -> None:
    """Log, whatever the handlers may do. To be called where it does not matter how long they take."""
    try:
        log.log(level, text, *arguments, **options)
    except BaseException:  # SystemExit too: the thread is not theirs to end
        _complain()


def say_soon(log: logging.Logger, level: int, text: str, *arguments: Any,
             exc_info: BaseException | None = None) -> None:
    """The same in the thread that speaks. From any thread."""
    if log.isEnabledFor(level):
        soon(_say_with, log, level, text, arguments, exc_info)


def _say_with(log: logging.Logger, level: int, text: str, arguments: tuple[Any, ...],
              exc_info: BaseException | None) -> None:
    say(log, level, text, *arguments, exc_info=exc_info)


def _complain() -> None:
    """A handler has raised: say so where `logging` says it of those of its own."""
    if logging.raiseExceptions and sys.stderr is not None:
        try:
            traceback.print_exc()
        except (OSError, ValueError):
            pass  # the standard error is closed: there is nobody left to tell


def wait_until_said(timeout: float) -> None:
    """Wait until all that was queued has been said, ``timeout`` seconds at most; not in the thread that speaks."""
    if _speaker != threading.get_ident():
        _listeners.wait(_all_is_said, Deadline(timeout))


def _all_is_said() -> bool:
    return not _queue and not _speaking.locked()


def _speak() -> None:
    global _speaker, _started
    _started = -START
    while _queue and not _speaking.locked():
        with _speaking:
            _speaker = threading.get_ident()
            while _queue:
                try:
                    function, arguments = _queue.popleft()
                    function(*arguments)
                except BaseException:  # see `say`
                    _complain()
                function, arguments = _nothing, ()  # or they would keep alive what they were about
            _speaker = 0
    _listeners.notify_all()


def _nothing() -> None:
    """In place of what has been said."""


def _speak_at_exit() -> None:
    if not _speaking.locked():
        _speak()
    wait_until_said(EXIT_PATIENCE)


@forget_in_child
def _after_fork_in_child() -> None:
    """The thread is the parent's, and so may the lock be."""
    global _speaking, _speaker, _started
    _speaking = new_lock()
    _speaker = 0
    _started = -START
    _queue.clear()


atexit.register(_speak_at_exit)
