"""SQLite files of our own: recognised by what they say of themselves, opened once at a time, never replaced. Whatever
goes wrong with one is an ``OSError``.

Source: https://sqlite.org/wal.html, https://sqlite.org/pragma.html, https://sqlite.org/howtocorrupt.html
"""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, Final, NamedTuple, Union

__all__ = ["Layout", "PathLike", "errors_of", "leave_alone", "make_room", "open_file", "transaction"]

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


def open_file(path: PathLike, layout: Layout, *, make: bool = True) -> sqlite3.Connection:
    """Open the file, for this process alone and as long as it is open; ``make`` it if there is none. Every transaction
    waits until the disk has it. Raises ``OSError``: with ``EBUSY`` if it is open already, by whomever, and with
    ``EILSEQ`` if it is something else, or damaged, or of a newer version."""
    name = os.path.abspath(os.fsdecode(path))  # no URI, no ``:memory:``, and no other file after a ``chdir``
    for _ in range(TRIES):
        try:
            return _open(name, layout, make)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(random.uniform(*PAUSE))  # of two that open it at the same moment both may be refused
    return _open(name, layout, make)


def _open(name: str, layout: Layout, make: bool) -> sqlite3.Connection:
    _look(name, make)
    with errors_of(name, layout.what):
        connection = sqlite3.connect(name, timeout=0.0, isolation_level=None, check_same_thread=False)
    try:
        with errors_of(name, layout.what):
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            _recognise(connection, name, layout, make)
            _ask(connection, "PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _look(name: str, make: bool) -> None:
    """A new one is for nobody else to read. One that is there is not opened here: to close it would undo the locks that
    SQLite has on it in this process."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    if make:
        try:
            os.close(os.open(name, flags, 0o600))
        except FileExistsError:
            pass
    else:
        os.stat(name)
    if os.path.isdir(name):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)


def _recognise(connection: sqlite3.Connection, name: str, layout: Layout, make: bool) -> None:
    with transaction(connection, "EXCLUSIVE"):  # this is what a second one fails at
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
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """All of it, or nothing."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have ended it
            connection.execute("ROLLBACK")
        raise


@contextmanager
def errors_of(name: str, what: str) -> Iterator[None]:
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


def make_room(connection: sqlite3.Connection) -> None:
    """The disk is full: give back what the journal takes, as far as that goes. Raises nothing."""
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def leave_alone(connection: sqlite3.Connection) -> None:
    """In a forked child, in which SQLite must not touch the file any more, not even by closing it."""
    try:
        import ctypes
    except ImportError:  # then it must not be collected before the process ends by `os._exit`
        _left_alone.append(connection)
    else:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


_left_alone: list[sqlite3.Connection] = []
