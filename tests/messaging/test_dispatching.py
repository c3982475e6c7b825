"""Who writes what has just been queued."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support.lanes import lane
from support.routers import message
from support.servers import said
from support.stand_ins import Loop

from netmsg.messaging.choices import SendMode
from netmsg.messaging.dispatching import BURST, QUIET, QUIET_PEERS, Dispatch
from netmsg.messaging.kept import Limits
from netmsg.messaging.lane import Lane
from netmsg.messaging.life import Life
from netmsg.messaging.routing import Router


class Peer:
    """One that writes all that it has, unless it is blocked."""

    def __init__(self, number: int) -> None:
        self.lane = lane(b"%d" % number)
        self.lane.owner = self
        self.queue = self.lane.queue
        self.direct = True
        self.blocked = False
        self.fails = False
        self.crashes: list[Exception] = []
        self.worked = 0
        self.written: list[str] = []

    def write_burst(self) -> None:
        self._write("sender")

    def _crashed(self, error: Exception) -> None:
        self.crashes.append(error)

    def on_work(self) -> None:
        self.worked += 1
        if self.fails:
            raise ArithmeticError("on writing")
        self._write("network thread")

    def _write(self, who: str) -> None:
        if not self.blocked:
            self.written += [who] * len(self.queue)
            self.queue.clear()

    def bursting(self) -> bool:
        return False


class Scene:
    def __init__(self, peers: int = 1, mode: SendMode = SendMode.ROUNDROBIN) -> None:
        self.loop = Loop()
        self.life = Life()
        self.router = Router(mode, Limits(10 * BURST, 1 << 20))
        self.peers: list[Any] = [Peer(number) for number in range(peers)]
        for peer in self.peers:
            self.router.join(peer.lane)
        self.made: list[Any] = []
        room: Any = SimpleNamespace(asked=set(), made=self.made.append)
        self.room = room
        self.given_back: list[Lane] = []
        self.dispatch = Dispatch(self.life, self.loop.io, self.router, room, self.given_back.append)

    def send(self, count: int = 1, to: int = 0) -> None:
        for _ in range(count):
            self.peers[to].queue.append(message(1))
            self.dispatch.kick(self.peers[to])

    def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self.router.publish(message(1), self.router.ring)
            self.dispatch.kick_all()

    def busy(self) -> None:
        """Something has been sent just now."""
        self.dispatch.last_send = self.loop.clock.now

    @property
    def at_work(self) -> set[Any]:
        return set(self.loop.io.work)


def test_after_a_while_of_quiet_the_sender_writes() -> None:
    scene = Scene()
    scene.busy()
    scene.loop.clock.now += 1.1 * QUIET
    scene.send()
    assert scene.peers[0].written == ["sender"] and not scene.at_work


def test_otherwise_the_network_thread_does_and_is_woken_if_it_sleeps() -> None:
    scene = Scene()
    scene.busy()
    scene.send()
    assert scene.at_work == {scene.peers[0]} and scene.loop.poller.woken == 0
    scene.loop.settle()
    assert scene.peers[0].written == ["network thread"]
    scene.busy()
    scene.loop.io.asleep = True
    scene.send()
    assert scene.loop.poller.woken == 1


def test_an_answer_is_written_by_its_sender_however_busy_it_is() -> None:
    scene = Scene()
    scene.busy()
    scene.dispatch.answering()
    scene.send()
    assert scene.peers[0].written == ["sender"]


def test_what_the_kernel_does_not_take_is_left_to_the_network_thread() -> None:
    scene = Scene()
    scene.peers[0].blocked = True
    scene.send()
    assert scene.at_work == {scene.peers[0]}


def test_nobody_writes_by_himself_to_one_under_tls() -> None:
    scene = Scene()
    scene.peers[0].direct = False
    scene.send()
    assert scene.peers[0].written == [] and scene.at_work == {scene.peers[0]}


def test_when_much_has_gathered_the_sender_writes() -> None:
    scene = Scene()
    scene.busy()
    scene.send(BURST - 1)
    assert scene.peers[0].written == []
    scene.send()
    assert scene.peers[0].written == ["sender"] * BURST


def test_what_came_into_the_queue_of_one_that_is_gone_is_given_back() -> None:
    scene = Scene()
    scene.busy()
    scene.peers[0].lane.dead = True
    scene.send()
    assert scene.given_back == [scene.peers[0].lane] and not scene.at_work


@pytest.mark.parametrize("asked", [set(), {"somebody"}], ids=["nobody", "somebody"])
def test_whoever_asks_is_told_of_room(asked: set[object]) -> None:
    scene = Scene()
    scene.room.asked |= asked
    scene.send()
    assert len(scene.made) == len(asked)
    scene.busy()
    scene.send(BURST)
    assert len(scene.made) == 2 * len(asked)


# To all


def test_a_publisher_writes_to_its_few_peers_after_a_while_of_quiet() -> None:
    scene = Scene(QUIET_PEERS, SendMode.PUBLISH)
    scene.publish()
    assert all(peer.written == ["sender"] for peer in scene.peers) and not scene.at_work


def test_and_leaves_many_to_the_network_thread() -> None:
    scene = Scene(QUIET_PEERS + 1, SendMode.PUBLISH)
    scene.publish()
    assert len(scene.at_work) == 1, "all of them together are one piece of work"
    scene.loop.settle()
    assert all(peer.written == ["network thread"] for peer in scene.peers)


def test_where_much_has_gathered_the_publisher_writes_and_the_network_thread_waits() -> None:
    scene = Scene(2, SendMode.PUBLISH)
    scene.room.asked.add("somebody")
    scene.busy()
    scene.publish(BURST)
    assert all(peer.written == ["sender"] * BURST for peer in scene.peers) and scene.made == scene.peers
    (work,) = scene.at_work
    assert work.bursting() and not work.bursting()


def test_where_one_takes_nothing_the_network_thread_sees_to_it() -> None:
    scene = Scene(2, SendMode.PUBLISH)
    scene.peers[1].blocked = True
    scene.publish()
    assert scene.peers[0].written == ["sender"] and len(scene.at_work) == 1


def test_writing_that_fails_is_the_end_of_that_peer_and_of_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(QUIET_PEERS + 1, SendMode.PUBLISH)
    failing, *others = scene.peers
    failing.fails = True
    scene.publish()
    scene.loop.settle()
    assert [type(error) for error in failing.crashes] == [ArithmeticError]
    assert all(peer.written == ["network thread"] for peer in others)
    said(caplog)


@pytest.mark.parametrize("mode", SendMode)
def test_whoever_has_written_by_itself_says_so_to_who_waits_for_the_end(mode: SendMode) -> None:
    scene = Scene(1, mode)
    peer, = scene.peers
    write_burst = peer.write_burst

    def meanwhile() -> None:
        write_burst()
        scene.life.begin_closing()

    peer.write_burst = meanwhile
    scene.publish() if mode is SendMode.PUBLISH else scene.send()
    assert peer.written == ["sender"]
    before = peer.worked
    scene.loop.settle()
    assert peer.worked == before + 1
