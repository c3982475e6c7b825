"""The contract of a byte stream, over every kind of them. The numbers are those of the list of behaviours."""

from __future__ import annotations

import array
import io
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, until, until_waiting
from support.streams import Pair

from netmsg import (
    ByteStream, ClosedError, ConnectionBrokenError, DelimiterNotFoundError, EndOfStream, IncompleteReadError,
    LocalProtocolError, RemoteProtocolError, SendTimeoutError,
)

MIB = 1 << 20


# 1-6: sending, receiving, half-closing

@pytest.mark.parametrize("size", [0, -1])
def test_1_a_size_below_one_is_refused(pair: Pair, size: int) -> None:
    for call in (lambda: pair.client.receive(size), lambda: pair.client.receive_until(b"\n", size),
                 lambda: pair.client.receive_chunks(size), lambda: pair.client.receive_delimited_chunks(b"\n", size)):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(ValueError):
        pair.client.receive_exactly(-1)
    with pytest.raises(ValueError):
        pair.client.receive_into(bytearray())


@pytest.mark.parametrize("call", [
    lambda stream: stream.receive("1"), lambda stream: stream.receive(1.5), lambda stream: stream.receive(True),
    lambda stream: stream.send_all("text"), lambda stream: stream.send_all(5), lambda stream: stream.send_all(None),
    lambda stream: stream.receive_until("\n"), lambda stream: stream.receive_until(10),
    lambda stream: stream.receive_into(b"read only"), lambda stream: stream.receive_exactly(None),
])
def test_1_a_wrong_type_is_refused(pair: Pair, call: Callable[[ByteStream], object]) -> None:
    with pytest.raises(TypeError):
        call(pair.client)
    pair.client.send_all(b"and harms nothing")
    assert pair.server.receive_exactly(17, timeout=TIMEOUT) == b"and harms nothing"


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_1_a_timeout_that_makes_no_sense_is_refused_first(pair: Pair, timeout: float) -> None:
    stream = pair.client
    for call in (lambda: stream.send_all(b"x", timeout=timeout), lambda: stream.receive(timeout=timeout),
                 lambda: stream.receive_exactly(1, timeout=timeout), lambda: stream.send_eof(timeout=timeout),
                 lambda: stream.receive_until(b"x", timeout=timeout), lambda: stream.close(timeout=timeout),
                 lambda: stream.start_tls(timeout=timeout), lambda: stream.do_handshake(timeout=timeout)):
        with pytest.raises(ValueError):
            call()
    assert not stream.closed


def test_1_an_empty_delimiter_is_refused(pair: Pair) -> None:
    with pytest.raises(ValueError):
        pair.client.receive_until(b"")


def test_2_a_mebibyte_arrives_whole(pair: Pair) -> None:
    data = random.Random(2).randbytes(MIB)
    sending = Background(pair.client.send_all, data)
    assert pair.server.receive_exactly(MIB, timeout=TIMEOUT) == data
    sending.result()


def test_3_what_was_sent_may_be_resized(pair: Pair) -> None:
    data = bytearray(10_000_000)
    receiving = Background(pair.server.receive_exactly, len(data))
    pair.client.send_all(data, timeout=TIMEOUT)
    data.append(1)
    assert receiving.result() == bytes(10_000_000)


def test_3_what_was_sent_in_part_may_be_resized_while_the_error_is_at_hand(pair: Pair) -> None:
    data = bytearray(32 * MIB)
    with pytest.raises(SendTimeoutError) as caught:
        pair.client.send_all(data, timeout=0.2)
    del data[:caught.value.bytes_sent + 1]


def test_3_what_was_to_be_sent_may_be_resized_when_the_other_end_has_gone(pair: Pair) -> None:
    pair.server.abort()
    data = bytearray(100_000)
    with pytest.raises(ConnectionBrokenError) as caught:
        while True:
            pair.client.send_all(data, timeout=TIMEOUT)
    data.append(1)
    assert caught.value.__traceback__


@pytest.mark.parametrize("receive_into", [
    lambda stream, buffer: stream.receive_into(buffer, timeout=0),
    lambda stream, buffer: stream.makefile("rb", buffering=0, timeout=0).readinto(buffer)], ids=["stream", "file"])
def test_3_a_buffer_into_which_nothing_came_may_be_resized_while_the_error_is_at_hand(
        pair: Pair, receive_into: Callable[[ByteStream, bytearray], int]) -> None:
    buffer = bytearray(10)
    with pytest.raises(TimeoutError) as caught:
        while True:
            receive_into(pair.client, buffer)
    buffer.append(1)
    assert caught.value.__traceback__


def test_4_after_send_eof_the_peer_sees_the_end_and_may_reply(pair: Pair) -> None:
    pair.client.send_all(b"request")
    pair.client.send_eof(timeout=TIMEOUT)
    assert b"".join(pair.server) == b"request"
    assert pair.server.receive(timeout=TIMEOUT) == b""
    pair.server.send_all(b"reply", timeout=TIMEOUT)
    assert pair.client.receive_exactly(5, timeout=TIMEOUT) == b"reply"
    pair.server.send_eof()
    assert pair.client.receive(timeout=TIMEOUT) == b""


def test_4_send_eof_does_not_harm_what_comes_the_other_way(pair: Pair) -> None:
    data = random.Random(4).randbytes(300_000)
    sending = Background(pair.server.send_all, data)
    pair.client.send_all(b"x")
    assert pair.client.receive_exactly(1000, timeout=TIMEOUT) == data[:1000]
    pair.client.send_eof(timeout=TIMEOUT)
    assert pair.client.receive_exactly(299_000, timeout=TIMEOUT) == data[1000:]
    sending.result()
    assert pair.server.receive_exactly(1, timeout=TIMEOUT) == b"x"


def test_5_sending_after_send_eof_is_the_callers_mistake(pair: Pair) -> None:
    pair.client.send_eof()
    with pytest.raises(LocalProtocolError):
        pair.client.send_all(b"more")
    pair.client.send_eof()


def test_6_iteration_ends_at_the_end(pair: Pair) -> None:
    pair.client.send_all(b"one\ntwo\n")
    pair.client.send_eof()
    assert list(pair.server.receive_delimited_chunks(b"\n", timeout=TIMEOUT)) == [b"one", b"two"]
    assert list(pair.server) == []
    assert list(pair.server.receive_chunks(timeout=TIMEOUT)) == []


def test_6_an_iterator_may_be_asked_again_after_it_raised(pair: Pair) -> None:
    lines = pair.server.receive_delimited_chunks(b"\n", timeout=0.01)
    with pytest.raises(TimeoutError):
        next(lines)
    pair.client.send_all(b"late\nlast")
    until(lambda: True)
    assert pair.server.receive_exactly(1, timeout=TIMEOUT) == b"l"
    assert next(lines) == b"ate"
    pair.client.send_eof()
    with pytest.raises(IncompleteReadError) as raised:
        for _ in range(100):
            try:
                next(lines)
            except TimeoutError:
                pass
    assert raised.value.partial == b"last"


# 9-12: time, threads, the end

def test_9_a_timeout_loses_nothing(pair: Pair) -> None:
    pair.client.send_all(b"half")
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        pair.server.receive_exactly(8, timeout=0.1)
    with pytest.raises(TimeoutError):
        pair.server.receive_until(b"\n", timeout=0.1)
    assert 0.2 <= time.monotonic() - started < 5
    pair.client.send_all(b"half\n")
    assert pair.server.receive_until(b"\n", timeout=TIMEOUT) == b"halfhalf"


def test_9_a_drip_does_not_prolong_the_deadline(pair: Pair) -> None:
    over = threading.Event()

    def drip() -> None:
        while not over.wait(0.1):
            pair.client.send_all(b".")

    dripping = Background(drip)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        pair.server.receive_exactly(1000, timeout=0.4)
    assert 0.4 <= time.monotonic() - started < 2
    over.set()
    dripping.result()


def test_9_zero_is_one_try(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        pair.server.receive(timeout=0)
    pair.client.send_all(b"x", timeout=0)
    until(lambda: _try(pair.server.receive, timeout=0) == b"x")


def _try(call: Callable[..., bytes], **arguments: Any) -> bytes:
    try:
        return call(**arguments)
    except TimeoutError:
        return b""


def test_9_a_send_that_times_out_says_how_far_it_came_and_nothing_is_spliced(pair: Pair) -> None:
    data = bytes(range(256)) * (32 * MIB // 256)
    with pytest.raises(SendTimeoutError) as raised:
        pair.client.send_all(data, timeout=0.2)
    assert raised.value.bytes_sent < len(data)
    assert raised.value.bytes_sent > 0 or pair.kind == "tls-memory"  # which holds less than the first piece
    with pytest.raises(ConnectionBrokenError):
        pair.client.send_all(b"spliced")
    got: list[bytes] = []

    def receive() -> None:
        while piece := pair.server.receive(timeout=TIMEOUT):
            got.append(piece)

    receiving = Background(receive)
    pair.client.close()
    if pair.encrypted:  # the rest of a record is missing, and so is the goodbye: the other end is to notice
        with pytest.raises(ConnectionBrokenError):
            receiving.result()
    else:
        receiving.result()
    received = b"".join(got)
    assert data.startswith(received)
    assert raised.value.bytes_sent <= len(received) < len(data)


def test_9_a_send_that_never_began_spoils_nothing(pair: Pair) -> None:
    filling = Background(pair.client.send_all, bytes(32 * MIB))
    until_waiting(filling)
    with pytest.raises(SendTimeoutError) as raised:
        pair.client.send_all(b"later", timeout=0.05)
    assert raised.value.bytes_sent == 0
    assert pair.server.receive_exactly(32 * MIB, timeout=30) == bytes(32 * MIB)
    filling.result()
    pair.client.send_all(b"later")
    assert pair.server.receive_exactly(5, timeout=TIMEOUT) == b"later"


def test_10_messages_of_several_senders_are_whole(pair: Pair) -> None:
    def send(letter: bytes) -> None:
        for _ in range(20):
            pair.client.send_all(letter * 10_000)

    senders = [Background(send, letter) for letter in (b"a", b"b", b"c")]
    got = [pair.server.receive_exactly(10_000, timeout=TIMEOUT) for _ in range(60)]
    assert all(len(set(message)) == 1 for message in got)
    assert sorted(got) == sorted([letter * 10_000 for letter in (b"a", b"b", b"c")] * 20)
    for sender in senders:
        sender.result()


def test_11_each_byte_goes_to_one_of_several_receivers(pair: Pair) -> None:
    def receive() -> list[bytes]:
        got = []
        try:
            while True:
                got.append(pair.server.receive_exactly(8))
        except EndOfStream:
            return got

    receivers = [Background(receive) for _ in range(3)]
    sent = [b"%08d" % number for number in range(3000)]
    for number in range(0, 3000, 100):
        pair.client.send_all(b"".join(sent[number:number + 100]))
    pair.client.send_eof()
    assert sorted(sum((receiver.result() for receiver in receivers), [])) == sent


def test_11_who_sends_all_the_time_does_not_starve_others(pair: Pair) -> None:
    sent = threading.Event()

    def send() -> None:
        while not sent.is_set():
            pair.client.send_all(bytes(1000), timeout=TIMEOUT)

    def drain() -> None:
        while pair.server.receive(MIB, timeout=TIMEOUT):
            pass

    calls = [Background(send), Background(drain)]
    try:
        Background(pair.client.send_all, b"ping", timeout=TIMEOUT).result(2 * TIMEOUT)
    finally:
        sent.set()
    calls[0].result()
    pair.client.send_eof(timeout=TIMEOUT)
    calls[1].result()


def test_11_who_receives_all_the_time_does_not_starve_others(pair: Pair) -> None:
    received = threading.Event()

    def receive() -> None:
        while not received.is_set():
            pair.server.receive(10, timeout=TIMEOUT)

    def feed() -> None:
        while not received.is_set():
            pair.client.send_all(bytes(1000), timeout=TIMEOUT)
        pair.client.send_eof(timeout=TIMEOUT)

    calls = [Background(receive), Background(feed)]
    try:
        assert Background(pair.server.receive_exactly, 100, timeout=TIMEOUT).result(2 * TIMEOUT) == bytes(100)
    finally:
        received.set()
    calls[0].result()
    draining = Background(list, pair.server)
    calls[1].result()
    draining.result()


def test_11_lines_too(pair: Pair) -> None:
    def receive() -> list[bytes]:
        return list(pair.server.receive_delimited_chunks(b"\n"))

    receivers = [Background(receive) for _ in range(3)]
    sent = [b"%d" % number for number in range(20_000)]
    pair.client.send_all(b"\n".join(sent) + b"\n")
    pair.client.send_eof()
    assert sorted(sum((receiver.result() for receiver in receivers), [])) == sorted(sent)


def test_12_the_peers_end_is_no_error_and_our_close_is(pair: Pair) -> None:
    closing = Background(pair.client.close)
    assert pair.server.receive(timeout=TIMEOUT) == b""
    assert pair.server.receive(timeout=TIMEOUT) == b""
    with pytest.raises(EndOfStream):
        pair.server.receive_exactly(1, timeout=TIMEOUT)
    pair.server.close()
    closing.result()
    for call in (pair.server.receive, lambda: pair.server.send_all(b"x"), pair.server.send_eof,
                 lambda: pair.server.receive_until(b"\n"), lambda: pair.server.receive_exactly(0),
                 lambda: next(iter(pair.server)), pair.server.do_handshake):
        with pytest.raises(ClosedError):
            call()
    assert pair.server.closed and pair.server.fileno() == -1


# 13-19

def test_13_a_reset_is_a_break_with_its_cause_and_stays(pair: Pair) -> None:
    pair.client.abort()
    if pair.kind == "unix":  # a UNIX socket knows no reset: its abort is an end
        assert pair.server.receive(timeout=TIMEOUT) == b""
    else:
        for _ in range(2):
            with pytest.raises(ConnectionBrokenError) as raised:
                while pair.server.receive(timeout=TIMEOUT):
                    pass
        if pair.kind in ("tcp", "memory"):
            assert isinstance(raised.value.__cause__, ConnectionResetError)
    with pytest.raises(ConnectionBrokenError):
        for _ in range(100):
            pair.server.send_all(b"x" * 10_000, timeout=TIMEOUT)


def test_13_a_reset_that_a_send_is_told_of_is_no_end_to_a_receive(pair: Pair) -> None:
    pair.client.abort()
    with pytest.raises(ConnectionBrokenError):
        for _ in range(100):
            pair.server.send_all(b"x" * 10_000, timeout=TIMEOUT)
    for _ in range(2):
        if pair.kind == "unix":
            assert pair.server.receive(timeout=TIMEOUT) == b""
        else:
            with pytest.raises(ConnectionBrokenError):
                pair.server.receive(timeout=TIMEOUT)


def test_14_what_was_sent_before_the_end_comes_before_the_end(pair: Pair) -> None:
    data = random.Random(14).randbytes(50_000)
    pair.client.send_all(data)
    closing = Background(pair.client.close)
    assert b"".join(pair.server.receive_chunks(777, timeout=TIMEOUT)) == data
    pair.server.close()
    closing.result()


def test_15_what_arrived_before_a_reset_can_be_read(pair: Pair) -> None:
    pair.client.send_all(b"last words")
    until(lambda: not pair.on_socket or _readable(pair.server))
    pair.client.abort()
    assert pair.server.receive_exactly(10, timeout=TIMEOUT) == b"last words"


def _readable(stream: ByteStream) -> bool:
    import select
    return bool(select.select([stream], [], [], 0)[0])


def test_16_sending_nothing_does_nothing(pair: Pair) -> None:
    pair.client.send_all(b"")
    pair.client.send_all(b"", timeout=0)
    pair.client.close(timeout=0)
    with pytest.raises(ClosedError):
        pair.client.send_all(b"")


@pytest.mark.parametrize("data", [bytearray(b"12345678"), memoryview(b"12345678"), memoryview(b"1x2x3x4x5x6x7x8x")[::2],
                                  array.array("I", [0x34333231, 0x38373635])])
def test_17_anything_like_bytes_can_be_sent(pair: Pair, data: Any) -> None:
    pair.client.send_all(data)
    assert pair.server.receive_exactly(8, timeout=TIMEOUT) == b"12345678"


def test_18_closing_again_does_nothing(pair: Pair) -> None:
    pair.client.close(timeout=0)
    pair.client.close()
    pair.client.abort()
    with pair.server:
        pair.server.close(timeout=0)


def test_19_a_random_mebibyte_both_ways_at_once(pair: Pair) -> None:
    one, other = (random.Random(seed).randbytes(MIB) for seed in (19, 20))
    sending = [Background(pair.client.send_all, one), Background(pair.server.send_all, other)]
    receiving = Background(pair.server.receive_exactly, MIB)
    assert pair.client.receive_exactly(MIB, timeout=TIMEOUT) == other
    assert receiving.result() == one
    for sender in sending:
        sender.result()


# 23-26: reading by delimiter and by size

def test_23_a_delimiter_may_come_in_pieces(pair: Pair) -> None:
    for piece in (b"first\r", b"\nsecond\r\nthi", b"rd", b"\r", b"\n"):
        pair.client.send_all(piece)
        if piece == b"first\r":
            with pytest.raises(TimeoutError):
                pair.server.receive_until(b"\r\n", timeout=0.05)
    assert [pair.server.receive_until(b"\r\n", timeout=TIMEOUT) for _ in range(3)] == [b"first", b"second", b"third"]


def test_23_many_lines_in_one_piece(pair: Pair) -> None:
    lines = [b"%d" % number for number in range(6_000)]
    sending = Background(pair.client.send_all, b"\n".join(lines) + b"\n")
    assert [pair.server.receive_until(b"\n", timeout=None if number % 7 else TIMEOUT)
            for number in range(6_000)] == lines
    sending.result()


def test_24_an_early_end_tells_what_came(pair: Pair) -> None:
    pair.client.send_all(b"part")
    pair.client.send_eof()
    with pytest.raises(IncompleteReadError) as raised:
        pair.server.receive_exactly(10, timeout=TIMEOUT)
    assert raised.value.partial == b"part" and raised.value.expected == 10
    with pytest.raises(IncompleteReadError) as raised:
        pair.server.receive_until(b"\n", timeout=TIMEOUT)
    assert raised.value.partial == b"part" and raised.value.expected is None
    assert pair.server.receive(timeout=TIMEOUT) == b"part"
    with pytest.raises(EndOfStream):
        pair.server.receive_until(b"\n", timeout=TIMEOUT)


def test_25_without_a_delimiter_in_reach_the_bytes_stay(pair: Pair) -> None:
    pair.client.send_all(b"0123456789\n")
    for _ in range(2):
        with pytest.raises(DelimiterNotFoundError) as raised:
            pair.server.receive_until(b"\n", 9, timeout=TIMEOUT)
        assert raised.value.max_bytes == 9
    assert pair.server.receive_until(b"\n", 10, timeout=TIMEOUT) == b"0123456789"
    pair.client.send_all(b"x" * 100)
    with pytest.raises(DelimiterNotFoundError):
        pair.server.receive_until(b"\n", 50, timeout=TIMEOUT)
    assert pair.server.receive_exactly(100, timeout=TIMEOUT) == b"x" * 100


@pytest.mark.parametrize("how", ["receive", "receive_exactly", "receive_into", "receive_until", "chunks", "makefile",
                                 "receive_file"])
def test_26_what_follows_a_delimiter_is_served_first(pair: Pair, how: str, tmp_path: Any) -> None:
    lines = 20 if how != "receive" else 1
    pair.client.send_all(b"line\n" * lines + b"and the rest\n")
    pair.client.send_eof()
    for _ in range(lines):
        assert pair.server.receive_until(b"\n", timeout=TIMEOUT) == b"line"
    if how == "receive":
        got = pair.server.receive(timeout=TIMEOUT)
    elif how == "receive_exactly":
        got = pair.server.receive_exactly(13, timeout=TIMEOUT)
    elif how == "receive_into":
        buffer = bytearray(100)
        got = bytes(buffer[:pair.server.receive_into(buffer, timeout=TIMEOUT)])
    elif how == "receive_until":
        got = pair.server.receive_until(b"rest", timeout=TIMEOUT) + b"rest" + pair.server.receive(timeout=TIMEOUT)
    elif how == "chunks":
        got = b"".join(pair.server)
    elif how == "makefile":
        got = pair.server.makefile(timeout=TIMEOUT).read()
    else:
        with open(tmp_path / "file", "w+b") as file:
            assert pair.server.receive_file(file, timeout=TIMEOUT) == 13
            file.seek(0)
            got = file.read()
    assert got == b"and the rest\n"


# 27-30: closing from elsewhere, interrupts

@pytest.mark.parametrize("how", ["receive", "receive_exactly", "receive_until"])
def test_27_close_wakes_who_receives(pair: Pair, how: str) -> None:
    call: Any = {"receive": pair.server.receive, "receive_exactly": lambda: pair.server.receive_exactly(5),
                 "receive_until": lambda: pair.server.receive_until(b"\n")}[how]
    waiting = [Background(call) for _ in range(3)]
    for thread in waiting:
        until_waiting(thread)
    started = time.monotonic()
    pair.server.close(timeout=0)
    for thread in waiting:
        with pytest.raises(ClosedError):
            thread.result()
    assert time.monotonic() - started < 1


def test_28_close_wakes_who_sends_and_nothing_waits_for_it(pair: Pair) -> None:
    sending = [Background(pair.client.send_all, bytes(32 * MIB)) for _ in range(2)]
    for thread in sending:
        until_waiting(thread)
    started = time.monotonic()
    assert not pair.client.closed
    if pair.on_socket:
        assert pair.client.fileno() >= 0
        import socket
        assert pair.client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    pair.client.close(timeout=0)
    for thread in sending:
        with pytest.raises(ClosedError):
            thread.result()
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("blocking", ["receive", "send"])
def test_28_a_signal_handler_may_close_what_it_interrupts(pair: Pair, blocking: str) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: pair.client.close(timeout=0.5))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(ClosedError):
            if blocking == "receive":
                pair.client.receive()
            else:
                pair.client.send_all(bytes(64 * MIB))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert pair.client.closed


def test_29_a_descriptor_closed_underfoot_is_an_error(pair: Pair) -> None:
    if not pair.on_socket:
        pytest.skip("there is no descriptor")
    os.close(pair.client.fileno())
    try:
        with pytest.raises(ConnectionBrokenError):
            pair.client.receive(timeout=TIMEOUT)
        with pytest.raises(ConnectionBrokenError):
            pair.client.send_all(b"x", timeout=TIMEOUT)
    finally:
        pair.client.abort()


class Interrupt(Exception):
    """What stands for Ctrl-C here."""


@pytest.mark.parametrize("how", ["receive", "receive_exactly", "receive_until", "receive_file", "send_all",
                                 "send_file"])
def test_30_an_interrupt_ends_a_blocking_call_and_spoils_nothing(pair: Pair, how: str) -> None:
    def interrupt(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    file = io.BytesIO()
    pair.server.send_all(b"12")
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        started = time.monotonic()
        with pytest.raises(Interrupt):
            if how == "receive":
                pair.client.receive_exactly(2)
                pair.client.receive()
            elif how == "receive_exactly":
                pair.client.receive_exactly(5)
            elif how == "receive_until":
                pair.client.receive_until(b"\n")
            elif how == "receive_file":
                pair.client.receive_file(file)
            elif how == "send_file":
                pair.client.send_file(io.BytesIO(bytes(64 * MIB)))
            else:
                pair.client.send_all(bytes(64 * MIB))
        assert time.monotonic() - started < 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if how.startswith("send"):
        with pytest.raises(ConnectionBrokenError):
            pair.client.send_all(b"spliced")
    pair.server.send_all(b"345\n")
    taken = b"12" if how == "receive" else file.getvalue()
    assert taken + pair.client.receive_until(b"\n", timeout=TIMEOUT) == b"12345"


# What a review found

@pytest.mark.parametrize("mode", ["rb", "rwb", "r", "rw"])
def test_66_the_rest_of_a_line_that_a_file_holds_is_found(pair: Pair, mode: str, tls_contexts: Any) -> None:
    pair.server.send_all(b"OK!!INJECTED\n")
    file = pair.client.makefile(mode, timeout=TIMEOUT)
    assert file.read(4) in (b"OK!!", "OK!!")
    with pytest.raises(RemoteProtocolError):
        pair.client.start_tls(tls_contexts[1], server_side=False, server_hostname="localhost", timeout=TIMEOUT)
    assert pair.client.closed


def test_9_a_file_that_was_sent_in_part_spoils_the_stream(pair: Pair) -> None:
    with pytest.raises(SendTimeoutError) as raised:
        pair.client.send_file(io.BytesIO(bytes(32 * MIB)), timeout=0.3)
    assert raised.value.bytes_sent < 32 * MIB
    assert raised.value.bytes_sent > 0 or pair.kind == "tls-memory"  # which holds less than the first piece
    with pytest.raises(ConnectionBrokenError):
        pair.client.send_all(b"spliced")


def test_9_a_flood_does_not_prolong_receiving_a_file_or_closing(pair: Pair) -> None:
    def flood() -> None:
        with pytest.raises((ClosedError, ConnectionBrokenError)):
            while True:
                pair.client.send_all(bytes(100_000))

    flooding = Background(flood)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        pair.server.receive_file(io.BytesIO(), timeout=0.2)
    pair.server.close(timeout=0.2)
    assert time.monotonic() - started < 3
    pair.client.close(timeout=0)
    flooding.result()


def test_a_file_whose_reader_was_detached_hinders_nothing(pair: Pair) -> None:
    pair.client.makefile("rb").detach()
    pair.server.send_all(b"line\n")
    assert pair.client.makefile("rb", timeout=TIMEOUT).readline() == b"line\n"


def test_very_long_timeouts_are_taken(pair: Pair) -> None:
    pair.server.send_all(b"x")
    assert pair.client.receive(timeout=1e12) == b"x"
    waiting = Background(pair.client.receive, timeout=3e6)
    until_waiting(waiting)
    pair.server.send_all(b"y")
    assert waiting.result() == b"y"


def test_59_receiving_while_the_other_half_is_closed_loses_nothing(pair: Pair) -> None:
    data = random.Random(7).randbytes(MIB)
    sending = Background(pair.server.send_all, data)
    receiving = Background(pair.client.receive_exactly, MIB)
    pair.client.send_eof(timeout=TIMEOUT)
    assert receiving.result() == data
    sending.result()
