"""A peer of the dialect of 2019: it connects, says who it is, and then sends and receives."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from .journal import Journal
from .network import Connected, Host

__all__ = ["Elder"]

HEARTBEAT: Final = b"aiomsg-heartbeat"
BEATS_EVERY: Final = 5.0
LONG: Final = 5.0
"""Seconds in which whatever was said is heard, where nothing goes wrong."""
MOST: Final = 20
"""Messages that one sends."""


def _frame(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


class Elder:
    """Written from `aiomsg==2019.12.1` and not from the library's own dialect."""

    def __init__(self, host: Host, place: Any, whom: str, chance: random.Random, journal: Journal,
                 tell: Callable[..., None]) -> None:
        self.whom = whom
        self._timeline = host.network.timeline
        self._journal = journal
        self.identity = chance.randbytes(16)
        self.sends = [b"%s.elder.%d." % (self.identity.hex().encode(), number)
                      for number in range(chance.randint(1, MOST))]
        """In order."""
        self.greeted = False
        """Whether the other end has said who it is."""
        self._unsent = _frame(self.identity)
        self._received = b""
        self._said_at = float("inf")
        self._left_at = 0.0
        tell("elder", "comes to %s", place)
        self._socket = Connected(host, socket.AF_INET)
        self._socket.connect_ex(place)
        self._chance = chance
        self._to_say = [*self.sends]
        self._go_on()
        self._beat()

    def _beat(self) -> None:
        if not self._socket.closed:
            self._unsent += _frame(HEARTBEAT)
            self._timeline.after(BEATS_EVERY, self._beat)

    def _go_on(self) -> None:
        if self._socket.closed:
            return
        if self.greeted and self._to_say and self._chance.random() < 0.3:
            label = self._to_say.pop(0)
            self._journal.from_elders[label] = []
            self._unsent += _frame(label)
        if self._connected:
            try:
                self._write()
                self._read()
            except OSError:
                self.leave()
                return
        self._timeline.after(0.02 + self._chance.random() * 0.02, self._go_on)

    @property
    def _connected(self) -> bool:
        try:
            return bool(self._socket.getpeername())
        except OSError:
            return False

    def _write(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent):]
            if not self._to_say:
                self._said_at = min(self._said_at, self._timeline.now)
        except BlockingIOError:
            pass

    def _read(self) -> None:
        try:
            while True:
                chunk = self._socket.recv(65_536)
                if not chunk:
                    self.leave()
                    return
                self._received += chunk
        except BlockingIOError:
            pass
        while len(self._received) >= 4:
            (size,) = struct.unpack_from("!I", self._received)
            if len(self._received) < 4 + size:
                break
            self._hear(self._received[4:4 + size])
            self._received = self._received[4 + size:]

    def _hear(self, body: bytes) -> None:
        if not self.greeted:
            self.greeted = True
        elif body[16:21] == b"\0REQ\0":  # nothing else is to be answered
            self._unsent += _frame(body[:16] + b"\0REP\0")

    @property
    def has_said_all(self) -> bool:
        """Whether all that it had to say has gone, and long before it left."""
        return self._said_at + LONG < (self._left_at or self._timeline.now)

    def leave(self) -> None:
        if not self._left_at:
            self._left_at = self._timeline.now
        self._socket.close()
