"""Answering requests with what a function returns: the other half of request and reply."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol

from ..aside import aside
from ..deadline import Deadline, Revocable
from ..errors import ClosedError
from ..locks import new_lock
from ..speaking import say
from ..waiting import Waiters
from . import exiting
from .answering import Answer, Answering, what
from .arguments import Buffer
from .deliveries import Delivery

__all__ = ["Serving"]

log = logging.getLogger("netmsg.messaging")

_numbers = itertools.count(1)


class Source(Protocol):
    """Where the deliveries come from."""

    def __call__(self, deadline: Deadline) -> Delivery | None:
        """The next one; ``None`` once there will be no more. Raises ``TimeoutError``, `ClosedError`."""


class Serving:
    """One call of `Søcket.serve_requests`, for as long as that lasts. Its threads (``netmsg-serve-N-M``) come as they
    are needed: whoever has got something, and leaves nobody waiting, begins another one, up to ``max_workers``. What
    has been taken is answered also when the call is over."""

    def __init__(self, take: Source, wake: Callable[[], None], handler: Callable[[bytes], Buffer | None],
                 max_workers: int, answering: Answering, settle: Callable[[Delivery, bool], None]) -> None:
        """``wake()`` has all who wait in ``take`` look at their deadline; ``settle`` acknowledges a message by hand, or
        hands it back, waits for nothing, and does not raise."""
        self._take = take
        self._wake = wake
        self._handler = handler
        self._max_workers = max_workers
        self._until = Revocable()
        self._over = False
        self._waiters = Waiters()
        self._number = next(_numbers)
        self._answering = answering
        self._settle = settle
        self._ended = False
        self._begun = 0
        self._idle = 0
        self._lock = new_lock()  # guards these three; before that of `Answering`

    def run(self, deadline: Deadline) -> bool:
        """Serve until there is nothing more to take; false at the deadline. Raises ``RuntimeError`` where there can be
        no thread."""
        try:
            aside(self._begin)
            return self._waiters.wait(lambda: self._over, deadline)
        finally:
            try:
                self._stop()
            except BaseException:  # interrupted, perhaps once more
                aside(self._stop)
                raise

    def closed(self) -> None:
        """Nobody takes anything any more, whatever handlers still run. Takes no lock, and may be repeated."""
        self._over = True
        self._waiters.notify_all()

    def _stop(self) -> None:
        self._until.revoke()
        self._wake()
        aside(self._end)

    # These two where no interrupt can come, which might lose what is held, or have it held for ever.

    def _begin(self) -> None:
        with self._lock:
            if self._ended:
                return  # who has called was interrupted before
            self._answering.begin(self)
        self._begin_one()

    def _end(self) -> None:
        with self._lock:
            self._ended = True
            self._answering.end(self)

    def _begin_one(self) -> None:
        with self._lock:
            if self._idle or self._begun >= self._max_workers:
                return
            self._begun += 1
            self._idle += 1
            number = self._begun
        try:
            threading.Thread(target=self._work, name=f"netmsg-serve-{self._number}-{number}", daemon=True).start()
        except BaseException:
            with self._lock:
                self._begun -= 1
                self._idle -= 1
            raise

    def _work(self) -> None:
        while not self._until.expired:
            try:
                delivery = self._take(self._until)
            except TimeoutError:
                return  # the call is over
            except ClosedError:
                delivery = None
            if delivery is None:
                self.closed()
                return
            with self._lock:
                self._idle -= 1
            self._have_another()
            try:
                self._serve(delivery)
            except BaseException as error:  # which is not to end the thread
                say(log, logging.ERROR, "serve_requests: %s cannot be dealt with", what(delivery), exc_info=error)
            del delivery  # it may be large, and the next one may be long in coming
            with self._lock:
                self._idle += 1

    def _have_another(self) -> None:
        """Somebody has to wait for the next one, if there may be somebody."""
        try:
            self._begin_one()
        except RuntimeError:
            pass  # there can be no more threads: those that there are go on

    def _serve(self, delivery: Delivery) -> None:
        if delivery.is_request and self._answering.is_in_vain(delivery):
            return  # he may have asked thousands of times, and others wait behind that
        try:
            answer: Any = self._handler(delivery.data)
            reply = delivery._message_of(answer) if delivery.is_request else b""  # as it is now
        except BaseException as error:  # SystemExit too: the thread is not the handler's to end
            if not exiting.explains(error):
                say(log, logging.ERROR, "serve_requests: %s failed", what(delivery), exc_info=error)
            if delivery.is_request:
                self._answering.answer(Answer(delivery, type(error).__name__.encode(), True))
            else:
                self._settle(delivery, False)
            return
        if delivery.is_request:
            self._answering.answer(Answer(delivery, reply, False))
        else:
            self._settle(delivery, True)
