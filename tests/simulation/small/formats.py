"""Packet formats, with what is a packet of each and what is none."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from netmsg import (
    DelimitedCodec, JSONCodec, LengthPrefixedCodec, LineCodec, NetstringCodec, PacketDecodeError, StructCodec,
)
from netmsg.errors import IncompleteReadError

__all__ = ["FORMATS", "Format", "understood"]

LONGEST: Final = 80
"""Bytes of a packet."""


@dataclass(frozen=True)
class Format:
    codec: Any
    packet: Callable[[random.Random, str], Any]
    """One of a text."""
    bad: tuple[bytes, ...] = ()
    """In the places of packets; the others can be told from them."""
    fatal: tuple[bytes, ...] = ()
    """Behind these no packet can be told from another."""


def _text(dice: random.Random, text: str) -> str:
    return text


def _bytes(dice: random.Random, text: str) -> bytes:
    return text.encode()


def _object(dice: random.Random, text: str) -> object:
    return dice.choice(({"text": text}, [text, None, 1.5], text))


FORMATS: Final = {
    "lines": Format(LineCodec(max_packet_size=LONGEST), _text, (b"\xff\xfe\n", b"x" * 200 + b"\n", b"\xc3\n")),
    "lines of telnet": Format(LineCodec("latin-1", "\r\n", max_packet_size=LONGEST), _text, (b"x" * 200 + b"\r\n",)),
    "delimited": Format(DelimitedCodec(b"-+-", max_packet_size=LONGEST), _bytes, (b"x" * 81 + b"-+-",)),
    "JSON": Format(JSONCodec(max_packet_size=LONGEST), _object, (b"\n", b"NaN\n", b"{\n", b"[" * 200 + b"\n")),
    "netstrings": Format(NetstringCodec(max_packet_size=LONGEST), _bytes, (b"100:" + b"y" * 100 + b",",),
                         (b"x:", b"3:abcd", b"007:")),
    "prefixed": Format(LengthPrefixedCodec("!h", max_packet_size=LONGEST), _bytes, (b"\0\x64" + bytes(100),),
                       (b"\x80\0",)),
    "structs": Format(StructCodec("!I12s"), lambda dice, text: (dice.getrandbits(32), text.encode().ljust(12)[:12])),
    "mapped": Format(LineCodec(max_packet_size=LONGEST).map(encode=repr, decode=lambda line: int(line.split(".")[0])),
                     lambda dice, text: dice.randrange(10**dice.randrange(1, 30)), (b"none\n",)),
}


def understood(format: Format, data: bytes) -> tuple[list[Any], bool]:
    """All that ``data`` is, in one piece, with ``"bad"`` in the places of bad packets; and whether it ends between
    two of them."""
    decoder = format.codec.decoder()
    packets = ["bad" if isinstance(packet, PacketDecodeError) else packet for packet in decoder.feed(data)]
    try:
        decoder.end()
    except IncompleteReadError:
        return packets, False
    return packets, True


def stream_of(format: Format, dice: random.Random, count: int) -> bytes:
    """``count`` packets, a few of them bad, and perhaps a part of one more."""
    parts = []
    for number in range(count):
        text = f"{number}." + "z" * dice.choice((0, 0, 3, 40))
        good: bytes = format.codec.encode(format.packet(dice, text))
        parts.append(dice.choice(format.bad) if format.bad and dice.random() < 0.06 else good)
    if format.bad and dice.random() < 0.05:
        parts.append(dice.choice(format.bad) * 150)  # more than are told of at a time
    if format.fatal and dice.random() < 0.1:
        parts.insert(dice.randrange(count), dice.choice(format.fatal))
    data = b"".join(parts)
    return data[:-1] if dice.random() < 0.15 else data
