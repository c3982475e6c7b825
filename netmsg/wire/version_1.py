"""Version 1 of aiomsg's protocol as a dialect: see `netmsg.wire.envelope` for what it looks like.

The end that dialled says HELLO at once, the end that accepted when it lets the other in; and each end tells its
capabilities once it has read the other's HELLO, for only then is it known to understand them.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import RemoteProtocolError
from .dialect import Dialect
from .envelope import (
    HEARTBEAT_FRAME, HELLO, ack_frames, capabilities_frame, hello_frame, nack_frame, parse_capabilities, parse_hello,
    subscription_frame,
)
from .framing import EnvelopeDecoder
from .messages import Capabilities

__all__ = ["Version1"]


class Version1(Dialect):
    """What is queued is written as it is."""

    name = "version 1"
    heartbeat = HEARTBEAT_FRAME

    def __init__(self, max_message_size: int) -> None:
        self.decoder: EnvelopeDecoder = EnvelopeDecoder(max_message_size)

    def opening(self, identity: bytes) -> bytes:
        return hello_frame(identity)

    def greet(self) -> bytes | None:
        envelope = self.decoder.take_one()
        if envelope is None:
            return None
        if envelope[0] != HELLO:
            raise RemoteProtocolError(f"the first envelope is of type {envelope[0]:#04x}, not HELLO")
        return parse_hello(envelope[1:])

    def welcome(self, identity: bytes, capabilities: Capabilities, *, opened: bool) -> bytes:
        hello = b"" if opened else hello_frame(identity)
        return hello + capabilities_frame(capabilities)

    def acknowledgements(self, message_ids: Iterable[bytes]) -> bytes:
        return ack_frames(message_ids)

    def refusal(self, message_id: bytes) -> bytes:
        return nack_frame(message_id)

    def subscriptions(self, prefixes: Iterable[bytes], wanted: bool) -> bytes:
        return b"".join(subscription_frame(prefix, wanted) for prefix in prefixes)

    def capabilities(self, body: bytes) -> Capabilities:
        return parse_capabilities(body)
