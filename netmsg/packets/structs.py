"""Packets of one size."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ..errors import PacketEncodeError
from .codec import MAX_PACKET_SIZE
from .framed import FramedCodec, FrameDecoder, PrefixDecoder

__all__ = ["StructCodec"]

R = TypeVar("R")
U = TypeVar("U")


class StructCodec(FramedCodec[Sequence[Any], tuple[Any, ...]]):
    """Packets are tuples of what ``format`` says, as the ``struct`` module has it (``"!"`` for network order)."""

    def __init__(self, format: str | bytes, *, max_packet_size: int = MAX_PACKET_SIZE) -> None:
        super().__init__(max_packet_size)
        try:
            self._struct = struct.Struct(format)
        except struct.error as error:
            raise ValueError(f"no struct format: {error}") from error
        if not 0 < self._struct.size <= max_packet_size:
            raise ValueError(f"packets of {self._struct.size} bytes: from 1 to {max_packet_size} are allowed")

    def _pack(self, packet: Sequence[Any]) -> bytes:
        try:
            return self._struct.pack(*packet)
        except (struct.error, TypeError, OverflowError) as error:
            raise PacketEncodeError(
                f"this {type(packet).__name__} does not fit {self._struct.format!r}: {error}") from error

    def _unpack(self, content: bytes) -> tuple[Any, ...]:
        return self._struct.unpack(content)

    def _frame(self, content: bytes) -> bytes:
        return content

    def _frame_decoder(self, unpack: Callable[[bytes], U]) -> FrameDecoder[U]:
        return _FixedDecoder(unpack, self._max_packet_size, self._struct.size)


class _FixedDecoder(PrefixDecoder[R]):
    def __init__(self, unpack: Callable[[bytes], R], max_packet_size: int, size: int) -> None:
        super().__init__(unpack, max_packet_size)
        self._size = size

    def _header(self, data: bytes, at: int) -> tuple[int, int] | None:
        return at, self._size
