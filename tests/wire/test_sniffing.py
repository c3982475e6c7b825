"""Telling protocols apart by the first bytes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.wire_peer import frame

from netmsg.wire.envelope import DATA
from netmsg.wire.sniffing import Sniffed, dialect_of, refusal_of, sniff, stranger

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


@pytest.mark.parametrize("dialled, first, text", [
    (True, b"\x15\x03\x03\x00\x02", "a TLS server, and no ssl_context was given"),
    (False, b"\x16\x03\x01\x02\x00", "a TLS client on a plain port"),
    (True, b"HTTP/1.1 400 Bad Request", "not a Søcket: its first bytes are b'HTTP/'"),
    (False, frame(1, b"\x01short!"), "an identity of 6 bytes in its HELLO, and 16 are needed"),
    (False, frame(1, b"\x01"), "an identity of 0 bytes in its HELLO, and 16 are needed"),
    (False, frame(1), "a HELLO without a version"),
    (False, frame(DATA, b"x"), "its first frame is DATA, not HELLO"),
    (False, b"\x01", "not a Søcket: its first bytes are b'\\x01'"),
    (False, bytes(4), "not a Søcket: its first bytes are b'\\x00\\x00\\x00\\x00'"),
])
def test_what_is_wrong_with_a_stranger_is_said(dialled: bool, first: bytes, text: str) -> None:
    sniffed = sniff(first)
    assert sniffed is not None and dialect_of(sniffed, 1000) is None
    assert stranger(sniffed, first, dialled) == text


def test_those_we_speak_with_get_a_dialect_of_their_own() -> None:
    one, another = dialect_of(Sniffed.VERSION_1, 1000), dialect_of(Sniffed.VERSION_1, 1000)
    assert one is not None and another is not None and one.decoder is not another.decoder


@pytest.mark.parametrize("sniffed", Sniffed)
def test_a_browser_alone_is_told_so_in_its_own_words(sniffed: Sniffed) -> None:
    refusal = refusal_of(sniffed)
    assert refusal.startswith(b"HTTP/1.1 403 ") is (sniffed is Sniffed.WEBSOCKET)
    header, _, body = refusal.partition(b"\r\n\r\n")
    assert not body or b"Content-Length: %d" % len(body) in header.split(b"\r\n")
