"""WebSocket over another transport: a socket, or TLS."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from typing import Final

from ..errors import ConnectionBrokenError, again
from ..locks import new_lock
from ..tls import TLSInfo
from ..uninterrupted import take_first, undivided
from ..wire.websocket import Side, WebSocket
from ..wire.websocket_opening import ClientOpening, ServerOpening
from .encrypted import TLSTransport
from .plain import Buffer, Transport, first_piece

__all__ = ["WebSocketTransport"]

MOST_RECEIVED: Final = 65_536
MODEST_SIZE: Final = 8_192
"""So many bytes are received at a time from a peer of whose frames little payload comes: each of them costs some µs,
and may be of two bytes."""
FRAME_SIZE: Final = 65_535
"""The most payload in one of our frames, for the sake of back-pressure. One byte more would take a longer header."""


class WebSocketTransport:
    """Each send makes one frame, which is finished before anything else is sent. It is always a copy: its rest may
    have to wait here, after an interrupt too, when the caller's buffer is no longer what it was.

    One thread may receive while another sends, as with `TLSTransport`. The one that receives may find that there is
    something to send (a Pong, a Close); it sends it if nobody else is sending, and otherwise leaves it to that one, who
    looks again before it goes.

    ==============  ==================================================================================
    lock            guards; what is done under it
    ==============  ==================================================================================
    ``_sending``    the front of what is to be sent; non-blocking sends. Before ``_state``
    ``_state``      the `WebSocket`, and that its frames are queued in its order; never a system call
    ==============  ==================================================================================

    A `WebSocket` is written in Python, and an interrupt could leave it half changed. So it is never changed: a copy is,
    which then takes its place.
    """

    receive_into: Callable[[memoryview], int] | None = None

    def __init__(self, below: Transport, opening: ClientOpening | ServerOpening, *,
                 random: Callable[[int], bytes] = os.urandom) -> None:
        """``below`` may still have its own handshake before it, which is then a part of this one's."""
        self.handshaking = True
        self.answered = False
        self.calls_back = below.handshaking and below.calls_back
        self.tls: TLSInfo | None = below.tls
        self._below = below
        self._opening = opening
        self._websocket = WebSocket(Side.CLIENT if isinstance(opening, ClientOpening) else Side.SERVER, random)
        self._state = new_lock()
        self._sending = new_lock()
        self._received: deque[bytes] = deque()  # that has not been decoded yet
        self._payloads: list[bytes] = []
        self._appetite = MODEST_SIZE
        self._outgoing: deque[memoryview] = deque()
        self._counts: list[int] = []  # of bytes taken below and not yet taken off `_outgoing`
        self._unsent_payload = 0  # that which is in the frame at the front of `_outgoing`, at its end
        self._sent_payload = 0  # that which was in it, and that no call has returned the size of
        self._ending = False
        if isinstance(opening, ClientOpening):
            self._outgoing.append(memoryview(opening.request))

    def feed(self, chunk: bytes) -> None:
        """Hand over what was received before this was made: the beginning of the request, by which it was told."""
        self._received.append(chunk)

    # The handshake

    def handshake(self) -> None:
        """See `Transport.handshake`. Raises `RemoteProtocolError` if it is refused, by this end or by the other. After
        an interrupt (of the main thread: it does not concern the network thread) there is nothing to do but close."""
        below, opening = self._below, self._opening
        if below.handshaking:
            try:
                below.handshake()
            finally:
                self.answered = below.answered
            self.tls, self.calls_back = below.tls, False
        while not opening.over:
            self._flush()  # the request, if it is a client's
            self._receive_below(MODEST_SIZE)
            chunk = take_first(self._received)
            if not chunk:
                raise ConnectionBrokenError("the connection ended in the middle of the WebSocket handshake")
            answer = opening.receive(chunk)
            if answer:
                self._outgoing.append(memoryview(answer))
                self.answered = True
        if opening.error is not None:
            self._flush_quietly()  # the answer that tells the client why
            raise again(opening.error)
        self._flush()
        if self._outgoing:
            raise BlockingIOError
        if opening.rest:
            self._received.appendleft(opening.rest)
            opening.rest = b""
        self.handshaking = False

    @property
    def waits_below(self) -> bool:
        """Whether it is the handshake below that is going on."""
        return self._below.handshaking

    # Receiving

    def receive(self, max_bytes: int, /) -> bytes:
        """See `Transport.receive`. ``BlockingIOError`` also says that there was no payload in what came: pings can
        come for ever, and others wait. If there is more below, whoever waits for that is told at once."""
        payloads = self._payloads
        if not payloads:
            self._receive()
        if not payloads:
            if self._websocket.error is not None:
                raise again(self._websocket.error)
            if self._websocket.ended:
                return b""
            raise BlockingIOError
        first = payloads[0]
        if len(first) > max_bytes:
            payloads[0] = first[max_bytes:]
            return first[:max_bytes]
        # No call from here to the return, and so no interrupt.
        del payloads[0]
        return first

    def _receive(self) -> None:
        """Decode what is received at once."""
        if not self._websocket.ended and self._websocket.error is None:
            try:
                self._receive_below(self._appetite)
            except BlockingIOError:
                self._flush_quietly()
                raise
            self._decode()
        self._flush_quietly()

    def _receive_below(self, size: int) -> None:
        if not self._received:
            self._received.extend(map(self._below.receive, (size,)))  # see netmsg.uninterrupted

    def _decode(self) -> None:
        received, payloads = self._received, self._payloads
        with self._state:
            websocket = self._websocket.copy()
            chunk = received[0]
            if chunk:
                payload = websocket.receive(chunk)
            else:
                payload = b""
                websocket.end_of_stream()
            if 2 * len(payload) < len(chunk):
                appetite = max(self._appetite // 2, MODEST_SIZE)
            elif len(chunk) >= self._appetite:
                appetite = min(self._appetite * 2, MOST_RECEIVED)
            else:
                appetite = self._appetite
            # No call from here on, and so no interrupt.
            self._websocket = websocket
            self._appetite = appetite
            if payload:
                payloads += (payload,)
            del received[0]

    @property
    def readable(self) -> bool:
        return (bool(self._payloads) or bool(self._received) or self._websocket.ended
                or self._websocket.error is not None or self._below.readable)

    # Sending

    def send_one(self, buffer: Buffer, /) -> int:
        return self.send_many([buffer])

    def send_many(self, buffers: list[Buffer], /) -> int:
        """See `Transport.send_many`. Behind a Close frame, be it an answer to that of the other end, it raises
        ``BrokenPipeError``."""
        self._flush()
        if not self.begun and not self._outgoing:
            piece = first_piece(buffers, FRAME_SIZE)
            try:
                if not len(piece):
                    return 0
                self._begin(piece)
            finally:
                if type(piece) is memoryview:
                    piece.release()  # an error would keep it, and the caller could not resize what it is of
            self._flush()
        if not self._sent_payload:
            raise BlockingIOError
        return self._take_sent()

    def _begin(self, payload: Buffer) -> None:
        outgoing = self._outgoing
        with self._state:
            websocket = self._websocket
            if websocket.closing:
                raise BrokenPipeError(errno.EPIPE, "the WebSocket connection is being closed")
            if outgoing:
                return  # an answer has come before it
            frame = memoryview(b"".join(websocket.encode(payload)))
            size = len(payload)
            # No call from here on, and so no interrupt.
            outgoing += (frame,)
            self._unsent_payload = size

    @undivided
    def _take_sent(self) -> int:
        sent = self._sent_payload
        self._sent_payload = 0
        return sent

    @undivided
    def _took(self, rest: memoryview, size: int) -> None:
        """Below something of the first frame was taken: ``rest`` is left of it, ``size`` bytes."""
        unsent = self._unsent_payload
        if unsent > size:
            self._sent_payload += unsent - size
            self._unsent_payload = size
        if size:
            self._outgoing[0] = rest
        else:
            del self._outgoing[0]
        del self._counts[0]

    @property
    def begun(self) -> bool:
        return bool(self._sent_payload or self._unsent_payload)

    def report(self, counts: list[int], /) -> None:
        """They may still wait for room below, and go before anything else does."""
        if self.begun:
            self._report(counts)

    @undivided
    def _report(self, counts: list[int]) -> None:
        counts += (self._sent_payload + self._unsent_payload,)
        self._sent_payload = self._unsent_payload = 0

    def unreported(self) -> int:
        """At the end: how many bytes below were taken that `send_many` has not returned the number of."""
        if isinstance(self._below, TLSTransport) and self._outgoing:
            self._counts.append(self._below.unreported())
        if self._counts:
            rest = self._outgoing[0][self._counts[0]:]
            self._took(rest, len(rest))
        return self._take_sent()

    @property
    def unsent(self) -> bool:
        return bool(self._outgoing) or self._ending or self._websocket.has_answers or self._below.unsent

    @property
    def finishing(self) -> bool:
        return self._below.finishing

    @property
    def stalled(self) -> bool:
        return self._below.stalled

    def flush(self) -> None:
        self._below.flush()
        self._flush()

    def _flush(self) -> None:
        """Send what there is, as far as it goes; whoever is sending already does it for all."""
        outgoing, counts = self._outgoing, self._counts
        while True:
            if not outgoing and self._websocket.has_answers:
                self._queue_answers()
            if not (outgoing or self._ending) or self._sending.locked():
                return
            with self._sending:
                while True:  # not "while outgoing": see `netmsg.streams.turns.Turn`
                    if not counts:
                        if not outgoing:
                            break
                        try:
                            counts.extend(map(self._below.send_one, (outgoing[0],)))  # see netmsg.uninterrupted
                        except BlockingIOError:
                            return
                    rest = outgoing[0][counts[0]:]
                    self._took(rest, len(rest))
                if self._ending and not self._websocket.has_answers:
                    try:
                        self._below.end_sending()
                    except OSError:
                        self._ending = False  # there is nobody any more to tell
                        raise
                    self._ending = False

    def _queue_answers(self) -> None:
        """Only when nothing else waits to be sent: so there is one Pong at a time here, whatever comes."""
        outgoing = self._outgoing
        with self._state:
            if outgoing:
                return
            websocket = self._websocket.copy()
            answers = memoryview(websocket.take_answers())
            # No call from here on, and so no interrupt.
            self._websocket = websocket
            outgoing += (answers,)

    def _flush_quietly(self) -> None:
        """The same on the receiving side, where it is for reading to say that the connection broke."""
        try:
            self._flush()
        except OSError:
            pass

    def end_sending(self) -> None:
        with self._state:
            websocket = self._websocket.copy()
            websocket.close()
            self._websocket = websocket
        self._ending = True
        self._flush()
