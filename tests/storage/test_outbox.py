"""The file of an outbox: what was written is there again, in order, under ids that are given once."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.processes import PYTHON

from netmsg.storage.outbox import NO_ID, Change, Key, OutboxFile, Stored, StoredMessages

A, B = b"a" * 16, b"b" * 16


def stored(number: int, addressee: bytes | None = None, prefix: bytes = b"prefix..") -> Stored:
    return Stored(prefix + number.to_bytes(8, "big"), addressee, 1.5 * number, b"%d" % number)


def write(file: OutboxFile, new: Sequence[Stored] = (), gone: Sequence[Key] = ()) -> None:
    file.write([Change(new, gone)])


def ids(*messages: Stored) -> list[tuple[bytes, bytes | None]]:
    return [(message.message_id, message.addressee) for message in messages]


def test_what_was_written_is_there_again_until_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    messages = [stored(number, (None, A, B)[number % 3]) for number in range(9)]
    file = OutboxFile(path)
    write(file, messages)
    write(file, gone=ids(*messages[3:6]))
    file.close()
    there = StoredMessages(path)
    assert [*there] == messages[:3] + messages[6:]
    assert there.counts() == {None: (2, 2), A: (2, 2), B: (2, 2)}
    there.close()


def test_pages_are_in_order_and_each_has_its_own(tmp_path: Path) -> None:
    file = OutboxFile(tmp_path / "outbox")
    mine = [stored(number) for number in range(0, 100, 2)]
    others = [stored(number, A) for number in range(1, 100, 2)]
    write(file, [*reversed(mine), *others])
    for addressee, expected in ((None, mine), (A, others), (B, [])):
        got: list[Stored] = []
        is_last = False
        while not is_last:
            page, is_last = file.page(addressee, got[-1].message_id if got else NO_ID, 7)
            assert len(page) == 7 or is_last
            got += page
        assert got == expected
    file.close()


def test_a_page_is_no_more_than_so_many_bytes_but_one_message_at_least(tmp_path: Path) -> None:
    file = OutboxFile(tmp_path / "outbox")
    messages = [Stored(b"%016d" % number, None, 0.0, bytes(1000)) for number in range(10)]
    file.write([Change(messages[:5], ()), Change(messages[5:], ())])
    assert file.page(None, size=2500) == (messages[:3], False)
    assert file.page(None, messages[2].message_id, size=1) == (messages[3:4], False)
    assert file.page(None, messages[8].message_id, size=1) == (messages[9:], True)
    file.close()


def test_it_has_one_identity_for_good(tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    file = OutboxFile(path, A)
    assert file.identity == A
    file.close()
    for given_one in (None, A):
        file = OutboxFile(path, given_one)
        assert file.identity == A
        file.close()
    with pytest.raises(ValueError, match="identity: 6262"):
        OutboxFile(path, B)
    OutboxFile(path).close()
    file = OutboxFile(tmp_path / "another")
    its = file.identity
    file.close()
    file = OutboxFile(tmp_path / "another")
    assert len(its) == 16 and file.identity == its
    file.close()


def test_ids_grow_over_restarts_and_are_never_the_same(tmp_path: Path) -> None:
    prefixes = []
    for _ in range(5):
        file = OutboxFile(tmp_path / "outbox")
        prefixes.append(file.prefix)
        file.close()
    assert prefixes == sorted(prefixes) and len(set(prefixes)) == 5 and {*map(len, prefixes)} == {8}
    file = OutboxFile(tmp_path / "another")
    assert file.prefix != prefixes[0], "in case that a disk has lost what it was told"
    file.close()


def test_who_looks_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    OutboxFile(path).close()
    before = path.read_bytes()
    there = StoredMessages(path)
    assert [*there] == [] and there.counts() == {}
    there.close()
    assert path.read_bytes() == before


def test_one_that_cannot_be_written_is_not_there_and_the_others_neither(tmp_path: Path) -> None:
    file = OutboxFile(tmp_path / "outbox")
    write(file, [stored(1)])
    with pytest.raises(OSError, match="UNIQUE"):
        write(file, [stored(2), stored(1)], ids(stored(1)))
    assert [*file] == [stored(1)]
    file.close()


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 20), st.sampled_from([None, A, B]), st.booleans()), max_size=40))
def test_it_holds_what_was_written_and_not_taken_out(tmp_path_factory: pytest.TempPathFactory,
                                                     steps: list[tuple[int, bytes | None, bool]]) -> None:
    path = tmp_path_factory.mktemp("outbox") / "outbox"
    file = OutboxFile(path, wait_for_disk=False)
    expected: dict[tuple[bytes, bytes | None], Stored] = {}
    for number, addressee, add in steps:
        message = stored(number, addressee)
        (key,) = ids(message)
        if add and key not in expected:
            write(file, [message])
            expected[key] = message
        elif not add:
            write(file, gone=[key])
            expected.pop(key, None)
    file.close()
    file = OutboxFile(path, wait_for_disk=False)
    by_id = sorted(expected.values(), key=lambda message: message.message_id)
    assert sorted(file, key=lambda message: (message.message_id, message.addressee or b"")) == sorted(
        by_id, key=lambda message: (message.message_id, message.addressee or b""))
    file.close()


@pytest.mark.parametrize("name, value", [("identity", b"x"), ("identity", "text"), ("epoch", b"\xff" * 4),
                                         ("epoch", 7)])
def test_one_whose_facts_are_damaged_is_told_as_such(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "outbox"
    OutboxFile(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE facts SET value = ? WHERE name = ?", (value, name))
    with pytest.raises(OSError, match="damaged"):
        OutboxFile(path)


@pytest.mark.parametrize("damage", [
    "UPDATE anybodys SET payload = 'text'", "UPDATE anybodys SET payload = 7", "UPDATE anybodys SET at = 'text'",
    "UPDATE anybodys SET id = x'1234'", "UPDATE addressed SET payload = 'text'",
    "UPDATE addressed SET addressee = 'A'"])
def test_what_is_no_message_any_more_is_told_and_not_given(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "outbox"
    file = OutboxFile(path)
    write(file, [stored(1), stored(2, A)])
    file.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
    with closing(StoredMessages(path)) as there:
        for read in (lambda: [*there], lambda: [there.page(addressee) for addressee in there.counts()]):
            with pytest.raises(OSError, match="damaged") as caught:
                read()
            assert caught.value.errno == errno.EILSEQ and caught.value.filename == str(path)


def test_one_whose_messages_are_out_of_order_is_damaged(tmp_path: Path) -> None:
    """Pages would pass some of them over."""
    path = tmp_path / "outbox"
    file = OutboxFile(path)
    messages = [stored(number) for number in range(3)]
    write(file, messages)
    file.close()
    content = path.read_bytes()
    path.write_bytes(content.replace(messages[1].message_id, messages[1].message_id[:-1] + b"\xff"))
    with pytest.raises(OSError, match="damaged"):
        StoredMessages(path)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing can be killed")
def test_what_was_written_outlives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    program = f"""
from netmsg.storage.outbox import *
file = OutboxFile({os.fspath(path)!r})
for number in range(1_000_000):
    file.write([Change([Stored(file.prefix + number.to_bytes(8, "big"), None, 0.0, b"x" * number)], ())])
    print(number, flush=True)
"""
    with subprocess.Popen([*PYTHON, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "100\n":
            pass
        process.kill()
        told = [100, *map(int, process.stdout.read().split())]
    file = OutboxFile(path)
    there = [len(message.payload) for message in file]
    assert there == [*range(len(there))] and len(there) in (told[-1] + 1, told[-1] + 2)
    file.close()
