"""The life of one connection between two Søckets, as seen from one end.

::

              their HELLO             our welcome              our goodbye
    OPENING ──────────────▶ GREETED ──────────────▶ OPEN ──────────────▶ CLOSING
       │                       │                      │                     │
       └───────────────────────┴──────────┬───────────┴─────────────────────┘
                                          ▼
                                       CLOSED

The end that dialled says HELLO at once, before there is a session; the end that accepted listens first, and says HELLO
when it lets the other in: between GREETED and OPEN the owner of the session may take its time to decide (who is it? is
it there already?). How all of that is said is the matter of the `Dialect`, which the first bytes of the other end have
decided: see `netmsg.wire.sniffing`.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from .dialect import Dialect
from .messages import Capabilities

__all__ = ["Liveness", "Session", "State"]


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

    ``dialled`` is true on the end that made the connection, and has said its opening. Nothing here blocks, and nothing
    reads a clock.
    """

    def __init__(self, identity: bytes, capabilities: Capabilities, dialect: Dialect, *, dialled: bool) -> None:
        self.state = State.OPENING
        self.dialled = dialled
        self.dialect = dialect
        """What is spoken on this connection."""
        self.decoder = dialect.decoder
        """Its own. It is handed what is received, and decodes it once the session is OPEN."""
        self.peer_identity = b""
        self._identity = identity
        self._capabilities = capabilities

    def _go(self, state: State) -> None:
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"a session cannot go from {self.state.value} to {state.value}")
        self.state = state

    def greet(self, chunk: bytes) -> bool:
        """Add bytes received before OPEN; true once it is known who the peer is.

        Raises `RemoteProtocolError`. `answer` says what to send then.
        """
        self.decoder.hold(chunk)
        if self.state is not State.OPENING:
            return True
        identity = self.dialect.greet()
        if identity is None:
            return False
        self.peer_identity = identity
        self._go(State.GREETED)
        return True

    def answer(self) -> bytes:
        """What to send after `greet`, in any case: also when it has raised, before the connection is closed."""
        return self.dialect.answer()

    def welcome(self) -> bytes:
        """Let the peer in: what to send it, after which messages may flow both ways."""
        self._go(State.OPEN)
        return self.dialect.welcome(self._identity, self._capabilities, opened=self.dialled)

    def goodbye(self) -> None:
        """This end has said all it had to say."""
        self._go(State.CLOSING)

    def closed(self) -> None:
        self.decoder.discard()
        if self.state is not State.CLOSED:
            self._go(State.CLOSED)


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
