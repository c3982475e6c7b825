"""What clients and servers alike make of the bytes that they have received."""

from __future__ import annotations

from copy import copy
from typing import Any

from ..errors import EndOfStream, IncompleteReadError, PacketDecodeError, RemoteProtocolError, again, bare
from ..interrupts import is_of_a_signal_handler
from .codec import Codec, Decoder, MappedCodec
from .delimited import DelimitedCodec
from .json_lines import JSONCodec
from .length_prefixed import LengthPrefixedCodec
from .lines import LineCodec
from .netstrings import NetstringCodec
from .structs import StructCodec

__all__ = ["decoded", "decodes_by_itself", "ending", "has_failed", "is_in_the_middle", "loss", "undecoded"]

OURS = (DelimitedCodec, JSONCodec, LengthPrefixedCodec, LineCodec, NetstringCodec, StructCodec)


def decodes_by_itself(codec: Codec[Any, Any]) -> bool:
    """Whether no code of a user's is called to decode."""
    if isinstance(codec, MappedCodec):
        return codec._restores_nothing and decodes_by_itself(codec._inner)
    return type(codec) in OURS


def decoded(decoder: Decoder[Any], chunk: bytes) -> list[Any]:
    """The packets that ``chunk`` completes, the next one last, and errors in the places of bad ones. If there are many
    of those, not all yet: the others are what ``b""`` completes, as long as some are `_left`."""
    try:
        packets = decoder._feed_some(chunk)
    except Exception as error:
        return [undecoded(decoder, chunk, error)]
    packets.reverse()
    return packets


def undecoded(decoder: Decoder[Any], chunk: bytes, error: BaseException) -> PacketDecodeError:
    """What stands in the place of packets where a decoder has raised ``error``, which is being handled. Raises it again
    if it is none of the decoder's."""
    if isinstance(error, PacketDecodeError):  # of a user's own decoder: it is to return them
        return bare(error)
    # And this it is not to do: what it has understood of the stream is not known any more.
    if isinstance(error, KeyboardInterrupt) or isinstance(error, Exception) and is_of_a_signal_handler(error):
        raise error
    fault = PacketDecodeError(f"the decoder failed: {error!r:.200}", chunk)
    fault.__cause__ = error
    decoder._lost = copy(fault)  # and not what caused it, with all that is alive in its traceback
    decoder._failed = True
    return fault


def ending(decoder: Decoder[Any]) -> EOFError:
    """What the end of the stream means: `EndOfStream`, or `IncompleteReadError` in the middle of a packet."""
    try:
        decoder.end()
    except IncompleteReadError as error:
        return again(error)
    except Exception as error:  # of a user's own decoder
        if is_of_a_signal_handler(error):
            raise
        failed = IncompleteReadError(b"")
        failed.__cause__ = error
        return failed
    return EndOfStream("the other end has finished sending")


def is_in_the_middle(decoder: Decoder[Any]) -> bool:
    """Whether a packet has begun and is not complete, or was not handed out."""
    return bool(decoder._left) or isinstance(ending(decoder), IncompleteReadError)


def has_failed(decoder: Decoder[Any]) -> bool:
    """Whether it has raised what it should not have: then nobody calls it any more."""
    return decoder._failed


def loss(decoder: Decoder[Any]) -> RemoteProtocolError | None:
    """What is raised from then on, if no packet can be told from another any more."""
    if decoder._lost is None:
        return None
    error = RemoteProtocolError("after what was received no packet can be told from another")
    error.__cause__ = again(decoder._lost)
    return error
