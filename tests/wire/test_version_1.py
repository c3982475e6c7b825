"""Version 1 as a dialect: two ends of it understand each other, wherever what they say is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.envelopes import PLENTY, message_ids, pattern, pieces
from support.wire_peer import capabilities, frame, hello

from netmsg.errors import RemoteProtocolError
from netmsg.wire import envelope
from netmsg.wire.dialect import Dialect
from netmsg.wire.envelope import LARGE_FRAME, data_frame, reliable_frame
from netmsg.wire.messages import (
    ACKNOWLEDGEMENTS, ANSWERS, CAPABILITIES, MESSAGES, RELIABLE_MESSAGES, Capabilities, Kind, Queued, frame_of,
)
from netmsg.wire.version_1 import Version1

OURS = b"our own identity"
THEIRS = b"peer's identity!"
CAPABLE = Capabilities(2.5, 300)


def dialect() -> Dialect:
    return Version1(1 << 20)


def written(speaker: Dialect, message: Queued) -> bytes:
    encode = speaker.encoder()
    form = frame_of(message) if encode is None else encode(message)
    return b"".join(form) if isinstance(form, tuple) else form


def understood(listener: Dialect, chunks: list[bytes]) -> list[tuple[int, bytes, bytes]]:
    """Kind, id and body of all that is decoded of ``chunks``."""
    found = []
    for chunk in chunks:
        for kind, bodies, ids in listener.decoder.decode(chunk, PLENTY):
            found += [(kind, message_id, body) for message_id, body in zip(ids or [b""] * len(bodies), bodies)]
    return found


payloads = st.builds(pattern, st.one_of(st.integers(0, 40), st.integers(LARGE_FRAME - 40, LARGE_FRAME + 40),
                                        st.integers(65_500, 70_000)), st.integers(0, 99))
sayings = st.lists(st.one_of(
    st.tuples(st.sampled_from([Kind.PLAIN, Kind.PUBLISHED, Kind.ADDRESSED]), st.just(b""), payloads),
    st.tuples(st.just(Kind.RELIABLE), message_ids, payloads),
    st.tuples(st.just(ACKNOWLEDGEMENTS), message_ids, st.just(b"")),
    st.just(("heartbeat", b"", b"")),
), max_size=12)


def say(speaker: Dialect, saying: tuple[object, bytes, bytes]) -> tuple[bytes, tuple[int, bytes, bytes] | None]:
    """What is written, and what is to be understood of it."""
    what, message_id, payload = saying
    if what == "heartbeat":
        return speaker.heartbeat, None
    if what == ACKNOWLEDGEMENTS:
        return speaker.acknowledgements([message_id]), (ACKNOWLEDGEMENTS, b"", message_id)
    if what is Kind.RELIABLE:
        message: Queued = reliable_frame(message_id, payload)
        return written(speaker, message), (RELIABLE_MESSAGES, message_id, payload)
    assert isinstance(what, Kind)
    message = data_frame(payload, LARGE_FRAME, what, OURS if what is Kind.ADDRESSED else None)
    return written(speaker, message), (MESSAGES, b"", payload)


@given(sayings, st.data())
def test_all_that_one_end_says_the_other_understands_wherever_it_is_cut(said: list[tuple[object, bytes, bytes]],
                                                                        data: st.DataObject) -> None:
    speaker, listener = dialect(), dialect()
    parts = [say(speaker, saying) for saying in said]
    wire = b"".join(part for part, _ in parts)
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=20))
    meant = [meaning for _, meaning in parts if meaning is not None]
    known = (MESSAGES, RELIABLE_MESSAGES, ACKNOWLEDGEMENTS, CAPABILITIES, ANSWERS)
    assert [one for one in understood(listener, pieces(wire, cuts)) if one[0] in known] == meant
    assert listener.decoder.error is None and listener.decoder.idle


def test_every_single_place_to_cut_a_conversation() -> None:
    speaker = dialect()
    said: list[tuple[object, bytes, bytes]] = [
        (Kind.PLAIN, b"", b"1"), (Kind.RELIABLE, OURS, b"22"), ("heartbeat", b"", b""), (ACKNOWLEDGEMENTS, OURS, b""),
        (Kind.ADDRESSED, b"", b""), (Kind.RELIABLE, THEIRS, b"")]
    parts = [say(speaker, saying) for saying in said]
    wire = b"".join(part for part, _ in parts)
    meant = [meaning for _, meaning in parts if meaning is not None]
    for first in range(len(wire) + 1):
        for second in (first, len(wire) // 2, len(wire) - 1):
            found = understood(dialect(), pieces(wire, [first, second]))
            assert [one for one in found if one[0] != envelope.HEARTBEAT] == meant


def greeted(listener: Dialect, chunks: list[bytes]) -> bytes | None:
    for chunk in chunks:
        listener.decoder.hold(chunk)
        identity = listener.greet()
        assert listener.answer() == b""
        if identity is not None:
            return identity
    return None


@given(st.integers(0, 60), st.integers(0, 60))
def test_two_ends_greet_each_other_wherever_it_is_cut(one: int, other: int) -> None:
    dialler, acceptor = dialect(), dialect()
    assert greeted(acceptor, pieces(dialler.opening(OURS), [one, other])) == OURS
    assert greeted(dialler, pieces(acceptor.welcome(THEIRS, CAPABLE, opened=False), [one, other])) == THEIRS


def test_who_has_opened_does_not_say_who_it_is_again() -> None:
    assert dialect().welcome(OURS, CAPABLE, opened=False) == hello(OURS) + capabilities(2500, 300)
    assert dialect().welcome(OURS, CAPABLE, opened=True) == capabilities(2500, 300)


def test_capabilities_follow_the_greeting_of_either_end() -> None:
    for opened in (True, False):
        speaker, listener = dialect(), dialect()
        welcome = speaker.welcome(OURS, CAPABLE, opened=opened)
        listener.decoder.hold(welcome if not opened else speaker.opening(OURS) + welcome)
        assert listener.greet() == OURS
        ((kind, _, body),) = understood(listener, [b""])
        assert kind == CAPABILITIES
        assert listener.capabilities(body) == CAPABLE


@pytest.mark.parametrize(("first", "text"), [(frame(0x03, b"x"), "not HELLO"), (bytes(4), "0 bytes"),
                                             (frame(0x01, b"\x01short"), "HELLO of 6 bytes"),
                                             (hello(OURS, version=9), "version 9")])
def test_any_other_greeting_is_an_error(first: bytes, text: str) -> None:
    listener = dialect()
    listener.decoder.hold(first)
    with pytest.raises(RemoteProtocolError, match=text):
        listener.greet()


def test_capabilities_cut_short_are_an_error() -> None:
    with pytest.raises(RemoteProtocolError):
        dialect().capabilities(b"short")


def test_nothing_is_said_for_no_acknowledgement_and_queues_are_written_as_they_are() -> None:
    assert dialect().acknowledgements([]) == b""
    assert dialect().encoder() is None


def test_what_is_received_bears_the_numbers_that_it_has_in_version_1() -> None:
    assert (envelope.DATA, envelope.DATA_REQ, envelope.ACK, envelope.CAPABILITIES) == (3, 4, 5, 0x80)
    assert (MESSAGES, RELIABLE_MESSAGES, ACKNOWLEDGEMENTS, CAPABILITIES) == (3, 4, 5, 0x80)
    assert ANSWERS > 0xff
