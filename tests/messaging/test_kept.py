"""Copies of what was published, for those who are away."""

from __future__ import annotations

import pytest
from support.lanes import lane
from support.routers import MANY, message, messages

from netmsg.messaging.kept import MOST_GONE, MOST_VISITS, Copies, Limits
from netmsg.messaging.lane import Lane
from netmsg.wire.envelope import data_frame

LARGE = data_frame(bytes(2000), 1000)


def away(endpoint: str, since: int = 0) -> Lane:
    """Who was reached by an endpoint, and has gone: what it was not sent is no older than that."""
    gone = lane(endpoint.encode(), dialled=endpoint)
    gone.queued_since = since
    return gone


def there(since: int, identity: bytes = b"somebody") -> Lane:
    """Who has come when so many had been published."""
    come = lane(identity)
    come.since = since
    return come


def test_they_are_kept_for_each_in_order() -> None:
    copies = Copies()
    for number in range(4):
        assert copies.keep(away("there" if number % 2 else "elsewhere"), message(number), 1, MANY)
    assert (copies.count, copies.longest, copies.largest) == (4, 2, 0)
    assert copies.take("there", there(1)) == messages(1, 3)
    assert copies.take("there", there(1)) == []
    assert copies.take_all() == messages(0, 2) and copies.count == 0


def test_who_was_there_when_they_were_published_has_had_them() -> None:
    copies = Copies()
    copies.keep(away("there", since=4), message(0), 5, MANY)
    copies.keep(away("there", since=5), message(1), 6, MANY)
    assert copies.has_for("there", b"somebody", there(5)) and not copies.has_for("there", b"somebody", there(4))
    assert copies.has_for("there", b"somebody", None) and not copies.has_for("elsewhere", b"somebody", None)
    assert copies.take("there", there(4)) == []
    assert copies.take("there", there(5)) == messages(0)
    assert not copies.has_for("there", b"somebody", there(5))
    assert copies.take("there", there(6)) == messages(1)


def test_what_it_may_have_had_it_does_not_get() -> None:
    copies = Copies()
    copies.keep(away("there", since=3), message(0), 9, MANY)
    assert not copies.has_for("there", b"somebody", there(8)) and copies.has_for("there", b"somebody", there(9))
    copies.goes(there(0), 3)
    assert copies.has_for("there", b"somebody", None)
    copies.goes(there(0), 4)
    assert not copies.has_for("there", b"somebody", None)


def test_what_is_handed_on_is_as_old_as_ever() -> None:
    copies = Copies()
    copies.keep(away("there", since=3), message(0), 5, MANY)
    heir = there(7)
    heir.queued_since = 7
    assert copies.take("there", heir) == messages(0) and heir.queued_since == 3


def test_but_not_those_that_were_for_itself() -> None:
    copies = Copies()
    copies.keep(away("there"), message(0), 5, MANY)
    assert copies.take("there", there(1, b"there")) == messages(0)


def test_who_has_gone_and_comes_again_has_had_what_was_published_when_it_was_there() -> None:
    copies = Copies()
    for number in range(1, 7):
        copies.keep(away("there", since=number - 1), message(number), number, MANY)
    copies.goes(there(1), 3)
    assert copies.has_for("there", b"somebody", None)
    copies.comes(back := lane(b"somebody"), 5)
    assert copies.take("there", back) == messages(1, 4, 5)


def test_who_has_missed_nothing_in_between_was_there_all_the_time() -> None:
    copies = Copies()
    for number in (4, 5, 5, 5, 9):
        copies.comes(visitor := lane(b"somebody"), number)
        copies.goes(visitor, number if number == 5 else number + 1)
    copies.comes(visitor := lane(b"somebody"), 12)
    assert visitor.visits == ((4, 5), (9, 10))


def test_of_no_end_of_peers_and_visits_it_is_not_remembered() -> None:
    copies = Copies()
    for number in range(MOST_GONE + 1):
        copies.goes(there(3, b"%d" % number), 4)
    copies.comes(first := lane(b"0"), 6)
    copies.comes(second := lane(b"1"), 6)
    assert first.visits == () and second.visits == ((3, 4),)
    for number in range(100):
        copies.goes(second, 10 * number + 8)
        copies.comes(second, 10 * number + 9)
    assert len(second.visits) == MOST_VISITS and second.visits[0][0] == 3


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
    assert copies.take("c", there(1)) == messages(4) and copies.take("a", there(1)) == messages(1)
