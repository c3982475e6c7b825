"""Targets: the codecs of packets."""

from __future__ import annotations

from typing import Any, Final

from netmsg import (
    Codec, Decoder, DelimitedCodec, IncompleteReadError, JSONCodec, LengthPrefixedCodec, LineCodec, NetstringCodec,
    PacketDecodeError, PacketEncodeError, RemoteProtocolError, StructCodec,
)
from netmsg.packets.receiving import decoded, ending, has_failed, loss

from .inputs import Input

__all__ = ["delimited_packets", "json_packets", "length_prefixed_packets", "line_packets", "netstring_packets",
           "struct_packets"]

SMALL: Final = 20
"""Bytes that a packet of the first codec of each kind may have."""
LARGE: Final = 4000
OVERHEAD: Final = 24
"""Bytes that a header or a delimiter takes at most."""

Codecs = tuple[Codec[Any, Any], ...]

DELIMITED: Final[Codecs] = (DelimitedCodec(b"--", max_packet_size=SMALL), DelimitedCodec(b"aab", max_packet_size=LARGE),
                            DelimitedCodec(b"\0", max_packet_size=LARGE))
JSON: Final[Codecs] = (JSONCodec(max_packet_size=SMALL), JSONCodec(max_packet_size=LARGE))
LENGTHS: Final[Codecs] = (LengthPrefixedCodec("!H", max_packet_size=SMALL),
                          LengthPrefixedCodec(max_packet_size=LARGE), LengthPrefixedCodec("!b", max_packet_size=LARGE),
                          LengthPrefixedCodec("<Q", max_packet_size=LARGE))
LINES: Final[Codecs] = (LineCodec(max_packet_size=SMALL), LineCodec(max_packet_size=LARGE),
                        LineCodec(newline="\r\n", max_packet_size=LARGE), LineCodec("latin-1", max_packet_size=LARGE),
                        LineCodec(newline="aa", max_packet_size=LARGE), LineCodec("utf-16-le", max_packet_size=LARGE))
NETSTRINGS: Final[Codecs] = (NetstringCodec(max_packet_size=SMALL), NetstringCodec(max_packet_size=LARGE))
STRUCTS: Final[Codecs] = (StructCodec("!2s", max_packet_size=2), StructCodec("!HbQ", max_packet_size=LARGE),
                          StructCodec("<d?3s", max_packet_size=LARGE), StructCodec("B", max_packet_size=LARGE))


def as_servers_do(decoder: Decoder[Any], chunk: bytes) -> list[Any]:
    packets = decoded(decoder, chunk)[::-1]
    while decoder._left:
        packets += decoded(decoder, b"")[::-1]
    assert not has_failed(decoder)
    return packets


def comparable(packet: Any) -> tuple[str, object]:
    """Floats that are no numbers are not even what they are themselves."""
    return (str(packet), packet.data) if isinstance(packet, PacketDecodeError) else ("", repr(packet))


def decoded_alike(codecs: Codecs, data: bytes) -> None:
    """However the stream is cut the same packets come out, with an error in the place of each that is none; so they do
    by the way of those who ask for a few at a time. What cannot be told apart any more is lost for good. A packet,
    written and read again, is the same one; what has no end yet is no longer than a packet may be. Of a datagram one
    packet comes, or a `PacketDecodeError`."""
    drawn = Input(data)
    codec = codecs[drawn.choice % len(codecs)]
    longest = codec._max_packet_size  # type: ignore[attr-defined]
    whole, cut = codec.decoder(), codec.decoder()
    expected = whole.feed(drawn.data)
    got: list[Any] = []
    for chunk in drawn.pieces():
        got += as_servers_do(cut, chunk)
    if loss(whole) is None:
        assert list(map(comparable, got)) == list(map(comparable, expected))
        assert loss(cut) is None
        check_end(whole, cut, longest)
    else:  # how much of what cannot be understood is shown depends on what has come of it
        assert list(map(comparable, got[:-1])) == list(map(comparable, expected[:-1]))
        assert isinstance(loss(cut), RemoteProtocolError) and isinstance(got[-1], PacketDecodeError)
        assert cut.feed(drawn.data) == whole.feed(drawn.data) == []
    for packet in expected:
        if isinstance(packet, PacketDecodeError):
            assert len(packet.data) <= longest + OVERHEAD
        else:
            comes_again(codec, packet)
    is_one_or_refused(codec, drawn.data)


def check_end(whole: Decoder[Any], cut: Decoder[Any], longest: int) -> None:
    ends = ending(whole), ending(cut)
    assert type(ends[0]) is type(ends[1]) and str(ends[0]) == str(ends[1])
    for end in ends:
        if isinstance(end, IncompleteReadError):
            assert len(end.partial) <= longest + OVERHEAD


def comes_again(codec: Codec[Any, Any], packet: Any) -> None:
    wire = codec.encode(packet)
    if len(wire) <= codec._max_packet_size:  # type: ignore[attr-defined]  # 1e9 is shorter than 1000000000.0
        assert list(map(comparable, codec.decoder().feed(wire))) == [comparable(packet)]


def is_one_or_refused(codec: Codec[Any, Any], datagram: bytes) -> None:
    try:
        packet = codec.decode(datagram)
    except PacketDecodeError as error:
        assert isinstance(error.data, bytes)
    else:
        comes_again(codec, packet)


def delimited_packets(data: bytes) -> None:
    decoded_alike(DELIMITED, data)


def json_packets(data: bytes) -> None:
    try:
        decoded_alike(JSON, data)
    except PacketEncodeError as error:  # what is nested so deeply that it could be read, and not be written
        assert isinstance(error.__cause__, RecursionError)


def length_prefixed_packets(data: bytes) -> None:
    decoded_alike(LENGTHS, data)


def line_packets(data: bytes) -> None:
    decoded_alike(LINES, data)


def netstring_packets(data: bytes) -> None:
    decoded_alike(NETSTRINGS, data)


def struct_packets(data: bytes) -> None:
    decoded_alike(STRUCTS, data)


for function in (delimited_packets, json_packets, length_prefixed_packets, line_packets, netstring_packets,
                 struct_packets):
    function.__doc__ = decoded_alike.__doc__
