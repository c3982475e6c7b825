"""How much an outbox holds, and how much of it memory has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netmsg.messaging.kept import Limits
from netmsg.messaging.reservoir import Reservoir

A, B = b"a" * 16, b"b" * 16


def reservoir(counts: dict[bytes | None, tuple[int, int]] | None = None) -> Reservoir:
    return Reservoir(Limits(10, 1000), counts or {})


def test_what_is_in_the_file_at_the_beginning_counts_and_waits() -> None:
    found = reservoir({None: (4, 400), A: (10, 50)})
    assert (found.count, found.beyond) == (14, 14)
    assert found.room(None) == (6, 600) and found.room(A) == (0, 950) and found.room(B) == (10, 1000)
    assert found.has_room(None) and not found.has_room(A) and found.has_room(B)
    assert found.has_for(A) and found.has_for(B), "what anybody may get"
    assert found.stream(None).is_behind and found.stream(A).is_behind and found.find(B) is None


def test_what_comes_is_behind_only_when_it_is_written() -> None:
    found = reservoir()
    stream = found.stream(None)
    found.comes(stream, 3, 30)
    assert (found.count, found.beyond) == (3, 3) and not stream.is_behind
    found.written(stream, 3)
    assert stream.is_behind
    found.loads(stream, 3, b"3")
    assert (found.count, found.beyond, stream.loaded) == (3, 0, b"3") and not stream.is_behind
    found.goes(stream, 3, 30)
    assert found.count == 0 and found.room(None) == (10, 1000)


def test_what_cannot_be_written_does_not_count() -> None:
    found = reservoir()
    stream = found.stream(A)
    found.comes(stream, 10, 2000)
    assert found.room(A) == (0, -1000) and not found.has_room(A)
    found.not_written(stream, 10, 2000)
    assert (found.count, found.beyond) == (0, 0) and found.find(A) is None


def test_what_memory_forgets_is_loaded_again_from_the_beginning() -> None:
    found = reservoir({A: (5, 50)})
    stream = found.stream(A)
    found.loads(stream, 4, b"4")
    found.goes(stream, 1, 10)
    visit = stream.visit
    found.forgets(stream, 3)
    assert (found.count, found.beyond, stream.loaded) == (4, 4, b"") and stream.visit != visit


def test_a_file_that_has_less_than_it_seemed_is_believed() -> None:
    found = reservoir({None: (5, 50)})
    stream = found.stream(None)
    found.comes(stream, 2, 20)
    found.there_are_no_more(stream)
    assert (found.count, found.beyond) == (2, 2) and not stream.is_behind


def test_it_is_worth_waking_somebody_when_half_of_it_is_on_its_way() -> None:
    found = reservoir({None: (9, 500)})
    assert not found.is_roomy
    found.loads(found.stream(None), 4, b"4")
    assert found.is_roomy, "those that are not acknowledged yet are in nobody's way"
    found.comes(found.stream(None), 1, 1)
    assert not found.is_roomy
    assert not reservoir({None: (1, 1000)}).is_roomy


STEPS = st.sampled_from(["comes", "fails", "loads", "goes", "forgets"])


@given(st.lists(st.tuples(st.sampled_from([None, A, B]), STEPS, st.integers(1, 3)), max_size=40))
def test_the_sums_are_right(steps: list[tuple[bytes | None, str, int]]) -> None:
    found = reservoir()
    loaded: dict[bytes | None, int] = {}
    beyond: dict[bytes | None, int] = {}
    for addressee, step, count in steps:
        stream = found.stream(addressee)
        if step in ("comes", "fails"):
            found.comes(stream, count, count)
            if step == "comes":
                found.written(stream, count)
                beyond[addressee] = beyond.get(addressee, 0) + count
            else:
                found.not_written(stream, count, count)
        elif step == "loads" and beyond.get(addressee, 0) >= count:
            found.loads(stream, count, b"x")
            beyond[addressee] -= count
            loaded[addressee] = loaded.get(addressee, 0) + count
        elif step == "goes" and loaded.get(addressee, 0) >= count:
            found.goes(stream, count, count)
            loaded[addressee] -= count
        elif step == "forgets" and loaded.get(addressee, 0):
            found.forgets(stream, loaded[addressee])
            beyond[addressee] += loaded.pop(addressee)
        assert found.beyond == sum(beyond.values())
        assert found.count == sum(beyond.values()) + sum(loaded.values())
        for one in (None, A, B):
            held = beyond.get(one, 0) + loaded.get(one, 0)
            assert found.room(one) == (10 - held, 1000 - held)
            assert held == 0 or one is None or found.find(one) is not None
