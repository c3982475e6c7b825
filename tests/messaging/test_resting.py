"""Two ways to one peer: one is used, and the other rests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support.lanes import lane

from netmsg.messaging.lane import Lane
from netmsg.messaging.resting import Resting

A, B = b"a", b"b"


class Endpoint:
    def __init__(self) -> None:
        self.done: list[Any] = []

    def rest(self, identity: bytes) -> None:
        self.done.append(identity)

    def wake(self, reason: str) -> None:
        self.done.append("wake")


class Roads:
    def __init__(self) -> None:
        self.lanes: dict[bytes, Lane] = {}
        self.brought: list[tuple[object, object]] = []

    def find(self, identity: bytes) -> Lane | None:
        return self.lanes.get(identity)

    def bring(self, endpoint: object, peer: object) -> None:
        self.brought.append((endpoint, peer))


@pytest.fixture
def roads() -> Roads:
    return Roads()


@pytest.fixture
def resting(roads: Roads) -> Resting:
    return Resting(roads)


def connection(identity: bytes, endpoint: Any = None, dialled: object = None) -> Any:
    return SimpleNamespace(identity=identity, endpoint=endpoint, lane=lane(identity, dialled=dialled))


def test_what_led_to_a_peer_that_is_there_rests_until_it_has_gone(resting: Resting, roads: Roads) -> None:
    way, there = Endpoint(), connection(A)
    roads.lanes[A] = there.lane
    one_too_many = connection(A, way)
    resting.rest(one_too_many, there)
    assert way.done == [A] and one_too_many.endpoint is None
    resting.wake(A)
    assert way.done == [A], "it is still there"
    del roads.lanes[A]
    resting.wake(B)
    assert way.done == [A], "another has gone"
    for _ in range(2):
        resting.wake(A)
        assert way.done == [A, "wake"]


def test_what_is_kept_for_that_endpoint_goes_to_the_peer(resting: Resting, roads: Roads) -> None:
    way, there = Endpoint(), connection(A)
    resting.rest(connection(A, way), there)
    assert roads.brought == [(way, there)] and there.lane.dialled is way


def test_who_has_an_endpoint_of_its_own_keeps_it(resting: Resting) -> None:
    way, there = Endpoint(), connection(A, dialled="another")
    resting.rest(connection(A, way), there)
    assert there.lane.dialled == "another"


def test_who_was_not_dialled_has_nothing_to_rest(resting: Resting, roads: Roads) -> None:
    resting.rest(connection(A), connection(A))
    assert roads.brought == []
    resting.wake(A)


def test_several_ways_are_woken_together(resting: Resting) -> None:
    ways = [Endpoint() for _ in range(3)]
    for way in ways:
        resting.rest(connection(A, way), connection(A))
    resting.wake(A)
    assert all(way.done == [A, "wake"] for way in ways)
