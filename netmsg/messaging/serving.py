"""Answering requests with what a function returns: the other half of request and reply."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from ..aside import aside
from ..deadline import Deadline, Revocable
from ..errors import ClosedError, NetmsgError, QueueFullError, SendTimeoutError
from ..locks import new_lock
from ..speaking import say
from ..waiting import Waiters
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
                self._over = True
                self._waiters.notify_all()
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
            answer = self._handler(delivery.data)
        except BaseException as error:  # SystemExit too: the thread is not the handler's to end
            self._refuse(delivery, error)
            return
        try:
            left = delivery.is_request and self._is_left_to_who_waits(delivery, answer)
        except BaseException as error:  # such as of a memoryview that was released
            self._refuse(delivery, error)
            return
        if not left:
            self._finish(delivery, answer)

    def _finish(self, delivery: Delivery, answer: Buffer | None, line: _Line | None = None) -> None:
        try:
            if delivery.is_request:
                self._reply(delivery, answer, line)
            delivery.ack()
        except ClosedError:
            pass  # this Søcket is: nobody is there to be answered
        except (SendTimeoutError, QueueFullError):
            self._lose(delivery)
        except BaseException as error:
            self._refuse(delivery, error)

    # Whoever does not take his replies is waited for once, by one worker, and not again before he has taken some:
    # otherwise he would keep them all from the others.

    def _reply(self, delivery: Delivery, answer: Buffer | None, line: _Line | None) -> None:
        """By the worker who waits for this asker already, if that has a ``line``."""
        try:
            delivery.reply(answer, timeout=0)  # type: ignore[arg-type]
        except SendTimeoutError:
            if delivery.identity in self._deaf:
                raise
            if line is None:
                self._stand_in_line(delivery, answer)
            else:
                self._wait_to_reply(delivery, answer, line)
        self._deaf.discard(delivery.identity)

    def _is_left_to_who_waits(self, delivery: Delivery, answer: Buffer | None) -> bool:
        """Whether a worker waits for room for a reply to the same asker, and sends this one behind it."""
        if delivery.identity not in self._lines or not isinstance(answer, (bytes, bytearray, memoryview)):
            return False
        reply = bytes(answer)  # as it is now
        with self._lock:
            line = self._lines.get(delivery.identity)
            if line is None or line.is_full:
                return False
            line.add(delivery, reply)
            return True

    def _stand_in_line(self, delivery: Delivery, answer: Buffer | None) -> None:
        """As the first, or where the line is full, as one of not too many."""
        asker = delivery.identity
        with self._lock:
            line = self._lines.get(asker)
            first = line is None
            if line is None:
                line = self._lines[asker] = _Line()
            elif line.waiting >= self._max_workers // 2:
                raise SendTimeoutError("others wait for the same asker")
            line.waiting += 1
        try:
            self._wait_to_reply(delivery, answer, line)
        finally:
            with self._lock:
                line.waiting -= 1
            if first:
                self._go_on_in_line(asker, line)

    def _wait_to_reply(self, delivery: Delivery, answer: Buffer | None, line: _Line) -> None:
        waiting = True
        while waiting:
            before = line.taken
            try:
                delivery.reply(answer, timeout=PATIENCE)  # type: ignore[arg-type]
                line.taken += 1
                waiting = False
            except SendTimeoutError:
                if line.taken == before:  # and not somebody else's reply instead
                    if len(self._deaf) >= MOST_DEAF:
                        self._deaf.clear()
                    self._deaf.add(delivery.identity)
                    raise

    def _go_on_in_line(self, asker: bytes, line: _Line) -> None:
        while True:
            with self._lock:
                if not line.replies:
                    del self._lines[asker]
                    return
                delivery, reply = line.take()
            self._finish(delivery, reply, line)

    @staticmethod
    def _refuse(delivery: Delivery, error: BaseException) -> None:
        say(log, logging.ERROR, "serve_requests: %s failed", _what(delivery), exc_info=error)
        try:
            if delivery.is_request:
                delivery.fail(type(error).__name__, timeout=0)
            else:
                delivery.nack()
        except (NetmsgError, TimeoutError):
            pass  # it cannot be told


class _Line:
    """What there is to reply to one asker, behind a reply for which a worker waits for room. Under the lock."""

    def __init__(self) -> None:
        self.replies: deque[tuple[Delivery, bytes]] = deque()
        self.waiting = 0
        """Workers that wait side by side."""
        self.taken = 0
        """Replies that were waited with, and found room."""
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self.replies) >= MOST_IN_LINE or self._bytes >= MOST_BYTES_IN_LINE

    def add(self, delivery: Delivery, reply: bytes) -> None:
        self.replies.append((delivery, reply))
        self._bytes += len(reply)

    def take(self) -> tuple[Delivery, bytes]:
        delivery, reply = self.replies.popleft()
        self._bytes -= len(reply)
        return delivery, reply


def _what(delivery: Delivery) -> str:
    kind = "a request" if delivery.is_request else "a message"
    return f"the handler of {kind} of {len(delivery.data)} bytes from peer {delivery.identity.hex()}"
