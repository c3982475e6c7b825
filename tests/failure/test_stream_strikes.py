"""One interrupt at every place where it can strike inside of a stream's call: nothing is lost, doubled, reordered or
spliced, and nobody waits for ever. The deterministic half of what the storms try by chance."""

from __future__ import annotations

import io
import os
import socket
import ssl
import tempfile
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background
from support.streams import secure
from support.strikes import Strike, Struck, strike_everywhere

from netmsg import (
    ByteStream, ClosedError, ConnectionBrokenError, EndOfStream, IncompleteReadError, SendTimeoutError, SocketStream,
    TLSHandshakeError, memory_stream_pair,
)

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
LINES = [b"line %04d" % number for number in range(12)]
DELIMITER = b"\n"


def socket_pair() -> tuple[SocketStream, SocketStream]:
    one, other = socket.socketpair()
    return SocketStream.from_socket(one), SocketStream.from_socket(other)


PAIRS: dict[str, Callable[[], tuple[ByteStream, ByteStream]]] = {"memory": memory_stream_pair, "unix": socket_pair}


@pytest.fixture(params=PAIRS)
def pairs(request: pytest.FixtureRequest) -> Callable[[], tuple[ByteStream, ByteStream]]:
    return PAIRS[request.param]


def receive_some(stream: ByteStream) -> bytes:
    return stream.receive(7, timeout=TIMEOUT)


def receive_ten(stream: ByteStream) -> bytes:
    return stream.receive_exactly(10, timeout=TIMEOUT)


def receive_line(stream: ByteStream) -> bytes:
    return stream.receive_until(DELIMITER) + DELIMITER


def receive_line_the_long_way(stream: ByteStream) -> bytes:
    return stream.receive_until(bytes(bytearray(DELIMITER)), timeout=TIMEOUT) + DELIMITER


def receive_into(stream: ByteStream) -> bytes:
    buffer = bytearray(11)
    return bytes(buffer[:stream.receive_into(buffer, timeout=TIMEOUT)])


@pytest.mark.parametrize("how", [receive_some, receive_ten, receive_line, receive_line_the_long_way, receive_into])
def test_an_interrupted_receive_loses_nothing(pairs: Any, how: Callable[[ByteStream], bytes]) -> None:
    content = b"".join(line + DELIMITER for line in LINES)

    def trial(strike: Strike) -> None:
        one, other = pairs()
        got = b""
        for piece, enough in ((content[:40], 25), (content[40:], len(content))):
            one.send_all(piece)
            while len(got) < enough:
                try:
                    with strike:
                        got += how(other)
                except Struck:
                    pass
        one.abort()
        other.abort()
        assert got == content

    assert strike_everywhere(trial) > 20


@pytest.mark.parametrize("how", [
    lambda stream: stream.receive(timeout=0), lambda stream: stream.receive_exactly(9, timeout=0),
    lambda stream: stream.receive_until(b"\n", timeout=0), lambda stream: stream.receive_into(bytearray(9), timeout=0)])
def test_an_interrupt_beside_a_timeout_leaves_no_turn_behind(pairs: Any, how: Callable[[ByteStream], object]) -> None:
    def trial(strike: Strike) -> None:
        one, other = pairs()
        with pytest.raises((TimeoutError, Struck)), strike:
            how(other)
        one.send_all(b"then\n")
        assert Background(other.receive_until, b"\n").result() == b"then"
        one.abort()
        other.abort()

    assert strike_everywhere(trial) > 5


def test_who_waits_behind_an_interrupted_receive_has_the_next_turn(pairs: Any) -> None:
    def trial(strike: Strike) -> None:
        one, other = pairs()
        receiving = [Background(other.receive_exactly, 1) for _ in range(2)]
        with pytest.raises((TimeoutError, Struck)), strike:
            other.receive(timeout=0.002)
        one.send_all(b"xy")
        assert sorted(thread.result() for thread in receiving) == [b"x", b"y"]
        one.abort()
        other.abort()

    assert strike_everywhere(trial) > 5


@pytest.mark.parametrize("mode", ["rb", "r"])
def test_an_interrupted_reader_hinders_no_other(pairs: Any, mode: str) -> None:
    def trial(strike: Strike) -> None:
        one, other = pairs()
        one.send_all(b"line\n")
        file = other.makefile(mode, timeout=TIMEOUT)
        try:
            with strike:
                file.readline()
                file.close()
        except Struck:
            pass
        one.send_all(b"then\n")
        assert Background(other.makefile(mode, timeout=TIMEOUT).readline).result()
        one.abort()
        other.abort()

    assert strike_everywhere(trial) > 5


@pytest.mark.parametrize("how, error", [
    (lambda stream: stream.receive_exactly(100, timeout=TIMEOUT), IncompleteReadError),
    (lambda stream: stream.receive_until(b"\n", timeout=TIMEOUT), IncompleteReadError)])
def test_what_came_before_an_early_end_stays(pairs: Any, how: Callable[[ByteStream], object],
                                             error: type[Exception]) -> None:
    def trial(strike: Strike) -> None:
        one, other = pairs()
        one.send_all(b"partial")
        one.send_eof()
        with pytest.raises((error, Struck)), strike:
            how(other)
        assert other.receive(timeout=TIMEOUT) == b"partial"
        with pytest.raises(EndOfStream):
            other.receive_exactly(1, timeout=TIMEOUT)
        one.abort()
        other.abort()

    assert strike_everywhere(trial) > 5


def test_a_reset_that_was_told_to_an_interrupted_call_is_no_clean_end(pairs: Any) -> None:
    for direction in ("receive", "send"):
        def trial(strike: Strike) -> None:
            if pairs is memory_stream_pair:
                one, other = memory_stream_pair()
            else:
                one, other = tcp_pair()
            one.abort()
            with pytest.raises((ConnectionBrokenError, Struck)), strike:
                while True:
                    other.send_all(b"x", timeout=TIMEOUT) if direction == "send" else other.receive(timeout=TIMEOUT)
            with pytest.raises(ConnectionBrokenError):
                other.receive(timeout=TIMEOUT)
            other.abort()

        assert strike_everywhere(trial) > 5


def tcp_pair() -> tuple[ByteStream, ByteStream]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return SocketStream.from_socket(one), SocketStream.from_socket(listener.accept()[0])


@pytest.mark.parametrize("timeout", [0.0, 0.005])
@pytest.mark.parametrize("kind", ["bytes", "file", "disk"])
def test_after_a_send_that_was_cut_nothing_is_spliced(pairs: Any, kind: str, timeout: float) -> None:
    content = b"A" * 1_000_000

    def trial(strike: Strike) -> None:
        one, other = pairs()
        with tempfile.TemporaryFile() as disk:
            disk.write(content)
            disk.seek(0)
            with pytest.raises((SendTimeoutError, Struck)), strike:
                if kind == "bytes":
                    one.send_all(content, timeout=timeout)
                else:
                    one.send_file(disk if kind == "disk" else io.BytesIO(content), timeout=timeout)
        receiving = Background(lambda: b"".join(other))
        try:
            one.send_all(b"SPLICED", timeout=TIMEOUT)
        except ConnectionBrokenError:
            one.close()
            assert set(receiving.result()) == {ord("A")}
        else:
            one.send_eof()
            assert receiving.result() in (b"SPLICED", content + b"SPLICED")
        one.abort()
        other.abort()

    assert strike_everywhere(trial) > 5


def test_a_whole_send_is_whole_though_it_was_interrupted_afterwards() -> None:
    def trial(strike: Strike) -> None:
        one, other = socket_pair()
        try:
            with strike:
                one.send_all(b"first ")
        except Struck:
            pass
        one.send_all(b"then")
        one.send_eof()
        assert b"".join(other) in (b"then", b"first then")
        one.abort()
        other.abort()

    assert strike_everywhere(trial) > 2


def test_send_eof_again_after_an_interrupt_is_seen(pairs: Any) -> None:
    def trial(strike: Strike) -> None:
        one, other = pairs()
        try:
            with strike:
                one.send_eof(timeout=TIMEOUT)
        except Struck:
            pass
        one.send_eof(timeout=TIMEOUT)
        assert other.receive(timeout=TIMEOUT) == b""
        one.abort()
        other.abort()

    assert strike_everywhere(trial) > 2


@pytest.mark.parametrize("make", [io.BytesIO, tempfile.TemporaryFile, lambda: tempfile.SpooledTemporaryFile(100),
                                  lambda: tempfile.TemporaryFile(buffering=0)])
def test_receiving_a_file_goes_on_where_it_was_interrupted(pairs: Any, make: Callable[[], Any]) -> None:
    content = bytes(range(256)) * 4

    def trial(strike: Strike) -> None:
        one, other = pairs()
        with make() as file:
            for begin in range(0, 1024, 256):
                one.send_all(content[begin:begin + 256])
            one.send_eof()
            try:
                with strike:
                    other.receive_file(file, timeout=TIMEOUT)
            except Struck:
                other.receive_file(file, timeout=TIMEOUT)
            file.seek(0)
            assert file.read() == content
        one.abort()
        other.abort()

    assert strike_everywhere(trial) > 5


@pytest.mark.parametrize("buffering", [0, -1])
def test_receiving_to_a_pipe_goes_on_where_it_was_interrupted(pairs: Any, buffering: int) -> None:
    content = bytes(range(256)) * 40

    def trial(strike: Strike) -> None:
        one, other = pairs()
        reading, writing = os.pipe()
        with open(reading, "rb") as reader:
            with open(writing, "wb", buffering=buffering) as file:
                file.write(b"before ")
                one.send_all(content)
                one.send_eof()
                try:
                    with strike:
                        other.receive_file(file, timeout=TIMEOUT)
                except Struck:
                    other.receive_file(file, timeout=TIMEOUT)
                assert os.get_blocking(writing)
            assert reader.read() == b"before " + content
        one.abort()
        other.abort()

    assert strike_everywhere(trial) > 5


@pytest.mark.parametrize("buffering", [0, -1])
@pytest.mark.parametrize("kind", ["pipe", "stream"])
def test_sending_what_cannot_seek_goes_on_or_is_refused_and_leaves_no_hole(pairs: Any, kind: str,
                                                                           buffering: int) -> None:
    content = bytes(range(256)) * 8

    def trial(strike: Strike) -> None:
        one, other = pairs()
        source, target = memory_stream_pair()
        if kind == "pipe":
            reading, writing = os.pipe()
            os.write(writing, content)
            os.close(writing)
            file = open(reading, "rb", buffering=buffering)
        else:
            target.send_all(content)
            target.send_eof()
            file = source.makefile("rb", buffering=buffering)
        with file, source, target:
            head = file.read(10)
            refused = False
            try:
                with strike:
                    one.send_file(file, timeout=TIMEOUT)
            except Struck:
                try:
                    one.send_file(file, timeout=TIMEOUT)
                except ConnectionBrokenError:
                    refused = True
        got: list[bytes] = []
        reading_all = Background(got.extend, other.receive_chunks(timeout=TIMEOUT))
        one.close(timeout=TIMEOUT)
        try:
            reading_all.result()
        except ConnectionBrokenError:
            assert refused
        received = head + b"".join(got)
        assert content.startswith(received) if refused else received == content
        other.abort()

    assert strike_everywhere(trial) > 20


@pytest.mark.parametrize("mode", ["wb", "rwb"])
def test_what_an_interrupted_flush_has_sent_is_not_sent_again(pairs: Any, mode: str) -> None:
    def trial(strike: Strike) -> None:
        one, other = pairs()
        file = one.makefile(mode, timeout=TIMEOUT)
        file.write(b"first ")
        try:
            with strike:
                file.flush()
        except Struck:
            pass
        file.write(b"second")
        try:
            file.flush()
        except ConnectionBrokenError:  # the first was cut
            with pytest.raises(ConnectionBrokenError):
                file.close()
            one.close()
            assert b"".join(other) in (b"", b"first ")
        else:
            one.send_eof()
            assert b"".join(other) == b"first second"
        one.abort()
        other.abort()

    assert strike_everywhere(trial) > 5


class Twice(Strike):
    """And once more so many places later, where that is reached."""

    def __init__(self, number: int, later: int) -> None:
        super().__init__(number)
        self.later = later

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        try:
            super()._profile(frame, event, argument)
        except Struck:
            self.left, self.later = self.later, 0
            raise


@pytest.mark.parametrize(("mode", "buffering"), [("wb", 0), ("wb", -1), ("rwb", -1)])
@pytest.mark.parametrize("over", ["tcp", "memory", "tls"])
def test_receiving_to_a_file_over_another_stream_goes_on_where_it_was_interrupted(over: str, mode: str, buffering: int,
                                                                                  tls_contexts: Contexts) -> None:
    assert strike_everywhere(lambda strike: receive_to_another(over, mode, buffering, tls_contexts, strike)) > 20


@pytest.mark.parametrize("later", range(1, 8))
@pytest.mark.parametrize("buffering", [0, -1])
def test_and_where_it_was_interrupted_while_it_saw_to_that(later: int, buffering: int, tls_contexts: Contexts) -> None:
    number = 0
    while True:
        number += 1
        strike = Twice(number, later)
        receive_to_another("memory", "wb", buffering, tls_contexts, strike)
        if strike.later:
            break
    assert number > 20


def receive_to_another(over: str, mode: str, buffering: int, contexts: Contexts, strike: Strike) -> None:
    content = bytes(range(250)) * 20
    one, other = socket_pair()
    near, far = tcp_pair() if over == "tcp" else memory_stream_pair()
    if over == "tls":
        secure(near, far, contexts)
    one.send_all(content)
    one.send_eof()
    file = near.makefile(mode, buffering=buffering)
    if buffering:
        file.write(b"before ")
        content = b"before " + content
    try:
        with strike:
            other.receive_file(file, timeout=TIMEOUT)
    except Struck:
        other.receive_file(file, timeout=TIMEOUT)
    near.send_eof()
    assert b"".join(far) == content
    for stream in (one, other, near, far):
        stream.abort()


@pytest.mark.parametrize(("mode", "buffering"), [("rb", 0), ("rb", -1), ("r", -1)])
def test_what_an_interrupted_read_of_a_file_has_received_stays(pairs: Any, mode: str, buffering: int) -> None:
    def trial(strike: Strike) -> None:
        one, other = pairs()
        with one, other:
            file = one.makefile(mode, buffering=buffering, timeout=TIMEOUT)
            other.send_all(b"a line\n")
            raw = file if buffering == 0 else file.raw if mode == "rb" else file.buffer.raw
            buffer = bytearray(100)
            counts: list[int] = []
            try:
                with strike:
                    counts.extend(map(raw.readinto, (buffer,)))
            except Struck:
                pass
            got = bytes(buffer[:counts[0]]) if counts else one.receive(timeout=TIMEOUT)
            assert got == b"a line\n"

    assert strike_everywhere(trial) > 5


@pytest.mark.parametrize("how", ["close", "abort"])
def test_an_interrupted_close_is_finished_by_another(pairs: Any, how: str) -> None:
    def trial(strike: Strike) -> None:
        one, other = pairs()
        waiting = [Background(one.receive), Background(one.receive)]
        one.send_all(b"last")
        try:
            with strike:
                one.close(timeout=TIMEOUT) if how == "close" else one.abort()
        except Struck:
            pass
        one.close(timeout=TIMEOUT)  # those who wait have time to leave, however busy the machine is
        for thread in waiting:
            with pytest.raises(ClosedError):
                thread.result()
        assert one.fileno() == -1
        if how == "close":
            assert b"".join(other) == b"last"
        other.abort()

    assert strike_everywhere(trial) > 5


def test_descriptors_are_neither_lost_nor_left_open() -> None:
    with open(os.devnull, "rb") as file:
        def trial(strike: Strike) -> None:
            one, other = socket_pair()
            with one, other:
                messages = [(b"first", 1), (b"second", 2), (b"third", 1)]
                for data, count in messages:
                    one.send_fds(data, [file.fileno()] * count)
                got: list[tuple[bytes, int]] = []
                while len(got) < len(messages):
                    try:
                        with strike:
                            data, descriptors = other.receive_fds(100, 2, timeout=TIMEOUT)
                        got.append((data, len(descriptors)))
                        for descriptor in descriptors:
                            os.close(descriptor)
                    except Struck:
                        pass
                assert got == messages

        descriptors = len(os.listdir("/proc/self/fd"))
        assert strike_everywhere(trial) > 10
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_descriptors_that_are_sent_arrive_with_their_data_or_not_at_all() -> None:
    with open(os.devnull, "rb") as file:
        def trial(strike: Strike) -> None:
            one, other = socket_pair()
            with one, other:
                try:
                    with strike:
                        one.send_fds(b"with", [file.fileno()], timeout=TIMEOUT)
                except Struck:
                    pass
                one.send_all(b"then")
                data, descriptors = other.receive_fds(100, 1, timeout=TIMEOUT)
                for descriptor in descriptors:
                    os.close(descriptor)
                assert (data, len(descriptors)) in ((b"then", 0), (b"with", 1))

        assert strike_everywhere(trial) > 5


def test_an_upgrade_that_is_interrupted_succeeds_or_closes(tls_contexts: Contexts) -> None:
    def trial(strike: Strike) -> None:
        client, server = memory_stream_pair()
        upgrading = Background(server.start_tls, tls_contexts[0], server_side=True, timeout=TIMEOUT)
        try:
            with strike:
                client.start_tls(tls_contexts[1], server_side=False, server_hostname="localhost", timeout=TIMEOUT)
        except Struck:
            finish_upgrade(client, tls_contexts[1])
        if client.closed:
            with pytest.raises((TLSHandshakeError, ConnectionBrokenError, ClosedError)):
                upgrading.result()
                server.receive_exactly(1, timeout=TIMEOUT)
        else:
            upgrading.result()
            client.send_all(b"encrypted", timeout=TIMEOUT)
            assert server.receive_exactly(9, timeout=TIMEOUT) == b"encrypted"
            assert client.tls is not None
        client.abort()
        server.abort()

    assert strike_everywhere(trial) > 50


def finish_upgrade(client: ByteStream, context: ssl.SSLContext) -> None:
    """As a program would that was interrupted and goes on."""
    try:
        if client.tls is None:
            client.start_tls(context, server_side=False, server_hostname="localhost", timeout=TIMEOUT)
    except ClosedError:
        pass
    except Exception:
        client.close()  # in the middle of the handshake
