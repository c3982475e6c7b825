"""How long to wait before dialling again."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netmsg.messaging.backoff import Backoff


def test_the_bound_doubles_from_a_tenth_of_a_second_to_two_seconds() -> None:
    backoff = Backoff(lambda: 1.0)
    delays = [backoff.next() for _ in range(7)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])


def test_the_jitter_is_full() -> None:
    drawn = iter([0.0, 0.5, 0.25])
    backoff = Backoff(lambda: next(drawn))
    assert [backoff.next() for _ in range(3)] == pytest.approx([0.0, 0.1, 0.1])


def test_a_stable_connection_starts_it_anew() -> None:
    backoff = Backoff(lambda: 1.0)
    for _ in range(5):
        backoff.next()
    backoff.reset()
    assert [backoff.next(), backoff.next()] == pytest.approx([0.1, 0.2])


@given(st.integers(), st.integers(1, 2000))
def test_no_delay_is_negative_or_longer_than_two_seconds(seed: int, count: int) -> None:
    backoff = Backoff(random.Random(seed).random)
    assert all(0.0 <= backoff.next() <= 2.0 for _ in range(count))
