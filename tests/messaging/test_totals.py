"""The connections of a Søcket, and what all of them have carried: who has gone is counted among the past and not among
those that are there, which nobody sees half done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.midst import in_the_midst, lines

from netmsg.messaging.connections import Connections, Totals


class Lane:
    """What a connection has sent."""

    def __init__(self, sent: int, queued: int) -> None:
        self.sent_messages = sent
        self.sent_bytes = 10 * sent
        self.queue = deque(range(queued))


class Peer:
    """A connection, and what it has carried."""

    def __init__(self, identity: bytes = b"a", sent: int = 0, received: int = 0, queued: int = 0) -> None:
        self.identity = identity
        self.lane: Any = Lane(sent, queued)
        self.received_messages = received
        self.received_bytes = 100 * received


@pytest.fixture
def connections() -> Any:
    return Connections()


def let_in(connections: Any, *peers: Peer) -> None:
    for peer in peers:
        connections.handshaking[peer] = None
        connections.count_in(peer)


def test_who_is_let_in_is_no_newcomer_any_more(connections: Any) -> None:
    one, other = Peer(), Peer()
    connections.handshaking.update({one: None, other: None})
    connections.count_in(one)
    assert list(connections.open) == [one] and list(connections.handshaking) == [other]


def test_who_has_gone_is_nowhere(connections: Any) -> None:
    one, other = Peer(), Peer()
    let_in(connections, one, other)
    connections.count_out(one)
    assert list(connections.open) == [other] and not connections.handshaking


def test_those_that_are_let_in_are_kept_in_the_order_in_which_they_came(connections: Any) -> None:
    peers = [Peer() for _ in range(20)]
    first, *others = peers[::2] + peers[1::2]
    let_in(connections, first, *others)
    assert list(connections.open) == [first, *others]
    connections.count_out(first)
    let_in(connections, first)
    assert list(connections.open) == [*others, first]


def test_the_newest_connection_that_is_only_read_is_kept_by_identity_until_it_goes(connections: Any) -> None:
    older, newest, stranger = Peer(b"a"), Peer(b"a"), Peer(b"b")
    let_in(connections, older, newest, stranger)
    connections.retired.update({b"a": newest, b"b": stranger})
    connections.count_out(older)
    assert connections.retired == {b"a": newest, b"b": stranger}
    connections.count_out(newest)
    assert connections.retired == {b"b": stranger}


def test_nothing_has_been_carried_at_first(connections: Any) -> None:
    assert connections.totals() == Totals(0, 0, 0, 0, 0)


def test_all_that_are_there_are_added_up(connections: Any) -> None:
    let_in(connections, Peer(sent=1, received=2, queued=3), Peer(sent=10, received=20, queued=30))
    assert connections.totals() == Totals(11, 22, 110, 2200, 33)


def test_what_a_connection_has_carried_still_counts_when_it_has_gone_but_not_what_waited(connections: Any) -> None:
    gone, there = Peer(sent=1, received=2, queued=3), Peer(sent=10, received=20, queued=30)
    let_in(connections, gone, there)
    connections.count_out(gone)
    assert connections.totals() == Totals(11, 22, 110, 2200, 30)
    gone.received_messages += 1000
    assert connections.totals().received == 22, "it is counted once and for all"


def test_of_who_was_never_let_in_the_bytes_count(connections: Any) -> None:
    stranger, other = Peer(received=3), Peer(received=5)
    connections.handshaking.update({stranger: None, other: None})
    assert connections.totals().bytes_received == 0
    connections.count_stranger_out(stranger)
    assert connections.totals() == Totals(0, 0, 0, 300, 0) and list(connections.handshaking) == [other]
    connections.count_stranger_out(stranger)
    assert list(connections.handshaking) == [other]


def test_counting_makes_and_loses_no_peers_of_itself(connections: Any) -> None:
    """A connection is not a peer: another one may take over from it."""
    peer = Peer()
    let_in(connections, peer)
    connections.count_out(peer)
    assert (connections.made, connections.lost) == (0, 0)


amounts = st.integers(0, 1000)


@given(st.lists(st.tuples(amounts, amounts, st.booleans()), max_size=20))
def test_whoever_goes_in_whatever_order_nothing_is_lost_or_counted_twice(
        those: list[tuple[int, int, bool]]) -> None:
    connections: Any = Connections()
    for sent, received, goes in those:
        peer = Peer(sent=sent, received=received)
        let_in(connections, peer)
        if goes:
            connections.count_out(peer)
        totals = connections.totals()
        assert totals.bytes_sent == 10 * totals.sent and totals.bytes_received == 100 * totals.received
    totals = connections.totals()
    assert totals.sent == sum(sent for sent, _, _ in those)
    assert totals.received == sum(received for _, received, _ in those)


# Two threads

ALL = Totals(111, 222, 1110, 22200, 0)


def three(connections: Any) -> list[Peer]:
    peers = [Peer(sent=1, received=2), Peer(sent=10, received=20), Peer(sent=100, received=200)]
    let_in(connections, *peers)
    return peers


@pytest.mark.parametrize("function", [Connections.totals, Connections._add_up], ids=["totals", "adding up"])
def test_who_goes_while_it_is_added_up_is_counted_once(function: Callable[..., Any]) -> None:
    moments = []
    for line in lines(function):
        for index in range(3):
            connections: Any = Connections()
            peer = three(connections)[index]
            with in_the_midst(function, line, lambda: connections.count_out(peer)) as happened:
                assert connections.totals() == ALL
            moments += happened
            assert connections.totals() == ALL
    assert len(set(moments)) > 3


class Companion(Peer):
    """When it is looked at, another one goes."""

    def __init__(self, connections: Any, other: Peer) -> None:
        self._connections = connections
        self._other = other
        super().__init__()

    @property
    def received_messages(self) -> int:
        if self._other in self._connections.open:
            self._connections.count_out(self._other)
        return 0

    @received_messages.setter
    def received_messages(self, count: int) -> None:
        pass


@pytest.mark.parametrize("index", range(3))
def test_who_goes_while_another_is_looked_at_is_counted_once(connections: Any, index: int) -> None:
    peers = three(connections)
    let_in(connections, Companion(connections, peers[index]))
    assert connections.totals() == ALL
    assert peers[index] not in connections.open


class LookedAtAgain(Exception):
    """It was added up, and is to be once more, as the network thread was in the midst of counting somebody out."""


class Patient(Peer):
    """It notices that it is looked at in vain."""

    looks = 0

    @property
    def received_messages(self) -> int:
        self.looks += 1
        if self.looks > 1:
            raise LookedAtAgain
        return 0

    @received_messages.setter
    def received_messages(self, count: int) -> None:
        pass


def test_in_the_midst_of_counting_out_it_is_seen_at_once_or_not_at_all() -> None:
    seen: list[Totals | None] = []
    for line in lines(Connections.count_out):
        connections: Any = Connections()
        peers = three(connections)
        patient = Patient()
        let_in(connections, patient)

        def look() -> None:
            patient.looks = 0
            try:
                seen.append(connections.totals())
            except LookedAtAgain:
                seen.append(None)
            patient.looks = 0

        with in_the_midst(Connections.count_out, line, look):
            connections.count_out(peers[1])
        patient.looks = 0
        assert connections.totals() == ALL
    assert set(seen) == {ALL, None}, "never anything else"
    assert seen[0] == seen[-1] == ALL and seen.index(None) > 0, "not before it begins, and not after its end"
