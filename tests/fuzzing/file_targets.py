"""Targets: files that a disk, or somebody, has damaged."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from netmsg.storage import outbox, seen
from netmsg.storage.files import Layout
from netmsg.storage.outbox import NO_ID, Change, OutboxFile, Stored, StoredMessages
from netmsg.storage.seen import SeenFile

__all__ = ["outbox_files", "outbox_sample", "seen_files", "seen_sample"]

AS_IT_IS, SETTLED, LOG, UNSETTLED = range(4)
"""What an input is, by the lowest two bits of its first byte: the bytes of the file; or changes to a sound one that was
closed, to the log beside one that was not, or to that one itself."""
IDENTITY: Final = b"fuzzing identity"
A, B = b"a" * 16, b"b" * 16
REMEMBERED: Final = 50
CUT: Final = 0
"""The size of a change that cuts the file off there."""

Rows = list[Stored]


class Sample(NamedTuple):
    """A sound file of small pages, closed; the same, still open, and its log; and what was in it at which time."""

    settled: bytes
    unsettled: bytes
    log: bytes
    states: list[Any]
    """As many as there were transactions in the log, and the one before; the last one is that of ``settled``."""


@contextmanager
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="netmsg-fuzzing-") as name:
        yield Path(name)


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def make_small(path: Path, layout: Layout) -> None:
    """With pages of the least size, so that a few messages fill many."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"PRAGMA page_size = 512; {'; '.join(layout.tables)};"
                                 f"PRAGMA application_id = {layout.application_id};"
                                 f"PRAGMA user_version = {layout.version}")


def stored(number: int) -> Stored:
    """Every third for each of three; some of many pages."""
    return Stored(b"id of 16 bytes %d" % (number % 10) if number < 10 else b"id of 16 byte %d" % number,
                  (None, A, B)[number % 3], 1.5 * number, b"%d " % number * (1 + number % 5 * 60))


def put(path: Path, open_one: Callable[[Path], Any], steps: list[Any]) -> tuple[bytes, bytes]:
    file = open_one(path)
    for step in steps:
        file.write([step])
    unsettled = path.read_bytes(), log_of(path).read_bytes()
    file.close()
    return unsettled


@cache
def outbox_sample() -> Sample:
    messages = [stored(number) for number in range(16)]
    before, later = messages[:9], messages[9:]
    with directory() as home:
        path = home / "outbox"
        make_small(path, outbox.LAYOUT)
        put(path, lambda path: OutboxFile(path, IDENTITY), [Change(before, ())])
        steps = [Change(later[:3], ()), Change((), [(one.message_id, one.addressee) for one in before[2:5]]),
                 Change(later[3:], [(before[0].message_id, None)])]
        unsettled, log = put(path, OutboxFile, steps)
        states = [by_id(before), by_id(before)]  # to open it is a transaction too
        for step in steps:
            states.append(by_id([one for one in [*states[-1], *step.new]
                                 if (one.message_id, one.addressee) not in step.gone]))
        return Sample(path.read_bytes(), unsettled, log, states)


@cache
def seen_sample() -> Sample:
    messages = [b"identity and id, of 32 bytes %3d" % number for number in range(REMEMBERED + 20)]
    with directory() as home:
        path = home / "seen"
        make_small(path, seen.LAYOUT)
        put(path, open_seen, [messages[:20]])
        steps = [messages[20:30], messages[30:55], messages[55:]]
        unsettled, log = put(path, open_seen, steps)
        states, count = [frozenset(messages[:20])], 20
        for step in steps:
            count += len(step)
            states.append(frozenset(messages[max(0, count - REMEMBERED):count]))
        return Sample(path.read_bytes(), unsettled, log, states)


def open_seen(path: Path) -> SeenFile:
    return SeenFile(path, REMEMBERED)


def by_id(messages: Rows) -> Rows:
    return sorted(messages, key=lambda one: (one.message_id, one.addressee or b""))


def changed(content: bytes, changes: bytes) -> bytes:
    """Each of ``changes`` is a position, a size and so many bytes that stand there instead."""
    result = bytearray(content)
    while len(changes) > 2:
        at, size = int.from_bytes(changes[:2], "big") % (len(content) + 1), changes[2]
        if size == CUT:
            del result[at:]
        else:
            new = changes[3:3 + size]
            result[at:at + len(new)] = new
        changes = changes[3 + size:]
    return bytes(result)


def lay_out(path: Path, data: bytes, sample: Sample) -> int:
    """Put there what ``data`` says; which kind of input it is."""
    kind = data[0] & 3 if data else AS_IT_IS
    changes = data[1:]
    if kind == AS_IT_IS:
        path.write_bytes(changes)
    elif kind == SETTLED:
        path.write_bytes(changed(sample.settled, changes))
    else:
        is_log = kind == LOG
        path.write_bytes(sample.unsettled if is_log else changed(sample.unsettled, changes))
        log_of(path).write_bytes(changed(sample.log, changes) if is_log else sample.log)
    return kind


def read_or_refused(path: Path, read: Callable[[], Any]) -> Any:
    """What is read, or ``None``; a file that is refused and has no log is not touched."""
    before = None if log_of(path).exists() else path.read_bytes()
    try:
        return read()
    except OSError as error:
        assert error.filename == str(path) and error.strerror and error.errno
        if before is not None:
            assert path.read_bytes() == before, "what was refused is not what it was"
        return None


# The outbox

def read_messages(path: Path) -> Rows:
    """By every way there is; they have to agree."""
    with closing(StoredMessages(path)) as file:
        there = list(file)
        counts = file.counts()
        paged = []
        for addressee in counts:
            after, is_last = NO_ID, False
            while not is_last:
                page, is_last = file.page(addressee, after, 3)
                assert page or is_last
                paged += page
                after = page[-1].message_id if page else after
    for one in there:
        assert type(one.message_id) is bytes and type(one.payload) is bytes and type(one.at) is float
        assert one.addressee is None or type(one.addressee) is bytes
    assert by_id(paged) == by_id(there), "the pages are not what there is"
    assert sum(count for count, _ in counts.values()) == len(there)
    return there


def use(path: Path, before: Rows) -> Rows:
    """As a Søcket does that begins: it goes on with what there is."""
    with closing(OutboxFile(path)) as file:
        assert len(file.identity) == 16 and len(file.prefix) == 8
        new = Stored(file.prefix + bytes(8), None, 0.0, b"new")
        refused = False
        try:
            file.write([Change([new], ())])
        except OSError:
            refused = True
        assert by_id(list(file)) == by_id(before if refused else [*before, new])
        return before if refused else [*before, new]


def outbox_files(data: bytes) -> None:
    """Whatever is wrong with the file is an ``OSError`` that names it, from whichever call comes to it. Who only looks
    changes nothing of what is said; a file that is refused stays as it is. What is read is of the types that it was
    written in, and the same by pages and all at once; it is still there beside what is written then. A damaged log is
    worth as many of its transactions as are sound, from the first one on; and with no damage all is there."""
    sample = outbox_sample()
    with directory() as home:
        path = home / "outbox"
        kind = lay_out(path, data, sample)
        there = read_or_refused(path, lambda: read_messages(path))
        if kind == LOG:
            assert there is not None and by_id(there) in sample.states
        elif kind != AS_IT_IS and len(data) <= 3:
            assert there is not None and by_id(there) == sample.states[-1]
        if there is None:
            read_or_refused(path, lambda: OutboxFile(path).close())
            return
        assert read_messages(path) == there
        used = read_or_refused(path, lambda: use(path, there))
        assert used is None or by_id(read_messages(path)) == by_id(used)


# The memory of a receiver

def known(path: Path, asked: list[bytes], then_write: list[bytes]) -> Any:
    with closing(open_seen(path)) as file:
        before = file.known(asked)
        file.write([then_write])
        assert file.known(then_write) == frozenset(then_write)
        return before


def seen_files(data: bytes) -> None:
    """Whatever is wrong with the file is an ``OSError`` that names it; one that is refused stays as it is. Nothing is
    known that was not asked for, and what was never noted is not known. A damaged log is worth as many of its
    transactions as are sound, from the first one on; what is noted then is known."""
    sample = seen_sample()
    ever = sorted(frozenset().union(*sample.states))
    never = [b"never noted, though of 32 bytes too"[:32]]
    new = [b"noted only now, and of 32 bytes "]
    with directory() as home:
        path = home / "seen"
        kind = lay_out(path, data, sample)
        there = read_or_refused(path, lambda: known(path, [*ever, *never], new))
        if kind == LOG or kind != AS_IT_IS and len(data) <= 3:
            assert there in (sample.states if kind == LOG else sample.states[-1:])
        assert there is None or not there & {*never, *new}
