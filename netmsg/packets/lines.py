"""Lines of text."""

from __future__ import annotations

from ..errors import PacketEncodeError
from .codec import MAX_PACKET_SIZE
from .delimited import DelimitedFrames

__all__ = ["LineCodec"]


class LineCodec(DelimitedFrames[str, str]):
    """Packets are ``str``, one line each, without its ``newline`` (``"\\r\\n"`` for SMTP, telnet and the like).

    ``max_packet_size`` counts bytes.
    """

    def __init__(self, encoding: str = "utf-8", newline: str = "\n", *,
                 max_packet_size: int = MAX_PACKET_SIZE) -> None:
        if not isinstance(newline, str):
            raise TypeError(f"newline must be a str, not {type(newline).__name__}")
        try:
            delimiter = newline.encode(encoding)
        except (LookupError, UnicodeError) as error:
            raise ValueError(f"newline cannot be encoded: {error}") from error
        super().__init__(delimiter, max_packet_size)
        self.encoding = encoding
        if encoding.lower().replace("_", "-") == "utf-8":
            self.unpack = bytes.decode  # type: ignore[method-assign, assignment]  # no frame of our own: the hot path

    def pack(self, packet: str) -> bytes:
        try:
            return packet.encode(self.encoding)
        except (AttributeError, UnicodeError) as error:
            raise PacketEncodeError(f"this {type(packet).__name__} is no line of {self.encoding}: {error}") from error

    def encode(self, packet: str) -> bytes:
        # One step instead of three: the hot path of whoever answers requests.
        try:
            framed = packet.encode(self.encoding) + self.delimiter
        except (AttributeError, UnicodeError):
            return self.frame(self.pack(packet))  # which says what is wrong
        if framed.find(self.delimiter) != len(framed) - len(self.delimiter):
            return self.frame(self.pack(packet))
        return framed

    def unpack(self, content: bytes) -> str:
        return content.decode(self.encoding)
