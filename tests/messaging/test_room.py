"""Who waits for room, and when they are woken."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from support.lanes import lane
from support.pairs import Background
from support.routers import messages
from support.stand_ins import HandWaiters, Loop

from netmsg.deadline import Deadline
from netmsg.errors import LocalProtocolError, SendTimeoutError
from netmsg.messaging import room
from netmsg.messaging.choices import SendMode
from netmsg.messaging.drafts import Draft
from netmsg.messaging.events import Event, EventQueue, Full
from netmsg.messaging.kept import Limits
from netmsg.messaging.lane import Lane
from netmsg.messaging.life import Life
from netmsg.messaging.requests import Requests
from netmsg.messaging.room import Room
from netmsg.messaging.routing import Router

NOW, LATER = Deadline(0), Deadline(None)


class Scene:
    def __init__(self, peers: int = 1, *, mode: SendMode = SendMode.ROUNDROBIN, reliable: bool = False) -> None:
        self.router = Router(mode, Limits(4, 1 << 20), reliable=reliable)
        self.loop = Loop()
        self.life = Life()
        self.told: list[Event] = []
        expecting: Any = SimpleNamespace(acknowledgements=0, asked=0, room_for_replies={}, read_on=self.read_on)
        self.expecting = expecting
        self.room = Room(self.life, self.loop.io, EventQueue(self.told.append), self.router, expecting, Requests(),
                         lambda: "; nobody answers")
        self.lanes = [lane(bytes((97 + number,)) * 2) for number in range(peers)]
        for one in self.lanes:
            self.router.join(one)

    def read_on(self) -> None:
        self.expecting.asked += 1

    def fill(self) -> None:
        for one in self.lanes:
            one.queue += messages(0, 1, 2, 3)

    def takes(self, one: Lane, count: int) -> None:
        """The kernel has taken so many; and it is told of."""
        del one.queue[:count]
        if self.room.asked:
            peer: Any = SimpleNamespace(lane=one, identity=one.identity)
            self.room.made(peer)

    def wait(self, identity: bytes | None = None, deadline: Deadline = NOW) -> None:
        self.room.wait(Draft(b"", identity), deadline)


@pytest.fixture(autouse=True)
def waiting_is_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "Waiters", HandWaiters)
    monkeypatch.setattr(HandWaiters, "meanwhile", HandWaiters.meanwhile)


def meanwhile(happens: Any) -> None:
    HandWaiters.meanwhile = staticmethod(happens)


def test_nobody_has_to_be_told_while_nobody_asks() -> None:
    scene = Scene()
    assert not scene.room.asked
    scene.fill()
    meanwhile(lambda: scene.takes(scene.lanes[0], 4))
    scene.wait()
    assert not scene.room.asked and scene.expecting.acknowledgements == 0


def test_time_is_up_and_the_error_says_for_whom() -> None:
    scene = Scene(2)
    scene.fill()
    with pytest.raises(SendTimeoutError, match=r"in time \(2 peers connected\); nobody answers"):
        scene.wait()
    with pytest.raises(SendTimeoutError, match=r"\(peer 6161 connected\); nobody answers"):
        scene.wait(b"aa")
    assert "peer 7a7a not connected" in str(scene.room.too_late("?", b"zz"))
    assert "(1 peer connected)" in str(Scene().room.too_late("?", None))
    assert not scene.room.asked and scene.expecting.acknowledgements == 0


def test_senders_to_anybody_are_woken_when_a_queue_is_down_to_half() -> None:
    scene = Scene(2)
    scene.fill()
    meanwhile(lambda: scene.takes(scene.lanes[0], 1))
    with pytest.raises(AssertionError, match="nobody wakes"):
        scene.wait()
    scene.fill()
    meanwhile(lambda: scene.takes(scene.lanes[0], len(scene.lanes[0].queue) - 2))
    scene.wait()


def test_a_publisher_waits_for_the_slowest() -> None:
    scene = Scene(2, mode=SendMode.PUBLISH)
    scene.fill()
    meanwhile(lambda: scene.takes(scene.lanes[0], 4))
    with pytest.raises(SendTimeoutError):
        scene.wait()
    meanwhile(lambda: scene.takes(scene.lanes[1], 4))
    scene.wait()


def test_senders_by_identity_are_woken_by_that_peer() -> None:
    scene = Scene(2)
    scene.fill()
    meanwhile(lambda: scene.takes(scene.lanes[1], 4))
    with pytest.raises(SendTimeoutError):
        scene.wait(b"aa")
    meanwhile(lambda: scene.takes(scene.lanes[0], 1))
    scene.wait(b"aa")


def test_or_by_its_going_for_then_it_is_dropped() -> None:
    scene = Scene()
    scene.fill()

    def go() -> None:
        scene.router.leave(scene.lanes[0])
        scene.room.wake_all()

    meanwhile(go)
    scene.wait(b"aa")


def test_at_least_once_whoever_waits_has_acknowledgements_read() -> None:
    scene = Scene(reliable=True)
    counts: list[int] = []
    scene.router.waiting.extend(messages(0, 1, 2, 3))
    meanwhile(lambda: counts.append(scene.expecting.acknowledgements))
    with pytest.raises(SendTimeoutError):
        scene.wait(deadline=LATER)
    assert counts == [1] and scene.expecting.asked == 1 and scene.expecting.acknowledgements == 0


@pytest.mark.parametrize("answers", [False, True])
def test_whoever_does_not_wait_has_nothing_read(answers: bool) -> None:
    scene = Scene(reliable=True)
    scene.router.waiting.extend(messages(0, 1, 2, 3))
    scene.fill()
    with pytest.raises(SendTimeoutError):
        scene.room.wait(Draft(b"", scene.lanes[0].identity, b"c" * 16) if answers else Draft(b"", None), NOW)
    assert scene.expecting.asked == 0


def test_closing_ends_the_waiting() -> None:
    scene = Scene()
    scene.fill()

    def close() -> None:
        scene.life.begin_closing()
        scene.room.wake_all()

    meanwhile(close)
    scene.wait()


def test_the_network_thread_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    monkeypatch.setattr(type(scene.loop.io), "is_current", True)
    with pytest.raises(LocalProtocolError):
        scene.wait()


def test_what_is_lacking_is_told_once_until_there_has_been_some() -> None:
    scene = Scene()
    scene.fill()
    scene.room.lacking(None)
    scene.room.lacking(b"aa")
    assert [type(event) for event in scene.told] == [Full]
    scene.takes(scene.lanes[0], 4)
    scene.room.lacking(b"aa")
    assert [event.peer for event in scene.told if isinstance(event, Full)] == [None, b"aa"]


def test_who_waits_to_reply_is_known_and_has_the_asker_read_on() -> None:
    scene = Scene()
    scene.fill()
    whom, others = scene.lanes[0].identity, object()
    scene.expecting.room_for_replies[others] = (whom,)  # another thread, which answers the same one
    known: list[list[tuple[bytes, ...]]] = []
    meanwhile(lambda: known.append([*scene.expecting.room_for_replies.values()]))
    with pytest.raises(SendTimeoutError):
        scene.room.wait(Draft(b"", whom, b"c" * 16), LATER)
    assert known == [[(whom,), (whom,)]] and scene.expecting.asked == 1
    assert scene.expecting.room_for_replies == {others: (whom,)}, "its own wait is over, and nobody else's"


def test_who_waits_to_reply_to_several_is_woken_by_room_for_one_of_them_or_by_what_comes() -> None:
    scene = Scene(2)
    scene.fill()
    whom, other = (one.identity for one in scene.lanes)
    scene.room.wait_for_answers((whom, other), lambda: False, NOW)
    assert scene.expecting.asked == 1 and not scene.expecting.room_for_replies and not scene.room.asked
    known: list[object] = []

    def one_takes_something() -> None:
        known.extend(scene.expecting.room_for_replies.values())
        scene.takes(scene.lanes[1], 4)

    meanwhile(one_takes_something)
    scene.room.wait_for_answers((whom, other), lambda: False, LATER)
    assert known == [{whom, other}]
    scene.room.wait_for_answers((whom,), lambda: True, LATER)


def test_who_listens_is_told_of_room_for_replies_until_he_does_not() -> None:
    scene = Scene()
    told: list[str] = []

    def tell() -> None:
        told.append("room")

    scene.room.listen(tell)
    scene.fill()
    scene.takes(scene.lanes[0], 0)
    assert told == [], "there is none yet"
    scene.takes(scene.lanes[0], 1)
    assert told == ["room"]
    scene.room.unlisten(tell)
    scene.room.unlisten(tell)
    scene.takes(scene.lanes[0], 1)
    assert told == ["room"] and not scene.room.asked


def test_several_may_begin_and_cease_to_listen_at_the_same_time() -> None:
    """As two proxies do that share their front."""
    scene = Scene()
    told: list[str] = []
    interval = sys.getswitchinterval()

    def come_and_go() -> None:
        def tell() -> None:
            told.append("who has gone")

        for _ in range(5000):
            scene.room.listen(tell)
            scene.room.unlisten(tell)

    try:
        sys.setswitchinterval(1e-6)
        others = [Background(come_and_go) for _ in range(3)]
        scene.room.listen(lambda: told.append("who stays"))
        for other in others:
            other.result()
    finally:
        sys.setswitchinterval(interval)
    scene.room.asked.add("somebody")
    scene.takes(scene.lanes[0], 0)
    assert told == ["who stays"]
