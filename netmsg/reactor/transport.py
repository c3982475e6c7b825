"""Non-blocking transports: a connected socket, plain or under TLS.

Both have the same methods, and raise ``BlockingIOError`` where they would have to wait.
"""

from __future__ import annotations

import socket
import ssl
from typing import Final, Protocol, Union

from ..errors import TLSHandshakeError
from ..tls import TLSEngine, TLSInfo

__all__ = ["PlainTransport", "TLSTransport", "Transport"]

Buffer = Union[bytes, memoryview]

CIPHERTEXT_SIZE: Final = 65_536
PLAINTEXT_PIECE: Final = 65_536
"""TLS encrypts at most so much ahead of the kernel, for back-pressure."""


class Transport(Protocol):
    """What a peer needs of its connection."""

    handshaking: bool
    """True until `handshake` has returned."""
    tls: TLSInfo | None

    def handshake(self) -> None:
        """Go on with the TLS handshake, to its end. Raises `TLSHandshakeError`."""

    def receive(self, max_bytes: int) -> bytes:
        """Up to ``max_bytes``; ``b""`` at the end of the stream."""

    def send_one(self, buffer: Buffer, /) -> int:
        """Send some of ``buffer``: how many bytes the kernel has taken. After a ``BlockingIOError`` it has taken none,
        and the next call has to begin with the same bytes."""

    def send_many(self, buffers: list[Buffer], /) -> int:
        """The same for several buffers in a row."""

    @property
    def readable(self) -> bool:
        """Whether received bytes wait in here, which no selector can tell."""

    @property
    def unsent(self) -> bool:
        """Whether bytes of its own (alerts, key updates) wait for the socket to be writable."""

    def flush(self) -> None:
        """Send what is `unsent`, as far as possible."""

    def end_sending(self) -> None:
        """Say goodbye and half-close."""


class PlainTransport:
    """The socket as it is."""

    handshaking = False
    tls: TLSInfo | None = None
    readable = False
    unsent = False

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        # The socket's own methods, with no frame in between: this is the hot path, and a call into C is also what an
        # interrupt cannot split.
        self.receive = sock.recv
        self.send_one = sock.send
        self.send_many = sock.sendmsg

    def handshake(self) -> None:
        """There is none."""

    def flush(self) -> None:
        """Nothing is ever kept back."""

    def end_sending(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)


class TLSTransport:
    """The socket under TLS. For the reactor's thread alone: ``SSLObject`` must not be used by two."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool,
                 server_hostname: str | None = None) -> None:
        self.handshaking = True
        self.tls: TLSInfo | None = None
        self._socket = sock
        self._engine = TLSEngine(context, server_side=server_side, server_hostname=server_hostname)
        self._ciphertext = memoryview(b"")
        self._encrypted = 0  # bytes of plaintext that `_ciphertext` holds and the caller has not been told of
        self._ending = False
        self._at_end = False
        self._failure: OSError | None = None

    def handshake(self) -> None:
        engine = self._engine
        try:
            while not engine.do_handshake():
                self._flush()
                ciphertext = self._socket.recv(CIPHERTEXT_SIZE)
                if not ciphertext:
                    raise TLSHandshakeError("the peer closed the connection during the TLS handshake")
                engine.add_ciphertext(ciphertext)
        except TLSHandshakeError:
            self._flush_quietly()  # the alert that tells the peer why
            raise
        self.tls = engine.info()
        self.handshaking = False
        self._flush()

    def receive(self, max_bytes: int) -> bytes:
        if self._failure is not None:
            raise self._failure
        if self._at_end:
            return b""
        engine = self._engine
        pieces: list[bytes] = []
        wanted = max_bytes
        while wanted > 0:
            try:
                plaintext = engine.read(wanted)
            except OSError as error:
                if not pieces:
                    raise
                self._failure = error  # first what came before it
                break
            if plaintext is None:
                if pieces:
                    break
                engine.add_ciphertext(self._socket.recv(CIPHERTEXT_SIZE))
                plaintext = engine.read(wanted)
                self._flush_quietly()
                if plaintext is None:
                    raise BlockingIOError
            if not plaintext:
                self._at_end = True
                break
            pieces.append(plaintext)
            wanted -= len(plaintext)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def send_one(self, buffer: Buffer, /) -> int:
        return self.send_many([buffer])

    def send_many(self, buffers: list[Buffer], /) -> int:
        self._flush()
        if not self._ciphertext and not self._encrypted:
            self._encrypted = self._engine.write(_first_piece(buffers))
            self._flush()
        if self._ciphertext or not self._encrypted:
            raise BlockingIOError
        sent, self._encrypted = self._encrypted, 0
        return sent

    @property
    def readable(self) -> bool:
        return self._at_end or self._failure is not None or self._engine.readable

    @property
    def unsent(self) -> bool:
        return bool(self._ciphertext)

    def _flush(self) -> None:
        """Send what ciphertext there is, as far as the kernel takes it."""
        produced = self._engine.take_ciphertext()
        if produced:
            self._ciphertext = memoryview(bytes(self._ciphertext) + produced)
        try:
            while self._ciphertext:
                self._ciphertext = self._ciphertext[self._socket.send(self._ciphertext):]
        except BlockingIOError:
            pass
        if not self._ciphertext and self._ending:
            self._ending = False
            self._socket.shutdown(socket.SHUT_WR)

    flush = _flush

    def _flush_quietly(self) -> None:
        """The same on the receiving side, where it is for reading to say that the connection broke."""
        try:
            self._flush()
        except OSError:
            pass

    def end_sending(self) -> None:
        self._engine.close_notify()
        self._ending = True
        self._flush()


def _first_piece(buffers: list[Buffer]) -> Buffer:
    """At most `PLAINTEXT_PIECE` bytes from the front, copied only where several buffers make one piece."""
    first = memoryview(buffers[0])[:PLAINTEXT_PIECE]
    if len(buffers) == 1 or len(first) == PLAINTEXT_PIECE:
        return first
    pieces = []
    room = PLAINTEXT_PIECE
    for buffer in buffers:
        pieces.append(memoryview(buffer)[:room])
        room -= len(pieces[-1])
        if not room:
            break
    return b"".join(pieces)
