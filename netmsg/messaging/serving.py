"""Answering requests with what a function returns: the other half of request and reply."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from ..aside import aside
from ..deadline import Deadline, Revocable
from ..errors import ClosedError, NetmsgError, QueueFullError, SendTimeoutError
from ..locks import new_lock
from ..speaking import say
from ..waiting import Waiters
from . import exiting
from .arguments import Buffer
from .deliveries import Delivery

__all__ = ["Serving"]

log = logging.getLogger("netmsg.messaging")

PATIENCE: Final = 1.0
"""Seconds that a worker waits for room for a reply."""
MOST_DEAF: Final = 10_000
MOST_IN_LINE: Final = 10_000
MOST_BYTES_IN_LINE: Final = 16 << 20
"""So many replies, of so many bytes together, wait behind another one to the same asker."""

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
                 max_workers: int, has_room: Callable[[bytes], bool], lose: Callable[[Delivery], None]) -> None:
        """``wake()`` has all who wait in ``take`` look at their deadline; ``has_room`` says whether a reply to a peer
        would find some now; ``lose`` is told of a request for whose reply there is none."""
        self._take = take
        self._wake = wake
        self._has_room = has_room
        self._lose = lose
        self._handler = handler
        self._max_workers = max_workers
        self._until = Revocable()
        self._over = False
        self._waiters = Waiters()
        self._number = next(_numbers)
        self._begun = 0
        self._idle = 0
        self._lines: dict[bytes, _Line] = {}
        """For each asker for whom a worker waits."""
        self._lock = new_lock()  # guards these three; a leaf
        self._deaf: set[bytes] = set()

    def run(self, deadline: Deadline) -> bool:
        """Serve until there is nothing more to take; false at the deadline. Raises ``RuntimeError`` where there can be
        no thread."""
        try:
            aside(self._begin_one)
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
            self._serve(delivery)
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
        if delivery.is_request and delivery.identity in self._deaf and not self._has_room(delivery.identity):
            self._lose(delivery)  # he may have asked thousands of times, and others wait behind that
            return
        try:
            answer: Any = self._handler(delivery.data)
            reply = delivery._message_of(answer) if delivery.is_request else b""  # as it is now
        except BaseException as error:  # SystemExit too: the thread is not the handler's to end
            if not exiting.explains(error):
                say(log, logging.ERROR, "serve_requests: %s failed", _what(delivery), exc_info=error)
            if delivery.is_request:
                self._answer(_Answer(delivery, partial(delivery.fail, type(error).__name__), 0))
            else:
                _settle(delivery.nack)
            return
        if delivery.is_request:
            self._answer(_Answer(delivery, partial(delivery.reply, reply), len(reply)))
        else:
            _settle(delivery.ack)

    # Whoever does not take his replies is waited for once, and not again before he has taken some: otherwise he would
    # keep all workers from the others. While one of them waits for him the others leave theirs to that one.

    def _answer(self, answer: _Answer) -> None:
        if not self._is_left_to_who_waits(answer):
            self._send(answer, None)

    def _is_left_to_who_waits(self, answer: _Answer) -> bool:
        with self._lock:
            line = self._lines.get(answer.delivery.identity)
            if line is None or line.is_full:
                return False
            line.add(answer)
            return True

    def _send(self, answer: _Answer, line: _Line | None) -> None:
        """By the worker whose ``line`` it stands in, if it does."""
        try:
            self._send_or_wait(answer, line)
        except (SendTimeoutError, QueueFullError):
            self._lose(answer.delivery)
        except NetmsgError:
            pass  # this Søcket is closed: nobody is there to be answered
        except BaseException as error:  # which is not to end the thread
            say(log, logging.ERROR, "serve_requests: %s cannot be answered", _what(answer.delivery), exc_info=error)

    def _send_or_wait(self, answer: _Answer, line: _Line | None) -> None:
        asker = answer.delivery.identity
        try:
            answer.send(timeout=0)
        except SendTimeoutError:
            if asker in self._deaf:
                raise
            if line is None:
                self._stand_in_line(answer)
            else:
                self._wait(answer, line)
        self._deaf.discard(asker)

    def _stand_in_line(self, answer: _Answer) -> None:
        """As the first, or beside it, where the line is full."""
        asker = answer.delivery.identity
        with self._lock:
            line = self._lines.get(asker)
            first = line is None
            if line is None:
                line = self._lines[asker] = _Line()
        try:
            self._wait(answer, line)
        finally:
            if first:
                self._go_on_in_line(asker, line)

    def _wait(self, answer: _Answer, line: _Line) -> None:
        waiting = True
        while waiting:
            before = line.taken
            try:
                answer.send(timeout=PATIENCE)
                line.taken += 1
                waiting = False
            except SendTimeoutError:
                if line.taken == before:  # and not another one instead
                    if len(self._deaf) >= MOST_DEAF:
                        self._deaf.clear()
                    self._deaf.add(answer.delivery.identity)
                    raise

    def _go_on_in_line(self, asker: bytes, line: _Line) -> None:
        while True:
            with self._lock:
                if not line.answers:
                    del self._lines[asker]
                    return
                answer = line.take()
            self._send(answer, line)


class _Answer(NamedTuple):
    """To a request."""

    delivery: Delivery
    send: Callable[..., None]
    """Which takes a ``timeout``."""
    size: int


class _Line:
    """What there is to be sent to one asker, behind an answer for which a worker waits for room. Under the lock."""

    def __init__(self) -> None:
        self.answers: deque[_Answer] = deque()
        self.taken = 0
        """How many were waited with, and found room."""
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self.answers) >= MOST_IN_LINE or self._bytes >= MOST_BYTES_IN_LINE

    def add(self, answer: _Answer) -> None:
        self.answers.append(answer)
        self._bytes += answer.size

    def take(self) -> _Answer:
        answer = self.answers.popleft()
        self._bytes -= answer.size
        return answer


def _settle(call: Callable[[], None]) -> None:
    try:
        call()
    except NetmsgError:
        pass  # the Søcket is closed


def _what(delivery: Delivery) -> str:
    kind = "a request" if delivery.is_request else "a message"
    return f"the handler of {kind} of {len(delivery.data)} bytes from peer {delivery.identity.hex()}"
