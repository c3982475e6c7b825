"""A receiver's memory that outlives it: a message is noted in a file before it is acknowledged, and looked for there
when it comes.

Belongs to the network thread, which never waits for the disk: what it is told of comes back to it, in the order in
which it was asked.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple, Protocol

from ..deadline import Deadline
from ..errors import ClosedError
from ..reactor.reactor import Scope
from ..speaking import say
from ..storage.committing import Committing, raise_for
from ..storage.seen import Known
from ..waiting import Waiters
from .life import Life

__all__ = ["Memory", "Note", "Remembering"]

log = logging.getLogger("netmsg.messaging")

AGAIN: Final = 1.0
"""Seconds until what could not be noted, or looked for, is tried again."""
NOT_NOTED: Final = "messages cannot be noted as handed over, and are not acknowledged"
NOT_READ: Final = "the memory of messages cannot be read, and what comes is not handed over"


class Memory(Protocol):
    """The file."""

    def write(self, changes: Sequence[Sequence[bytes]]) -> None: ...

    def known(self, messages: Sequence[bytes]) -> Known: ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...


class Note:
    """Whether one message has been noted, for a thread that waits for it."""

    def __init__(self) -> None:
        self._is_decided = False
        self._error: Exception | None = None
        self.same_as: Note | None = None
        """One of the same message, that is being noted already."""

    def decide(self, error: Exception | None) -> None:
        self._error = error
        self._is_decided = True

    @property
    def is_decided(self) -> bool:
        return self._is_decided or (self.same_as is not None and self.same_as.is_decided)

    @property
    def error(self) -> Exception | None:
        """What has gone wrong, if anything has."""
        return self._error if self.same_as is None else self.same_as.error


class _Notice(NamedTuple):
    """Something that is to be noted."""

    messages: list[bytes]
    then: Callable[[], None]


class _Lookup(NamedTuple):
    """Something that is looked for."""

    messages: list[bytes]
    size: int
    """Bytes of the identity that each begins with."""
    then: Callable[[frozenset[bytes]], None]


class Remembering:
    """What a `Receiver` asks of its file."""

    def __init__(self, file: Memory, committer: Committing[Sequence[bytes]], life: Life, steps: Scope) -> None:
        self.when_idle: Callable[[], None] = _nothing
        """Called when all is noted that was to be, and the Søcket is closing."""
        self._file = file
        self._committer = committer
        self._life = life
        self._steps = steps
        self._noting = 0
        self._put_off: list[_Notice] = []
        """What could not be noted, and is tried again soon."""
        self._lookups: deque[_Lookup] = deque()
        """What is looked for, in the order in which it came,"""
        self._looks = 0
        """and how often that could not be found out."""
        self._pauses = False
        """Whether it is not tried now."""
        self._complained_of: set[str] = set()
        self._waiters = Waiters()

    @property
    def is_noting(self) -> bool:
        """Whether something is still to be noted, and to be acknowledged then."""
        return self._noting > 0

    def look_for(self, sender: bytes, message_ids: Sequence[bytes], then: Callable[[frozenset[bytes]], None]) -> None:
        """Call ``then`` with the ids of those that have been handed over before. What cannot be found out is tried for
        as long as it takes; what comes meanwhile waits, so that it stays in order."""
        lookup = _Lookup([sender + message_id for message_id in message_ids], len(sender), then)
        self._lookups.append(lookup)
        if not self._pauses:
            self._look_up(lookup)

    def _look_up(self, lookup: _Lookup) -> None:
        self._committer.ask(partial(self._file.known, lookup.messages), partial(self._found, self._looks))

    def note(self, sender: bytes, message_ids: Sequence[bytes], then: Callable[[], None]) -> None:
        """These have been handed over: call ``then`` when that is in the file. It is tried for as long as it takes."""
        self._noting += 1
        notice = _Notice([sender + message_id for message_id in message_ids], then)
        self._submit(notice.messages, partial(self._noted, [notice]))

    def note_by_hand(self, sender: bytes, message_id: bytes, note: Note, then: Callable[[], None],
                     failed: Callable[[], None]) -> None:
        """The same of one, for a thread that waits by ``note``; tried once. If that has ``failed`` that is called,
        before the thread is told, and by another one."""
        self._noting += 1
        self._submit([sender + message_id], partial(self._noted_by_hand, note, then, failed))

    def follow(self, note: Note, other: Note | None) -> None:
        """The message of ``note`` is noted with that ``other`` one, if there is any; or there is nothing to note."""
        if other is None:
            note.decide(None)
        note.same_as = other
        self._waiters.notify_all()

    def wait(self, note: Note) -> None:
        """By the thread that waits. Raises ``OSError`` if it could not be noted, and `ClosedError` if it is not known,
        for all is over."""
        self._waiters.wait(lambda: note.is_decided or self._life.closed or self._life.forked, Deadline(None))
        if not note.is_decided:
            raise ClosedError("the Søcket was closed, and it is not known whether it has been noted")
        raise_for(note.error)

    def close(self) -> None:
        """Write what there is, and let go of the file; returns at once."""
        self._committer.close()
        self._waiters.notify_all()

    def join(self, timeout: float) -> None:
        """Wait for that, so many seconds."""
        self._committer.join(timeout)

    def _submit(self, messages: list[bytes], decided: Callable[[Exception | None], None]) -> None:
        try:
            self._committer.submit(messages, self._decided, decided)
        except ClosedError as error:
            decided(error)

    # The file's thread

    @staticmethod
    def _decided(told: Sequence[Callable[[Exception | None], None]], error: Exception | None) -> None:
        for tell in told:
            tell(error)

    def _found(self, looks: int, known: Known | Exception) -> None:
        self._steps.call(self._looked_up, looks, known)

    def _noted(self, notices: list[_Notice], error: Exception | None) -> None:
        if not isinstance(error, ClosedError):  # or they will be sent again
            self._steps.call(self._settle, notices, error)

    def _noted_by_hand(self, note: Note, then: Callable[[], None], failed: Callable[[], None],
                       error: Exception | None) -> None:
        if error is not None:
            failed()
        note.decide(error)
        self._waiters.notify_all()
        self._steps.call(self._done, then if error is None else _nothing)

    # The network thread again

    def _done(self, then: Callable[[], None]) -> None:
        self._noting -= 1
        then()
        if not self._noting and self._life.closing:
            self.when_idle()

    def _settle(self, notices: list[_Notice], error: Exception | None) -> None:
        if error is None:
            self._complained_of.discard(NOT_NOTED)
            for notice in notices:
                self._done(notice.then)
            return
        self._complain(NOT_NOTED, error)
        if not self._put_off:
            self._steps.call_later(AGAIN, self._note_again)
        self._put_off += notices

    def _note_again(self) -> None:
        notices, self._put_off = self._put_off, []
        if self._life.closing:
            for _ in notices:
                self._done(_nothing)
        else:
            messages = [message for notice in notices for message in notice.messages]
            self._submit(messages, partial(self._noted, notices))

    def _looked_up(self, looks: int, known: Known | Exception) -> None:
        if looks != self._looks:
            return  # it is going to be looked for once more
        if isinstance(known, Exception):
            self._complain(NOT_READ, known)
            self._looks += 1
            self._pauses = True
            self._steps.call_later(AGAIN, self._look_again)
            return
        self._complained_of.discard(NOT_READ)
        lookup = self._lookups.popleft()
        lookup.then(frozenset(message[lookup.size:] for message in known))

    def _look_again(self) -> None:
        self._pauses = False
        with suppress(ClosedError):
            for lookup in self._lookups:
                self._look_up(lookup)

    def _complain(self, what: str, error: Exception) -> None:
        """Once, until it goes well."""
        if what not in self._complained_of:
            self._complained_of.add(what)
            say(log, logging.ERROR, "%s: %s", what, error)


def _nothing() -> None:
    pass
