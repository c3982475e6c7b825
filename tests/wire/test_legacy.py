"""The dialect of aiomsg 2019, as bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.envelopes import PLENTY, message_ids, pattern, pieces

from netmsg.errors import RemoteProtocolError
from netmsg.wire.envelope import LARGE_FRAME, data_frame, hello_frame, reliable_frame
from netmsg.wire.legacy import HEARTBEAT, Legacy, LegacyDecoder
from netmsg.wire.messages import ACKNOWLEDGEMENTS, MESSAGES, RELIABLE_MESSAGES, Capabilities, Kind, Queued

LIMIT = 1 << 20
IDENTITY = bytes(range(16))
ID = bytes(range(100, 116))
CAPABLE = Capabilities(5.0, 10)

Item = tuple[int, bytes, bytes]
"""A kind, a payload, an id."""

MISTAKABLE = [b"", HEARTBEAT, ID + b"\0REQ\0", ID + b"\0REQ\0more", ID + b"\0REP\0", ID + b"\0REP\0more",
              b"\n" * 16 + b"\0REP\0"]


def frame(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


def request(message_id: bytes, payload: bytes) -> bytes:
    return frame(message_id + b"\0REQ\0" + payload)


def reply(message_id: bytes) -> bytes:
    return frame(message_id + b"\0REP\0")


def is_plain(body: bytes) -> bool:
    return bool(body) and body != HEARTBEAT and body[16:21] not in (b"\0REQ\0", b"\0REP\0")


plain = st.one_of(st.binary(max_size=60), st.builds(pattern, st.integers(65_400, 140_000))).filter(is_plain)
large = st.builds(pattern, st.integers(65_400, 140_000))
payloads = st.one_of(st.binary(max_size=60), large, st.sampled_from(MISTAKABLE))
items = st.lists(st.one_of(
    st.tuples(st.just(MESSAGES), plain, st.just(b"")),
    st.tuples(st.just(RELIABLE_MESSAGES), payloads, message_ids),
    st.tuples(st.just(ACKNOWLEDGEMENTS), st.just(b""), message_ids),
    st.just((0, b"", b""))), max_size=10)


def encode(sent: list[Item]) -> bytes:
    encoded = b""
    for kind, payload, its_id in sent:
        if kind == MESSAGES:
            encoded += frame(payload)
        elif kind == RELIABLE_MESSAGES:
            encoded += request(its_id, payload)
        else:
            encoded += reply(its_id) if kind else frame(HEARTBEAT)
    return encoded


def decode(decoder: LegacyDecoder, chunk: bytes, room: int = PLENTY) -> list[Item]:
    found: list[Item] = []
    for kind, bodies, its_ids in decoder.decode(chunk, room):
        assert bodies and (its_ids is not None) == (kind == RELIABLE_MESSAGES)
        if kind == ACKNOWLEDGEMENTS:
            found += [(kind, b"", body) for body in bodies]
        else:
            found += [(kind, body, its_id) for body, its_id in zip(bodies, its_ids or [b""] * len(bodies), strict=True)]
    return found


def heard(sent: list[Item]) -> list[Item]:
    """Of heartbeats nobody hears."""
    return [item for item in sent if item[0]]


@given(items, st.data())
def test_any_split_decodes_alike(sent: list[Item], data: st.DataObject) -> None:
    encoded = encode(sent)
    cuts = data.draw(st.lists(st.integers(0, len(encoded)), max_size=20))
    decoder = LegacyDecoder(LIMIT)
    found: list[Item] = []
    for chunk in pieces(encoded, cuts):
        found += decode(decoder, chunk)
    assert found == heard(sent) and decoder.error is None and not decoder.buffered and not decoder.stopped
    assert decoder.envelopes == sum(kind in (0, ACKNOWLEDGEMENTS) for kind, _, _ in sent)


@given(items, st.data())
def test_decoding_stops_at_the_room_there_is_and_resumes_without_loss(sent: list[Item], data: st.DataObject) -> None:
    encoded = encode(sent)
    cuts = data.draw(st.lists(st.integers(0, len(encoded)), max_size=6))
    decoder = LegacyDecoder(LIMIT)
    found: list[Item] = []
    for chunk in pieces(encoded, cuts):
        room = data.draw(st.integers(0, 3))
        while True:
            taken = decode(decoder, chunk, room)
            assert sum(kind in (MESSAGES, RELIABLE_MESSAGES) for kind, _, _ in taken) <= room
            found += taken
            if not decoder.stopped:
                break
            chunk = b""
            room = data.draw(st.integers(1, 4))
    assert found == heard(sent)


@given(st.integers(65_536, 3 << 20))
def test_of_a_large_message_as_much_is_asked_for_as_is_left(size: int) -> None:
    encoded = frame(pattern(size)) + frame(b"next")
    decoder = LegacyDecoder(4 << 20)
    found = decode(decoder, encoded[:100])
    position = 100
    while not found:
        wanted = decoder.read_size
        assert 0 < wanted <= 1 << 20
        found += decode(decoder, encoded[position:position + wanted])
        position += wanted
    assert found == [(MESSAGES, pattern(size), b"")] and position == 4 + size
    assert decode(decoder, encoded[position:]) == [(MESSAGES, b"next", b"")]


@pytest.mark.parametrize("wrong", [frame(b""), struct.pack("!I", 100 + 22), struct.pack("!I", 2**32 - 1)])
def test_what_is_wrong_is_noticed_at_once_and_what_came_before_it_is_good(wrong: bytes) -> None:
    decoder = LegacyDecoder(100)
    assert decode(decoder, frame(b"good") + wrong) == [(MESSAGES, b"good", b"")]
    assert isinstance(decoder.error, RemoteProtocolError) and not decoder.buffered
    assert decode(decoder, frame(b"too late")) == []


@pytest.mark.parametrize("kind", [MESSAGES, RELIABLE_MESSAGES])
def test_the_limit_is_on_the_payload(kind: int) -> None:
    def coming(size: int) -> LegacyDecoder:
        decoder = LegacyDecoder(100)
        assert decode(decoder, (frame(bytes(size)) if kind == MESSAGES else request(ID, bytes(size)))
                      + frame(b"next"))[:1] == ([(kind, bytes(size), ID if kind != MESSAGES else b"")]
                                                if size <= 100 else [])
        return decoder

    assert coming(100).error is None
    assert isinstance(coming(101).error, RemoteProtocolError)


@pytest.mark.parametrize("short", [frame(HEARTBEAT), reply(ID)])
def test_many_that_are_no_messages_are_decoded_some_at_a_time(short: bytes) -> None:
    decoder = LegacyDecoder(100)
    found = decode(decoder, short * 10_000 + frame(b"last"))
    rounds = 1
    while decoder.stopped:
        found += decode(decoder, b"")
        rounds += 1
    assert found[-1] == (MESSAGES, b"last", b"") and decoder.envelopes == 10_000 and rounds > 3


@given(st.lists(st.binary(max_size=80), max_size=12))
def test_random_bytes_raise_nothing_and_no_more_is_held_than_came(chunks: list[bytes]) -> None:
    decoder = LegacyDecoder(100)
    received = 0
    for chunk in chunks:
        received += len(chunk)
        decode(decoder, chunk)
        assert decoder.buffered <= received


def test_nothing_is_kept_of_what_is_discarded() -> None:
    decoder = LegacyDecoder(LIMIT)
    decode(decoder, frame(pattern(100_000))[:90_000])
    decoder.discard()
    assert not decoder.buffered and decode(decoder, frame(b"x")) == [(MESSAGES, b"x", b"")]


# The dialect


def test_the_first_frame_is_an_identity() -> None:
    dialect = Legacy(LIMIT)
    for byte in frame(IDENTITY)[:-1]:
        dialect.decoder.hold(bytes((byte,)))
        assert dialect.greet() is None
    dialect.decoder.hold(frame(IDENTITY)[-1:] + frame(b"and more"))
    assert dialect.greet() == IDENTITY
    assert decode(dialect.decoder, b"") == [(MESSAGES, b"and more", b"")]


def test_an_identity_may_look_like_a_heartbeat() -> None:
    dialect = Legacy(LIMIT)
    dialect.decoder.hold(frame(HEARTBEAT))
    assert dialect.greet() == HEARTBEAT


def test_who_has_opened_has_said_who_it_is() -> None:
    dialect = Legacy(LIMIT)
    assert dialect.welcome(IDENTITY, CAPABLE, opened=False) == frame(IDENTITY) == dialect.opening(IDENTITY)
    assert dialect.welcome(IDENTITY, CAPABLE, opened=True) == b""
    assert hello_frame(IDENTITY)[:4] == struct.pack("!I", 18), "which is 18 bytes for an identity, there"


def test_heartbeats_and_acknowledgements() -> None:
    dialect = Legacy(LIMIT)
    assert dialect.heartbeat == frame(b"aiomsg-heartbeat")
    assert dialect.acknowledgements([ID, IDENTITY]) == reply(ID) + reply(IDENTITY)
    assert dialect.acknowledgements([]) == b""


def written(dialect: Legacy, *messages: Queued) -> bytes:
    encoder = dialect.encoder()
    frames = [encoder(message) for message in messages]
    return b"".join(b"".join(one) if isinstance(one, tuple) else one for one in frames)


@given(st.lists(st.one_of(plain, st.binary(max_size=30).filter(is_plain)), max_size=5))
def test_messages_are_written_as_they_are(sent: list[bytes]) -> None:
    messages = [data_frame(payload) for payload in sent]
    assert written(Legacy(LIMIT), *messages) == b"".join(map(frame, sent))
    addressed = [data_frame(payload, kind=Kind.ADDRESSED, addressee=IDENTITY) for payload in sent]
    assert written(Legacy(LIMIT), *addressed) == b"".join(map(frame, sent))


@given(message_ids, payloads)
def test_messages_to_be_acknowledged_have_their_ids(message_id: bytes, payload: bytes) -> None:
    assert written(Legacy(LIMIT), reliable_frame(message_id, payload)) == request(message_id, payload)


@pytest.mark.parametrize("payload", MISTAKABLE)
def test_what_would_be_mistaken_is_sent_so_that_it_is_not(payload: bytes) -> None:
    decoder = LegacyDecoder(LIMIT)
    sent = written(Legacy(LIMIT), data_frame(payload), data_frame(payload))
    one, other = decode(decoder, sent)
    assert one[:2] == other[:2] == (RELIABLE_MESSAGES, payload) and one[2] != other[2]


def test_large_payloads_are_not_copied() -> None:
    payload = bytes(LARGE_FRAME)
    encoded = Legacy(LIMIT).encoder()(reliable_frame(ID, payload))
    assert isinstance(encoded, tuple) and encoded[1] is payload
    assert b"".join(encoded) == request(ID, payload)
