"""JSON, one document a line."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from ..errors import PacketEncodeError
from .codec import MAX_PACKET_SIZE
from .delimited import DelimitedFrames

__all__ = ["JSONCodec"]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_decode = json.JSONDecoder(parse_constant=_refuse).decode


class JSONCodec(DelimitedFrames[Any, Any]):
    """Packets are what JSON can express (RFC 8259), in UTF-8, each on a line of its own (https://jsonlines.org): so
    neither NaN nor the infinities, and no empty line."""

    def __init__(self, *, max_packet_size: int = MAX_PACKET_SIZE) -> None:
        super().__init__(b"\n", max_packet_size)

    def pack(self, packet: Any) -> bytes:
        try:
            return _encode(packet).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise PacketEncodeError(f"this {type(packet).__name__} cannot be expressed in JSON: {error}") from error

    def unpack(self, content: bytes) -> Any:
        return _decode(content.decode())
