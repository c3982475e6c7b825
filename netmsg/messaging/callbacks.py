"""The thread on which the user's own functions are called, so that none of them can hold up the network."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from ..errors import ClosedError
from ..speaking import say

__all__ = ["Callbacks"]

log = logging.getLogger("netmsg.messaging")

_numbers = itertools.count(1)

Done = Callable[[Any, "BaseException | None"], None]


class Callbacks:
    """One daemonic thread (``netmsg-callback-N``), started with the first call. Belongs to the network thread."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...], Done] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...], done: Done) -> None:
        """Call ``function(*arguments)`` there, and then, there too, ``done(result, None)`` or ``done(None, error)``."""
        if self._closed:
            done(None, ClosedError("the Søcket is closed"))
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
            name = getattr(function, "__qualname__", type(function).__name__)
            say(log, logging.WARNING, "%s raised", name, exc_info=error)
            failure = error
        try:
            done(result, failure)
        except BaseException as error:
            say(log, logging.ERROR, "what came of a function of the user's could not be dealt with", exc_info=error)
        finally:
            del result, failure  # its traceback leads back to here
