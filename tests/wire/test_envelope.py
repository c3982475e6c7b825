"""Envelopes and the frames around them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.envelopes import message_ids, pattern, small_bodies
from support.wire_peer import frame as encoded

from netmsg.errors import RemoteProtocolError
from netmsg.wire.envelope import (
    ACK, CAPABILITIES, FAILURE, HEARTBEAT, HEARTBEAT_FRAME, HELLO, LARGE_FRAME, REPLY, REQUEST, ack_frames,
    capabilities_frame, data_frame, failure_frame, hello_frame, parse_capabilities, parse_hello, payload_of,
    reliable_frame, reply_frame, request_frame,
)
from netmsg.wire.messages import (
    Capabilities, Features, Kind, Message, Queued, frame_of, frame_size, large_size, message_id_of,
)

IDENTITY = bytes(range(16))
MESSAGE_ID = bytes(range(100, 116))


def joined(message: Queued) -> bytes:
    frame = frame_of(message)
    return b"".join(frame) if isinstance(frame, tuple) else frame


@pytest.mark.parametrize("size", [0, 1, 4094, 4095, 4096, 4097, 8191, 8192, 8193, 70_000])
def test_data_frame_is_length_type_and_payload(size: int) -> None:
    payload = pattern(size)
    assert joined(data_frame(payload)) == struct.pack("!I", size + 1) + b"\x03" + payload


@pytest.mark.parametrize("size", [0, 1, 4096, 8191, 8192, 70_000])
def test_reliable_frame_is_length_type_message_id_and_payload(size: int) -> None:
    payload = pattern(size)
    message = reliable_frame(MESSAGE_ID, payload)
    assert joined(message) == struct.pack("!I", size + 17) + b"\x04" + MESSAGE_ID + payload


@given(st.integers(0, 200), st.integers(1, 200))
def test_payload_is_copied_only_below_the_size_called_large(size: int, large: int) -> None:
    payload = pattern(size)
    for message in (data_frame(payload, large), data_frame(payload, large, Kind.ADDRESSED, IDENTITY),
                    reliable_frame(MESSAGE_ID, payload, large), request_frame(MESSAGE_ID, payload, large),
                    reply_frame(MESSAGE_ID, payload, large)):
        frame = frame_of(message)
        if size < large:
            assert type(frame) is bytes
        else:
            assert isinstance(frame, tuple) and frame[1] is payload


def test_frames_are_kept_in_two_from_the_default_size_on() -> None:
    assert isinstance(frame_of(data_frame(bytes(LARGE_FRAME))), tuple)
    assert isinstance(frame_of(data_frame(bytes(LARGE_FRAME - 1))), bytes)


def test_a_small_message_to_anybody_is_nothing_but_its_frame() -> None:
    assert data_frame(b"payload") == b"\0\0\0\x08\x03payload"
    assert data_frame(b"payload", kind=Kind.PUBLISHED) == b"\0\0\0\x08\x03payload"


@given(st.binary(max_size=300), message_ids, st.integers(1, 300))
def test_a_message_says_what_it_is_whatever_its_size(payload: bytes, message_id: bytes, large: int) -> None:
    sent = (data_frame(payload, large, Kind.PUBLISHED), data_frame(payload, large, Kind.ADDRESSED, IDENTITY),
            reliable_frame(message_id, payload, large), reliable_frame(message_id, payload, large, IDENTITY),
            request_frame(message_id, payload, large), reply_frame(message_id, payload, large, IDENTITY))
    for message in sent:
        assert frame_size(message) == len(joined(message))
        assert large_size(message) == (frame_size(message) if len(payload) >= large else 0)
        assert payload_of(message) == payload
    said = [(message.kind, message.addressee) for message in sent if isinstance(message, Message)]
    assert said[-5:] == [(Kind.ADDRESSED, IDENTITY), (Kind.RELIABLE, None), (Kind.RELIABLE, IDENTITY),
                         (Kind.REQUEST, None), (Kind.REPLY, IDENTITY)]
    assert said[:-5] == ([(Kind.PUBLISHED, None)] if len(payload) >= large else [])
    assert list(map(message_id_of, sent)) == [b"", b"", *[message_id] * 4]


@given(message_ids, small_bodies)
def test_requests_and_replies_match_the_wire_format(correlation_id: bytes, payload: bytes) -> None:
    assert joined(request_frame(correlation_id, payload)) == encoded(REQUEST, correlation_id + payload)
    assert joined(reply_frame(correlation_id, payload)) == encoded(REPLY, correlation_id + payload)


@pytest.mark.parametrize(("reason", "said"), [
    ("", b""), ("ValueError", b"ValueError"), ("x" * 300, b"x" * 256),
    ("x" * 255 + "\u00e4", b"x" * 255),  # no half of a character
    ("\u00e4" * 200, "\u00e4".encode() * 128),
])
def test_a_failure_says_as_much_of_the_reason_as_there_is_room_for(reason: str, said: bytes) -> None:
    message = failure_frame(MESSAGE_ID, reason.encode(), IDENTITY)
    assert joined(message) == encoded(FAILURE, MESSAGE_ID + said)
    assert message.kind is Kind.REPLY and message.message_id == MESSAGE_ID and message.addressee == IDENTITY


@given(st.lists(message_ids, max_size=5))
def test_ack_frames_holds_one_ack_for_each_id(ids: list[bytes]) -> None:
    expected = b"".join(encoded(ACK, message_id) for message_id in ids)
    assert ack_frames(ids) == expected
    assert ack_frames(iter(ids)) == expected


def test_heartbeat_is_an_envelope_of_its_type_alone() -> None:
    assert HEARTBEAT_FRAME == encoded(HEARTBEAT)


def test_hello_frame_matches_the_wire_format() -> None:
    assert hello_frame(IDENTITY) == b"\x00\x00\x00\x12\x01\x01" + IDENTITY


@given(message_ids)
def test_hello_round_trip(identity: bytes) -> None:
    frame = hello_frame(identity)
    assert frame[4] == HELLO
    assert parse_hello(frame[5:]) == identity


@pytest.mark.parametrize("size", [0, 1, 16, 18, 255])
def test_hello_of_another_length_is_a_remote_protocol_error(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match=str(size)):
        parse_hello((b"\x01" + bytes(size))[:size])


@pytest.mark.parametrize("version", [0, 2, 255])
def test_hello_of_another_version_is_a_remote_protocol_error(version: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"version {version}"):
        parse_hello(bytes((version,)) + IDENTITY)


@given(st.binary(max_size=40))
def test_parsing_hello_raises_nothing_but_remote_protocol_error(body: bytes) -> None:
    valid = len(body) == 17 and body[0] == 1
    try:
        identity = parse_hello(body)
    except RemoteProtocolError:
        assert not valid
    else:
        assert valid and identity == body[1:]


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_capabilities_round_trip_in_milliseconds(milliseconds: int, window: int) -> None:
    for features in (Features(0), Features.REQUESTS):
        frame = capabilities_frame(Capabilities(milliseconds / 1000, window, features))
        assert frame == encoded(CAPABILITIES, struct.pack("!III", milliseconds, window, features.value))
        assert parse_capabilities(frame[5:]) == (milliseconds / 1000, window, features)


def test_capabilities_too_great_for_their_fields_are_sent_as_the_greatest() -> None:
    frame = capabilities_frame(Capabilities(1e9, 2**40))
    assert parse_capabilities(frame[5:]) == Capabilities((2**32 - 1) / 1000, 2**32 - 1)


def test_capabilities_of_a_later_version_may_be_longer() -> None:
    fields = struct.pack("!III", 5000, 10, 0x80000001)
    assert parse_capabilities(fields + b"more") == Capabilities(5.0, 10, Features.REQUESTS)


@pytest.mark.parametrize("size", range(8, 12))
def test_capabilities_of_the_first_version_have_no_features(size: int) -> None:
    assert parse_capabilities(struct.pack("!III", 5000, 10, 1)[:size]) == Capabilities(5.0, 10, Features(0))


@pytest.mark.parametrize("size", range(8))
def test_capabilities_cut_short_are_a_remote_protocol_error(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{size} bytes"):
        parse_capabilities(bytes(size))
