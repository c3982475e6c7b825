"""What a publisher is told of our subscriptions, by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netmsg.messaging import telling as telling_module
from netmsg.messaging.telling import Telling

MOST = 4
changes = st.lists(st.tuples(st.integers(0, 7), st.booleans(), st.integers(0, 3)), max_size=60)
"""A prefix, whether it is wanted, and how much is told after that."""


def told(telling: Telling, count: int = 1 << 30) -> list[tuple[bytes, bool]]:
    return [telling.next() for _ in range(min(count, len(telling)))]


def test_all_is_told_in_its_order() -> None:
    telling = Telling()
    telling.change([b"a", b"b"], True)
    telling.change([b"a"], False)
    telling.change([b"a"], True)
    assert told(telling) == [(b"a", True), (b"b", True), (b"a", False), (b"a", True)] and not telling


@given(changes, st.integers(MOST, 40))
def test_there_are_never_more_at_the_other_end_than_there_may_be(steps: list[tuple[int, bool, int]],
                                                                 most_waiting: int) -> None:
    before, telling_module.MOST_CHANGES = telling_module.MOST_CHANGES, most_waiting  # type: ignore[misc]
    try:
        telling = Telling()
        here: set[bytes] = set()
        there: set[bytes] = set()
        for number, wanted, count in [*steps, (0, False, 1 << 30)]:
            prefix = b"%d" % number
            if wanted and prefix not in here and len(here) == MOST:
                continue  # that is an error
            here = here | {prefix} if wanted else here - {prefix}
            telling.change([prefix], wanted)
            assert len(telling) <= max(most_waiting, 2 * MOST)
            for prefix, wanted in told(telling, count):
                there = there | {prefix} if wanted else there - {prefix}
                assert len(there) <= MOST
        assert there == here
    finally:
        telling_module.MOST_CHANGES = before  # type: ignore[misc]
