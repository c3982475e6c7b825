"""SQLite files of our own: recognised by what they say of themselves, opened once at a time, never replaced. Whatever
goes wrong with one is an ``OSError``.

Source: https://sqlite.org/wal.html, https://sqlite.org/pragma.html, https://sqlite.org/howtocorrupt.html
"""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any, Final, NamedTuple, Union

from ..forking import current_process, hold_at_fork

if sys.platform == "linux":
    import fcntl

__all__ = ["Layout", "OpenFile", "PathLike", "open_file"]

PathLike = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]

PRIMARY: Final = 0xFF
"""Of a result code of SQLite, what is not detail."""
ERRNO: Final = {
    sqlite3.SQLITE_PERM: errno.EACCES, sqlite3.SQLITE_BUSY: errno.EBUSY, sqlite3.SQLITE_LOCKED: errno.EBUSY,
    sqlite3.SQLITE_READONLY: errno.EROFS, sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_CORRUPT: errno.EILSEQ, sqlite3.SQLITE_NOTADB: errno.EILSEQ, sqlite3.SQLITE_TOOBIG: errno.EFBIG,
}
"""Any other one is an ``EIO``."""
MOST_CHECKED: Final = 256 << 20
"""A larger file is not read from end to end before it is used: damage shows when one comes to it."""
SHORT: Final = 16
"""Pages of a journal on a full disk. It costs more time than one of 1000, which is what SQLite has."""
UNUSED_BYTE: Final = 1 << 62
"""The one that is locked; SQLite's are others. A lock of the whole file (``flock``) would be at odds with them on a
network drive."""
TRIES: Final = 4
PAUSE: Final = 0.01, 0.05
"""Seconds between two of them."""


class Layout(NamedTuple):
    """One kind of file."""

    what: str
    """Such as ``an outbox``."""
    application_id: int
    version: int
    tables: tuple[str, ...]
    """The statements that make them."""


class OpenFile:
    """One that is open, for this process alone. Used by one thread at a time."""

    def __init__(self, name: str, layout: Layout, make: bool) -> None:
        """See `open_file`."""
        self.name = name
        self._what = layout.what
        self._process = current_process()
        self._hold = hold_at_fork()
        self._descriptor: int | None = None
        with self._hold, ExitStack() as opened:
            _make(name, make)
            self._claim(opened)
            self._lock(opened)
            self._connection = _connect(name, layout, make)
            opened.callback(self._connection.close)
            self._opened = opened.pop_all()

    def _claim(self, opened: ExitStack) -> None:
        """In this process. SQLite would tell as much, but only after `_lock`, and whoever closes a descriptor of a file
        undoes all locks that SQLite has on it in the same process."""
        status = os.stat(self.name)
        inode = status.st_dev, status.st_ino
        opened.callback(self._disclaim, inode)
        other = _open.setdefault(inode, self)
        if other._process is not self._process:  # SQLite does not forget, not even when the parent has closed it
            raise self._busy("was open when this process was forked; open it after the fork instead")
        if other is not self:
            raise self._busy()

    def _disclaim(self, inode: tuple[int, int]) -> None:
        if _open.get(inode) is self:
            del _open[inode]

    def _lock(self, opened: ExitStack) -> None:
        """Against other processes, by a lock that stays though somebody else in this one, a backup say, opens and
        closes the file."""
        if sys.platform != "linux":
            return
        self._descriptor = os.open(self.name, os.O_RDWR | os.O_CLOEXEC)
        opened.callback(self._unlock)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _lock_of(fcntl.F_WRLCK))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise self._busy() from error
            # else there are no such locks: SQLite has its own

    def _unlock(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        assert descriptor is not None
        with suppress(OSError):  # for others too, who may have a copy: a process that is being started
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock_of(fcntl.F_UNLCK))
        os.close(descriptor)

    def _busy(self, reason: str = "is open already") -> OSError:
        return OSError(errno.EBUSY, f"{self._what} that {reason}", self.name)

    @contextmanager
    def in_use(self) -> Iterator[sqlite3.Connection]:
        """All that is done with SQLite is done in here. It has locks for the whole process, which a child that is
        forked meanwhile would find locked for ever, with whatever file. Whatever it raises is an ``OSError``."""
        with self._hold, _errors_of(self.name, self._what):
            yield self._connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it, or nothing."""
        with self.in_use() as connection, _transaction(connection, "IMMEDIATE"):
            yield connection

    def write(self, statements: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> None:
        """Each for all of its rows, in one transaction."""
        try:
            self._write(statements)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._make_room()
            self._write(statements)

    def _write(self, statements: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> None:
        with self.transaction() as connection:
            for statement, rows in statements:
                connection.executemany(statement, rows)

    def _make_room(self) -> None:
        """The disk is full: give back what the journal takes, as far as that goes, and keep it short from here on. (A
        long one cannot be given back where the file, into which it goes, has to grow.) Raises nothing."""
        with suppress(OSError), self.in_use() as connection:
            connection.execute(f"PRAGMA wal_autocheckpoint = {SHORT}").fetchall()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Also one that is closed. In a forked child it is abandoned."""
        if self._process is not current_process():
            self.abandon()
            return
        with self._hold:
            self._opened.close()

    def abandon(self) -> None:
        """In a forked child, in which SQLite must not touch the file any more, not even by closing it. A copy of the
        descriptor would keep the file locked when the parent has closed it."""
        self._opened.pop_all()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        try:
            import ctypes
        except ImportError:  # then it must not be collected before the process ends by `os._exit`
            _left_alone.append(self._connection)
        else:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))


def open_file(path: PathLike, layout: Layout, *, make: bool = True) -> OpenFile:
    """Open the file, for this process alone and as long as it is open; ``make`` it if there is none. Every transaction
    waits until the disk has it. Raises ``OSError``: with ``EBUSY`` if it is open already, by whomever, and with
    ``EILSEQ`` if it is something else, or damaged, or of a newer version."""
    name = os.path.realpath(os.fsdecode(path))  # no URI, no ``:memory:``, and no other file after a ``chdir``
    for _ in range(TRIES):
        try:
            return OpenFile(name, layout, make)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(random.uniform(*PAUSE))  # of two that open it at the same moment both may be refused
    return OpenFile(name, layout, make)


def _make(name: str, make: bool) -> None:
    """A new one is for nobody else to read. The name is no symbolic link, at whose end SQLite would make it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    if make:
        try:
            os.close(os.open(name, flags, 0o600))
        except FileExistsError:
            pass
    if os.path.isdir(name):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)


def _lock_of(kind: int) -> bytes:
    """A ``struct flock``, for one byte."""
    return struct.pack("hhqqi0q", kind, os.SEEK_SET, UNUSED_BYTE, 1, 0)


def _connect(name: str, layout: Layout, make: bool) -> sqlite3.Connection:
    with _errors_of(name, layout.what):
        connection = sqlite3.connect(name, timeout=0.0, isolation_level=None, check_same_thread=False)
    try:
        with _errors_of(name, layout.what):
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            _recognise(connection, name, layout, make)
            _ask(connection, "PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _recognise(connection: sqlite3.Connection, name: str, layout: Layout, make: bool) -> None:
    with _transaction(connection, "EXCLUSIVE"):  # this is what a second one fails at
        kind, version = _ask(connection, "PRAGMA application_id"), _ask(connection, "PRAGMA user_version")
        if make and (kind, version, _ask(connection, "SELECT count(*) FROM sqlite_master")) == (0, 0, 0):
            for statement in layout.tables:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {layout.application_id}")
            connection.execute(f"PRAGMA user_version = {layout.version}")
        elif kind != layout.application_id:
            raise OSError(errno.EILSEQ, f"it is not {layout.what} of netmsg's", name)
        elif version > layout.version:
            raise OSError(errno.EILSEQ, f"{layout.what} of version {version}, which is newer than this netmsg", name)
        elif os.path.getsize(name) % _ask(connection, "PRAGMA page_size"):
            raise OSError(errno.EILSEQ, f"{layout.what} that is damaged: its end is missing", name)
        elif os.path.getsize(name) <= MOST_CHECKED:
            found = _ask(connection, "PRAGMA integrity_check(1)")
            if found != "ok":
                raise OSError(errno.EILSEQ, f"{layout.what} that is damaged: {found}", name)


def _ask(connection: sqlite3.Connection, question: str) -> Any:
    with closing(connection.execute(question)) as cursor:
        return cursor.fetchone()[0]


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have ended it
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _errors_of(name: str, what: str) -> Iterator[None]:
    """Whatever SQLite raises is an ``OSError`` of that file."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & PRIMARY
        number = ERRNO.get(code, errno.EIO)
        reason = f"{what} that is open already" if number == errno.EBUSY else f"{what}: {error}"
        raise OSError(number, reason, name) from error
    except UnicodeDecodeError as error:  # of what SQLite says, in which names of the file stand as they are there
        raise OSError(errno.EILSEQ, f"{what} that is damaged: {error}", name) from error


_left_alone: list[sqlite3.Connection] = []
_open: dict[tuple[int, int], OpenFile] = {}
"""By device and inode: those that are open, in a forked child also those that were."""
