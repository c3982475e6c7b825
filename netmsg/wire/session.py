"""The life of one connection between two Søckets, as seen from one end.

::

              their HELLO             our welcome              our goodbye
    OPENING ──────────────▶ GREETED ──────────────▶ OPEN ──────────────▶ CLOSING
       │                       │                      │                     │
       └───────────────────────┴──────────┬───────────┴─────────────────────┘
                                          ▼
                                       CLOSED

The end that dialled says HELLO at once; the end that accepted listens first, and says HELLO when it lets the other in:
between GREETED and OPEN the owner of the session may take its time to decide (who is it? is it there already?). Each
end tells its capabilities once it has read the other's HELLO, for only then is it known to understand them.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import Final

from ..errors import RemoteProtocolError
from .envelope import (
    ACK, CAPABILITIES, DATA, DATA_REQ, HEARTBEAT, HELLO, IDENTITY_SIZE, Capabilities, capabilities_frame, hello_frame,
    parse_hello,
)
from .framing import HANDSHAKE_BOUND, EnvelopeDecoder
from .sniffing import Dialect, sniff

__all__ = ["Liveness", "Session", "State"]


HEADER: Final = struct.Struct("!IB")
FIRST: Final = HEADER.size
"""Bytes by which the dialect is told."""
NAMES: Final = {HEARTBEAT: "HEARTBEAT", DATA: "DATA", DATA_REQ: "DATA_REQ", ACK: "ACK", CAPABILITIES: "CAPABILITIES"}


class State(Enum):
    OPENING = "opening"
    GREETED = "greeted"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


TRANSITIONS = {
    State.OPENING: {State.GREETED, State.CLOSED},
    State.GREETED: {State.OPEN, State.CLOSED},
    State.OPEN: {State.CLOSING, State.CLOSED},
    State.CLOSING: {State.CLOSED},
    State.CLOSED: set(),
}


class Session:
    """One end of one connection: what to say when, and what the received bytes mean.

    ``dialled`` is true on the end that made the connection. Nothing here blocks, and nothing reads a clock.
    """

    def __init__(self, identity: bytes, capabilities: Capabilities, *, dialled: bool, max_message_size: int) -> None:
        self.state = State.OPENING
        self.dialled = dialled
        self.dialect = Dialect.VERSION_1
        self.peer_identity = b""
        self.decoder = EnvelopeDecoder(max_message_size)
        """It is handed what is received, and decodes it once the session is OPEN."""
        self._identity = identity
        self._capabilities = capabilities
        self._first = b""

    def _go(self, state: State) -> None:
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"a session cannot go from {self.state.value} to {state.value}")
        self.state = state

    def opening(self) -> bytes:
        """What to send as soon as there is a connection."""
        return hello_frame(self._identity) if self.dialled else b""

    def greet(self, chunk: bytes) -> bool:
        """Add bytes received before OPEN; true once the peer's HELLO is complete.

        Raises `RemoteProtocolError`. Then, as always at the first bytes, `dialect` says what they looked like.
        """
        self.decoder.hold(chunk)
        if self.state is not State.OPENING:
            return True
        if len(self._first) < FIRST:
            self._first += chunk[:FIRST - len(self._first)]
            dialect = sniff(self._first)
            if dialect is None:
                return False
            self.dialect = dialect
            if dialect is not Dialect.VERSION_1:
                raise RemoteProtocolError(_stranger(dialect, self._first, self.dialled))
        envelope = self.decoder.take_one()
        if envelope is None:
            return False
        if envelope[0] != HELLO:
            raise RemoteProtocolError(f"the first envelope is of type {envelope[0]:#04x}, not HELLO")
        self.peer_identity = parse_hello(envelope[1:])
        self._go(State.GREETED)
        return True

    def welcome(self) -> bytes:
        """Let the peer in: what to send it, after which messages may flow both ways."""
        self._go(State.OPEN)
        hello = b"" if self.dialled else hello_frame(self._identity)
        return hello + capabilities_frame(self._capabilities)

    def goodbye(self) -> None:
        """This end has said all it had to say."""
        self._go(State.CLOSING)

    def closed(self) -> None:
        self.decoder.discard()
        if self.state is not State.CLOSED:
            self._go(State.CLOSED)


def _stranger(dialect: Dialect, first: bytes, dialled: bool) -> str:
    """What is wrong with the other end, told by its first bytes."""
    if dialect is Dialect.LEGACY:
        return "a peer of the legacy dialect (aiomsg 2019), which is not supported yet"
    if dialect is Dialect.WEBSOCKET:
        return "a WebSocket client, which is not supported yet"
    if dialect is Dialect.TLS:
        return "a TLS server, and no ssl_context was given" if dialled else "a TLS client on a plain port"
    size, kind = HEADER.unpack(first) if len(first) == HEADER.size else (0, 0)
    if 0 < size <= HANDSHAKE_BOUND and kind == HELLO:
        if size < 2:
            return "a HELLO without a version"
        return f"an identity of {size - 2} bytes in its HELLO, and {IDENTITY_SIZE} are needed"
    if 0 < size <= HANDSHAKE_BOUND and kind in NAMES:
        return f"its first frame is {NAMES[kind]}, not HELLO"
    return f"not a Søcket: its first bytes are {first!r}"


MISSED: Final = 2.5
"""Of its own intervals a peer may be silent for so many."""
MOST_PATIENCE: Final = 4.0
"""But for no more than so many times the timeout that was asked for."""


class Liveness:
    """Whether the peer still shows itself, and whether it is time that we did. Handed ``now``, in seconds.

    A peer is alive while whole envelopes or messages arrive, and while a frame arrives at a byte a second or more;
    silent, or trickling below that, for ``timeout`` seconds, it is dead.
    """

    MINIMUM_RATE = 1.0
    """Bytes a second below which a frame that never ends does not count as a sign of life."""

    def __init__(self, interval: float, timeout: float, now: float) -> None:
        self.interval = interval
        self.timeout = self._timeout = timeout
        self.last_heard = now
        self._last_said = now
        self._heard_items = 0
        self._heard_bytes = 0
        self._said_bytes = 0

    def heard(self, now: float, items: int, received_bytes: int) -> None:
        """Note how much has been received so far, in envelopes and messages, and in bytes."""
        trickle = received_bytes - self._heard_bytes
        if items != self._heard_items or (trickle and trickle >= (now - self.last_heard) * self.MINIMUM_RATE):
            self.last_heard = now
            self._heard_items = items
            self._heard_bytes = received_bytes

    def said(self, now: float, sent_bytes: int) -> None:
        """Note how many bytes have been sent so far."""
        if sent_bytes != self._said_bytes:
            self._said_bytes = sent_bytes
            self._last_said = now

    def excuse(self, now: float) -> None:
        """We did not listen for a while ourselves: one more interval is granted."""
        self.last_heard = max(self.last_heard, min(now, now - self.timeout + self.interval))

    def heartbeat_due(self, now: float, margin: float = 0.0) -> bool:
        """Whether nothing has been sent for an interval, less ``margin`` (the time until the next look)."""
        return now - self._last_said >= self.interval - margin

    def dead(self, now: float) -> bool:
        return now - self.last_heard >= self.timeout

    def announced(self, interval: float) -> None:
        """The peer says how often it is going to show itself: it is not dead for being no more frequent than that."""
        self.timeout = max(self._timeout, min(interval * MISSED, self._timeout * MOST_PATIENCE))
