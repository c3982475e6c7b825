"""Lanes and frames for the tests of what is pure about sending."""

from __future__ import annotations

from contextlib import nullcontext

from netmsg.messaging.lane import Addressed, Lane, Write
from netmsg.wire.envelope import Frame, frame_header


def lane(identity: bytes = b"a", *, window: int = 0, dialled: object = None) -> Lane:
    return Lane(identity, nullcontext(), window=window, dialled=dialled)


def joined(frame: Frame) -> bytes:
    return b"".join(frame) if isinstance(frame, tuple) else bytes(frame)


def addressed(frame: Frame) -> Frame:
    """The frame as one that was sent by identity."""
    header = Addressed(frame_header(frame))
    return (header, frame[1]) if isinstance(frame, tuple) else header


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
