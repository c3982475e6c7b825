"""Group commit: what many threads want to have stored is written together, by a thread of its own, as often as the disk
allows.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from ..aside import aside
from ..deadline import Deadline
from ..errors import ClosedError
from ..forking import close_in_child
from ..locks import new_lock
from ..speaking import say
from ..waiting import Waiters
from .outbox import Stored

__all__ = ["Committer", "File"]

log = logging.getLogger("netmsg.storage")

GONE_WITHIN: Final = 0.05
"""Seconds for which what need not be kept any more waits for something else to be written with."""
FOREVER: Final = Deadline(None)

_numbers = itertools.count(1)

Key = tuple[bytes, "bytes | None"]
"""The id of a message, and its addressee."""


class File(Protocol):
    """What is used of an `OutboxFile`."""

    prefix: bytes

    def write(self, new: Sequence[Stored], gone: Sequence[Key]) -> None: ...

    def page(self, addressee: bytes | None, after: bytes, limit: int) -> list[Stored]: ...

    def close(self) -> None: ...

    def abandon(self) -> None: ...


class _Group:
    """What one call has to store."""

    __slots__ = ("messages", "outcome", "waiters")

    def __init__(self, messages: Sequence[Stored]) -> None:
        self.messages = messages
        self.outcome: list[Exception | None] = []
        """Once it is decided: what has gone wrong, or ``None``."""
        self.waiters = Waiters()

    def decided(self, error: Exception | None) -> None:
        self.outcome.append(error)
        self.waiters.notify_all()


class Committer:
    """Used by any number of threads; the file belongs to ``netmsg-outbox-N`` alone."""

    def __init__(self, file: File) -> None:
        """Raises ``RuntimeError`` where no thread can be started."""
        self._file = file
        self._count = 0
        self._lock = new_lock()  # guards that ids are in the order of what is to be written; a leaf
        self._groups: deque[_Group] = deque()
        self._gone: deque[Key] = deque()
        self._pages: deque[Callable[[], None]] = deque()
        self._waiters = Waiters()  # the thread's own
        self._closing = False
        self._over = False  # nothing is written any more
        self._thread = threading.Thread(target=self._work, name=f"netmsg-outbox-{next(_numbers)}", daemon=True)
        close_in_child(self)
        aside(self._thread.start)

    # From any thread

    @property
    def waiting(self) -> int:
        """How many calls of `store` wait for what is being written, to be written next."""
        return len(self._groups)

    def store(self, payloads: Sequence[bytes], addressee: bytes | None, deadline: Deadline) -> list[Stored] | None:
        """Give ids to these messages, in their order, and return them once they are in the file, all of them, or
        ``None`` at the deadline: then they are going to be, or not. Raises ``OSError``: then none is; and `ClosedError`
        after `close`."""
        at = time.time()
        with self._lock:
            if self._over:
                raise ClosedError("the outbox is closed")
            group = self._group(payloads, addressee, at)
            self._groups.append(group)
        self._waiters.notify()
        if not group.waiters.wait(lambda: group.outcome, deadline):
            return None
        error = group.outcome[0]
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, error.filename) from error
        if error is not None:
            raise error
        return [*group.messages]

    def _group(self, payloads: Sequence[bytes], addressee: bytes | None, at: float) -> _Group:
        """Under the lock."""
        prefix, first = self._file.prefix, self._count + 1
        self._count += len(payloads)
        return _Group([Stored(prefix + number.to_bytes(8, "big"), addressee, at, payload)
                       for number, payload in enumerate(payloads, first)])

    def gone(self, keys: Sequence[Key]) -> None:
        """These need not be kept any more; soon they are not."""
        self._gone.extend(keys)
        if len(self._gone) == len(keys):
            self._waiters.notify()

    def load(self, addressee: bytes | None, after: bytes, limit: int,
             done: Callable[[list[Stored] | Exception], None]) -> None:
        """Have ``done`` called, by the thread, with the oldest ones behind ``after`` for anybody, or for one peer."""
        def load() -> None:
            try:
                page: list[Stored] | Exception = self._file.page(addressee, after, limit)
            except Exception as error:
                page = error
            done(page)

        self._pages.append(load)
        self._waiters.notify()

    def close(self) -> None:
        """Write what there is, and let go of the file. May be repeated; returns when that is done."""
        self._closing = True
        self._waiters.notify()
        self._thread.join()

    def _forked(self) -> None:
        self._file.abandon()

    # The thread

    def _work(self) -> None:
        try:
            self._go_on()
        finally:
            self._file.close()

    def _go_on(self) -> None:
        while not (self._closing and self._is_all_done()):
            self._waiters.wait(lambda: self._gone or self._is_urgent(), FOREVER)
            self._waiters.wait(self._is_urgent, Deadline(GONE_WITHIN))
            self._write()
            self._read()

    def _is_all_done(self) -> bool:
        """Then nothing more is begun."""
        with self._lock:
            self._over = not (self._groups or self._gone or self._pages)
            return self._over

    def _is_urgent(self) -> bool:
        return bool(self._groups or self._pages or self._closing)

    def _write(self) -> None:
        groups = [self._groups.popleft() for _ in range(len(self._groups))]
        gone = [self._gone.popleft() for _ in range(len(self._gone))]
        if not (groups or gone):
            return
        error = self._write_together([message for group in groups for message in group.messages], gone)
        if error is not None and len(groups) + bool(gone) > 1:
            self._write_one_by_one(groups, gone)  # it may be the fault of one of them
            return
        if error is not None and gone:
            self._cannot_take_out(gone, error)
        for group in groups:
            group.decided(error)

    def _write_together(self, messages: Sequence[Stored], gone: Sequence[Key]) -> Exception | None:
        """What has gone wrong, if anything has: whatever it is, nobody is to wait for ever."""
        try:
            self._file.write(messages, gone)
        except Exception as error:
            return error
        return None

    def _write_one_by_one(self, groups: list[_Group], gone: list[Key]) -> None:
        error = self._write_together((), gone) if gone else None
        if error is not None:
            self._cannot_take_out(gone, error)
        for group in groups:
            group.decided(self._write_together(group.messages, ()))

    @staticmethod
    def _cannot_take_out(gone: Sequence[Key], error: Exception) -> None:
        """They will be sent once more after a restart."""
        say(log, logging.ERROR, "%d messages that are delivered cannot be taken out of the outbox: %s", len(gone),
            error)

    def _read(self) -> None:
        for _ in range(len(self._pages)):
            self._pages.popleft()()
