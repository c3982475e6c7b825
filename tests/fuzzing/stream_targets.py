"""Targets: what comes over the connections of a Søcket, from the first byte on."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final, NamedTuple

from support.envelopes import PLENTY, Envelope, flatten

from netmsg.errors import RemoteProtocolError
from netmsg.wire import framing, legacy
from netmsg.wire.dialect import Dialect, RunDecoder
from netmsg.wire.envelope import (
    ACK, CAPABILITIES, DATA, DATA_REQ, FAILURE, HELLO, LAYOUTS, NACK, REPLY, REQUEST, SUBSCRIBE, UNSUBSCRIBE,
    ack_frames, capabilities_frame, data_frame, failure_frame, nack_frame, parse_capabilities, reliable_frame,
    reply_frame, request_frame, subscription_frame,
)
from netmsg.wire.framing import EnvelopeDecoder
from netmsg.wire.legacy import Legacy, LegacyDecoder
from netmsg.wire.messages import Capabilities, Features, Frame, Run, frame_of
from netmsg.wire.session import Session, State
from netmsg.wire.sniffing import Sniffed, dialect_of, refusal_of, sniff, stranger
from netmsg.wire.version_1 import Version1

from .inputs import Input

__all__ = ["envelopes", "old_frames", "sessions", "sniffing"]

LIMITS: Final = (100, 1, 20, 1 << 20)
"""Sizes of the largest message, by the lowest two bits of an input's choice."""
SMALL_IS_LARGE: Final = 0x80
"""If this bit of the choice is set, frames of some bytes are gathered in pieces, as large ones are."""
LITTLE_ROOM: Final = 0x40
"""If this one is, there is room for a message or two at a time."""
OURS: Final = Capabilities(5.0, 1000, Features.REQUESTS)
IDENTITY: Final = b"fuzzing identity"
ID_SIZE: Final = 16
REASON_SIZE: Final = 256
PREFIX_SIZE: Final = 255


@contextmanager
def large_from(module: ModuleType, choice: int) -> Iterator[None]:
    """A frame of 65,536 bytes is a long way for who flips bits."""
    before = module.LARGE
    setattr(module, "LARGE", 64 if choice & SMALL_IS_LARGE else before)
    try:
        yield
    finally:
        setattr(module, "LARGE", before)


def heard(decoder: RunDecoder, chunks: list[bytes], room: int, most_held: int) -> list[Run]:
    """All that ``decoder`` makes of ``chunks``, asked for by the way in which the engine does it; and that it keeps to
    its bounds meanwhile."""
    runs: list[Run] = []
    for chunk in chunks:
        while True:
            some = decoder.decode(chunk, room)
            runs += some
            counted = sum(len(run.bodies) for run in some if run.kind in (DATA, DATA_REQ, REQUEST))
            assert counted <= room, f"{counted} messages, and room for {room}"
            assert decoder.read_size > 0
            if not decoder.stopped or decoder.error is not None:
                break
            chunk = b""
        assert decoder.buffered <= most_held or decoder.error is not None, f"{decoder.buffered} bytes are held"
    return runs


def says_no_more(decoder: RunDecoder, more: bytes) -> None:
    assert isinstance(decoder.error, RemoteProtocolError)
    for chunk in (more, b""):
        assert decoder.decode(chunk, PLENTY) == [] and decoder.only_message(chunk) is None, "heard behind an error"


# Version 1

def smallest_and_largest(kind: int, limit: int) -> tuple[int, int]:
    """Of an envelope of that type, the type byte included: what `netmsg.wire.envelope` says in words."""
    if kind == HELLO:
        return 1, 0
    if kind in (DATA_REQ, REQUEST, REPLY):
        return 1 + ID_SIZE, 1 + ID_SIZE + limit
    if kind in (ACK, NACK):
        return 1 + ID_SIZE, 1 + ID_SIZE
    if kind == FAILURE:
        return 1 + ID_SIZE, 1 + ID_SIZE + REASON_SIZE
    if kind in (SUBSCRIBE, UNSUBSCRIBE):
        return 1, 1 + PREFIX_SIZE
    if kind == CAPABILITIES:
        return 1, 1 + max(PREFIX_SIZE, limit)
    return 1, 1 if kind in LAYOUTS and kind != DATA else 1 + limit


def breaks_a_rule(rest: bytes, limit: int) -> bool | None:
    """Whether the frame that ``rest`` begins with may not be there; ``None`` if it may, and is complete."""
    if len(rest) < 4:
        return False
    size = int.from_bytes(rest[:4], "big")
    if len(rest) == 4:
        return size == 0 or size > max(1 + ID_SIZE + limit, 1 + ID_SIZE + REASON_SIZE)
    smallest, largest = smallest_and_largest(rest[4], limit)
    if not smallest <= size <= largest:
        return True
    return None if len(rest) >= 4 + size else False


def written_again(envelope: Envelope) -> bytes:
    """By what netmsg writes with, where it writes such ones."""
    kind, body, message_id = envelope
    with_ids: dict[int, Callable[[bytes, bytes], Frame]] = {
        DATA_REQ: lambda message_id, body: reliable_frame(message_id, body).frame,
        REQUEST: lambda message_id, body: request_frame(message_id, body).frame,
        REPLY: lambda message_id, body: reply_frame(message_id, body).frame,
    }
    if kind == DATA:
        frame = frame_of(data_frame(body))
    elif kind in with_ids:
        frame = with_ids[kind](message_id, body)
    elif kind == FAILURE and is_text(body):
        frame = failure_frame(message_id, body).frame
    elif kind == ACK:
        frame = ack_frames([body])
    elif kind == NACK:
        frame = nack_frame(body)
    elif kind in (SUBSCRIBE, UNSUBSCRIBE):
        frame = subscription_frame(body, kind == SUBSCRIBE)
    else:
        frame = struct.pack("!IB", 1 + len(message_id) + len(body), kind) + message_id + body
    return frame if isinstance(frame, bytes) else b"".join(frame)


def is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def envelopes(data: bytes) -> None:
    """What comes out, written again, is what went in, up to the first frame that may not be there or is not complete;
    however it is cut, and whatever room there is. An error stands for that frame, and nothing is heard behind it. What
    is held is no more than one frame. Capabilities are understood or refused."""
    drawn = Input(data)
    limit = LIMITS[drawn.choice & 3]
    rooms = (PLENTY, 1 + drawn.choice % 3 if drawn.choice & LITTLE_ROOM else PLENTY)
    most_held = 4 + 1 + ID_SIZE + max(limit, REASON_SIZE)
    found = []
    for chunks, room in zip(([drawn.data], drawn.pieces()), rooms):
        decoder = EnvelopeDecoder(limit)
        with large_from(framing, drawn.choice):
            got = flatten(heard(decoder, chunks, room, most_held))
        found.append(got)
        again = b"".join(map(written_again, got))
        assert drawn.data.startswith(again), "what was heard is not what was said"
        broken = breaks_a_rule(drawn.data[len(again):], limit)
        assert broken is not None, "a complete frame was not heard"
        assert broken is (decoder.error is not None), f"the rest breaks a rule: {broken}; {decoder.error}"
        assert decoder.envelopes == sum(not envelope.is_message for envelope in got)
        if decoder.error is not None:
            says_no_more(decoder, drawn.data)
    assert found[0] == found[1]
    for envelope in found[0]:
        if envelope.kind == CAPABILITIES:
            understand_capabilities(Version1(limit), envelope.body)
    if len(found[0]) == 1 and found[0][0].kind == DATA and len(drawn.data) == 5 + len(found[0][0].body):
        assert EnvelopeDecoder(limit).only_message(drawn.data) in (None, found[0][0].body)


def understand_capabilities(dialect: Dialect, body: bytes) -> None:
    try:
        capabilities = dialect.capabilities(body)
    except RemoteProtocolError:
        return
    assert dialect.name == "version 1"
    assert parse_capabilities(capabilities_frame(capabilities)[5:]) == capabilities


# The dialect of 2019

def read_old_frames(data: bytes, limit: int) -> tuple[list[Envelope], bool]:
    """What stands in ``data``, read in the plainest way; and whether something may not be there."""
    found: list[Envelope] = []
    position = 0
    while len(data) - position >= 4:
        size = int.from_bytes(data[position:position + 4], "big")
        if not 0 < size <= limit + legacy.HEADER_SIZE:
            return found, True
        body = data[position + 4:position + 4 + size]
        if len(body) < size:
            break
        message_id, header, rest = body[:16], body[16:21], body[21:]
        if header == b"\0REQ\0":
            found.append(Envelope(DATA_REQ, rest, message_id))
        elif header == b"\0REP\0" and not rest:
            found.append(Envelope(ACK, message_id))
        elif body != b"aiomsg-heartbeat":
            if size > limit:
                return found, True
            found.append(Envelope(DATA, body))
        position += 4 + size
    return found, False


def old_frames(data: bytes) -> None:
    """What comes out is what a plain reading finds, however it is cut, and whatever room there is; what is wrong is an
    error, behind which nothing is heard. What is held is no more than one frame. A message that is sent on to a peer of
    that dialect is a message there, and the same."""
    drawn = Input(data)
    limit = LIMITS[drawn.choice & 3]
    rooms = (PLENTY, 1 + drawn.choice % 3 if drawn.choice & LITTLE_ROOM else PLENTY)
    expected, broken = read_old_frames(drawn.data, limit)
    for chunks, room in zip(([drawn.data], drawn.pieces()), rooms):
        decoder = LegacyDecoder(limit)
        with large_from(legacy, drawn.choice):
            got = flatten(heard(decoder, chunks, room, 4 + limit + legacy.HEADER_SIZE))
        assert got == expected
        assert broken is (decoder.error is not None)
        if broken:
            says_no_more(decoder, drawn.data)
    sent = [envelope for envelope in expected if envelope.is_message]
    encode = Legacy(limit).encoder()
    frames = [encode(reliable_frame(one.message_id, one.body) if one.message_id else data_frame(one.body))
              for one in sent]
    wire = b"".join(part for frame in frames for part in (frame if isinstance(frame, tuple) else (frame,)))
    decoder = LegacyDecoder(limit)
    there = flatten(heard(decoder, [wire], PLENTY, 0))
    assert [one.body for one in there] == [one.body for one in sent] and decoder.error is None


# From the first byte on

class Conversation(NamedTuple):
    """What came of a connection."""

    speaks: Sniffed | None
    identity: bytes
    heard: list[Envelope]
    failed: bool


def converse(chunks: list[bytes], limit: int, room: int, dialled: bool) -> Conversation:
    """As the engine does it."""
    first = b""
    session: Session | None = None
    speaks: Sniffed | None = None
    got: list[Envelope] = []
    failed = False
    for chunk in chunks:
        if session is None:
            first += chunk
            speaks = sniff(first)
            dialect = None if speaks is None else dialect_of(speaks, limit)
            if dialect is None:
                if speaks is not None:
                    break
                continue
            session = Session(IDENTITY, OURS, dialect, dialled=dialled)
            chunk = first
        if session.state is State.OPENING:
            try:
                if not session.greet(chunk):
                    assert session.peer_identity == b""
                    continue
            except RemoteProtocolError:
                failed = True
                break
            chunk = b""
            check_welcome(session)
        got += flatten(heard(session.decoder, [chunk], room, 5 + ID_SIZE + max(limit, REASON_SIZE)))
        if session.decoder.error is not None:
            failed = True
            says_no_more(session.decoder, chunk)
            break
    if session is not None:
        for envelope in got:
            if envelope.kind == CAPABILITIES:
                understand_capabilities(session.dialect, envelope.body)
        session.closed()
        session.closed()  # may be said twice
        assert session.state is State.CLOSED and session.decoder.buffered == 0
    return Conversation(speaks, session.peer_identity if session is not None else b"", got, failed)


def check_welcome(session: Session) -> None:
    """That the other end understands what it is told."""
    said = session.dialect.opening(IDENTITY) * session.dialled + session.answer() + session.welcome()
    other = type(session.dialect)(PLENTY)  # type: ignore[call-arg]
    theirs = Session(session.peer_identity, OURS, other, dialled=not session.dialled)
    assert theirs.greet(said) and theirs.peer_identity == IDENTITY
    theirs.welcome()
    for run in other.decoder.decode(b"", PLENTY):
        assert run.kind == CAPABILITIES and all(other.capabilities(body) == OURS for body in run.bodies)
    assert other.decoder.error is None and other.decoder.buffered == 0


def sessions(data: bytes) -> None:
    """Whoever it is and however it is cut, it is the same conversation: with the same end, by the same words, and with
    the same outcome. Only `RemoteProtocolError` comes of what is wrong. Who says who it is, as it should be said, is
    known by that, and what it says then is heard; nothing is of anybody else, nor behind what was wrong. What we say
    is understood."""
    drawn = Input(data)
    limit = LIMITS[drawn.choice & 3]
    room = 1 + drawn.choice % 3 if drawn.choice & LITTLE_ROOM else PLENTY
    dialled = bool(drawn.choice & 0x20)
    with large_from(framing, drawn.choice), large_from(legacy, drawn.choice):
        whole = converse([drawn.data], limit, PLENTY, dialled)
        cut = converse(drawn.pieces(), limit, room, dialled)
    assert whole == cut
    begin = {Sniffed.VERSION_1: 6, Sniffed.LEGACY: 4}.get(whole.speaks or Sniffed.UNKNOWN)
    end = len(drawn.data) + 1 if begin is None else begin + ID_SIZE
    if end > len(drawn.data):
        assert whole.identity == b"" and not whole.heard and not whole.failed
    elif begin == 6 and drawn.data[5] != 1:  # another version
        assert whole.identity == b"" and not whole.heard and whole.failed
    else:
        assert whole.identity == drawn.data[begin:end]
        decoder = (EnvelopeDecoder if begin == 6 else LegacyDecoder)(limit)
        assert whole.heard == flatten(heard(decoder, [drawn.data[end:]], PLENTY, len(drawn.data)))


def sniffing(data: bytes) -> None:
    """Five bytes are enough; what has been told stays told when more comes. It is TLS if its first two bytes are those
    of a record of TLS, and a request if it begins with GET and a blank; we speak with the two dialects. Of whom we do
    not speak with something can be said."""
    verdicts = [sniff(data[:size]) for size in range(min(len(data), 8) + 1)]
    known = [verdict for verdict in verdicts if verdict is not None]
    assert verdicts == [None] * (len(verdicts) - len(known)) + known and len(set(known)) <= 1
    assert known or len(data) < 5
    for verdict in known[:1]:
        assert sniff(data) is verdict
        assert (verdict is Sniffed.TLS) == (data[:2] in (b"\x16\x03", b"\x15\x03"))
        assert (verdict is Sniffed.WEBSOCKET) == (data[:4] == b"GET ")
        assert (verdict is Sniffed.LEGACY) == (data[:4] == bytes((0, 0, 0, 16)))
        assert (verdict is Sniffed.VERSION_1) == (data[:5] == bytes((0, 0, 0, 18, 1)))
        is_spoken = verdict in (Sniffed.VERSION_1, Sniffed.LEGACY)
        assert (dialect_of(verdict, 100) is not None) is is_spoken
        if not is_spoken:
            assert all(stranger(verdict, data, dialled) for dialled in (True, False))
        assert refusal_of(verdict) == b"" or verdict is Sniffed.WEBSOCKET
