"""The targets hold for their corpus, and for what is made of it by mutation; and both are what they are said to be."""

from __future__ import annotations

from itertools import islice

import pytest

from .driving import CORPUS, corpus_of, explore, inputs_of, mutated, name_of
from .inputs import BY_BYTES, Input, written
from .keeping import reached, shortened
from .make_corpus import made
from .targets import TARGETS

MOST_BYTES = 200_000
MOST_FILES = 600


@pytest.mark.timeout(900)
@pytest.mark.parametrize("target", TARGETS)
def test_what_a_target_says_holds_whatever_comes(target: str) -> None:
    failure = explore(target, mutated(target))
    assert failure is None, f"\n{failure}"


def test_every_target_says_what_has_to_hold() -> None:
    assert all(target.function.__doc__ for target in TARGETS.values())
    assert sum(target.share for target in TARGETS.values()) == 1000


def test_the_corpus_is_what_was_made_and_what_was_found() -> None:
    on_disk = {path: path.read_bytes() for path in CORPUS.rglob("*") if path.is_file()}
    thought_of = made()
    assert {path: data for path, data in on_disk.items() if path in thought_of} == thought_of
    for path, data in on_disk.items():
        assert path in thought_of or path.name == name_of(data)
    assert {path.parent.name for path in on_disk} == set(TARGETS)


def test_the_corpus_is_small() -> None:
    sizes = [len(data) for target in TARGETS for data in corpus_of(target).values()]
    assert sum(sizes) <= MOST_BYTES and len(sizes) <= MOST_FILES


def test_the_inputs_are_the_same_each_time() -> None:
    assert list(inputs_of("envelopes", 200)) == list(inputs_of("envelopes", 200))
    few = len(corpus_of("envelopes"))
    assert len({*islice(inputs_of("envelopes", 200), few, None)}) > 150


@pytest.mark.parametrize("cut", range(0, 256, 17))
def test_nothing_of_an_input_is_lost_where_it_is_cut(cut: int) -> None:
    data = bytes(range(256)) * 3
    pieces = Input(written(data, 5, cut)).pieces()
    assert b"".join(pieces) == data and (len(pieces) > 1) is (cut > 0)
    assert Input(written(data, 5, cut)).choice == 5


def test_an_input_may_be_cut_into_bytes() -> None:
    assert Input(written(b"abc", 0, BY_BYTES)).pieces() == [b"a", b"b", b"c"]


@pytest.mark.parametrize("data", [b"", b"\0", b"\1", b"\0\1", b"\0\1x"])
def test_no_input_is_too_short(data: bytes) -> None:
    for target in TARGETS.values():
        target.function(data)


def test_what_is_kept_is_as_short_as_it_can_be() -> None:
    assert shortened(b"aaaXbbbYccc", lambda data: b"X" in data and b"Y" in data) == b"XY"


def test_what_an_input_reaches_is_told_from_what_another_one_does() -> None:
    function = TARGETS["urls"].function
    plain, websocket = reached(function, b"tcp://h:1"), reached(function, b"ws://h:1/")
    assert plain and websocket - plain and reached(function, b"tcp://h:1") == plain
