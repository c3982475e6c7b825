"""Received bytes into envelopes: whatever the pieces they come in, and whatever they are."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.envelopes import (
    PLENTY, UNKNOWN, Envelope, encode, flatten, large_envelopes, pattern, pieces, sequences, small_sequences,
)
from support.wire_peer import frame, hello

from netmsg.errors import RemoteProtocolError
from netmsg.wire.envelope import (
    ACK, CAPABILITIES, DATA, DATA_REQ, FAILURE, HEARTBEAT, HELLO, LONGEST_PREFIX, LONGEST_REASON, NACK, REPLY, REQUEST,
    SUBSCRIBE, UNSUBSCRIBE,
)
from netmsg.wire.framing import EnvelopeDecoder

LIMIT = 1 << 20
SMALL_LIMIT = 100

ID = bytes(range(16))
EVERY_KIND = [
    Envelope(DATA, b"first"),
    Envelope(DATA, b""),
    Envelope(DATA_REQ, b"request", ID),
    Envelope(DATA_REQ, b"", ID[::-1]),
    Envelope(ACK, ID),
    Envelope(ACK, ID[::-1]),
    Envelope(HEARTBEAT, b""),
    Envelope(CAPABILITIES, bytes(8)),
    Envelope(REQUEST, b"?", ID),
    Envelope(REQUEST, b"", ID[::-1]),
    Envelope(REPLY, b"!", ID),
    Envelope(FAILURE, b"why", ID),
    Envelope(NACK, ID),
    Envelope(SUBSCRIBE, b"topic"),
    Envelope(SUBSCRIBE, b""),
    Envelope(UNSUBSCRIBE, b"topic"),
    Envelope(UNKNOWN, b"?"),
    Envelope(UNKNOWN, b""),
    Envelope(DATA, b"last"),
]

VIOLATIONS = {
    "empty envelope": bytes(4),
    "DATA too large": struct.pack("!IB", SMALL_LIMIT + 2, DATA),
    "DATA_REQ too large": struct.pack("!IB", SMALL_LIMIT + 18, DATA_REQ),
    "REQUEST too large": struct.pack("!IB", SMALL_LIMIT + 18, REQUEST),
    "REPLY too large": struct.pack("!IB", SMALL_LIMIT + 18, REPLY),
    "FAILURE too large": struct.pack("!IB", LONGEST_REASON + 18, FAILURE),
    "unknown type too large": struct.pack("!IB", SMALL_LIMIT + 2, UNKNOWN),
    "largest of all lengths": b"\xff\xff\xff\xff" + bytes((DATA,)),
    "ACK of three bytes": frame(ACK, b"abc"),
    "ACK too long": frame(ACK, bytes(17)),
    "DATA_REQ without an id": frame(DATA_REQ),
    "DATA_REQ with less than an id": frame(DATA_REQ, bytes(15)),
    "REQUEST with less than an id": frame(REQUEST, bytes(15)),
    "REPLY without an id": frame(REPLY),
    "FAILURE with less than an id": frame(FAILURE, bytes(15)),
    "NACK without an id": frame(NACK),
    "NACK too long": frame(NACK, bytes(17)),
    "SUBSCRIBE too long": frame(SUBSCRIBE, bytes(LONGEST_PREFIX + 1)),
    "UNSUBSCRIBE too long": frame(UNSUBSCRIBE, bytes(LONGEST_PREFIX + 1)),
    "HEARTBEAT with a body": frame(HEARTBEAT, b"!"),
    "second HELLO": hello(ID),
    "HELLO of one byte": frame(HELLO),
}

chunks_of_bytes = st.lists(st.binary(max_size=60), max_size=12)


def decode_all(decoder: EnvelopeDecoder, chunks: Iterable[bytes]) -> list[Envelope]:
    """What comes of ``chunks``, up to the first error."""
    found: list[Envelope] = []
    for chunk in chunks:
        found += flatten(decoder.decode(chunk, PLENTY))
        if decoder.error is not None:
            break
    return found


def read_plainly(data: bytes, limit: int) -> tuple[list[Envelope], bool]:
    """The wire format read in the plainest way: the good envelopes, and whether a bad one follows."""
    found: list[Envelope] = []
    while len(data) >= 4:
        size = int.from_bytes(data[:4], "big")
        if not 0 < size <= max(limit + 17, 273):
            return found, True
        if len(data) == 4:
            break
        kind = data[4]
        with_id = kind in (DATA_REQ, REQUEST, REPLY, FAILURE)
        longest = {HELLO: 0, HEARTBEAT: 1, ACK: 17, NACK: 17, SUBSCRIBE: 256, UNSUBSCRIBE: 256, DATA_REQ: limit + 17,
                   REQUEST: limit + 17, REPLY: limit + 17, FAILURE: 273,
                   CAPABILITIES: max(limit + 1, 256)}.get(kind, limit + 1)
        shortest = 17 if with_id or kind in (ACK, NACK) else 1
        if not shortest <= size <= longest:
            return found, True
        if len(data) < 4 + size:
            break
        body, data = data[5:4 + size], data[4 + size:]
        found.append(Envelope(kind, body[16:], body[:16]) if with_id else Envelope(kind, body))
    return found, False


# Splitting


@given(sequences, st.data())
def test_any_split_of_any_frames_decodes_alike(envelopes: list[Envelope], data: st.DataObject) -> None:
    encoded = encode(envelopes)
    cuts = data.draw(st.lists(st.integers(0, len(encoded)), max_size=20))
    decoder = EnvelopeDecoder(LIMIT)
    assert decode_all(decoder, pieces(encoded, cuts)) == envelopes
    assert decoder.error is None
    assert decoder.buffered == 0


@given(sequences)
def test_frames_decode_alike_in_one_piece_and_in_one_each(envelopes: list[Envelope]) -> None:
    assert decode_all(EnvelopeDecoder(LIMIT), [encode(envelopes)]) == envelopes
    assert decode_all(EnvelopeDecoder(LIMIT), [envelope.encoded() for envelope in envelopes]) == envelopes


def test_decoding_resumes_at_any_byte() -> None:
    encoded = encode(EVERY_KIND)
    for first in range(len(encoded) + 1):
        for second in range(first, len(encoded) + 1):
            decoder = EnvelopeDecoder(LIMIT)
            assert decode_all(decoder, pieces(encoded, [first, second])) == EVERY_KIND
            assert decoder.error is None


def test_decoding_byte_by_byte() -> None:
    encoded = encode(EVERY_KIND)
    assert decode_all(EnvelopeDecoder(LIMIT), [encoded[at:at + 1] for at in range(len(encoded))]) == EVERY_KIND


@pytest.mark.parametrize("size", [65_518, 65_519, 65_534, 65_535, 65_536, 65_537, 90_000])
@pytest.mark.parametrize(("kind", "message_id"), [(DATA, b""), (DATA_REQ, ID), (REPLY, ID), (UNKNOWN, b"")])
def test_large_frames_may_be_cut_anywhere_in_their_header_and_at_their_end(kind: int, message_id: bytes,
                                                                           size: int) -> None:
    envelopes = [Envelope(DATA, b"before"), Envelope(kind, pattern(size), message_id), Envelope(DATA, b"behind")]
    encoded = encode(envelopes)
    begin = len(envelopes[0].encoded())
    end = len(encoded) - len(envelopes[2].encoded())
    for cut in (*range(begin - 2, begin + 24), *range(end - 2, end + 7)):
        for cuts in ([cut], [begin + 3, cut], [begin + 5, cut], [begin + 9, cut]):
            decoder = EnvelopeDecoder(LIMIT)
            assert decode_all(decoder, pieces(encoded, cuts)) == envelopes
            assert decoder.error is None


@given(sequences, st.data())
def test_envelopes_counts_those_that_are_no_messages(envelopes: list[Envelope], data: st.DataObject) -> None:
    encoded = encode(envelopes)
    cuts = data.draw(st.lists(st.integers(0, len(encoded)), max_size=4))
    decoder = EnvelopeDecoder(LIMIT)
    decode_all(decoder, pieces(encoded, cuts))
    assert decoder.envelopes == sum(not envelope.is_message for envelope in envelopes)


def test_consecutive_envelopes_of_one_type_are_one_run() -> None:
    runs = EnvelopeDecoder(LIMIT).decode(encode(EVERY_KIND), PLENTY)
    assert [(run.kind, len(run.bodies)) for run in runs] == [
        (DATA, 2), (DATA_REQ, 2), (ACK, 2), (HEARTBEAT, 1), (CAPABILITIES, 1), (REQUEST, 2), (REPLY, 1),
        (FAILURE, 1), (NACK, 1), (SUBSCRIBE, 2), (UNSUBSCRIBE, 1), (UNKNOWN, 2), (DATA, 1)]


# Room


@given(sequences, st.data())
def test_decoding_stops_at_the_room_there_is_and_resumes_without_loss(envelopes: list[Envelope],
                                                                      data: st.DataObject) -> None:
    encoded = encode(envelopes)
    cuts = data.draw(st.lists(st.integers(0, len(encoded)), max_size=6))
    decoder = EnvelopeDecoder(LIMIT)
    found: list[Envelope] = []
    received = b""
    for chunk in pieces(encoded, cuts):
        received += chunk
        room = data.draw(st.integers(0, 3))
        while True:
            taken = flatten(decoder.decode(chunk, room))
            assert sum(envelope.is_message for envelope in taken) <= room
            found += taken
            if not decoder.stopped:
                break
            chunk = b""
            room = data.draw(st.integers(1, 4))
        assert found == read_plainly(received, LIMIT)[0]
    assert found == envelopes


@given(small_sequences, st.data())
def test_bytes_may_go_on_arriving_while_there_is_no_room(envelopes: list[Envelope], data: st.DataObject) -> None:
    encoded = encode(envelopes)
    cuts = data.draw(st.lists(st.integers(0, len(encoded)), max_size=6))
    decoder = EnvelopeDecoder(LIMIT)
    for chunk in pieces(encoded, cuts):
        assert decoder.decode(chunk, 0) == []
    assert decoder.buffered == len(encoded)
    assert flatten(decoder.decode(b"", PLENTY)) == envelopes
    assert decoder.buffered == 0


def test_decoding_says_whether_it_stopped_for_want_of_room() -> None:
    decoder = EnvelopeDecoder(LIMIT)
    assert flatten(decoder.decode(frame(DATA, b"1") + frame(DATA, b"2"), 1)) == [Envelope(DATA, b"1")]
    assert decoder.stopped
    assert flatten(decoder.decode(b"", 1)) == [Envelope(DATA, b"2")]
    assert not decoder.stopped
    decoder.decode(frame(DATA, b"3"), 1)
    assert not decoder.stopped


def test_what_is_behind_the_last_message_there_is_room_for_waits() -> None:
    decoder = EnvelopeDecoder(LIMIT)
    decoder.decode(frame(DATA, b"1") + frame(ACK, ID), 1)
    assert decoder.stopped
    assert flatten(decoder.decode(b"", 1)) == [Envelope(ACK, ID)]


def test_control_frames_take_no_room() -> None:
    envelopes = [Envelope(HEARTBEAT, b""), Envelope(ACK, ID), Envelope(UNKNOWN, b""), Envelope(REPLY, b"!", ID),
                 Envelope(FAILURE, b"?", ID), Envelope(DATA, b"1")]
    assert flatten(EnvelopeDecoder(LIMIT).decode(encode(envelopes), 1)) == envelopes


@pytest.mark.parametrize(("kind", "message_id"), [(DATA, b""), (DATA_REQ, ID), (REQUEST, ID)])
def test_a_large_message_waits_for_room_too(kind: int, message_id: bytes) -> None:
    envelope = Envelope(kind, pattern(80_000), message_id)
    encoded = envelope.encoded()
    decoder = EnvelopeDecoder(LIMIT)
    assert decoder.decode(encoded[:70_000], 0) == []
    assert decoder.decode(encoded[70_000:], 0) == []
    assert decoder.stopped
    assert flatten(decoder.decode(b"", 1)) == [envelope]
    assert not decoder.stopped


@pytest.mark.parametrize(("kind", "message_id"), [(DATA, b""), (DATA_REQ, ID)])
def test_bytes_may_go_on_arriving_behind_a_large_message_that_waits_for_room(kind: int, message_id: bytes) -> None:
    envelopes = [Envelope(kind, pattern(80_000), message_id), Envelope(DATA, b"1"),
                 Envelope(kind, pattern(90_000, 1), message_id)]
    encoded = encode(envelopes)
    for cuts in ([70_000, 79_990, 100_000], [70_000, 80_030], [30_000, 60_000, 90_000, 120_000]):
        decoder = EnvelopeDecoder(LIMIT)
        first, *chunks = pieces(encoded, cuts)
        for chunk in (first, *chunks):
            assert decoder.decode(chunk, 0) == []
        found = []
        while decoder.stopped:
            found += flatten(decoder.decode(b"", 1))
        assert found == envelopes


def test_a_violation_behind_messages_that_wait_for_room_does_not_take_them_away() -> None:
    envelopes = [Envelope(DATA, b"%d" % number) for number in range(5)]
    decoder = EnvelopeDecoder(LIMIT)
    found = flatten(decoder.decode(encode(envelopes) + frame(ACK, b"abc"), 2))
    while decoder.error is None:
        found += flatten(decoder.decode(b"", 2))
    assert found == envelopes


# Reading


def read_by_size(data: bytes, decoder: EnvelopeDecoder, sizes: Iterator[int] | None = None) -> Iterator[bytes]:
    """Receive ``data`` as asked for by ``decoder``, or less where ``sizes`` says so."""
    position = 0
    while position < len(data):
        assert 0 < decoder.read_size <= 1 << 20
        size = decoder.read_size if sizes is None else min(decoder.read_size, next(sizes))
        yield data[position:position + size]
        position += size


@given(st.lists(large_envelopes | st.just(Envelope(DATA, b"small")) | st.just(Envelope(HEARTBEAT, b"")), max_size=8))
def test_reading_exactly_what_is_asked_for_decodes_alike(envelopes: list[Envelope]) -> None:
    decoder = EnvelopeDecoder(LIMIT)
    assert decode_all(decoder, read_by_size(encode(envelopes), decoder)) == envelopes
    assert decoder.buffered == 0


@given(sequences, st.lists(st.sampled_from([1, 3, 5, 16, 21, 1000, 65_536, 1 << 20]), min_size=1, max_size=6))
def test_reading_less_than_is_asked_for_decodes_alike(envelopes: list[Envelope], sizes: list[int]) -> None:
    def forever() -> Iterator[int]:
        while True:
            yield from sizes
            yield 50_000

    decoder = EnvelopeDecoder(LIMIT)
    assert decode_all(decoder, read_by_size(encode(envelopes), decoder, forever())) == envelopes


@pytest.mark.parametrize(("kind", "message_id"), [(DATA, b""), (DATA_REQ, ID)])
def test_large_payloads_read_by_their_exact_size_are_not_copied(kind: int, message_id: bytes) -> None:
    envelopes = [Envelope(kind, pattern(100_000 + number), message_id) for number in range(4)]
    encoded = encode(envelopes)
    decoder = EnvelopeDecoder(LIMIT)
    assert decoder.decode(encoded[:5], PLENTY) == []
    received: list[bytes] = []
    bodies: list[bytes] = []
    for chunk in read_by_size(encoded[5:], decoder):
        received.append(chunk)
        for run in decoder.decode(chunk, PLENTY):
            bodies += run.bodies
    assert bodies == [envelope.body for envelope in envelopes]
    payloads = [chunk for chunk in received if len(chunk) >= 100_000]
    assert all(body is payload for body, payload in zip(bodies, payloads, strict=True))


def test_a_very_large_frame_is_read_in_bounded_pieces_to_its_exact_end() -> None:
    payload = pattern(5 * LIMIT // 2)
    encoded = frame(DATA, payload)
    decoder = EnvelopeDecoder(3 * LIMIT)
    sizes = []
    for chunk in read_by_size(encoded + frame(DATA, b"next"), decoder):
        sizes.append(len(chunk))
        if runs := decoder.decode(chunk, PLENTY):
            break
    assert sum(sizes) == len(encoded)
    assert len(sizes) <= 4
    assert flatten(runs) == [Envelope(DATA, payload)]


# One message alone


def test_the_only_message_is_told_by_being_all_there_is() -> None:
    decoder = EnvelopeDecoder(SMALL_LIMIT)
    assert decoder.only_message(frame(DATA, b"alone")) == b"alone"
    assert decoder.only_message(frame(DATA, bytes(SMALL_LIMIT))) == bytes(SMALL_LIMIT)
    assert decoder.error is None and decoder.buffered == 0


@pytest.mark.parametrize("chunk", [
    b"",
    frame(DATA, b"cut short")[:-1],
    frame(DATA, b"followed") + b"\0",
    frame(DATA, b"1") + frame(DATA, b"2"),
    frame(DATA, bytes(SMALL_LIMIT + 1)),
    frame(DATA_REQ, ID + b"request"),
    frame(HEARTBEAT),
    frame(ACK, ID),
])
def test_anything_but_one_message_alone_is_still_to_be_decoded(chunk: bytes) -> None:
    decoder, other = EnvelopeDecoder(SMALL_LIMIT), EnvelopeDecoder(SMALL_LIMIT)
    assert decoder.only_message(chunk) is None
    assert decoder.decode(chunk, PLENTY) == other.decode(chunk, PLENTY)
    assert (decoder.error is None) == (other.error is None)
    assert decoder.buffered == other.buffered


@pytest.mark.parametrize("before", [frame(DATA, b"begun")[:3], frame(DATA, b"begun")[:8],
                                    frame(DATA, pattern(80_000))[:70_000], frame(ACK, b"abc")])
def test_there_is_no_only_message_behind_bytes_that_wait_or_an_error(before: bytes) -> None:
    decoder = EnvelopeDecoder(LIMIT)
    decoder.decode(before, PLENTY)
    assert decoder.only_message(frame(DATA, b"alone")) is None


# What must not be


@pytest.mark.parametrize("violation", VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_is_an_error_and_what_came_before_it_is_good(violation: bytes) -> None:
    good = encode(EVERY_KIND)
    for cuts in ([], [len(good)], [len(good) + 2], [len(good) + 4], range(len(good) + len(violation))):
        decoder = EnvelopeDecoder(SMALL_LIMIT)
        assert decode_all(decoder, pieces(good + violation, cuts)) == EVERY_KIND
        assert isinstance(decoder.error, RemoteProtocolError)


@pytest.mark.parametrize("violation", VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_is_noticed_at_its_header(violation: bytes) -> None:
    decoder = EnvelopeDecoder(SMALL_LIMIT)
    decoder.decode(violation[:5], PLENTY)
    assert decoder.error is not None


@pytest.mark.parametrize("violation", VIOLATIONS.values(), ids=VIOLATIONS)
def test_nothing_more_is_decoded_after_a_violation(violation: bytes) -> None:
    decoder = EnvelopeDecoder(SMALL_LIMIT)
    decoder.decode(violation, PLENTY)
    for more in (frame(DATA, b"more"), encode(EVERY_KIND), b"", frame(DATA, b"yet more")):
        assert decoder.decode(more, PLENTY) == []
        assert decoder.error is not None
        assert decoder.buffered <= len(violation) + len(more)


@pytest.mark.parametrize("limit", [1, 15, SMALL_LIMIT, 65_534, 65_535, 65_536, 100_000])
@pytest.mark.parametrize(("kind", "message_id"), [(DATA, b""), (DATA_REQ, ID), (REQUEST, ID), (REPLY, ID)])
def test_the_limit_is_on_the_payload(kind: int, message_id: bytes, limit: int) -> None:
    largest = Envelope(kind, pattern(limit), message_id)
    too_large = Envelope(kind, pattern(limit + 1), message_id)
    for cuts in ([], [4], [5], [12], [21]):
        decoder = EnvelopeDecoder(limit)
        assert decode_all(decoder, pieces(largest.encoded(), cuts)) == [largest]
        assert decoder.error is None
        decoder = EnvelopeDecoder(limit)
        assert decode_all(decoder, pieces(too_large.encoded(), cuts)) == []
        assert decoder.error is not None


@pytest.mark.parametrize("control", [Envelope(ACK, ID), Envelope(CAPABILITIES, bytes(12)), Envelope(HEARTBEAT, b""),
                                     Envelope(FAILURE, bytes(LONGEST_REASON), ID)],
                         ids=["ACK", "CAPABILITIES", "HEARTBEAT", "FAILURE"])
def test_a_small_limit_on_messages_does_not_refuse_control_frames(control: Envelope) -> None:
    decoder = EnvelopeDecoder(1)
    assert flatten(decoder.decode(control.encoded(), PLENTY)) == [control]
    assert decoder.error is None


@given(chunks_of_bytes)
def test_random_bytes_raise_nothing_and_hold_no_more_than_came(chunks: list[bytes]) -> None:
    decoder = EnvelopeDecoder(SMALL_LIMIT)
    received = b""
    for chunk in chunks:
        received += chunk
        decoder.decode(chunk, PLENTY)
        assert decoder.buffered <= len(received)
        if decoder.error is not None:
            break
    assert (decoder.error is not None) == read_plainly(received, SMALL_LIMIT)[1]


@given(small_sequences, st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4),
       st.data())
def test_mutated_bytes_are_read_as_the_plainest_reader_does(envelopes: list[Envelope],
                                                            mutations: list[tuple[int, int]],
                                                            data: st.DataObject) -> None:
    mutated = bytearray(encode(envelopes) or b"\0")
    for position, value in mutations:
        mutated[position % len(mutated)] = value
    cuts = data.draw(st.lists(st.integers(0, len(mutated)), max_size=8))
    decoder = EnvelopeDecoder(SMALL_LIMIT)
    found = decode_all(decoder, pieces(bytes(mutated), cuts))
    assert (found, decoder.error is not None) == read_plainly(bytes(mutated), SMALL_LIMIT)


@given(small_sequences, st.integers(0, 2000), st.integers(1, 6), st.data())
def test_bytes_with_some_missing_are_read_as_the_plainest_reader_does(envelopes: list[Envelope], begin: int,
                                                                      count: int, data: st.DataObject) -> None:
    whole = encode(envelopes)
    begin %= len(whole) + 1
    torn = whole[:begin] + whole[begin + count:]
    cuts = data.draw(st.lists(st.integers(0, len(torn)), max_size=8))
    decoder = EnvelopeDecoder(SMALL_LIMIT)
    found = decode_all(decoder, pieces(torn, cuts))
    assert (found, decoder.error is not None) == read_plainly(torn, SMALL_LIMIT)


def test_memory_grows_with_what_arrives_and_not_with_what_a_header_claims() -> None:
    claim = 64 << 20
    decoders = [EnvelopeDecoder(claim) for _ in range(8)]
    header = struct.pack("!IB", claim, DATA)
    tracemalloc.start()
    try:
        for decoder in decoders:
            decoder.decode(header + b"a", PLENTY)
            decoder.decode(b"b", PLENTY)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    assert all(decoder.error is None for decoder in decoders)


# The handshake


def test_the_first_envelope_is_taken_once_it_is_complete_and_the_rest_is_kept() -> None:
    first, rest = hello(ID), encode(EVERY_KIND)
    for cut in range(len(first)):
        decoder = EnvelopeDecoder(LIMIT)
        decoder.hold(first[:cut])
        assert decoder.take_one() is None
        decoder.hold(first[cut:] + rest)
        assert decoder.take_one() == first[4:]
        assert decoder.buffered == len(rest)
        assert flatten(decoder.decode(b"", PLENTY)) == EVERY_KIND


def test_bytes_held_after_the_first_envelope_are_decoded_in_order() -> None:
    decoder = EnvelopeDecoder(LIMIT)
    decoder.hold(hello(ID) + frame(DATA, b"1"))
    decoder.take_one()
    decoder.hold(frame(DATA, b"2"))
    assert flatten(decoder.decode(frame(DATA, b"3"), PLENTY)) == [Envelope(DATA, b"%d" % n) for n in (1, 2, 3)]


@pytest.mark.parametrize("size", [1, 256])
def test_a_first_envelope_of_up_to_256_bytes_is_taken(size: int) -> None:
    decoder = EnvelopeDecoder(LIMIT)
    decoder.hold(frame(HELLO, bytes(size - 1)))
    assert decoder.take_one() == b"\x01" + bytes(size - 1)


@pytest.mark.parametrize("size", [0, 257, 2**32 - 1])
def test_a_first_envelope_of_another_size_is_refused_at_its_length(size: int) -> None:
    decoder = EnvelopeDecoder(LIMIT)
    decoder.hold(struct.pack("!I", size))
    with pytest.raises(RemoteProtocolError, match=f"{size} bytes"):
        decoder.take_one()
