"""Lanes and frames for the tests of what is pure about sending."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache

from netmsg.messaging.lane import Lane, Write
from netmsg.wire.messages import Kind, Message, Queued, frame_of


def lane(identity: bytes = b"a", *, window: int = 0, dialled: object = None) -> Lane:
    return Lane(identity, nullcontext(), window=window, dialled=dialled)


def joined(message: Queued) -> bytes:
    """Its frame, in one."""
    frame = frame_of(message)
    return b"".join(frame) if isinstance(frame, tuple) else frame


@cache
def addressed(message: Queued, identity: bytes = b"peer") -> Message:
    """The message as one that was sent by identity; the same one every time."""
    if isinstance(message, bytes):
        return Message(Kind.ADDRESSED, message, 0, b"", identity)
    kind = message.kind if message.kind is Kind.RELIABLE else Kind.ADDRESSED
    return Message(kind, message.frame, message.large, message.message_id, identity)


def take(write: Write, count: int | None = None) -> bytes:
    """Do as the kernel does: take ``count`` bytes of what remains, or all of it."""
    taken = b"".join(write.remaining())[:count]
    write.counts.append(len(taken))
    return taken


def send_all(out: Lane) -> bytes:
    """Everything in the lane, handed over."""
    sent = b""
    while (write := out.begin_write()) is not None:
        sent += take(write)
        out.end_write(write)
    return sent
