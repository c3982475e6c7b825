"""What a transport is, and the simplest: a socket as it is.

All of them raise ``BlockingIOError`` where they would have to wait, and are fit for two threads at a time, one that
receives and one that sends. What a call into them has taken or received is on record before an interrupt (Ctrl-C) can
strike, so that nothing is lost and nothing is done twice: see `PlainTransport`.
"""

from __future__ import annotations

import array
import math
import os
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, Union

from ..tls import TLSInfo
from ..uninterrupted import take_last, undivided

try:
    import resource
except ImportError:  # not POSIX
    resource = None  # type: ignore[assignment]

__all__ = ["Buffer", "Descriptors", "PlainTransport", "Transport", "UNIXTransport", "first_piece"]

MOST_DESCRIPTORS: Final = 253
"""Linux passes no more in one message."""
FEW_DESCRIPTORS: Final = 32
"""So many of several messages are kept on a stream on which nobody has ever asked for any."""
SHARE: Final = 4
"""One of so many descriptors that this process may have is kept for those who have not asked yet, on all streams
together: peers pass as many as they like, and others need some, too."""

Buffer = Union[bytes, memoryview]


class Transport(Protocol):
    """Bytes both ways, as far as they go at once."""

    handshaking: bool
    """True until `handshake` has returned."""
    answered: bool
    """Whether the handshake has come so far that this end has said something."""
    calls_back: bool
    """Whether `handshake` calls a function of the user's, which may take its time."""
    tls: TLSInfo | None
    receive_into: Callable[[memoryview], int] | None
    """Like `receive`, into a buffer, where that saves a copy."""

    def handshake(self) -> None:
        """Go on with the TLS handshake, to its end. Raises `TLSHandshakeError`; after a ``BlockingIOError`` it may be
        `readable`."""

    def receive(self, max_bytes: int, /) -> bytes:
        """Up to ``max_bytes``; ``b""`` at the end of the stream. After a ``BlockingIOError`` it may be `readable`: then
        no event will come."""

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
    def finishing(self) -> bool:
        """Whether the end of the handshake, without which the other end cannot finish it, waits for room below."""

    @property
    def stalled(self) -> bool:
        """Whether `send_one` could not go on before something is received, when it was last called: TLS 1.2
        renegotiates."""

    @property
    def begun(self) -> bool:
        """Whether bytes have been taken that `send_one` has not returned the number of yet."""

    def report(self, counts: list[int], /) -> None:
        """Append to ``counts`` how many these are, and return them no more: whoever sends next begins behind them."""

    def flush(self) -> None:
        """Send what is `unsent`, as far as it goes at once."""

    def end_sending(self) -> None:
        """Say goodbye and half-close, behind what is `unsent`."""


def first_piece(buffers: list[Buffer], size: int) -> Buffer:
    """At most ``size`` bytes from the front, copied only where several buffers make one piece."""
    first = memoryview(buffers[0])[:size]
    if len(buffers) == 1 or len(first) == size:
        return first
    pieces = []
    room = size
    for buffer in buffers:
        pieces.append(memoryview(buffer)[:room])
        room -= len(pieces[-1])
        if not room:
            break
    return b"".join(pieces)


class PlainTransport:
    """A connected non-blocking socket as it is.

    Its methods are the socket's own, with no frame in between: this is the hot path, and ``list.extend(map(receive,
    (size,)))`` is then one call into C, which no interrupt can split (`netmsg.uninterrupted`).
    """

    handshaking = False
    answered = False
    calls_back = False
    tls: TLSInfo | None = None
    readable = False
    unsent = False
    finishing = False
    stalled = False
    begun = False

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.receive = sock.recv
        self.receive_into: Callable[[memoryview], int] | None = sock.recv_into
        self.send_one = sock.send
        self.send_many = sock.sendmsg

    def handshake(self) -> None:
        """There is none."""

    def report(self, counts: list[int], /) -> None:
        """There are none."""

    def flush(self) -> None:
        """Nothing is ever kept back."""

    def end_sending(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)


class Descriptors:
    """The descriptors that have come over a UNIX socket and that nobody has asked for yet, close-on-exec: no more than
    one message can carry, few before anybody has asked for the first, and no more on all sockets together than the
    process can spare."""

    def __init__(self) -> None:
        self.asked = False
        """Whether anybody has ever asked for some."""
        self.asking = False
        """Whether somebody does right now, to whom they are handed at once."""
        self.kept: list[list[int]] = []
        """Those of each message, the first one first."""
        self.unwanted: list[int] = []
        """To be closed."""
        self.lost = ""
        """Why some were closed before anybody had asked for them, if that has not been told yet."""

    def trim(self) -> None:
        """Close what is too much: the oldest here, for their bytes were taken without them first, or what came last
        where others hold too many."""
        kept = self.kept
        most = MOST_DESCRIPTORS if self.asked else FEW_DESCRIPTORS
        while len(kept) > 1 and sum(map(len, kept)) > most:
            self._refuse(0, f"more than {most} descriptors came before receive_fds() asked for them")
        if kept and not self.asking:
            _kept[id(self)] = kept
            if sum(sum(map(len, each)) for each in _kept.copy().values()) > _most_kept():
                self._refuse(-1, "more descriptors came before receive_fds() asked for them than this process can "
                             "spare")
        self.close_unwanted()

    @undivided
    def _refuse(self, at: int, why: str) -> None:
        self.lost = why
        self.unwanted += self.kept[at]
        del self.kept[at]

    def ask(self) -> None:
        """Somebody is about to receive them."""
        self.asked = True
        if not self.kept:
            _kept.pop(id(self), None)

    def close_unwanted(self) -> None:
        unwanted = self.unwanted
        while unwanted:
            try:
                os.close(take_last(unwanted))
            except (IndexError, OSError):
                pass  # somebody else has closed it

    def close(self) -> None:
        """All of them."""
        while self.kept:
            self.unwanted += self.kept[-1]
            del self.kept[-1]
        _kept.pop(id(self), None)
        self.close_unwanted()

    def __del__(self) -> None:
        if hasattr(self, "lost"):  # not where an interrupt came before it was made
            self.close()


_kept: dict[int, list[list[int]]] = {}
"""Those of every `Descriptors` that may have some."""


def _most_kept() -> float:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource is not None else -1
    return limit // SHARE if limit >= 0 else math.inf


class UNIXTransport:
    """A connected non-blocking UNIX socket. Whoever receives bytes from it keeps the descriptors that came with them,
    which the kernel would drop without a word where ``recv`` does not ask for them: see `Descriptors`."""

    handshaking = False
    answered = False
    calls_back = False
    tls: TLSInfo | None = None
    unsent = False
    finishing = False
    stalled = False
    begun = False
    receive_into: Callable[[memoryview], int] | None = None

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._receive_message = sock.recvmsg
        self._arrived: list[tuple[bytes, Iterable[tuple[int, int, bytes]], int, Any]] = []
        self._space = socket.CMSG_SPACE(MOST_DESCRIPTORS * struct.calcsize("i"))
        self._flags: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        self.descriptors = Descriptors()
        self.send_one = sock.send
        self.send_many = sock.sendmsg

    def handshake(self) -> None:
        """There is none."""

    def receive(self, max_bytes: int, /) -> bytes:
        arrived = self._arrived
        if not arrived:
            arrived.extend(map(self._receive_message, (max_bytes,), (self._space,), (self._flags,)))
        data, messages, flags, _ = arrived[0]
        if messages or flags & socket.MSG_CTRUNC:
            self._keep(data, messages, flags)
        if len(data) > max_bytes:  # left by an interrupted call that wanted more
            arrived[0] = data[max_bytes:], (), 0, None
            return data[:max_bytes]
        # No call from here to the return, and so no interrupt.
        del arrived[0]
        return data

    def _keep(self, data: bytes, messages: Iterable[tuple[int, int, bytes]], flags: int) -> None:
        found = array.array("i")
        for level, kind, content in messages:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found.frombytes(content[:len(content) - len(content) % found.itemsize])
        descriptors = found.tolist()
        if not self._flags:
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
        kept, unwanted = self.descriptors.kept, self.descriptors.unwanted
        truncated = flags & socket.MSG_CTRUNC and self._space
        # No call from here to `trim`, and so no interrupt.
        if truncated:
            self.descriptors.lost = "descriptors came that this process has no room for"
            unwanted += descriptors
        elif descriptors:
            kept += (descriptors,)
        self._arrived[0] = data, (), 0, None
        self.descriptors.trim()

    def refuse_descriptors(self) -> None:
        """From now on have the kernel drop them: nobody can ask for any under TLS."""
        self._space = 0
        self.descriptors.close()

    def close(self) -> None:
        """Close the descriptors that nobody has asked for."""
        if self._arrived:
            data, messages, flags, _ = self._arrived[0]
            self._keep(data, messages, flags)
        self.descriptors.close()

    @property
    def readable(self) -> bool:
        return bool(self._arrived)

    def report(self, counts: list[int], /) -> None:
        """There are none."""

    def flush(self) -> None:
        """Nothing is ever kept back."""

    def end_sending(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)
