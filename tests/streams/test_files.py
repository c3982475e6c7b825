"""Files that are sent and received: pipes keep timeouts and closing, and short writes lose nothing."""

from __future__ import annotations

import gc
import io
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, until_waiting

from netmsg import ByteStream, ClosedError, ConnectionBrokenError, SendTimeoutError, memory_stream_pair

Pair = tuple[ByteStream, ByteStream]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = memory_stream_pair(buffer_size=1 << 20)
    yield one, other
    one.abort()
    other.abort()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        try:
            os.close(end)
        except OSError:
            pass  # the test did


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_pipe_on_which_nothing_comes_keeps_the_timeout(pair: Pair, pipe: tuple[int, int], buffering: int) -> None:
    one, other = pair
    with open(pipe[0], "rb", buffering=buffering) as file:
        with pytest.raises(SendTimeoutError) as raised:
            one.send_file(file, timeout=0.01)
        assert raised.value.bytes_sent == 0
        os.write(pipe[1], b"some")
        with pytest.raises(SendTimeoutError) as raised:
            one.send_file(file, timeout=0.01)
        assert raised.value.bytes_sent == 4
        with pytest.raises(ConnectionBrokenError):
            one.send_all(b"spliced")
        assert other.receive(timeout=TIMEOUT) == b"some"


def test_close_wakes_who_sends_a_pipe(pair: Pair, pipe: tuple[int, int]) -> None:
    one, other = pair
    with open(pipe[0], "rb") as file:
        sending = Background(one.send_file, file)
        os.write(pipe[1], b"some")
        assert other.receive_exactly(4, timeout=TIMEOUT) == b"some"
        one.close(timeout=0)
        with pytest.raises(ClosedError):
            sending.result()


def test_what_comes_on_a_pipe_is_sent_as_it_comes(pair: Pair, pipe: tuple[int, int]) -> None:
    one, other = pair
    with open(pipe[0], "rb") as file:
        sending = Background(one.send_file, file)
        for _ in range(3):
            os.write(pipe[1], b"some")
            assert other.receive_exactly(4, timeout=TIMEOUT) == b"some"
        os.close(pipe[1])
        assert sending.result() == 12


def test_what_a_buffered_reader_holds_is_sent_without_waiting_for_more(pair: Pair, pipe: tuple[int, int]) -> None:
    one, other = pair
    with open(pipe[0], "rb") as file:
        os.write(pipe[1], b"header\nbody")
        assert file.readline() == b"header\n"
        sending = Background(one.send_file, file)
        assert other.receive_exactly(4, timeout=TIMEOUT) == b"body"
        assert os.get_blocking(pipe[0])
        os.write(pipe[1], b", more")
        assert other.receive_exactly(6, timeout=TIMEOUT) == b", more"
        os.close(pipe[1])
        assert sending.result() == 10


def test_nothing_yet_in_a_non_blocking_pipe_is_not_its_end(pair: Pair, pipe: tuple[int, int]) -> None:
    one, other = pair
    os.set_blocking(pipe[0], False)
    with open(pipe[0], "rb", buffering=0) as file:
        os.write(pipe[1], b"first")
        sending = Background(one.send_file, file)
        assert other.receive_exactly(5, timeout=TIMEOUT) == b"first"
        os.write(pipe[1], b"second")
        assert other.receive_exactly(6, timeout=TIMEOUT) == b"second"
        os.close(pipe[1])
        assert sending.result() == 11


class Reluctant(io.RawIOBase):
    """Takes seven bytes at a time, and now and then none."""

    def __init__(self, answers: list[int | None]) -> None:
        self.content = b""
        self.answers = answers

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> Any:
        count = self.answers.pop(0) if self.answers else 7
        self.content += bytes(data)[:count or 0]
        return None if count is None else min(count, len(data))


@pytest.mark.parametrize("count", [None, 100])
def test_a_file_that_takes_less_than_it_is_given_has_everything_in_the_end(pair: Pair, count: int | None) -> None:
    one, other = pair
    one.send_all(bytes(range(100)))
    one.send_eof()
    file = Reluctant([])
    assert other.receive_file(file, count, timeout=TIMEOUT) == 100  # type: ignore[arg-type]
    assert file.content == bytes(range(100))


def test_what_a_file_does_not_take_stays_in_the_stream(pair: Pair) -> None:
    one, other = pair
    one.send_all(bytes(range(100)))
    file = Reluctant([7, 3, None])
    with pytest.raises(BlockingIOError):
        other.receive_file(file, timeout=TIMEOUT)  # type: ignore[arg-type]
    assert file.content == bytes(range(10))
    assert other.receive(timeout=TIMEOUT) == bytes(range(10, 100))


def test_an_error_of_the_file_is_told_and_spoils_nothing(pair: Pair) -> None:
    one, other = pair
    one.send_all(b"content")
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space"):
        other.receive_file(full, timeout=TIMEOUT)
    assert other.receive(timeout=TIMEOUT) == b"content"


def test_a_full_non_blocking_pipe_is_waited_for(pair: Pair, pipe: tuple[int, int]) -> None:
    one, other = pair
    os.set_blocking(pipe[1], False)
    content = os.urandom(300_000)
    one.send_all(content)
    one.send_eof()
    with open(pipe[1], "wb", buffering=0) as file:
        with pytest.raises(TimeoutError):
            other.receive_file(file, timeout=0.01)
        receiving = Background(other.receive_file, file)
        got = b""
        while len(got) < len(content):
            got += os.read(pipe[0], 65_536)
        assert got == content
        assert 0 < receiving.result() < len(content)


def test_close_wakes_who_receives_to_a_pipe(pair: Pair, pipe: tuple[int, int]) -> None:
    one, other = pair
    os.set_blocking(pipe[1], False)
    one.send_all(bytes(300_000))
    with open(pipe[1], "wb", buffering=0) as file:
        begun = threading.Event()
        receiving = Background(lambda: (begun.set(), other.receive_file(file)))
        assert begun.wait(TIMEOUT)
        os.read(pipe[0], 1)
        other.close(timeout=0)
        with pytest.raises(ClosedError):
            receiving.result()


class Stuck(io.RawIOBase):
    """Keeps whoever reads or writes it until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_go_on = threading.Event()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.begun.set()
        self.may_go_on.wait(TIMEOUT)
        return 0

    def write(self, data: Any) -> int:
        self.begun.set()
        self.may_go_on.wait(TIMEOUT)
        return len(data)


@pytest.mark.parametrize("how", ["send", "receive"])
def test_close_wakes_who_waits_behind_a_call_that_is_busy_with_a_file(pair: Pair, how: str) -> None:
    one, other = pair
    one.send_all(b"something")
    file = Stuck()
    busy = Background(other.send_file if how == "send" else other.receive_file, file)
    assert file.begun.wait(TIMEOUT)
    waiting = [Background(other.send_all, b"more") if how == "send" else Background(other.receive) for _ in range(2)]
    for call in waiting:
        until_waiting(call)
    closing = Background(other.close, timeout=0)
    for call in waiting:
        with pytest.raises(ClosedError):
            call.result()
    closing.result()
    assert busy.is_alive()
    file.may_go_on.set()
    busy.join(TIMEOUT)
    assert not busy.is_alive()


# makefile

def test_closing_a_reader_gives_back_what_it_has_read_ahead(pair: Pair) -> None:
    one, other = pair
    one.send_all(b"line\nrest, and ")
    with other.makefile("rb", timeout=TIMEOUT) as file:
        assert file.readline() == b"line\n"
    one.send_all(b"more\n")
    assert other.receive_until(b"\n", timeout=TIMEOUT) == b"rest, and more"


def test_a_reader_that_goes_away_gives_back_what_it_has_read_ahead(pair: Pair) -> None:
    one, other = pair
    one.send_all(b"".join(b"%d\n" % number for number in range(5000)))
    one.send_eof()
    for number in range(5000):
        assert other.makefile("rb", timeout=TIMEOUT).readline() == b"%d\n" % number
    assert other.receive(timeout=TIMEOUT) == b""


@pytest.mark.parametrize("take", [
    lambda file: file.read(7), lambda file: file.read1(7), lambda file: file.readline(), lambda file: file.peek(7),
    lambda file: file.readinto(bytearray(7)), lambda file: file.read(40), lambda file: next(file), lambda file: b""])
def test_what_a_reader_has_not_handed_over_is_given_back_however_it_was_read(pair: Pair, take: Any) -> None:
    one, other = pair
    content = b"".join(b"%03d\n" % number for number in range(30))
    got = b""
    one.send_all(content[:50])
    with other.makefile("rb", buffering=16, timeout=TIMEOUT) as file:
        got += file.read(3)
        taken = take(file)
        got += content[len(got):file.tell()]
        assert not isinstance(taken, bytes) or taken in content
    one.send_all(content[50:])
    one.send_eof()
    assert got + b"".join(other) == content


def test_a_stream_with_a_reader_is_gone_at_once_when_it_is_let_go_of() -> None:
    one, other = memory_stream_pair()
    one.send_all(b"line\nrest")
    file = other.makefile("rb", timeout=TIMEOUT)
    assert file.readline() == b"line\n"
    gone = weakref.ref(other)
    one.abort()
    other.abort()
    collecting = gc.isenabled()
    gc.disable()
    try:
        del other, file
        assert gone() is None
    finally:
        if collecting:
            gc.enable()


@pytest.mark.parametrize("buffering", [0, -1])
def test_nothing_is_read_where_nothing_is_asked_for(pair: Pair, buffering: int) -> None:
    file = pair[0].makefile("rb", buffering=buffering)
    assert file.read(0) == b""
    assert file.readinto(bytearray(0)) == 0


def test_a_timeout_that_makes_no_sense_is_refused_first(pair: Pair) -> None:
    pair[0].close()
    with pytest.raises(ValueError, match="timeout"):
        pair[0].makefile(timeout=-1)
    with pytest.raises(ClosedError):
        pair[0].makefile()
