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

import heapq
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from ..deadline import Deadline
from ..errors import NetmsgError, QueueFullError, RequestFailedError, SendTimeoutError
from ..locks import new_lock
from ..speaking import say
from ..waiting import Waiters
from .deliveries import Delivery
from .losses import NO_ROOM_FOR_REPLY
from .receipts import Receipt
from .requests import Request

__all__ = ["LOOK", "Questions", "Relay", "Sink", "Source"]

log = logging.getLogger("netmsg.messaging")

MOST_QUESTIONS: Final = 10_000
MOST_ASKED: Final = 64 * 2**20
"""Requests that wait for a reply at a time, and bytes of them: beyond these the oldest is given up of who has most."""
MOST_COME: Final = 1000
"""So many wait to be looked at, before nothing more is taken."""
MOST_UNPLACED: Final = 64
"""So many of them at a time wait for somebody who has room; the others wait behind these."""
AT_A_TIME: Final = 100
"""So many are seen to before it is looked at whether there is something else to do."""
MOST_UNSAID: Final = 64 * 2**20
"""Bytes of replies that wait for room, and of what was asked: beyond these, the asker loses some who has most."""
SMALLEST: Final = 1024
"""Bytes that a request, or an answer, counts as at least."""
LOOK: Final = 0.1
"""Seconds between two calls of `Questions.look`."""
MOST_TRIES: Final = 150
"""Of these, so many may pass in which an asker takes none of his replies."""
TOO_MANY: Final = "given up by the proxy: too many requests wait for a reply"
ENDED: Final = "the proxy has ended"
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

    def has_room(self, identity: bytes) -> bool:
        """Whether a reply to it is to be tried now."""

    def taken_by(self, identity: bytes) -> int:
        """How many bytes it has taken; 0 if it is not there."""

    def listen(self, tell: Callable[[], None]) -> None:
        """Have ``tell()`` called when somebody may have room for one, until `unlisten`. It may take no lock."""

    def unlisten(self, tell: Callable[[], None]) -> None:
        """May be repeated."""


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
        self._level = logging.WARNING
        """At which it is logged that a message is not passed on: of many in a row, only the first is a warning."""

    def step(self, until: Deadline) -> bool:
        """Hand on one message; false once there is nothing more to take. Raises ``TimeoutError`` when there was none,
        or no room for it, in time, and `ClosedError` when one of the two is closed."""
        self._questions.wait_in_a_crowd(until)
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
        except (NetmsgError, TimeoutError) as error:
            if not isinstance(error, QueueFullError):
                raise
            self._refuse(delivery, str(error))
            return
        except OSError as error:  # of its outbox
            self._refuse(delivery, str(error))
            return
        self._level = logging.WARNING
        if receipt is None:
            source.settle(delivery, True)
        else:
            self._sink.follow(receipt, lambda acknowledged: source.settle(delivery, acknowledged))

    def _refuse(self, delivery: Delivery, why: str) -> None:
        level, self._level = self._level, logging.DEBUG
        say(log, level, "proxy: a message of %d bytes from peer %s is not passed on: %s", len(delivery.data),
            delivery.identity.hex(), why)
        self._give_back(delivery, "not passed on")

    def _give_back(self, delivery: Delivery, why: str) -> None:
        """To whoever keeps it; otherwise it is lost."""
        if delivery._is_kept:
            self._source.settle(delivery, False)
        else:
            self._source.lose(delivery, why)

    def end(self) -> None:
        """There will be no more steps. What is in hand goes back."""
        delivery, self._in_hand = self._in_hand, None
        if delivery is None:
            return
        if delivery.is_request:
            self._questions.ask(delivery)
        else:
            self._give_back(delivery, NOT_PASSED_ON)


class _Question:
    """A request that came, and the one that was made of it."""

    __slots__ = ("delivery", "noted", "request", "size")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.size = max(SMALLEST, len(delivery.data))
        self.request: Request | None = None
        self.noted = False
        """Whether it is to be looked at."""


class _Asker:
    """What one has asked that is not over, oldest first."""

    def __init__(self) -> None:
        self.questions: OrderedDict[_Question, None] = OrderedDict()
        self.size = 0
        """How many bytes these are."""

    def add(self, question: _Question) -> None:
        self.questions[question] = None
        self.size += question.size

    def remove(self, question: _Question) -> None:
        del self.questions[question]
        self.size -= question.size

    def bytes(self) -> int:
        return self.size

    def count(self) -> int:
        return len(self.questions)


class _Answer(NamedTuple):
    """To a request: the reply, or why there is none."""

    delivery: Delivery
    data: bytes
    fails: bool

    @property
    def size(self) -> int:
        """What it keeps in memory."""
        return max(SMALLEST, len(self.data) + len(self.delivery.data))


class _Unsaid:
    """Answers for which an asker has no room yet."""

    def __init__(self, taken: int) -> None:
        self.answers: deque[_Answer] = deque()
        self.size = 0
        """How many bytes these are."""
        self.tries = 0
        """How often none of them has found room, and the asker had taken nothing since,"""
        self.taken = taken
        """but so many bytes before."""

    def add(self, answer: _Answer) -> None:
        self.answers.append(answer)
        self.size += answer.size

    def take(self, index: int) -> _Answer:
        answer = self.answers[index]
        del self.answers[index]
        self.size -= answer.size
        return answer


class Questions:
    """The requests of one direction that have no reply yet. ``wake()`` is called when `go_on` is to be, and may take no
    lock. It never waits: what does not find room is tried again, when there is some, and by `look`. All but `ask` and
    `end` is for one thread."""

    def __init__(self, source: Source, sink: Sink, wake: Callable[[], None]) -> None:
        self._source = source
        self._sink = sink
        self._wake = wake
        self._come: deque[_Question] = deque()
        """Those that were not looked at yet; from another thread, which waits when these are many."""
        self._crowd = Waiters()
        self._coming: OrderedDict[_Question, None] = OrderedDict()
        """Those that were not asked yet, oldest first."""
        self._open: OrderedDict[_Question, None] = OrderedDict()
        """Those that were, oldest first,"""
        self._unplaced: set[_Question] = set()
        """and those of them that nobody has: few, for whatever happens at the sink, all of these are looked at."""
        self._news: deque[_Question] = deque()
        """Those to be looked at."""
        self._askers: dict[bytes, _Asker] = {}
        self._asked = 0
        """How many bytes of requests there are that are not over."""
        self._unsaid: dict[bytes, _Unsaid] = {}
        """By asker."""
        self._unsaid_bytes = 0
        self._has_room = False
        """Whether somebody may have room for what is unsaid."""
        self._over = False
        self._ending = new_lock()  # guards the end, which two threads may bring about

    @property
    def any(self) -> bool:
        """Whether there is one that waits for something."""
        return bool(self._open or self._come or self._coming or self._unsaid)

    @property
    def news(self) -> bool:
        """Whether `go_on` has something to do."""
        may_ask = self._coming and len(self._unplaced) < MOST_UNPLACED
        return bool(self._news or self._come or self._has_room or may_ask or self._are_too_many)

    @property
    def _are_too_many(self) -> bool:
        return len(self._open) + len(self._coming) > MOST_QUESTIONS or self._asked > MOST_ASKED

    def wait_in_a_crowd(self, until: Deadline) -> None:
        """So many have come that they have to be looked at before more do. From another thread. Raises
        ``TimeoutError``."""
        if len(self._come) >= MOST_COME and not self._crowd.wait(
                lambda: len(self._come) < MOST_COME or self._over, until):
            raise TimeoutError("too many requests have come")

    def ask(self, delivery: Delivery) -> None:
        """One has come. From another thread."""
        self._come.append(_Question(delivery))
        if self._over:
            self.end()
        self._wake()

    def _note(self, question: _Question) -> None:
        """It is to be looked at. From any thread."""
        if not question.noted:
            question.noted = True
            self._news.append(question)
            self._wake()

    def go_on(self) -> None:
        """Ask what has come, and hand on the replies that there are; some of them, if there are many."""
        if self._has_room:
            self._has_room = False  # first: there may be more meanwhile
            for asker, unsaid in tuple(self._unsaid.items()):
                self._say_some(asker, unsaid)
        for _ in range(min(AT_A_TIME, len(self._news))):
            question = self._news.popleft()
            question.noted = False
            if question.request is not None:
                self._go_on(question)
        if not self._are_too_many:
            self._take_in(AT_A_TIME)
        for _ in range(min(AT_A_TIME, len(self._coming), MOST_UNPLACED - len(self._unplaced))):
            self._begin(self._coming.popitem(last=False)[0])
        if self._are_too_many:
            self._give_some_up()

    def _take_in(self, most: int) -> None:
        """What has come counts from here on."""
        for _ in range(most):
            try:
                question = self._come.popleft()
            except IndexError:
                break
            self._coming[question] = None
            self._askers.setdefault(question.delivery.identity, _Asker()).add(question)
            self._asked += question.size
        self._crowd.notify_all()

    def _give_some_up(self) -> None:
        """The oldest, of who has most at that moment: of what there is too much of."""
        share = _Asker.bytes if self._asked > MOST_ASKED else _Asker.count
        askers = [(-share(asker), number, asker) for number, asker in enumerate(self._askers.values())]
        heapq.heapify(askers)
        for _ in range(2 * AT_A_TIME):
            _, number, most = askers[0]
            self._close(next(iter(most.questions)), TOO_MANY)
            if not self._are_too_many:
                break
            if most.questions:
                heapq.heapreplace(askers, (-share(most), number, most))
            else:
                heapq.heappop(askers)

    def _begin(self, question: _Question) -> None:
        sink, data = self._sink, question.delivery.data
        if len(data) > sink.max_message_size:
            self._close(question, f"a request of {len(data)} bytes, and the proxy passes on {sink.max_message_size}")
            return
        self._open[question] = None
        question.request = sink.ask(data, lambda: self._note(question))
        self._go_on(question)

    def _go_on(self, question: _Question) -> None:
        assert question.request is not None
        try:
            reply = self._sink.go_on(question.request)
        except RequestFailedError as error:
            self._close(question, error.reason)
        except NetmsgError as error:
            self._close(question, str(error))
        else:
            if reply is not None:
                self._answer(_Answer(question.delivery, reply, False))
                self._forget(question)
            elif question.request.lane is not None:
                self._unplaced.discard(question)
            elif question in self._unplaced or len(self._unplaced) < MOST_UNPLACED:
                self._unplaced.add(question)
            else:
                self._put_back(question)

    def _put_back(self, question: _Question) -> None:
        """Its peer has gone without it, and many others wait for somebody already: it is the next one to be asked."""
        assert question.request is not None
        self._sink.end(question.request)
        question.request = None
        del self._open[question]
        self._coming[question] = None
        self._coming.move_to_end(question, last=False)

    def _answer(self, answer: _Answer) -> None:
        asker = answer.delivery.identity
        unsaid = self._unsaid.get(asker)
        if unsaid is None and self._say(answer):
            return
        if self._over:
            self._source.lose(answer.delivery, NO_ROOM_FOR_REPLY)
            return
        if not self._unsaid:
            self._source.listen(self._room_made)
        if unsaid is None:
            unsaid = self._unsaid[asker] = _Unsaid(self._source.taken_by(asker))
        unsaid.add(answer)
        self._unsaid_bytes += answer.size
        while self._unsaid_bytes > MOST_UNSAID:
            self._lose_one()

    def _room_made(self) -> None:
        self._has_room = True
        self._wake()

    def _lose_one(self) -> None:
        """Of who has most."""
        asker, most = max(self._unsaid.items(), key=lambda item: item[1].size)
        answer = most.take(-1)
        self._unsaid_bytes -= answer.size
        self._source.lose(answer.delivery, NO_ROOM_FOR_REPLY)
        if not most.answers:
            self._all_said(asker)

    def _all_said(self, asker: bytes) -> None:
        """To this one."""
        del self._unsaid[asker]
        if not self._unsaid:
            self._source.unlisten(self._room_made)

    def _say(self, answer: _Answer) -> bool:
        """Whether there was room, or no need for it."""
        delivery, data, fails = answer
        try:
            if fails:
                delivery.fail(data.decode("utf-8", "replace"), timeout=0)
            else:
                delivery.reply(data, timeout=0)
        except (SendTimeoutError, QueueFullError):
            return False
        except (NetmsgError, ValueError) as error:
            return fails or self._say(_Answer(delivery, str(error).encode("utf-8", "replace"), True))
        return True

    def _say_some(self, asker: bytes, unsaid: _Unsaid) -> None:
        """As far as there is room."""
        while unsaid.answers and self._source.has_room(asker) and self._say(unsaid.answers[0]):
            unsaid.tries = 0
            self._unsaid_bytes -= unsaid.take(0).size
        if not unsaid.answers:
            self._all_said(asker)

    def _lose_all(self, asker: bytes, unsaid: _Unsaid) -> None:
        for answer in unsaid.answers:
            self._source.lose(answer.delivery, NO_ROOM_FOR_REPLY)
        self._unsaid_bytes -= unsaid.size
        self._all_said(asker)

    def look(self) -> None:
        """To be called regularly, every `LOOK` seconds: say what is unsaid, or give it up; and forget the requests of
        those who have gone, for nobody waits for these replies."""
        for asker, unsaid in tuple(self._unsaid.items()):
            unsaid.tries += 1
            taken = self._source.taken_by(asker)
            if taken != unsaid.taken:
                unsaid.taken, unsaid.tries = taken, 0
            self._say_some(asker, unsaid)
            if unsaid.tries > MOST_TRIES:
                self._lose_all(asker, unsaid)
        for question in tuple(self._open):
            if not self._source.is_there(question.delivery.identity):
                self._forget(question)
        for question in tuple(self._coming):
            if not self._source.is_there(question.delivery.identity):
                self._forget(question)

    def _close(self, question: _Question, reason: str) -> None:
        self._answer(_Answer(question.delivery, reason.encode("utf-8", "replace"), True))
        self._forget(question)

    def _forget(self, question: _Question) -> None:
        asker = self._askers[question.delivery.identity]
        asker.remove(question)
        if not asker.questions:
            del self._askers[question.delivery.identity]
        self._asked -= question.size
        self._coming.pop(question, None)
        self._open.pop(question, None)
        self._unplaced.discard(question)
        if question.request is not None:
            self._sink.end(question.request)
            question.request = None  # which knows the question, by what wakes it

    def end(self) -> None:
        """There will be no more replies. By its thread, and then by whoever asks all the same."""
        self._over = True
        self._crowd.notify_all()
        with self._ending:
            self._take_in(len(self._come))
            for question in (*self._open, *self._coming):
                self._close(question, ENDED)
        while True:
            try:
                _, unsaid = self._unsaid.popitem()
            except KeyError:
                break
            for answer in unsaid.answers:
                self._source.lose(answer.delivery, NO_ROOM_FOR_REPLY)
        self._unsaid_bytes = 0
        self._source.unlisten(self._room_made)
