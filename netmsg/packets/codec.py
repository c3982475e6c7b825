"""What a codec is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Final, Generic, TypeVar, overload

from ..checks import check_callable
from ..errors import PacketDecodeError, PacketEncodeError, bare
from ..interrupts import is_of_a_signal_handler

__all__ = ["Codec", "Decoder", "MAX_PACKET_SIZE", "MappedCodec", "check_codec"]

MAX_PACKET_SIZE: Final = 2**20

S = TypeVar("S")
R = TypeVar("R")
T = TypeVar("T")
U = TypeVar("U")


class Decoder(Generic[R]):
    """Cuts one stream of bytes into packets. Made by `Codec.decoder`, for one connection, and used by one thread at a
    time.

    Own ones keep what they remember in attributes to which `feed` assigns new values (``self.rest = ...``, not
    ``self.rest.append(...)``): a copy made before it then undoes a call that Ctrl-C cuts short.
    """

    _lost: PacketDecodeError | None = None
    """After which error no packet can be told from the next any more; `feed` then ignores everything."""

    _left: Sequence[bytes | PacketDecodeError] = ()
    """What `_feed_some` has left to be asked for with ``b""``."""

    _failed = False
    """Whether `feed` has raised what it should not have: then nobody calls it any more."""

    def feed(self, data: bytes) -> list[R | PacketDecodeError]:
        """The packets that ``data`` completes, however the stream was cut up; a `PacketDecodeError` in the place of a
        bad one. An exception instead becomes one, in the place of all of them, and nothing after it is decoded; but
        see `Codec.map` for what a signal handler raises."""
        raise NotImplementedError

    def _feed_some(self, data: bytes) -> list[R | PacketDecodeError]:
        """`feed` for those who can come again for what is `_left`."""
        return self.feed(data)

    def end(self) -> None:
        """The stream has ended: raises `IncompleteReadError` if that is in the middle of a packet."""
        raise NotImplementedError


class Codec(Generic[S, R]):
    """Turns packets of type ``S`` into bytes, and bytes into packets of type ``R``.

    A subclass defines `encode` and `decoder`, and `decode` if it is to be used with datagrams. It holds no state: one
    object serves any number of connections and threads.
    """

    def encode(self, packet: S) -> bytes:
        """What goes over the network. Raises `PacketEncodeError` for what cannot be expressed."""
        raise NotImplementedError

    def decode(self, data: bytes) -> R:
        """The one packet that is all of ``data``, a datagram. Raises `PacketDecodeError`."""
        raise NotImplementedError

    def decoder(self) -> Decoder[R]:
        """A new one, for one connection. Servers call this on their network thread, where it is not to wait; `feed`
        and `end` of a codec that is not netmsg's own they call in a worker, if they have any."""
        raise NotImplementedError

    @overload
    def map(self, *, encode: None = None, decode: None = None) -> Codec[S, R]: ...

    @overload
    def map(self, *, encode: None = None, decode: Callable[[R], U]) -> Codec[S, U]: ...

    @overload
    def map(self, *, encode: Callable[[T], S], decode: None = None) -> Codec[T, R]: ...

    @overload
    def map(self, *, encode: Callable[[T], S], decode: Callable[[R], U]) -> Codec[T, U]: ...

    def map(self, *, encode: Callable[[T], S] | None = None, decode: Callable[[R], U] | None = None) -> Codec[Any, Any]:
        """The same format for other objects: ``encode`` makes what this codec can send of a user's object, ``decode``
        a user's object of what was received; without one of them packets stay as they are in that direction. What
        these functions raise becomes a `PacketEncodeError` or `PacketDecodeError`. Only in the main thread, an
        ``OSError`` without an ``errno`` (``TimeoutError`` is one) comes through and costs no packet: it is taken for
        what a signal handler has raised, such as the usual alarm.

        ::

            points = JSONCodec().map(encode=dataclasses.asdict, decode=lambda fields: Point(**fields))
        """
        return self._mapped(encode, decode)

    def _mapped(self, encode: Callable[[T], S] | None, decode: Callable[[R], U] | None) -> Codec[T, U]:
        return MappedCodec(self, encode, decode)


def check_codec(codec: Codec[Any, Any]) -> None:
    """Raises ``TypeError`` for what is none, such as the class instead of an object."""
    if not isinstance(codec, Codec):
        raise TypeError(f"codec must be a Codec object, such as LineCodec(), not {codec!r:.100}")


class MappedCodec(Codec[T, U]):
    """See `Codec.map`."""

    def __init__(self, inner: Codec[Any, Any], encode: Callable[[T], Any] | None,
                 decode: Callable[[Any], U] | None) -> None:
        check_callable("encode", encode)
        check_callable("decode", decode)
        self._inner = inner
        self._encode = encode
        self._decode = decode

    @property
    def _restores_nothing(self) -> bool:
        """Whether packets are what the inner codec makes of them."""
        return self._decode is None

    def encode(self, packet: T) -> bytes:
        return self._inner.encode(self._reduced(packet))

    def _reduced(self, packet: T) -> Any:
        """What the inner codec is to encode."""
        if self._encode is None:
            return packet
        try:
            return self._encode(packet)
        except PacketEncodeError:
            raise
        except Exception as error:
            if is_of_a_signal_handler(error):
                raise
            raise PacketEncodeError(f"this {type(packet).__name__} cannot be encoded: {error!r:.200}") from error

    def decode(self, data: bytes) -> U:
        return self._restored(self._inner.decode(data), data)

    def _restored(self, packet: Any, data: bytes = b"") -> U:
        """A user's object."""
        if self._decode is None:
            restored: U = packet
            return restored
        try:
            return self._decode(packet)
        except PacketDecodeError:
            raise
        except Exception as error:
            if is_of_a_signal_handler(error):
                raise
            raise PacketDecodeError(f"this {type(packet).__name__} cannot be decoded: {error!r:.200}", data) from error

    def decoder(self) -> Decoder[U]:
        return _MappedDecoder(self, self._inner.decoder())


class _MappedDecoder(Decoder[U]):
    def __init__(self, codec: MappedCodec[Any, U], inner: Decoder[Any]) -> None:
        self._codec = codec
        self._inner = inner

    def __copy__(self) -> _MappedDecoder[U]:
        return _MappedDecoder(self._codec, copy(self._inner))

    def feed(self, data: bytes) -> list[U | PacketDecodeError]:
        packets: list[U | PacketDecodeError] = []
        for packet in self._inner.feed(data):
            if not isinstance(packet, PacketDecodeError):
                try:
                    packet = self._codec._restored(packet)
                except PacketDecodeError as error:
                    packet = bare(error)
            packets.append(packet)
        self._lost = self._inner._lost
        return packets

    def end(self) -> None:
        self._inner.end()
