"""Files that are sent and received: pipes keep timeouts and closing, and short writes lose nothing."""

from __future__ import annotations

import errno
import gc
import io
import os
import pty
import socket
import threading
import tty
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.blocking import until_asleep, until_polling
from support.pairs import TIMEOUT, Background, until, until_waiting
from support.streams import secure

from netmsg import (
    ByteStream, ClosedError, ConnectionBrokenError, SendTimeoutError, connect_tcp, create_tcp_server,
    memory_stream_pair,
)

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


@pytest.mark.parametrize("buffering", [0, -1])
def test_of_a_pipe_no_more_is_taken_than_is_sent(pair: Pair, pipe: tuple[int, int], buffering: int) -> None:
    one, other = pair
    with open(pipe[0], "rb", buffering=buffering) as file:
        os.write(pipe[1], b"header, body, and the rest")
        if isinstance(file, io.BufferedReader):
            assert file.peek()
        assert one.send_file(file, count=6, timeout=TIMEOUT) == 6
        assert one.send_file(file, count=6, timeout=TIMEOUT) == 6
        assert other.receive_exactly(12, timeout=TIMEOUT) == b"header, body"
        os.close(pipe[1])
        assert file.read() == b", and the rest"


@pytest.mark.parametrize("kind", ["pipe", "buffered", "held", "stream"])
def test_where_nothing_can_be_sent_nothing_is_lost(kind: str, pipe: tuple[int, int]) -> None:
    one, other = memory_stream_pair(buffer_size=1000)
    one.send_all(bytes(1000))
    os.write(pipe[1], b"precious")
    os.close(pipe[1])
    source, feeding = memory_stream_pair()
    feeding.send_all(b"precious")
    feeding.send_eof()
    with one, other, source, feeding, open(pipe[0], "rb", buffering=0 if kind == "pipe" else -1) as file:
        if isinstance(file, io.BufferedReader) and kind == "held":
            assert file.peek()
        elif kind == "stream":
            file = source.makefile("rb", buffering=0)
        with pytest.raises(SendTimeoutError) as raised:
            one.send_file(file, timeout=0.01)
        assert raised.value.bytes_sent == 0
        assert other.receive_exactly(1000, timeout=TIMEOUT) == bytes(1000)
        assert one.send_file(file, timeout=TIMEOUT) == 8
        assert other.receive_exactly(8, timeout=TIMEOUT) == b"precious"


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("name", ["/proc/version", "/proc/cpuinfo", "/sys/kernel/mm/transparent_hugepage/enabled"])
@pytest.mark.parametrize("kind", ["tcp", "memory"])
def test_a_file_whose_size_is_not_what_it_claims_is_sent_to_its_end(kind: str, name: str, buffering: int) -> None:
    if not os.path.exists(name):
        pytest.skip("not on this system")
    content = Path(name).read_bytes()
    one, other = connected(kind)
    with one, other, open(name, "rb", buffering=buffering) as file:
        assert one.send_file(file, timeout=TIMEOUT) == len(content)
        assert file.tell() == len(content)
        assert one.send_file(file, 5, timeout=TIMEOUT) == len(content) - 5
        assert one.send_file(file, 5, 10, timeout=TIMEOUT) == 10
        one.send_eof(timeout=TIMEOUT)
        got = b"".join(other.receive_chunks(timeout=TIMEOUT))
        assert len(got) == 2 * len(content) + 5
        assert got.startswith(content) and got.endswith(content[5:15])


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_device_without_a_size_is_sent_as_far_as_is_wanted(pair: Pair, buffering: int) -> None:
    one, other = pair
    with open("/dev/zero", "rb", buffering=buffering) as file:
        assert one.send_file(file, count=100_000, timeout=TIMEOUT) == 100_000
        assert other.receive_exactly(100_000, timeout=TIMEOUT) == bytes(100_000)
    with open("/dev/null", "rb", buffering=buffering) as file:
        assert one.send_file(file, timeout=TIMEOUT) == 0
        with pytest.raises(EOFError):
            one.send_file(file, count=1, timeout=TIMEOUT)
        one.send_all(b"not spoiled", timeout=TIMEOUT)


def test_a_file_that_the_kernel_cannot_copy_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sendfile(*_: object) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    (tmp_path / "file").write_bytes(b"content")
    one, other = connected("tcp")
    monkeypatch.setattr(os, "sendfile", sendfile)
    with one, other, open(tmp_path / "file", "rb") as file:
        assert one.send_file(file, timeout=TIMEOUT) == 7
        assert other.receive_exactly(7, timeout=TIMEOUT) == b"content"


def connected(kind: str) -> Pair:
    if kind == "memory":
        return memory_stream_pair(buffer_size=1 << 20)
    with create_tcp_server(interface="127.0.0.1") as listener:
        return connect_tcp("127.0.0.1", listener.port), listener.accept(timeout=TIMEOUT)


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


class Sink:
    """What has a ``write`` that says nothing, and is no file."""

    def __init__(self) -> None:
        self.content = b""

    def write(self, data: bytes) -> None:
        self.content += data


def test_a_write_that_says_nothing_has_taken_everything(pair: Pair) -> None:
    one, other = pair
    one.send_all(b"content")
    one.send_eof()
    sink: Any = Sink()
    assert other.receive_file(sink, timeout=TIMEOUT) == 7
    assert sink.content == b"content"


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

        def receive() -> int:
            begun.set()
            return other.receive_file(file)

        receiving = Background(receive)
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


class Stopping(io.BytesIO):
    """Keeps whoever writes to it after the first time until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.may_go_on = threading.Event()

    def write(self, data: Any) -> int:
        if self.tell():
            self.begun.set()
            self.may_go_on.wait(TIMEOUT)
        return super().write(data)


def test_a_file_is_received_whole_and_who_comes_second_gets_what_follows_it(pair: Pair) -> None:
    one, other = pair
    content = os.urandom(300_000)
    file = Stopping()
    receiving = Background(other.receive_file, file, len(content))
    one.send_all(content + b"trailer")
    assert file.begun.wait(TIMEOUT)
    second = Background(other.receive_exactly, 7)
    until_asleep(second)
    file.may_go_on.set()
    assert receiving.result() == len(content)
    assert second.result() == b"trailer"
    assert file.getvalue() == content


def test_close_ends_receiving_a_file_of_which_there_is_always_more(pair: Pair) -> None:
    one, other = pair
    file = Stopping()
    one.send_all(bytes(500_000))
    receiving = Background(other.receive_file, file)
    assert file.begun.wait(TIMEOUT)
    closing = Background(other.close, timeout=0)
    until(lambda: other.closed)
    file.may_go_on.set()
    with pytest.raises(ClosedError):
        receiving.result()
    closing.result()
    assert len(file.getvalue()) < 500_000


class Bounded(io.BytesIO):
    """Takes a part of what is too much for it, like a disk that is full."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 100:
            super().write(data[:100 - self.tell()])
            raise OSError(errno.ENOSPC, "no space left")
        return super().write(data)


def test_a_file_that_has_failed_may_be_used_for_something_else(pair: Pair) -> None:
    one, other = pair
    one.send_all(bytes(range(150)))
    file = Bounded()
    with pytest.raises(OSError, match="no space"):
        other.receive_file(file, timeout=TIMEOUT)
    file.seek(40)
    file.write(b"a note")
    assert other.receive(timeout=TIMEOUT) == bytes(range(100, 150))


# makefile

def receive_four_into(stream: ByteStream) -> bytes:
    buffer = bytearray(4)
    assert stream.receive_into(buffer, timeout=TIMEOUT) == 4
    return bytes(buffer)


def test_closing_a_reader_gives_back_what_it_has_read_ahead(pair: Pair) -> None:
    one, other = pair
    one.send_all(b"line\nrest, and ")
    with other.makefile("rb", timeout=TIMEOUT) as file:
        assert file.readline() == b"line\n"
    one.send_all(b"more\n")
    assert other.receive_until(b"\n", timeout=TIMEOUT) == b"rest, and more"


@pytest.mark.parametrize("kind", ["memory", "tcp"])
@pytest.mark.parametrize("how", [
    lambda stream: stream.receive_until(b"\n", timeout=TIMEOUT), lambda stream: stream.receive(4, timeout=TIMEOUT),
    lambda stream: stream.receive_exactly(4, timeout=TIMEOUT), receive_four_into])
def test_who_waits_already_gets_what_a_reader_gives_back(kind: str, how: Any) -> None:
    one, other = connected(kind)
    one.send_all(b"line\nrest\n")
    file = other.makefile("rb", timeout=TIMEOUT)
    assert file.readline() == b"line\n"
    assert file.peek() == b"rest\n"
    waiting = Background(how, other)
    until_asleep(waiting)
    file.close()
    assert waiting.result() == b"rest"
    one.abort()
    other.abort()


@pytest.mark.parametrize("waits", [False, True])
def test_giving_back_costs_no_descriptors(waits: bool) -> None:
    one, other = connected("tcp")

    def give_back(file: Any) -> None:
        if waits:
            until_asleep(threading.main_thread())
        file.close()

    open_before = 0
    for number in range(10):
        one.send_all(b"ab")
        file = other.makefile("rb", timeout=TIMEOUT)
        assert file.peek() == b"ab"
        if waits:
            giving = Background(give_back, file)
            assert other.receive(timeout=TIMEOUT) == b"ab"
            giving.result()
        else:
            file.close()
            assert other.receive(timeout=TIMEOUT) == b"ab"
            with pytest.raises(TimeoutError):
                other.receive(timeout=0)
        if number == 4:
            open_before = descriptors()
    assert descriptors() <= open_before + 1
    one.abort()
    other.abort()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


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


@pytest.mark.parametrize("mode", ["r", "rb", "rw", "rwb", "w", "wb"])
def test_a_file_is_gone_at_once_when_it_is_let_go_of_and_the_stream_lives_on(pair: Pair, mode: str) -> None:
    left, right = pair
    gc.disable()
    try:
        for _ in range(3):
            right.send_all(b"first\nsecond\n")
            file = left.makefile(mode)
            if "r" in mode:
                assert file.readline() in ("first\n", b"first\n")
            alive = weakref.ref(file)
            del file
            assert alive() is None
            assert left.receive_exactly(7 if "r" in mode else 13, timeout=TIMEOUT).endswith(b"second\n")
    finally:
        gc.enable()


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


@pytest.mark.parametrize("held", [0, 100, 50_000])
@pytest.mark.parametrize("buffering", [0, -1, 100_000])
@pytest.mark.parametrize(("kind", "mode"), [("socket", "wb"), ("stream", "wb"), ("stream", "rwb"), ("memory", "wb"),
                                            ("memory", "rwb"), ("stream under TLS", "wb")])
def test_a_file_over_a_stream_that_nobody_reads_holds_nobody_up(pair: Pair, kind: str, mode: str, buffering: int,
                                                                held: int, tls_contexts: Any) -> None:
    one, other = pair
    content = os.urandom(500_000)
    one.send_all(content)
    one.send_eof()
    near, far = small("memory" if kind == "memory" else "tcp")
    if kind == "socket":
        ours = socket.socket(fileno=os.dup(near.fileno()))
        ours.settimeout(None)
        file: Any = ours.makefile("wb", buffering=buffering)
        ours.close()
    else:
        if kind == "stream under TLS":
            secure(near, far, tls_contexts)
        file = near.makefile(mode, buffering=buffering)
    first = os.urandom(held) if buffering else b""
    file.write(first)
    got = b""
    for size in (0, 1, 5000, 30_000):
        got += far.receive_exactly(size, timeout=TIMEOUT)
        receiving = Background(other.receive_file, file, timeout=0.1)
        with pytest.raises(TimeoutError, match="timed out"):
            receiving.result()
    rest = Background(far.receive_exactly, len(first) + len(content) - len(got), timeout=TIMEOUT)
    other.receive_file(file, timeout=TIMEOUT)
    assert got + rest.result() == first + content
    file.close()
    far.abort()
    near.abort()


def small(kind: str) -> Pair:
    """Two ends between which there is little room."""
    if kind == "memory":
        return memory_stream_pair()
    near, far = connected(kind)
    near.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    far.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
    return near, far


@pytest.mark.parametrize("end", [
    lambda other, near: other.close(timeout=0), lambda other, near: other.abort(),
    lambda other, near: near.close(timeout=0), lambda other, near: near.abort()])
@pytest.mark.parametrize("mode", ["wb", "rwb"])
@pytest.mark.parametrize("kind", ["tcp", "memory"])
@pytest.mark.parametrize("held", [0, 100_000])
def test_the_end_of_either_stream_wakes_who_receives_to_a_file_over_the_other(kind: str, mode: str, held: int,
                                                                              end: Any) -> None:
    for receives in ("tcp", "memory"):
        one, other = connected(receives)
        near, far = small(kind)
        file = near.makefile(mode, buffering=200_000)
        file.write(bytes(held))
        receiving = Background(other.receive_file, file)
        endless = Background(send_for_ever, one)
        until_asleep(receiving, endless)
        end(other, near)
        with pytest.raises(ClosedError):
            receiving.result()
        for stream in (one, other, near, far):
            stream.abort()
        with pytest.raises((ClosedError, ConnectionBrokenError)):
            endless.result()
        with suppress(ClosedError):
            file.close()


@pytest.mark.parametrize("end", [lambda near: near.close(timeout=0), lambda near: near.abort()])
@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("kind", ["tcp", "memory"])
@pytest.mark.parametrize("behind_another", [False, True])
def test_nor_is_more_waited_for_once_the_stream_of_the_file_is_closed(pair: Pair, kind: str, buffering: int, end: Any,
                                                                      behind_another: bool) -> None:
    one, other = pair
    near, far = small(kind)
    file = near.makefile("wb", buffering=buffering)
    first = None
    if behind_another:
        first = Background(other.receive_exactly, 9)
        until_asleep(first)
    receiving = Background(other.receive_file, file)
    until_asleep(receiving)
    if first is None:
        one.send_all(b"something")
        assert far.receive_exactly(9, timeout=TIMEOUT) == b"something"
        until_asleep(receiving)
    end(near)
    with pytest.raises(ClosedError):
        receiving.result()
    one.send_all(b"and more.")
    assert (other.receive_exactly(9, timeout=TIMEOUT) if first is None else first.result()) == b"and more."
    with pytest.raises(ClosedError):
        other.receive_file(file, timeout=TIMEOUT)
    far.abort()
    with suppress(ClosedError):
        file.close()


def test_close_wakes_who_waits_for_its_turn_to_write_to_a_file_over_another_stream(pair: Pair) -> None:
    one, other = pair
    one.send_all(b"content")
    near, far = small("tcp")
    sending = Background(near.send_all, bytes(10_000_000))
    until_asleep(sending)
    receiving = Background(other.receive_file, near.makefile("wb"))
    until_asleep(receiving)
    other.close(timeout=0)
    with pytest.raises(ClosedError):
        receiving.result()
    near.abort()
    with pytest.raises(ClosedError):
        sending.result()
    far.abort()


def test_a_file_has_its_own_timeout_when_it_is_received_to(pair: Pair) -> None:
    one, other = pair
    one.send_all(bytes(500_000))
    near, far = small("tcp")
    with pytest.raises(TimeoutError):
        other.receive_file(near.makefile("wb", timeout=0.01))
    near.abort()
    far.abort()


def send_for_ever(stream: ByteStream) -> None:
    while True:
        stream.send_all(bytes(100_000))


# Files over streams that are sent

Reader = tuple[str, int]
READERS: list[Reader] = [("rb", 0), ("rb", -1), ("rwb", 0), ("rwb", -1)]


@pytest.mark.parametrize(("mode", "buffering"), READERS)
@pytest.mark.parametrize("kind", ["tcp", "memory"])
def test_a_file_over_a_stream_on_which_nothing_comes_keeps_both_timeouts(pair: Pair, kind: str, mode: str,
                                                                         buffering: int) -> None:
    one, other = pair
    far, near = connected(kind)
    with pytest.raises(SendTimeoutError):
        one.send_file(near.makefile(mode, buffering=buffering), timeout=0.01)
    with pytest.raises(TimeoutError):
        one.send_file(near.makefile(mode, buffering=buffering, timeout=0.01))
    one.send_all(b"fit for use", timeout=TIMEOUT)
    assert other.receive(timeout=TIMEOUT) == b"fit for use"
    near.abort()
    far.abort()


@pytest.mark.parametrize(("mode", "buffering"), READERS)
@pytest.mark.parametrize("kind", ["tcp", "memory"])
def test_of_a_file_over_a_stream_no_more_is_taken_than_is_sent(pair: Pair, kind: str, mode: str,
                                                               buffering: int) -> None:
    one, other = pair
    far, near = connected(kind)
    far.send_all(b"12\n345")
    file = near.makefile(mode, buffering=buffering)
    assert file.read(1) == b"1"
    assert one.send_file(file, count=3, timeout=TIMEOUT) == 3
    far.send_all(b"6")
    far.send_eof()
    assert file.read(1) == b"4"
    assert one.send_file(file, timeout=TIMEOUT) == 2
    assert other.receive_exactly(5, timeout=TIMEOUT) == b"2\n356"
    near.abort()
    far.abort()


@pytest.mark.parametrize("end", [
    lambda one, near: one.close(timeout=0), lambda one, near: one.abort(),
    lambda one, near: near.close(timeout=0), lambda one, near: near.abort()])
@pytest.mark.parametrize("mode", ["rb", "rwb"])
@pytest.mark.parametrize("kind", ["tcp", "memory"])
def test_the_end_of_either_stream_wakes_who_sends_a_file_over_the_other(pair: Pair, kind: str, mode: str,
                                                                        end: Any) -> None:
    one, _ = pair
    far, near = connected(kind)
    sending = Background(one.send_file, near.makefile(mode))
    until_asleep(sending)
    end(one, near)
    with pytest.raises(ClosedError):
        sending.result()
    near.abort()
    far.abort()


@pytest.mark.parametrize("buffering", [0, -1, 100_000])
@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
def test_what_nobody_reads_holds_nobody_up(pair: Pair, kind: str, buffering: int) -> None:
    """And at no moment, however much room there is: a page, a line, or a byte."""
    one, other = pair
    content = b"some\n" * 100_000
    one.send_all(content)
    reading, writing = pipe_of(kind)
    got = b""
    with open(writing, "wb", buffering=buffering) as file, open(reading, "rb", buffering=0) as reader:
        for size in (1, 100, 4096, 5000, 10_000):
            receiving = Background(other.receive_file, file, timeout=0.1)
            with pytest.raises(TimeoutError, match="timed out"):
                receiving.result()
            got += reader.read(size)
        receiving = Background(other.receive_file, file)
        until_polling(receiving)
        other.close(timeout=0)
        with pytest.raises(ClosedError):
            receiving.result()
        assert os.get_blocking(writing)
        rest = Background(all_of, reader)
        file.close()
        got += rest.result()
    assert len(got) > 10_000
    assert content.startswith(got)


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
def test_what_a_buffered_writer_held_comes_first_and_nothing_is_held_back(pair: Pair, kind: str) -> None:
    one, other = pair
    content = os.urandom(300_000)
    one.send_all(content)
    reading, writing = pipe_of(kind)
    held = os.urandom(100_000)
    with open(writing, "wb", buffering=200_000) as file, open(reading, "rb", buffering=0) as reader:
        file.write(held)
        receiving = Background(other.receive_file, file, len(content), timeout=TIMEOUT)
        reads = Background(so_many_of, reader, len(held) + len(content))
        assert receiving.result() == len(content)
        assert reads.result() == held + content


def pipe_of(kind: str) -> tuple[int, int]:
    if kind == "pipe":
        return os.pipe()
    if kind == "terminal":
        master, slave = pty.openpty()
        tty.setraw(slave)
        return master, slave
    one, other = socket.socketpair()
    return one.detach(), other.detach()


def so_many_of(reader: io.FileIO, size: int) -> bytes:
    got = b""
    while len(got) < size:
        got += reader.read(65_536)
    return got


def all_of(reader: io.FileIO) -> bytes:
    """To the end, which is an error where it is a terminal's."""
    pieces = []
    try:
        while piece := reader.read(65_536):
            pieces.append(piece)
    except OSError:
        pass
    return b"".join(pieces)
