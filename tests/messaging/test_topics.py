"""Who is to get what is published."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.lanes import lane
from support.routers import joining, place, publisher, roundrobin

from netmsg.messaging.topics import MOST_SUBSCRIPTIONS, Topics
from netmsg.wire.envelope import data_frame
from netmsg.wire.messages import Queued

A, B, C = lane(b"a"), lane(b"b"), lane(b"c")


def news(text: bytes, size: int = 0) -> Queued:
    return data_frame(text + bytes(size))


def test_who_has_subscribed_gets_what_begins_so_and_others_get_everything() -> None:
    topics = Topics()
    assert not topics
    assert topics.subscribe(A, b"a") and topics.subscribe(A, b"abc") and topics.subscribe(B, b"b")
    assert topics
    assert [*topics.audience(b"abcd", [A, B, C])] == [A, C]
    assert [*topics.audience(b"b", [A, B, C])] == [B, C]
    assert [*topics.audience(b"", [A, B, C])] == [C]
    assert [*topics.audience(b"z", [A, B])] == []


def test_the_empty_prefix_is_the_beginning_of_all() -> None:
    topics = Topics()
    topics.subscribe(A, b"")
    topics.subscribe(B, b"x")
    assert [*topics.audience(b"anything", [A, B])] == [A]


def test_without_the_last_one_everything_comes_again() -> None:
    topics = Topics()
    topics.subscribe(A, b"a")
    topics.unsubscribe(A, b"never")
    topics.unsubscribe(B, b"a")
    assert [*topics.audience(b"b", [A])] == []
    topics.unsubscribe(A, b"a")
    assert not topics and [*topics.audience(b"b", [A])] == [A]


def test_there_is_a_limit_to_those_of_one_connection() -> None:
    topics = Topics()
    assert all(topics.subscribe(A, b"%d" % number) for number in range(MOST_SUBSCRIPTIONS))
    assert not topics.subscribe(A, b"one more") and topics.subscribe(A, b"0") and topics.subscribe(B, b"one more")


def test_nothing_is_left_of_who_has_gone() -> None:
    topics = Topics()
    for number in range(100):
        topics.subscribe(A, b"%d" % number)
    topics.forget(A)
    topics.forget(B)
    assert not topics
    topics.subscribe(B, b"12345")
    Counted.cuts = 0
    assert [*topics.audience(Counted(b"7"), [A, B])] == [A] and Counted.cuts == 1, "other lengths are looked up no more"


class Counted(bytes):
    """Counts how often it is cut."""

    cuts = 0

    def __getitem__(self, key: Any) -> Any:
        Counted.cuts += 1
        return bytes.__getitem__(self, key)


def test_a_thousand_prefixes_cost_no_more_than_their_lengths() -> None:
    topics = Topics()
    for number in range(1000):
        topics.subscribe(A, b"%04d" % number)
        topics.subscribe(B, b"%05d" % number)
    Counted.cuts = 0
    assert [*topics.audience(Counted(b"0007 x"), [A, B])] == [A] and Counted.cuts == 2


@given(st.dictionaries(st.sampled_from([A, B, C]), st.sets(st.binary(max_size=3), max_size=5)), st.binary(max_size=5))
def test_it_is_as_if_each_prefix_were_looked_at(wanted: dict[object, set[bytes]], data: bytes) -> None:
    topics = Topics()
    for who, prefixes in wanted.items():
        for prefix in prefixes:
            topics.subscribe(who, prefix)  # type: ignore[arg-type]
    expected = [who for who in (A, B, C)
                if not wanted.get(who) or any(data.startswith(prefix) for prefix in wanted[who])]
    assert set(topics.audience(data, [A, B, C])) == set(expected)


# In the router


def test_what_nobody_wants_is_placed_nowhere() -> None:
    router = publisher()
    a, b = joining(router, b"a", b"b")
    router.subscribe(a, [b"a"])
    router.subscribe(b, [b"b"])
    place(router, news(b"a1"), news(b"b1"), news(b"c1"), news(b"a2", 20_000))
    assert a.queue == [news(b"a1"), a.queue[-1]] and b.queue == [news(b"b1")] and len(a.queue) == 2
    assert router.unplaced == 0


def test_who_comes_again_tells_anew() -> None:
    router = publisher()
    (a,) = joining(router, b"a")
    router.subscribe(a, [b"a"])
    new = lane(b"a")
    router.succeed(a, new, finish=False)
    place(router, news(b"b"))
    assert new.queue == [news(b"b")], "until then everything: it is looked at where it comes"
    router.subscribe(new, [b"a"])
    place(router, news(b"c"))
    assert new.queue == [news(b"b")]
    router.leave(new)
    assert not router.topics
    router.subscribe(new, [b"a"])
    assert not router.topics, "from one that has gone"


def test_what_a_connection_says_by_which_nothing_is_sent_counts_for_nothing() -> None:
    """One of two that the peer has, which is only read."""
    router = publisher()
    (a,) = joining(router, b"a")
    assert router.subscribe(lane(b"a"), [b"x"]) and not router.topics
    place(router, news(b"b"))
    assert a.queue == [news(b"b")]


def test_nor_where_nothing_is_published() -> None:
    router = roundrobin()
    (a,) = joining(router, b"a")
    assert router.subscribe(a, [b"x"]) and not router.topics
