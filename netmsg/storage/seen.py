"""The file of a receiver's memory: which messages have been handed over, so that they are known when they come again.

It is bounded: of so many it keeps the newest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .files import Layout, PathLike, open_file

__all__ = ["Known", "SeenFile"]

LAYOUT: Final = Layout("a memory of messages", 0x6E6D7365, 1, (
    "CREATE TABLE seen (number INTEGER PRIMARY KEY, message BLOB NOT NULL UNIQUE)",
))
AT_ONCE: Final = 500
"""So many are asked for in one statement."""

Known = frozenset[bytes]
"""Messages, each as the identity of its sender and its id in one."""


class SeenFile:
    """What raises has changed nothing. Used by one thread at a time."""

    def __init__(self, path: PathLike, remember: int) -> None:
        """So many are remembered. Raises what `open_file` does."""
        self._remember = remember
        self._file = open_file(path, LAYOUT)

    def write(self, changes: Sequence[Sequence[bytes]]) -> None:
        """In one transaction: these have been handed over; some of them before, perhaps."""
        self._file.write((
            ("INSERT OR IGNORE INTO seen (message) VALUES (?)",
             [(message,) for messages in changes for message in messages]),
            ("DELETE FROM seen WHERE number <= (SELECT max(number) FROM seen) - ?", [(self._remember,)])))

    def known(self, messages: Sequence[bytes]) -> Known:
        """Which of these are remembered."""
        found: list[bytes] = []
        with self._file.in_use() as connection:
            for first in range(0, len(messages), AT_ONCE):
                some = messages[first:first + AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = connection.execute(f"SELECT message FROM seen WHERE message IN ({marks})", some)
                found += (message for message, in rows)
        return frozenset(found)

    def close(self) -> None:
        """Also of one that is closed."""
        self._file.close()

    def abandon(self) -> None:
        """In a forked child."""
        self._file.abandon()
