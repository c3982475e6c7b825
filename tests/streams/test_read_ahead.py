"""The read-ahead: whatever way bytes are cut up and taken, they come out in order and once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netmsg.streams.read_ahead import STREAK, ReadAhead


def take(ahead: ReadAhead, size: int, dropped: int = 0) -> bytes:
    start = ahead.position
    taken = ahead.data[start:start + size]
    ahead.position = start + size + dropped
    ahead.quick = ahead.delimiter
    return taken


chunks = st.lists(st.text("\n\rab", min_size=1, max_size=20).map(str.encode), max_size=20)


@given(chunks, st.sampled_from([b"\n", b"\r\n", b"ab", b"aaa", b"\0\0"]))
def test_a_delimiter_is_found_where_it_is(pieces: list[bytes], delimiter: bytes) -> None:
    ahead = ReadAhead()
    whole = b""
    assert ahead.find(delimiter) == -1
    for piece in pieces:
        ahead.more.append(piece)
        whole += piece
        assert ahead.find(delimiter) == whole.find(delimiter)
        assert len(ahead) == len(whole)


STEPS = ["some", "exactly", "until", "short until", "append"]


@given(chunks, st.lists(st.tuples(st.sampled_from(STEPS), st.integers(1, 30))))
def test_everything_comes_out_once_and_in_order(pieces: list[bytes], steps: list[tuple[str, int]]) -> None:
    ahead = ReadAhead()
    whole = b"".join(pieces)
    waiting = list(pieces)
    out = b""
    for step, size in steps:
        if step == "append":
            for piece in waiting[:size]:
                ahead.more.append(piece)
            del waiting[:size]
            continue
        if step == "short until" and ahead.items and ahead.quick is NEWLINE:
            out += ahead.items.pop() + NEWLINE
            continue
        if "until" in step:
            ahead.settle_for(NEWLINE)
        else:
            ahead.settle()
        if step == "some":
            left = ahead.front()
            ahead.searched()
            out += take(ahead, min(left, size))
        elif step == "exactly" and len(ahead) >= size:
            ahead.front()
            ahead.gather(size)
            ahead.searched()
            out += take(ahead, size)
        elif "until" in step and (at := ahead.find(NEWLINE)) >= 0:
            ahead.front()
            ahead.gather(at + 1)
            ahead.searched()
            ahead.split(NEWLINE, at, 1)
            out += take(ahead, at, 1) + NEWLINE
    assert out + ahead.peek_all() + b"".join(waiting) == whole


NEWLINE = b"\n"


@given(chunks, st.lists(st.sampled_from(["front", "gather", "append", "find"])),
       st.sampled_from([b"\n", b"\r\n", b"aa"]))
def test_an_interrupt_before_the_search_is_forgotten_does_not_lead_it_astray(pieces: list[bytes], steps: list[str],
                                                                             delimiter: bytes) -> None:
    """`searched` may never be reached: whatever moves the chunks has to begin the search anew by itself."""
    ahead = ReadAhead()
    waiting = list(pieces)
    whole = b""
    for step in steps:
        if step == "append" and waiting:
            ahead.more.append(waiting[0])
            whole += waiting.pop(0)
        elif step == "front":
            ahead.front()
        elif step == "gather":
            ahead.gather(len(ahead))
        assert ahead.find(delimiter) == whole.find(delimiter)


def test_items_are_split_only_after_a_few_in_a_row() -> None:
    ahead = ReadAhead()
    ahead.more.append(b"x\n" * 100)
    for number in range(1, STREAK + 1):
        ahead.settle()
        at = ahead.find(NEWLINE)
        ahead.front()
        ahead.searched()
        ahead.split(NEWLINE, at, 1)
        assert take(ahead, at, 1) == b"x"
        assert bool(ahead.items) == (number == STREAK)
    assert len(ahead.items) == 100 - STREAK and ahead.longest == 1


def test_items_are_left_split_for_who_cannot_go_the_short_way() -> None:
    ahead = ReadAhead()
    ahead.data = b"x\n" * 100
    for left in range(99, -1, -1):
        ahead.settle_for(bytes(bytearray(NEWLINE)))  # equal, and not the same
        assert ahead.find(NEWLINE) == 1
        ahead.split(NEWLINE, 1, 1)
        assert take(ahead, 1, 1) == b"x"
        assert len(ahead.items) == (left if left <= 100 - STREAK else 0)


def test_what_is_given_back_is_read_next() -> None:
    ahead = ReadAhead()
    ahead.more.append(b"abcdef")
    ahead.front()
    ahead.returned.append(take(ahead, 2))
    assert ahead.peek_all() == b"abcdef" and len(ahead) == 6
    ahead.clear()
    assert ahead.peek_all() == b"" and len(ahead) == 0


@given(chunks)
def test_how_much_there_is_is_known_however_it_came(pieces: list[bytes]) -> None:
    ahead = ReadAhead()
    there = 0
    for number, piece in enumerate(pieces):
        ahead.more.append(piece)
        there += len(piece)
        assert len(ahead) == there
        if number % 3 == 1:
            ahead.front()
            there -= len(take(ahead, 1))
        elif number % 3 == 2:
            ahead.gather(there)
        assert len(ahead) == there
