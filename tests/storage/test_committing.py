"""Group commit, with a file that does as it is told, and with a real one."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, until
from support.servers import said

from netmsg import ClosedError
from netmsg.deadline import Deadline
from netmsg.storage.committing import Committer
from netmsg.storage.outbox import OutboxFile, Stored, StoredMessages

FOREVER = Deadline(None)


class File:
    """Writes when it may."""

    prefix = b"prefix.."

    def __init__(self) -> None:
        self.may_write = threading.Event()
        self.may_write.set()
        self.writing = threading.Event()
        self.writes: list[tuple[list[Stored], list[Any]]] = []
        self.refuses: set[bytes] = set()
        self.refuses_gone = False
        self.closed = False

    def write(self, new: Sequence[Stored], gone: Sequence[Any]) -> None:
        self.writing.set()
        assert self.may_write.wait(TIMEOUT)
        if self.refuses.intersection(message.payload for message in new) or (self.refuses_gone and gone):
            raise OSError(errno.ENOSPC, "it is full", "outbox")
        self.writes.append(([*new], [*gone]))

    def page(self, addressee: bytes | None, after: bytes, limit: int) -> list[Stored]:
        if addressee == b"bad":
            raise OSError(errno.EIO, "it is broken", "outbox")
        return [Stored(after, addressee, 0.0, b"%d" % limit)]

    def close(self) -> None:
        self.closed = True

    def abandon(self) -> None:
        self.closed = True


@pytest.fixture
def file() -> File:
    return File()


@pytest.fixture
def committer(file: File) -> Iterator[Committer]:
    one = Committer(file)
    yield one
    file.may_write.set()
    one.close()
    assert file.closed


def payloads(write: tuple[list[Stored], list[Any]]) -> list[bytes]:
    return [message.payload for message in write[0]]


def test_what_is_stored_is_written(file: File, committer: Committer) -> None:
    messages = committer.store([b"a", b"b"], b"whom", FOREVER)
    assert messages is not None and file.writes == [(messages, [])]
    assert [message.message_id for message in messages] == [b"prefix.." + bytes((0,) * 7 + (number,))
                                                            for number in (1, 2)]
    assert {message.addressee for message in messages} == {b"whom"}


def test_while_one_is_written_the_others_gather_and_go_together_in_their_order(file: File,
                                                                               committer: Committer) -> None:
    file.may_write.clear()
    calls = [Background(committer.store, [b"first"], None, FOREVER)]
    assert file.writing.wait(TIMEOUT)
    calls += [Background(committer.store, [b"%d" % number], None, FOREVER) for number in range(20)]
    until(lambda: committer.waiting == 20)
    assert all(call.is_alive() for call in calls), "nothing returns before it is there"
    file.may_write.set()
    for call in calls:
        assert len(call.result()) == 1
    assert [len(messages) for messages, _ in file.writes] == [1, 20]
    ids = [message.message_id for messages, _ in file.writes for message in messages]
    assert ids == sorted(ids) and len(set(ids)) == 21


def test_one_that_cannot_be_written_fails_alone(file: File, committer: Committer) -> None:
    file.may_write.clear()
    file.refuses = {b"bad"}
    calls = [Background(committer.store, [b"first"], None, FOREVER)]
    assert file.writing.wait(TIMEOUT)
    calls += [Background(committer.store, [payload], None, FOREVER) for payload in (b"good", b"bad", b"good too")]
    until(lambda: committer.waiting == 3)
    file.may_write.set()
    outcomes = []
    for call in calls:
        try:
            outcomes.append(call.result()[0].payload.decode())
        except OSError as error:
            outcomes.append(str(error))
    assert outcomes == ["first", "good", "[Errno 28] it is full: 'outbox'", "good too"]
    assert sorted(payload for write in file.writes for payload in payloads(write)) == [b"first", b"good", b"good too"]


@pytest.mark.parametrize("error", [ValueError("a mistake"), MemoryError()])
def test_whatever_goes_wrong_nobody_waits_for_ever(file: File, committer: Committer, error: Exception,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(new: Any, gone: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(file, "write", fail)
        with pytest.raises(type(error)):
            committer.store([b"a"], None, Deadline(TIMEOUT))
    assert committer.store([b"b"], None, Deadline(TIMEOUT))


def test_of_several_sent_together_all_are_there_or_none(file: File, committer: Committer) -> None:
    file.refuses = {b"bad"}
    with pytest.raises(OSError, match="it is full"):
        committer.store([b"good", b"bad"], None, FOREVER)
    assert file.writes == []
    assert committer.store([b"good"], None, FOREVER)


def test_at_the_deadline_it_is_not_known(file: File, committer: Committer) -> None:
    file.may_write.clear()
    assert committer.store([b"late"], None, Deadline(0.01)) is None
    file.may_write.set()
    until(lambda: file.writes)
    assert payloads(file.writes[0]) == [b"late"]


def test_what_is_gone_is_taken_out_with_the_next_or_soon(file: File, committer: Committer) -> None:
    committer.gone([(b"1", None)])
    committer.gone([(b"2", b"whom")])
    until(lambda: file.writes)
    gone = [key for _, keys in file.writes for key in keys]
    until(lambda: len([key for _, keys in file.writes for key in keys]) == 2)
    assert set(gone) <= {(b"1", None), (b"2", b"whom")}


def test_what_cannot_be_taken_out_keeps_nobody_from_storing(file: File, committer: Committer,
                                                            caplog: pytest.LogCaptureFixture) -> None:
    file.refuses_gone = True
    file.may_write.clear()
    call = Background(committer.store, [b"first"], None, FOREVER)
    assert file.writing.wait(TIMEOUT)
    committer.gone([(b"1", None)])
    other = Background(committer.store, [b"second"], None, FOREVER)
    until(lambda: committer.waiting)
    file.may_write.set()
    assert call.result() and other.result()
    assert "cannot be taken out of the outbox" in said(caplog)[0].getMessage()


def test_pages_are_loaded_by_its_thread(committer: Committer) -> None:
    got: list[Any] = []
    committer.load(b"whom", b"after", 7, got.append)
    committer.load(b"bad", b"after", 7, got.append)
    until(lambda: len(got) == 2)
    assert got[0] == [Stored(b"after", b"whom", 0.0, b"7")] and isinstance(got[1], OSError)


def test_at_the_end_all_is_written(file: File) -> None:
    committer = Committer(file)
    file.may_write.clear()
    calls = [Background(committer.store, [b"first"], None, FOREVER)]
    assert file.writing.wait(TIMEOUT)
    calls += [Background(committer.store, [b"%d" % number], None, FOREVER) for number in range(4)]
    until(lambda: committer.waiting == 4)
    committer.gone([(b"1", None)])
    closing = Background(committer.close)
    file.may_write.set()
    closing.result()
    assert all(call.result() for call in calls) and [key for _, keys in file.writes for key in keys] == [(b"1", None)]
    assert file.closed
    committer.close()
    with pytest.raises(ClosedError):
        committer.store([b"too late"], None, FOREVER)


def test_many_threads_and_a_real_file(tmp_path: Path) -> None:
    committer = Committer(OutboxFile(tmp_path / "outbox"))

    def send(number: int) -> list[bytes]:
        ids = []
        for index in range(50):
            stored = committer.store([b"%d %d" % (number, index)], None, FOREVER)
            assert stored is not None
            ids += [message.message_id for message in stored]
        return ids

    calls = [Background(send, number) for number in range(8)]
    by_thread = [call.result() for call in calls]
    committer.gone([(message_id, None) for message_id in by_thread[0]])
    committer.close()
    there = StoredMessages(tmp_path / "outbox")
    left = {message.message_id: message.payload for message in there}
    there.close()
    assert len(left) == 350
    for number, ids in enumerate(by_thread[1:], 1):
        assert [left[message_id] for message_id in ids] == [b"%d %d" % (number, index) for index in range(50)]
        assert ids == sorted(ids)
