"""Which peer a message goes to, and what becomes of those that a departed peer was not sent."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.lanes import addressed, joined, lane, send_all, take
from support.routers import (
    has_acknowledged, joining, message, message_id, messages, place, publisher, reliable, reliable_message,
    reliable_messages, roundrobin,
)

from netmsg.messaging.kept import Limits, Published
from netmsg.messaging.lane import Lane
from netmsg.messaging.routing import Placed, Router
from netmsg.wire.envelope import data_frame, reply_frame, request_frame
from netmsg.wire.messages import Features, Kind, Message, message_id_of

WAITING = Placed.WAITING


# Peers


def test_a_peer_is_found_by_its_identity_until_it_leaves() -> None:
    router = roundrobin()
    (a,) = joining(router, b"a")
    assert router.find(b"a") is a
    assert router.find(b"b") is None
    router.leave(a)
    assert router.find(b"a") is None
    assert router.ring == ()


def test_a_snapshot_of_the_ring_does_not_change() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    ring = router.ring
    joining(router, b"c")
    router.leave(a)
    assert ring == (a, b)


def test_the_departure_of_a_replaced_connection_leaves_the_newer_one_in_place() -> None:
    router = roundrobin()
    (old,) = joining(router, b"a")
    (new,) = joining(router, b"a")
    router.leave(old)
    assert router.find(b"a") is new
    assert router.ring == (new,)


def test_leaving_twice_is_leaving_once() -> None:
    router = roundrobin()
    a, b, c = joining(router, b"a", b"b", b"c")
    place(router, *messages(0, 1, 2))
    router.leave(a)
    departure = router.leave(a)
    assert departure.dead == [] and departure.ready == []
    assert router.ring == (b, c)
    assert b.queue == messages(1, 0)
    assert c.queue == messages(2)


def test_a_peer_that_has_left_is_marked_dead_and_one_that_joins_is_not() -> None:
    router = roundrobin()
    (a,) = joining(router, b"a")
    assert not a.dead
    router.leave(a)
    assert a.dead
    router.join(a)
    assert not a.dead


# Round robin


def test_messages_go_to_each_peer_in_turn() -> None:
    router = roundrobin()
    a, b, c = joining(router, b"a", b"b", b"c")
    went_to = [next(iter(router.place(message(number))[1])) for number in range(7)]
    assert went_to == [a, b, c, a, b, c, a]


@given(st.lists(st.one_of(st.just(-1), st.just(-1), st.just(-2), st.integers(0, 4)), max_size=60))
def test_round_robin_is_even_within_one_as_peers_come_and_go(plan: list[int]) -> None:
    """-1 sends a message, -2 lets a peer come, and a number lets the peer at that place go; there are four at first."""
    router = roundrobin()
    present: list[Lane] = []
    before: dict[tuple[int, int], int] = {}
    for step, action in enumerate([-2] * 4 + plan):
        if action == -1:
            place(router, message(step))
        elif action == -2:
            present += joining(router, b"%d" % step)
            for peer in present[:-1]:
                before[id(peer), id(present[-1])] = len(peer.queue) - len(present[-1].queue)
        elif action < len(present):
            router.leave(present.pop(action))
        for one, other in combinations(present, 2):
            lead = len(one.queue) - len(other.queue) - before[id(one), id(other)]
            assert abs(lead) <= 1
        assert list(router.ring) == present


@given(st.lists(st.integers(-2, 3), max_size=60))
def test_nothing_is_lost_or_repeated_as_peers_come_and_go(plan: list[int]) -> None:
    """Negative numbers send a message, 0 lets a peer come, 1 and 2 let one go, 3 lets all write something."""
    router = roundrobin()
    present: list[Lane] = []
    sent: list[bytes] = []
    accepted: list[bytes] = []
    for step, action in enumerate(plan):
        if action < 0:
            accepted.append(joined(message(step)))
            assert place(router, message(step)) != [Placed.FULL]
        elif action == 0:
            present += joining(router, b"%d" % step)
        elif action < 3 and len(present) >= action:
            leaving = present.pop(action - 1)
            queued = [joined(frame) for frame in leaving.queue]
            if leaving.writing is not None and leaving.writing.done:
                count = leaving.writing.messages
                sent += queued[:count]
                queued = queued[count:]
            assert router.leave(leaving).dead == []
            for waiting in [peer.queue for peer in present] or [list(router.waiting)]:
                places = [joined(frame) for frame in waiting]
                found = [frame for frame in places if frame in queued]
                assert found == [frame for frame in queued if frame in found]
        elif action == 3:
            for peer in present:
                write = peer.begin_write()
                if write is not None and step % 2:
                    take(write)
                elif write is not None:
                    take(write, 1)
    for peer in present:
        done = peer.writing.messages if peer.writing is not None and peer.writing.done else 0
        sent += [joined(frame) for frame in peer.queue[:done]]
        del peer.queue[:done]
        sent += [joined(frame) for frame in peer.queue]
    sent += [joined(frame) for frame in router.take_all()]
    assert sorted(sent) == sorted(accepted)


@given(st.integers(1, 4), st.integers(0, 40))
def test_each_peer_gets_its_messages_in_the_order_they_were_sent(peers: int, count: int) -> None:
    router = roundrobin()
    lanes = joining(router, *(b"%d" % number for number in range(peers)))
    place(router, *messages(*range(count)))
    for number, peer in enumerate(lanes):
        assert peer.queue == messages(*range(number, count, peers))


def test_a_full_peer_is_passed_over_until_it_has_room() -> None:
    router = roundrobin(Limits(2, 1 << 20))
    a, b = joining(router, b"a", b"b")
    a.queue += messages(100, 101)
    assert place(router, *messages(0, 1)) == [Placed.QUEUED] * 2
    assert b.queue == messages(0, 1)
    assert place(router, message(2)) == [Placed.FULL]
    del a.queue[:]
    assert place(router, *messages(3, 4)) == [Placed.QUEUED] * 2
    assert a.queue == messages(3, 4)


def test_being_passed_over_gives_a_peer_no_claim_to_catch_up() -> None:
    router = roundrobin(Limits(2, 1 << 20))
    a, b, c = joining(router, b"a", b"b", b"c")
    a.queue += messages(100, 101)
    place(router, *messages(0, 1))
    del a.queue[:]
    place(router, *messages(2, 3))
    assert (a.queue, b.queue, c.queue) == (messages(2), messages(0, 3), messages(1))


# Waiting for a peer


def test_messages_wait_in_order_for_the_first_peer() -> None:
    router = roundrobin()
    assert place(router, *messages(1, 2, 3)) == [Placed.WAITING] * 3
    assert router.unplaced == 3
    a, b = joining(router, b"a", b"b")
    assert a.queue == messages(1, 2, 3)
    assert b.queue == []
    assert router.unplaced == 0


def test_the_mark_bounds_what_waits() -> None:
    router = roundrobin(Limits(2, 1 << 20))
    assert place(router, *messages(1, 2, 3)) == [Placed.WAITING, Placed.WAITING, Placed.FULL]
    assert not router.waiting_has_room()
    assert router.unplaced == 2


@pytest.mark.parametrize("limits", [Limits(10, 1000), Limits(1000, 1_000_000), Limits(10, 5), Limits(1, 1)])
def test_messages_too_small_to_be_counted_in_bytes_reach_the_mark_in_messages_first(limits: Limits) -> None:
    router = roundrobin(limits)
    payload = bytes(router.large - 1)
    frame = data_frame(payload, router.large)
    joining(router, b"a")
    placed = place(router, *[frame] * (limits.messages + 1))
    assert placed == [Placed.QUEUED] * limits.messages + [Placed.FULL]
    assert len(payload) * limits.messages <= limits.bytes


def test_large_messages_are_admitted_while_a_queue_is_below_the_mark_in_bytes() -> None:
    router = roundrobin(Limits(10, 1000))
    frame = data_frame(bytes(495), router.large)
    assert place(router, frame, frame, frame) == [Placed.WAITING, Placed.WAITING, Placed.FULL]
    (a,) = joining(router, b"a")
    assert not router.has_room(a)
    assert router.waiting_has_room()
    assert place(router, frame) == [Placed.FULL]
    write = a.begin_write()
    assert write is not None
    take(write)
    a.end_write(write)
    assert place(router, frame, frame, frame) == [Placed.QUEUED, Placed.QUEUED, Placed.FULL]


def test_one_message_larger_than_the_mark_in_bytes_is_admitted_by_an_empty_queue() -> None:
    router = roundrobin(Limits(10, 1000))
    joining(router, b"a")
    frame = data_frame(bytes(5000), router.large)
    assert place(router, frame, frame) == [Placed.QUEUED, Placed.FULL]


# Giving back


def test_what_a_departed_peer_was_not_sent_goes_to_the_others_in_order() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    place(router, *messages(0, 1, 2, 3, 4))
    departure = router.leave(a)
    assert departure.dead == []
    assert departure.ready == [b]
    assert b.queue == messages(1, 3, 0, 2, 4)


def test_what_was_handed_to_the_kernel_whole_is_not_given_back() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    place(router, *messages(0, 1, 2))
    write = a.begin_write()
    assert write is not None
    take(write, len(joined(message(0))) + 1)
    router.leave(a)
    assert b.queue == messages(1, 2)


def test_give_back_waits_before_anything_newer() -> None:
    router = reliable()
    (a,) = joining(router, b"a", window=2)
    place(router, *reliable_messages(1, 2, 3, 4))
    assert list(router.waiting) == reliable_messages(3, 4)
    router.leave(a)
    assert list(router.waiting) == reliable_messages(1, 2, 3, 4)
    (b,) = joining(router, b"b")
    assert b.queue == reliable_messages(1, 2, 3, 4)


def test_runs_given_back_by_several_peers_are_not_merged() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    place(router, *messages(0, 1, 2, 3))
    router.leave(a)
    router.leave(b)
    assert list(router.waiting) == messages(1, 3, 0, 2)


def test_give_back_may_overshoot_the_mark_and_newer_messages_may_not() -> None:
    router = roundrobin(Limits(2, 1 << 20))
    a, b = joining(router, b"a", b"b")
    place(router, *messages(0, 1, 2, 3))
    router.leave(a)
    router.leave(b)
    assert router.unplaced == 4
    assert place(router, message(9)) == [Placed.FULL]


def test_give_back_goes_only_to_peers_with_room() -> None:
    router = roundrobin(Limits(2, 1 << 20))
    a, b = joining(router, b"a", b"b")
    place(router, *messages(0, 1, 2, 3))
    assert router.leave(a).ready == []
    assert b.queue == messages(1, 3)
    assert list(router.waiting) == messages(0, 2)
    del b.queue[:]
    assert router.distribute() == [b]
    assert b.queue == messages(0, 2)
    assert router.unplaced == 0


def test_new_messages_queue_behind_what_was_given_back() -> None:
    router = roundrobin(Limits(2, 1 << 20))
    a, b = joining(router, b"a", b"b")
    place(router, *messages(0, 1, 2, 3))
    router.leave(a)
    del b.queue[:1]
    assert place(router, message(4)) == [Placed.FULL]
    router.distribute()
    assert b.queue == messages(3, 0)
    del b.queue[:]
    assert place(router, message(5)) == [Placed.WAITING]
    assert router.distribute() == [b]
    assert b.queue == messages(2, 5)


def test_a_frame_appended_to_a_dead_peer_is_found_by_whoever_comes_second() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    ring = router.ring
    router.leave(a)
    ring[0].queue.append(message(7))
    assert ring[0].dead
    assert router.give_back(ring[0]).ready == [b]
    assert router.give_back(ring[0]).ready == []
    assert b.queue == messages(7)


def test_large_messages_given_back_count_in_bytes_again() -> None:
    router = roundrobin(Limits(10, 1000))
    (a,) = joining(router, b"a")
    place(router, *[data_frame(bytes(600), router.large)] * 2)
    router.leave(a)
    assert not router.waiting_has_room()
    joining(router, b"b")
    assert router.waiting_has_room()


# By identity


def test_a_message_by_identity_goes_to_that_peer_alone() -> None:
    for router, sent in ((roundrobin(), messages(0, 1, 2)), (reliable(), reliable_messages(0, 1, 2))):
        a, b = joining(router, b"a", b"b")
        for one in sent:
            placed, lanes = router.place(addressed(one), b"b")
            assert placed is Placed.QUEUED and list(lanes) == [b]
        assert a.queue == []
        assert b.queue == [addressed(one) for one in sent]


def test_messages_by_identity_do_not_move_the_turn() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    place(router, addressed(message(1)), addressed(message(2)), identity=b"b")
    place(router, message(3))
    assert a.queue == messages(3)


def test_at_most_once_an_absent_peer_is_told() -> None:
    router = roundrobin()
    joining(router, b"a")
    assert place(router, addressed(message(1)), identity=b"b") == [Placed.ABSENT]
    assert router.unplaced == 0


def test_at_most_once_a_full_peer_is_told() -> None:
    router = roundrobin(Limits(1, 1 << 20))
    joining(router, b"a", b"b")
    assert place(router, *map(addressed, messages(1, 2)), identity=b"b") == [Placed.QUEUED, Placed.FULL]


def test_at_most_once_messages_by_identity_die_with_the_peer_and_the_others_go_on() -> None:
    router = roundrobin()
    a, b = joining(router, b"a", b"b")
    place(router, addressed(message(1)), identity=b"a")
    place(router, message(2))
    place(router, addressed(message(3)), identity=b"a")
    departure = router.leave(a)
    assert departure.dead == [addressed(message(1)), addressed(message(3))]
    assert b.queue == messages(2)


def test_at_least_once_messages_by_identity_are_parked_for_an_absent_peer() -> None:
    router = reliable()
    joining(router, b"a")
    frames = [addressed(frame) for frame in reliable_messages(1, 2)]
    assert place(router, *frames, identity=b"b") == [Placed.WAITING] * 2
    assert router.unplaced == 2
    joining(router, b"c")
    assert router.unplaced == 2
    (b,) = joining(router, b"b")
    assert b.queue == frames
    assert router.unplaced == 0 and not router.parked.count


def test_at_least_once_messages_by_identity_wait_for_their_peer_to_come_back_before_newer_ones() -> None:
    router = reliable()
    a, b = joining(router, b"a", b"b", window=2)
    frames = [addressed(frame) for frame in reliable_messages(1, 2, 3)]
    assert place(router, *frames, identity=b"b") == [Placed.QUEUED, Placed.QUEUED, Placed.WAITING]
    assert router.leave(b).dead == []
    assert a.queue == []
    place(router, addressed(reliable_message(4)), identity=b"b")
    assert router.unplaced == 4
    (b,) = joining(router, b"b")
    assert b.queue == [*frames, addressed(reliable_message(4))]


def test_the_marks_hold_for_each_peer_that_is_away_and_for_what_anybody_may_have() -> None:
    router = reliable(Limits(2, 1 << 20))
    assert place(router, *map(addressed, reliable_messages(0, 1, 2)), identity=b"b") == [WAITING, WAITING, Placed.FULL]
    assert place(router, *map(addressed, reliable_messages(3, 4, 5)), identity=b"c") == [WAITING, WAITING, Placed.FULL]
    assert place(router, *reliable_messages(6, 7, 8)) == [WAITING, WAITING, Placed.FULL]


def test_those_who_never_come_back_do_not_fill_the_memory() -> None:
    router = reliable(Limits(2, 1 << 20))
    placed = [place(router, addressed(reliable_message(n)), identity=b"%d" % (n % 50)) for n in range(100)]
    assert placed == [[WAITING]] * 20 + [[Placed.FULL]] * 80
    assert place(router, reliable_message(100)) == [WAITING]


def test_parked_large_messages_count_in_bytes() -> None:
    router = reliable(Limits(10, 1000))
    place(router, addressed(reliable_message(1, 1500, router.large)), identity=b"b")
    assert not router.parked.has_room(b"b") and router.parked.has_room(b"c") and router.waiting_has_room()
    joining(router, b"b")
    assert router.parked.has_room(b"b")


def test_large_messages_by_identity_that_are_given_back_count_in_bytes() -> None:
    router = reliable(Limits(10, 1000))
    (b,) = joining(router, b"b")
    place(router, addressed(reliable_message(1, 1500, router.large)), identity=b"b")
    router.leave(b)
    assert router.unplaced == 1
    assert not router.parked.has_room(b"b")


def test_the_bytes_of_what_waits_are_exact_after_a_peer_by_identity_was_away() -> None:
    router = reliable(Limits(10, 1000))
    for number in range(30):
        (b,) = joining(router, b"b")
        assert router.parked.has_room(b"b")
        place(router, addressed(reliable_message(number, 1500, router.large)), identity=b"b")
        router.leave(b)
        (b,) = joining(router, b"b")
        assert b.queue == [addressed(reliable_message(number, 1500, router.large))]
        has_acknowledged(router, b, [message_id(number)])
        router.leave(b)


# Where nothing is kept


@pytest.mark.parametrize("make", [roundrobin, publisher])
def test_what_there_is_nobody_for_is_not_kept(make: Callable[..., Router]) -> None:
    router = make(keeps=False)
    assert place(router, *messages(0, 1)) == [Placed.ABSENT] * 2
    (a,) = joining(router, b"a")
    assert a.queue == [] and place(router, message(2)) == [Placed.QUEUED]
    assert router.leave(a).dead == messages(2), "nor what the last one leaves"
    assert router.unplaced == 0


def test_what_one_leaves_goes_to_the_others_even_so() -> None:
    router = roundrobin(keeps=False)
    a, b = joining(router, b"a", b"b")
    place(router, *messages(0, 1))
    departure = router.leave(a)
    assert departure.dead == [] and departure.ready == [b] and b.queue == messages(1, 0)


def test_nor_are_copies_kept_for_an_endpoint() -> None:
    router = publisher(keeps=False)
    one, other = lane(b"a", dialled=object()), lane(b"b")
    for joined_lane in (one, other):
        router.join(joined_lane)
    place(router, message(0))
    assert router.leave(one).dead == messages(0) and not router.copies


# Windows


def test_a_peer_gets_no_more_than_its_window_of_unacknowledged_messages() -> None:
    router = reliable()
    a, b = joining(router, b"a", b"b", window=2)
    placed = place(router, *reliable_messages(0, 1, 2, 3, 4, 5))
    assert placed == [Placed.QUEUED] * 4 + [Placed.WAITING] * 2
    assert a.queue == reliable_messages(0, 2) and b.queue == reliable_messages(1, 3)
    assert list(a.unacked) == [message_id(0), message_id(2)]
    assert router.unplaced == 2


def test_what_has_been_written_still_fills_the_window() -> None:
    router = reliable()
    (a,) = joining(router, b"a", window=1)
    place(router, reliable_message(0))
    write = a.begin_write()
    assert write is not None
    take(write)
    a.end_write(write)
    assert not router.has_room(a)


def test_an_acknowledgement_opens_the_window_for_what_waits() -> None:
    router = reliable()
    (a,) = joining(router, b"a", window=2)
    place(router, *reliable_messages(0, 1, 2, 3))
    known, ready = has_acknowledged(router, a, [message_id(0)])
    assert known == [message_id(0)]
    assert ready == [a]
    assert list(a.unacked.values()) == reliable_messages(1, 2)
    assert list(router.waiting) == reliable_messages(3)


@pytest.mark.parametrize("returns", [False, True])
def test_what_waits_for_a_peer_and_for_anybody_goes_out_in_the_order_of_sending(returns: bool) -> None:
    router = reliable()
    (a,) = joining(router, b"a", window=1)
    for number in range(6):
        if number in (1, 2, 4):
            place(router, addressed(reliable_message(number, 1500)), identity=b"a")
        else:
            place(router, reliable_message(number))
    if returns:
        router.leave(a)
        (a,) = joining(router, b"a", window=1)
    got: list[bytes] = []
    while a.unacked:
        got += a.unacked
        has_acknowledged(router, a, list(a.unacked))
    assert got == [message_id(number) for number in range(6)]
    assert router.unplaced == 0 and router.parked.large == a.unacked_large == 0


def test_a_wider_window_is_filled_with_what_waits() -> None:
    router = reliable()
    (a,) = joining(router, b"a", window=1)
    place(router, *reliable_messages(0, 1, 2))
    assert router.refill(a) == []
    a.window = 3
    assert router.refill(a) == [a]
    assert a.queue == reliable_messages(0, 1, 2)


def test_a_dead_peer_is_not_refilled() -> None:
    router = reliable()
    (a,) = joining(router, b"a", window=1)
    place(router, *reliable_messages(0, 1))
    router.leave(a)
    assert router.refill(a) == []
    assert router.unplaced == 2


def test_acknowledgements_of_what_a_peer_was_not_sent_are_unknown() -> None:
    router = reliable()
    a, b = joining(router, b"a", b"b")
    place(router, *reliable_messages(0, 1))
    assert has_acknowledged(router, a, [message_id(1), message_id(9)])[0] == []
    assert has_acknowledged(router, a, [message_id(0)])[0] == [message_id(0)]
    assert has_acknowledged(router, a, [message_id(0)])[0] == []
    assert list(b.unacked) == [message_id(1)]


def test_an_id_acknowledged_twice_at_once_counts_once() -> None:
    router = reliable()
    (a,) = joining(router, b"a")
    place(router, *reliable_messages(0, 1))
    ids = [message_id(0), message_id(1)]
    assert has_acknowledged(router, a, [message_id(0), *ids])[0] == ids


def test_an_id_acknowledged_twice_at_once_makes_room_for_its_bytes_once() -> None:
    router = reliable(Limits(10, 1000))
    (a,) = joining(router, b"a")
    a.window = 10
    place(router, reliable_message(0, 800, router.large), reliable_message(1, 800, router.large))
    has_acknowledged(router, a, [message_id(0), message_id(0)])
    assert place(router, reliable_message(2, 800, router.large)) == [Placed.QUEUED]
    assert not router.has_room(a)


def test_unacknowledged_large_messages_count_in_bytes() -> None:
    router = reliable(Limits(10, 1000))
    (a,) = joining(router, b"a")
    frames = [reliable_message(number, 600, router.large) for number in range(3)]
    assert place(router, *frames) == [Placed.QUEUED, Placed.QUEUED, Placed.WAITING]
    has_acknowledged(router, a, [message_id(0)])
    assert list(a.unacked.values()) == frames[1:]


def test_unacknowledged_messages_go_back_before_unsent_ones() -> None:
    router = reliable()
    (a,) = joining(router, b"a")
    place(router, *reliable_messages(0, 1))
    write = a.begin_write()
    assert write is not None
    take(write)
    a.end_write(write)
    place(router, *reliable_messages(2, 3))
    has_acknowledged(router, a, [message_id(0)])
    router.leave(a)
    assert list(router.waiting) == reliable_messages(1, 2, 3)
    assert a.unacked == {}


def test_a_message_being_sent_again_is_given_back_once() -> None:
    router = reliable()
    (a,) = joining(router, b"a")
    place(router, *reliable_messages(0, 1))
    a.queue.append(reliable_message(0))
    router.leave(a)
    assert list(router.waiting) == reliable_messages(0, 1)


def test_a_forgotten_message_makes_room_and_is_not_given_back() -> None:
    router = reliable()
    (a,) = joining(router, b"a", window=1)
    place(router, reliable_message(0))
    assert a.forget(message_id(0)) == reliable_message(0)
    assert a.forget(message_id(0)) is None
    assert router.has_room(a)
    router.leave(a)
    assert router.unplaced == 0


@given(st.lists(st.integers(-3, 4), max_size=50))
def test_at_least_once_every_message_is_unacknowledged_waiting_or_acknowledged(plan: list[int]) -> None:
    """Negative numbers send, 0 lets a peer come, 1 lets the first go, others let that peer acknowledge its oldest."""
    router = reliable()
    present: list[Lane] = []
    accepted: list[bytes] = []
    acknowledged: list[bytes] = []
    for step, action in enumerate(plan):
        if action < 0:
            accepted.append(joined(reliable_message(step)))
            place(router, reliable_message(step))
        elif action == 0:
            present += joining(router, b"%d" % step, window=2)
        elif action == 1 and present:
            router.leave(present.pop(0))
        elif 0 <= action - 2 < len(present) and (unacked := present[action - 2].unacked):
            oldest, sent = next(iter(unacked.items()))
            acknowledged.append(joined(sent))
            has_acknowledged(router, present[action - 2], [oldest])
        for peer in present:
            assert len(peer.unacked) <= peer.window
        if router.waiting:
            assert all(len(peer.unacked) == peer.window for peer in present)
    found = acknowledged + [joined(frame) for frame in router.waiting]
    found += [joined(sent) for peer in present for sent in peer.unacked.values()]
    assert sorted(found) == sorted(accepted)


# Publish


def test_every_peer_gets_a_copy() -> None:
    router = publisher()
    lanes = joining(router, b"a", b"b", b"c")
    placed, went_to = router.place(message(1))
    assert placed is Placed.QUEUED
    assert list(went_to) == lanes
    assert [peer.queue for peer in lanes] == [messages(1)] * 3


def test_publishing_is_all_or_none() -> None:
    router = publisher(Limits(2, 1 << 20))
    a, b = joining(router, b"a", b"b")
    b.queue += messages(100, 101)
    assert place(router, message(1)) == [Placed.FULL]
    assert a.queue == []
    assert router.full_lanes() == [b]


def test_published_large_messages_count_in_bytes_with_every_peer() -> None:
    router = publisher(Limits(10, 1000))
    lanes = joining(router, b"a", b"b")
    assert place(router, *[data_frame(bytes(600), router.large)] * 3) == [Placed.QUEUED, Placed.QUEUED, Placed.FULL]
    assert router.full_lanes() == lanes


def test_published_copies_for_a_peer_that_dialled_us_die_with_it() -> None:
    router = publisher()
    a, b = joining(router, b"a", b"b")
    place(router, *messages(1, 2))
    assert router.leave(a).dead == messages(1, 2)
    assert b.queue == messages(1, 2)
    assert router.unplaced == 0


def test_published_copies_for_an_endpoint_that_we_dial_wait_for_it() -> None:
    router = publisher()
    first = lane(b"a", dialled="there")
    router.join(first)
    (b,) = joining(router, b"b")
    place(router, *messages(1, 2))
    assert router.leave(first).dead == []
    assert router.unplaced == 2
    other = lane(b"c", dialled="elsewhere")
    router.join(other)
    assert other.queue == [] and b.queue == messages(1, 2)
    again = lane(b"whoever answers there", dialled="there")
    router.join(again)
    place(router, message(3))
    assert again.queue == messages(1, 2, 3)
    assert router.unplaced == 0


def test_published_copies_handed_over_whole_do_not_wait() -> None:
    router = publisher()
    a = lane(b"a", dialled="there")
    router.join(a)
    place(router, *messages(1, 2))
    write = a.begin_write()
    assert write is not None
    take(write, len(joined(message(1))) + 2)
    router.leave(a)
    again = lane(b"a", dialled="there")
    router.join(again)
    assert again.queue == messages(2)


@pytest.mark.parametrize("size", [10, 2000])
@pytest.mark.parametrize("dialled", ["there", None])
def test_what_was_published_waits_for_a_peer_that_is_dialled_and_goes_with_any_other(size: int,
                                                                                     dialled: str | None) -> None:
    router = publisher()
    a = lane(b"a", dialled=dialled)
    router.join(a)
    published = data_frame(bytes(size), 1000, router.bare)
    place(router, published)
    assert router.leave(a)[:2] == ([] if dialled else [published], [])
    assert router.unplaced == (1 if dialled else 0)
    router.join(again := lane(b"a", dialled=dialled))
    assert again.queue == ([published] if dialled else [])


def test_of_a_bare_message_the_mode_says_what_it_is() -> None:
    assert roundrobin().kind_of(message(1)) is Kind.PLAIN
    assert publisher().kind_of(message(1)) is Kind.PUBLISHED
    assert publisher().kind_of(addressed(message(1))) is Kind.ADDRESSED
    for message_at_least_once in (reliable_message(1), addressed(reliable_message(1))):
        assert reliable().kind_of(message_at_least_once) is Kind.RELIABLE


def test_messages_by_identity_among_published_ones_die_with_the_peer() -> None:
    router = publisher()
    a = lane(b"a", dialled="there")
    router.join(a)
    place(router, message(1))
    place(router, addressed(message(2)), identity=b"a")
    assert router.leave(a).dead == [addressed(message(2))]
    assert router.unplaced == 1


def test_messages_published_before_any_peer_go_to_the_first() -> None:
    router = publisher()
    assert place(router, *messages(1, 2)) == [Placed.WAITING] * 2
    a, b = joining(router, b"a", b"b")
    assert a.queue == messages(1, 2) and b.queue == []


# Copies for those that are away


def test_who_had_a_publication_does_not_get_it_again_by_another_endpoint_that_leads_to_it() -> None:
    router = publisher()
    one, other = lane(b"one", dialled="one"), lane(b"other", dialled="other")
    router.join(one)
    router.join(other)
    place(router, message(0))
    router.leave(other)
    again = lane(b"one", dialled="one")
    router.leave(one)
    assert router.unplaced == 2
    router.join(again)
    assert again.queue == messages(0), "what was kept for itself"
    assert router.bring(again, "other") == []
    assert again.queue == messages(0) and router.unplaced == 1, "what was kept for the other is the same"


def test_who_was_away_when_it_was_published_gets_it_where_another_was_to_have_it() -> None:
    """Such as the one of two that stand in for each other at one address."""
    router = publisher()
    router.join(one := lane(b"one", dialled="address"))
    place(router, message(0))
    one.queue.clear()  # it has had it
    router.leave(one)
    router.join(other := lane(b"other", dialled="address"))
    place(router, *messages(1, 2))
    router.leave(other)
    router.join(again := lane(b"one", dialled="address"))
    assert again.queue == messages(1, 2) and router.unplaced == 0


def test_what_was_published_to_nobody_is_for_whoever_was_away_then() -> None:
    router = publisher()
    router.join(one := lane(b"one", dialled="address"))
    place(router, *messages(0, 1))
    one.queue.clear()  # it has had them
    router.leave(one)
    place(router, *messages(2, 3))
    router.join(other := lane(b"other", dialled="address"))
    place(router, message(4))
    router.leave(other)
    router.join(again := lane(b"one", dialled="address"))
    assert again.queue == messages(2, 3, 4) and router.unplaced == 0


@pytest.mark.parametrize("how", ["twice", "without having come"])
def test_whoever_goes_goes_once(how: str) -> None:
    """A connection that is only read to its end is not there when its peer was sent something."""
    router = publisher()
    one = lane(b"one", dialled="address")
    if how == "twice":
        router.join(one)
        router.leave(one)
    router.join(other := lane(b"other", dialled="address"))
    place(router, *messages(0, 1))
    router.leave(one)
    router.leave(other)
    router.join(again := lane(b"one", dialled="address"))
    assert again.queue == messages(0, 1)


def test_who_comes_later_gets_it_by_whatever_endpoint_leads_to_it() -> None:
    router = publisher()
    one = lane(b"one", dialled="one")
    router.join(one)
    place(router, message(0))
    router.leave(one)
    late = lane(b"late", dialled="late")
    router.join(late)
    place(router, message(1))
    assert router.bring(late, "one") == [late]
    assert late.queue == messages(1, 0)


def test_others_may_look_how_much_waits_while_peers_come_and_go() -> None:
    router = publisher()

    class Kicking(Published):
        def __len__(self) -> int:
            router.copies[object()] = Published()  # as the network thread may do between any two looks
            return super().__len__()

    router.copies[1] = router.copies[2] = Kicking()
    assert router.unplaced == 0
    assert router.waiting_has_room()


@pytest.mark.parametrize("size", [10, 900])
def test_copies_for_a_peer_that_is_away_count_against_the_mark_of_what_waits_for_it(size: int) -> None:
    """It comes and goes, and reads nothing: what is kept for it does not grow."""
    router = publisher(Limits(3, 2500))
    published = 0
    for _ in range(5):
        while place(router, data_frame(bytes(size), router.large)) != [Placed.FULL]:
            published += 1
        there = lane(b"a", dialled="there")
        router.join(there)
        while place(router, data_frame(bytes(size), router.large)) != [Placed.FULL]:
            published += 1
        router.leave(there)
    assert router.unplaced == published == 3


# Another connection of the same peer


@pytest.mark.parametrize("finish", [True, False])
def test_another_connection_takes_over_what_the_old_one_has_not_sent(finish: bool) -> None:
    router = roundrobin()
    old, other = joining(router, b"a", b"b")
    place(router, *messages(0, 1, 2, 3))
    place(router, addressed(message(4)), identity=b"a")
    new = lane(b"a")
    router.succeed(old, new, finish=finish)
    assert router.ring == (new, other) and router.find(b"a") is new
    assert new.queue == messages(0, 2) + [addressed(message(4))] and old.queue == []
    assert old.dead and not new.dead


@pytest.mark.parametrize("finish", [True, False])
def test_another_connection_takes_over_what_the_old_one_has_not_acknowledged(finish: bool) -> None:
    """Beyond its window, which is not known yet, and not to the others; what waits comes behind it."""
    router = reliable()
    old, other = joining(router, b"a", b"b", window=3)
    place(router, *reliable_messages(0, 1, 2, 3, 4, 5, 6))
    place(router, addressed(reliable_message(7)), identity=b"a")
    take(old.begin_write() or pytest.fail())
    has_acknowledged(router, old, [message_id(0)])
    new = lane(b"a", window=1)
    router.succeed(old, new, finish=finish)
    assert router.ring == (new, other) and router.find(b"a") is new
    assert new.queue == reliable_messages(2, 4, 6) and list(new.unacked) == [message_id(number) for number in (2, 4, 6)]
    assert list(other.unacked) == [message_id(number) for number in (1, 3, 5)]
    assert old.dead and not old.unacked and not new.dead
    has_acknowledged(router, new, list(new.unacked))
    assert list(new.unacked) == [message_id(7)]


def test_what_the_old_connection_is_writing_it_brings_to_its_end() -> None:
    router = roundrobin()
    (old,) = joining(router, b"a")
    place(router, *messages(0, 1))
    write = old.begin_write()
    assert write is not None
    take(write, 3)
    place(router, message(2))
    router.succeed(old, new := lane(b"a"), finish=True)
    assert new.queue == messages(2)
    take(write)
    old.end_write(write)
    assert old.begin_write() is None and old.empty


def test_what_the_old_connection_could_not_bring_to_its_end_goes_out_first() -> None:
    router = roundrobin()
    (old,) = joining(router, b"a")
    place(router, *messages(0, 1))
    write = old.begin_write()
    assert write is not None
    take(write, len(joined(message(0))) + 2)
    place(router, message(2))
    new = lane(b"a")
    new.held = True
    router.succeed(old, new, finish=True)
    old.finishing = False
    departure = router.leave(old)
    assert departure == ([], [new], [])
    assert new.queue == messages(1, 2)


def test_a_message_that_came_late_to_the_old_connection_goes_to_the_new_one() -> None:
    router = publisher()
    (old,) = joining(router, b"a")
    router.succeed(old, new := lane(b"a"), finish=True)
    old.queue.append(message(1))  # a sender that had looked it up before
    assert router.give_back(old)[:2] == ([], [new])
    assert new.queue == messages(1)


def test_a_peer_is_catching_up_until_it_has_been_sent_what_was_kept_for_it() -> None:
    router = publisher(Limits(3, 1000))
    place(router, *messages(0, 1, 2))
    (a,) = joining(router, b"a")
    assert router.full_lanes() == [a] and router.lanes_behind() == []
    write = a.begin_write()
    assert write is not None
    router.publish(message(3), [a])
    router.publish(message(4), [a])
    assert router.lanes_behind() == []
    router.publish(message(5), [a])
    assert router.lanes_behind() == [a]
    take(write)
    a.end_write(write)
    assert router.full_lanes() == router.lanes_behind() == [a]


def test_what_a_peer_has_not_taken_is_no_backlog_of_its_next_connection() -> None:
    router = publisher(Limits(3, 1000))
    (old,) = joining(router, b"a")
    for number in range(3):
        router.publish(message(number), [old])
    assert router.lanes_behind() == [old]
    router.succeed(old, new := lane(b"a"), finish=False)
    assert new.queue == messages(0, 1, 2) and router.lanes_behind() == [new]


def test_what_has_been_kept_for_a_peer_is_a_backlog_of_its_next_connection_too() -> None:
    router = publisher(Limits(3, 1000))
    place(router, *messages(0, 1, 2))
    (old,) = joining(router, b"a")
    router.succeed(old, new := lane(b"a"), finish=False)
    assert router.full_lanes() == [new] and router.lanes_behind() == []


def test_what_is_kept_for_an_endpoint_goes_to_the_peer_to_which_it_leads() -> None:
    router = publisher(Limits(3, 1000))
    first = lane(b"a", dialled="there")
    router.join(first)
    router.publish(message(0), [first])
    router.publish(message(1), [first])
    router.leave(first)
    (second,) = joining(router, b"b")
    router.publish(message(2), [second])
    assert router.bring(second, "there") == [second]
    assert set(second.queue) == set(messages(0, 1, 2)) and len(second.queue) == 3 and router.lanes_behind() == []
    assert router.bring(second, "there") == []


def test_it_does_not_go_to_one_that_was_there_when_it_was_published() -> None:
    """Such as one that now stands in for the other."""
    router = publisher()
    first = lane(b"a", dialled="there")
    router.join(first)
    (other,) = joining(router, b"b")
    router.publish(message(0), [first, other])
    router.leave(first)
    assert router.bring(other, "there") == [] and other.queue == messages(0)
    router.succeed(other, again := lane(b"b"), finish=False)
    assert router.bring(again, "there") == [] and again.queue == messages(0)
    router.succeed(again, by_that_way := lane(b"b", dialled="there"), finish=False)
    assert by_that_way.queue == messages(0)
    router.join(back := lane(b"a", dialled="there"))
    assert back.queue == messages(0)


def test_it_stays_if_that_peer_has_gone() -> None:
    router = publisher()
    first = lane(b"a", dialled="there")
    router.join(first)
    router.publish(message(0), [first])
    router.leave(first)
    (second,) = joining(router, b"b")
    router.leave(second)
    assert router.bring(second, "there") == []
    router.join(third := lane(b"c", dialled="there"))
    assert third.queue == messages(0)


def test_no_more_copies_are_kept_for_an_endpoint_than_the_mark_allows() -> None:
    router = publisher(Limits(3, 1000))
    a = lane(b"a", dialled="there")
    router.join(a)
    for number in range(5):
        router.publish(message(number), [a])
    assert router.leave(a).dead == messages(3, 4)
    router.join(again := lane(b"a", dialled="there"))
    assert again.queue == messages(0, 1, 2)


def test_the_peers_in_the_way_of_a_message_are_told() -> None:
    router = roundrobin(Limits(1, 1 << 20))
    a, b = joining(router, b"a", b"b")
    assert router.full_lanes(b"a") == []
    place(router, *messages(0, 1))
    assert router.full_lanes(b"a") == [a]
    assert router.full_lanes(b"nobody") == []
    assert router.full_lanes() == [a, b]


def test_all_that_has_no_peer_is_taken_at_the_end() -> None:
    router = reliable(Limits(10, 1000))
    two = reliable_message(2, 900, router.large)
    place(router, reliable_message(1), two)
    place(router, addressed(reliable_message(3)), identity=b"b")
    assert router.take_all() == [reliable_message(1), two, addressed(reliable_message(3))]
    assert router.unplaced == 0
    assert router.waiting_has_room()
    assert router.take_all() == []


def test_copies_that_wait_for_an_endpoint_are_taken_at_the_end() -> None:
    router = publisher()
    a = lane(b"a", dialled="there")
    router.join(a)
    place(router, message(1))
    router.leave(a)
    assert router.take_all() == messages(1)
    assert router.unplaced == 0


# Requests and replies


def request(number: int, to: bytes | None = None, size: int = 0) -> Message:
    return request_frame(message_id(number), bytes(size), 1000, to)


def reply(number: int, to: bytes) -> Message:
    return reply_frame(message_id(number), b"", 1000, to)


def answering(router: Router, *identities: bytes, window: int = 1000) -> list[Lane]:
    lanes = joining(router, *identities, window=window)
    for one in lanes:
        one.features = Features.REQUESTS
    return lanes


EVERY_ROUTER = pytest.mark.parametrize("make", [roundrobin, publisher, reliable])


@EVERY_ROUTER
def test_requests_go_to_those_in_turn_who_can_answer(make: Callable[..., Router]) -> None:
    router = make()
    a, b = answering(router, b"a", b"b")
    joining(router, b"dumb")
    assert [router.place_request(request(number)) for number in range(4)] == [a, b, a, b]
    assert [*map(message_id_of, a.queue)] == [message_id(0), message_id(2)] and not a.unacked


@EVERY_ROUTER
def test_a_request_to_one_goes_there_or_nowhere(make: Callable[..., Router]) -> None:
    router = make()
    a, b = answering(router, b"a", b"b")
    joining(router, b"dumb")
    assert [router.place_request(request(number, b"b")) for number in range(2)] == [b, b]
    assert router.place_request(request(2, b"dumb")) is None and router.place_request(request(3, b"absent")) is None
    assert not a.queue


@EVERY_ROUTER
def test_a_request_waits_for_room(make: Callable[..., Router]) -> None:
    router = make(Limits(2, 10_000))
    a, b = answering(router, b"a", b"b", window=0)
    assert [router.place_request(request(number)) for number in range(5)] == [a, b, a, b, None]
    assert router.place_request(request(5, b"a")) is None
    send_all(b)
    assert router.place_request(request(6)) is b


def test_and_for_room_in_bytes() -> None:
    router = roundrobin(Limits(100, 2000))
    (a,) = answering(router, b"a")
    assert router.place_request(request(0, size=2000)) is a and router.place_request(request(1)) is None


def test_the_turn_to_answer_outlives_those_who_go() -> None:
    router = roundrobin()
    lanes = answering(router, b"a", b"b", b"c")
    for number in range(3):
        router.place_request(request(number))
    router.leave(lanes[2])
    router.leave(lanes[1])
    assert router.place_request(request(3)) is lanes[0] and router.place_request(request(4)) is lanes[0]
    router.leave(lanes[0])
    assert router.place_request(request(5)) is None


@EVERY_ROUTER
def test_requests_that_were_not_sent_are_given_back_and_others_not(make: Callable[..., Router]) -> None:
    router = make()
    a, _ = answering(router, b"a", b"b")
    sent, unsent = request(0, b"a"), request(1, b"a")
    router.place_request(sent)
    send_all(a)
    router.place_request(unsent)
    assert router.leave(a) == ([], [], [unsent])
    assert router.give_back(a) == ([], [], [])


@EVERY_ROUTER
def test_half_of_a_request_was_not_sent(make: Callable[..., Router]) -> None:
    router = make()
    (a,) = answering(router, b"a")
    unsent = request(0)
    router.place_request(unsent)
    write = a.begin_write()
    assert write is not None
    take(write, 10)
    assert router.leave(a).requests == [unsent]


@EVERY_ROUTER
@pytest.mark.parametrize("finish", [True, False])
def test_another_connection_is_given_the_replies_and_not_the_requests(make: Callable[..., Router],
                                                                      finish: bool) -> None:
    router = make()
    (old,) = answering(router, b"a")
    unsent, answer = request(0), reply(1, b"a")
    router.place_request(unsent)
    assert router.place(answer, b"a") == (Placed.QUEUED, (old,))
    new = lane(b"a", window=1000)
    assert router.succeed(old, new, finish=finish) == [unsent]
    assert new.queue == [answer] and new.features == old.features


@EVERY_ROUTER
def test_a_reply_goes_with_the_one_who_has_asked(make: Callable[..., Router]) -> None:
    router = make()
    a, b = answering(router, b"a", b"b")
    answer = reply(0, b"a")
    router.place(answer, b"a")
    assert router.leave(a) == ([answer], [], []) and not b.queue
    assert router.place(reply(1, b"a"), b"a") == (Placed.ABSENT, ())
    assert router.unplaced == 0


@EVERY_ROUTER
def test_a_reply_obeys_the_marks_of_its_queue_and_no_window(make: Callable[..., Router]) -> None:
    router = make(Limits(2, 10_000))
    joining(router, b"a", window=0)
    placed = [router.place(reply(number, b"a"), b"a")[0] for number in range(3)]
    assert placed == [Placed.QUEUED, Placed.QUEUED, Placed.FULL]
    assert router.full_lanes(b"a", once=True) != []


def test_at_least_once_replies_do_not_disturb_what_is_to_be_acknowledged() -> None:
    router = reliable()
    a, b = joining(router, b"a", b"b", window=2)
    place(router, *reliable_messages(0, 1, 2, 3))
    router.place(reply(9, b"a"), b"a")
    send_all(b)
    departure = router.leave(a)
    assert [*map(message_id_of, departure.dead)] == [message_id(9)]
    assert [*map(message_id_of, router.waiting)] == [message_id(0), message_id(2)]
    assert [*b.unacked] == [message_id(1), message_id(3)]


def test_at_least_once_what_has_been_sent_is_known_by_its_number_with_requests_among_it() -> None:
    router = reliable()
    (a,) = answering(router, b"a")
    router.place_request(request(0))
    router.place(reply(1, b"a"), b"a")
    place(router, reliable_message(2))
    withdrawn = request(3)
    router.place_request(withdrawn)
    place(router, reliable_message(4))
    a.withdraw(withdrawn, leave_gap=True)
    numbers = {its_id: message.number for its_id, message in a.unacked.items()}
    write = a.begin_write()
    assert write is not None and withdrawn not in a.queue
    assert a.sent_messages == 0 < numbers[message_id(2)] < numbers[message_id(4)]
    take(write)
    a.end_write(write)
    assert a.sent_messages == numbers[message_id(4)]


def test_what_is_withdrawn_makes_room() -> None:
    router = roundrobin(Limits(1, 10_000))
    (a,) = answering(router, b"a")
    first = request(0, size=2000)
    router.place_request(first)
    assert router.place_request(request(1)) is None
    a.withdraw(first, leave_gap=False)
    assert a.large_bytes == 0 and router.place_request(request(2)) is a
    write = a.begin_write()
    assert write is not None
    a.withdraw(request(2), leave_gap=False)  # another one of the same id
    assert len(a.queue) == 1


def test_what_is_being_written_is_not_withdrawn() -> None:
    router = roundrobin()
    (a,) = answering(router, b"a")
    sent = request(0)
    router.place_request(sent)
    assert a.begin_write() is not None
    a.withdraw(sent, leave_gap=False)
    assert a.queue == [sent]
