"""Only the newest message for each peer, on the sending side."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from support.lanes import addressed, lane, take
from support.routers import joining, message, message_id, messages, place, publisher, roundrobin

from netmsg.messaging.conflating import conflate, place_newest
from netmsg.messaging.lane import Lane
from netmsg.messaging.routing import Placed, Router
from netmsg.messaging.squeezing import Drop
from netmsg.wire.envelope import data_frame, reply_frame, request_frame
from netmsg.wire.messages import Features, Frame, Queued, frame_of

Gone = list[tuple[Frame, bytes | None]]
"""What went, and whose it was."""


def newest(router: Router, *numbers: int, identity: bytes | None = None) -> Gone:
    """Send these, one after the other: what went for them."""
    dropped: list[Drop] = []
    for number in numbers:
        one = message(number)
        placed, _ = place_newest(router, one if identity is None else addressed(one), identity, message_id(number),
                                 dropped)
        assert placed is not Placed.FULL
    return gone(dropped)


def gone(dropped: list[Drop]) -> Gone:
    return [(frame_of(queued), whose) for queued, whose in dropped]


def left(router: Router, lanes: Iterable[Lane]) -> Gone:
    """What goes where several have come together."""
    dropped: list[Drop] = []
    conflate(router, lanes, dropped)
    return gone(dropped)


def frames(queue: Iterable[Queued]) -> list[Frame]:
    return [frame_of(queued) for queued in queue]


def test_what_comes_takes_the_place_of_what_waits() -> None:
    router = roundrobin()
    (a,) = joining(router, b"a")
    assert newest(router, 0) == []
    assert newest(router, 1, 2) == [(message(0), b"a"), (message(1), b"a")]
    assert frames(a.queue) == messages(2)


def test_each_peer_in_turn_has_its_own() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    assert newest(router, 0, 1, 2) == [(message(0), b"a")]
    assert (frames(a.queue), frames(b.queue)) == (messages(2), messages(1))


def test_what_is_published_takes_the_place_of_what_waits_for_each() -> None:
    router = publisher()
    a, b = joining(router, b"a", b"b")
    newest(router, 0)
    a.queue.clear()  # it keeps up
    assert newest(router, 1) == [(message(0), b"b")]
    assert frames(a.queue) == frames(b.queue) == messages(1)


def test_by_identity_it_takes_the_place_of_what_waits_for_that_peer() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    newest(router, 0, 1)
    assert newest(router, 2, identity=b"b") == [(message(1), b"b")]
    assert frames(a.queue) == messages(0) and frames(b.queue) == messages(2)
    assert place_newest(router, addressed(message(3)), b"nobody", message_id(3), []) == (Placed.ABSENT, ())


def test_what_is_being_written_goes_and_the_newest_behind_it() -> None:
    router = roundrobin()
    (a,) = joining(router, b"a")
    newest(router, 0)
    write = a.begin_write()
    assert write is not None
    assert newest(router, 1, 2) == [(message(1), b"a")]
    assert frames(a.queue) == messages(0, 2)
    take(write)
    a.end_write(write)
    assert frames(a.queue) == messages(2)


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
    assert frames(a.queue) == frames([request, reply, message(1)])


def test_the_newest_waits_for_the_first_who_comes() -> None:
    router = roundrobin()
    assert newest(router, 0, 1, 2) == [(message(0), None), (message(1), None)]
    (a,) = joining(router, b"a")
    assert frames(a.queue) == messages(2)


def test_where_nothing_is_kept_there_is_nobody_for_it() -> None:
    router = roundrobin(keeps=False)
    assert place_newest(router, message(0), None, message_id(0), []) == (Placed.ABSENT, ())
    assert not router.waiting


# Messages that come back


def test_what_comes_back_takes_the_place_of_what_is_older() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    newest(router, 0, 1)
    router.leave(b)
    assert left(router, [a]) == [(message(0), b"a")]
    assert frames(a.queue) == messages(1)


def test_what_comes_back_gives_way_to_what_is_newer() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    newest(router, 0, 1)
    router.leave(a)
    assert left(router, [b]) == [(message(0), b"b")]
    assert frames(b.queue) == messages(1)


def test_what_comes_back_gives_way_to_what_is_newer_and_has_been_sent() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    newest(router, 0, 1)
    b.queue.clear()
    router.leave(a)
    assert left(router, [b]) == [(message(0), b"b")]
    assert not b.queue


@pytest.mark.parametrize("sent", [False, True])
def test_what_comes_back_does_not_wait_where_something_newer_was_sent(sent: bool) -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    newest(router, 0, 1)
    if sent:
        b.queue.clear()
    router.leave(b)
    router.leave(a)
    assert left(router, []) == [(message(0), None)]
    assert frames(router.waiting) == ([] if sent else messages(1))


@pytest.mark.parametrize("sent", [False, True])
def test_another_connection_of_a_peer_has_no_old_news_either(sent: bool) -> None:
    router = publisher()
    old = lane(b"a")
    router.join(old)
    newest(router, 0)
    write = old.begin_write()
    new = lane(b"a")
    router.succeed(old, new, finish=True)
    newest(router, 1)
    if sent:
        new.queue.clear()
    assert write is not None and not write.done
    old.finishing = False
    ready = router.give_back(old).ready  # it has gone in the middle of that write
    assert left(router, ready) == [(message(0), b"a")]
    assert frames(new.queue) == ([] if sent else messages(1))


def test_another_connection_of_a_peer_knows_what_the_first_was_sent() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    newest(router, 0, 1)
    b.queue.clear()
    new = lane(b"b")
    router.succeed(b, new, finish=False)
    router.leave(a)
    assert left(router, [new]) == [(message(0), b"b")]


def test_a_peer_that_was_there_before_has_no_old_news() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    newest(router, 0, 1)
    b.queue.clear()
    router.leave(b)
    (b,) = joining(router, b"b")
    router.leave(a)
    assert left(router, [b]) == [(message(0), b"b")]


def test_copies_of_a_publication_wait_for_a_peer_and_only_the_newest_goes() -> None:
    router = publisher()
    a = lane(b"a", dialled="endpoint")
    router.join(a)
    newest(router, 0)
    a.begin_write()
    newest(router, 1)
    router.leave(a)
    again = lane(b"a", dialled="endpoint")
    router.join(again)
    assert left(router, [again]) == [(message(0), b"a")]
    assert frames(again.queue) == messages(1)


def test_large_ones_count_no_more_once_they_have_given_way() -> None:
    router = publisher()
    (a,) = joining(router, b"a")
    for number, size in enumerate((100_000, 200_000, 300_000)):
        place_newest(router, data_frame(bytes(size)), None, message_id(number), [])
    assert len(a.queue) == 1 and 300_000 <= a.large_bytes < 300_100
