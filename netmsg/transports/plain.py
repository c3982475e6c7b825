"""What a transport is, and the simplest: a socket as it is.

All of them raise ``BlockingIOError`` where they would have to wait, and are fit for two threads at a time, one that
receives and one that sends. What a call into them has taken or received is on record before an interrupt (Ctrl-C) can
strike, so that nothing is lost and nothing is done twice: see `PlainTransport`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol, Union

from ..tls import TLSInfo

__all__ = ["Buffer", "PlainTransport", "Transport"]

Buffer = Union[bytes, memoryview]


class Transport(Protocol):
    """Bytes both ways, as far as they go at once."""

    handshaking: bool
    """True until `handshake` has returned."""
    tls: TLSInfo | None
    receive_into: Callable[[memoryview], int] | None
    """Like `receive`, into a buffer, where that saves a copy."""

    def handshake(self) -> None:
        """Go on with the TLS handshake, to its end. Raises `TLSHandshakeError`."""

    def receive(self, max_bytes: int, /) -> bytes:
        """Up to ``max_bytes``; ``b""`` at the end of the stream."""

    def send_one(self, buffer: Buffer, /) -> int:
        """Send some of ``buffer``: how many bytes have been taken. After a ``BlockingIOError`` that is none, and the
        next call has to begin with the same bytes."""

    def send_many(self, buffers: list[Buffer], /) -> int:
        """The same for several buffers in a row."""

    @property
    def readable(self) -> bool:
        """Whether received bytes wait in here, which no selector can tell."""

    @property
    def unsent(self) -> bool:
        """Whether bytes of its own (alerts, key updates, the rest of a record) wait for room below."""

    @property
    def begun(self) -> bool:
        """Whether bytes have been taken that `send_one` has not returned the number of yet."""

    def flush(self) -> None:
        """Send what is `unsent`, as far as it goes at once."""

    def end_sending(self) -> None:
        """Say goodbye and half-close, behind what is `unsent`."""


class PlainTransport:
    """A connected non-blocking socket as it is.

    Its methods are the socket's own, with no frame in between: this is the hot path, and ``list.extend(map(receive,
    (size,)))`` is then one call into C, which no interrupt can split.
    """

    handshaking = False
    tls: TLSInfo | None = None
    readable = False
    unsent = False
    begun = False

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.receive = sock.recv
        self.receive_into: Callable[[memoryview], int] | None = sock.recv_into
        self.send_one = sock.send
        self.send_many = sock.sendmsg

    def handshake(self) -> None:
        """There is none."""

    def flush(self) -> None:
        """Nothing is ever kept back."""

    def end_sending(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)
