"""The thread on which a function of the user's is called, so that it can hold up neither the network nor another such
function."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

from ..errors import ClosedError
from ..speaking import say

__all__ = ["Callbacks"]

log = logging.getLogger("netmsg.messaging")  # it is Søckets that have such functions

_numbers = itertools.count(1)

MOST_WAITING: Final = 1000
"""Calls that wait for one that does not return."""

Done = Callable[[Any, "BaseException | None"], None]


class Callbacks:
    """One daemonic thread (``netmsg-callback-N``), started with the first call. Belongs to the network thread."""

    def __init__(self, name: str, complain: Callable[[str, BaseException], None]) -> None:
        """``complain(name, error)`` is told what a function raised."""
        self._name = name
        self._complain = complain
        self._queue: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...], Done] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...], done: Done) -> None:
        """Call ``function(*arguments)`` there, and then, there too, ``done(result, None)`` or ``done(None, error)``."""
        if self._closed:
            done(None, ClosedError("the Søcket is closed"))
            return
        if self._queue.qsize() >= MOST_WAITING:
            done(None, TimeoutError(f"{self._name}() has not returned for a long time"))
            return
        if self._thread is None:
            thread = threading.Thread(target=self._work, name=f"netmsg-callback-{next(_numbers)}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the interpreter is exiting
                done(None, error)
                return
            self._thread = thread
        self._queue.put((function, arguments, done))

    def close(self) -> None:
        """Let the thread end after what it is doing, and start no more. Idempotent."""
        if self._thread is not None and not self._closed:
            self._queue.put(None)
        self._closed = True

    def join(self, timeout: float) -> None:
        """Wait for its end, unless the caller is that thread."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            self._call(*call)
            call = None  # or what it was about would be kept alive until the next one

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...], done: Done) -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = function(*arguments)
        except BaseException as error:  # SystemExit too: this thread is not theirs to end
            self._complain(self._name, error)
            failure = error
        try:
            done(result, failure)
        except BaseException as error:
            say(log, logging.ERROR, "what came of a function of the user's could not be dealt with", exc_info=error)
        finally:
            del result, failure  # its traceback leads back to here
