"""Replies for which their askers have no room: they stand in line, one line for each asker, and no worker waits with
them.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple, Protocol

from ..deadline import Deadline
from ..errors import NetmsgError, QueueFullError, SendTimeoutError
from ..locks import new_lock
from ..speaking import say
from .deliveries import Delivery

__all__ = ["Answer", "Answering", "RoomForReplies", "what"]

log = logging.getLogger("netmsg.messaging")

PATIENCE: Final = 1.0
"""Seconds in which an asker has to take something."""
MOST_DEAF: Final = 10_000
MOST_IN_LINE: Final = 10_000
MOST_BYTES_IN_LINE: Final = 16 << 20
"""Of replies that one asker has not taken, and what he had asked; and of requests of his that are held back behind so
many."""
AT_ONCE: Final = 64
"""So many replies go to one asker before the others have their turn, and so many of his requests go on."""


class Answer(NamedTuple):
    """To a request."""

    delivery: Delivery
    send: Callable[..., None]
    """Which takes a ``timeout``."""
    reply_bytes: int

    @property
    def size(self) -> int:
        """What it keeps in memory."""
        return self.reply_bytes + len(self.delivery.data)


class RoomForReplies(Protocol):
    """The sending half, as far as it concerns replies."""

    def has_room_for_answer(self, identity: bytes) -> bool:
        """Whether a reply to that peer would find some now."""

    def wait_for_room_for_answers(self, identities: Collection[bytes], ready: Callable[[], object],
                                  deadline: Deadline) -> None:
        """Block until one of them may have some, or ``ready()``, which is looked at after `look_again`."""

    def look_again(self) -> None:
        """Have those who wait do so."""

    def no_room_for_answer(self, identity: bytes) -> None:
        """A reply to that peer is lost: count it, and tell."""


class _Line:
    """What there is for one asker. Under the lock."""

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque()
        self.requests: deque[Delivery] = deque()
        """That are held back until he has taken some of it."""
        self.patience = Deadline(PATIENCE)
        self._answer_bytes = 0
        self._request_bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self.answers) >= MOST_IN_LINE or self._answer_bytes >= MOST_BYTES_IN_LINE

    @property
    def can_hold_back(self) -> bool:
        return len(self.requests) < MOST_IN_LINE and self._request_bytes < MOST_BYTES_IN_LINE

    def add(self, answer: Answer) -> None:
        self.answers.append(answer)
        self._answer_bytes += answer.size

    def is_sent(self) -> None:
        """The first has been."""
        self._answer_bytes -= self.answers.popleft().size
        self.patience = Deadline(PATIENCE)

    def hold_back(self, request: Delivery) -> None:
        self.requests.append(request)
        self._request_bytes += len(request.data)

    def let_go(self) -> list[Delivery]:
        """As many requests as need not be held back any more."""
        if len(self.answers) > MOST_IN_LINE // 2 or self._answer_bytes > MOST_BYTES_IN_LINE // 2:
            return []
        count = min(AT_ONCE, len(self.requests)) if self.answers else len(self.requests)
        requests = [self.requests.popleft() for _ in range(count)]
        self._request_bytes -= sum(len(request.data) for request in requests)
        return requests


class Answering:
    """For one `Serving`, whose workers call it. Whoever takes none of his replies for too long is *deaf*: they are
    dropped, and what he asks then is not even looked at while there is no room for a reply to him."""

    def __init__(self, room: RoomForReplies, go_on: Callable[[Sequence[Delivery]], None], name: str) -> None:
        """``go_on`` is handed requests that were held back and need be no longer, by a thread of that name, which is
        there for as long as anything stands in line."""
        self._room = room
        self._go_on = go_on
        self._name = name
        self._lock = new_lock()  # guards the lines, and whether they are attended to; a leaf
        self._lines: dict[bytes, _Line] = {}
        self._attended = False
        self._deaf: set[bytes] = set()

    # The workers

    def holds_back(self, request: Delivery) -> bool:
        """Whether this one is not to be looked at now, for its asker takes no replies. Then it will be, or is lost."""
        asker = request.identity
        with self._lock:
            line = self._lines.get(asker)
            if line is None:
                if asker not in self._deaf:
                    return False
            elif not (line.requests or line.is_full):
                return False
            elif line.can_hold_back:
                line.hold_back(request)
                return True
        if line is None and self._room.has_room_for_answer(asker):
            return False
        self._room.no_room_for_answer(asker)
        return True

    def answer(self, answer: Answer) -> None:
        """Send it, or have it stand in line."""
        asker = answer.delivery.identity
        if self._is_behind(asker, answer):
            return
        if self._is_sent(answer):
            self._deaf.discard(asker)
        elif asker in self._deaf:
            self._room.no_room_for_answer(asker)
        else:
            self._begin_line(asker, answer)

    def _is_behind(self, asker: bytes, answer: Answer) -> bool:
        with self._lock:
            line = self._lines.get(asker)
            if line is not None:
                line.add(answer)
            return line is not None

    def _begin_line(self, asker: bytes, answer: Answer) -> None:
        with self._lock:
            self._lines.setdefault(asker, _Line()).add(answer)
            attended, self._attended = self._attended, True
        if attended:
            self._room.look_again()
            return
        try:
            threading.Thread(target=self._attend, name=self._name, daemon=True).start()
        except RuntimeError:  # there can be no more threads
            self._attend()

    def _is_sent(self, answer: Answer) -> bool:
        """Whether there was room, or no need for it."""
        try:
            answer.send(timeout=0)
        except SendTimeoutError:
            return False
        except QueueFullError:
            self._room.no_room_for_answer(answer.delivery.identity)
        except NetmsgError:
            pass  # this Søcket is closed: nobody is there to be answered
        except BaseException as error:  # which is not to end the thread
            say(log, logging.ERROR, "serve_requests: %s cannot be answered", what(answer.delivery), exc_info=error)
        return True

    # The thread that attends to the lines

    def _attend(self) -> None:
        while True:
            with self._lock:
                lines = dict(self._lines)
                if not lines:
                    self._attended = False
                    return
            if not any([self._attend_to(asker, line) for asker, line in lines.items()]):
                self._wait(lines)

    def _wait(self, lines: dict[bytes, _Line]) -> None:
        """For room, for another line, or until somebody's time is up."""
        patience = min(line.patience.lock_timeout() for line in lines.values())
        self._room.wait_for_room_for_answers(lines, lambda: len(self._lines) > len(lines), Deadline(patience))

    def _attend_to(self, asker: bytes, line: _Line) -> bool:
        """Whether anything has come of it."""
        sent = 0
        while sent < AT_ONCE and self._is_sent(line.answers[0]):
            sent += 1
            if self._has_ended(asker, line):
                return True
        if not sent and line.patience.expired:
            self._give_up(asker, line)
            return True
        return sent > 0

    def _has_ended(self, asker: bytes, line: _Line) -> bool:
        """Its first answer has been sent."""
        with self._lock:
            line.is_sent()
            requests = line.let_go()
            ended = not line.answers
            if ended:
                del self._lines[asker]
        self._go_on(requests)
        return ended

    def _give_up(self, asker: bytes, line: _Line) -> None:
        with self._lock:
            del self._lines[asker]
            if len(self._deaf) >= MOST_DEAF:
                self._deaf.clear()
            self._deaf.add(asker)
        for _ in range(len(line.answers) + len(line.requests)):
            self._room.no_room_for_answer(asker)


def what(delivery: Delivery) -> str:
    """For the log."""
    kind = "a request" if delivery.is_request else "a message"
    return f"the handler of {kind} of {len(delivery.data)} bytes from peer {delivery.identity.hex()}"
