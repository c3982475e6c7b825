"""Envelopes made up by Hypothesis, the bytes they are sent as, and the envelopes that a decoder returned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from hypothesis import strategies as st
from support.wire_peer import frame

from netmsg.wire.envelope import (
    ACK, CAPABILITIES, DATA, DATA_REQ, FAILURE, HEARTBEAT, LAYOUTS, NACK, REPLY, REQUEST, SUBSCRIBE, UNSUBSCRIBE,
)
from netmsg.wire.messages import Run

UNKNOWN = 0x42
PLENTY = 1 << 30


class Envelope(NamedTuple):
    """One envelope: its type, what follows the type byte or the message id, and the message id."""

    kind: int
    body: bytes
    message_id: bytes = b""

    @property
    def is_message(self) -> bool:
        return self.kind in (DATA, DATA_REQ, REQUEST)

    def __repr__(self) -> str:
        body = repr(self.body) if len(self.body) <= 100 else f"<{len(self.body)} bytes>"
        return f"Envelope({self.kind:#04x}, {body}, {self.message_id!r})"

    def encoded(self) -> bytes:
        return frame(self.kind, self.message_id + self.body)


def encode(envelopes: Iterable[Envelope]) -> bytes:
    return b"".join(envelope.encoded() for envelope in envelopes)


def flatten(runs: Iterable[Run]) -> list[Envelope]:
    """The envelopes of some runs, one by one."""
    found: list[Envelope] = []
    for kind, bodies, message_ids in runs:
        assert bodies
        if kind in (DATA_REQ, REQUEST, REPLY, FAILURE):
            assert message_ids is not None and len(message_ids) == len(bodies)
        else:
            assert message_ids is None
        ids = message_ids if message_ids is not None else [b""] * len(bodies)
        found += map(Envelope, [kind] * len(bodies), bodies, ids)
    return found


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes of which no two stretches of the same length are easily confused."""
    return (b"%d:" % seed + bytes(range(251)) * (size // 251 + 1))[:size]


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """``data`` cut at each of ``cuts``; nothing is lost, and there may be empty pieces."""
    ends = [0, *sorted(cuts), len(data)]
    return [data[begin:end] for begin, end in zip(ends, ends[1:])]


message_ids = st.binary(min_size=16, max_size=16)
small_bodies = st.binary(max_size=40)
large_bodies = st.builds(pattern, st.integers(65_500, 140_000), st.integers(0, 99))
unknown_kinds = st.integers(0, 255).filter(lambda kind: kind not in (1, *LAYOUTS))

no_id = st.just(b"")

small_envelopes = st.one_of(
    st.builds(Envelope, st.just(DATA), small_bodies, no_id),
    st.builds(Envelope, st.sampled_from([DATA_REQ, REQUEST, REPLY, FAILURE]), small_bodies, message_ids),
    st.builds(Envelope, st.sampled_from([ACK, NACK]), message_ids, no_id),
    st.builds(Envelope, st.sampled_from([SUBSCRIBE, UNSUBSCRIBE]), small_bodies, no_id),
    st.just(Envelope(HEARTBEAT, b"")),
    st.builds(Envelope, st.just(CAPABILITIES), st.binary(min_size=8, max_size=12), no_id),
    st.builds(Envelope, unknown_kinds, small_bodies, no_id),
)
large_envelopes = st.one_of(
    st.builds(Envelope, st.just(DATA), large_bodies, no_id),
    st.builds(Envelope, st.sampled_from([DATA_REQ, REQUEST, REPLY]), large_bodies, message_ids),
    st.builds(Envelope, st.just(UNKNOWN), large_bodies, no_id),
)
small_sequences = st.lists(small_envelopes, max_size=12)
sequences = st.lists(st.one_of(small_envelopes, small_envelopes, small_envelopes, large_envelopes), max_size=10)
