"""Messages that were handed back while nobody else had room."""

from __future__ import annotations

from collections.abc import Iterable

from support.routers import message_id, reliable_message

from netmsg.messaging.homeless import Homeless
from netmsg.wire.messages import Message, message_id_of


def message(number: int, size: int = 0) -> Message:
    queued = reliable_message(number, size)
    assert isinstance(queued, Message)
    return queued


def ids(*numbers: int) -> list[bytes]:
    return [message_id(number) for number in numbers]


def of(messages: Iterable[Message]) -> list[bytes]:
    return [message_id_of(one) for one in messages]


def refused(*numbers: int, by: set[bytes]) -> Homeless:
    homeless = Homeless()
    for number in numbers:
        homeless.add(message(number), by)
    return homeless


def test_whoever_has_not_refused_them_gets_them_oldest_first() -> None:
    homeless = refused(0, 1, 2, 3, 4, by={b"a"})
    assert of(homeless.take_for(b"a")) == [] and len(homeless) == 5
    assert of(homeless.take_for(b"b")) == ids(0, 1, 2, 3, 4)
    assert not homeless


def test_who_has_room_for_one_takes_one() -> None:
    homeless = refused(1, 2, by={b"a"})
    assert next(homeless.take_for(b"b")) is message(1)
    assert of(homeless.take_for(b"b")) == ids(2)


def test_what_all_have_refused_is_nobodys_until_that_is_forgiven() -> None:
    homeless = refused(1, 2, by={b"a", b"b"})
    assert of(homeless.take_for(b"b")) == of(homeless.take_for(b"a")) == []
    homeless.forgive(message_id(2))
    assert of(homeless.take_for(b"a")) == ids(2) and len(homeless) == 1


def test_while_one_waits_those_alone_can_have_room_who_have_refused_it() -> None:
    homeless = refused(1, by={b"a"})
    homeless.add(message(2), {b"b", b"c"})
    assert homeless.refusers == {b"a"}
    homeless.remove(message_id(1))
    assert homeless.refusers == {b"b", b"c"}


def test_who_comes_anew_may_have_what_it_had_refused() -> None:
    homeless = refused(1, 2, by={b"a", b"b"})
    homeless.add(message(3), {b"b"})
    homeless.forget(b"a")
    assert of(homeless.take_for(b"b")) == []
    assert of(homeless.take_for(b"a")) == ids(3, 1, 2)


def test_what_is_added_while_they_are_taken_is_no_harm() -> None:
    homeless = refused(1, by={b"a"})
    taking = homeless.take_for(b"b")
    assert next(taking) is message(1)
    homeless.add(message(2), {b"a", b"c"})
    assert of(taking) == [] and len(homeless) == 1


def test_who_has_refused_one_may_acknowledge_it_all_the_same() -> None:
    homeless = refused(1, 2, by={b"a"})
    assert homeless.acknowledge(b"b", ids(1, 2, 3)) == []
    assert homeless.acknowledge(b"a", ids(3, 2, 2)) == ids(2), "once, however often it says so"
    assert of(homeless.messages.values()) == ids(1)


def test_large_ones_count_in_bytes_until_they_go() -> None:
    homeless = Homeless()
    for number in (1, 2, 3):
        homeless.add(message(number, 2000), {b"a"})
    large = message(1, 2000).large
    assert large > 2000 and homeless.large == 3 * large
    assert homeless.drop_oldest() is message(1, 2000) and homeless.large == 2 * large
    assert len(list(homeless.take_for(b"b"))) == 2 and homeless.large == 0


def test_they_need_not_be_compared_with_whoever_has_refused_them_all() -> None:
    """It is asked at each acknowledgement: the work must not grow with what waits."""
    class Watched(dict):  # type: ignore[type-arg]
        looks = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            Watched.looks += 1
            return super().__iter__()

    homeless = refused(*range(1000), by={b"a"})
    for circle, members in homeless._circles.items():
        homeless._circles[circle] = Watched(members)
    for _ in range(100):
        assert list(homeless.take_for(b"a")) == []
    assert Watched.looks == 0
