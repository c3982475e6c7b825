"""Files of our own: told from others, opened once, never replaced."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest
from support.forking import fork
from support.pairs import TIMEOUT
from support.processes import PYTHON

from netmsg.storage.files import Layout, OpenFile, open_file
from netmsg.storage.outbox import Change, OutboxFile, Stored
from netmsg.storage.seen import SeenFile

LAYOUT = Layout("a file of notes", 0x6E6F7465, 2, ("CREATE TABLE notes (note TEXT NOT NULL)",))


def notes(file: OpenFile) -> list[str]:
    with file.in_use() as connection:
        return [note for note, in connection.execute("SELECT note FROM notes ORDER BY note")]


def written(path: Path, *its: str) -> None:
    file = open_file(path, LAYOUT)
    with file.transaction() as connection:
        connection.executemany("INSERT INTO notes VALUES (?)", [(note,) for note in its])
    file.close()


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    written(path, "one", "two")
    file = open_file(path, LAYOUT)
    assert notes(file) == ["one", "two"]
    file.close()


def test_nobody_else_may_read_a_new_one(tmp_path: Path) -> None:
    written(tmp_path / "notes")
    assert stat.S_IMODE((tmp_path / "notes").stat().st_mode) == 0o600


def test_nor_one_at_the_end_of_a_symbolic_link(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("notes")
    written(link, "one")
    assert stat.S_IMODE((tmp_path / "notes").stat().st_mode) == 0o600 and link.is_symlink()


def test_a_path_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (":memory:", "file:x?mode=memory", os.fsencode("bytes"), "with space"):
        file = open_file(name, LAYOUT)
        file.close()
        assert (tmp_path / os.fsdecode(name)).stat().st_size > 0


def test_it_is_open_once_in_this_process(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    file = open_file(path, LAYOUT)
    for _ in range(2):  # to have tried must not undo it
        with pytest.raises(OSError, match="a file of notes that is open already") as raised:
            open_file(path, LAYOUT)
        assert raised.value.errno == errno.EBUSY and raised.value.filename == str(path)
    file.close()
    open_file(path, LAYOUT).close()


def elsewhere(path: Path) -> str:
    """What another process gets from opening it: an error's number, or nothing."""
    program = f"""
from netmsg.storage.files import *
try:
    open_file({str(path)!r}, Layout({LAYOUT.what!r}, {LAYOUT.application_id}, 2, ())).close()
except OSError as error:
    print(error.errno)
"""
    run = subprocess.run([*PYTHON, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    return run.stdout.strip()


def test_and_in_no_other(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    file = open_file(path, LAYOUT)
    assert elsewhere(path) == str(errno.EBUSY)
    file.close()
    assert elsewhere(path) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="there is no lock that would stay")
def test_not_even_if_somebody_reads_it_in_this_one_and_by_no_other_name(tmp_path: Path) -> None:
    """To close any descriptor of a file undoes the locks that SQLite has on it."""
    path, symbolic, hard = tmp_path / "notes", tmp_path / "symbolic", tmp_path / "hard"
    file = open_file(path, LAYOUT)
    symbolic.symlink_to(path)
    hard.hardlink_to(path)
    path.read_bytes()
    for name in (path, symbolic, hard):
        with pytest.raises(OSError, match="open already") as raised:
            open_file(name, LAYOUT)
        assert raised.value.errno == errno.EBUSY
        assert elsewhere(name) == str(errno.EBUSY)
    file.close()
    assert elsewhere(hard) == ""


def test_who_is_refused_does_not_undo_the_locks_of_who_has_it(tmp_path: Path) -> None:
    """They keep out those who know nothing of ours."""
    path = tmp_path / "notes"
    file = open_file(path, LAYOUT)
    with pytest.raises(OSError, match="open already"):
        open_file(path, LAYOUT)
    program = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('SELECT * FROM notes')"
    run = subprocess.run([*PYTHON, "-c", program], capture_output=True, text=True, timeout=30)
    assert "database is locked" in run.stderr
    file.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_does_not_keep_it_when_its_parent_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    program = f"""
import os, signal, sys
from netmsg.storage.committing import Committer
from netmsg.storage.outbox import Change, OutboxFile, Stored
from netmsg.storage.seen import SeenFile
committer = Committer(OutboxFile({str(path)!r}))
committer.start()
if os.fork():
    os.kill(os.getpid(), signal.SIGKILL)
print("on its own", flush=True)
sys.stdin.readline()
os._exit(0)
"""
    with subprocess.Popen([*PYTHON, "-W", "ignore", "-c", program], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "on its own\n"
        parent.wait(TIMEOUT)
        OutboxFile(path).close()


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
    file = open_file(path, LAYOUT)
    with pytest.raises(OSError, match="NOT NULL"), file.transaction() as connection:
        connection.executemany("INSERT INTO notes VALUES (?)", [("two",), (None,)])
    assert notes(file) == ["one"] and not connection.in_transaction
    file.close()


def test_a_full_disk_is_told_and_what_was_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    written(path, "one")
    file = open_file(path, LAYOUT)
    with file.in_use() as connection:
        connection.execute("PRAGMA max_page_count = 5")
    with pytest.raises(OSError, match="full") as raised, file.transaction() as connection:
        connection.executemany("INSERT INTO notes VALUES (?)", [("x" * 3000,)] * 100)
    assert raised.value.errno == errno.ENOSPC and notes(file) == ["one"]
    with file.in_use() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    with file.transaction() as connection:
        connection.execute("INSERT INTO notes VALUES ('two')")
    assert notes(file) == ["one", "two"]
    file.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_is_told_why_it_cannot_open_what_its_parent_had_open(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    file = open_file(path, LAYOUT)
    may_try, told = os.pipe(), os.pipe()
    child = fork()
    if not child:
        try:
            os.read(may_try[0], 1)
            open_file(path, LAYOUT)
        except OSError as error:
            os.write(told[1], f"{error.errno} {error.strerror}".encode())
        finally:
            os._exit(0)
    file.close()
    os.write(may_try[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(told[0], 1000).decode() == (
        f"{errno.EBUSY} a file of notes that was open when this process was forked; open it after the fork instead")
    for descriptor in (*may_try, *told):
        os.close(descriptor)
    open_file(path, LAYOUT).close()


class Full:
    """Has the first writes fail for want of room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.tries = 0
        transaction = OpenFile.transaction

        def full(file: OpenFile) -> AbstractContextManager[sqlite3.Connection]:
            self.tries += 1
            if self.tries <= times:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
            return transaction(file)

        monkeypatch.setattr(OpenFile, "transaction", full)


def an_outbox(path: Path) -> tuple[OutboxFile, Callable[[int], None]]:
    file = OutboxFile(path)
    return file, lambda number: file.write([Change([Stored(b"%016d" % number, None, 0.0, b"x")], ())])


def a_memory(path: Path) -> tuple[SeenFile, Callable[[int], None]]:
    file = SeenFile(path, 1000)
    return file, lambda number: file.write([[b"%032d" % number]])


@pytest.mark.parametrize("kind", [an_outbox, a_memory])
@pytest.mark.parametrize("times", [1, 2])
def test_on_a_full_disk_the_journal_is_given_back_and_it_is_tried_once_more(
        tmp_path: Path, kind: Callable[[Path], tuple[Any, Callable[[int], None]]], times: int,
        monkeypatch: pytest.MonkeyPatch) -> None:
    file, write = kind(tmp_path / "file")
    for number in range(50):
        write(number)
    journal = tmp_path / "file-wal"
    before = journal.stat().st_size
    disk = Full(monkeypatch, times)
    if times == 2:
        with pytest.raises(OSError, match="No space"):
            write(100)
    else:
        write(100)
    assert disk.tries == 2 and journal.stat().st_size < before / 4
    for number in range(200, 300):  # nor does it grow again, to what may not find room in the file
        write(number)
    assert journal.stat().st_size < before
    file.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_leaves_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    program = f"""
import os
from netmsg.storage.files import *
layout = Layout("notes", 5, 1, ("CREATE TABLE notes (note TEXT)",))

def note(text):
    with file.transaction() as connection:
        connection.execute("INSERT INTO notes VALUES (?)", (text,))

file = open_file({str(path)!r}, layout)
note("one")
child = os.fork()
if not child:
    file.abandon()
    del file
    raise SystemExit
assert os.waitpid(child, 0)[1] == 0
note("two")
file.close()
file = open_file({str(path)!r}, layout)
with file.in_use() as connection:
    print(connection.execute("SELECT count(*) FROM notes").fetchone())
file.close()
"""
    run = subprocess.run([*PYTHON, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert run.stdout == "(2,)\n" and not run.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_forked_while_others_write_has_files_of_its_own(tmp_path: Path) -> None:
    """Where it is forked in the middle of SQLite, it hangs at the first file that it opens: one of some twenty did."""
    program = f"""
import os, signal, threading, warnings
from netmsg.storage.outbox import *
warnings.simplefilter("ignore", DeprecationWarning)

def write(number):
    file = OutboxFile(f"{{directory}}/parent{{number}}", wait_for_disk=False)
    writing.wait()
    while True:
        new = [Stored(b"%016d" % number, None, 0.0, bytes(200)) for number in range(50)]
        file.write([Change(new, ())])
        file.write([Change((), [(message.message_id, None) for message in new])])

directory = {str(tmp_path)!r}
writing = threading.Barrier(3)
for number in range(2):
    threading.Thread(target=write, args=(number,), daemon=True).start()
writing.wait()
for number in range(60):
    child = os.fork()
    if not child:
        signal.alarm(10)
        OutboxFile(f"{{directory}}/child{{number}}", wait_for_disk=False).close()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        print("it hung")
        break
os._exit(0)
"""
    run = subprocess.run([*PYTHON, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not run.stdout and not run.stderr


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
sys.path[:0] = {[str(directory) for directory in Path(__file__).parents[:2]]!r}
from test_stored_files import LAYOUT, open_file
sys.stdin.readline()
try:
    file = open_file({str(path)!r}, LAYOUT)
    print("open", flush=True)
    sys.stdin.readline()
except OSError as error:
    print(error.errno, flush=True)
"""
    for _ in range(5):
        both = [subprocess.Popen([*PYTHON, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
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
