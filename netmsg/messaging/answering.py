"""Replies to those who have no room for them: they stand in line, and no worker waits for that."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple, Protocol

from ..deadline import Deadline
from ..errors import ClosedError, QueueFullError, SendTimeoutError
from ..locks import new_lock
from ..speaking import say
from .deliveries import Delivery
from .drafts import Draft

__all__ = ["Answer", "Answering", "Askers", "RoomForReplies", "what"]

log = logging.getLogger("netmsg.messaging")

PATIENCE: Final = 15.0
"""Seconds in which an asker has to take something, as far as the kernel tells: of one that reads little at a time out
of a large buffer it may say so in steps of many seconds."""
LOOKS: Final = 60
"""How many times in these it is looked whether he has."""
MOST_DEAF: Final = 10_000
LONG: Final = 4 << 20
"""Bytes that stand in line for an asker when nothing more of him is taken; and half of them, when it is again."""
LEAST: Final = 512
"""Bytes that a small reply takes in memory."""
AT_ONCE: Final = 64
"""So many replies go to one asker before the others have their turn."""


_numbers = itertools.count(1)


class Answer(NamedTuple):
    """To a request."""

    delivery: Delivery
    data: bytes
    """The reply, or why there is none."""
    fails: bool

    @property
    def size(self) -> int:
        """How many bytes it keeps in memory."""
        return LEAST + len(self.data) + len(self.delivery.data)

    def send(self) -> None:
        """If there is room now."""
        if self.fails:
            self.delivery.fail(self.data.decode("utf-8", "replace"), timeout=0)
        else:
            self.delivery.reply(self.data, timeout=0)


class Askers(Protocol):
    """The receiving half, as far as it concerns those who ask."""

    def hold(self, identity: bytes, who: object) -> None:
        """Hand over nothing of that peer for now. Takes a lock, which is a leaf, as what follows."""

    def let_go(self, identity: bytes, who: object) -> None:
        """The end of that. May be repeated."""


class RoomForReplies(Protocol):
    """The sending half, as far as it concerns replies."""

    def has_room_for_answer(self, identity: bytes) -> bool:
        """Whether a reply to that peer is to be tried now. Costs less than to try."""

    def taken_by(self, identity: bytes) -> int:
        """How many bytes that peer's computer has taken; 0 if it is not there."""

    def wait_for_room_for_answers(self, identities: Collection[bytes], ready: Callable[[], object],
                                  deadline: Deadline) -> None:
        """Block until one of them may have some, or ``ready()``, which is looked at after `look_again`."""

    def look_again(self) -> None:
        """Have those who wait do so."""

    def no_room_for_answer(self, identity: bytes) -> None:
        """A reply to that peer is lost: count it, and tell."""


class _Line:
    """What there is for one asker, oldest first; never empty. Under the lock."""

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque()
        self.size = 0
        self.is_held = False
        """Whether nothing more of the asker is taken."""
        self.taken = -1
        """What the asker had taken when that was last looked at, and had changed:"""
        self.changed_at = 0.0
        """then."""

    def add(self, answer: Answer) -> None:
        self.answers.append(answer)
        self.size += answer.size

    def take(self) -> None:
        self.size -= self.answers.popleft().size


class Answering:
    """For one Søcket: the workers of each `Serving` call it. Who takes his replies slowly is asked for no more than he
    takes; who takes nothing at all for too long is *deaf*: what stands in line for him is lost, and what he asks then
    is not even looked at while there is no room for a reply to him."""

    def __init__(self, askers: Askers, room: RoomForReplies) -> None:
        """A thread (``netmsg-serve-answers-N``) is there for as long as anything stands in line."""
        self._askers = askers
        self._room = room
        self._lines: dict[bytes, _Line] = {}
        self._attended = False
        self._servings: set[object] = set()
        self._closed = False  # the Søcket
        self._lock = new_lock()  # guards these, and who is held; before the lock of `Askers`
        self._deaf: set[bytes] = set()

    def begin(self, serving: object) -> None:
        """Requests are taken, until `end`, but of those in whose line too much stands. This and that are called where
        no interrupt can come."""
        with self._lock:
            self._servings.add(serving)
            for asker, line in self._lines.items():
                self._hold_if_long(asker, line)

    def end(self, serving: object) -> None:
        """When nobody serves any more nobody is held: others may take what has come. What stands in line goes out. May
        be repeated."""
        with self._lock:
            self._servings.discard(serving)
            if not self._servings:
                for asker, line in self._lines.items():
                    self._let_go(asker, line)

    # The workers

    def is_in_vain(self, request: Delivery) -> bool:
        """Whether a reply to it would be lost: then it need not be looked at, and counts as such."""
        asker = request.identity
        if asker not in self._deaf or self._room.has_room_for_answer(asker):
            return False
        self._room.no_room_for_answer(asker)
        return True

    def answer(self, answer: Answer) -> None:
        """Send it, or have it stand in line."""
        asker = answer.delivery.identity
        if self._stands_behind(asker, answer):
            return
        try:
            is_sent = self._is_sent(answer)
        except ClosedError:
            return  # nobody is there to be answered any more
        if is_sent:
            self._deaf.discard(asker)
        elif asker in self._deaf:
            self._room.no_room_for_answer(asker)
        else:
            self._begin_line(asker, answer)

    def _stands_behind(self, asker: bytes, answer: Answer) -> bool:
        with self._lock:
            line = self._lines.get(asker)
            if line is not None:
                self._add(asker, line, answer)
            return line is not None

    def _add(self, asker: bytes, line: _Line, answer: Answer) -> None:
        """Under the lock."""
        line.add(answer)
        self._hold_if_long(asker, line)

    def _hold_if_long(self, asker: bytes, line: _Line) -> None:
        """Under the lock."""
        if line.size > LONG and not line.is_held and self._servings:
            line.is_held = True
            self._askers.hold(asker, self)

    def _begin_line(self, asker: bytes, answer: Answer) -> None:
        with self._lock:
            closed = self._closed
            if not closed:
                self._add(asker, self._lines.setdefault(asker, _Line()), answer)
                attended, self._attended = self._attended, True
        if closed:
            self._room.no_room_for_answer(asker)
            return
        if attended:
            self._room.look_again()
            return
        try:
            name = f"netmsg-serve-answers-{next(_numbers)}"
            threading.Thread(target=self._attend, name=name, daemon=True).start()
        except RuntimeError:  # there can be no more threads
            self._attend()

    def _is_sent(self, answer: Answer) -> bool:
        """Whether there was room, or no need for it. Raises `ClosedError`."""
        try:
            answer.send()
        except SendTimeoutError:
            return False
        except QueueFullError:
            self._room.no_room_for_answer(answer.delivery.identity)
        except ClosedError:
            raise
        except BaseException as error:  # which is not to end the thread
            say(log, logging.ERROR, "serve_requests: %s cannot be answered", what(answer.delivery), exc_info=error)
        return True

    def _let_go(self, asker: bytes, line: _Line) -> None:
        """Under the lock."""
        line.is_held = False
        self._askers.let_go(asker, self)

    def take_lines(self) -> Iterable[Draft]:
        """The Søcket closes: what stands in line, but for what is being sent at this moment."""
        with self._lock:
            self._closed = True
            lines, self._lines = self._lines, {}
        for asker, line in lines.items():
            while line.answers:
                delivery, data, fails = line.answers.popleft()
                if delivery._claim():
                    yield Draft(data, asker, delivery._correlation_id, fails)
        self._room.look_again()

    # The thread that attends to the lines

    def _attend(self) -> None:
        while True:
            with self._lock:
                lines = dict(self._lines)
                if self._closed or not lines:  # who closes sees to what is left
                    self._attended = False
                    return
            if not any([self._attend_to(asker, line) for asker, line in lines.items()]):
                self._wait(lines)

    def _wait(self, lines: Collection[bytes]) -> None:
        self._room.wait_for_room_for_answers(lines, lambda: self._closed or len(self._lines) > len(lines),
                                             Deadline(PATIENCE / LOOKS))

    def _attend_to(self, asker: bytes, line: _Line) -> bool:
        """Whether anything has come of it. Nobody else takes anything out of a line."""
        for sent in range(AT_ONCE):
            answer = self._first(asker, line)
            try:
                is_sent = answer is not None and self._room.has_room_for_answer(asker) and self._is_sent(answer)
            except ClosedError:
                self._closes(asker, line)
                return True
            if not is_sent:
                return sent > 0 or self._is_given_up(asker, line)
            if self._is_at_its_end(asker, line):
                break
        return True

    def _closes(self, asker: bytes, line: _Line) -> None:
        """The Søcket, while the first of a line was being sent: who closes it sees to that, unless all has been taken
        meanwhile."""
        with self._lock:
            self._closed = True
            is_left = self._lines.get(asker) is not line
        if is_left:
            self._room.no_room_for_answer(asker)

    def _first(self, asker: bytes, line: _Line) -> Answer | None:
        with self._lock:
            return line.answers[0] if self._lines.get(asker) is line else None  # meanwhile all was taken

    def _is_at_its_end(self, asker: bytes, line: _Line) -> bool:
        """Its first answer has been sent: whether it was the last."""
        with self._lock:
            if self._lines.get(asker) is not line:
                return True
            line.take()
            if line.is_held and line.size <= LONG // 2:
                self._let_go(asker, line)
            if not line.answers:
                del self._lines[asker]
            return not line.answers

    def _is_given_up(self, asker: bytes, line: _Line) -> bool:
        taken, now = self._room.taken_by(asker), time.monotonic()
        if taken != line.taken:
            line.taken, line.changed_at = taken, now
            return False
        if now - line.changed_at < PATIENCE:
            return False
        if len(self._deaf) >= MOST_DEAF:
            self._deaf.clear()
        self._deaf.add(asker)
        self._give_up(asker, line)
        return True

    def _give_up(self, asker: bytes, line: _Line) -> None:
        with self._lock:
            if self._lines.get(asker) is not line:
                return
            del self._lines[asker]
            self._let_go(asker, line)
        for _ in line.answers:
            self._room.no_room_for_answer(asker)


def what(delivery: Delivery) -> str:
    """For the log."""
    kind = "a request" if delivery.is_request else "a message"
    return f"the handler of {kind} of {len(delivery.data)} bytes from peer {delivery.identity.hex()}"
