"""Lines of text."""

from __future__ import annotations

import codecs
from typing import Any, Final

from ..checks import check_str
from ..errors import PacketDecodeError, PacketEncodeError
from .codec import MAX_PACKET_SIZE, Decoder
from .delimited import DelimitedDecoder, DelimitedFrames

__all__ = ["LineCodec"]


UNAMBIGUOUS: Final = (b"\n", b"\r\n", b"\r", b"\0")
"""Delimiters of which none can begin inside of another: the last one in some bytes ends a line in any case."""


class LineCodec(DelimitedFrames[str, str]):
    """Packets are ``str``, one line each, without its ``newline`` (``"\\r\\n"`` for SMTP, telnet and the like).

    ``max_packet_size`` counts bytes.
    """

    def __init__(self, encoding: str = "utf-8", newline: str = "\n", *,
                 max_packet_size: int = MAX_PACKET_SIZE) -> None:
        check_str("newline", newline)
        try:
            delimiter = newline.encode(encoding)
        except (LookupError, UnicodeError) as error:
            raise ValueError(f"newline cannot be encoded: {error}") from error
        super().__init__(delimiter, max_packet_size)
        self._encoding = encoding

    def _pack(self, packet: str) -> bytes:
        try:
            return packet.encode(self._encoding)
        except (AttributeError, UnicodeError) as error:
            raise PacketEncodeError(f"this {type(packet).__name__} is no line of {self._encoding}: {error}") from error

    def encode(self, packet: str) -> bytes:
        # One step instead of three: the hot path of whoever answers requests.
        try:
            framed = packet.encode(self._encoding) + self._delimiter
        except (AttributeError, UnicodeError):
            return self._frame(self._pack(packet))  # which says what is wrong
        if framed.find(self._delimiter) != len(framed) - len(self._delimiter):
            return self._frame(self._pack(packet))
        return framed

    def _unpack(self, content: bytes) -> str:
        return content.decode(self._encoding)

    def decoder(self) -> Decoder[str]:
        if codecs.lookup(self._encoding).name == "utf-8" and self._delimiter in UNAMBIGUOUS:
            return _UTF8Decoder(self._unpack, self._max_packet_size, self._delimiter)
        return super().decoder()


class _UTF8Decoder(DelimitedDecoder[str]):
    """Many lines are decoded at once and then cut apart, which in UTF-8 comes to the same: the hot path of whoever
    reads lines in masses."""

    def _feed_some(self, data: bytes) -> list[str | PacketDecodeError]:
        if type(data) is not bytes or self._left or self._skipping or self._kept > len(data):
            return super()._feed_some(data)
        whole = self._kept_bytes() + data if self._kept else data
        end = whole.rfind(self._delimiter)
        if end < 0 or len(whole) > self._max_packet_size:
            return super()._feed_some(data)
        try:
            lines: Any = whole[:end].decode().split(self._delimiter.decode())
        except UnicodeDecodeError:
            return super()._feed_some(data)
        rest = whole[end + len(self._delimiter):]
        self._forget()
        if rest:
            self._keep(rest)
        packets: list[str | PacketDecodeError] = lines
        return packets
