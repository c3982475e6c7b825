"""Copies of what was published, for those who are away."""

from __future__ import annotations

import pytest
from support.lanes import lane
from support.routers import MANY, message, messages

from netmsg.messaging.kept import MOST_GONE, Copies, Limits
from netmsg.messaging.lane import Lane
from netmsg.wire.envelope import data_frame

LARGE = data_frame(bytes(2000), 1000)


def away(endpoint: str, *, came: int = 1) -> Lane:
    """Who was reached by an endpoint, and has gone."""
    gone = lane(endpoint.encode(), dialled=endpoint)
    gone.came = came
    return gone


def came(number: int, identity: bytes = b"somebody") -> Lane:
    """Who has come as that."""
    there = lane(identity)
    there.came = number
    return there


def test_they_are_kept_for_each_in_order() -> None:
    copies = Copies()
    for number in range(4):
        assert copies.keep(away("there" if number % 2 else "elsewhere"), message(number), 1, MANY)
    assert (copies.count, copies.longest, copies.largest) == (4, 2, 0)
    assert copies.take("there", came(2)) == messages(1, 3)
    assert copies.take("there", came(2)) == []
    assert copies.take_all() == messages(0, 2) and copies.count == 0


def test_who_was_there_when_they_were_published_has_had_them() -> None:
    copies = Copies()
    copies.keep(away("there"), message(0), 5, MANY)
    copies.keep(away("there"), message(1), 6, MANY)
    assert copies.has_for("there", b"somebody", came(6)) and not copies.has_for("there", b"somebody", came(5))
    assert copies.has_for("there", b"somebody", None)
    assert copies.take("there", came(5)) == []
    assert copies.take("there", came(6)) == messages(0)
    assert not copies.has_for("there", b"somebody", came(6))
    assert copies.take("there", came(7)) == messages(1)


def test_but_not_those_that_were_for_itself() -> None:
    copies = Copies()
    copies.keep(away("there"), message(0), 5, MANY)
    assert copies.take("there", came(1, b"there")) == messages(0)


def test_who_has_gone_and_comes_again_was_there_from_the_beginning() -> None:
    copies = Copies()
    copies.keep(away("there"), message(0), 5, MANY)
    copies.left(came(3))
    assert not copies.has_for("there", b"somebody", None)
    assert copies.came(came(0), 6) == 3 and copies.came(came(0), 6) == 6


def test_also_if_nothing_was_kept_yet_when_it_went() -> None:
    copies = Copies()
    copies.left(came(3))
    copies.keep(away("there"), message(0), 5, MANY)
    assert copies.came(came(0), 6) == 3


def test_of_no_end_of_peers_it_is_not_remembered() -> None:
    copies = Copies()
    copies.keep(away("there"), message(0), 5, MANY)
    for number in range(MOST_GONE + 1):
        copies.left(came(3, b"%d" % number))
    assert copies.came(came(0, b"0"), 6) == 6 and copies.came(came(0, b"1"), 6) == 3


@pytest.mark.parametrize("limits", [Limits(2, 1 << 20), Limits(10, 2000)])
def test_no_more_than_the_marks_allow(limits: Limits) -> None:
    copies = Copies()
    kept = [copies.keep(away("there"), LARGE, 1, limits) for _ in range(3)]
    assert kept.count(True) == copies.longest == min(limits.messages, 1 + limits.bytes // 2100)
    assert copies.largest >= 2000 * kept.count(True)


def test_the_oldest_go_of_those_for_whom_most_is_kept() -> None:
    copies = Copies()
    assert copies.longest_ones() == []
    for endpoint, number in (("a", 0), ("a", 1), ("b", 2), ("b", 3), ("c", 4)):
        copies.keep(away(endpoint), message(number), 1, MANY)
    assert [ones.drop_oldest() for ones in copies.longest_ones()] == messages(0, 2)
    assert copies.take("c", came(2)) == messages(4) and copies.take("a", came(2)) == messages(1)
