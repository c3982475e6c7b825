"""A message in the place of the oldest one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest
from support.lanes import addressed, lane, take
from support.routers import (
    joining, message, message_id, messages, place, publisher, reliable, reliable_message, reliable_messages, roundrobin,
)

from netmsg import SendMode
from netmsg.messaging.kept import Limits
from netmsg.messaging.lane import Lane
from netmsg.messaging.routing import Placed, Router
from netmsg.messaging.squeezing import Drop
from netmsg.messaging.squeezing import squeeze_in as squeeze_in_noting
from netmsg.wire.envelope import data_frame
from netmsg.wire.messages import Message, Queued, frame_size


class Squeezed(NamedTuple):
    lanes: Iterable[Lane]
    dropped: list[Drop]
    refused: bool


def squeeze_in(router: Router, message: Queued, identity: bytes | None = None) -> Squeezed:
    dropped: list[Drop] = []
    lanes, refused = squeeze_in_noting(router, message, identity, dropped)
    return Squeezed(lanes, dropped, refused)


def test_a_message_takes_the_place_of_the_oldest_where_it_would_go() -> None:
    router = roundrobin(Limits(1, 1 << 20))
    a, b = joining(router, b"a", b"b")
    place(router, *messages(0, 1))
    assert squeeze_in(router, message(2)) == ((a,), [(message(0), b"a")], False)
    assert a.queue == messages(2) and b.queue == messages(1)
    assert squeeze_in(router, message(3)) == ((b,), [(message(1), b"b")], False)
    assert squeeze_in(router, message(4)) == ((a,), [(message(2), b"a")], False)


def test_a_message_by_identity_takes_the_place_of_the_oldest_for_that_peer() -> None:
    router = roundrobin(Limits(1, 1 << 20))
    a, b = joining(router, b"a", b"b")
    place(router, *messages(0, 1))
    assert squeeze_in(router, addressed(message(2)), b"b") == ((b,), [(message(1), b"b")], False)
    assert a.queue == messages(0) and b.queue == [addressed(message(2))]
    assert squeeze_in(router, addressed(message(3)), b"nobody").refused


def test_without_a_peer_the_oldest_of_those_that_wait_makes_room() -> None:
    router = roundrobin(Limits(2, 1 << 20))
    place(router, *messages(0, 1))
    assert squeeze_in(router, message(2)) == ((), [(message(0), None)], False)
    assert list(router.waiting) == messages(1, 2)


def test_what_a_peer_left_behind_makes_room_one_for_one_and_no_queue_is_emptied_for_it() -> None:
    router = roundrobin(Limits(3, 1 << 20))
    a, b = joining(router, b"a", b"b")
    place(router, *messages(0, 1, 2, 3, 4, 5))
    router.leave(a)
    for number in (6, 7):
        assert place(router, message(number)) == [Placed.FULL]
        assert len(squeeze_in(router, message(number)).dropped) == 1
    assert b.queue == messages(1, 3, 5)
    assert list(router.waiting) == messages(4, 6, 7)


@pytest.mark.parametrize("mode, peers", [(SendMode.ROUNDROBIN, 0), (SendMode.ROUNDROBIN, 1), (SendMode.PUBLISH, 2)])
def test_large_messages_in_the_place_of_small_ones_keep_the_mark_in_bytes(mode: SendMode, peers: int) -> None:
    router = Router(mode, Limits(100, 10_000))
    lanes = joining(router, *(b"%d" % number for number in range(peers)))
    place(router, *messages(*range(100)))
    for number in range(1000):
        frame = data_frame(bytes(1000 + number), router.large)
        if place(router, frame) == [Placed.FULL]:
            assert not squeeze_in(router, frame).refused
        for queue in [peer.queue for peer in lanes] or [list(router.waiting)]:
            assert sum(frame_size(kept) for kept in queue if isinstance(kept, tuple)) < 10_000 + 2100


def test_what_is_being_written_and_has_not_begun_may_be_dropped() -> None:
    router = roundrobin(Limits(3, 1 << 20))
    (a,) = joining(router, b"a")
    place(router, *messages(0, 1, 2))
    write = a.begin_write()
    assert write is not None
    take(write, 1)
    assert squeeze_in(router, message(3)) == ((a,), [(message(1), b"a")], False)
    assert a.queue == messages(0, 2, 3)


def test_what_has_begun_to_go_is_not_dropped_and_the_newest_comes_on_top() -> None:
    router = roundrobin(Limits(2, 1 << 20))
    (a,) = joining(router, b"a")
    place(router, *messages(0, 1))
    write = a.begin_write()
    assert write is not None
    take(write, frame_size(message(0)) + 1)
    assert squeeze_in(router, message(2)) == ((a,), [], False)
    assert squeeze_in(router, message(3)) == ((a,), [(message(2), b"a")], False)
    assert a.queue == messages(0, 1, 3)


def test_at_least_once_the_oldest_dropped_is_one_that_no_peer_was_given() -> None:
    router = reliable(Limits(2, 1 << 20))
    (a,) = joining(router, b"a", window=1)
    place(router, *reliable_messages(0, 1, 2))
    assert squeeze_in(router, reliable_message(3)) == ((), [(reliable_message(1), None)], False)
    assert list(a.unacked) == [message_id(0)]
    assert list(router.waiting) == reliable_messages(2, 3)


def test_at_least_once_who_has_room_gets_it_where_it_was_refused_messages_that_stood_at_the_mark() -> None:
    router = reliable(Limits(2, 1 << 20))
    (a,) = joining(router, b"a", window=5)
    for refused in (0, 1):
        one = reliable_message(refused)
        assert isinstance(one, Message)
        router.homeless.add(one, {b"a"})
    assert place(router, reliable_message(2)) == [Placed.FULL]
    assert squeeze_in(router, reliable_message(2)) == ((a,), [(reliable_message(0), None)], False)
    assert list(a.unacked) == [message_id(2)] and not router.waiting


def test_at_least_once_the_oldest_parked_message_of_an_identity_is_dropped() -> None:
    router = reliable(Limits(2, 1000))
    first = addressed(reliable_message(0, 2000, router.large))
    place(router, first, identity=b"a")
    assert squeeze_in(router, addressed(reliable_message(1)), b"b").dropped == []
    assert squeeze_in(router, addressed(reliable_message(2)), b"a").dropped == [(first, b"a")]
    assert router.unplaced == 2


def test_where_many_are_away_the_oldest_goes_of_whom_most_is_kept_for() -> None:
    router = reliable(Limits(3, 1 << 20))
    for number in range(30):
        place(router, addressed(reliable_message(number)), identity=b"%d" % max(0, number - 2))
    assert router.parked.of(b"0") is not None and router.parked.count == 30
    squeezed = squeeze_in(router, addressed(reliable_message(100)), b"somebody else")
    assert squeezed.dropped == [(addressed(reliable_message(0)), b"0")] and not squeezed.refused


def test_a_publication_takes_the_place_of_the_oldest_with_those_peers_that_are_full() -> None:
    router = publisher(Limits(2, 1 << 20))
    a, b, c = joining(router, b"a", b"b", b"c")
    a.queue += messages(0, 1)
    c.queue += messages(2, 3)
    write = c.begin_write()
    assert write is not None
    take(write, frame_size(message(2)) + 1)
    squeezed = squeeze_in(router, message(4))
    assert squeezed.dropped == [(message(0), b"a")] and not squeezed.refused
    assert (a.queue, b.queue, c.queue) == (messages(1, 4), messages(4), messages(2, 3, 4))


def test_the_oldest_copy_for_a_peer_that_is_away_makes_room() -> None:
    router = publisher(Limits(2, 1 << 20))
    there = lane(b"a", dialled="there")
    router.join(there)
    place(router, *messages(0, 1))
    router.leave(there)
    assert place(router, message(2)) == [Placed.FULL]
    assert squeeze_in(router, message(2)).dropped == [(message(0), None)]
    router.join(again := lane(b"a", dialled="there"))
    assert again.queue == messages(1, 2)
