"""A connection that is none: what one end sends comes to the other in other pieces, and later, or does not."""

from __future__ import annotations

import errno
import random
from collections.abc import Collection
from functools import partial
from typing import Final

from support.channels import READ, WRITE, Socket, as_any
from support.scripted import ScriptedLink

from netmsg.deadline import Deadline
from netmsg.transports.plain import Buffer, PlainTransport, Transport

__all__ = ["Wire", "WireLink", "WireSocket", "connect"]

MOST_STALLS: Final = 3
"""In a row: then something moves, if there is something."""
LEAST_SHARE: Final = 4
"""One in so many bytes may go at a time, however small the pieces are to be: few steps are enough for many bytes."""
SIZES: Final = (1, 2, 7, 40, 300, 1460, 65_536, 65_536)


class Wire:
    """One direction."""

    def __init__(self, dice: random.Random) -> None:
        self.taken = bytearray()
        """All that was ever sent."""
        self.given = 0
        """How much of that has been received, or dropped."""
        self.ended = False
        self._dice = dice
        self._piece = dice.choice(SIZES)
        self._room = dice.choice(SIZES)
        self._stalling = dice.choice((0.0, 0.0, 0.2, 0.6))
        self._stalls = 0

    @property
    def holds(self) -> int:
        """How much is under way."""
        return len(self.taken) - self.given

    def go_easy(self) -> None:
        """Stall no more, and carry what there is at once."""
        self._stalling = 0.0
        self._piece = self._room = SIZES[-1]

    def take(self, buffer: Buffer) -> int:
        self._stall()
        size = min(len(buffer), self._dice.randint(1, max(self._room, len(buffer) // LEAST_SHARE)))
        self.taken += buffer[:size]
        return size

    def give(self, max_bytes: int) -> bytes:
        if not self.holds:
            if self.ended:
                return b""
            raise BlockingIOError
        self._stall()
        size = min(max_bytes, self.holds, self._dice.randint(1, max(self._piece, self.holds // LEAST_SHARE)))
        piece = bytes(self.taken[self.given:self.given + size])
        self.given += size
        return piece

    def _stall(self) -> None:
        if self._stalls < MOST_STALLS and self._dice.random() < self._stalling:
            self._stalls += 1
            raise BlockingIOError
        self._stalls = 0


class WireSocket(Socket):
    """A non-blocking socket at one end of two. Its methods are called as if they were written in C, so that an
    interrupt comes behind them, and not inside: see `SignalStrike`."""

    def __init__(self, incoming: Wire, outgoing: Wire) -> None:
        super().__init__()
        self.incoming = incoming
        self.outgoing = outgoing
        self.is_reset = False
        """Whether the other end has reset the connection."""
        self._told = False
        for name, method in (("recv", self._receive), ("recv_into", self._receive_into), ("send", self._send),
                             ("sendmsg", self._send_many), ("shutdown", self._shut_down)):
            setattr(self, name, partial(method))

    def be_reset(self) -> None:
        self.is_reset = True
        self.incoming.given = len(self.incoming.taken)

    def _tell(self) -> bool:
        """As the kernel does: whoever asks first is told, be it by sending."""
        if self.is_reset and not self._told:
            self._told = True
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        return self.is_reset

    def _receive(self, max_bytes: int) -> bytes:
        return b"" if self._tell() else self.incoming.give(max_bytes)

    def _receive_into(self, view: memoryview) -> int:
        piece = self._receive(len(view))
        view[:len(piece)] = piece
        return len(piece)

    def _send(self, buffer: Buffer) -> int:
        if self._tell():
            raise BrokenPipeError(errno.EPIPE, "broken pipe")
        return self.outgoing.take(buffer)

    def _send_many(self, buffers: list[Buffer]) -> int:
        return self._send(b"".join(buffers))

    def _shut_down(self, how: int) -> None:
        if self.is_reset:
            raise OSError(errno.ENOTCONN, "not connected")
        self.outgoing.ended = True

    @property
    def ready(self) -> int:
        """What a selector would tell of."""
        readable = self.is_reset or self.incoming.holds or self.incoming.ended
        return (READ if readable else 0) | WRITE


def connect(dice: random.Random) -> tuple[WireSocket, WireSocket]:
    there, back = Wire(dice), Wire(dice)
    return WireSocket(back, there), WireSocket(there, back)


class WireLink(ScriptedLink):
    """The bottom of a stream over one. A wait that has time ends when something moves, which a stall is followed by:
    there is nobody else who could bring that about."""

    def __init__(self, sock: WireSocket, transport: Transport | None = None) -> None:
        super().__init__()
        self.sock = sock
        self.transport = transport or PlainTransport(as_any(sock))

    def _wait(self, deadline: Deadline, unless: Collection[object] = ()) -> int:
        if unless:
            return 0
        if deadline.expired:
            raise TimeoutError("timed out")
        possible = self.sock.ready & self.waits[-1]
        assert possible, "it waits for what does not happen"
        return possible
