"""Codecs: bytes in, packets out, however the bytes are cut up. Nothing here has a network."""

from __future__ import annotations

import copy
import dataclasses
import errno
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pairs import Background
from support.wrong import wrong

from netmsg import (
    Codec, ConnectionBrokenError, Decoder, DelimitedCodec, IncompleteReadError, JSONCodec, LengthPrefixedCodec,
    LineCodec, NetstringCodec, PacketDecodeError, PacketEncodeError, StructCodec,
)
from netmsg.packets.receiving import decoded, decodes_by_itself, ending, has_failed, loss


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int


def make_point(fields: Any) -> Point:
    return Point(**fields)


class ShoutingCodec(Codec[str, str]):
    """A user's own, from the ground up: words between blanks."""

    def encode(self, packet: str) -> bytes:
        return packet.upper().encode() + b" "

    def decode(self, data: bytes) -> str:
        return data.decode().strip().lower()

    def decoder(self) -> Decoder[str]:
        return ShoutingDecoder()


class ShoutingDecoder(Decoder[str]):
    rest = b""

    def feed(self, data: bytes) -> list[str | PacketDecodeError]:
        *words, self.rest = (self.rest + data).split(b" ")
        return [word.decode().lower() for word in words]

    def end(self) -> None:
        if self.rest:
            raise IncompleteReadError(self.rest)


text = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\r"), max_size=20)
data = st.binary(max_size=20)
documents: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | text | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=5)

CODECS: dict[str, tuple[Codec[Any, Any], st.SearchStrategy[Any]]] = {
    "lines": (LineCodec(), text),
    "crlf": (LineCodec(newline="\r\n"), text),
    "latin-1": (LineCodec("latin-1"), st.text(st.characters(max_codepoint=255, blacklist_characters="\n"))),
    "json": (JSONCodec(), documents),
    "struct": (StructCodec("!HbQ"),
               st.tuples(st.integers(0, 65535), st.integers(-128, 127), st.integers(0, 2**64 - 1))),
    "length": (LengthPrefixedCodec(), data),
    "short-length": (LengthPrefixedCodec("!B"), data),
    "delimited": (DelimitedCodec(b"--"), data.filter(lambda packet: b"-" not in packet)),
    "netstrings": (NetstringCodec(), data),
    "mapped": (JSONCodec().map(encode=dataclasses.asdict, decode=make_point),
               st.builds(Point, st.integers(), st.integers())),
    "odd-newline": (LineCodec(newline="aa"), st.text("bc", max_size=5)),
    "own": (ShoutingCodec(), st.text("abc", min_size=1)),
    "own-mapped": (ShoutingCodec().map(encode=str, decode=len).map(decode=lambda size: "a" * size),
                   st.text("a", min_size=1)),
}
BUILT_IN = [name for name in CODECS if not name.startswith("own")]


def feed_in_pieces(decoder: Decoder[Any], wire: bytes, cuts: list[int]) -> list[Any]:
    packets: list[Any] = []
    edges = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    for start, end in zip(edges, edges[1:]):
        packets += decoder.feed(wire[start:end])
    return packets


@pytest.mark.parametrize("name", CODECS)
@given(draw=st.data())
def test_81_any_split_of_the_bytes_decodes_alike(name: str, draw: st.DataObject) -> None:
    codec, packets = CODECS[name]
    sent = draw.draw(st.lists(packets, max_size=5))
    wire = b"".join(map(codec.encode, sent))
    decoder = codec.decoder()
    assert feed_in_pieces(decoder, wire, draw.draw(st.lists(st.integers(0, 200), max_size=8))) == sent
    decoder.end()


def bad_or_good(packet: Any) -> Any:
    return (str(packet), packet.data) if isinstance(packet, PacketDecodeError) else packet


@pytest.mark.parametrize("codec", [
    LineCodec(max_packet_size=4), LineCodec(newline="aa", max_packet_size=9),
    LineCodec(newline="\r\n", max_packet_size=3), JSONCodec(max_packet_size=6),
    DelimitedCodec(b"aab", max_packet_size=4), LengthPrefixedCodec("!B", max_packet_size=5),
    NetstringCodec(max_packet_size=5), StructCodec("!2s", max_packet_size=2),
], ids=lambda codec: type(codec).__name__)
@given(wire=st.lists(st.sampled_from([b"a", b"b", b"\n", b"\r", b"\x03", b"\x00", b"1", b":", b",", b"1:a,", b"aab"]),
                     max_size=40).map(b"".join), cuts=st.lists(st.integers(0, 200), max_size=8))
def test_81_any_split_of_bad_bytes_does_too(codec: Codec[Any, Any], wire: bytes, cuts: list[int]) -> None:
    whole, pieces = codec.decoder(), codec.decoder()
    expected = [bad_or_good(packet) for packet in whole.feed(wire)]
    got = [bad_or_good(packet) for packet in feed_in_pieces(pieces, wire, cuts)]
    if loss(whole) is None:
        assert got == expected
    else:  # how much of what cannot be understood is shown depends on what has come of it
        assert got[:-1] == expected[:-1]
        assert loss(pieces) is not None
    endings: list[bytes | None] = []
    for decoder in (whole, pieces):
        try:
            decoder.end()
            endings.append(None)
        except IncompleteReadError as error:
            endings.append(error.partial)
    if loss(whole) is None:
        assert endings[0] == endings[1]


@pytest.mark.parametrize("name", CODECS)
@given(draw=st.data())
def test_83_a_datagram_is_one_packet(name: str, draw: st.DataObject) -> None:
    codec, packets = CODECS[name]
    packet = draw.draw(packets)
    assert codec.decode(codec.encode(packet)) == packet


@pytest.mark.parametrize("name", BUILT_IN)
@given(draw=st.data())
def test_83_a_datagram_of_two_packets_is_refused(name: str, draw: st.DataObject) -> None:
    codec, packets = CODECS[name]
    two = codec.encode(draw.draw(packets)) + codec.encode(draw.draw(packets))
    with pytest.raises(PacketDecodeError) as caught:
        codec.decode(two)
    assert caught.value.data


@pytest.mark.parametrize("codec", [StructCodec("!I"), LengthPrefixedCodec(), NetstringCodec()])
@pytest.mark.parametrize("wire", [b"", b"\0\0", b"3:ab", b"3:abc;"])
def test_83_a_datagram_of_less_than_a_packet_is_refused(codec: Codec[Any, Any], wire: bytes) -> None:
    if isinstance(codec, StructCodec) and len(wire) == 4:
        wire = wire[:3]
    with pytest.raises(PacketDecodeError):
        codec.decode(wire)


def test_83_the_end_of_a_datagram_ends_a_line() -> None:
    assert LineCodec().decode(b"hello") == "hello"
    assert JSONCodec().decode(b"[1]") == [1]


def test_70_a_whole_line_is_a_packet() -> None:
    assert LineCodec().decoder().feed(b"hello\n") == ["hello"]


def test_71_two_halves_are_one_packet() -> None:
    decoder = LineCodec().decoder()
    assert decoder.feed(b"hel") == []
    assert decoder.feed(b"lo\n") == ["hello"]


@pytest.mark.parametrize(("codec", "wire", "expected"), [
    (LineCodec(), b"a\n\xff\nb\n", ["a", b"\xff", "b"]),
    (JSONCodec(), b"1\n{\n2\n", [1, b"{", 2]),
    (JSONCodec(), b"1\n\n2\n", [1, b"", 2]),
    (JSONCodec().map(decode=make_point), b'{"x":1,"y":2}\n{"x":1}\n{"x":3,"y":4}\n',
     [Point(1, 2), b'{"x":1}', Point(3, 4)]),
    (LengthPrefixedCodec("!B").map(decode=lambda packet: packet.decode()), b"\x01a\x01\xff\x01b", ["a", b"\xff", "b"]),
])
def test_75_a_bad_packet_stands_in_its_place(codec: Codec[Any, Any], wire: bytes, expected: list[Any]) -> None:
    got = codec.decoder().feed(wire)
    assert [packet.data if isinstance(packet, PacketDecodeError) else packet for packet in got] == expected


def test_75_what_a_users_function_raises_is_the_cause() -> None:
    def refuse(packet: str) -> None:
        raise KeyError(packet)

    error = LineCodec().map(decode=refuse).decoder().feed(b"hello\n")[0]
    assert isinstance(error, PacketDecodeError)
    assert isinstance(error.__cause__, KeyError)
    assert error.data == b"hello"


def test_75_even_if_it_stops_an_iteration() -> None:
    def stop(packet: str) -> str:
        if packet == "b":
            raise StopIteration
        return packet

    got = LineCodec().map(decode=stop).decoder().feed(b"a\nb\nc\n")
    assert [isinstance(packet, PacketDecodeError) or packet for packet in got] == ["a", True, "c"]


def test_75_a_function_is_called_once_for_each_packet() -> None:
    seen = []

    def remember(packet: Any) -> Any:
        seen.append(packet)
        return packet

    JSONCodec().map(decode=remember).decoder().feed(b"1\n{\n2\n")
    assert seen == [1, 2]


@pytest.mark.parametrize(("codec", "long", "after"), [
    (LineCodec(max_packet_size=4), b"12345\n", b"ok\n"),
    (LineCodec(newline="\r\n", max_packet_size=4), b"12345\r\n", b"ok\r\n"),
    (LineCodec(max_packet_size=4), b"1234567890" * 100 + b"\n", b"ok\n"),
    (DelimitedCodec(b"--", max_packet_size=4), b"12345-6--", b"ok--"),
    (LengthPrefixedCodec("!H", max_packet_size=4), b"\0\x0512345", b"\0\x02ok"),
    (NetstringCodec(max_packet_size=4), b"5:12345,", b"2:ok,"),
])
@pytest.mark.parametrize("piece", [1, 2, 3, 7, 10_000])
def test_78_a_packet_that_is_too_long_is_an_error_and_no_tail_is_taken_for_one(
        codec: Codec[Any, Any], long: bytes, after: bytes, piece: int) -> None:
    decoder = codec.decoder()
    wire = after + long + after
    got: list[Any] = []
    for start in range(0, len(wire), piece):
        got += decoder.feed(wire[start:start + piece])
    assert [isinstance(packet, PacketDecodeError) for packet in got] == [False, True, False]
    assert got[0] == got[2] == codec.decode(after)
    assert len(got[1].data) <= 4
    decoder.end()


@pytest.mark.parametrize("codec", [LineCodec(max_packet_size=4), DelimitedCodec(b"\n", max_packet_size=4)])
def test_78_as_long_as_is_allowed_is_not_too_long(codec: Codec[Any, Any]) -> None:
    assert codec.decoder().feed(b"1234\n") == [codec.decode(b"1234")]


def test_78_it_is_told_as_soon_as_it_is_known() -> None:
    decoder = LineCodec(max_packet_size=4).decoder()
    assert decoder.feed(b"1234") == []
    assert isinstance(decoder.feed(b"5")[0], PacketDecodeError)
    assert decoder.feed(b"6" * 1000) == []
    assert decoder.feed(b"\nok\n") == ["ok"]


def test_78_what_is_too_long_is_not_kept() -> None:
    decoder = LineCodec(max_packet_size=1000).decoder()
    chunk = b"x" * 10_000
    decoder.feed(chunk)
    tracemalloc.start()
    try:
        for _ in range(1000):
            decoder.feed(chunk)
        assert tracemalloc.get_traced_memory()[0] < 50_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("codec", "wire"), [
    (NetstringCodec(), b"x:abc,"), (NetstringCodec(), b":,"), (NetstringCodec(), b"03:abc,"),
    (NetstringCodec(), b"3:abcd"), (NetstringCodec(), b"1" * 21), (LengthPrefixedCodec("!i"), b"\xff\xff\xff\xff"),
])
def test_78_where_no_packet_can_be_told_from_another_nothing_follows(codec: Codec[Any, Any], wire: bytes) -> None:
    decoder = codec.decoder()
    assert len(decoder.feed(codec.encode(b"good") + wire)) == 2
    assert loss(decoder) is not None
    assert decoder.feed(codec.encode(b"good")) == []
    decoder.end()


@pytest.mark.parametrize("name", ["lines", "crlf", "length", "delimited", "netstrings"])
def test_79_an_empty_packet_is_one(name: str) -> None:
    codec = CODECS[name][0]
    empty = "" if isinstance(codec, LineCodec) else b""
    assert codec.decoder().feed(codec.encode(empty) * 2) == [empty, empty]


@pytest.mark.parametrize(("codec", "packet"), [
    (LineCodec(), "a\nb"), (LineCodec(), "a\n"), (LineCodec(), "\ud800"), (LineCodec("ascii"), "ü"),
    (LineCodec(newline="\r\n"), "a\r\nb"), (LineCodec(), 5), (LineCodec(), b"a"), (LineCodec(), None),
    (DelimitedCodec(b"--"), b"a--b"), (DelimitedCodec(b"--"), b"a-"), (DelimitedCodec(b"--"), "text"),
    (DelimitedCodec(b"--"), 5), (JSONCodec(), float("nan")), (JSONCodec(), float("inf")), (JSONCodec(), object()),
    (JSONCodec(), "\ud800"), (JSONCodec(), {1, 2}), (StructCodec("!B"), (256,)), (StructCodec("!B"), (1, 2)),
    (StructCodec("!B"), 5), (StructCodec("!f"), (1e300,)),
    (StructCodec("!B"), ("a",)), (LengthPrefixedCodec("!B"), bytes(256)),
    (LengthPrefixedCodec(), "text"), (NetstringCodec(), "text"), (NetstringCodec(), None),
])
def test_79_what_cannot_be_expressed_is_refused(codec: Codec[Any, Any], packet: Any) -> None:
    with pytest.raises(PacketEncodeError):
        codec.encode(packet)


def test_79_circular_and_deep_documents_are_refused() -> None:
    circular: list[Any] = []
    circular.append(circular)
    deep: Any = None
    for _ in range(100_000):
        deep = [deep]
    for document in (circular, deep):
        with pytest.raises(PacketEncodeError):
            JSONCodec().encode(document)
    while deep:
        deep = deep[0]  # or taking it apart would be as deep


def fails_with(error: Exception) -> Any:
    def fail(packet: Any) -> Any:
        raise error
    return fail


@pytest.mark.parametrize("error", [TimeoutError("alarm"), OSError("of a signal handler")])
def test_what_a_signal_handler_raises_is_no_bad_packet_in_the_main_thread_alone(error: OSError) -> None:
    codec = LineCodec().map(encode=fails_with(error), decode=fails_with(error))
    for call in (lambda: codec.encode("x"), lambda: codec.decode(b"x\n"), lambda: codec.decoder().feed(b"x\n"),
                 lambda: decoded(codec.decoder(), b"x\ny\n")):
        with pytest.raises(OSError, match=str(error)):
            call()
    with pytest.raises(PacketEncodeError):
        Background(codec.encode, "x").result()
    with pytest.raises(PacketDecodeError):
        Background(codec.decode, b"x\n").result()
    bad, = Background(codec.decoder().feed, b"x\n").result()
    assert isinstance(bad, PacketDecodeError)


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no file"), ConnectionBrokenError("gone")])
def test_a_users_function_may_fail_with_an_error_of_the_system_anywhere(error: OSError) -> None:
    codec = LineCodec().map(encode=fails_with(error), decode=fails_with(error))
    with pytest.raises(PacketEncodeError):
        codec.encode("x")
    bad, = codec.decoder().feed(b"x\n")
    assert isinstance(bad, PacketDecodeError)


@pytest.mark.parametrize("inner", [LineCodec(newline=" "), ShoutingCodec()], ids=["ours", "own"])
def test_without_one_of_its_functions_packets_stay_as_they_are_in_that_direction(inner: Codec[str, str]) -> None:
    numbers = inner.map(encode=str)
    assert numbers.encode(wrong(7)) == b"7 "
    assert numbers.decode(b"abc ") == "abc" and numbers.decoder().feed(b"abc d") == ["abc"]
    sizes = inner.map(decode=len)
    assert sizes.encode("A") == b"A "
    assert sizes.decode(b"abc ") == 3 and sizes.decoder().feed(b"abc d") == [3]


@pytest.mark.parametrize("inner", [LineCodec(newline=" "), ShoutingCodec()], ids=["ours", "own"])
def test_a_users_function_may_say_itself_what_is_wrong_with_a_packet(inner: Codec[str, str]) -> None:
    def check(packet: str) -> str:
        if packet == "b":
            raise PacketDecodeError("not this one", b"mine")
        return packet

    refusal = PacketEncodeError("not this one either")
    codec = inner.map(encode=fails_with(refusal), decode=check)
    with pytest.raises(PacketEncodeError) as caught:
        codec.encode("a")
    assert caught.value is refusal
    with pytest.raises(PacketDecodeError, match="not this one"):
        codec.decode(b"b ")
    a, b, c = codec.decoder().feed(b"a b c ")
    assert (a, str(b), b.data, c) == ("a", "not this one", b"mine", "c")


def test_79_what_a_users_function_raises_is_refused_too() -> None:
    with pytest.raises(PacketEncodeError) as caught:
        JSONCodec().map(encode=dataclasses.asdict).encode(wrong(5))
    assert isinstance(caught.value.__cause__, TypeError)


def test_79_bytes_like_objects_are_bytes() -> None:
    codecs: list[Any] = [DelimitedCodec(b";"), LengthPrefixedCodec(), NetstringCodec()]
    for codec in codecs:
        assert codec.decode(codec.encode(bytearray(b"abc"))) == b"abc"
        assert codec.decode(codec.encode(memoryview(b"abc"))) == b"abc"
        assert codec.decoder().feed(memoryview(codec.encode(b"abc"))) == [b"abc"]


@pytest.mark.parametrize("wire", [b"[" * 100_000, b"\xff", b"NaN", b"[Infinity]", b"-Infinity", b"{", b"", b"1 2",
                                  b"'a'", b"{\"a\":}", b"\xef\xbb\xbf1", b"1" * 10_000],
                         ids=lambda wire: repr(wire[:10]))
def test_80_what_is_not_json_is_an_error(wire: bytes) -> None:
    codec = JSONCodec()
    first, second = codec.decoder().feed(wire + b"\n[1]\n")
    assert isinstance(first, PacketDecodeError)
    assert first.data == wire
    assert second == [1]
    with pytest.raises(PacketDecodeError):
        codec.decode(wire)


@pytest.mark.parametrize("wire", [b"1e400", b"-1e400", b"[1e999999999999]", b"1" * 400 + b".0"])
def test_80_a_number_that_no_float_can_hold_is_an_error(wire: bytes) -> None:
    """It would be read as an infinity, which JSON cannot express."""
    first, second = JSONCodec().decoder().feed(wire + b"\n[1e308,-1.5,0.0,1e-400]\n")
    assert isinstance(first, PacketDecodeError)
    assert first.data == wire
    assert second == [1e308, -1.5, 0.0, 0.0]


@pytest.mark.parametrize("wire", [rb'"\ud800"', rb'"\uDFFF"', rb'{"\udc00": 1}', rb'["fine", "\uD83Dx"]',
                                  rb'"\ude00\ud83d"'])
def test_80_half_of_a_surrogate_pair_is_an_error(wire: bytes) -> None:
    """It could not be sent on."""
    with pytest.raises(PacketDecodeError):
        JSONCodec().decode(wire)


@pytest.mark.parametrize("wire", [rb'"\ud83d\ude00"', rb'"\uD83D\uDE00 and \u00e9"', rb'"\\ud800"'])
def test_80_whole_pairs_and_backslashes_are_none(wire: bytes) -> None:
    packet = JSONCodec().decode(wire)
    assert JSONCodec().decode(JSONCodec().encode(packet)) == packet


def test_80_a_line_ends_with_lf_or_as_json_allows_with_crlf() -> None:
    assert JSONCodec().decoder().feed(b'{"a": 1}\r\n') == [{"a": 1}]


def test_80_documents_are_compact_utf8_on_one_line() -> None:
    assert JSONCodec().encode({"a": "ü\n", "b": [1, 2]}) == '{"a":"ü\\n","b":[1,2]}\n'.encode()


@pytest.mark.parametrize("name", BUILT_IN)
@given(draw=st.data())
def test_the_end_in_the_middle_of_a_packet_is_told(name: str, draw: st.DataObject) -> None:
    codec, packets = CODECS[name]
    wire = codec.encode(draw.draw(packets))
    cut = draw.draw(st.integers(1, len(wire)))
    decoder = codec.decoder()
    got = decoder.feed(wire[:cut])
    if cut == len(wire):
        decoder.end()
    elif not got:  # two characters may be a delimiter and the first of them a packet
        with pytest.raises(IncompleteReadError) as caught:
            decoder.end()
        assert caught.value.partial == wire[:cut]


@pytest.mark.parametrize("name", BUILT_IN)
@given(draw=st.data())
def test_a_copy_undoes_what_was_fed_after_it(name: str, draw: st.DataObject) -> None:
    """What a client in the main thread does, where Ctrl-C may come at any moment."""
    codec, packets = CODECS[name]
    sent = draw.draw(st.lists(packets, min_size=1, max_size=4))
    wire = b"".join(map(codec.encode, sent))
    first, second = sorted(draw.draw(st.tuples(st.integers(0, len(wire)), st.integers(0, len(wire)))))
    decoder = codec.decoder()
    got = decoder.feed(wire[:first])
    copy.copy(decoder).feed(wire[first:second])  # cut short, and nothing of it counts
    assert got + decoder.feed(wire[first:]) == sent


class Counted(bytes):
    """Counts the bytes that are searched."""

    searched = 0

    def find(self, *arguments: Any) -> int:
        Counted.searched += len(self)
        return super().find(*arguments)


@pytest.mark.parametrize("codec", [LineCodec(max_packet_size=2**20), DelimitedCodec(b"\n", max_packet_size=2**20)],
                         ids=["lines", "delimited"])
@pytest.mark.parametrize("size", [64, 4096])
def test_decoding_is_linear_in_the_size_of_a_packet(codec: Codec[Any, Any], size: int) -> None:
    """Every byte is searched once for the delimiter, however the packet is cut up (the first piece is split)."""
    Counted.searched = 0
    decoder: Any = codec.decoder()
    for _ in range(2**20 // size):
        assert decoder._split(Counted(b"x" * size)) == []
    assert [len(packet) for packet in decoder._split(Counted(b"\n"))] == [2**20]
    assert Counted.searched == 2**20 + 1 - size


@pytest.mark.parametrize("make", [
    lambda: LineCodec(newline=""), lambda: LineCodec("no-such-encoding"), lambda: LineCodec("ascii", newline="ü"),
    lambda: DelimitedCodec(b""), lambda: StructCodec("!"), lambda: StructCodec("what"), lambda: StructCodec(""),
    lambda: StructCodec("!8s", max_packet_size=7), lambda: LengthPrefixedCodec("!II"),
    lambda: LengthPrefixedCodec("!f"), lambda: LengthPrefixedCodec("!s"), lambda: LengthPrefixedCodec("!?"),
    lambda: LengthPrefixedCodec("what"),
    lambda: LineCodec(max_packet_size=0), lambda: JSONCodec(max_packet_size=-1),
])
def test_bad_values_are_refused_at_once(make: Any) -> None:
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize("make", [
    lambda: LineCodec(newline=wrong(5)), lambda: DelimitedCodec(wrong("--")), lambda: DelimitedCodec(wrong(None)),
    lambda: LineCodec(max_packet_size=wrong("5")), lambda: JSONCodec(max_packet_size=wrong(1.5)),
    lambda: JSONCodec().map(encode=wrong(5)),
    lambda: JSONCodec().decoder().feed(wrong("text")), lambda: JSONCodec().decoder().feed(wrong(5)),
])
def test_bad_types_are_refused_at_once(make: Any) -> None:
    with pytest.raises(TypeError):
        make()


# Decoders that fail

class Failing(Decoder[int]):
    """Lines of digits; nobody has thought of anything else."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[int | PacketDecodeError]:
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [int(line) for line in lines]

    def end(self) -> None:
        if self.rest:
            raise KeyError("not even in the end")


def test_what_a_decoder_raises_is_a_bad_packet_and_nothing_follows() -> None:
    decoder = Failing()
    assert decoded(decoder, b"1\n2\n3") == [2, 1]
    (error,) = decoded(decoder, b"\nx\n4\n")
    assert isinstance(error, PacketDecodeError)
    assert error.data == b"\nx\n4\n"
    assert isinstance(error.__cause__, ValueError)
    lost = loss(decoder)
    assert lost is not None and "x" in str(lost.__cause__)
    assert has_failed(decoder)


def keeps_nothing_alive(error: BaseException | None) -> bool:
    """Whether neither this error nor what caused it has a traceback, and with it the frames that it came through."""
    while error is not None and error.__traceback__ is None:
        error = error.__cause__ or error.__context__
    return error is None


def test_what_is_kept_of_an_error_keeps_no_frames_alive() -> None:
    decoder = Failing()
    decoded(decoder, b"x\n")
    lost = loss(decoder)
    assert lost is not None and keeps_nothing_alive(lost)
    netstrings = NetstringCodec().decoder()
    (error,) = netstrings.feed(b"nonsense")
    assert isinstance(error, PacketDecodeError)
    with pytest.raises(PacketDecodeError):
        raise error
    lost = loss(netstrings)
    assert lost is not None and keeps_nothing_alive(lost)


def test_what_the_end_of_a_decoder_raises_is_an_end_in_the_middle() -> None:
    decoder = Failing()
    decoded(decoder, b"12")
    error = ending(decoder)
    assert isinstance(error, IncompleteReadError)
    assert isinstance(error.__cause__, KeyError)


@pytest.mark.parametrize(("codec", "ours"), [
    (LineCodec(), True), (JSONCodec(), True), (StructCodec("!I"), True), (LengthPrefixedCodec(), True),
    (DelimitedCodec(b";"), True), (NetstringCodec(), True), (JSONCodec().map(encode=str), True),
    (JSONCodec().map(decode=make_point), False), (JSONCodec().map(decode=make_point).map(encode=str), False),
    (ShoutingCodec(), False), (ShoutingCodec().map(encode=str), False), (type("Mine", (LineCodec,), {})(), False),
], ids=["lines", "JSON", "structs", "lengths", "delimited", "netstrings",
        "JSON, encoded otherwise", "JSON, decoded otherwise", "JSON, both", "a codec of one's own",
        "the same, encoded otherwise", "a subclass of ours"])
def test_whose_code_decodes(codec: Codec[Any, Any], ours: bool) -> None:
    assert decodes_by_itself(codec) == ours
