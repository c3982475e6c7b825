"""Group commit: what many threads want to have written is written together, in one transaction, by a thread of its own,
as often as the disk allows.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from ..aside import aside
from ..deadline import Deadline
from ..errors import ClosedError
from ..forking import close_in_child
from ..locks import new_lock
from ..speaking import say
from ..waiting import Waiters

__all__ = ["CommitQueue", "Committer", "Committing", "Decided", "File", "Written", "raise_for"]

log = logging.getLogger("netmsg.storage")

LATER: Final = 0.05
"""Seconds for which what is in no hurry waits for something else to be written with."""
LONGEST_GATHERING: Final = 0.001
"""Seconds for which those who have just been told are waited for, at most."""
COMING_BACK: Final = 3e-5
"""Seconds that one of them takes."""
FOREVER: Final = Deadline(None)

_numbers = itertools.count(1)

C = TypeVar("C")
F = TypeVar("F")
C_contra = TypeVar("C_contra", contravariant=True)
R = TypeVar("R")

Decided = Callable[[Sequence[Any], "Exception | None"], None]
"""Told of several commits, each by what was said that it is about, and what has gone wrong with them, if anything has.
"""


def raise_for(error: Exception | None) -> None:
    """Raise what has gone wrong with a commit, if anything has, in a thread that has waited for it, as others may have.
    """
    if isinstance(error, OSError):
        raise OSError(error.errno, error.strerror, error.filename) from error
    if error is not None:
        raise error


class File(Protocol[C_contra]):
    """What is written to."""

    def write(self, changes: Sequence[C_contra]) -> None:
        """All of them, in one transaction; if it raises, none."""

    def close(self) -> None:
        """The end."""

    def abandon(self) -> None:
        """In a forked child."""


class Committing(Protocol[C_contra]):
    """What any thread may ask of one who writes a file: see `CommitQueue` and `Committer`."""

    def start(self) -> None: ...

    def submit(self, change: C_contra, decided: Decided, about: Any) -> None: ...

    def submit_later(self, change: C_contra, decided: Decided, about: Any) -> None: ...

    def ask(self, question: Callable[[], R], answered: Callable[[R | Exception], None]) -> None: ...

    def close(self) -> None: ...

    def join(self, timeout: float | None = None) -> None: ...


class Written(NamedTuple, Generic[F, C]):
    """A file that is open, and who writes it."""

    file: F
    committer: Committing[C]


class _Commit(NamedTuple):
    change: Any
    decided: Decided
    about: Any


class CommitQueue(Generic[C]):
    """What is to be written, and asked, next. Any thread may add to it; `step` is for one."""

    def __init__(self, file: File[C], wake: Callable[[], None]) -> None:
        """``wake()`` is called when there is something to do."""
        self._file = file
        self._wake = wake
        self._lock = new_lock()  # guards whether more may come; a leaf
        self._urgent: deque[_Commit] = deque()
        self._in_no_hurry: deque[_Commit] = deque()
        self._questions: deque[Callable[[], None]] = deque()
        self._enough = 1
        """With so many commits there is something to do."""
        self._urgent_in_step = 0
        self._callers = 0
        """How many calls of `submit` were to be told in the last step, or came while it was written: where each caller
        waits to be told before it calls again, so many callers there are."""
        self._closing = False
        self.over = False
        """Whether it has been closed, and all is done: nothing is written any more."""

    # From any thread

    def submit(self, change: C, decided: Decided, about: Any) -> None:
        """Have this written, in the order of these calls, and ``decided`` called by the one who writes, with what this
        is ``about`` and that of others. Raises `ClosedError`."""
        self._add(self._urgent, _Commit(change, decided, about))

    def submit_later(self, change: C, decided: Decided, about: Any) -> None:
        """The same, soon, with something else if there is anything."""
        self._add(self._in_no_hurry, _Commit(change, decided, about))

    def ask(self, question: Callable[[], R], answered: Callable[[R | Exception], None]) -> None:
        """Have the one who writes call ``answered`` with what ``question()`` returns or raises, when all that was
        submitted before is written. Raises `ClosedError`."""
        def ask() -> None:
            try:
                answer: R | Exception = question()
            except Exception as error:
                answer = error
            answered(answer)

        self._add(self._questions, ask)

    def _add(self, queue: deque[Any], item: object) -> None:
        with self._lock:
            if self.over:
                raise ClosedError("the file is closed")
            queue.append(item)
            count = len(queue)
            wakes = (count >= self._enough if queue is self._urgent else
                     count == 1 or queue is self._questions)  # what is in no hurry is done together with the first
        if wakes:
            self._wake()

    def close(self) -> None:
        """What is there is done, and then it is over. May be repeated."""
        self._closing = True
        self._wake()

    @property
    def anything(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._in_no_hurry) or self.hurries

    @property
    def hurries(self) -> bool:
        """Whether it has to be done now."""
        return bool(self._urgent or self._questions or self._closing)

    @property
    def waiting(self) -> int:
        """How many calls of `submit` wait to be written next."""
        return len(self._urgent)

    # The one who writes

    def step(self) -> None:
        """Do what there is to do."""
        questions = len(self._questions)  # what is asked from here on may be about what is not written yet
        commits = [self._urgent.popleft() for _ in range(len(self._urgent))]
        self._urgent_in_step = len(commits)
        commits += [self._in_no_hurry.popleft() for _ in range(len(self._in_no_hurry))]
        self._commit(commits)
        for _ in range(questions):
            self._tell(self._questions.popleft())
        if self._closing:
            with self._lock:
                self.over = not (self._urgent or self._in_no_hurry or self._questions)

    def _commit(self, commits: list[_Commit]) -> None:
        if not commits:
            return
        error = self._write(commits)
        if error is not None and len(commits) > 1:  # it may be the fault of one of them
            for commit in commits:
                self._commit([commit])
            return
        self._callers = self._urgent_in_step + self.waiting
        for decided, some in groupby(commits, attrgetter("decided")):
            self._tell(decided, [commit.about for commit in some], error)

    @staticmethod
    def _tell(tell: Callable[..., None], *arguments: Any) -> None:
        """An error there is no reason not to go on."""
        try:
            tell(*arguments)
        except Exception as error:
            say(log, logging.ERROR, "what has been written could not be told", exc_info=error)

    def _write(self, commits: list[_Commit]) -> Exception | None:
        """What has gone wrong, if anything has: whatever it is, nobody is to wait for ever."""
        try:
            self._file.write([commit.change for commit in commits])
        except Exception as error:
            return error
        return None


class Committer(CommitQueue[C]):
    """One that does its work by itself: from `start` on the file belongs to its thread, ``netmsg-outbox-N``, alone."""

    def __init__(self, file: File[C]) -> None:
        self._waiters = Waiters()
        self._joiners = Waiters()
        self._ended = False
        self._took = 0.0  # seconds, the last step
        super().__init__(file, self._waiters.notify)
        self._thread = threading.Thread(target=self._work, name=f"netmsg-outbox-{next(_numbers)}", daemon=True)
        close_in_child(self)

    def start(self) -> None:
        """Raises ``RuntimeError`` where no thread can be started. After an interrupt there may be one, or not: then
        `close` ends it, if it is there."""
        aside(self._thread.start)

    def join(self, timeout: float | None = None) -> None:
        """Behind `close`: wait until the file is closed, ``timeout`` seconds at most."""
        self._joiners.wait(lambda: self._ended, Deadline(timeout))

    def _work(self) -> None:
        try:
            self._go_on()
        finally:
            self._file.close()
            self._ended = True
            self._joiners.notify_all()

    def _go_on(self) -> None:
        while not self.over:
            self._waiters.wait(lambda: self.anything, FOREVER)
            self._waiters.wait(lambda: self.hurries, Deadline(LATER))
            self._gather()
            begun = time.monotonic()
            self.step()
            self._took = time.monotonic() - begun

    def _gather(self) -> None:
        """Threads that send one message after the other come back as soon as they are told: to wait for all of them
        takes less than to write twice."""
        callers = self._callers
        missing = callers - self.waiting
        if missing > 0 and callers > 1:
            self._enough = callers
            self._waiters.wait(lambda: self.waiting >= callers or self._questions or self._closing,
                               Deadline(min(LONGEST_GATHERING, self._took / 2 + missing * COMING_BACK)))
            self._enough = 1

    def _forked(self) -> None:
        self._file.abandon()
