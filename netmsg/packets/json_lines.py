"""JSON, one document a line."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from ..errors import PacketEncodeError
from .codec import MAX_PACKET_SIZE
from .delimited import DelimitedFrames

__all__ = ["JSONCodec"]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"{number:.100} is out of range")
    return value


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_decode = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite).decode
_escaped_surrogate = re.compile(rb"\\u[dD][89a-fA-F]").search


class JSONCodec(DelimitedFrames[Any, Any]):
    """Packets are what JSON can express (RFC 8259), in UTF-8, each on a line of its own (https://jsonlines.org): so
    neither NaN nor the infinities (numbers that are too large for a ``float`` included), no half of a surrogate pair,
    and no empty line."""

    def __init__(self, *, max_packet_size: int = MAX_PACKET_SIZE) -> None:
        super().__init__(b"\n", max_packet_size)

    def _pack(self, packet: Any) -> bytes:
        try:
            return _encode(packet).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise PacketEncodeError(f"this {type(packet).__name__} cannot be expressed in JSON: {error}") from error

    def _unpack(self, content: bytes) -> Any:
        packet = _decode(content.decode())
        if _escaped_surrogate(content) is not None:
            _encode(packet).encode()  # fails where one of a pair has no other
        return packet
