"""Handing on what comes by one Søcket to another one: one direction of a `proxy`.

::

    delivery ──▶ taken ──▶ given to the sink ──────────────────────────▶ acknowledged at the source
                              │   at least once: when it is acknowledged there,
                              │   and any number may be on their way
                              └─ given up there, or refused ───────────▶ handed back at the source

    request ───▶ asked at the sink ──▶ its reply, or why there is none ─▶ the reply at the source

Nothing here has a thread or waits by itself, but for `Relay.step`, which waits as long as it is told to. So a message
is in one of these places at any moment, and whoever stops in the middle has acknowledged only what the sink has.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from ..deadline import Deadline
from ..errors import NetmsgError, QueueFullError, RequestFailedError, SendTimeoutError
from ..speaking import say
from .deliveries import Delivery
from .receipts import Receipt
from .replying import Replies
from .requests import Request

__all__ = ["MOST_QUESTIONS", "Questions", "Relay", "Sink", "Source"]

log = logging.getLogger("netmsg.messaging")

MOST_QUESTIONS: Final = 10_000
"""Requests that wait for a reply at a time: with one more the oldest is given up."""
TOO_MANY: Final = "given up by the proxy: too many requests wait for a reply"
NOT_PASSED_ON: Final = "not passed on: the proxy has ended"


class Source(Protocol):
    """Where messages come from."""

    def take(self, deadline: Deadline) -> Delivery | None:
        """The next one; ``None`` once there will be no more. Raises ``TimeoutError``, `ClosedError`."""

    def settle(self, delivery: Delivery, accept: bool) -> None:
        """Acknowledge it, or hand it back. Takes no lock, and does not raise."""

    def lose(self, delivery: Delivery, reason: str) -> None:
        """Count one that was sent at most once as lost, and tell."""

    def is_there(self, identity: bytes) -> bool:
        """Whether that peer is connected."""


class Sink(Protocol):
    """Where they go."""

    max_message_size: int

    def give(self, data: bytes, deadline: Deadline) -> Receipt | None:
        """Send a message. Raises `SendTimeoutError`, `QueueFullError`, `ClosedError`."""

    def follow(self, receipt: Receipt, tell: Callable[[bool], None]) -> None:
        """Have ``tell(acknowledged)`` called when it is decided. It may take no lock."""

    def ask(self, data: bytes, wake: Callable[[], None]) -> Request:
        """A request, to be gone on with now and whenever ``wake()`` is called, which may take no lock."""

    def go_on(self, request: Request) -> bytes | None:
        """Its reply, if there is one. Raises `RequestFailedError`, `ConnectionBrokenError`, `ClosedError`."""

    def end(self, request: Request) -> None:
        """Nobody waits for it any more."""


class Relay:
    """One direction. `step` is for one thread, and `Questions` for another one."""

    def __init__(self, source: Source, sink: Sink, questions: Questions) -> None:
        self._source = source
        self._sink = sink
        self._questions = questions
        self._in_hand: Delivery | None = None
        """Taken, and not given to anybody yet."""

    def step(self, until: Deadline) -> bool:
        """Hand on one message; false once there is nothing more to take. Raises ``TimeoutError`` when there was none,
        or no room for it, in time, and `ClosedError` when one of the two is closed."""
        if self._in_hand is None:
            self._in_hand = self._source.take(until)
        delivery = self._in_hand
        if delivery is None:
            return False
        if delivery.is_request:
            self._questions.ask(delivery)
        else:
            self._hand_on(delivery, until)
        self._in_hand = None
        return True

    def _hand_on(self, delivery: Delivery, until: Deadline) -> None:
        source = self._source
        size, most = len(delivery.data), self._sink.max_message_size
        if size > most:
            self._refuse(delivery, f"it has {size} bytes, and the other end of the proxy takes {most}")
            return
        try:
            receipt = self._sink.give(delivery.data, until)
        except QueueFullError as error:
            self._refuse(delivery, str(error))
            return
        if receipt is None:
            source.settle(delivery, True)
        else:
            self._sink.follow(receipt, lambda acknowledged: source.settle(delivery, acknowledged))

    def _refuse(self, delivery: Delivery, why: str) -> None:
        say(log, logging.ERROR, "proxy: a message of %d bytes from peer %s is not passed on: %s", len(delivery.data),
            delivery.identity.hex(), why)
        if delivery._is_kept:
            self._source.settle(delivery, False)
        else:
            self._source.lose(delivery, "not passed on")

    def end(self) -> None:
        """There will be no more steps. What is in hand goes back."""
        delivery, self._in_hand = self._in_hand, None
        if delivery is None or delivery.is_request:
            return  # the one who has asked hears that nobody is there
        if delivery._is_kept:
            self._source.settle(delivery, False)
        else:
            self._source.lose(delivery, NOT_PASSED_ON)


class _Question:
    """A request that came, and the one that was made of it."""

    __slots__ = ("delivery", "over", "request")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.request: Request | None = None
        self.over = False


class Questions:
    """The requests of one direction that have no reply yet. ``wake()`` is called when `go_on` is to be, and may take no
    lock. All but `ask` is for one thread."""

    def __init__(self, source: Source, sink: Sink, replies: Replies, wake: Callable[[], None]) -> None:
        self._source = source
        self._sink = sink
        self._replies = replies
        self._wake = wake
        self._open: dict[_Question, None] = {}
        """Oldest first."""
        self.news: deque[_Question] = deque()
        """Those to be looked at."""

    @property
    def any(self) -> bool:
        """Whether one waits for its reply."""
        return bool(self._open)

    def ask(self, delivery: Delivery) -> None:
        """One has come. From another thread."""
        question = _Question(delivery)
        if len(self.news) <= 2 * MOST_QUESTIONS:
            self._look_at(question)
        else:
            self._close(question, TOO_MANY)

    def _look_at(self, question: _Question) -> None:
        self.news.append(question)
        self._wake()

    def go_on(self) -> None:
        """Ask what has come, and hand on the replies that there are. May wait for room for a reply, as `Replies` do."""
        while self.news:
            question = self.news.popleft()
            if not question.over:
                self._go_on(question)
            if len(self._open) > MOST_QUESTIONS:
                self._close(next(iter(self._open)), TOO_MANY)

    def _go_on(self, question: _Question) -> None:
        sink, data = self._sink, question.delivery.data
        if len(data) > sink.max_message_size:
            self._close(question, f"a request of {len(data)} bytes, and the proxy passes on {sink.max_message_size}")
            return
        try:
            request = question.request
            if request is None:
                self._open[question] = None
                request = question.request = sink.ask(data, lambda: self._look_at(question))
            reply = sink.go_on(request)
        except RequestFailedError as error:
            self._close(question, error.reason)
        except NetmsgError as error:
            self._close(question, str(error))
        else:
            if reply is not None:
                self._answer(question, reply)

    def _answer(self, question: _Question, reply: bytes) -> None:
        try:
            self._replies.send(question.delivery, reply)
        except (SendTimeoutError, QueueFullError):
            self._source.lose(question.delivery, "no room for the reply")
        except (NetmsgError, ValueError) as error:
            self._close(question, str(error))
        self._forget(question)

    def _close(self, question: _Question, reason: str) -> None:
        try:
            question.delivery.fail(reason, timeout=0)
        except (NetmsgError, TimeoutError):
            pass  # it cannot be told
        self._forget(question)

    def _forget(self, question: _Question) -> None:
        question.over = True
        self._open.pop(question, None)
        if question.request is not None:
            self._sink.end(question.request)
            question.request = None  # which knows the question, by what wakes it

    def tidy(self) -> None:
        """Forget the requests of those who have gone: nobody waits for these replies."""
        for question in tuple(self._open):
            if not self._source.is_there(question.delivery.identity):
                self._forget(question)

    def end(self) -> None:
        """There will be no more replies."""
        for question in (*self._open, *self.news):
            if not question.over:
                self._close(question, "the proxy has ended")
        self.news.clear()
