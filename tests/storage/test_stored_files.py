"""Files of our own: told from others, opened once, never replaced."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from netmsg.storage.files import Layout, errors_of, open_file, transaction

LAYOUT = Layout("a file of notes", 0x6E6F7465, 2, ("CREATE TABLE notes (note TEXT NOT NULL)",))


def notes(connection: sqlite3.Connection) -> list[str]:
    return [note for note, in connection.execute("SELECT note FROM notes ORDER BY note")]


def written(path: Path, *its: str) -> None:
    connection = open_file(path, LAYOUT)
    with transaction(connection):
        connection.executemany("INSERT INTO notes VALUES (?)", [(note,) for note in its])
    connection.close()


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    written(path, "one", "two")
    connection = open_file(path, LAYOUT)
    assert notes(connection) == ["one", "two"]
    connection.close()


def test_nobody_else_may_read_a_new_one(tmp_path: Path) -> None:
    written(tmp_path / "notes")
    assert stat.S_IMODE((tmp_path / "notes").stat().st_mode) == 0o600


def test_a_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (":memory:", "file:x?mode=memory", os.fsencode("bytes"), "with space"):
        connection = open_file(name, LAYOUT)
        connection.close()
        assert (tmp_path / os.fsdecode(name)).stat().st_size > 0


def test_it_is_open_once_in_this_process(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    connection = open_file(path, LAYOUT)
    for _ in range(2):  # to have tried must not undo it
        with pytest.raises(OSError, match="a file of notes that is open already") as raised:
            open_file(path, LAYOUT)
        assert raised.value.errno == errno.EBUSY and raised.value.filename == str(path)
    connection.close()
    open_file(path, LAYOUT).close()


def test_and_in_no_other(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    connection = open_file(path, LAYOUT)
    program = f"""
from netmsg.storage.files import *
try:
    open_file({str(path)!r}, Layout({LAYOUT.what!r}, {LAYOUT.application_id}, 2, ()))
except OSError as error:
    print(error.errno)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout == f"{errno.EBUSY}\n"
    connection.close()


def script(path: Path, statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)


def of_another_kind(path: Path) -> None:
    script(path, "CREATE TABLE x (y); PRAGMA application_id = 5")


def without_a_kind(path: Path) -> None:
    script(path, "CREATE TABLE x (y)")


def newer(path: Path) -> None:
    written(path)
    script(path, "PRAGMA user_version = 3")


def no_database(path: Path) -> None:
    path.write_text("dear diary, " * 1000)


def damaged(path: Path) -> None:
    written(path, *["x" * 3000] * 100)
    content = bytearray(path.read_bytes())
    content[8192:40_000] = os.urandom(40_000 - 8192)
    path.write_bytes(content)


def cut(path: Path) -> None:
    written(path, *["x" * 3000] * 100)
    os.truncate(path, 20_000)


def of_no_text(path: Path) -> None:
    """What SQLite says of it is none either."""
    written(path)
    path.write_bytes(path.read_bytes().replace(b"notes (note", b"notes \xffnote"))


@pytest.mark.parametrize("make, reason", [
    (of_another_kind, "it is not a file of notes of netmsg's"), (without_a_kind, "it is not a file of notes"),
    (newer, "of version 3, which is newer"), (no_database, "not a database"), (damaged, "damaged|malformed"),
    (cut, "damaged|malformed"), (of_no_text, "damaged|malformed")])
def test_what_is_something_else_is_told_and_left_as_it_is(tmp_path: Path, make: Callable[[Path], None],
                                                          reason: str) -> None:
    path = tmp_path / "notes"
    make(path)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(OSError, match=reason) as raised:
            open_file(path, LAYOUT)
        assert raised.value.errno == errno.EILSEQ and raised.value.filename == str(path)
    assert path.read_bytes() == before


def test_where_there_is_no_place_for_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "missing" / "notes", LAYOUT)
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path, LAYOUT)


def test_none_is_made_for_who_only_looks(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "notes", LAYOUT, make=False)
    assert not any(tmp_path.iterdir())


def test_of_a_transaction_that_fails_nothing_is_there(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    written(path, "one")
    connection = open_file(path, LAYOUT)
    with pytest.raises(OSError, match="NOT NULL"), errors_of(str(path), LAYOUT.what), transaction(connection):
        connection.executemany("INSERT INTO notes VALUES (?)", [("two",), (None,)])
    assert notes(connection) == ["one"] and not connection.in_transaction
    connection.close()


def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    written(path, "one")
    connection = open_file(path, LAYOUT)
    connection.execute("PRAGMA max_page_count = 5")
    with pytest.raises(OSError, match="full") as raised, errors_of(str(path), LAYOUT.what), transaction(connection):
        connection.executemany("INSERT INTO notes VALUES (?)", [("x" * 3000,)] * 100)
    assert raised.value.errno == errno.ENOSPC and notes(connection) == ["one"]
    connection.execute("PRAGMA max_page_count = 1000000")
    with transaction(connection):
        connection.execute("INSERT INTO notes VALUES ('two')")
    assert notes(connection) == ["one", "two"]
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    program = f"""
import os
from netmsg.storage.files import *
layout = Layout("notes", 5, 1, ("CREATE TABLE notes (note TEXT)",))
connection = open_file({str(path)!r}, layout)
connection.execute("INSERT INTO notes VALUES ('one')")
child = os.fork()
if not child:
    leave_alone(connection)
    del connection
    raise SystemExit
assert os.waitpid(child, 0)[1] == 0
connection.execute("INSERT INTO notes VALUES ('two')")
connection.close()
connection = open_file({str(path)!r}, layout)
print(connection.execute("SELECT count(*) FROM notes").fetchone())
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout == "(2,)\n" and not run.stderr


def test_an_empty_file_is_none_for_who_only_looks_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.touch()
    with pytest.raises(OSError, match="not a file of notes"):
        open_file(path, LAYOUT, make=False)
    assert path.read_bytes() == b""


def test_one_that_is_cut_off_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    written(path, *(str(number) * 50 for number in range(1000)))
    os.truncate(path, path.stat().st_size - 2000)
    with pytest.raises(OSError, match="damaged") as caught:
        open_file(path, LAYOUT)
    assert caught.value.errno == errno.EILSEQ


def test_of_two_that_open_it_at_the_same_moment_one_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    written(path)
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_stored_files import LAYOUT, open_file
sys.stdin.readline()
try:
    connection = open_file({str(path)!r}, LAYOUT)
    print("open", flush=True)
    sys.stdin.readline()
except OSError as error:
    print(error.errno, flush=True)
"""
    for _ in range(5):
        both = [subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 text=True) for _ in range(2)]
        for process in both:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = []
        for process in both:
            assert process.stdout is not None
            said.append(process.stdout.readline().strip())
        for process in both:
            process.communicate()
        assert sorted(said) == [str(errno.EBUSY), "open"]
