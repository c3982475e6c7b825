"""Messages that were handed back while nobody else had room."""

from __future__ import annotations

from support.lanes import lane as lane_of

from netmsg.messaging.homeless import Homeless


def test_whoever_has_not_refused_them_gets_them_oldest_first() -> None:
    homeless, lane = Homeless(), lane_of(b"a")
    for number in range(5):
        homeless.add(b"%d" % number, lane, {b"a"})
    assert list(homeless.take_for(b"a")) == [] and homeless
    assert [message_id for message_id, _ in homeless.take_for(b"b")] == [b"0", b"1", b"2", b"3", b"4"]
    assert not homeless


def test_who_has_room_for_one_takes_one() -> None:
    homeless, lane = Homeless(), lane_of(b"a")
    homeless.add(b"1", lane, {b"a"})
    homeless.add(b"2", lane, {b"a"})
    assert next(homeless.take_for(b"b")) == (b"1", lane)
    assert [message_id for message_id, _ in homeless.take_for(b"b")] == [b"2"]


def test_a_message_belongs_to_one_circle_and_may_leave_it() -> None:
    homeless, lane = Homeless(), lane_of(b"a")
    homeless.add(b"1", lane, {b"a"})
    homeless.add(b"1", lane, {b"a", b"b"})
    assert list(homeless.take_for(b"b")) == []
    homeless.remove(b"1")
    homeless.remove(b"1")
    assert not homeless and list(homeless.take_for(b"c")) == []


def test_what_is_added_while_they_are_taken_is_no_harm() -> None:
    homeless, lane = Homeless(), lane_of(b"a")
    homeless.add(b"1", lane, {b"a"})
    taking = homeless.take_for(b"b")
    assert next(taking)[0] == b"1"
    homeless.add(b"2", lane, {b"a", b"c"})
    assert list(taking) == [] and homeless


def test_they_need_not_be_compared_with_whoever_has_refused_them_all() -> None:
    """It is asked at each acknowledgement: the work must not grow with what waits."""
    class Watched(dict):  # type: ignore[type-arg]
        looks = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            Watched.looks += 1
            return super().__iter__()

    homeless, lane = Homeless(), lane_of(b"a")
    for number in range(1000):
        homeless.add(b"%d" % number, lane, {b"a"})
    for circle, members in homeless._circles.items():
        homeless._circles[circle] = Watched(members)
    for _ in range(100):
        assert list(homeless.take_for(b"a")) == []
    assert Watched.looks == 0
