"""Packets that end with a delimiter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..checks import check_delimiter
from ..errors import IncompleteReadError, PacketDecodeError, PacketEncodeError
from .codec import MAX_PACKET_SIZE
from .framed import FramedCodec, FrameDecoder, PlainFrames

__all__ = ["DelimitedCodec", "DelimitedDecoder", "DelimitedFrames"]

S = TypeVar("S")
R = TypeVar("R")
U = TypeVar("U")


class DelimitedFrames(FramedCodec[S, R]):
    """The framing; what stands in the frames is a subclass's business."""

    def __init__(self, delimiter: bytes, max_packet_size: int) -> None:
        FramedCodec.__init__(self, max_packet_size)
        self._delimiter = check_delimiter(delimiter)

    def _frame(self, content: bytes) -> bytes:
        framed = content + self._delimiter
        if framed.find(self._delimiter) != len(content):
            raise PacketEncodeError(f"the delimiter {self._delimiter!r} is in the packet: it would be taken for more")
        return framed

    def _decode_with(self, unpack: Callable[[bytes], U], data: bytes) -> U:
        """A datagram need not have the delimiter: it has an end of its own."""
        data = bytes(memoryview(data))
        return super()._decode_with(unpack, data if data.endswith(self._delimiter) else data + self._delimiter)

    def _frame_decoder(self, unpack: Callable[[bytes], U]) -> FrameDecoder[U]:
        return DelimitedDecoder(unpack, self._max_packet_size, self._delimiter)


class DelimitedCodec(PlainFrames, DelimitedFrames[bytes, bytes]):
    """Packets are ``bytes``, each followed by ``delimiter``, which must not occur in them."""

    def __init__(self, delimiter: bytes, *, max_packet_size: int = MAX_PACKET_SIZE) -> None:
        DelimitedFrames.__init__(self, delimiter, max_packet_size)


class DelimitedDecoder(FrameDecoder[R]):
    def __init__(self, unpack: Callable[[bytes], R], max_packet_size: int, delimiter: bytes) -> None:
        super().__init__(unpack, max_packet_size)
        self._delimiter = delimiter
        self._skipping = False  # the rest of a packet that is too long; only what may begin a delimiter is kept

    def _split(self, data: bytes) -> list[bytes | PacketDecodeError]:
        delimiter, longest = self._delimiter, self._max_packet_size
        frames: list[bytes | PacketDecodeError] = []
        if self._kept or self._skipping:
            overlap = min(len(delimiter) - 1, self._kept)  # of which the delimiter may have begun
            searched = bytes(self._buffer[self._kept - overlap:self._kept]) + data if overlap else data
            at = searched.find(delimiter)
            if at < 0:
                self._keep_beginning(data, frames)
                return frames
            if self._skipping:
                self._skipping = False
            elif self._kept - overlap + at > longest:
                frames.append(self._too_long((self._kept_bytes() + data)[:longest]))
            else:
                frames.append(bytes(self._buffer[:self._kept - overlap]) + searched[:at])
            data = searched[at + len(delimiter):]
            self._forget()
        contents = data.split(delimiter)
        rest = contents.pop()
        if len(data) > longest and max(map(len, contents), default=0) > longest:
            frames += [content if len(content) <= longest else self._too_long(content[:longest])
                       for content in contents]
        elif frames:
            frames += contents
        else:
            frames = contents  # type: ignore[assignment]
        if rest:
            self._keep_beginning(rest, frames)
        return frames

    def _keep_beginning(self, data: bytes, frames: list[bytes | PacketDecodeError]) -> None:
        """Keep what has no end yet, unless it is too long already."""
        self._keep(data)
        if not self._skipping and self._kept >= self._max_packet_size + len(self._delimiter):
            self._skipping = True
            frames.append(self._too_long(bytes(self._buffer[:self._max_packet_size])))
        if self._skipping:
            rest = bytes(self._buffer[max(0, self._kept - len(self._delimiter) + 1):self._kept])
            self._forget()
            if rest:
                self._keep(rest)

    def _too_long(self, beginning: bytes) -> PacketDecodeError:
        return PacketDecodeError(f"a packet of more than {self._max_packet_size} bytes", beginning)

    def end(self) -> None:
        if self._skipping:
            raise IncompleteReadError(b"")
        super().end()
