"""A second dialect, for tests: lines of text, behind an identity that looks as in the oldest of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from netmsg.errors import RemoteProtocolError
from netmsg.wire.dialect import Dialect, RunDecoder
from netmsg.wire.envelope import payload_of
from netmsg.wire.messages import (
    ACKNOWLEDGEMENTS, ANSWERS, MESSAGES, RELIABLE_MESSAGES, Capabilities, Frame, Queued, Run, message_id_of,
)

BEGINNING = b"\0\0\0\x10"
LARGE = 1000


class LinesDecoder(RunDecoder):
    """``-`` and a message, ``+`` an id in hex, a space and a message, ``!`` and an id, ``.`` alone, or ``?``."""

    def __init__(self) -> None:
        self.received = b""

    @property
    def buffered(self) -> int:
        return len(self.received)

    def hold(self, chunk: bytes) -> None:
        self.received += chunk

    def decode(self, chunk: bytes, room: int) -> list[Run]:
        self.received += chunk
        runs: list[Run] = []
        while room > 0 and self.error is None and b"\n" in self.received:
            line, _, self.received = self.received.partition(b"\n")
            kind, body = line[:1], line[1:]
            if kind == b"-":
                runs.append(Run(MESSAGES, [body]))
                room -= 1
            elif kind == b"+":
                runs.append(Run(RELIABLE_MESSAGES, [body[33:]], [bytes.fromhex(body[:32].decode())]))
                room -= 1
            elif kind == b"!":
                runs.append(Run(ACKNOWLEDGEMENTS, [bytes.fromhex(body.decode())]))
            elif kind == b"?":
                runs.append(Run(ANSWERS, [b"yes, " + body + b"\n"]))
            elif kind != b".":
                self.error = RemoteProtocolError(f"a line that begins with {kind!r}")
            self.envelopes += kind in b"!?."
        self.stopped = room <= 0 and b"\n" in self.received
        return runs

    def discard(self) -> None:
        self.received = b""
        self.stopped = False


class Lines(Dialect):
    name = "lines"
    heartbeat = b".\n"

    def __init__(self, max_message_size: int) -> None:
        self.decoder: LinesDecoder = LinesDecoder()
        self.said = b""

    def opening(self, identity: bytes) -> bytes:
        return BEGINNING + identity

    def greet(self) -> bytes | None:
        greeting, end, rest = self.decoder.received.partition(b"\n")
        if not end:
            return None
        self.decoder.received = rest
        self.said = b"wait\n" if greeting[4:].islower() else b"no capitals\n"
        if not greeting[4:].islower():
            raise RemoteProtocolError("capitals")
        return greeting[4:]

    def answer(self) -> bytes:
        said, self.said = self.said, b""
        return said

    def welcome(self, identity: bytes, capabilities: Capabilities, *, opened: bool) -> bytes:
        return b"again\n" if opened else b"welcome\n"

    def acknowledgements(self, message_ids: Iterable[bytes]) -> bytes:
        return b"".join(b"!%s\n" % message_id.hex().encode() for message_id in message_ids)

    def encoder(self) -> Callable[[Queued], Frame]:
        return encoded


def encoded(queued: Queued) -> Frame:
    message_id, payload = message_id_of(queued), payload_of(queued)
    begin = b"+" + message_id.hex().encode() + b" " if message_id else b"-"
    return (begin, payload + b"\n") if len(payload) > LARGE else begin + payload + b"\n"
