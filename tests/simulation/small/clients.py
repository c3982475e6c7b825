"""A real `PacketClient` over a real stream, over a connection that is none, and its user. One seed decides what that
calls, and how what comes is cut up and delayed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from support.channels import as_any
from support.strikes import Strike, Struck

from netmsg import (
    ByteStream, ConnectionBrokenError, EndOfStream, IncompleteReadError, PacketClient, PacketDecodeError,
    RemoteProtocolError, SendTimeoutError,
)

from ..promises import promise
from .formats import FORMATS, stream_of, understood
from .wires import WireLink, WireSocket, connect

__all__ = ["Call", "ClientWorld"]

TRIES: Final = 50
"""Receives that end in vain, in a row, when nothing is in the way any more."""

MOST_STEPS: Final = 150
"""So many receives at most are enough for all that comes."""


@dataclass(frozen=True)
class Call:
    kind: str
    amount: int
    """Of the bytes that come before it, or of those that it sends."""
    patient: bool

    def __str__(self) -> str:
        return self.kind


class ClientWorld:
    """``name`` is its seed."""

    def __init__(self, name: str) -> None:
        dice = random.Random(name)
        self._name = name
        self.format = FORMATS[dice.choice([*FORMATS])]
        self._most = dice.choice((5, 64, 262_144))
        self._count = dice.choice((3, 10, 40))
        self.script = [*self._draw(dice)]

    def _draw(self, dice: random.Random) -> Iterator[Call]:
        kinds = ("recv_packet", "recv_packet", "next", "what is there", "send_packet")
        for _ in range(dice.choice((5, 15, 40))):
            yield Call(dice.choice(kinds), dice.choice((0, 1, 5, 30, 1000)), dice.random() < 0.5)

    def run(self, strikes: Mapping[int, Strike] = {}) -> None:
        """Raises `BrokenPromise`. ``strikes``: in which of its calls."""
        dice = random.Random(f"{self._name}/wires")
        self.sock: WireSocket = connect(dice)[0]
        self._dice = dice
        self._coming = stream_of(self.format, dice, self._count)
        self.wanted, self._whole = understood(self.format, self._coming)
        self.got: list[Any] = []
        self.sent: list[tuple[bytes, bool]] = []
        """What was to be sent, and whether it was, for certain."""
        self._refused = False
        stream = ByteStream(as_any(WireLink(self.sock)))
        most = max(self._most, len(self._coming) // MOST_STEPS)
        self.client: PacketClient[Any, Any] = PacketClient(stream, self.format.codec, max_recv_size=most)
        try:
            for number, call in enumerate(self.script):
                self._perform(call, strikes.get(number) or nullcontext())
            self._finish()
        finally:
            stream.abort()

    def _arrive(self, amount: int) -> None:
        self.sock.incoming.taken += self._coming[:amount]
        self._coming = self._coming[amount:]

    def _perform(self, call: Call, strike: AbstractContextManager[object]) -> None:
        if call.kind == "send_packet":
            self._send(call, strike)
            return
        self._arrive(call.amount)
        packets, _ = understood(self.format, bytes(self.sock.incoming.taken))
        self._receive(call.kind, call.patient and len(packets) > len(self.got), strike)

    def _receive(self, kind: str, patient: bool, strike: AbstractContextManager[object]) -> None:
        """``patient``: there is a packet that comes."""
        client = self.client
        packets: list[Any] = []
        try:
            with strike:
                if kind == "next" and patient:
                    packets.append(next(iter(client)))
                elif kind == "what is there":
                    packets.extend(client.iter_received_packets(timeout=0))
                else:
                    packets.append(client.recv_packet(timeout=None if patient else 0))
        except Struck:
            pass
        except PacketDecodeError:
            packets.append("bad")
        except TimeoutError as error:
            promise("errors are the documented ones", type(error) is TimeoutError, "%s has raised %r", kind, error)
            promise("a wait ends", not patient, "%s has timed out", kind)
        except RemoteProtocolError:
            promise("errors are the documented ones", len(self.got) == len(self.wanted), "it is said to be bad early")
        self.got += packets
        promise("each packet once, in order", self.got == self.wanted[:len(self.got)], "%r was received, and %r sent",
                self.got, self.wanted)

    def _send(self, call: Call, strike: AbstractContextManager[object]) -> None:
        packet = self.format.packet(self._dice, f"{len(self.sent)}." + "s" * min(call.amount, 50))
        data: bytes = self.format.codec.encode(packet)
        try:
            with strike:
                self.client.send_packet(packet, timeout=None if call.patient else 0)
            promise("a cut send is the last", not self._refused, "it goes on")
            self.sent.append((data, True))
        except Struck:
            self.sent.append((data, False))
        except SendTimeoutError as error:
            self.sent.append((data, False))
            self._refused = self._refused or error.bytes_sent > 0
        except ConnectionBrokenError as error:
            promise("errors are the documented ones", not all(whole for _, whole in self.sent), "it has raised %r",
                    error)
            self._refused = True

    def _finish(self) -> None:
        self._arrive(1 << 20)
        self.sock.incoming.ended = True
        self.sock.incoming.go_easy()
        tries = 0
        fatal = self.format.codec.decoder()
        fatal.feed(bytes(self.sock.incoming.taken))
        while True:
            try:
                self.got.append(self.client.recv_packet(timeout=0))
            except TimeoutError:
                tries += 1
                promise("everything arrives", tries < TRIES, "the client waits in vain, after %d packets",
                        len(self.got))
                continue
            except PacketDecodeError:
                self.got.append("bad")
            except RemoteProtocolError:
                another = self.format.codec.encode(self.format.packet(random.Random(0), "another"))
                promise("an end is one", not fatal.feed(another), "it says that no packet can be told from another")
                break
            except (EndOfStream, IncompleteReadError) as error:
                promise("an end is one", self._whole is isinstance(error, EndOfStream), "%r was raised", error)
                break
            tries = 0
        promise("each packet once, in order", self.got == self.wanted, "%r was received, and %r sent", self.got,
                self.wanted)
        promise("what was sent arrives whole", _arrived(self.sent, bytes(self.sock.outgoing.taken)),
                "%s was sent, and %r arrived", self.sent, bytes(self.sock.outgoing.taken))


def _arrived(sent: list[tuple[bytes, bool]], got: bytes) -> bool:
    """Whether ``got`` is what was sent: of what may have been cut all or nothing, or of the last one a part."""
    places = {0}
    for number, (data, whole) in enumerate(sent):
        is_last = not whole and not any(other for _, other in sent[number + 1:])
        if is_last and any(data.startswith(got[place:]) for place in places):
            return True
        places = {place + len(data) for place in places if got.startswith(data, place)} | (set() if whole else places)
    return len(got) in places
