"""Which protocol a new connection speaks, told by its first bytes; and which of those we speak too.

The one place that knows what dialects there are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import Enum
from typing import Final

from .dialect import Dialect
from .envelope import ACK, CAPABILITIES, DATA, DATA_REQ, HEARTBEAT, HELLO, IDENTITY_SIZE
from .framing import HANDSHAKE_BOUND
from .legacy import Legacy
from .version_1 import Version1

__all__ = ["SPOKEN", "Sniffed", "dialect_of", "opening_dialect", "refusal_of", "sniff", "stranger"]

_VERSION_1 = b"\x00\x00\x00\x12\x01"
_LEGACY = b"\x00\x00\x00\x10"
_WEBSOCKET = b"GET "
_TLS = b"\x16\x03"
_TLS_ALERT = b"\x15\x03"


class Sniffed(Enum):
    """What the other end of a connection speaks."""

    VERSION_1 = "version 1"
    LEGACY = "legacy"
    WEBSOCKET = "websocket"
    TLS = "tls"
    UNKNOWN = "unknown"


_BEGINNINGS = (
    (_VERSION_1, Sniffed.VERSION_1),
    (_LEGACY, Sniffed.LEGACY),
    (_WEBSOCKET, Sniffed.WEBSOCKET),
    (_TLS, Sniffed.TLS),
    (_TLS_ALERT, Sniffed.TLS),
)


def sniff(first: bytes) -> Sniffed | None:
    """What speaks on a connection that begins with ``first``; ``None`` while more bytes are needed to tell."""
    for beginning, sniffed in _BEGINNINGS:
        if first.startswith(beginning):
            return sniffed
        if beginning.startswith(first):
            return None
    # A frame of another length may still be version 1 gone wrong; what it is not is somebody we can talk to.
    return Sniffed.UNKNOWN


SPOKEN: Final[dict[Sniffed, Callable[[int], Dialect]]] = {Sniffed.VERSION_1: Version1, Sniffed.LEGACY: Legacy}
"""The dialects, each of which is made for one connection, with the size of the largest message."""
_REFUSALS: Final = {
    Sniffed.WEBSOCKET: b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Type: text/plain\r\n"
                       b"Content-Length: 36\r\n\r\nWebSocket origins are not allowed.\r\n",
}


def opening_dialect(max_message_size: int) -> Dialect:
    """What an end speaks that has dialled, until it hears what the other end does."""
    return Version1(max_message_size)


def dialect_of(sniffed: Sniffed, max_message_size: int) -> Dialect | None:
    """A dialect for one connection to such an end; ``None`` if we do not speak it."""
    spoken = SPOKEN.get(sniffed)
    return None if spoken is None else spoken(max_message_size)


def refusal_of(sniffed: Sniffed) -> bytes:
    """What such an end is told that we do not speak with, so that it understands."""
    return _REFUSALS.get(sniffed, b"")


_HEADER: Final = struct.Struct("!IB")
_NAMES: Final = {HEARTBEAT: "HEARTBEAT", DATA: "DATA", DATA_REQ: "DATA_REQ", ACK: "ACK", CAPABILITIES: "CAPABILITIES"}


def stranger(sniffed: Sniffed, first: bytes, dialled: bool) -> str:
    """What is wrong with an end that we do not speak with; ``dialled``: it is us who came."""
    if sniffed is Sniffed.WEBSOCKET:
        return "a WebSocket client, and no websocket_origins are given"
    if sniffed is Sniffed.TLS:
        return "a TLS server, and no ssl_context was given" if dialled else "a TLS client on a plain port"
    size, kind = _HEADER.unpack_from(first) if len(first) >= _HEADER.size else (0, 0)
    if 0 < size <= HANDSHAKE_BOUND and kind == HELLO:
        if size < 2:
            return "a HELLO without a version"
        return f"an identity of {size - 2} bytes in its HELLO, and {IDENTITY_SIZE} are needed"
    if 0 < size <= HANDSHAKE_BOUND and kind in _NAMES:
        return f"its first frame is {_NAMES[kind]}, not HELLO"
    return f"not a Søcket: its first bytes are {first[:_HEADER.size]!r}"
