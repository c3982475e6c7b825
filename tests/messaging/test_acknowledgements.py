"""What is sent again, what is given up on, and who waits for a receipt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support.lanes import lane, send_all
from support.servers import said
from support.stand_ins import HandWaiters, Loop, settings

from netmsg.errors import ForkedError, UndeliveredError
from netmsg.messaging import acknowledgements
from netmsg.messaging.acknowledgements import Acknowledgements
from netmsg.messaging.choices import SendMode
from netmsg.messaging.connections import Connections
from netmsg.messaging.events import Event, EventQueue, Undelivered
from netmsg.messaging.expecting import Expecting
from netmsg.messaging.kept import Limits
from netmsg.messaging.life import Life
from netmsg.messaging.losses import Losses
from netmsg.messaging.receipts import Receipt
from netmsg.messaging.requests import Requests
from netmsg.messaging.routing import Router
from netmsg.wire.envelope import payload_of, reliable_frame


class Peer:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Scene:
    """One peer that acknowledges nothing, and another without anything to acknowledge."""

    def __init__(self, **changes: Any) -> None:
        self.loop = Loop()
        self.life = Life()
        self.losses = Losses()
        self.told: list[Event] = []
        self.connections = Connections()
        self.router = Router(SendMode.ROUNDROBIN, Limits(100, 1 << 20), reliable=True)
        self.expecting = Expecting(self.life, self.loop.io, self.connections, self.router, Requests())
        self.acks = Acknowledgements(settings(**changes), self.life, self.loop.io, EventQueue(self.told.append),
                                     self.losses, self.router, self.expecting, lambda: "; nobody answers")
        self.resumed: list[bytes] = []
        self.peer, self.other = self.joins(b"a"), self.joins(b"b")
        self.lane = self.peer.lane

    def joins(self, identity: bytes) -> Any:
        there = lane(identity, window=3)
        self.router.join(there)
        peer: Any = Peer(lane=there, identity=identity, address=identity.decode(), paused=True, retired="",
                         following=False, resume_safely=lambda: self.resumed.append(identity))
        self.connections.open[peer] = None
        return peer

    def send(self, payload: bytes) -> Receipt:
        """To the one, or to nobody yet."""
        receipt = Receipt(self.acks, self.acks.ledger.new_id())
        self.acks.ledger.outstanding[receipt.message_id] = receipt
        self.router.place(reliable_frame(receipt.message_id, payload, 1000, b"a"), b"a")
        return receipt

    def settle(self, receipt: Receipt) -> None:
        self.acks.acknowledged(self.lane, [receipt.message_id])
        self.acks.wake_all()

    def pass_time(self, seconds: int) -> tuple[list[bytes], list[bytes]]:
        """Look now and then: what is queued again, and what is given up on."""
        hopeless: list[bytes] = []
        for _ in range(seconds):
            self.loop.clock.now += 1.0
            lanes, given_up = self.acks.send_due(self.lane, self.loop.clock.now)
            assert bool(lanes) == bool(self.lane.queue or given_up)
            hopeless += given_up
            if lanes:
                break
        return [payload_of(message) for message in self.lane.queue], hopeless


@pytest.fixture(autouse=True)
def waiting_is_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledgements, "Waiters", HandWaiters)
    monkeypatch.setattr(HandWaiters, "meanwhile", HandWaiters.meanwhile)


def meanwhile(happens: Any) -> None:
    HandWaiters.meanwhile = staticmethod(happens)


def test_a_receipt_is_waited_for() -> None:
    scene = Scene()
    receipt = scene.send(b"0")
    meanwhile(lambda: scene.settle(receipt))
    receipt.wait(timeout=1)
    assert receipt.acked and scene.expecting.acknowledgements == 0
    receipt.wait(timeout=1)


def test_up_to_a_time_and_then_it_is_said_what_is_wrong() -> None:
    scene = Scene()
    with pytest.raises(TimeoutError, match="; nobody answers"):
        scene.send(b"0").wait(timeout=0)
    assert scene.expecting.acknowledgements == 0


def test_who_waits_has_those_read_on_that_have_something_to_acknowledge() -> None:
    scene = Scene()
    receipt = scene.send(b"0")
    expected: list[bool] = []

    def look() -> None:
        scene.loop.settle()
        expected.extend(map(scene.expecting.expects, (scene.peer, scene.other)))

    meanwhile(look)
    with pytest.raises(TimeoutError):
        receipt.wait(timeout=0)
    assert scene.resumed == [b"a"] and expected == [True, False]
    assert not scene.expecting.expects(scene.peer), "nobody waits any more"


@pytest.mark.parametrize("which", ["retired", "following"])
def test_they_may_come_on_another_connection_to_the_same_peer(which: str) -> None:
    scene = Scene()
    scene.send(b"0")
    another: Any = SimpleNamespace(lane=lane(b"a"), identity=b"a", retired="", following=False)
    scene.expecting.acknowledgements += 1
    assert not scene.expecting.expects(another)
    setattr(another, which, "yes")
    assert scene.expecting.expects(another)


def test_what_has_not_been_acknowledged_for_too_long_is_queued_again() -> None:
    scene = Scene(resend_after=5.0)
    scene.send(b"0")
    assert send_all(scene.lane)
    assert scene.pass_time(4) == ([], [])
    assert scene.pass_time(4) == ([b"0"], []) and scene.acks.ledger.resent == 1


def test_and_given_up_on_when_that_has_been_done_as_often_as_it_may() -> None:
    scene = Scene(resend_after=5.0, max_resends=0)
    *receipts, another = [scene.send(b"%d" % number) for number in range(4)]
    send_all(scene.lane)
    queued, hopeless = scene.pass_time(10)
    assert hopeless == [receipt.message_id for receipt in receipts]
    assert queued == [b"3"], "there is room in the window for the next"
    scene.acks.tell_given_up(scene.peer, hopeless)
    assert scene.losses.undelivered == 3 and [type(event) for event in scene.told] == [Undelivered] * 3
    assert [receipt.failed for receipt in (*receipts, another)] == [True, True, True, False]


def test_whoever_waits_for_it_is_told() -> None:
    scene = Scene(max_resends=0)
    receipt = scene.send(b"0")
    send_all(scene.lane)

    def give_up() -> None:
        scene.acks.tell_given_up(scene.peer, scene.acks.count_resends(scene.lane))

    meanwhile(give_up)
    with pytest.raises(UndeliveredError, match="not acknowledged after 0 resends"):
        receipt.wait(timeout=1)


def test_what_a_departing_peer_was_sent_counts_as_sent_again_and_what_it_was_not_does_not() -> None:
    scene = Scene(max_resends=1)
    scene.send(b"0")
    send_all(scene.lane)
    scene.send(b"1")
    assert scene.acks.count_resends(scene.lane) == [] and scene.acks.ledger.resent == 1
    assert len(scene.acks.count_resends(scene.lane)) == 1 and len(scene.lane.unacked) == 1


def test_a_step_that_fails_is_the_end_of_the_søcket(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    crashes: list[BaseException] = []
    scene.life.on_crash = crashes.append
    receipt = scene.send(b"0")
    del scene.peer.resume_safely
    meanwhile(scene.loop.settle)
    with pytest.raises(TimeoutError):
        receipt.wait(timeout=0)
    assert [type(error) for error in crashes] == [AttributeError]
    said(caplog)


def test_in_a_forked_child_nothing_is_waited_for() -> None:
    scene = Scene()
    receipt = scene.send(b"0")
    scene.life.fork()
    with pytest.raises(ForkedError):
        receipt.wait(timeout=1)
