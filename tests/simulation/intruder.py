"""Somebody who connects and says what he likes."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from netmsg.wire.envelope import ACK, CAPABILITIES, DATA, DATA_REQ, HEARTBEAT, hello_frame

from .network import Connected, Host

__all__ = ["Intruder"]

SPEECHES: Final = ("nothing", "noise", "http", "half a hello", "a hello and silence", "a hello and noise",
                   "a hello and frames", "an identity", "an identity", "a long frame")


class Intruder:
    """He never reads, and leaves in the end."""

    def __init__(self, host: Host, place: Any, chance: random.Random, names: list[str],
                 tell: Callable[..., None]) -> None:
        self._host = host
        self._chance = chance
        self.speech = chance.choice(SPEECHES)
        self.stole = ""
        """Whose identity he claims."""
        words = self._words(names)
        tell("mallory", "comes to %s with %s", place, self.speech)
        self._socket = Connected(host, socket.AF_INET)
        self._socket.connect_ex(place)
        self._words_left = words
        host.network.timeline.after(0.05, self._speak)

    @property
    def stayed(self) -> float:
        """Seconds for which somebody has kept something for him; 0.0 if nobody does any more, or he waits outside."""
        return 0.0 if self._socket.closed else self._socket.known_for

    @property
    def admitted(self) -> bool:
        """Whether he may have been taken for a peer, to whom messages go."""
        return self.speech.startswith("a hello") or bool(self.stole)

    def _words(self, names: list[str]) -> bytes:
        chance = self._chance
        noise = chance.randbytes(chance.choice((1, 5, 40, 3000)))
        hello = hello_frame(chance.randbytes(16))
        if self.speech == "noise":
            return noise
        if self.speech == "http":
            return b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        if self.speech == "half a hello":
            return hello[:chance.randint(1, len(hello) - 1)]
        if self.speech == "a hello and silence":
            return hello
        if self.speech == "a hello and noise":
            return hello + noise
        if self.speech == "a hello and frames":
            return hello + b"".join(self._frame() for _ in range(10))
        if self.speech == "an identity":
            self.stole = chance.choice(names)
            return hello_frame(self.stole.encode().ljust(16, b"."))
        if self.speech == "a long frame":
            return hello + struct.pack("!IB", 2**31, DATA) + b"x"
        return b""

    def _frame(self) -> bytes:
        chance = self._chance
        kind = chance.choice((HEARTBEAT, ACK, CAPABILITIES, DATA_REQ, 0x77, 0x81))
        body = chance.randbytes(chance.choice((0, 7, 8, 15, 16, 17, 40)))
        return struct.pack("!IB", len(body) + 1, kind) + body

    def _speak(self) -> None:
        if self._socket.closed or not self._words_left:
            return
        count = self._chance.randint(1, len(self._words_left))
        try:
            self._socket.send(self._words_left[:count])
        except OSError:
            return
        self._words_left = self._words_left[count:]
        self._host.network.timeline.after(self._chance.random() * 0.1, self._speak)

    def leave(self) -> None:
        self._socket.close()
