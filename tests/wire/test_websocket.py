"""WebSocket's frames, both ways. The numbers of cases are those of the Autobahn test suite."""

from __future__ import annotations

import itertools
import os
import struct
import tracemalloc
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.envelopes import pieces
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from netmsg.errors import ConnectionBrokenError, LocalProtocolError, RemoteProtocolError
from netmsg.wire.websocket import CloseCode, Opcode, Side, WebSocket, masked

KEY = bytes((0x37, 0xfa, 0x21, 0x3d))
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = Opcode


def xor(payload: bytes, key: bytes) -> bytes:
    """Masking in the plainest way."""
    return bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def frame(masks: bool, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0,
          length: int | None = None, extended: int = 0) -> bytes:
    """A frame of whoever ``masks``; its ``length`` as it claims, in ``extended`` bytes more than it needs."""
    size = len(payload) if length is None else length
    first = bytes((fin << 7 | rsv << 4 | opcode,))
    mask = masks << 7
    if size < 126 and not extended:
        header = first + bytes((mask | size,))
    elif size < 1 << 16 and extended < 8:
        header = first + struct.pack("!BH", mask | 126, size)
    else:
        header = first + struct.pack("!BQ", mask | 127, size)
    return header + (KEY + xor(payload, KEY) if masks else payload)


class End:
    """One end, and what the other one sends it."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.websocket = WebSocket(side, lambda size: KEY[:size])

    def theirs(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, length: int | None = None,
               extended: int = 0) -> bytes:
        return frame(self.side is Side.SERVER, opcode, payload, fin=fin, rsv=rsv, length=length, extended=extended)

    def ours(self, opcode: int, payload: bytes = b"") -> bytes:
        return frame(self.side is Side.CLIENT, opcode, payload)

    def closes(self, code: int | None, reason: bytes = b"") -> bytes:
        return self.theirs(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)

    def receive(self, *frames: bytes) -> bytes:
        return self.websocket.receive(b"".join(frames))

    def receive_in_pieces(self, data: bytes, cuts: Iterable[int]) -> bytes:
        return b"".join(self.websocket.receive(piece) for piece in pieces(data, cuts))

    def receive_dripping(self, *frames: bytes) -> bytes:
        return b"".join(self.websocket.receive(bytes((byte,))) for byte in b"".join(frames))

    def answers(self) -> bytes:
        return self.websocket.take_answers()

    def fails(self, *frames: bytes, code: int, text: str) -> None:
        """It does, once it has received these."""
        self.receive(*frames)
        assert isinstance(self.websocket.error, RemoteProtocolError) and text in str(self.websocket.error)
        assert self.answers() == self.ours(CLOSE, struct.pack("!H", code))
        assert self.websocket.closing and not self.websocket.ended
        assert self.receive(self.theirs(BINARY, b"not heard")) == b"" and not self.websocket.has_answers


@pytest.fixture(params=Side, ids=lambda side: str(side.value))
def end(request: pytest.FixtureRequest) -> End:
    return End(request.param)


both_ends = st.sampled_from(Side).map(End)
some_cuts = st.lists(st.integers(0, 400), max_size=20)


# Masking

@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masking_is_what_the_rfc_says(payload: bytes, key: bytes) -> None:
    assert masked(payload, key) == xor(payload, key)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 4095, 4096, 4097, 4098, 4099, 65536, 100_003])
def test_masking_is_the_same_for_any_size_and_kind_of_buffer(size: int) -> None:
    payload = os.urandom(size)
    assert masked(payload, KEY) == masked(memoryview(payload), KEY) == xor(payload, KEY)


def test_the_examples_of_the_rfc_are_understood() -> None:
    """Section 5.7, but for their opcode where that says text."""
    hello = b"Hello"
    assert End(Side.CLIENT).receive(b"\x82\x05Hello") == hello
    assert End(Side.SERVER).receive(b"\x82\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58") == hello
    assert End(Side.CLIENT).receive(b"\x02\x03Hel\x80\x02lo") == hello
    client, server = End(Side.CLIENT), End(Side.SERVER)
    client.receive(b"\x89\x05Hello")
    assert client.answers() == b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
    server.receive(b"\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58")
    assert server.answers() == b"\x8a\x05Hello"
    assert client.receive(b"\x82\x7E\x01\x00" + bytes(256)) == bytes(256)
    assert client.receive(b"\x82\x7F\x00\x00\x00\x00\x00\x01\x00\x00" + bytes(65536)) == bytes(65536)


# 1: framing

@pytest.mark.parametrize("size", [0, 125, 126, 127, 128, 65535, 65536], ids=lambda size: f"case 1.2, {size}")
def test_a_message_of_any_size_is_its_payload(end: End, size: int) -> None:
    payload = os.urandom(size)
    assert end.receive(end.theirs(BINARY, payload)) == payload
    assert end.websocket.error is None and not end.websocket.has_answers


def test_a_large_message_comes_as_its_pieces_do(end: End) -> None:
    """Cases 1.2.8 and 9.2."""
    payload = os.urandom(300_000)
    data = end.theirs(BINARY, payload)
    got = [end.websocket.receive(data[start:start + 997]) for start in range(0, len(data), 997)]
    assert b"".join(got) == payload and len(got[0]) > 900


@pytest.mark.parametrize("size", [0, 125, 126, 65536], ids=lambda size: f"case 1.1, {size}")
def test_text_is_refused(end: End, size: int) -> None:
    end.fails(end.theirs(TEXT, b"*" * size), code=1003, text="text")


@given(both_ends, some_cuts)
def test_several_frames_are_the_same_in_any_pieces(end: End, cuts: list[int]) -> None:
    data = (end.theirs(BINARY, b"one") + end.theirs(BINARY, b"two", fin=False) + end.theirs(PING, b"?")
            + end.theirs(CONTINUATION, b"") + end.theirs(BINARY, bytes(range(200))) + end.closes(1000, b"bye")
            + b"anything")
    assert end.receive_in_pieces(data, cuts) == b"onetwo" + bytes(range(200))
    assert end.websocket.ended and end.websocket.close_code == 1000 and end.websocket.close_reason == "bye"
    assert end.answers() == end.ours(PONG, b"?") + end.ours(CLOSE, struct.pack("!H", 1000))


def test_every_split_point_of_every_header_is_as_good_as_any(end: End) -> None:
    data = b"".join((end.theirs(BINARY, b"x" * 125), end.theirs(PING, b"y" * 125), end.theirs(BINARY, b"z" * 126)))
    for cut in range(len(data) + 1):
        other = End(end.side)
        assert other.receive_in_pieces(data, [cut]) == b"x" * 125 + b"z" * 126, cut
        assert other.answers() == other.ours(PONG, b"y" * 125), cut
    payload = os.urandom(65536)
    data = end.theirs(BINARY, payload)
    for cut in range(20):
        assert End(end.side).receive_in_pieces(data, [cut]) == payload, cut


def test_a_frame_is_masked_if_a_client_sends_it_and_only_then(end: End) -> None:
    wrong_way = frame(end.side is Side.CLIENT, BINARY, b"payload")
    end.fails(wrong_way, code=1002, text="masked")


@pytest.mark.parametrize("length, extended", [(0, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65535, 8)])
def test_a_length_in_more_bytes_than_it_needs_is_refused(end: End, length: int, extended: int) -> None:
    end.fails(end.theirs(BINARY, b"", length=length, extended=extended), code=1002, text=f"a length of {length}")


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1])
def test_a_length_of_64_bits_is_refused(end: End, length: int) -> None:
    end.fails(end.theirs(BINARY, b"", length=length), code=1002, text=f"a length of {length}")


def test_what_came_before_a_violation_is_still_received(end: End) -> None:
    assert end.receive(end.theirs(BINARY, b"good"), end.theirs(BINARY, rsv=1), end.theirs(BINARY, b"bad")) == b"good"
    assert end.websocket.error is not None


# 2: pings and pongs

@pytest.mark.parametrize("payload", [
    pytest.param(b"", id="case 2.1"), pytest.param(b"Hello, world!", id="case 2.2"),
    pytest.param(bytes((0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff)), id="case 2.3"),
    pytest.param(b"\xfe" * 125, id="case 2.4")])
def test_a_ping_is_answered_with_its_payload(end: End, payload: bytes) -> None:
    assert end.receive(end.theirs(PING, payload)) == b""
    assert end.websocket.has_answers
    assert end.answers() == end.ours(PONG, payload)
    assert not end.websocket.has_answers and end.answers() == b""


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_control_frame_of_more_than_125_bytes_is_refused(end: End, opcode: Opcode) -> None:
    """Case 2.5."""
    end.fails(end.theirs(opcode, b"\xfe" * 126), code=1002, text="more than 125 bytes")


def test_a_ping_a_byte_at_a_time_is_answered(end: End) -> None:
    """Case 2.6."""
    assert end.receive_dripping(end.theirs(PING, b"\xfe" * 125)) == b""
    assert end.answers() == end.ours(PONG, b"\xfe" * 125)


@pytest.mark.parametrize("payload", [pytest.param(b"", id="case 2.7"), pytest.param(b"unsolicited", id="case 2.8")])
def test_a_pong_that_nobody_has_asked_for_means_nothing(end: End, payload: bytes) -> None:
    assert end.receive(end.theirs(PONG, payload), end.theirs(BINARY, b"more")) == b"more"
    assert not end.websocket.has_answers and end.websocket.error is None


def test_a_ping_behind_such_a_pong_is_answered(end: End) -> None:
    """Case 2.9."""
    end.receive(end.theirs(PONG, b"unsolicited"), end.theirs(PING, b"ping"))
    assert end.answers() == end.ours(PONG, b"ping")


def test_pings_one_after_the_other_are_each_answered(end: End) -> None:
    """Cases 2.10 and 2.11."""
    for number in range(10):
        end.receive_dripping(end.theirs(PING, b"payload-%d" % number))
        assert end.answers() == end.ours(PONG, b"payload-%d" % number)


def test_of_many_pings_at_once_the_latest_is_answered(end: End) -> None:
    end.receive(*(end.theirs(PING, b"payload-%d" % number) for number in range(10_000)))
    assert end.answers() == end.ours(PONG, b"payload-9999")


# 3 and 4: reserved bits and opcodes

@pytest.mark.parametrize("rsv", range(1, 8), ids=lambda rsv: f"case 3.{rsv}")
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING])
def test_reserved_bits_are_refused(end: End, rsv: int, opcode: Opcode) -> None:
    end.fails(end.theirs(opcode, b"", rsv=rsv), code=1002, text="a reserved bit")


@pytest.mark.parametrize("opcode", [*range(3, 8), *range(11, 16)],
                         ids=lambda opcode: f"case 4.1.{opcode - 2}" if opcode < 8 else f"case 4.2.{opcode - 10}")
@pytest.mark.parametrize("payload", [b"", b"payload"])
def test_reserved_opcodes_are_refused(end: End, opcode: int, payload: bytes) -> None:
    end.fails(end.theirs(opcode, payload), end.theirs(PING), code=1002, text=f"the reserved opcode {opcode}")


# 5: fragments

@pytest.mark.parametrize("opcode", [pytest.param(PING, id="case 5.1"), pytest.param(PONG, id="case 5.2"), CLOSE])
def test_control_frames_in_fragments_are_refused(end: End, opcode: Opcode) -> None:
    end.fails(end.theirs(opcode, b"first", fin=False), end.theirs(CONTINUATION, b"second"), code=1002,
              text="a control frame in fragments")


def test_a_message_in_fragments_is_what_is_in_them(end: End) -> None:
    """Cases 5.3 to 5.5."""
    data = end.theirs(BINARY, b"fragment1", fin=False), end.theirs(CONTINUATION, b"fragment2")
    assert end.receive(*data) == b"fragment1fragment2"
    assert end.receive_dripping(*data) == b"fragment1fragment2"


def test_a_ping_between_fragments_is_answered_at_once(end: End) -> None:
    """Cases 5.6 to 5.8."""
    assert end.receive(end.theirs(BINARY, b"fragment1", fin=False), end.theirs(PING, b"ping")) == b"fragment1"
    assert end.answers() == end.ours(PONG, b"ping")
    assert end.receive(end.theirs(CONTINUATION, b"fragment2")) == b"fragment2"


@pytest.mark.parametrize("fin", [pytest.param(True, id="cases 5.9 to 5.11"),
                                 pytest.param(False, id="cases 5.12 to 5.14")])
def test_a_continuation_of_nothing_is_refused(end: End, fin: bool) -> None:
    end.fails(end.theirs(CONTINUATION, b"non-continuation payload", fin=fin), end.theirs(BINARY, b"Hello"),
              code=1002, text="a continuation of no message")


@pytest.mark.parametrize("fin", [True, False])
def test_a_continuation_behind_the_end_of_a_message_is_refused(end: End, fin: bool) -> None:
    """Cases 5.15 to 5.17."""
    assert end.receive(end.theirs(BINARY, b"1", fin=False), end.theirs(CONTINUATION, b"2")) == b"12"
    end.fails(end.theirs(CONTINUATION, b"3", fin=fin), code=1002, text="a continuation of no message")


@pytest.mark.parametrize("opcode", [BINARY, TEXT])
def test_a_new_message_amid_another_one_is_refused(end: End, opcode: Opcode) -> None:
    """Case 5.18."""
    end.fails(end.theirs(BINARY, b"fragment1", fin=False), end.theirs(opcode, b"fragment2"), code=1002,
              text="a new message before the end")


@pytest.mark.parametrize("dripping", [False, True])
def test_pings_between_many_fragments_change_nothing(end: End, dripping: bool) -> None:
    """Cases 5.19 and 5.20."""
    got = b""
    receive = end.receive_dripping if dripping else end.receive
    for number in range(5):
        got += receive(end.theirs(CONTINUATION if number else BINARY, b"fragment%d" % number, fin=number == 4))
        got += receive(end.theirs(PING, b"pongme %d" % number))
        assert end.answers() == end.ours(PONG, b"pongme %d" % number)
    assert got == b"fragment0fragment1fragment2fragment3fragment4"


# 7: closing

def test_a_close_is_answered_once_and_ends_what_comes(end: End) -> None:
    """Cases 7.1.1 to 7.1.4: whatever is behind a Close frame is not looked at."""
    got = end.receive(end.theirs(BINARY, b"Hello"), end.closes(1000), end.closes(1000), end.theirs(PING, b"?"),
                      end.theirs(BINARY, b"not heard"), end.theirs(BINARY, rsv=7))
    assert got == b"Hello"
    assert end.websocket.ended and end.websocket.closing and end.websocket.error is None
    assert end.answers() == end.ours(CLOSE, struct.pack("!H", 1000))
    assert end.receive(end.closes(1000), end.theirs(PING)) == b"" and not end.websocket.has_answers


def test_a_close_may_come_amid_a_message(end: End) -> None:
    """Case 7.1.5."""
    got = end.receive(end.theirs(BINARY, b"fragment1", fin=False), end.closes(1000),
                      end.theirs(CONTINUATION, b"fragment2"))
    assert got == b"fragment1" and end.websocket.ended
    assert end.answers() == end.ours(CLOSE, struct.pack("!H", 1000))


def test_a_close_behind_a_large_message_waits_its_turn(end: End) -> None:
    """Case 7.1.6."""
    payload = b"BAsd7&jh23" * 26_215
    assert end.receive(end.theirs(BINARY, payload), end.closes(1000), end.theirs(PING)) == payload
    assert end.answers() == end.ours(CLOSE, struct.pack("!H", 1000))


def test_a_close_without_a_code_is_answered_with_one_like_it(end: End) -> None:
    """Case 7.3.1."""
    end.receive(end.closes(None))
    assert end.websocket.ended and end.websocket.close_code is None
    assert end.answers() == end.ours(CLOSE)


def test_half_a_code_is_refused(end: End) -> None:
    """Case 7.3.2."""
    end.fails(end.theirs(CLOSE, b"\x03"), code=1002, text="a status code of one byte")


@pytest.mark.parametrize("reason", [
    pytest.param("", id="case 7.3.3"), pytest.param("Hello World!", id="case 7.3.4"),
    pytest.param("*" * 123, id="case 7.3.5"),
    pytest.param("Hello-µ@ßöäüàá-UTF-8!!", id="case 6.2"), pytest.param("κόσμε", id="case 6.5"),
    pytest.param("\U0010ffff\ufffe\uffff\ufdd0", id="case 6.22")])
def test_a_reason_to_close_is_noted(end: End, reason: str) -> None:
    end.receive(end.closes(1000, reason.encode()))
    assert (end.websocket.close_code, end.websocket.close_reason) == (1000, reason)
    assert end.answers() == end.ours(CLOSE, struct.pack("!H", 1000))


def test_too_long_a_reason_is_refused(end: End) -> None:
    """Case 7.3.6."""
    end.fails(end.closes(1000, b"*" * 124), code=1002, text="more than 125 bytes")


@pytest.mark.parametrize("reason", [
    pytest.param(b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", id="cases 7.5.1 and 6.3"),
    pytest.param(b"\xce\xba\xe1\xbd", id="case 6.6, cut short"), pytest.param(b"\x80", id="case 6.14"),
    pytest.param(b"\xc0\xaf", id="case 6.18, overlong"), pytest.param(b"\xf4\x90\x80\x80", id="case 6.4.3"),
    pytest.param(b"\xfe", id="case 6.14, never used")])
def test_a_reason_that_is_not_utf_8_is_refused(end: End, reason: bytes) -> None:
    end.fails(end.closes(1000, reason), code=1007, text="not UTF-8")


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999],
                         ids=lambda code: f"case 7.7, {code}")
def test_a_good_code_is_echoed(end: End, code: int) -> None:
    end.receive_dripping(end.closes(code))
    assert end.websocket.close_code == code and end.websocket.error is None
    assert end.answers() == end.ours(CLOSE, struct.pack("!H", code))


@pytest.mark.parametrize("code", [
    *(pytest.param(code, id=f"case 7.9, {code}") for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)),
    1015, pytest.param(5000, id="case 7.13.1"), pytest.param(65535, id="case 7.13.2")])
def test_a_code_that_nobody_may_send_is_refused(end: End, code: int) -> None:
    end.fails(end.closes(code), code=1002, text=f"the status code {code}")
    with pytest.raises(LocalProtocolError, match=f"{code}"):
        end.websocket.close(code)


def test_closing_from_here_leaves_what_comes_alone_until_it_is_answered(end: End) -> None:
    end.websocket.close(CloseCode.GOING_AWAY, "bye")
    assert end.answers() == end.ours(CLOSE, struct.pack("!H", 1001) + b"bye")
    assert end.receive(end.theirs(BINARY, b"still on its way"), end.theirs(PING, b"?")) == b"still on its way"
    assert not end.websocket.ended and not end.websocket.has_answers
    end.receive(end.closes(1001))
    assert end.websocket.ended and not end.websocket.has_answers, "an answer is not answered"


def test_nothing_is_sent_behind_a_close(end: End) -> None:
    end.receive(end.theirs(PING, b"?"))
    end.websocket.close()
    end.websocket.close(CloseCode.INTERNAL_ERROR)
    assert end.answers() == end.ours(PONG, b"?") + end.ours(CLOSE, struct.pack("!H", 1000))
    with pytest.raises(LocalProtocolError):
        end.websocket.encode(b"too late")
    with pytest.raises(LocalProtocolError):
        end.websocket.ping()


def test_too_long_a_reason_is_not_sent(end: End) -> None:
    with pytest.raises(LocalProtocolError):
        end.websocket.close(1000, "ä" * 62)
    end.websocket.close(1000, "*" * 123)
    assert end.answers() == end.ours(CLOSE, struct.pack("!H", 1000) + b"*" * 123)


def test_an_end_below_without_a_close_is_a_breach(end: End) -> None:
    end.receive(end.theirs(BINARY, b"payload"))
    end.websocket.end_of_stream()
    assert isinstance(end.websocket.error, ConnectionBrokenError) and not end.websocket.ended


def test_an_end_below_is_the_end_for_who_has_closed_first(end: End) -> None:
    end.websocket.close()
    end.websocket.end_of_stream()
    assert end.websocket.ended and end.websocket.error is None


@pytest.mark.parametrize("cut", [lambda end: end.theirs(BINARY, b"payload")[:-1],
                                 lambda end: end.theirs(BINARY, b"payload")[:1],
                                 lambda end: end.theirs(BINARY, b"payload", fin=False)])
def test_an_end_below_amid_a_message_is_a_breach_in_any_case(end: End, cut: Callable[[End], bytes]) -> None:
    end.websocket.close()
    end.receive(cut(end))
    end.websocket.end_of_stream()
    assert isinstance(end.websocket.error, ConnectionBrokenError)


def test_an_end_below_changes_nothing_behind_a_close_or_a_violation(end: End) -> None:
    end.receive(end.closes(1000))
    end.websocket.end_of_stream()
    assert end.websocket.ended and end.websocket.error is None
    other = End(end.side)
    other.receive(other.theirs(TEXT))
    error = other.websocket.error
    other.websocket.end_of_stream()
    assert other.websocket.error is error and not other.websocket.ended


# What it may cost

def memory_of(end: End, chunks: Iterable[bytes]) -> int:
    """What is held beyond what was, once ``chunks`` have been received."""
    tracemalloc.start()
    try:
        for chunk in chunks:
            end.websocket.receive(chunk)
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_nothing_is_held_of_what_a_header_claims(end: End) -> None:
    assert memory_of(end, [end.theirs(BINARY, b"few", length=(1 << 63) - 1)]) < 10_000
    assert end.websocket.error is None


def test_thousands_of_fragments_and_pings_leave_nothing_behind(end: End) -> None:
    fragment, ping = end.theirs(CONTINUATION, b"x", fin=False), end.theirs(PING, b"?" * 125)
    some = fragment + ping + end.theirs(CONTINUATION, fin=False)
    end.receive(end.theirs(BINARY, fin=False))
    assert memory_of(end, itertools.repeat(some, 5000)) < 10_000
    assert end.websocket.error is None and end.answers() == end.ours(PONG, b"?" * 125)


@given(both_ends, st.lists(st.binary(max_size=60), max_size=12))
def test_anything_at_all_is_survived(end: End, chunks: list[bytes]) -> None:
    for chunk in chunks:
        end.websocket.receive(chunk)
    websocket = end.websocket
    assert not (websocket.ended and websocket.error is not None)
    assert websocket.closing is (websocket.ended or websocket.error is not None)
    end.answers()
    assert not websocket.has_answers


# What goes

@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_payload_is_encoded_as_one_binary_message(end: End, size: int, kind: type[bytes] | type[memoryview]) -> None:
    payload = os.urandom(size)
    assert b"".join(end.websocket.encode(kind(payload))) == end.ours(BINARY, payload)


def test_a_server_does_not_copy_what_it_sends() -> None:
    payload = b"payload" * 1000
    header, body = End(Side.SERVER).websocket.encode(payload)
    assert body is payload


def test_a_client_has_a_fresh_key_for_each_frame() -> None:
    keys = iter([b"key1", b"key2", b"key3"])
    client = WebSocket(Side.CLIENT, lambda size: next(keys))
    client.receive(frame(False, PING))
    frames = b"".join(client.encode(b"")), client.ping(), client.take_answers()
    assert [each[2:] for each in frames] == [b"key1", b"key2", b"key3"]


def test_a_ping_may_be_of_125_bytes_and_no_more(end: End) -> None:
    assert end.websocket.ping(b"*" * 125) == end.ours(PING, b"*" * 125)
    with pytest.raises(LocalProtocolError):
        end.websocket.ping(b"*" * 126)


def test_a_copy_goes_its_own_way(end: End) -> None:
    data = end.theirs(BINARY, b"payload") + end.closes(1000)
    begun = end.receive(data[:9])
    other = end.websocket.copy()
    assert begun + other.receive(data[9:]) == b"payload" and other.ended and other.has_answers
    assert not end.websocket.ended and not end.websocket.has_answers
    assert begun + end.receive(data[9:]) == b"payload" and end.websocket.ended


# Against another implementation

def their_end(side: Side) -> Protocol:
    if side is Side.SERVER:
        return ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=None)
    return ServerProtocol(state=State.OPEN, max_size=None)


@given(both_ends, st.lists(st.binary(max_size=300), max_size=10), some_cuts)
def test_another_implementation_and_this_one_understand_each_other(end: End, payloads: list[bytes],
                                                                   cuts: list[int]) -> None:
    other = their_end(end.side)
    for payload in payloads:
        other.send_binary(payload)
        other.send_ping(payload[:125])
        other.receive_data(b"".join(end.websocket.encode(payload)))
    assert end.receive_in_pieces(b"".join(other.data_to_send()), cuts) == b"".join(payloads)
    other.receive_data(end.answers())
    got = [(int(event.opcode), event.data) for event in other.events_received() if isinstance(event, Frame)]
    assert [data for opcode, data in got if opcode == BINARY] == payloads
    assert [data for opcode, data in got if opcode == PONG] == [payload[:125] for payload in payloads[-1:]]


def test_another_implementation_closes_in_agreement(end: End) -> None:
    other = their_end(end.side)
    other.send_close(1001, "going")
    end.receive(*other.data_to_send())
    assert end.websocket.ended and (end.websocket.close_code, end.websocket.close_reason) == (1001, "going")
    other.receive_data(end.answers())
    assert other.close_rcvd is not None and other.close_rcvd.code == 1001 and not other.parser_exc


def test_another_implementation_answers_our_close(end: End) -> None:
    other = their_end(end.side)
    end.websocket.close(1000, "done")
    other.receive_data(end.answers())
    assert other.close_rcvd is not None and (other.close_rcvd.code, other.close_rcvd.reason) == (1000, "done")
    end.receive(*other.data_to_send())
    assert end.websocket.ended and end.websocket.close_code == 1000


def test_another_implementation_hears_why_text_is_refused(end: End) -> None:
    other = their_end(end.side)
    other.send_text(b"text")
    end.receive(*other.data_to_send())
    other.receive_data(end.answers())
    assert other.close_rcvd is not None and other.close_rcvd.code == 1003
    assert other.parser_exc is None
