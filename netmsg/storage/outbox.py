"""The file of an outbox: messages that were accepted and are not acknowledged, and whose they are.

Ids are in the order of sending, also over restarts: each begins with an epoch, which is greater every time the file is
opened, and what is random, in case that a disk has lost that. So no id is given twice, and no new message taken for one
that has been delivered.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple

from .files import Layout, PathLike, open_file

__all__ = ["Change", "Key", "NO_ID", "OutboxFile", "Page", "Stored", "StoredMessages"]

LAYOUT: Final = Layout("an outbox", 0x6E6D6F78, 1, (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE anybodys (id BLOB PRIMARY KEY, at REAL NOT NULL, payload BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE addressed (addressee BLOB, id BLOB, at REAL NOT NULL, payload BLOB NOT NULL,"
    " PRIMARY KEY (addressee, id)) WITHOUT ROWID",
))
MESSAGE_ID_SIZE: Final = 16
PREFIX_SIZE: Final = 8
"""Bytes of the ids of one epoch that are the same."""
NO_ID: Final = b""
"""Before any other."""


class Stored(NamedTuple):
    """One message."""

    message_id: bytes
    """16 bytes."""
    addressee: bytes | None
    """The identity of the one who is to get it; ``None`` if anybody may."""
    at: float
    """When it was sent, in seconds since the epoch."""
    payload: bytes


Key = tuple[bytes, "bytes | None"]
"""The id of a message, and its addressee."""


class Change(NamedTuple):
    """Of what is in the file."""

    new: Sequence[Stored]
    """What has been sent."""
    gone: Sequence[Key]
    """What need not be kept any more."""


class Page(NamedTuple):
    """Some messages, oldest first."""

    messages: list[Stored]
    is_last: bool
    """Whether there are no more."""


class StoredMessages:
    """What is in the file, for who wants to look: it is not changed. Used by one thread at a time."""

    def __init__(self, path: PathLike, *, make: bool = False) -> None:
        """Raises what `open_file` does."""
        self._file = open_file(path, LAYOUT, make=make)

    def __iter__(self) -> Iterator[Stored]:
        """All, oldest first."""
        with self._file.in_use() as connection:
            rows = connection.execute("SELECT id, NULL AS addressee, at, payload FROM anybodys"
                                      " UNION ALL SELECT id, addressee, at, payload FROM addressed ORDER BY id")
        while True:
            with self._file.in_use():
                row = rows.fetchone()
            if row is None:
                return
            yield self._sound(row)

    def page(self, addressee: bytes | None, after: bytes = NO_ID, messages: int = 1000,
             size: int = 1 << 20) -> Page:
        """The oldest ones for anybody, or for one peer, behind a certain one: at most so many, and no more when they
        have so many bytes together."""
        with self._file.in_use() as connection:
            if addressee is None:
                rows = connection.execute(
                    "SELECT id, NULL, at, payload FROM anybodys WHERE id > ? ORDER BY id", (after,))
            else:
                rows = connection.execute(
                    "SELECT id, addressee, at, payload FROM addressed WHERE addressee = ? AND id > ? ORDER BY id",
                    (addressee, after))
            with closing(rows):
                return _page_of(map(self._sound, rows), messages, size)

    def counts(self) -> dict[bytes | None, tuple[int, int]]:
        """How many messages there are, and of how many bytes together, by addressee."""
        with self._file.in_use() as connection:
            counts = {addressee: (count, int(size)) for addressee, count, size in connection.execute(
                "SELECT NULL, count(*), total(length(payload)) FROM anybodys HAVING count(*) > 0"
                " UNION ALL SELECT addressee, count(*), total(length(payload)) FROM addressed GROUP BY addressee")}
        for addressee in counts:
            self._check(addressee is None or type(addressee) is bytes)
        return counts

    def _sound(self, row: tuple[Any, ...]) -> Stored:
        """Of what stands in the file SQLite checks the form, and not whether it is of the type that was written."""
        message = Stored._make(row)
        message_id, addressee, at, payload = row
        self._check(type(message_id) is bytes and len(message_id) == MESSAGE_ID_SIZE
                    and (addressee is None or type(addressee) is bytes) and type(at) is float
                    and type(payload) is bytes)
        return message

    def _check(self, is_sound: bool) -> None:
        if not is_sound:
            raise OSError(errno.EILSEQ, f"{LAYOUT.what} that is damaged: what stands for a message is none",
                          self._file.name)

    def close(self) -> None:
        """Also of one that is closed."""
        self._file.close()

    def abandon(self) -> None:
        """In a forked child."""
        self._file.abandon()


class OutboxFile(StoredMessages):
    """The file of an outbox that is in use. What raises has changed nothing."""

    def __init__(self, path: PathLike, identity: bytes | None = None, *, wait_for_disk: bool = True) -> None:
        """``identity`` is that of a new file; of another one it has to be the same, or ``None``: else ``ValueError``.
        Unless it is to ``wait_for_disk``, a crash of the machine may undo what was written last."""
        super().__init__(path, make=True)
        try:
            self.identity: bytes = self._begin(identity)
            if not wait_for_disk:
                with self._file.in_use() as connection:
                    connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            self.close()
            raise

    def _begin(self, identity: bytes | None) -> bytes:
        with self._file.transaction() as connection:
            facts = dict(connection.execute("SELECT name, value FROM facts"))
            its = facts.get("identity")
            if not (its is None or _is_of_bytes(its, 16)) or not _is_of_bytes(facts.get("epoch", bytes(4)), 4):
                raise OSError(errno.EILSEQ, f"{LAYOUT.what} that is damaged: {facts!r:.200}", self._file.name)
            if its is not None and identity is not None and its != identity:
                raise ValueError(f"identity: {identity.hex()} was given, and {self._file.name!r} is of {its.hex()}")
            its = its or identity or os.urandom(16)
            epoch = int.from_bytes(facts.get("epoch", b""), "big") + 1
            connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)",
                                   [("identity", its), ("epoch", epoch.to_bytes(4, "big"))])
        self.prefix = epoch.to_bytes(4, "big") + os.urandom(PREFIX_SIZE - 4)
        """The first 8 bytes of the ids of this epoch."""
        return its

    def write(self, changes: Sequence[Change]) -> None:
        """In one transaction."""
        anybodys, addressed, anybodys_gone, addressed_gone = [], [], [], []
        for change in changes:
            for message_id, addressee, at, payload in change.new:
                if addressee is None:
                    anybodys.append((message_id, at, payload))
                else:
                    addressed.append((addressee, message_id, at, payload))
            for message_id, addressee in change.gone:
                if addressee is None:
                    anybodys_gone.append((message_id,))
                else:
                    addressed_gone.append((addressee, message_id))
        self._file.write((
            ("INSERT INTO anybodys VALUES (?, ?, ?)", anybodys),
            ("INSERT INTO addressed VALUES (?, ?, ?, ?)", addressed),
            ("DELETE FROM anybodys WHERE id = ?", anybodys_gone),
            ("DELETE FROM addressed WHERE addressee = ? AND id = ?", addressed_gone)))


def _is_of_bytes(value: object, count: int) -> bool:
    return isinstance(value, bytes) and len(value) == count and value != b"\xff" * count


def _page_of(rows: Iterator[Stored], messages: int, size: int) -> Page:
    page: list[Stored] = []
    for row in rows:
        if len(page) == messages or size <= 0:
            return Page(page, False)
        page.append(row)
        size -= len(row.payload)
    return Page(page, True)
