"""A receiver's memory that outlives it: a message is noted in a file before it is acknowledged, and looked for there
when it comes.

Belongs to the network thread, which never waits for the disk: what it is told of comes back to it, in the order in
which it was asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Protocol

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
"""Seconds until what could not be noted is tried again."""


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
        self._waiters = Waiters()

    @property
    def is_noting(self) -> bool:
        """Whether something is still to be noted, and to be acknowledged then."""
        return self._noting > 0

    def look_for(self, sender: bytes, message_ids: Sequence[bytes],
                 then: Callable[[frozenset[bytes] | None], None]) -> None:
        """Call ``then`` with the ids of those that have been handed over before; or with ``None``, if that cannot be
        found out."""
        messages = [sender + message_id for message_id in message_ids]
        self._committer.ask(partial(self._file.known, messages), partial(self._found, len(sender), then))

    def note(self, sender: bytes, message_ids: Sequence[bytes], then: Callable[[], None]) -> None:
        """These have been handed over: call ``then`` when that is in the file. It is tried for as long as it takes."""
        self._noting += 1
        self._submit(sender, message_ids, partial(self._noted, sender, message_ids, then))

    def note_by_hand(self, sender: bytes, message_id: bytes, note: Note, then: Callable[[], None],
                     failed: Callable[[], None]) -> None:
        """The same of one, for a thread that waits by ``note``; tried once. If that has ``failed`` that is called,
        before the thread is told, and by another one."""
        self._noting += 1
        self._submit(sender, (message_id,), partial(self._noted_by_hand, note, then, failed))

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

    def _submit(self, sender: bytes, message_ids: Iterable[bytes], decided: Callable[[Exception | None], None]) -> None:
        try:
            self._committer.submit([sender + message_id for message_id in message_ids], self._decided, decided)
        except ClosedError as error:
            decided(error)

    # The file's thread

    @staticmethod
    def _decided(told: Sequence[Callable[[Exception | None], None]], error: Exception | None) -> None:
        for tell in told:
            tell(error)

    def _found(self, size: int, then: Callable[[frozenset[bytes] | None], None], known: Known | Exception) -> None:
        if isinstance(known, Exception):
            say(log, logging.ERROR, "the memory of messages cannot be read: %s", known)
            self._steps.call(then, None)
        else:
            self._steps.call(then, frozenset(message[size:] for message in known))

    def _noted(self, sender: bytes, message_ids: Sequence[bytes], then: Callable[[], None],
               error: Exception | None) -> None:
        if error is None:
            self._steps.call(self._done, then)
        elif isinstance(error, ClosedError):
            pass  # they will be sent again
        else:
            say(log, logging.ERROR, "%d messages cannot be noted as handed over, and are not acknowledged: %s",
                len(message_ids), error)
            self._steps.call(self._try_again, sender, message_ids, then)

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

    def _try_again(self, sender: bytes, message_ids: Sequence[bytes], then: Callable[[], None]) -> None:
        if self._life.closing:
            self._done(_nothing)
        else:
            self._steps.call_later(AGAIN, self._submit, sender, message_ids,
                                   partial(self._noted, sender, message_ids, then))


def _nothing() -> None:
    pass
