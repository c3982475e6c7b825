"""Requests that wait for their replies, by themselves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest
from support.lanes import lane

from netmsg.messaging.lane import Lane
from netmsg.messaging.requests import Request, Requests
from netmsg.wire.envelope import request_frame

A, B = b"a" * 16, b"b" * 16


def correlation_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


class Scene:
    def __init__(self) -> None:
        self.requests = Requests()
        self.woken: list[int] = []

    def ask(self, number: int, whom: Lane | None = None) -> Request:
        its_id = correlation_id(number)
        request = Request(its_id, request_frame(its_id, b"?"), lambda: self.woken.append(number))
        self.requests.add(request)
        if whom is not None:
            request.lane = whom
            self.requests.placed(request)
        return request

    def answer(self, whose: bytes, *numbers: int) -> int:
        return self.requests.answered(whose, [*map(correlation_id, numbers)], [b"%d!" % number for number in numbers])

    def refuse(self, whose: bytes, *numbers: int) -> int:
        return self.requests.failed(whose, [*map(correlation_id, numbers)], [b"no %d" % number for number in numbers])


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_request_is_to_be_given_to_somebody(scene: Scene) -> None:
    request = scene.ask(1)
    assert [*scene.requests.unplaced] == [request] and request.lane is None and not request.settled
    request.lane = lane(A)
    scene.requests.placed(request)
    assert not scene.requests.unplaced and len(scene.requests) == 1


def test_each_gets_its_own_reply(scene: Scene) -> None:
    there = lane(A)
    one, two, three = (scene.ask(number, there) for number in (1, 2, 3))
    assert scene.answer(A, 3, 1) == 0 and scene.woken == [3, 1]
    assert (one.reply, two.reply, three.reply) == (b"1!", None, b"3!")
    assert one.settled and not two.settled


def test_or_the_reason_why_there_is_none(scene: Scene) -> None:
    there = lane(A)
    one, two = scene.ask(1, there), scene.ask(2, there)
    assert scene.refuse(A, 2) == 0 and scene.woken == [2]
    assert two.failure == "no 2" and two.settled and not one.settled
    scene.requests.failed(A, [correlation_id(1)], [b"\xff"])
    assert one.failure == "\ufffd"


def test_an_empty_reply_is_one(scene: Scene) -> None:
    one, two = scene.ask(1, lane(A)), scene.ask(2, lane(A))
    scene.requests.answered(A, [correlation_id(1)], [b""])
    scene.requests.failed(A, [correlation_id(2)], [b""])
    assert one.settled and two.settled


@pytest.mark.parametrize("say", [Scene.answer, Scene.refuse])
def test_what_somebody_else_says_counts_for_nothing(scene: Scene, say: Callable[..., int]) -> None:
    asked, unplaced = scene.ask(1, lane(A)), scene.ask(2)
    assert say(scene, B, 1, 2, 3) == 3 and say(scene, A, 2) == 1
    assert not asked.settled and not unplaced.settled and scene.woken == []


def test_nor_what_comes_too_late_or_twice(scene: Scene) -> None:
    request = scene.ask(1, lane(A))
    assert scene.answer(A, 1) == 0 and scene.answer(A, 1) == 1 and scene.refuse(A, 1) == 1
    assert request.reply == b"1!" and request.failure is None
    scene.requests.over(request)
    scene.requests.over(request)
    assert scene.answer(A, 1) == 1 and len(scene.requests) == 0


def test_what_was_not_sent_is_given_to_somebody_else(scene: Scene) -> None:
    there = lane(A)
    one, two = scene.ask(1, there), scene.ask(2, there)
    one.look = two.look = False
    scene.requests.returned([one.message, request_frame(correlation_id(9), b"of one that is over")])
    assert one.lane is None and one.look and [*scene.requests.unplaced] == [one] and scene.woken == [1]
    assert two.lane is there and not two.look
    scene.requests.lost(there)
    assert two.lost and not one.settled


def test_what_was_sent_is_lost_with_the_peer(scene: Scene) -> None:
    gone, there = lane(A), lane(B)
    lost, answered, elsewhere = scene.ask(1, gone), scene.ask(2, gone), scene.ask(3, there)
    scene.answer(A, 2)
    scene.requests.lost(gone)
    assert lost.lost and lost.settled and scene.woken == [2, 1]
    assert not answered.lost and not elsewhere.settled
    scene.requests.lost(gone)
    assert scene.woken == [2, 1]
    scene.requests.returned([lost.message])
    assert not scene.requests.unplaced, "it is over"


def test_by_another_connection_the_same_peer_answers_what_it_was_asked_by_the_old_one(scene: Scene) -> None:
    old, new = lane(A), lane(A)
    request, other = scene.ask(1, old), scene.ask(2, lane(B))
    scene.requests.moved(old, new)
    scene.requests.lost(old)
    assert not request.settled and other.lane is not new
    scene.requests.lost(new)
    assert request.lost


def test_only_those_that_are_with_nobody_are_woken_by_room(scene: Scene) -> None:
    scene.ask(1, lane(A))
    unplaced = scene.ask(2)
    unplaced.look = False
    scene.requests.look_again()
    assert unplaced.look and scene.woken == [2]


def test_all_are_woken_by_the_end(scene: Scene) -> None:
    scene.ask(1, lane(A))
    scene.ask(2)
    scene.requests.wake_all()
    assert scene.woken == [1, 2]


def test_it_is_known_of_whom_something_is_awaited(scene: Scene) -> None:
    assert not scene.requests.awaited(A)
    request = scene.ask(1, lane(A))
    scene.ask(2)
    assert scene.requests.awaited(A) and not scene.requests.awaited(B)
    scene.answer(A, 1)
    assert not scene.requests.awaited(A)
    scene.requests.over(request)


def test_it_may_be_looked_for_while_others_ask(scene: Scene) -> None:
    """The network thread looks, and takes no lock for it."""
    class Asking(Lane):
        @property
        def identity(self) -> bytes:
            scene.ask(100 + len(scene.requests))
            return A

        @identity.setter
        def identity(self, value: bytes) -> None: ...

    scene.ask(1, Asking(A, nullcontext()))
    scene.ask(2, lane(B))
    assert scene.requests.awaited(B)


def test_who_is_awaited_is_known_without_a_look_at_all_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    there, other = lane(A), lane(B)
    asked = [scene.ask(number, there) for number in range(5)]
    assert scene.requests.awaited(A) and not scene.requests.awaited(B)
    with monkeypatch.context() as patch:
        patch.setattr(Request, "settled", property(lambda self: pytest.fail("one by one")))
        assert scene.requests.awaited(A) and not scene.requests.awaited(B)
    scene.answer(A, 0)
    scene.refuse(A, 1)
    scene.requests.over(asked[2])
    scene.requests.returned([asked[3].message])
    assert scene.requests.awaited(A)
    asked[3].lane = other
    scene.requests.placed(asked[3])
    assert scene.requests.awaited(B)
    newer = lane(A)
    scene.requests.moved(there, newer)
    scene.requests.lost(there)
    assert scene.requests.awaited(A) and asked[4].lane is newer
    scene.requests.lost(newer)
    assert asked[4].lost and not scene.requests.awaited(A)
    for request in asked:
        scene.requests.over(request)
        scene.requests.over(request)
    assert not scene.requests.awaited(B) and len(scene.requests) == 0
