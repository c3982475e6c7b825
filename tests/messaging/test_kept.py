"""Copies of what was published, for those who are away."""

from __future__ import annotations

import pytest
from support.routers import MANY, message, messages

from netmsg.messaging.kept import Copies, Limits
from netmsg.wire.envelope import data_frame

LARGE = data_frame(bytes(2000), 1000)


def test_they_are_kept_for_each_in_order() -> None:
    copies = Copies()
    for number in range(4):
        assert copies.keep("there" if number % 2 else "elsewhere", message(number), 1, MANY)
    assert (copies.count, copies.longest, copies.largest) == (4, 2, 0)
    assert copies.take("there", 2) == messages(1, 3)
    assert copies.take("there", 2) == []
    assert copies.take_all() == messages(0, 2) and copies.count == 0


def test_who_was_there_when_they_were_published_has_had_them() -> None:
    copies = Copies()
    copies.keep("there", message(0), 5, MANY)
    assert copies.take("there", 5) == [] and copies.take("there", 6) == messages(0)


@pytest.mark.parametrize("limits", [Limits(2, 1 << 20), Limits(10, 2000)])
def test_no_more_than_the_marks_allow(limits: Limits) -> None:
    copies = Copies()
    kept = [copies.keep("there", LARGE, 1, limits) for _ in range(3)]
    assert kept.count(True) == copies.longest == min(limits.messages, 1 + limits.bytes // 2100)
    assert copies.largest >= 2000 * kept.count(True)


def test_the_oldest_go_of_those_for_whom_most_is_kept() -> None:
    copies = Copies()
    assert copies.drop_oldest() == []
    for endpoint, number in (("a", 0), ("a", 1), ("b", 2), ("b", 3), ("c", 4)):
        copies.keep(endpoint, message(number), 1, MANY)
    assert copies.drop_oldest() == messages(0, 2)
    assert copies.take("c", 2) == messages(4)
