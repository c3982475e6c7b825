"""Version 1 envelopes: what goes inside a frame, and how a frame is written.

A frame is a big-endian ``u32`` length and an envelope of that many bytes; the first byte of the envelope is its type.

====  ============  ============================================  ===================
type  name          body                                          to the application
====  ============  ============================================  ===================
0x01  HELLO         version (``u8``, 1), identity (16 bytes)      no
0x02  HEARTBEAT     empty                                         no
0x03  DATA          payload                                       payload
0x04  DATA_REQ      message id (16 bytes), payload                payload
0x05  ACK           message id (16 bytes)                         no
0x80  CAPABILITIES  heartbeat interval in ms, window (``u32``s)   no
====  ============  ============================================  ===================

The types below 0x80 are aiomsg's protocol, version 1, and understood by all of its implementations; those from 0x80
are netmsg's own, which aiomsg skips. A receiver skips every type that it does not know.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from ..errors import RemoteProtocolError
from . import messages
from .messages import Capabilities, Kind, Message, Queued, frame_of

__all__ = [
    "ACK",
    "ACK_HEADER",
    "CAPABILITIES",
    "DATA",
    "DATA_HEADERS",
    "DATA_REQ",
    "HEARTBEAT",
    "HEARTBEAT_FRAME",
    "HELLO",
    "IDENTITY_SIZE",
    "LARGE_FRAME",
    "MESSAGE_ID_SIZE",
    "ack_frames",
    "capabilities_frame",
    "data_frame",
    "hello_frame",
    "parse_capabilities",
    "parse_hello",
    "payload_of",
    "reliable_frame",
]

HELLO: Final = 0x01
HEARTBEAT: Final = 0x02
DATA: Final = messages.MESSAGES
DATA_REQ: Final = messages.RELIABLE_MESSAGES
ACK: Final = messages.ACKNOWLEDGEMENTS
CAPABILITIES: Final = messages.CAPABILITIES

PROTOCOL_VERSION: Final = 1
IDENTITY_SIZE: Final = 16
MESSAGE_ID_SIZE: Final = 16
HEARTBEAT_FRAME: Final = b"\x00\x00\x00\x01\x02"

LARGE_FRAME: Final = 8192
"""From this many bytes of payload on, at the latest, a frame is kept in two, its payload uncopied."""

_pack_header = struct.Struct("!IB").pack
_capabilities = struct.Struct("!II")

DATA_HEADERS: Final = tuple(_pack_header(size + 1, DATA) for size in range(4096))
"""The headers of small DATA frames by payload size: a look-up costs a third of packing one."""

_RELIABLE: Final = Kind.RELIABLE  # to look it up in its class takes as long as packing a header

ACK_HEADER: Final = _pack_header(1 + MESSAGE_ID_SIZE, ACK)


def data_frame(payload: bytes, large: int = LARGE_FRAME, kind: Kind = Kind.PLAIN,
               addressee: bytes | None = None) -> Queued:
    """A message in a DATA frame, which is kept in two from ``large`` bytes of payload on."""
    size = len(payload)
    header = DATA_HEADERS[size] if size < 4096 else _pack_header(size + 1, DATA)
    if size >= large:
        return Message(kind, (header, payload), size + 5, b"", addressee)
    return header + payload if addressee is None else Message(kind, header + payload, 0, b"", addressee)


def reliable_frame(message_id: bytes, payload: bytes, large: int = LARGE_FRAME,
                   addressee: bytes | None = None) -> Message:
    """A message in a DATA_REQ frame, which asks for an ACK of ``message_id``."""
    size = len(payload)
    header = _pack_header(size + 17, DATA_REQ) + message_id
    if size >= large:
        return Message(_RELIABLE, (header, payload), size + 21, message_id, addressee)
    return Message(_RELIABLE, header + payload, 0, message_id, addressee)


def payload_of(queued: Queued) -> bytes:
    """What the application has sent: for those who write it otherwise."""
    frame = frame_of(queued)
    if isinstance(frame, tuple):
        return frame[1]
    return frame[21:] if frame[4] == DATA_REQ else frame[5:]


def hello_frame(identity: bytes) -> bytes:
    return _pack_header(2 + IDENTITY_SIZE, HELLO) + bytes((PROTOCOL_VERSION,)) + identity


def capabilities_frame(capabilities: Capabilities) -> bytes:
    milliseconds = min(round(capabilities.heartbeat_interval * 1000), 2**32 - 1)
    return _pack_header(9, CAPABILITIES) + _capabilities.pack(milliseconds, min(capabilities.window, 2**32 - 1))


def ack_frames(message_ids: Iterable[bytes]) -> bytes:
    """One ACK frame for each id, joined; nothing for none."""
    joined = ACK_HEADER.join(message_ids)
    return ACK_HEADER + joined if joined else b""


def parse_hello(body: bytes) -> bytes:
    """The identity in the body of a HELLO. Raises `RemoteProtocolError`."""
    if len(body) != 1 + IDENTITY_SIZE:
        raise RemoteProtocolError(f"a HELLO of {len(body)} bytes instead of {1 + IDENTITY_SIZE}")
    if body[0] != PROTOCOL_VERSION:
        raise RemoteProtocolError(f"unsupported protocol version {body[0]}")
    return body[1:]


def parse_capabilities(body: bytes) -> Capabilities:
    """Raises `RemoteProtocolError`. Bytes behind the known fields are left to later versions."""
    if len(body) < _capabilities.size:
        raise RemoteProtocolError(f"CAPABILITIES of {len(body)} bytes")
    milliseconds, window = _capabilities.unpack_from(body)
    return Capabilities(milliseconds / 1000, window)
