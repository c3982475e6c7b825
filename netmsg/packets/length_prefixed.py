"""Packets after their length."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeVar

from ..errors import PacketEncodeError
from .codec import MAX_PACKET_SIZE
from .framed import FrameDecoder, PlainFrames, PrefixDecoder

__all__ = ["LengthPrefixedCodec"]

R = TypeVar("R")
U = TypeVar("U")


class LengthPrefixedCodec(PlainFrames):
    """Packets are ``bytes``, each behind its length, an integer in the ``struct`` format given."""

    def __init__(self, format: str = "!I", *, max_packet_size: int = MAX_PACKET_SIZE) -> None:
        super().__init__(max_packet_size)
        try:
            self._prefix = struct.Struct(format)
            fields = self._prefix.unpack(bytes(self._prefix.size))
        except struct.error as error:
            raise ValueError(f"no struct format: {error}") from error
        if len(fields) != 1 or type(fields[0]) is not int:
            raise ValueError(f"one integer is needed, and {format!r} is not that")

    def _frame(self, content: bytes) -> bytes:
        try:
            return self._prefix.pack(len(content)) + content
        except struct.error as error:
            raise PacketEncodeError(
                f"{len(content)} bytes are too long for the prefix {self._prefix.format!r}") from error

    def _frame_decoder(self, unpack: Callable[[bytes], U]) -> FrameDecoder[U]:
        return _LengthPrefixedDecoder(unpack, self._max_packet_size, self._prefix)


class _LengthPrefixedDecoder(PrefixDecoder[R]):
    def __init__(self, unpack: Callable[[bytes], R], max_packet_size: int, prefix: struct.Struct) -> None:
        super().__init__(unpack, max_packet_size)
        self._prefix = prefix

    def _header(self, data: bytes, at: int) -> tuple[int, int] | None:
        start = at + self._prefix.size
        if start > len(data):
            return None
        length: int = self._prefix.unpack_from(data, at)[0]
        if length < 0:
            raise ValueError(f"a length of {length}")
        return start, length
