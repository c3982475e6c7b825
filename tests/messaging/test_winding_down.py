"""The way of a Søcket from open to closed, by itself: peers, endpoints and the two halves are stand-ins, and nobody
ever waits."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from support.servers import said
from support.stand_ins import HandWaiters, Loop

from netmsg.deadline import Deadline
from netmsg.errors import ClosedError, ForkedError
from netmsg.messaging import closing as closing_module
from netmsg.messaging import connections as connections_module
from netmsg.messaging.choices import SendMode
from netmsg.messaging.closing import Closing
from netmsg.messaging.connections import Connections
from netmsg.messaging.events import EventQueue
from netmsg.messaging.kept import Limits, Mark, Published
from netmsg.messaging.lane import Lane
from netmsg.messaging.life import Life, State
from netmsg.messaging.places import Places
from netmsg.messaging.routing import Router
from netmsg.wire.envelope import data_frame, reliable_frame

A, B = b"a" * 16, b"b" * 16
FRAME = data_frame(b"message")
INF = float("inf")


class Peer:
    """One that takes its leave, or does not, when the test says so."""

    def __init__(self, scene: Scene, identity: bytes, endpoint: Any) -> None:
        self.scene = scene
        self.identity = identity
        self.endpoint = endpoint
        self.lane = Lane(identity, nullcontext(), self, dialled=endpoint)
        self.closing = False
        self.done: list[str] = []

    def finish(self) -> None:
        self.scene.order.append("finish")
        self.closing = True

    def resume(self) -> None:
        self.done.append("resume")

    def on_work(self) -> None:
        self.done.append("write")
        self.lane.control.clear()

    def takes_all(self) -> None:
        """What is queued is written, and acknowledged."""
        self.lane.queue.clear()
        self.lane.unacked.clear()
        self.scene.closing.finish_peer(self)  # type: ignore[arg-type]

    def close(self, reason: str, error: BaseException | None) -> None:
        self.done.append(f"close: {reason}")
        peer: Any = self
        self.scene.connections.open.pop(peer, None)
        self.scene.connections.handshaking.pop(peer, None)
        self.scene.closing.left(peer)


class Endpoint:
    def __init__(self, leads_to: bytes = b"") -> None:
        self.leads_to = leads_to
        self.peer: Any = None
        self.connecting = False
        self.took_leave = False
        self.done: list[str] = []

    def stop(self) -> None:
        self.done.append("stop")

    def hurry(self) -> None:
        self.done.append("hurry")

    def revive(self) -> None:
        self.done.append("revive")


class Acceptor:
    closed = False

    def close(self) -> None:
        self.closed = True


class Callbacks:
    closed = joined = False

    def close(self) -> None:
        self.closed = True

    def join(self, timeout: float) -> None:
        self.joined = True


class Inbox:
    closed = released = False

    def close(self) -> None:
        self.closed = True

    def release(self) -> tuple[Any, ...]:
        self.released = True
        return ()


class Scene:
    """It is both halves, and the reporter, too."""

    is_noting = False

    def __init__(self, linger: float = 5.0) -> None:
        self.loop = Loop()
        self.users: set[Any] = set()
        self.detached = 0
        io: Any = self.loop.io
        io.attach, io.detach, io.join = self.users.add, self.detach, lambda timeout: None
        self.life = Life()
        self.events = EventQueue()
        self.places = Places()
        self.connections = Connections()
        self.router = Router(SendMode.ROUNDROBIN, Limits(10, 1 << 20))
        self.fast_ring: Any = ("somebody",)
        self.inbox = Inbox()
        self.callbacks = Callbacks()
        self.order: list[str] = []
        self.in_line: list[str] = []
        self.files: list[str] = []
        self.reported = False
        self.given_up: list[Any] = []
        half: Any = self
        reporter: Any = SimpleNamespace(close=self.close_reporter)
        callbacks: Any = (self.callbacks,)
        self.closing = Closing(linger, self.life, io, self.events, reporter, self.places, self.connections, half, half,
                               half, callbacks)

    # The neighbours

    def take_lines(self) -> list[Any]:
        return self.in_line

    def send_past_marks(self, replies: list[Any]) -> None:
        self.order += replies

    def detach(self, user: Any) -> None:
        self.detached += 1
        self.users.discard(user)

    def when_noted(self, tell: Callable[[], None]) -> None:
        self.noted = tell

    def close_file(self) -> None:
        self.files.append("close")

    def join_file(self, timeout: float) -> None:
        self.files.append("join")

    def close_reporter(self) -> None:
        self.reported = True

    def wake_all(self) -> None:
        self.order.append("wake senders")

    def quiesce(self) -> None:
        self.order.append("quiesce")

    def take_all(self, peers: Any) -> int:
        self.given_up = [*self.router.take_all(), *(frame for peer in peers for frame in peer.lane.queue)]
        return len(self.given_up)

    def stop_lending(self) -> None:
        self.order.append("stop lending")

    def acknowledge_taken(self) -> None:
        self.order.append("acknowledge")

    # What the test has happen

    def peer(self, identity: bytes = A, *frames: Any, endpoint: Endpoint | None = None) -> Any:
        """One that is connected, and has been queued something."""
        self.closing.attach()
        peer: Any = Peer(self, identity, endpoint)
        peer.lane.queue += frames
        self.connections.open[peer] = None
        if endpoint is not None:
            endpoint.peer, endpoint.leads_to = peer, identity
            self.add(endpoint)
        return peer

    def add(self, endpoint: Any) -> Any:
        self.closing.attach()
        self.places.endpoints.append(endpoint)
        return endpoint

    def listen(self) -> Any:
        self.closing.attach()
        acceptor: Any = Acceptor()
        self.places.acceptors.append(acceptor)
        return acceptor

    def begin(self, linger: float = INF) -> None:
        self.closing.begin(linger)
        self.loop.settle()

    @property
    def is_over(self) -> bool:
        return self.life.closed and self.closing not in self.users


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scene]:
    monkeypatch.setattr(closing_module, "Waiters", HandWaiters)
    monkeypatch.setattr(connections_module, "Waiters", HandWaiters)
    monkeypatch.setattr(closing_module, "aside", lambda step: step())
    monkeypatch.setattr(closing_module, "_not_closed", weakref.WeakSet())
    monkeypatch.setattr(HandWaiters, "meanwhile", HandWaiters.meanwhile)
    monkeypatch.setattr(HandWaiters, "in_vain", 0)
    return Scene


@pytest.fixture
def scene(scenes: Callable[..., Scene]) -> Scene:
    return scenes()


def meanwhile(happen: Callable[[], object]) -> None:
    """While somebody waits for the end."""
    HandWaiters.meanwhile = staticmethod(happen)  # type: ignore[assignment]


# Where there is no network thread


def test_what_was_never_connected_is_closed_at_once(scene: Scene) -> None:
    assert scene.closing.close(INF) == 0 and HandWaiters.in_vain == 0
    assert scene.life.state is State.CLOSED and scene.inbox.closed and scene.reported and scene.callbacks.joined
    assert scene.events.take(0) is None and scene.fast_ring == ()


def test_what_was_sent_to_nobody_is_given_up_and_counted(scene: Scene) -> None:
    scene.router.waiting.add(FRAME)
    assert scene.closing.close(INF) == 1 and scene.given_up == [FRAME]


def test_to_close_again_changes_nothing(scene: Scene) -> None:
    scene.router.waiting.add(FRAME)
    assert scene.closing.close(0.0) == 1
    scene.order.clear()
    assert scene.closing.close(5.0) == 1 and scene.life.state is State.CLOSED


def test_in_the_midst_of_something_that_was_interrupted_another_thread_ends_it(
        scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Callable[[], None]] = []
    monkeypatch.setattr(closing_module, "interrupts", lambda folder: True)
    monkeypatch.setattr(closing_module, "_thread",
                        SimpleNamespace(start_new_thread=lambda function, arguments: started.append(function)))
    assert scene.closing.close(5.0) == 0 and not scene.life.closed, "nobody waits here"
    started[0]()
    assert scene.life.closed


def test_where_no_thread_can_be_started_any_more_it_is_ended_here(scene: Scene,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    def aside(step: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(closing_module, "aside", aside)
    scene.closing.close(5.0)
    assert scene.life.closed


def test_a_closed_one_is_attached_to_nothing(scene: Scene) -> None:
    scene.closing.close(0.0)
    with pytest.raises(ClosedError):
        scene.closing.attach()
    assert not scene.users


def test_it_is_attached_once(scene: Scene) -> None:
    scene.closing.attach()
    scene.users.clear()
    scene.closing.attach()
    assert not scene.users


@pytest.mark.parametrize("first, attached", [("attach", 1), ("close", 0)])
def test_whoever_comes_second_to_attach_it_finds_that_done(scene: Scene, monkeypatch: pytest.MonkeyPatch, first: str,
                                                           attached: int) -> None:
    others = [scene.closing.attach if first == "attach" else lambda: scene.closing.close(0.0)]
    users: list[Any] = []
    io: Any = scene.loop.io
    io.attach = users.append

    def aside(step: Callable[[], None]) -> None:
        if others:
            others.pop()()
        step()

    monkeypatch.setattr(closing_module, "aside", aside)
    monkeypatch.setattr(closing_module, "interrupts", lambda folder: False)  # it is another thread
    if first == "attach":
        scene.closing.attach()
    else:
        with pytest.raises(ClosedError):
            scene.closing.attach()
    assert len(users) == attached


def test_closed_while_it_is_being_attached_it_ends_on_the_network_thread(scene: Scene,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    io: Any = scene.loop.io

    def attach(user: Any) -> None:
        scene.users.add(user)
        scene.life.begin_closing()  # and finds that nothing is attached

    io.attach = attach
    with pytest.raises(ClosedError):
        scene.closing.attach()
    scene.loop.settle()
    assert scene.is_over and scene.detached == 1


# Without lingering


def test_with_no_linger_everything_ends_at_once_and_what_was_left_is_counted(scene: Scene) -> None:
    peer, acceptor, way = scene.peer(A, FRAME, FRAME), scene.listen(), scene.add(Endpoint())
    scene.router.waiting.add(FRAME)
    meanwhile(scene.loop.settle)
    assert scene.closing.close(0.0) == 3 and HandWaiters.in_vain == 0
    assert peer.done[-1] == "close: closed" and acceptor.closed and "stop" in way.done
    assert scene.is_over and scene.inbox.released and scene.callbacks.closed


def test_acknowledgements_of_what_was_taken_go_out_as_far_as_that_goes_at_once(scene: Scene) -> None:
    peer, other = scene.peer(A, FRAME), scene.peer(B, FRAME)
    peer.lane.add_control(b"ack")
    scene.begin(0.0)
    assert "acknowledge" in scene.order
    assert "write" in peer.done and "write" not in other.done


def test_the_end_is_told_when_the_sockets_are_closed(scene: Scene) -> None:
    """Who has closed may bind the same address at once."""
    scene.peer()
    sockets: list[str] = []
    scene.closing.begin(0.0)

    def end() -> None:
        scene.loop.io.close_afterwards(lambda: sockets.append("closed"))
        scene.loop.settle()

    meanwhile(end)
    scene.closing.close(0.0)
    assert sockets == ["closed"]


# Turning away


def test_from_the_first_moment_on_nobody_sends_or_receives(scene: Scene) -> None:
    scene.peer(A, FRAME)
    changed: Any = scene.connections.changed
    scene.closing.begin(INF)
    assert scene.life.over and scene.fast_ring == () and scene.inbox.closed
    assert scene.order == ["wake senders"] and changed.woken == 1 and not scene.life.closed


def test_what_became_of_the_short_way_meanwhile_is_undone_on_the_network_thread(scene: Scene) -> None:
    scene.peer(A, FRAME)
    scene.closing.begin(INF)
    scene.fast_ring = ("somebody",)
    scene.loop.settle()
    assert scene.fast_ring == ()


# Lingering


def test_it_ends_when_everybody_has_taken_its_leave(scene: Scene) -> None:
    a, b = scene.peer(A, FRAME), scene.peer(B)
    scene.begin()
    assert b.closing and not a.closing
    a.takes_all()
    assert a.closing and not scene.is_over
    a.close("closed", None)
    assert not scene.is_over
    b.close("closed", None)
    scene.loop.settle()
    assert scene.is_over and scene.given_up == []


def test_where_nobody_is_there_it_ends_at_once(scene: Scene) -> None:
    acceptor, way = scene.listen(), scene.add(Endpoint())
    scene.begin()
    assert scene.is_over and acceptor.closed and "stop" in way.done


def test_what_has_been_taken_is_acknowledged_before_anybody_takes_its_leave(scene: Scene) -> None:
    scene.peer()
    scene.begin()
    assert scene.order.index("stop lending") < scene.order.index("acknowledge") < scene.order.index("finish")


def test_what_stands_in_line_is_sent_before_anybody_takes_its_leave_and_after_that_nothing_is_placed(
        scene: Scene) -> None:
    scene.peer()
    scene.in_line.append("reply")
    scene.begin()
    assert scene.order.index("quiesce") < scene.order.index("reply") < scene.order.index("finish")


def test_nobody_takes_its_leave_before_that(scene: Scene) -> None:
    peer = scene.peer()
    scene.closing.begin(INF)
    scene.closing.finish_peer(peer)
    assert not peer.closing


def test_who_has_not_acknowledged_everything_is_waited_for(scene: Scene) -> None:
    peer = scene.peer()
    peer.lane.unacked[b"id"] = 1, FRAME
    scene.begin()
    assert not peer.closing and "resume" in peer.done
    peer.takes_all()
    assert peer.closing


def test_leave_is_taken_once(scene: Scene) -> None:
    scene.peer()
    scene.begin()
    scene.closing.finish_peers()
    assert scene.order.count("finish") == 1


def test_when_the_time_is_over_the_rest_is_given_up(scene: Scene) -> None:
    peer = scene.peer(A, FRAME)
    scene.begin(3.0)
    scene.loop.pass_time(2.9)
    assert not scene.is_over
    scene.loop.pass_time(0.2)
    assert scene.is_over and scene.given_up == [FRAME] and peer.done[-1] == "close: closed"


def test_whoever_closes_again_may_shorten_the_time(scene: Scene) -> None:
    scene.peer(A, FRAME)
    scene.begin()
    scene.begin(2.0)
    scene.begin(60.0)
    scene.loop.pass_time(2.1)
    assert scene.is_over
    assert scene.loop.delays == [], "a timer would keep all of it alive"


def test_who_interrupts_the_lingering_has_lingered_enough(scene: Scene) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    scene.peer(A, FRAME)
    meanwhile(interrupt)
    with pytest.raises(KeyboardInterrupt):
        scene.closing.close(INF)
    scene.loop.settle()
    assert scene.is_over


def test_on_the_network_thread_nobody_waits(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(scene.loop.io), "is_current", True)
    scene.peer(A, FRAME)
    assert scene.closing.close(INF) == 0 and not scene.is_over


def test_who_comes_when_it_is_over_only_lets_go(scene: Scene) -> None:
    scene.peer()
    scene.begin(0.0)
    scene.begin(5.0)
    assert scene.is_over and scene.loop.delays == []


# Whom messages still wait for


def test_while_messages_wait_for_anybody_newcomers_are_let_in_and_endpoints_dialled(scene: Scene) -> None:
    acceptor, way = scene.listen(), scene.add(Endpoint())
    stranger = scene.peer(b"")
    scene.connections.open.clear()
    scene.connections.handshaking[stranger] = None
    scene.router.waiting.add(FRAME)
    scene.begin()
    assert not acceptor.closed and way.done == ["hurry"] and stranger.done == [] and not scene.is_over
    assert scene.closing.wants(way)


def test_when_none_waits_any_more_they_are_turned_away(scene: Scene) -> None:
    acceptor, way = scene.listen(), scene.add(Endpoint())
    stranger, peer = scene.peer(b""), scene.peer(A)
    scene.connections.open.pop(stranger, None)
    scene.connections.handshaking[stranger] = None
    scene.router.waiting.add(FRAME)
    scene.begin()
    assert not peer.closing, "it may have to take it"
    peer.lane.queue.append(scene.router.waiting.drop_oldest())
    scene.closing.close_places()
    assert not acceptor.closed, "it may break, and give it back"
    peer.takes_all()
    scene.closing.check_closed()
    assert acceptor.closed and way.done == ["hurry", "stop"] and stranger.done == ["close: closed"]
    assert peer.closing and not scene.closing.wants(way)


def test_an_endpoint_that_is_connected_is_not_stopped_and_one_in_its_handshake_is(scene: Scene) -> None:
    connected, connecting = Endpoint(), Endpoint()
    scene.peer(A, endpoint=connected)
    connecting.peer, connecting.connecting = object(), True
    scene.add(connecting)
    scene.begin()
    assert "stop" not in connected.done and "stop" in connecting.done


def test_one_that_was_idle_takes_its_leave_when_the_last_message_has_found_its_way(scene: Scene) -> None:
    idle, busy = scene.peer(A), scene.peer(B)
    scene.router.waiting.add(FRAME)
    scene.begin()
    assert not idle.closing
    busy.lane.queue.append(scene.router.waiting.drop_oldest())
    scene.closing.close_places()
    assert not idle.closing
    busy.takes_all()
    scene.closing.check_closed()
    assert idle.closing


def test_what_waits_for_one_peer_keeps_no_other(scene: Scene) -> None:
    a, b = scene.peer(A), scene.peer(B)
    scene.router.parked.add(A, reliable_frame(b"i" * 16, b"message"))
    scene.begin()
    assert b.closing and not a.closing


def test_what_is_kept_for_an_endpoint_keeps_who_it_may_lead_to(scene: Scene) -> None:
    mine, other, unknown = Endpoint(), Endpoint(B), Endpoint()
    peer, b, stranger = scene.peer(A, endpoint=mine), scene.peer(B), scene.peer(b"c" * 16)
    scene.add(other)
    scene.add(unknown)
    kept = Published()
    kept.keep(FRAME, Mark(b"gone", 0, 0))
    scene.router.copies[other] = kept
    scene.begin()
    assert peer.closing and stranger.closing and not b.closing
    assert scene.closing.has_for(B, None) and not scene.closing.has_for(A, mine)
    scene.router.copies[unknown] = kept
    assert scene.closing.has_for(A, mine), "which may lead to anybody"


def test_whoever_was_said_goodbye_to_is_not_dialled_again_unless_there_is_something_for_it(scene: Scene) -> None:
    way = Endpoint()
    scene.peer(A, endpoint=way)
    scene.router.parked.add(B, reliable_frame(b"i" * 16, b"message"))
    scene.begin()
    assert way.took_leave and not scene.closing.wants(way)  # type: ignore[arg-type]
    scene.router.parked.add(A, reliable_frame(b"j" * 16, b"message"))
    assert scene.closing.wants(way)  # type: ignore[arg-type]


def test_who_was_said_goodbye_to_may_take_what_another_hands_back(scene: Scene) -> None:
    way = Endpoint()
    a, b = scene.peer(A, endpoint=way), scene.peer(B, FRAME)
    scene.begin()
    assert a.closing and not b.closing
    scene.router.homeless.add(reliable_frame(b"i" * 16, b"message"), {B})
    scene.closing.look_for_others()
    assert way.done[-1] == "revive" and scene.closing.wants(way)  # type: ignore[arg-type]
    b.takes_all()
    assert not b.closing, "if nobody comes it gets it once more"
    scene.router.homeless.remove(b"i" * 16)
    scene.closing.finish_peers()
    assert b.closing


def test_who_was_said_goodbye_to_may_take_what_another_has_left(scene: Scene) -> None:
    way = Endpoint()
    a, b = scene.peer(A, endpoint=way), scene.peer(B, FRAME)
    scene.begin()
    assert a.closing
    a.close("closed", None)
    assert "revive" not in way.done
    scene.router.waiting.put_back([FRAME])
    b.close("the connection broke", None)
    assert way.done[-1] == "revive" and not scene.is_over
    scene.router.waiting.drop_oldest()
    scene.closing.check_closed()
    scene.loop.settle()
    assert scene.is_over


def test_what_is_being_sent_the_long_way_is_placed_before_it_is_seen_whether_anything_waits(scene: Scene) -> None:
    scene.listen()
    peer = scene.peer()
    scene.quiesce = lambda: scene.router.waiting.put_back([FRAME])  # type: ignore[method-assign]
    scene.begin()
    assert not scene.is_over and not peer.closing


def test_what_comes_back_once_nobody_is_let_in_any_more_is_given_up(scene: Scene) -> None:
    acceptor = scene.listen()
    peer = scene.peer()
    scene.begin()
    assert acceptor.closed and peer.closing
    scene.router.waiting.put_back([FRAME])  # by the short way, which looks at nothing before
    peer.close("closed", None)
    scene.loop.settle()
    assert scene.is_over and scene.given_up == [FRAME]


def test_what_waits_where_nobody_can_come_is_not_waited_for(scene: Scene) -> None:
    peer = scene.peer(A, FRAME)
    scene.begin()
    scene.router.waiting.put_back([FRAME])
    peer.lane.queue.clear()
    peer.close("the connection broke", None)
    scene.loop.settle()
    assert scene.is_over and scene.given_up == [FRAME]


def test_thousands_that_are_turned_away_are_so_without_a_deep_stack(scene: Scene) -> None:
    """Each of them comes back to the same place."""
    scene.listen()
    for number in range(3000):
        stranger = scene.peer(b"%016d" % number)
        scene.connections.open.pop(stranger, None)
        scene.connections.handshaking[stranger] = None
    scene.begin()
    assert not scene.connections.handshaking and scene.is_over


# Failure


def test_a_step_that_fails_is_the_end_and_the_cause_of_every_error_from_then_on(scene: Scene) -> None:
    peer = scene.peer(A, FRAME)
    error = ArithmeticError("a step")
    try:
        raise error
    except ArithmeticError:
        scene.life.on_crash(error)
    scene.loop.settle()
    assert scene.life.state is State.FAILED and scene.is_over and peer.done[-1] == "close: closed"
    assert scene.given_up == [FRAME] and scene.inbox.closed
    with pytest.raises(ClosedError) as raised:
        scene.life.check_open()
    assert raised.value.__cause__ is error and error.__traceback__ is None
    assert scene.closing.close(5.0) == 1, "what has been given up is told"


def test_a_step_of_its_own_that_fails_does_the_same(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    peer = scene.peer()
    peer.resume = None
    scene.begin()
    assert scene.life.state is State.FAILED and scene.is_over
    said(caplog)


def test_when_the_network_thread_is_closed_it_is_over(scene: Scene) -> None:
    scene.peer(A, FRAME)
    scene.closing._io_failed(None)
    scene.loop.settle()
    assert scene.life.state is State.CLOSED and scene.is_over


@pytest.mark.parametrize("linger, timeout, waited", [(5.0, None, 5.0), (5.0, 2.0, 2.0), (1.0, 2.0, 1.0)])
def test_when_the_network_thread_is_to_be_closed_it_lingers_as_long_as_that_allows(
        scenes: Callable[..., Scene], linger: float, timeout: float | None, waited: float) -> None:
    scene = scenes(linger)
    scene.peer(A, FRAME)
    scene.closing._io_closing(Deadline(timeout))
    scene.loop.settle()
    assert scene.loop.delays == [pytest.approx(waited, abs=0.5)]


# In a forked child


def test_a_forked_child_closes_nothing(scene: Scene) -> None:
    peer = scene.peer(A, FRAME)
    scene.life.fork()
    assert scene.closing.close(5.0) == 0
    assert scene.order == [] and peer.done == [] and not scene.inbox.closed and not scene.loop.io.calls
    with pytest.raises(ForkedError):
        scene.closing.attach()


# At the exit of the interpreter


@pytest.fixture
def exiting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    begun: list[str] = []
    monkeypatch.setattr(closing_module, "exiting", SimpleNamespace(begin=lambda: begun.append("begun")))
    return begun


def test_what_is_left_open_is_closed_at_exit_all_at_a_time(scenes: Callable[..., Scene], exiting: list[str]) -> None:
    left = [scenes(), scenes(), scenes()]
    for scene in left[:2]:
        scene.peer(A, FRAME)
    left[2].life.fork()

    def end() -> None:
        assert exiting and all(scene.life.closing for scene in left[:2]), "each began before any was waited for"
        for scene in left[:2]:
            scene.loop.pass_time(5.0)

    meanwhile(end)
    closing_module._close_all()
    assert all(scene.is_over for scene in left[:2]) and left[2].order == []


def test_an_interrupt_at_exit_ends_the_lingering_of_all(scenes: Callable[..., Scene], exiting: list[str]) -> None:
    left = [scenes(), scenes()]

    def settle() -> None:
        meanwhile(settle)
        for scene in left:
            scene.loop.settle()

    def interrupt() -> None:
        meanwhile(settle)
        raise KeyboardInterrupt

    for scene in left:
        scene.peer(A, FRAME)
    meanwhile(interrupt)
    closing_module._close_all()
    assert all(scene.is_over for scene in left)
