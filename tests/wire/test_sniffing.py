"""Telling protocols apart by the first bytes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from netmsg.wire.sniffing import Sniffed, sniff

BEGINNINGS = [
    (b"\x00\x00\x00\x12\x01", Sniffed.VERSION_1),
    (b"\x00\x00\x00\x10", Sniffed.LEGACY),
    (b"GET ", Sniffed.WEBSOCKET),
    (b"\x16\x03", Sniffed.TLS),
    (b"\x15\x03", Sniffed.TLS),
]
first_bytes = st.one_of(
    st.binary(max_size=12),
    st.builds(lambda beginning, size, more: beginning[0][:size] + more, st.sampled_from(BEGINNINGS),
              st.integers(0, 5), st.binary(max_size=6)),
)


@pytest.mark.parametrize(("beginning", "dialect"), BEGINNINGS)
def test_a_dialect_is_told_by_its_beginning_and_not_before(beginning: bytes, dialect: Sniffed) -> None:
    assert [sniff(beginning[:size]) for size in range(len(beginning))] == [None] * len(beginning)
    assert sniff(beginning) is dialect
    assert sniff(beginning + b"whatever follows") is dialect


@pytest.mark.parametrize("first", [b"\x01", b"\x00\x01", b"\x00\x00\x00\x00", b"\x00\x00\x00\x12\x02",
                                   b"\x00\x00\x00\x02\x01", b"G\x00", b"POST / HTTP/1.1", b"\x16\x02", b"SSH-2.0"])
def test_other_beginnings_are_unknown(first: bytes) -> None:
    assert sniff(first) is Sniffed.UNKNOWN


@given(first_bytes)
@example(b"\x00\x00\x00\x12")
def test_five_bytes_are_always_enough_and_more_change_nothing(first: bytes) -> None:
    decided = [sniff(first[:size]) for size in range(len(first) + 1)]
    told = [dialect for dialect in decided if dialect is not None]
    assert decided == [None] * (len(decided) - len(told)) + told
    assert len(set(told)) <= 1
    assert len(first) < 5 or told
