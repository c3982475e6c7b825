"""Codecs that first cut the stream into frames of bytes and then, by itself, make a packet of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from ..checks import check_count
from ..errors import IncompleteReadError, PacketDecodeError, PacketEncodeError, bare
from ..interrupts import is_of_a_signal_handler
from .codec import MAX_PACKET_SIZE, Codec, Decoder, MappedCodec

__all__ = ["FrameDecoder", "FramedCodec", "PlainFrames", "PrefixDecoder"]

NOTHING: Final = bytearray()
"""In the place of a buffer in which nothing counts."""
MOST_BAD: Final = 64
"""Bad packets that are made errors of at a time."""

S = TypeVar("S")
R = TypeVar("R")
T = TypeVar("T")
U = TypeVar("U")


class FramedCodec(Codec[S, R]):
    """``max_packet_size`` bounds what stands in a frame, in bytes; a longer one is a `PacketDecodeError`."""

    def __init__(self, max_packet_size: int = MAX_PACKET_SIZE) -> None:
        check_count("max_packet_size", max_packet_size)
        self._max_packet_size = max_packet_size

    def _pack(self, packet: S) -> bytes:
        """What stands in the frame. Raises `PacketEncodeError`."""
        raise NotImplementedError

    def _unpack(self, content: bytes) -> R:
        """The packet. Anything that this raises says that ``content`` is none."""
        raise NotImplementedError

    def _frame(self, content: bytes) -> bytes:
        """``content`` with what marks where it begins and ends. Raises `PacketEncodeError`."""
        raise NotImplementedError

    def _frame_decoder(self, unpack: Callable[[bytes], U]) -> FrameDecoder[U]:
        """What cuts out the frames, and makes packets of them with ``unpack``."""
        raise NotImplementedError

    def encode(self, packet: S) -> bytes:
        return self._frame(self._pack(packet))

    def decode(self, data: bytes) -> R:
        return self._decode_with(self._unpack, data)

    def _decode_with(self, unpack: Callable[[bytes], U], data: bytes) -> U:
        """One datagram, one packet."""
        decoder = self._frame_decoder(unpack)
        packets = decoder._feed_some(data)
        try:
            decoder.end()
        except IncompleteReadError as error:
            raise PacketDecodeError("the packet is not complete", bytes(data)) from error
        count = len(decoder._left) or len(packets)
        if count != 1:
            raise PacketDecodeError(f"one packet was expected, and there are {count}", bytes(data))
        packet = packets.pop()
        if isinstance(packet, PacketDecodeError):
            try:
                raise packet
            finally:
                del packet  # or the error would keep itself alive, by this frame
        return packet

    def decoder(self) -> Decoder[R]:
        return self._frame_decoder(self._unpack)

    def _mapped(self, encode: Callable[[T], S] | None, decode: Callable[[R], U] | None) -> Codec[T, U]:
        return _MappedFrames(self, encode, decode)


class _MappedFrames(MappedCodec[T, U]):
    """So that errors can tell the bytes of the frame."""

    def __init__(self, framed: FramedCodec[Any, Any], encode: Callable[[T], Any] | None,
                 decode: Callable[[Any], U] | None) -> None:
        super().__init__(framed, encode, decode)
        self._framed = framed

    def _unpack(self, content: bytes) -> U:
        return self._restored(self._framed._unpack(content), content)

    def decode(self, data: bytes) -> U:
        return self._framed._decode_with(self._unpack, data)

    def decoder(self) -> Decoder[U]:
        return self._framed._frame_decoder(self._unpack)


class PlainFrames(FramedCodec[bytes, bytes]):
    """Packets are what stands in the frames."""

    _unpack = bytes  # type: ignore[assignment]  # no frame of our own: the hot path

    def _pack(self, packet: bytes) -> bytes:
        try:
            return packet if type(packet) is bytes else bytes(memoryview(packet))
        except TypeError:
            raise PacketEncodeError(f"packets are bytes, not {type(packet).__name__}") from None


class FrameDecoder(Decoder[R]):
    """Keeps the beginning of a frame until the rest has come.

    It is kept in a buffer of which only the first `_kept` bytes count: a copy of this object shares it, and what a
    call that was cut short has left behind them is overwritten by the next.
    """

    def __init__(self, unpack: Callable[[bytes], R], max_packet_size: int) -> None:
        self._unpack = unpack
        self._max_packet_size = max_packet_size
        self._buffer = NOTHING
        self._kept = 0
        self._taken = 0  # of what is `_left`

    def feed(self, data: bytes) -> list[R | PacketDecodeError]:
        packets = self._feed_some(data)
        while self._left:
            packets += self._feed_some(b"")
        return packets

    def _feed_some(self, data: bytes) -> list[R | PacketDecodeError]:
        """No further than the last one of `MOST_BAD`: an error takes a thousand times the room of an empty line."""
        if type(data) is not bytes:
            data = bytes(memoryview(data))
        if self._left:
            frames = self._take_left()
        elif self._lost is None:
            frames = self._split(data)
        else:
            return []
        if len(frames) == 1:  # as a rule where one asks and the other answers
            try:
                return [self._unpack(frames[0])]  # type: ignore[arg-type]  # of an error it raises
            except Exception as error:
                if is_of_a_signal_handler(error):
                    raise
                return [_decode_error(frames[0], error)]
        packets: list[R | PacketDecodeError] = []
        contents = iter(frames)
        bad = 0
        while len(packets) < len(frames):
            failure: Exception | None = None
            try:
                packets.extend(map(self._unpack, contents))  # type: ignore[arg-type]  # of an error it raises
            except Exception as error:
                if is_of_a_signal_handler(error):
                    raise
                failure = error
            if len(packets) < len(frames):
                packets.append(_decode_error(frames[len(packets)], failure))
                bad += 1
                if bad == MOST_BAD and len(packets) < len(frames):
                    self._left, self._taken = frames, len(packets)
                    break
        return packets

    def _take_left(self) -> list[bytes | PacketDecodeError]:
        # Not as many as are good: where many were bad others may be.
        start, self._taken = self._taken, self._taken + MOST_BAD
        frames = list(self._left[start:self._taken])
        if self._taken >= len(self._left):
            self._left = ()
        return frames

    def _split(self, data: bytes) -> list[bytes | PacketDecodeError]:
        """The frames' contents that ``data`` completes; an error in the place of one that is none."""
        raise NotImplementedError

    def end(self) -> None:
        if self._kept:
            raise IncompleteReadError(self._kept_bytes())

    def _keep(self, data: bytes) -> None:
        """Remember ``data`` behind what is kept already."""
        if not self._kept:
            self._buffer = bytearray(data)
        else:
            del self._buffer[self._kept:]
            self._buffer += data
        self._kept = len(self._buffer)

    def _kept_bytes(self) -> bytes:
        return bytes(self._buffer[:self._kept])

    def _forget(self) -> None:
        self._buffer = NOTHING
        self._kept = 0


class PrefixDecoder(FrameDecoder[R]):
    """For frames that begin with how long they are."""

    def __init__(self, unpack: Callable[[bytes], R], max_packet_size: int, trailer: bytes = b"") -> None:
        super().__init__(unpack, max_packet_size)
        self._trailer = trailer
        self._missing = 0  # at least so many bytes have to come before there is anything to do
        self._skipping = 0  # the rest of a frame that is too long

    def _header(self, data: bytes, at: int) -> tuple[int, int] | None:
        """Where the content of the frame that begins ``at`` begins, and its length; ``None`` if that cannot be told
        yet. Raises ``ValueError`` for what is no beginning of a frame."""
        raise NotImplementedError

    def _split(self, data: bytes) -> list[bytes | PacketDecodeError]:
        if self._kept:
            if len(data) < self._missing:
                self._keep(data)
                self._missing -= len(data)
                return []
            data = self._kept_bytes() + data
            self._forget()
        frames: list[bytes | PacketDecodeError] = []
        trailer, longest, size = self._trailer, self._max_packet_size, len(data)
        at = min(self._skipping, size)
        self._skipping -= at
        while at < size:
            try:
                header = self._header(data, at)
            except ValueError as error:
                return [*frames, self._lose(str(error), data[at:at + longest])]
            if header is None:
                self._missing = 1
                break
            start, length = header
            end = start + length + len(trailer)
            if length > longest:
                frames.append(PacketDecodeError(f"a packet of {length} bytes, where {longest} are allowed",
                                                data[at:start]))
                self._skipping = max(0, end - size)
            elif end > size:
                self._missing = end - size
                break
            elif trailer and data[end - len(trailer):end] != trailer:
                return [*frames, self._lose(f"{trailer!r} does not follow the packet", data[at:end])]
            else:
                frames.append(data[start:start + length])
            at = end
        if at < size:
            self._keep(data[at:])
        return frames

    def _lose(self, message: str, data: bytes) -> PacketDecodeError:
        self._lost = PacketDecodeError(message, data)
        return PacketDecodeError(message, data)  # what is raised keeps alive what it has passed: this one is kept

    def end(self) -> None:
        super().end()
        if self._skipping:
            raise IncompleteReadError(b"", self._skipping)


def _decode_error(content: bytes | PacketDecodeError, failure: Exception | None) -> PacketDecodeError:
    if isinstance(content, PacketDecodeError):
        return content
    if failure is not None:
        bare(failure)  # the frames that it has passed keep alive all that was received with it, and it
    if isinstance(failure, PacketDecodeError):
        if not failure.data:
            failure.data = content
        return failure
    error = PacketDecodeError(f"not a packet: {failure!r:.200}", content)
    error.__cause__ = failure
    return error
