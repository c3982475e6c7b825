"""Whole packets over a byte stream."""

from __future__ import annotations

import errno
import os
import ssl
from collections.abc import Iterator
from copy import copy
from threading import get_ident
from typing import Any, Final, Generic, TypeVar

from ..checks import check_size, check_timeout
from ..deadline import Deadline, Overtime
from ..errors import LocalProtocolError, PacketDecodeError, RemoteProtocolError, again
from ..interrupts import in_main_thread
from ..packets.codec import Codec, check_codec
from ..packets.receiving import decoded, ending, is_in_the_middle, loss
from ..streams.byte_stream import NUMBERS, ByteStream, inside
from ..streams.connection import closed_meanwhile
from ..streams.socket_stream import PeerCredentials, SocketStream
from ..streams.turns import Turn
from ..tls import TLSInfo
from .connecting import Target, connected
from .received import ReceivedPackets

__all__ = ["PacketClient"]

USUAL_SIZE: Final = 65_536
"""Bytes to ask for at a time; more, up to ``max_recv_size``, as long as so much comes."""

NOW: Final = Deadline(0)

S = TypeVar("S")
R = TypeVar("R")


class PacketClient(Generic[S, R]):
    """Sends and receives whole packets, as ``codec`` has them, over a connection.

    :param target: a (host, port), the path of a UNIX socket, a connected ``socket.socket`` (which belongs to the client
        from then on; ``OSError`` if it is not connected, and then it stays its owner's), or a `ByteStream`, with which
        there is nothing to connect, and any of the options for that is a ``ValueError``.
    :param connect_timeout: seconds for name resolution, connecting and the TLS handshake together.
    :param max_recv_size: bytes to ask the network for at a time, at most.
    :param ssl_context: as with `connect_tcp`; ``True`` for the default one.
    :param local_address: a (host, port) or a path to connect from.
    :param tls_standard_compatible: as with `connect_tcp`; also for a later `start_tls`.

    Raises what `connect_tcp` and `connect_unix` raise. May be used from any thread: one may send while another
    receives, and each packet goes to one of several that receive. Every ``timeout`` is in seconds, ``None`` for ever, 0
    for one try; running out raises ``TimeoutError`` and loses nothing. A clean end is `EndOfStream`, one in the middle
    of a packet `IncompleteReadError`, a break `ConnectionBrokenError`; after `close`, also while a call is blocked,
    `ClosedError`. A context manager; ``for packet in client`` goes on to the end.
    """

    def __init__(self, target: Target | ByteStream, codec: Codec[S, R], *, connect_timeout: float | None = None,
                 max_recv_size: int = 262_144, ssl_context: ssl.SSLContext | bool | None = None,
                 server_hostname: str | None = None,
                 local_address: tuple[str, int] | str | bytes | os.PathLike[str] | None = None,
                 tls_standard_compatible: bool = True) -> None:
        check_codec(codec)
        check_size("max_recv_size", max_recv_size)
        check_timeout(connect_timeout)
        self._codec = codec
        self._decoder = codec.decoder()
        self._receiving = Turn()
        self._chunks: list[bytes] = []  # received and not decoded
        self._ready: list[R] = []  # the next one last
        self._mixed: list[R | PacketDecodeError] = []  # what comes behind them, if an error is among it
        self._ending: EOFError | None = None
        self._recv_size = self._usual_size = min(USUAL_SIZE, max_recv_size)
        self._max_recv_size = max_recv_size
        self._last_size = 0  # of the chunk that was decoded last
        self._tls_standard_compatible = tls_standard_compatible
        self._stream: Any = connected(target, connect_timeout, ssl_context, server_hostname, local_address,
                                      tls_standard_compatible)
        self._inside = inside(self._stream)

    # Sending

    def send_packet(self, packet: S, *, timeout: float | None = None) -> None:
        """Send one packet. `PacketEncodeError` if the codec cannot express it; timeouts are those of
        `ByteStream.send_all`."""
        check_timeout(timeout)
        self._stream.send_all(self._codec.encode(packet), timeout=timeout)

    def send_eof(self, *, timeout: float | None = None) -> None:
        """Tell the peer that nothing more will be sent; receiving goes on. Idempotent."""
        self._stream.send_eof(timeout=timeout)

    # Receiving

    def recv_packet(self, *, timeout: float | None = None) -> R:
        """The next packet. `PacketDecodeError` for a bad one, in its place: the next call returns what follows, or
        raises `RemoteProtocolError` where the format does not allow to find that."""
        # The short way. There is no call in it, and so no other thread and no interrupt.
        ready = self._ready
        if (ready and not self._inside.connection.closed
                and (timeout is None or timeout.__class__ in NUMBERS and timeout >= 0)):
            packet = ready[-1]
            del ready[-1]
            return packet
        return self._recv(Deadline(timeout))

    def _recv(self, deadline: Deadline) -> R:
        turn = self._receiving
        waiting = turn.waiting
        claim = [get_ident()]
        kept: Any
        try:
            if deadline is not NOW:
                turn.take(claim, deadline)
            elif turn.holder is None:  # no call between the one and the other
                turn.holder = claim
            else:
                raise BlockingIOError(errno.EAGAIN, "another thread is at it")
            self._check()
            bad = not self._ready and self._until_ready(deadline)
            # No call from here to the end of the block, and so no interrupt.
            kept = self._mixed if bad else self._ready
            packet: Any = kept[-1]
            del kept[-1]
            turn.holder = turn.heir
            turn.heir = None
        except BaseException:
            if turn.holder is claim:
                turn.holder = turn.heir
                turn.heir = None
            if waiting:
                try:
                    waiting[0].release()  # one call into C: before a call of Python's an interrupt could strike
                except (IndexError, RuntimeError):
                    pass  # it has left, or was woken already
            raise
        if waiting:
            try:
                waiting[0].release()
            except (IndexError, RuntimeError):
                pass
            except BaseException:
                kept += (packet,)
                self._inside.receiving.leave()
                raise
        if not bad:
            return packet  # type: ignore[no-any-return]
        try:
            raise packet
        finally:
            packet = None  # or the error would keep itself alive, by this frame

    def _until_ready(self, deadline: Deadline) -> bool:
        """Go on until something is `_ready`. Whether an error, the last one of `_mixed`, stands in its place."""
        overtime = None
        while True:  # outside of what sees to the turn: see `Turn`
            if deadline is NOW and not self._mixed:
                raise BlockingIOError(errno.EAGAIN, "another thread was faster")
            if self._prepare(deadline):
                return True
            if self._ready:
                return False
            if not self._mixed:
                overtime = overtime or Overtime(deadline)
                if overtime.is_over(self._last_size):
                    raise TimeoutError("no packet was complete in time")

    def _take_packet(self) -> R:
        """`recv_packet` of what `_wait_for_packet` has found, with ``BlockingIOError`` if that is gone."""
        return self._recv(NOW)

    def _wait_for_packet(self, deadline: Deadline) -> None:
        """Wait until `recv_packet` has something to return or to raise. Raises ``TimeoutError``."""
        turn = self._receiving
        claim = [get_ident()]
        try:
            turn.take(claim, deadline)
            self._check()
            self._until_something_is_there(deadline)
        finally:
            if turn.holder is claim:
                turn.holder = turn.heir
                turn.heir = None
            if turn.waiting:
                try:
                    turn.waiting[0].release()
                except (IndexError, RuntimeError):
                    pass

    def _until_something_is_there(self, deadline: Deadline) -> None:
        overtime = Overtime(deadline)
        while not (self._ready or self._mixed):
            self._decode(deadline)
            if overtime.is_over(self._last_size) and not self._ready and not self._mixed:
                raise TimeoutError("no packet was complete in time")

    def _check(self) -> None:
        if self._inside.connection.closed:
            self._stream.receive(timeout=0)  # raises ClosedError, or ForkedError

    def _prepare(self, deadline: Deadline) -> bool:
        """Have something `_ready`, in the end. Whether an error, the last one of `_mixed`, stands in its place."""
        mixed = self._mixed
        if not mixed:
            self._decode(deadline)
            return False
        if isinstance(mixed[-1], PacketDecodeError):
            return True
        start = len(mixed) - 1
        while start and not isinstance(mixed[start - 1], PacketDecodeError):
            start -= 1
        ready: Any = mixed[start:]
        # No call between the one and the other, and so no interrupt.
        self._ready = ready
        del mixed[start:]
        return False

    def _decode(self, deadline: Deadline) -> None:
        """Receive once, and decode what has come. What a call that is interrupted does to the decoder is done to a
        copy: only the main thread is ever interrupted."""
        chunks = self._chunks
        decoder = self._decoder
        behind = decoder._left
        if not (chunks or behind):
            if self._ending is not None:
                raise again(self._ending)
            lost = loss(decoder)
            if lost is not None:
                try:
                    raise lost
                finally:
                    lost = None  # or the error would keep itself alive, by this frame
            self._inside.receiving.receive_to(chunks, self._recv_size, timeout=deadline.remaining())
            if not chunks:
                return  # a packet was left for this thread
        chunk = b"" if behind else chunks[0]
        self._last_size = len(chunk)
        if not (chunk or behind):
            self._ending = ending(decoder)
            raise again(self._ending)
        if len(chunk) == self._recv_size:
            self._recv_size = min(2 * self._recv_size, self._max_recv_size)
        else:
            self._recv_size = self._usual_size
        try:
            if in_main_thread():
                decoder = copy(decoder)
            packets = decoded(decoder, chunk)
            good = not any(issubclass(kind, PacketDecodeError) for kind in set(map(type, packets)))
        except BaseException:
            half = len(chunk) // 2
            if half:  # or who is interrupted all the time would begin with the same large chunk again and again
                chunks[:1] = chunk[:half], chunk[half:]
            raise
        # No call from here on, and so no interrupt.
        self._decoder = decoder
        if good:
            self._ready = packets
        else:
            self._mixed = packets
        if not behind:
            del chunks[0]

    def iter_received_packets(self, *, timeout: float | None = 0) -> Iterator[R]:
        """Iterate over what comes while no more than ``timeout`` seconds in all are spent waiting (0: what is there
        already; ``None``: until the end). A `PacketDecodeError` comes through, and the iterator may be asked again."""
        return ReceivedPackets(self, timeout)

    def __iter__(self) -> Iterator[R]:
        return ReceivedPackets(self, None)

    # TLS

    @property
    def tls(self) -> TLSInfo | None:
        """What TLS agreed on; ``None`` in the clear."""
        info: TLSInfo | None = self._stream.tls
        return info

    def start_tls(self, ssl_context: ssl.SSLContext | bool | None = None, *, server_side: bool | None = None,
                  server_hostname: str | None = None, tls_standard_compatible: bool = True,
                  timeout: float | None = None) -> None:
        """Go on under TLS, after both ends agreed to: see `ByteStream.start_tls`. ``tls_standard_compatible=False``
        counts here and where the client was made.

        Anything that has been received by then, and was not returned, may have been injected: `RemoteProtocolError`,
        and the client is closed.
        """
        deadline = Deadline(timeout)
        turn = self._receiving
        claim = [get_ident()]
        try:
            turn.take(claim, deadline)
            self._check()
            if self._pending():
                self._stream.abort()
                raise RemoteProtocolError("the peer sent something in the clear behind what asked for TLS: it may have "
                                          "been injected")
            self._stream.start_tls(ssl_context, server_side=server_side, server_hostname=server_hostname,
                                   tls_standard_compatible=tls_standard_compatible and self._tls_standard_compatible,
                                   timeout=deadline.remaining())
        finally:
            if turn.holder is claim:
                turn.holder = turn.heir
                turn.heir = None
            if turn.waiting:
                try:
                    turn.waiting[0].release()
                except (IndexError, RuntimeError):
                    pass

    def _pending(self) -> bool:
        return bool(self._ready or self._mixed or self._chunks) or is_in_the_middle(self._decoder)

    # State

    @property
    def peer_credentials(self) -> PeerCredentials:
        """Who is at the other end of a UNIX connection (Linux). `LocalProtocolError` for any other."""
        if not isinstance(self._stream, SocketStream):
            raise LocalProtocolError("only UNIX streams can do this")
        return self._stream.peer_credentials

    @property
    def socket(self) -> Any:
        """A `SocketProxy`: the socket's options and addresses."""
        return self._stream.socket

    @property
    def local_address(self) -> Any:
        """(host, port), or the path of a UNIX socket; also after close."""
        return self._stream.local_address

    @property
    def remote_address(self) -> Any:
        """The other end's."""
        return self._stream.remote_address

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return bool(self._stream.closed)

    def fileno(self) -> int:
        """The descriptor; -1 once closed. Packets that have been received already do not make it readable."""
        return int(self._stream.fileno())

    def close(self, *, timeout: float | None = 1.0) -> None:
        """Close, and see to it that what was sent is not lost: see `ByteStream.close`."""
        check_timeout(timeout)
        self._receiving.refuse(closed_meanwhile)
        self._stream.close(timeout=timeout)

    def abort(self) -> None:
        """Close at once, dropping everything."""
        self._receiving.refuse(closed_meanwhile)
        self._stream.abort()

    def __enter__(self) -> PacketClient[S, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._stream!r}>"
