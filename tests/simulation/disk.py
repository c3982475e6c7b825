"""The disk of a host, whose files outlive its programs, as far as they were synced; and who writes them, in no time of
their own.

A transaction is done wholly or not at all, as SQLite sees to. What is simulated is when a program dies, before it or
behind it and before anybody is told; that it cannot be done; and that a machine loses power before it was synced.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from netmsg.storage.committing import CommitQueue
from netmsg.storage.outbox import Change, Key, Page, Stored
from netmsg.storage.seen import Known

if TYPE_CHECKING:
    from .machine import SimulatedMachine

__all__ = ["Disk", "SimulatedCommitter", "SimulatedMemory", "SimulatedOutbox"]

PAGE: Final = 20
"""Messages; so few, that there are many pages."""
SLOWEST: Final = 0.02
"""Seconds that a transaction takes at most."""
LATER: Final = 0.05

Undo = Callable[[], None]


class Disk:
    """Of one host."""

    def __init__(self, dice: random.Random) -> None:
        self.contents: dict[str, dict[Any, Any]] = {}
        """Of each file: rows by their keys, in order."""
        self.facts: dict[str, dict[str, Any]] = {}
        self.owners: dict[str, SimulatedMachine] = {}
        """Who has which file open."""
        self.full = False
        self.lost = 0
        """Transactions that were undone, because they had not been synced."""
        self._unsynced: dict[str, list[list[Undo]]] = {}
        self._dice = dice

    def open(self, path: str, machine: SimulatedMachine) -> dict[Any, Any]:
        """Raises ``OSError`` if somebody else has it open."""
        owner = self.owners.get(path)
        if owner is not None and not owner.dead:
            raise OSError(errno.EBUSY, "it is open already", path)
        self.owners[path] = machine
        self.facts.setdefault(path, {})
        return self.contents.setdefault(path, {})

    def close(self, path: str, machine: SimulatedMachine) -> None:
        if self.owners.get(path) is machine:
            del self.owners[path]

    def committed(self, path: str, undo: list[Undo], *, synced: bool) -> None:
        """One more transaction, which can be undone so, in reverse; ``synced``: it and all before it stay."""
        unsynced = self._unsynced.setdefault(path, [])
        unsynced.append(undo)
        if synced:
            unsynced.clear()

    def loses_power(self) -> None:
        """Of what was not synced the last transactions are lost, if any are."""
        for unsynced in self._unsynced.values():
            for _ in range(self._dice.randint(0, len(unsynced)) if unsynced else 0):
                self.lost += 1
                for undo in reversed(unsynced.pop()):
                    undo()
            unsynced.clear()


class _File:
    """Opened by one program."""

    def __init__(self, disk: Disk, path: str, machine: SimulatedMachine, *, syncs: bool) -> None:
        self._disk = disk
        self._path = path
        self._machine = machine
        self._syncs = syncs
        self._rows = disk.open(path, machine)

    def _transact(self, added: Iterable[tuple[Any, Any]], gone: Iterable[Any]) -> None:
        machine, rows = self._machine, self._rows
        machine.host.called()
        if machine.dead:
            return
        if self._disk.full and added:
            raise OSError(errno.ENOSPC, "it is full", self._path)
        undo: list[Undo] = []
        for key, row in added:
            if key not in rows:
                rows[key] = row
                undo.append(lambda key=key: rows.pop(key, None))  # type: ignore[misc]
        for key in gone:
            if key in rows:
                undo.append(lambda key=key, row=rows.pop(key): rows.__setitem__(key, row))  # type: ignore[misc]
        self._disk.committed(self._path, undo, synced=self._syncs)
        machine.host.called()

    def close(self) -> None:
        self._disk.close(self._path, self._machine)

    def abandon(self) -> None:
        raise AssertionError("nobody is forked here")


class SimulatedOutbox(_File):
    """See `netmsg.storage.outbox.OutboxFile`."""

    def __init__(self, disk: Disk, path: str, machine: SimulatedMachine, identity: bytes | None, *,
                 syncs: bool) -> None:
        super().__init__(disk, path, machine, syncs=syncs)
        facts = disk.facts[path]
        self.identity: bytes = facts.setdefault("identity", identity or machine.token(16))
        assert identity in (None, self.identity)
        facts["epoch"] = facts.get("epoch", 0) + 1
        self.prefix = facts["epoch"].to_bytes(4, "big") + machine.token(4)

    def write(self, changes: Sequence[Change]) -> None:
        added = [((message.addressee, message.message_id), message) for change in changes for message in change.new]
        gone: list[Key] = [key for change in changes for key in change.gone]
        self._transact(added, [(addressee, message_id) for message_id, addressee in gone])

    def page(self, addressee: bytes | None, after: bytes) -> Page:
        rows: list[Stored] = sorted(row for (whose, message_id), row in self._rows.items()
                                    if whose == addressee and message_id > after)
        return Page(rows[:PAGE], len(rows) <= PAGE)

    def counts(self) -> dict[bytes | None, tuple[int, int]]:
        found: dict[bytes | None, tuple[int, int]] = {}
        for row in self._rows.values():
            count, size = found.get(row.addressee, (0, 0))
            found[row.addressee] = count + 1, size + len(row.payload)
        return found


class SimulatedMemory(_File):
    """See `netmsg.storage.seen.SeenFile`."""

    def __init__(self, disk: Disk, path: str, machine: SimulatedMachine, remember: int) -> None:
        super().__init__(disk, path, machine, syncs=True)
        self._remember = remember

    def write(self, changes: Sequence[Sequence[bytes]]) -> None:
        messages = [message for some in changes for message in some]
        self._transact([(message, True) for message in messages], [])
        for message in [*self._rows][:max(0, len(self._rows) - self._remember)]:
            del self._rows[message]

    def known(self, messages: Sequence[bytes]) -> Known:
        return frozenset(message for message in messages if message in self._rows)


class SimulatedCommitter(CommitQueue[Any]):
    """Writes after a while, as a thread does."""

    def __init__(self, file: Any, machine: SimulatedMachine, chance: Callable[[], float]) -> None:
        super().__init__(file, self._come)
        self._machine = machine
        self._chance = chance
        self._coming = False

    def start(self) -> None:
        """It comes when there is something to do."""

    def _come(self) -> None:
        if not self._coming and self.anything:
            self._coming = True
            self._machine.after(SLOWEST * self._chance() if self.hurries else LATER, self._go_on)

    def _go_on(self) -> None:
        self._coming = False
        if self._machine.stopped:
            self._machine.after(LATER, self._go_on)
            self._coming = True
            return
        self.step()
        if self._machine.dead:
            return
        if self.over:
            self._file.close()
        else:
            self._come()

    def join(self, timeout: float | None = None) -> None:
        """No time goes by in here."""
