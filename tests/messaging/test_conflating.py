"""Only the newest message for each peer, on the sending side."""

from __future__ import annotations

import pytest
from support.lanes import addressed, take
from support.routers import joining, message, messages, place, publisher, roundrobin

from netmsg.messaging.conflating import conflate, place_newest
from netmsg.messaging.routing import Placed, Router
from netmsg.messaging.squeezing import Drop
from netmsg.wire.envelope import data_frame, reply_frame, request_frame
from netmsg.wire.messages import Features


def newest(router: Router, *numbers: int, identity: bytes | None = None) -> list[Drop]:
    """Send these, one after the other: what went for them."""
    dropped: list[Drop] = []
    for number in numbers:
        one = message(number)
        placed, _ = place_newest(router, one if identity is None else addressed(one), identity, dropped)
        assert placed is not Placed.FULL
    return dropped


def test_what_comes_takes_the_place_of_what_waits() -> None:
    router = roundrobin()
    (a,) = joining(router, b"a")
    assert newest(router, 0) == []
    assert newest(router, 1, 2) == [(message(0), b"a"), (message(1), b"a")]
    assert a.queue == messages(2)


def test_each_peer_in_turn_has_its_own() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    assert newest(router, 0, 1, 2) == [(message(0), b"a")]
    assert (a.queue, b.queue) == (messages(2), messages(1))


def test_what_is_published_takes_the_place_of_what_waits_for_each() -> None:
    router = publisher()
    a, b = joining(router, b"a", b"b")
    newest(router, 0)
    a.queue.clear()  # it keeps up
    assert newest(router, 1) == [(message(0), b"b")]
    assert a.queue == b.queue == messages(1)


def test_by_identity_it_takes_the_place_of_what_waits_for_that_peer() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    newest(router, 0, 1)
    assert newest(router, 2, identity=b"b") == [(message(1), b"b")]
    assert a.queue == messages(0) and b.queue == [addressed(message(2))]
    assert place_newest(router, addressed(message(3)), b"nobody", []) == (Placed.ABSENT, ())


def test_what_is_being_written_goes_and_the_newest_behind_it() -> None:
    router = roundrobin()
    (a,) = joining(router, b"a")
    newest(router, 0)
    write = a.begin_write()
    assert write is not None
    assert newest(router, 1, 2) == [(message(1), b"a")]
    assert a.queue == messages(0, 2)
    take(write)
    a.end_write(write)
    assert a.queue == messages(2)


def test_requests_and_replies_stay_and_take_nobodys_place() -> None:
    router = roundrobin()
    (a,) = joining(router, b"a")
    a.features = Features.REQUESTS
    newest(router, 0)
    request = request_frame(b"i" * 16, b"what")
    reply = reply_frame(b"j" * 16, b"that", addressee=b"a")
    assert router.place_request(request) is a
    assert place(router, reply, identity=b"a") == [Placed.QUEUED]
    assert newest(router, 1) == [(message(0), b"a")]
    assert a.queue == [request, reply, message(1)]


def test_the_newest_waits_for_the_first_who_comes() -> None:
    router = roundrobin()
    assert newest(router, 0, 1, 2) == [(message(0), None), (message(1), None)]
    (a,) = joining(router, b"a")
    assert a.queue == messages(2)


def test_where_nothing_is_kept_there_is_nobody_for_it() -> None:
    router = roundrobin(keeps=False)
    assert place_newest(router, message(0), None, []) == (Placed.ABSENT, ())
    assert not router.waiting


@pytest.mark.parametrize("numbers", [(), (0,), (0, 1, 2)])
def test_of_several_that_have_come_together_the_newest_stays(numbers: tuple[int, ...]) -> None:
    router = roundrobin()
    (a,) = joining(router, b"a")
    place(router, *messages(*numbers))
    dropped: list[Drop] = []
    conflate(router, [a], dropped)
    assert a.queue == messages(*numbers[-1:])
    assert {gone for gone, _ in dropped} == {*messages(*numbers[:-1])} and len(dropped) == max(0, len(numbers) - 1)


def test_large_ones_count_no_more_once_they_have_given_way() -> None:
    router = publisher()
    (a,) = joining(router, b"a")
    for size in (100_000, 200_000, 300_000):
        place_newest(router, data_frame(bytes(size)), None, [])
    assert len(a.queue) == 1 and 300_000 <= a.large_bytes < 300_100
