"""Version 1 envelopes: what goes inside a frame, and how a frame is written.

A frame is a big-endian ``u32`` length and an envelope of that many bytes; the first byte of the envelope is its type.

====  ============  ======================================================  ===================
type  name          body                                                    to the application
====  ============  ======================================================  ===================
0x01  HELLO         version (``u8``, 1), identity (16 bytes)                no
0x02  HEARTBEAT     empty                                                   no
0x03  DATA          payload                                                 payload
0x04  DATA_REQ      message id (16 bytes), payload                          payload
0x05  ACK           message id (16 bytes)                                   no
0x80  CAPABILITIES  heartbeat interval in ms, window, features (``u32``s)   no
0x81  REQUEST       correlation id (16 bytes), payload                      payload
0x82  REPLY         correlation id (16 bytes), payload                      who has asked
0x83  FAILURE       correlation id (16 bytes), reason (UTF-8)               who has asked
0x84  NACK          message id (16 bytes)                                   no
0x85  SUBSCRIBE     prefix (up to 255 bytes)                                no
0x86  UNSUBSCRIBE   prefix (up to 255 bytes)                                no
====  ============  ======================================================  ===================

The types below 0x80 are aiomsg's protocol, version 1, and understood by all of its implementations; those from 0x80
are netmsg's own, which aiomsg skips. A receiver skips every type that it does not know.

What each of them looks like, as far as reading goes, is in one table: `LAYOUTS`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from ..errors import RemoteProtocolError
from . import messages
from .messages import Capabilities, Features, Kind, Message, Queued, frame_of

__all__ = [
    "ACK",
    "ACK_HEADER",
    "CAPABILITIES",
    "DATA",
    "DATA_HEADERS",
    "DATA_REQ",
    "FAILURE",
    "HEARTBEAT",
    "HEARTBEAT_FRAME",
    "HELLO",
    "IDENTITY_SIZE",
    "LARGE_FRAME",
    "LAYOUTS",
    "LONGEST_PREFIX",
    "LONGEST_REASON",
    "Layout",
    "MESSAGE_ID_SIZE",
    "NACK",
    "REPLY",
    "REQUEST",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "ack_frames",
    "capabilities_frame",
    "data_frame",
    "failure_frame",
    "hello_frame",
    "nack_frame",
    "parse_capabilities",
    "parse_hello",
    "payload_of",
    "reliable_frame",
    "reply_frame",
    "request_frame",
    "subscription_frame",
]

HELLO: Final = 0x01
HEARTBEAT: Final = 0x02
DATA: Final = messages.MESSAGES
DATA_REQ: Final = messages.RELIABLE_MESSAGES
ACK: Final = messages.ACKNOWLEDGEMENTS
CAPABILITIES: Final = messages.CAPABILITIES
REQUEST: Final = messages.REQUESTS
REPLY: Final = messages.REPLIES
FAILURE: Final = messages.FAILURES
NACK: Final = messages.REFUSALS
SUBSCRIBE: Final = messages.SUBSCRIPTIONS
UNSUBSCRIBE: Final = messages.UNSUBSCRIPTIONS

PROTOCOL_VERSION: Final = 1
IDENTITY_SIZE: Final = 16
MESSAGE_ID_SIZE: Final = 16
HEARTBEAT_FRAME: Final = b"\x00\x00\x00\x01\x02"
LONGEST_REASON: Final = 256
"""Bytes of UTF-8 in a FAILURE."""
LONGEST_PREFIX: Final = 255
"""Bytes in a SUBSCRIBE."""
EXTENSIBLE: Final = 255
"""Bytes that a body may have in any case of which later versions may say more."""


class Layout(NamedTuple):
    """How the envelopes of one type are to be read."""

    name: str
    id_size: int = 0
    """An id of so many bytes stands before the rest,"""
    longest: int = 0
    """which has at most so many bytes,"""
    may_be_large: bool = False
    """or as many as a message may."""
    counts: bool = False
    """Whether it is a message to be received, and counts against the mark."""


LAYOUTS: Final = {
    HEARTBEAT: Layout("HEARTBEAT"),
    DATA: Layout("DATA", may_be_large=True, counts=True),
    DATA_REQ: Layout("DATA_REQ", MESSAGE_ID_SIZE, may_be_large=True, counts=True),
    ACK: Layout("ACK", MESSAGE_ID_SIZE),
    CAPABILITIES: Layout("CAPABILITIES", longest=EXTENSIBLE, may_be_large=True),
    REQUEST: Layout("REQUEST", MESSAGE_ID_SIZE, may_be_large=True, counts=True),
    REPLY: Layout("REPLY", MESSAGE_ID_SIZE, may_be_large=True),
    FAILURE: Layout("FAILURE", MESSAGE_ID_SIZE, LONGEST_REASON),
    NACK: Layout("NACK", MESSAGE_ID_SIZE),
    SUBSCRIBE: Layout("SUBSCRIBE", longest=LONGEST_PREFIX),
    UNSUBSCRIBE: Layout("UNSUBSCRIBE", longest=LONGEST_PREFIX),
}
"""The types that may come behind a HELLO."""

LARGE_FRAME: Final = 8192
"""From this many bytes of payload on, at the latest, a frame is kept in two, its payload uncopied."""

_pack_header = struct.Struct("!IB").pack
_capabilities = struct.Struct("!III")
_first_capabilities = struct.Struct("!II")  # without features

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


def request_frame(correlation_id: bytes, payload: bytes, large: int = LARGE_FRAME,
                  addressee: bytes | None = None) -> Message:
    """A message in a REQUEST frame, which asks for a REPLY or a FAILURE of ``correlation_id``."""
    return _answerable(REQUEST, Kind.REQUEST, correlation_id, payload, large, addressee)


def reply_frame(correlation_id: bytes, payload: bytes, large: int = LARGE_FRAME,
                addressee: bytes | None = None) -> Message:
    """The answer to it."""
    return _answerable(REPLY, Kind.REPLY, correlation_id, payload, large, addressee)


def failure_frame(correlation_id: bytes, reason: bytes, addressee: bytes | None = None) -> Message:
    """That there is none, and why, in UTF-8: of a ``reason`` that is too long the beginning."""
    said = reason[:LONGEST_REASON].decode("utf-8", "ignore").encode("utf-8")  # and no half of a character
    return _answerable(FAILURE, Kind.REPLY, correlation_id, said, LARGE_FRAME, addressee)


def _answerable(kind_of_frame: int, kind: Kind, correlation_id: bytes, payload: bytes, large: int,
                addressee: bytes | None) -> Message:
    size = len(payload)
    header = _pack_header(size + 17, kind_of_frame) + correlation_id
    if size >= large:
        return Message(kind, (header, payload), size + 21, correlation_id, addressee)
    return Message(kind, header + payload, 0, correlation_id, addressee)


def payload_of(queued: Queued) -> bytes:
    """What the application has sent: for those who write it otherwise."""
    frame = frame_of(queued)
    if isinstance(frame, tuple):
        return frame[1]
    return frame[5 + LAYOUTS[frame[4]].id_size:]


def hello_frame(identity: bytes) -> bytes:
    return _pack_header(2 + IDENTITY_SIZE, HELLO) + bytes((PROTOCOL_VERSION,)) + identity


def capabilities_frame(capabilities: Capabilities) -> bytes:
    milliseconds = min(round(capabilities.heartbeat_interval * 1000), 2**32 - 1)
    return _pack_header(1 + _capabilities.size, CAPABILITIES) + _capabilities.pack(
        milliseconds, min(capabilities.window, 2**32 - 1), capabilities.features.value)


def ack_frames(message_ids: Iterable[bytes]) -> bytes:
    """One ACK frame for each id, joined; nothing for none."""
    joined = ACK_HEADER.join(message_ids)
    return ACK_HEADER + joined if joined else b""


def nack_frame(message_id: bytes) -> bytes:
    return _pack_header(1 + MESSAGE_ID_SIZE, NACK) + message_id


def subscription_frame(prefix: bytes, wanted: bool) -> bytes:
    return _pack_header(1 + len(prefix), SUBSCRIBE if wanted else UNSUBSCRIBE) + prefix


def parse_hello(body: bytes) -> bytes:
    """The identity in the body of a HELLO. Raises `RemoteProtocolError`."""
    if len(body) != 1 + IDENTITY_SIZE:
        raise RemoteProtocolError(f"a HELLO of {len(body)} bytes instead of {1 + IDENTITY_SIZE}")
    if body[0] != PROTOCOL_VERSION:
        raise RemoteProtocolError(f"unsupported protocol version {body[0]}")
    return body[1:]


def parse_capabilities(body: bytes) -> Capabilities:
    """Raises `RemoteProtocolError`. Bytes behind the known fields, and features beyond those known, are left to later
    versions; the first one had no features."""
    if len(body) < _first_capabilities.size:
        raise RemoteProtocolError(f"CAPABILITIES of {len(body)} bytes")
    milliseconds, window, features = _capabilities.unpack_from(body.ljust(_capabilities.size, b"\0"))
    known = features & sum(feature.value for feature in Features)
    return Capabilities(milliseconds / 1000, window, Features(known))
