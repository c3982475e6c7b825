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
from netmsg.storage.committing import CommitQueue, Committer
from netmsg.storage.outbox import Change, OutboxFile, Stored, StoredMessages


class File:
    """Writes when it may."""

    def __init__(self) -> None:
        self.may_write = threading.Event()
        self.may_write.set()
        self.writing = threading.Event()
        self.writes: list[list[str]] = []
        self.refuses: dict[str, Exception] = {}
        self.closed = False

    def write(self, changes: Sequence[str]) -> None:
        self.writing.set()
        assert self.may_write.wait(TIMEOUT)
        for change in changes:
            if change in self.refuses:
                raise self.refuses[change]
        self.writes.append([*changes])

    def close(self) -> None:
        self.closed = True

    def abandon(self) -> None:
        self.closed = True


@pytest.fixture
def file() -> File:
    return File()


class Told(list[Any]):
    """What has been decided: of each change, in this order, what has gone wrong, if anything has."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def of(self, changes: Sequence[str], error: Exception | None) -> None:
        self.calls += 1
        self.extend((change, error) for change in changes)


@pytest.fixture
def committer(file: File) -> Iterator[Committer[str]]:
    one = Committer(file)
    one.start()
    yield one
    file.may_write.set()
    one.close()
    one.join(TIMEOUT)
    assert file.closed


# The queue, by hand

def queue_of(file: File) -> CommitQueue[str]:
    return CommitQueue(file, lambda: None)


def test_what_has_gathered_is_written_together_and_in_order(file: File) -> None:
    queue, told = queue_of(file), Told()
    assert not queue.anything
    for change in ("a", "b", "c"):
        queue.submit(change, told.of, change)
    assert queue.hurries and queue.waiting == 3
    queue.step()
    assert file.writes == [["a", "b", "c"]] and told == [("a", None), ("b", None), ("c", None)] and told.calls == 1
    assert not queue.anything


def test_what_is_in_no_hurry_goes_with_what_is(file: File) -> None:
    queue, told = queue_of(file), Told()
    queue.submit_later("later", told.of, "later")
    assert queue.anything and not queue.hurries
    queue.submit("now", told.of, "now")
    assert queue.hurries
    queue.step()
    assert file.writes == [["now", "later"]]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "it is full"), ValueError("a mistake"), MemoryError()])
def test_one_that_cannot_be_written_fails_alone(file: File, error: Exception) -> None:
    queue, told = queue_of(file), Told()
    file.refuses["b"] = error
    for change in ("a", "b", "c"):
        queue.submit(change, told.of, change)
    queue.step()
    assert file.writes == [["a"], ["c"]] and told == [("a", None), ("b", error), ("c", None)]


def test_one_who_raises_when_told_keeps_nobody_from_being_told(file: File, caplog: pytest.LogCaptureFixture) -> None:
    queue, told = queue_of(file), Told()

    def fail(*arguments: Any) -> None:
        raise MemoryError

    queue.submit("a", fail, "a")
    queue.submit("b", told.of, "b")
    queue.ask(lambda: None, fail)
    queue.step()
    assert file.writes == [["a", "b"]] and told == [("b", None)]
    assert len(said(caplog)) == 2


def test_who_asks_is_answered_behind_what_was_submitted_before(file: File) -> None:
    queue, told = queue_of(file), Told()
    answers: list[Any] = []
    queue.submit("a", told.of, "a")
    queue.submit_later("b", told.of, "b")
    queue.ask(lambda: [*file.writes], answers.append)

    def fail() -> None:
        raise OSError(errno.EIO, "it is broken")

    queue.ask(fail, answers.append)
    queue.step()
    assert answers[0] == [["a", "b"]] and isinstance(answers[1], OSError)


def test_at_the_end_all_is_done_that_there_is_and_nothing_more(file: File) -> None:
    queue, told = queue_of(file), Told()

    def and_one_more(changes: Sequence[str], error: Exception | None) -> None:
        if not file.writes[1:]:
            queue.submit("b", and_one_more, "b")

    queue.submit("a", and_one_more, "a")
    queue.close()
    queue.step()
    assert not queue.over and queue.hurries
    queue.step()
    assert queue.over and file.writes == [["a"], ["b"]]
    for add in (queue.submit, queue.submit_later):
        with pytest.raises(ClosedError):
            add("c", told.of, "c")
    with pytest.raises(ClosedError):
        queue.ask(lambda: None, print)


# Its thread

def test_while_one_is_written_the_others_gather(file: File, committer: Committer[str]) -> None:
    told = Told()
    file.may_write.clear()
    committer.submit("first", told.of, "first")
    assert file.writing.wait(TIMEOUT)
    for number in range(20):
        committer.submit(str(number), told.of, str(number))
    assert told == []
    file.may_write.set()
    until(lambda: len(told) == 21)
    assert file.writes == [["first"], [str(number) for number in range(20)]]


def test_those_who_come_back_as_soon_as_they_are_told_are_waited_for(file: File, committer: Committer[str]) -> None:
    told = Told()

    def send(number: int) -> None:
        for index in range(20):
            decided = threading.Event()
            committer.submit(f"{number} {index}", set_all, decided)
            assert decided.wait(TIMEOUT)

    for call in [Background(send, number) for number in range(4)]:
        call.result()
    committer.submit("alone", told.of, "alone")
    until(lambda: told)
    assert sum(map(len, file.writes)) == 81


def test_what_is_in_no_hurry_is_written_soon(file: File, committer: Committer[str]) -> None:
    told = Told()
    committer.submit_later("a", told.of, "a")
    until(lambda: told)
    assert file.writes == [["a"]]


def test_its_end_may_be_waited_for(file: File) -> None:
    committer, told = Committer(file), Told()
    committer.start()
    file.may_write.clear()
    committer.submit("first", told.of, "first")
    committer.submit_later("second", told.of, "second")
    committer.close()
    committer.join(0.01)
    assert not file.closed
    file.may_write.set()
    committer.join(TIMEOUT)
    assert file.closed and [change for change, _ in told] == ["first", "second"]
    committer.close()
    committer.join()


def set_all(events: Sequence[threading.Event], error: Exception | None) -> None:
    for event in events:
        event.set()


def test_many_threads_and_a_real_file(tmp_path: Path) -> None:
    committer = Committer(OutboxFile(tmp_path / "outbox"))
    committer.start()

    def send(thread: int) -> None:
        for index in range(50):
            decided = threading.Event()
            message = Stored(b"%08d%08d" % (thread, index), None, 0.0, b"%d %d" % (thread, index))
            committer.submit(Change([message], ()), set_all, decided)
            assert decided.wait(TIMEOUT)

    calls = [Background(send, thread) for thread in range(8)]
    for call in calls:
        call.result()
    gone = Change((), [(b"%08d%08d" % (0, index), None) for index in range(50)])
    committer.submit_later(gone, set_all, threading.Event())
    committer.close()
    committer.join(TIMEOUT)
    there = StoredMessages(tmp_path / "outbox")
    left = [message.payload for message in there]
    there.close()
    assert left == [b"%d %d" % (thread, index) for thread in range(1, 8) for index in range(50)]
