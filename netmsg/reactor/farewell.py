"""Closing a connection without losing what was sent."""

from __future__ import annotations

import socket
from typing import Final, Protocol

from ..transports.plain import Transport
from .reactor import Scope, Timer

__all__ = ["Farewell"]

LINGER: Final = 1.0
"""Seconds that the other end gets to finish too, once it has all that was sent."""
STEP: Final = 0.01
LONGEST_STEP: Final = 0.2
"""Seconds between two looks at whether it has; the first and the longest."""
PIECE: Final = 65_536
ROUNDS: Final = 64
"""So many of them at most are received at the very end, in case it is not known when the other end has everything."""


class Leaving(Protocol):
    """Whoever closes."""

    def left(self, *, given_up: bool) -> None:
        """It is time to close; ``given_up``: the other end has not taken what it was sent."""

    def _crashed(self, error: Exception) -> None:
        """A step has failed: close."""


class Farewell:
    """Half-closed: closing with bytes unread is a reset, which can destroy what the other end has not read yet. So what
    comes is received, and dropped, until the other end has acknowledged all. It may be slow, as long as it takes
    something within ``patience`` seconds; ``answered``: under TLS, it is to have a moment to say goodbye. What the
    transport has kept back, such as our own goodbye under TLS, has to go as well, also if the other end ``has_ended``.
    On the loop.
    """

    __slots__ = ("has_ended", "_io", "_socket", "_transport", "_user", "_patience", "_answered",
                 "_missing", "_since", "_timer")

    def __init__(self, io: Scope, sock: socket.socket, transport: Transport, user: Leaving, patience: float, *,
                 answered: bool, has_ended: bool = False) -> None:
        self.has_ended = has_ended
        """Whether nothing comes any more."""
        self._io = io
        self._socket = sock
        self._transport = transport
        self._user = user
        self._patience = max(patience, LINGER)
        self._answered = answered and transport.tls is not None
        self._missing = -1  # bytes that were not acknowledged at the last look
        self._since = 0.0  # when that was another number
        self._timer: Timer | None = None

    def begin(self) -> None:
        self._look(STEP)

    def _look(self, step: float) -> None:
        self._timer = None
        machine = self._io.loop.machine
        if machine.all_acknowledged(self._socket) and not self._transport.unsent:
            if self._answered:
                self._timer = self._io.call_later(LINGER, self._end)
            else:
                for _ in range(ROUNDS):
                    if not self.discard():
                        break
                self._end()
            return
        missing, now = machine.unacknowledged(self._socket), machine.clock()
        if missing != self._missing:
            self._missing, self._since = missing, now
        elif now - self._since >= self._patience:
            self._end(given_up=True)
            return
        self._timer = self._io.call_later(step, self._look, min(2 * step, LONGEST_STEP))  # no event tells of it

    def discard(self) -> bool:
        """Receive what has come: whether there may be more."""
        try:
            if self._transport.receive(PIECE):
                return True
        except BlockingIOError:
            return False
        except OSError:
            self._end()
            return False
        self.has_ended = True
        self.flushed()
        return False

    def flushed(self) -> None:
        """The transport has sent what it could."""
        if self.has_ended and not self._transport.unsent:
            self._end()

    def _end(self, *, given_up: bool = False) -> None:
        self.cancel()
        self._user.left(given_up=given_up)

    def cancel(self) -> None:
        """It is closed."""
        if self._timer is not None:
            self._timer.cancel()

    def _crashed(self, error: Exception) -> None:
        self._user._crashed(error)
