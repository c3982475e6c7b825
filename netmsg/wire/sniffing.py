"""Which protocol a new connection speaks, told by its first bytes."""

from __future__ import annotations

from enum import Enum

__all__ = ["Dialect", "sniff"]

_VERSION_1 = b"\x00\x00\x00\x12\x01"
_LEGACY = b"\x00\x00\x00\x10"
_WEBSOCKET = b"GET "
_TLS = b"\x16\x03"
_TLS_ALERT = b"\x15\x03"


class Dialect(Enum):
    """What the other end of a connection speaks."""

    VERSION_1 = "version 1"
    LEGACY = "legacy"
    WEBSOCKET = "websocket"
    TLS = "tls"
    UNKNOWN = "unknown"


_BEGINNINGS = (
    (_VERSION_1, Dialect.VERSION_1),
    (_LEGACY, Dialect.LEGACY),
    (_WEBSOCKET, Dialect.WEBSOCKET),
    (_TLS, Dialect.TLS),
    (_TLS_ALERT, Dialect.TLS),
)


def sniff(first: bytes) -> Dialect | None:
    """The dialect of a connection that begins with ``first``; ``None`` while more bytes are needed to tell."""
    for beginning, dialect in _BEGINNINGS:
        if first.startswith(beginning):
            return dialect
        if beginning.startswith(first):
            return None
    # A frame of another length may still be version 1 gone wrong; what it is not is somebody we can talk to.
    return Dialect.UNKNOWN
