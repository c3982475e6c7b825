"""What clients and servers alike make of the bytes that they have received."""

from __future__ import annotations

from typing import Any

from ..errors import EndOfStream, IncompleteReadError, PacketDecodeError, RemoteProtocolError
from .codec import Decoder

__all__ = ["decoded", "ending", "is_in_the_middle", "loss"]


def decoded(decoder: Decoder[Any], chunk: bytes) -> list[Any]:
    """The packets that ``chunk`` completes, the next one last, and errors in the places of bad ones."""
    try:
        packets = decoder.feed(chunk)
    except PacketDecodeError as error:  # of a user's own decoder: it is to return them
        packets = [error]
    packets.reverse()
    return packets


def ending(decoder: Decoder[Any]) -> EOFError:
    """What the end of the stream means: `EndOfStream`, or `IncompleteReadError` in the middle of a packet."""
    try:
        decoder.end()
    except IncompleteReadError as error:
        return error
    return EndOfStream("the other end has finished sending")


def is_in_the_middle(decoder: Decoder[Any]) -> bool:
    """Whether a packet has begun and is not complete."""
    return isinstance(ending(decoder), IncompleteReadError)


def loss(decoder: Decoder[Any]) -> RemoteProtocolError | None:
    """What is raised from then on, if no packet can be told from another any more."""
    if decoder.lost is None:
        return None
    error = RemoteProtocolError("after what was received no packet can be told from another")
    error.__cause__ = decoder.lost
    return error
