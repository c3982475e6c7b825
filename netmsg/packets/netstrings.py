"""Netstrings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from .codec import MAX_PACKET_SIZE
from .framed import FrameDecoder, PlainFrames, PrefixDecoder

__all__ = ["NetstringCodec"]

MOST_DIGITS: Final = 20

R = TypeVar("R")
U = TypeVar("U")


class NetstringCodec(PlainFrames):
    """Packets are ``bytes``, sent as ``5:hello,`` (https://cr.yp.to/proto/netstrings.txt)."""

    def __init__(self, *, max_packet_size: int = MAX_PACKET_SIZE) -> None:
        super().__init__(max_packet_size)

    def _frame(self, content: bytes) -> bytes:
        return b"%d:%b," % (len(content), content)

    def _frame_decoder(self, unpack: Callable[[bytes], U]) -> FrameDecoder[U]:
        return _NetstringDecoder(unpack, self._max_packet_size, b",")


class _NetstringDecoder(PrefixDecoder[R]):
    def _header(self, data: bytes, at: int) -> tuple[int, int] | None:
        colon = data.find(b":", at, at + MOST_DIGITS + 1)
        digits = data[at:at + MOST_DIGITS + 1] if colon < 0 else data[at:colon]
        if digits and not digits.isdigit() or len(digits) > MOST_DIGITS or (digits.startswith(b"0") and digits != b"0"):
            raise ValueError(f"{digits!r} is no length of a netstring")
        if colon < 0:
            return None
        if not digits:
            raise ValueError("a netstring without a length")
        return colon + 1, int(digits)
