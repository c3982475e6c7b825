"""The sending half of a Søcket, by itself: its peers write to nobody, and nobody ever waits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from support.stand_ins import HandWaiters, Loop, settings

from netmsg.errors import (
    ClosedError, ForkedError, LocalProtocolError, QueueFullError, SendTimeoutError, UndeliveredError,
)
from netmsg.messaging import acknowledgements, connections, overflow, room, sending
from netmsg.messaging.choices import DeliveryGuarantee, OnFull, SendMode
from netmsg.messaging.connections import Connections
from netmsg.messaging.dispatching import BURST
from netmsg.messaging.events import Dropped, Event, EventQueue, Full, Undelivered
from netmsg.messaging.lane import Lane
from netmsg.messaging.life import Life
from netmsg.messaging.losses import Losses
from netmsg.messaging.receipts import Receipt
from netmsg.messaging.sending import Sender
from netmsg.wire.envelope import data_frame, payload_of
from netmsg.wire.messages import Capabilities, Kind
from netmsg.wire.session import Liveness

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16
RELIABLE = DeliveryGuarantee.AT_LEAST_ONCE


class Peer:
    """One that takes nothing but what it is told to."""

    def __init__(self, identity: bytes, *, direct: bool = False, dialled: object = None) -> None:
        self.identity = identity
        self.address = identity.decode()
        self.lane = Lane(identity, nullcontext(), self, dialled=dialled)
        self.queue = self.lane.queue
        self.sock = None
        self.direct = direct
        self.blocked = False
        self.paused = False
        self.retired = ""
        self.following = False
        self.bursts = 0
        self.fails = False
        self.resumed = 0
        self.closed: list[str] = []
        self.announced = False
        self.announced_interval = 5.0
        self.liveness = Liveness(5.0, 15.0, 0.0)
        self.taken: list[bytes] = []

    def takes(self, count: int | None = None) -> list[bytes]:
        """Messages, as the kernel would; by their payloads."""
        taken: list[bytes] = []
        while count is None or len(taken) < count:
            if not self.queue:
                break
            head = self.queue[0]
            rest, self.queue[1:] = self.queue[1:], []
            write = self.lane.begin_write()
            assert write is not None and write.messages == 1
            write.counts.append(write.size)
            self.lane.end_write(write)
            self.queue += rest
            taken.append(payload_of(head))
        return taken

    def write_burst(self) -> None:
        self.bursts += 1
        if not self.blocked:
            self.taken += self.takes()

    def bursting(self) -> bool:
        return False

    def on_work(self) -> None:
        if self.fails:
            raise ArithmeticError("on writing")
        if not self.blocked:
            self.taken += self.takes()

    def resume(self) -> None:
        self.resumed += 1

    resume_safely = resume

    def close(self, reason: str, error: BaseException | None) -> None:
        self.closed.append(reason)

    @property
    def queued(self) -> list[bytes]:
        return [payload_of(message) for message in self.queue]


class Scene:
    def __init__(self, **changes: Any) -> None:
        self.loop = Loop()
        self.life = Life()
        self.told: list[Event] = []
        self.losses = Losses()
        self.connections = Connections()
        self.settings = settings(**changes)
        self.crashes: list[BaseException] = []
        self.life.on_crash = self.crashes.append
        self.sender = Sender(self.settings, self.life, self.loop.io, EventQueue(self.told.append), self.losses,
                             self.connections, lambda: "; nobody is there")

    def joins(self, identity: bytes, **options: Any) -> Any:
        peer: Any = Peer(identity, **options)
        self.connections.open[peer] = None
        self.sender.join(peer)
        return peer

    def leaves(self, peer: Any) -> None:
        self.sender.leave(peer)
        self.connections.open.pop(peer, None)
        self.connections.changed.notify_all()
        self.sender.wake_all()

    def send(self, *payloads: bytes, to: bytes | None = None, timeout: float | None = 0) -> list[Receipt]:
        receipts = [self.sender.send(payload, to, timeout) for payload in payloads]
        return [receipt for receipt in receipts if receipt is not None]

    def fill(self, peer: Any = None, to: bytes | None = None) -> None:
        """Up to the mark, or the window."""
        self.send(*numbered(*range(self.settings.send_hwm)), to=to)

    def acknowledges(self, peer: Any, *receipts: Receipt) -> None:
        self.sender.acknowledged(peer, [receipt.message_id for receipt in receipts])

    def meanwhile(self, happen: Callable[[], object]) -> None:
        """While somebody waits."""
        HandWaiters.meanwhile = staticmethod(happen)  # type: ignore[assignment]

    def close(self) -> None:
        self.life.begin_closing()
        self.sender.fast_ring = ()
        self.connections.changed.notify_all()
        self.sender.wake_all()

    @property
    def dropped(self) -> list[tuple[str, int, bytes | None]]:
        return [(event.reason, event.count, event.peer) for event in self.told if isinstance(event, Dropped)]

    @property
    def fast_ring(self) -> list[Any]:
        return [*self.sender.fast_ring]

    @property
    def at_work(self) -> set[Any]:
        return set(self.loop.io.work)


def numbered(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scene]:
    for module in (acknowledgements, connections, room):
        monkeypatch.setattr(module, "Waiters", HandWaiters)
    for module in (overflow, sending):
        monkeypatch.setattr(module, "aside", lambda step: step())
    monkeypatch.setattr(HandWaiters, "meanwhile", HandWaiters.meanwhile)

    return Scene


@pytest.fixture
def scene(scenes: Callable[..., Scene]) -> Scene:
    return scenes()


@pytest.fixture
def reliable(scenes: Callable[..., Scene]) -> Scene:
    """At least once, with windows of three."""
    return scenes(delivery_guarantee=RELIABLE, max_unacked=3)


@pytest.fixture
def publishing(scenes: Callable[..., Scene]) -> Scene:
    return scenes(send_mode=SendMode.PUBLISH)


# Where it goes


def test_messages_go_to_the_peers_in_turn(scene: Scene) -> None:
    a, b = scene.joins(A), scene.joins(B)
    assert scene.send(*numbered(0, 1, 2, 3)) == []
    assert (a.queued, b.queued) == (numbered(0, 2), numbered(1, 3))
    assert scene.at_work == {a, b}, "they are told to write"


def test_what_is_published_goes_to_all(publishing: Scene) -> None:
    a, b = publishing.joins(A), publishing.joins(B)
    publishing.send(b"news")
    assert a.queued == b.queued == [b"news"]
    publishing.loop.settle()
    assert a.taken == b.taken == [b"news"]


def test_a_publication_is_one_piece_of_work_at_the_mark_too(scenes: Callable[..., Scene]) -> None:
    scene = scenes(send_mode=SendMode.PUBLISH, on_full=OnFull.DROP_OLDEST, send_hwm=2)
    a, b = scene.joins(A), scene.joins(B)
    scene.loop.settle()
    scene.send(*numbered(0, 1, 2))
    assert len(scene.dropped) == 2 and a.queued == b.queued == numbered(1, 2)
    assert len(scene.at_work) == 1 and not scene.at_work & {a, b}


def test_by_identity_it_goes_to_that_peer_alone(scene: Scene) -> None:
    a, b = scene.joins(A), scene.joins(B)
    scene.send(*numbered(0, 1), to=B)
    assert (a.queued, b.queued) == ([], numbered(0, 1))


def test_what_is_sent_at_most_once_to_one_who_is_not_there_is_dropped(scene: Scene) -> None:
    scene.joins(A)
    scene.send(b"lost", to=B)
    assert scene.dropped == [("peer not connected", 1, B)]
    assert scene.losses.dropped == {"peer not connected": 1}


def test_what_is_sent_at_least_once_to_one_who_is_not_there_is_kept_for_it(reliable: Scene) -> None:
    a = reliable.joins(A)
    reliable.send(b"kept", to=B)
    assert a.queued == [] and reliable.dropped == []
    assert reliable.joins(B).queued == [b"kept"]


def test_what_is_sent_while_nobody_is_there_waits_for_the_first(scene: Scene) -> None:
    scene.send(*numbered(0, 1))
    assert scene.joins(A).queued == numbered(0, 1)


def test_large_messages_are_not_copied(scene: Scene) -> None:
    a = scene.joins(A)
    large = b"x" * 200_000
    scene.send(large)
    assert payload_of(a.queue[0]) is large


# The short way


def test_plain_messages_may_be_dealt_without_the_lock_while_peers_are_there(scene: Scene) -> None:
    assert scene.fast_ring == []
    a, b = scene.joins(A), scene.joins(B)
    assert scene.fast_ring == [a, b]
    scene.leaves(a)
    assert scene.fast_ring == [b]


@pytest.mark.parametrize("changes", [{"delivery_guarantee": RELIABLE}, {"send_mode": SendMode.PUBLISH}],
                         ids=["at least once", "publish"])
def test_others_may_not(scenes: Callable[..., Scene], changes: dict[str, Any]) -> None:
    scene = scenes(**changes)
    scene.joins(A)
    assert scene.fast_ring == []


def test_nor_while_older_ones_wait(scenes: Callable[..., Scene]) -> None:
    scene = scenes(send_hwm=2)
    a, b = scene.joins(A), scene.joins(B)
    scene.send(*numbered(0, 1, 2, 3))
    scene.leaves(b)
    assert scene.sender.router.unplaced == 2 and scene.fast_ring == []
    a.takes()
    scene.sender.flushed(a)
    assert a.queued == numbered(1, 3) and scene.fast_ring == [a]


def test_nor_when_it_closes(scene: Scene) -> None:
    scene.close()
    scene.joins(A)
    assert scene.fast_ring == []


# Getting it on its way


def test_after_a_while_of_quiet_the_sender_writes_by_itself(scene: Scene) -> None:
    a = scene.joins(A, direct=True)
    scene.send(b"1")
    assert a.taken == [b"1"] and scene.at_work == set()
    scene.send(b"2")
    assert a.taken == [b"1"] and scene.at_work == {a}, "it is busy"


def test_who_answers_writes_by_itself_however_busy_it_is(scene: Scene) -> None:
    a = scene.joins(A, direct=True)
    scene.send(b"1")
    scene.sender.answering()
    scene.send(b"2")
    assert a.taken == [b"1", b"2"]


def test_under_tls_the_network_thread_writes(scene: Scene) -> None:
    a = scene.joins(A)
    scene.send(b"1")
    assert a.bursts == 0 and scene.at_work == {a}


def test_when_much_has_gathered_the_sender_writes(scenes: Callable[..., Scene]) -> None:
    scene = scenes(send_hwm=2 * BURST)
    a = scene.joins(A, direct=True)
    scene.send(b"x")
    scene.send(*[b"x"] * (BURST - 1))
    assert a.bursts == 1
    scene.send(b"x")
    assert a.bursts == 2 and not a.queue


def test_the_network_thread_is_woken_if_it_sleeps(scene: Scene) -> None:
    a = scene.joins(A)
    scene.loop.io.asleep = True
    scene.send(b"1")
    assert scene.loop.poller.woken == 1 and scene.at_work == {a}


def test_what_was_queued_for_one_that_has_gone_goes_to_the_others(scene: Scene) -> None:
    """Its sender had found it before, and looks afterwards."""
    a, b = scene.joins(A), scene.joins(B)
    scene.leaves(a)
    a.queue.append(data_frame(b"late"))
    scene.sender.kick(a)
    assert a.queued == [] and b.queued == [b"late"] and scene.at_work == {b}


def test_after_a_while_of_quiet_a_publisher_writes_to_its_few_peers(publishing: Scene) -> None:
    a, b = publishing.joins(A, direct=True), publishing.joins(B, direct=True)
    publishing.send(b"1")
    assert a.taken == b.taken == [b"1"] and publishing.at_work == set()
    publishing.send(b"2")
    assert a.queued == [b"2"] and len(publishing.at_work) == 1, "all of them together are one piece of work"
    publishing.loop.settle()
    assert a.taken == b.taken == numbered(1, 2)


def test_a_publisher_leaves_many_peers_to_the_network_thread(publishing: Scene) -> None:
    peers = [publishing.joins(bytes((number,)) * 16, direct=True) for number in range(17)]
    publishing.send(b"1")
    assert not any(peer.bursts for peer in peers)
    publishing.loop.settle()
    assert all(peer.taken == [b"1"] for peer in peers)


def test_a_publisher_with_much_gathered_writes_and_the_network_thread_waits(scenes: Callable[..., Scene]) -> None:
    scene = scenes(send_mode=SendMode.PUBLISH, send_hwm=2 * BURST)
    a = scene.joins(A, direct=True)
    scene.send(b"x")
    scene.send(*[b"x"] * BURST)
    assert a.bursts == 2 and not a.queue
    (work,) = scene.at_work
    assert work.bursting() and not work.bursting()


# When there is no room


def full(scenes: Callable[..., Scene], policy: OnFull, **changes: Any) -> tuple[Scene, Any]:
    scene = scenes(on_full=policy, send_hwm=3, **changes)
    peer = scene.joins(A)
    scene.send(*numbered(0, 1, 2))
    return scene, peer


def test_a_full_queue_is_told_of_once_until_there_has_been_room(scenes: Callable[..., Scene]) -> None:
    scene, a = full(scenes, OnFull.RAISE)
    for _ in range(2):
        with pytest.raises(QueueFullError):
            scene.send(b"3")
    assert sum(isinstance(event, Full) for event in scene.told) == 1
    a.takes()
    scene.sender.flushed(a)
    scene.send(*numbered(0, 1, 2))
    with pytest.raises(QueueFullError):
        scene.send(b"3")
    assert sum(isinstance(event, Full) for event in scene.told) == 2


def test_raise(scenes: Callable[..., Scene]) -> None:
    scene, a = full(scenes, OnFull.RAISE)
    with pytest.raises(QueueFullError):
        scene.send(b"3")
    assert a.queued == numbered(0, 1, 2) and scene.dropped == []


def test_drop_newest(scenes: Callable[..., Scene]) -> None:
    scene, a = full(scenes, OnFull.DROP_NEWEST)
    scene.send(b"3")
    assert a.queued == numbered(0, 1, 2) and scene.dropped == [("send queue full", 1, None)]


def test_drop_newest_for_those_alone_that_are_full(scenes: Callable[..., Scene]) -> None:
    scene, a = full(scenes, OnFull.DROP_NEWEST, send_mode=SendMode.PUBLISH)
    b = scene.joins(B)
    scene.send(b"3")
    assert a.queued == numbered(0, 1, 2) and b.queued == [b"3"]
    assert scene.dropped == [("send queue full", 1, A)]


def test_drop_newest_at_least_once_tells_the_receipt(scenes: Callable[..., Scene]) -> None:
    scene, _ = full(scenes, OnFull.DROP_NEWEST, delivery_guarantee=RELIABLE, max_unacked=1)
    scene.send(b"3")
    (receipt,) = scene.send(b"4")
    assert receipt.failed and not receipt.acked
    with pytest.raises(UndeliveredError, match="the send queue was full"):
        receipt.wait(timeout=0)


def test_drop_oldest(scenes: Callable[..., Scene]) -> None:
    scene, a = full(scenes, OnFull.DROP_OLDEST)
    scene.send(b"3")
    assert a.queued == numbered(1, 2, 3) and scene.dropped == [("send queue full", 1, A)]
    assert a in scene.at_work and any(isinstance(event, Full) for event in scene.told)


def test_drop_oldest_of_what_waits(scenes: Callable[..., Scene]) -> None:
    scene = scenes(on_full=OnFull.DROP_OLDEST, send_hwm=3)
    scene.send(*numbered(0, 1, 2, 3))
    assert scene.dropped == [("send queue full", 1, None)]
    assert scene.joins(A).queued == numbered(1, 2, 3)


def test_drop_oldest_at_least_once_tells_the_receipt_of_the_oldest(scenes: Callable[..., Scene]) -> None:
    scene = scenes(on_full=OnFull.DROP_OLDEST, send_hwm=3, delivery_guarantee=RELIABLE)
    receipts = scene.send(*numbered(0, 1, 2, 3))
    assert [receipt.failed for receipt in receipts] == [True, False, False, False]
    assert scene.joins(A).queued == numbered(1, 2, 3)
    assert len(scene.sender.ledger.outstanding) == 3


def test_drop_oldest_at_least_once_where_there_has_come_room_drops_none(
        scenes: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scenes(on_full=OnFull.DROP_OLDEST, send_hwm=2, delivery_guarantee=RELIABLE)
    receipts = scene.send(*numbered(0, 1))

    def come_first(step: Callable[[], None]) -> None:
        scene.joins(A)
        step()

    monkeypatch.setattr(overflow, "aside", come_first)
    receipts += scene.send(b"2")
    assert not any(receipt.failed for receipt in receipts) and scene.dropped == []


def test_drop_oldest_at_least_once_does_nothing_when_it_closes_meanwhile(
        scenes: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scenes(on_full=OnFull.DROP_OLDEST, send_hwm=2, delivery_guarantee=RELIABLE)
    receipts = scene.send(*numbered(0, 1))

    def close_first(step: Callable[[], None]) -> None:
        scene.close()
        step()

    monkeypatch.setattr(overflow, "aside", close_first)
    with pytest.raises(ClosedError):
        scene.send(b"2")
    assert not any(receipt.failed for receipt in receipts)


def test_block_until_there_is_room(scenes: Callable[..., Scene]) -> None:
    scene, a = full(scenes, OnFull.BLOCK)

    def room() -> None:
        a.takes()
        scene.sender.flushed(a)

    scene.meanwhile(room)
    scene.send(b"3", timeout=1)
    assert a.queued == [b"3"]


def test_block_until_there_is_somebody_else(scenes: Callable[..., Scene]) -> None:
    scene, a = full(scenes, OnFull.BLOCK)
    joined: list[Any] = []

    def come() -> None:
        joined.append(scene.joins(B))
        scene.sender.wake_all()

    scene.meanwhile(come)
    scene.send(b"3", timeout=1)
    assert joined[0].queued == [b"3"]


def test_block_for_one_who_is_full_though_others_are_not(scenes: Callable[..., Scene]) -> None:
    scene, a = full(scenes, OnFull.BLOCK)
    b = scene.joins(B)
    with pytest.raises(SendTimeoutError):
        scene.send(b"3", to=A)

    def room() -> None:
        a.takes(1)
        scene.sender.flushed(a)

    scene.meanwhile(room)
    scene.send(b"3", to=A, timeout=1)
    assert a.queued == numbered(1, 2, 3) and b.queued == []


def test_block_for_one_who_leaves(scenes: Callable[..., Scene]) -> None:
    scene, a = full(scenes, OnFull.BLOCK)
    scene.meanwhile(lambda: scene.leaves(a))
    scene.send(b"3", to=A, timeout=1)
    assert scene.dropped == [("peer not connected", 1, A)]


def test_block_until_the_slowest_has_room_for_what_is_published(scenes: Callable[..., Scene]) -> None:
    scene, a = full(scenes, OnFull.BLOCK, send_mode=SendMode.PUBLISH)
    b = scene.joins(B)

    def room() -> None:
        a.takes()
        scene.sender.flushed(a)

    scene.meanwhile(room)
    scene.send(b"3", timeout=1)
    assert a.queued == b.queued == [b"3"]


def test_block_until_something_is_acknowledged(reliable: Scene) -> None:
    a = reliable.joins(A)
    receipts = reliable.send(*numbered(*range(13)))
    assert a.queued == numbered(0, 1, 2)
    with pytest.raises(SendTimeoutError):
        reliable.send(b"13")

    def acknowledge() -> None:
        for receipt in receipts[:5]:
            a.takes()
            reliable.acknowledges(a, receipt)

    reliable.meanwhile(acknowledge)
    reliable.send(b"13", timeout=1)
    assert len(a.lane.unacked) == 3 and len(reliable.sender.router.waiting) == 6


def test_block_to_the_end_of_the_time(scenes: Callable[..., Scene]) -> None:
    scene, a = full(scenes, OnFull.BLOCK)
    with pytest.raises(SendTimeoutError):
        scene.send(b"3")
    assert a.queued == numbered(0, 1, 2) and not scene.sender.expects(a)


def test_block_until_it_is_closed(scenes: Callable[..., Scene]) -> None:
    scene, a = full(scenes, OnFull.BLOCK)
    scene.meanwhile(scene.close)
    with pytest.raises(ClosedError):
        scene.send(b"3", timeout=1)
    assert a.queued == numbered(0, 1, 2)


def test_the_network_thread_itself_does_not_block(scenes: Callable[..., Scene],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    scene, _ = full(scenes, OnFull.BLOCK)
    monkeypatch.setattr(type(scene.loop.io), "is_current", True)
    with pytest.raises(LocalProtocolError):
        scene.send(b"3")


def test_disconnect_those_that_do_not_keep_up_with_what_is_published(scenes: Callable[..., Scene]) -> None:
    scene, a = full(scenes, OnFull.DISCONNECT, send_mode=SendMode.PUBLISH)
    b = scene.joins(B)

    def over() -> None:
        scene.loop.settle()
        scene.leaves(a)

    a.blocked = True
    scene.meanwhile(over)
    scene.send(b"3", timeout=1)
    assert a.closed == ["it did not keep up"] and b.closed == [] and b.taken + b.queued == [b"3"]
    assert scene.dropped == [("peer gone", 3, A)]


def test_who_has_not_been_sent_yet_what_was_kept_for_it_is_not_disconnected(scenes: Callable[..., Scene]) -> None:
    scene = scenes(on_full=OnFull.DISCONNECT, send_hwm=3, send_mode=SendMode.PUBLISH)
    scene.send(*numbered(0, 1, 2))
    a = scene.joins(A)
    scene.send(b"3")
    assert a.queued == numbered(0, 1, 2, 3) and a.closed == [] and scene.at_work


def test_disconnect_who_has_taken_nothing_for_too_long(scenes: Callable[..., Scene]) -> None:
    scene, a = full(scenes, OnFull.DISCONNECT)
    a.blocked = True
    with pytest.raises(SendTimeoutError):
        scene.send(b"3")
    assert a.closed == [], "not at once"
    scene.loop.clock.now += 6.0
    with pytest.raises(SendTimeoutError):
        scene.send(b"3")
    scene.loop.settle()
    assert a.closed == ["it did not keep up"]


def test_who_takes_something_now_and_then_is_not_disconnected(scenes: Callable[..., Scene]) -> None:
    scene, a = full(scenes, OnFull.DISCONNECT)
    a.blocked = True
    for _ in range(4):
        with pytest.raises(SendTimeoutError):
            scene.send(b"3")
        scene.loop.clock.now += 4.0
        a.takes(1)
        scene.send(b"x")
    assert a.closed == []


def test_disconnect_where_there_is_nobody_drops_the_newest(scenes: Callable[..., Scene]) -> None:
    scene = scenes(on_full=OnFull.DISCONNECT, send_hwm=3)
    scene.send(*numbered(0, 1, 2, 3))
    assert scene.dropped == [("send queue full", 1, None)]
    assert scene.joins(A).queued == numbered(0, 1, 2)


# Who wakes whom


def test_a_sender_is_woken_when_a_queue_is_down_to_half_and_not_for_every_message(scenes: Callable[..., Scene]) -> None:
    scene = scenes(send_hwm=10)
    a = scene.joins(A)
    scene.fill()

    def room() -> None:
        for taken in range(5):
            a.takes(1)
            scene.sender.flushed(a)

    scene.meanwhile(room)
    scene.send(b"10", timeout=1)
    assert a.queued == numbered(5, 6, 7, 8, 9, 10)


# Peers that come and go


def test_what_a_peer_was_not_sent_goes_to_the_others_in_order(scene: Scene) -> None:
    a = scene.joins(A)
    scene.send(*numbered(0, 1, 2))
    a.takes(1)
    b = scene.joins(B)
    scene.leaves(a)
    assert b.queued == numbered(1, 2) and scene.at_work >= {b} and scene.dropped == []


def test_what_was_for_that_peer_alone_goes_with_it(scene: Scene) -> None:
    a, b = scene.joins(A), scene.joins(B)
    scene.send(b"for a", to=A)
    scene.leaves(a)
    assert b.queued == [] and scene.dropped == [("peer gone", 1, A)]


def test_what_was_not_acknowledged_goes_to_the_others_and_counts_as_sent_again(reliable: Scene) -> None:
    a = reliable.joins(A)
    reliable.send(*numbered(0, 1, 2))
    a.takes(2)
    b = reliable.joins(B)
    reliable.leaves(a)
    assert b.queued == numbered(0, 1, 2) and reliable.sender.ledger.resent == 2


def test_what_was_sent_as_often_as_it_may_is_given_up_when_its_peer_goes(scenes: Callable[..., Scene]) -> None:
    scene = scenes(delivery_guarantee=RELIABLE, max_resends=0)
    a = scene.joins(A)
    receipts = scene.send(*numbered(0, 1))
    a.takes(1)
    scene.leaves(a)
    assert [receipt.failed for receipt in receipts] == [True, False]
    assert scene.losses.undelivered == 1
    (event,) = [event for event in scene.told if isinstance(event, Undelivered)]
    assert event.message_id == receipts[0].message_id and event.peer == A
    assert scene.joins(B).queued == [b"1"]


def test_another_connection_to_the_same_peer_gets_what_is_left(scene: Scene) -> None:
    a, b = scene.joins(A), scene.joins(B)
    scene.send(*numbered(0, 1, 2, 3))
    new: Any = Peer(A)
    scene.sender.succeed(a, new, finish=False, same=False)
    assert new.queued == numbered(0, 2) and a.queued == [] and a.lane.dead
    assert scene.sender.find(A) is new.lane and scene.fast_ring == [new, b]


def test_what_the_old_connection_is_writing_it_may_finish(scene: Scene) -> None:
    a = scene.joins(A)
    scene.send(*numbered(0, 1))
    write = a.lane.begin_write()
    write.counts.append(3)
    scene.send(b"2")
    new: Any = Peer(A)
    scene.sender.succeed(a, new, finish=True, same=True)
    assert a.queued == numbered(0, 1) and new.queued == [b"2"]


@pytest.mark.parametrize("finish, resent", [(True, 0), (False, 2)])
def test_what_was_not_acknowledged_goes_out_by_the_new_connection(reliable: Scene, finish: bool, resent: int) -> None:
    a = reliable.joins(A)
    reliable.send(*numbered(0, 1))
    a.takes()
    new: Any = Peer(A)
    reliable.sender.succeed(a, new, finish=finish, same=finish)
    assert new.queued == numbered(0, 1) and reliable.sender.ledger.resent == resent


def test_acknowledgements_that_come_by_the_old_connection_count_for_the_new(reliable: Scene) -> None:
    a = reliable.joins(A)
    receipts = reliable.send(*numbered(0, 1, 2, 3))
    a.takes()
    new: Any = Peer(A)
    reliable.sender.succeed(a, new, finish=True, same=True)
    a.retired = "another"
    reliable.acknowledges(a, *receipts[:2])
    assert [receipt.acked for receipt in receipts] == [True, True, False, False]
    assert payload_of(new.queue[-1]) == b"3", "its window has opened"


def test_what_was_published_for_an_endpoint_goes_to_the_peer_it_turns_out_to_lead_to(publishing: Scene) -> None:
    way, other = object(), object()
    a = publishing.joins(A, dialled=way)
    publishing.send(b"news")
    publishing.leaves(a)
    assert publishing.sender.router.unplaced == 1
    b = publishing.joins(B, dialled=other)
    assert b.queued == []
    publishing.sender.bring(way, b)
    assert b.queued == [b"news"] and b in publishing.at_work


def test_the_window_is_what_the_peer_holds_within_our_own_bounds(scenes: Callable[..., Scene]) -> None:
    scene = scenes(delivery_guarantee=RELIABLE, send_hwm=1000, max_unacked=None)
    a = scene.joins(A)
    scene.send(*numbered(*range(250)))
    assert len(a.lane.unacked) == 200, "nobody knows yet"
    scene.sender.capable(a, Capabilities(2.0, 230))
    assert len(a.lane.unacked) == 230 and a.announced_interval == 2.0 and a in scene.at_work
    scene.sender.capable(a, Capabilities(2.0, 0))
    assert a.lane.window == 1


def test_a_peer_that_shows_itself_seldom_is_given_more_time(scene: Scene) -> None:
    a = scene.joins(A)
    scene.sender.capable(a, Capabilities(20.0, 10))
    assert a.liveness.timeout == 50.0


# Receipts


def test_a_receipt_tells_that_the_message_has_arrived(reliable: Scene) -> None:
    a = reliable.joins(A)
    receipts = reliable.send(*numbered(0, 1))
    assert not receipts[0].acked
    reliable.acknowledges(a, receipts[0])
    assert receipts[0].acked and not receipts[1].acked
    receipts[0].wait(timeout=0)


def test_a_receipt_is_waited_for(reliable: Scene) -> None:
    a = reliable.joins(A)
    (receipt,) = reliable.send(b"0")
    with pytest.raises(TimeoutError, match="nobody is there"):
        receipt.wait(timeout=0)
    reliable.meanwhile(lambda: reliable.acknowledges(a, receipt))
    receipt.wait(timeout=1)
    reliable.send(b"1")
    assert not reliable.sender.expects(a), "nobody waits any more"


def test_whoever_waits_has_paused_peers_read_past_the_marks(reliable: Scene) -> None:
    a, b = reliable.joins(A), reliable.joins(B)
    (receipt,) = reliable.send(b"0", to=A)
    a.paused = b.paused = True
    assert not reliable.sender.expects(a)
    expected: list[bool] = []

    def look() -> None:
        reliable.loop.settle()
        expected.extend([reliable.sender.expects(a), reliable.sender.expects(b)])

    reliable.meanwhile(look)
    with pytest.raises(TimeoutError):
        receipt.wait(timeout=1)
    assert expected == [True, False] and (a.resumed, b.resumed) == (1, 0)


@pytest.mark.parametrize("which", ["retired", "following"])
def test_acknowledgements_may_be_expected_on_another_connection_to_the_same_peer(reliable: Scene, which: str) -> None:
    reliable.joins(A)
    (receipt,) = reliable.send(b"0")
    other: Any = Peer(A)
    expected: list[bool] = []

    def look() -> None:
        for value in ("yes", ""):
            setattr(other, which, value)
            expected.append(reliable.sender.expects(other))

    reliable.meanwhile(look)
    with pytest.raises(TimeoutError):
        receipt.wait(timeout=1)
    assert expected == [True, False]


def test_what_is_given_up_is_told_to_whoever_waits(scenes: Callable[..., Scene]) -> None:
    scene = scenes(delivery_guarantee=RELIABLE, max_resends=0)
    a = scene.joins(A)
    (receipt,) = scene.send(b"0")
    a.takes()
    scene.meanwhile(lambda: scene.leaves(a))
    with pytest.raises(UndeliveredError, match="not acknowledged after 0 resends"):
        receipt.wait(timeout=1)


# Sending again


def test_what_is_not_acknowledged_in_time_is_sent_again(reliable: Scene) -> None:
    a = reliable.joins(A)
    (receipt,) = reliable.send(b"0")
    assert a.takes() == [b"0"]
    for seconds in range(0, 6):
        reliable.sender.resend(a, float(seconds))
    assert a.queued == [b"0"] and reliable.sender.ledger.resent == 1 and a in reliable.at_work
    reliable.acknowledges(a, receipt)
    assert receipt.acked


@pytest.mark.parametrize("how", ["leave", "succeed"])
def test_the_time_of_what_goes_out_by_another_connection_begins_anew(reliable: Scene, how: str) -> None:
    a = reliable.joins(A)
    reliable.send(b"0")
    a.takes()
    if how == "leave":
        reliable.leaves(a)
        new: Any = reliable.joins(B)
    else:
        new = Peer(A)
        reliable.sender.succeed(a, new, finish=False, same=False)
    new.takes()
    reliable.sender.resend(new, reliable.loop.clock.now + 1000.0)
    assert new.queued == [] and reliable.sender.ledger.resent == 1


def test_and_given_up_when_that_has_been_done_as_often_as_it_may(scenes: Callable[..., Scene]) -> None:
    scene = scenes(delivery_guarantee=RELIABLE, max_resends=1, max_unacked=1)
    a = scene.joins(A)
    receipt, next_one = scene.send(*numbered(0, 1))
    for seconds in range(0, 100):
        a.takes()
        scene.sender.resend(a, float(seconds))
        if receipt.failed:
            break
    assert receipt.failed and scene.losses.undelivered == 1 and not next_one.failed
    assert a.queued == [b"1"], "there is room in the window for the next"


# Handed back


def hands_back(scene: Scene, peer: Any, *receipts: Receipt) -> None:
    peer.takes()
    scene.sender.handed_back(peer, [receipt.message_id for receipt in receipts])


def test_what_is_handed_back_goes_to_another_peer_at_once_and_counts_as_sent_again(reliable: Scene) -> None:
    a, b = reliable.joins(A), reliable.joins(B)
    (receipt,) = reliable.send(b"0")
    hands_back(reliable, a, receipt)
    assert b.queued == [b"0"] and b in reliable.at_work and not a.lane.unacked
    assert reliable.sender.ledger.resent == 1
    reliable.acknowledges(a, receipt)
    assert not receipt.acked, "it is not its to acknowledge any more"
    reliable.acknowledges(b, receipt)
    assert receipt.acked


def test_it_goes_back_to_nobody_who_has_handed_it_back_before_its_time_comes(reliable: Scene) -> None:
    a, b = reliable.joins(A), reliable.joins(B)
    (receipt,) = reliable.send(b"0")
    hands_back(reliable, a, receipt)
    hands_back(reliable, b, receipt)
    assert a.queued == b.queued == [] and not a.lane.unacked and not b.lane.unacked
    assert reliable.sender.router.unplaced == 1 and not receipt.failed
    assert reliable.sender.ledger.resent == 1, "nothing was sent again the second time"
    now = reliable.loop.clock.now
    reliable.sender.resend(b, now)
    assert a.queued == b.queued == [], "its pause is still to come"
    reliable.sender.resend(b, now + 1000.0)
    assert a.queued == [b"0"] and b.queued == [], "to either of them"
    hands_back(reliable, a, receipt)
    assert b.queued == [b"0"], "from here on it counts anew who hands it back"


def test_who_comes_gets_what_all_others_have_handed_back(reliable: Scene) -> None:
    a = reliable.joins(A)
    (receipt,) = reliable.send(b"0")
    hands_back(reliable, a, receipt)
    b = reliable.joins(B)
    assert b.queued == [b"0"] and b in reliable.at_work and not a.lane.unacked
    assert reliable.sender.ledger.resent == 1


def test_where_there_is_nobody_else_it_comes_again_when_its_time_has_come(reliable: Scene) -> None:
    a = reliable.joins(A)
    (receipt,) = reliable.send(b"0")
    now = reliable.loop.clock.now
    for times in range(1, 4):
        hands_back(reliable, a, receipt)
        assert a.queued == []
        for seconds in (0.0, 100.0):
            reliable.sender.resend(a, now + times * 1000.0 + seconds)
        assert a.queued == [b"0"] and reliable.sender.ledger.resent == times


def test_who_has_no_room_is_not_handed_it(reliable: Scene) -> None:
    a, b = reliable.joins(A), reliable.joins(B)
    receipts = reliable.send(*numbered(0, 1, 2, 3, 4, 5))
    hands_back(reliable, a, receipts[0])
    assert len(b.lane.unacked) == 3 and receipts[0].message_id not in b.lane.unacked
    b.takes()
    reliable.acknowledges(b, receipts[1])
    assert b.queued == [b"0"]


def test_two_with_no_room_that_hand_back_what_the_other_wants_have_it_at_once(scenes: Callable[..., Scene]) -> None:
    scene = scenes(delivery_guarantee=RELIABLE, max_unacked=1)
    a, b = scene.joins(A), scene.joins(B)
    receipts = scene.send(*numbered(0, 1))
    hands_back(scene, a, receipts[0])
    hands_back(scene, b, receipts[1])
    assert (a.queued, b.queued) == ([b"1"], [b"0"])


def test_while_something_waits_only_those_are_looked_at_who_have_refused_it(scenes: Callable[..., Scene]) -> None:
    """There may be many others, and none of them has room."""
    scene = scenes(delivery_guarantee=RELIABLE, max_unacked=1)
    peers = [scene.joins(b"%016d" % number) for number in range(100)]
    receipts = scene.send(*(b"%d" % number for number in range(100)))
    hands_back(scene, peers[0], receipts[0])
    looks: list[Any] = []
    has_room = scene.sender.router.has_room

    def look(lane: Any, *, once: bool = False) -> bool:
        looks.append(lane)
        return has_room(lane, once=once)

    scene.sender.router.has_room = look  # type: ignore[method-assign]
    hands_back(scene, peers[1], receipts[1])
    assert peers[0].queued == [b"1"] and peers[1].queued == [b"0"] and len(looks) < 10


def test_beside_what_nobody_wants_the_rest_goes_to_one_after_the_other(reliable: Scene) -> None:
    peers = [reliable.joins(b"%016d" % number) for number in range(12)]
    (poison,) = reliable.send(b"poison")
    for peer in peers:
        hands_back(reliable, peer, poison)
    there = reliable.send(*(b"%d" % number for number in range(12)))
    hands_back(reliable, peers[0], *there[::12])
    before = [len(peer.lane.unacked) for peer in peers]
    assert sum(before) == 12 and max(before) == 2
    more = reliable.send(b"12")
    hands_back(reliable, next(peer for peer in peers if more[0].message_id in peer.lane.unacked), more[0])
    assert max(len(peer.lane.unacked) for peer in peers) == 2


def test_no_pause_grows_while_nobody_is_offered_it(scenes: Callable[..., Scene]) -> None:
    scene = scenes(delivery_guarantee=RELIABLE, max_unacked=1, resend_after=1.0)
    a = scene.joins(A)
    receipt, *others = scene.send(*numbered(0, 1))
    hands_back(scene, a, receipt)
    a.takes()
    for _ in range(100):
        scene.loop.clock.now += 10.0
        scene.sender.resend(a, scene.loop.clock.now)
        a.takes()
    scene.acknowledges(a, *others)
    assert a.queued == [b"0"]
    hands_back(scene, a, receipt)
    scene.sender.resend(a, scene.loop.clock.now + 2.6)
    assert a.queued == [b"0"]


def test_what_nobody_wants_leaves_room_for_the_rest_and_keeps_to_the_marks(scenes: Callable[..., Scene]) -> None:
    scene = scenes(delivery_guarantee=RELIABLE, max_unacked=1, send_hwm=3, on_full=OnFull.RAISE)
    a = scene.joins(A)
    for number in range(3):
        (receipt,) = scene.send(b"%d" % number)
        hands_back(scene, a, receipt)
    with pytest.raises(QueueFullError):
        scene.send(b"no room")
    scene.joins(B)
    scene.send(b"3")


def test_while_those_are_busy_who_may_want_it_it_comes_again_when_its_time_has_come(reliable: Scene) -> None:
    """They may be busy for ever."""
    a, b = reliable.joins(A), reliable.joins(B)
    receipts = reliable.send(*numbered(0, 1, 2, 3, 4, 5))
    b.takes()
    hands_back(reliable, a, receipts[0])
    now = reliable.loop.clock.now
    reliable.sender.resend(b, now + 0.5 * reliable.settings.resend_after)
    assert a.queued == [] and reliable.sender.router.unplaced == 1
    reliable.sender.resend(b, now + 1.5 * reliable.settings.resend_after)
    assert a.queued == [b"0"]


def test_to_be_handed_on_at_once_makes_no_pause_longer(scenes: Callable[..., Scene]) -> None:
    scene = scenes(delivery_guarantee=RELIABLE, resend_after=1.0)
    peers = [scene.joins(b"%016d" % number) for number in range(8)]
    (receipt,) = scene.send(b"0")
    for _ in range(2):
        for _ in peers:
            (there,) = [peer for peer in peers if peer.queued]
            hands_back(scene, there, receipt)
        assert not any(peer.queued for peer in peers)
        waited = scene.loop.clock.now
        while not any(peer.queued for peer in peers):
            scene.loop.clock.now += 0.1
            scene.sender.resend(peers[0], scene.loop.clock.now)
        assert 0.9 < scene.loop.clock.now - waited < 2.6
    assert scene.sender.ledger.resent == 16


def test_who_has_handed_it_back_gets_it_at_once_when_he_comes_again(reliable: Scene) -> None:
    a = reliable.joins(A)
    (receipt,) = reliable.send(b"0")
    hands_back(reliable, a, receipt)
    reliable.leaves(a)
    assert reliable.sender.router.unplaced == 1
    again = reliable.joins(A)
    assert again.queued == [b"0"] and reliable.sender.router.unplaced == 0
    hands_back(reliable, again, receipt)
    assert reliable.joins(B).queued == [b"0"]


def test_who_was_said_goodbye_to_is_handed_nothing_whatever_he_says(reliable: Scene) -> None:
    a, b = reliable.joins(A), reliable.joins(B)
    (receipt,) = reliable.send(b"0")
    b.lane.window = 0
    reliable.sender.capable(b, Capabilities(5.0, 1000))
    hands_back(reliable, a, receipt)
    assert b.queued == [] and reliable.sender.router.unplaced == 1


def test_who_takes_over_from_himself_may_have_it_at_once(reliable: Scene) -> None:
    a = reliable.joins(A)
    (receipt,) = reliable.send(b"0")
    hands_back(reliable, a, receipt)
    again: Any = Peer(A)
    reliable.connections.open[again] = None
    reliable.sender.succeed(a, again, finish=False, same=False)
    assert again.queued == [b"0"] and again in reliable.at_work


def test_the_room_of_one_that_is_given_up_is_for_what_was_handed_back(scenes: Callable[..., Scene]) -> None:
    scene = scenes(delivery_guarantee=RELIABLE, max_unacked=1, max_resends=1, resend_after=1.0)
    b = scene.joins(B)
    (hopeless,) = scene.send(b"0")
    b.takes()
    scene.sender.resend(b, scene.loop.clock.now)
    while not b.queued:
        scene.loop.clock.now += 0.1
        scene.sender.resend(b, scene.loop.clock.now)
    b.takes()
    a = scene.joins(A)
    (receipt,) = scene.send(b"1")
    scene.loop.clock.now += 0.5
    hands_back(scene, a, receipt)
    scene.sender.send(b"2", None, 0)
    for seconds in (100.0, 200.0):
        scene.sender.resend(b, scene.loop.clock.now + seconds)
    assert hopeless.failed and b.queued == [b"1"]


def test_who_comes_anew_may_have_what_another_one_has_now_and_hands_back(reliable: Scene) -> None:
    a, b = reliable.joins(A), reliable.joins(B)
    (receipt,) = reliable.send(b"0")
    hands_back(reliable, a, receipt)
    reliable.leaves(a)
    again = reliable.joins(A)
    hands_back(reliable, b, receipt)
    assert again.queued == [b"0"]


def test_what_all_have_handed_back_is_offered_to_one_after_the_other(reliable: Scene) -> None:
    peers = [reliable.joins(identity) for identity in (A, B, C)]
    receipts = reliable.send(*numbered(0, 1, 2))
    for _ in peers:
        for peer in peers:
            there = [receipt for receipt in receipts if receipt.message_id in peer.lane.unacked]
            hands_back(reliable, peer, *there)
    assert reliable.sender.router.unplaced == 3
    reliable.sender.resend(peers[0], reliable.loop.clock.now + 1000.0)
    assert [len(peer.queued) for peer in peers] == [1, 1, 1]


def test_who_has_handed_it_back_may_acknowledge_it_after_all(reliable: Scene) -> None:
    """It was sent again meanwhile."""
    a = reliable.joins(A)
    (receipt,) = reliable.send(b"0")
    hands_back(reliable, a, receipt)
    reliable.acknowledges(a, receipt)
    assert receipt.acked and reliable.sender.router.unplaced == 0


@pytest.mark.parametrize("half_sent", [False, True])
def test_what_has_come_may_be_handed_back_while_the_rest_of_its_write_is_on_its_way(
        reliable: Scene, half_sent: bool) -> None:
    a = reliable.joins(A)
    receipts = reliable.send(*numbered(0, 1))
    b = reliable.joins(B)
    if half_sent:
        assert a.lane.begin_write() is not None
    reliable.sender.handed_back(a, [receipts[0].message_id])
    assert b.queued == ([b"0"] if half_sent else [])


def test_the_room_it_leaves_is_for_what_waits(reliable: Scene) -> None:
    a = reliable.joins(A)
    receipts = reliable.send(*numbered(0, 1, 2, 3))
    b = reliable.joins(B)
    assert b.queued == [b"3"]
    reliable.send(*numbered(4, 5, 6))
    hands_back(reliable, a, receipts[0])
    assert b.queued == numbered(3, 4, 5), "no room"
    b.takes()
    reliable.acknowledges(b, receipts[3])
    assert b.queued == [b"0"] and a.queued == [b"6"], "the one that was handed back is before what waits"


def test_while_all_are_busy_it_goes_to_the_first_who_has_room_before_what_waits(scenes: Callable[..., Scene]) -> None:
    scene = scenes(delivery_guarantee=RELIABLE, max_unacked=1)
    a, b = scene.joins(A), scene.joins(B)
    receipts = scene.send(*numbered(0, 1, 2, 3))
    hands_back(scene, a, receipts[0])
    b.takes()
    assert a.queued == [b"2"], "the refuser has room for another"
    scene.acknowledges(b, receipts[1])
    assert b.queued == [b"0"]
    hands_back(scene, b, receipts[0])
    a.takes()
    scene.acknowledges(a, receipts[2])
    assert a.queued == [] and b.queued == [b"3"], "both have handed it back"
    c = scene.joins(C)
    assert c.queued == [b"0"] and scene.sender.ledger.resent == 2


def test_what_has_been_settled_meanwhile_is_handed_to_nobody(scenes: Callable[..., Scene]) -> None:
    scene = scenes(delivery_guarantee=RELIABLE, max_unacked=1)
    a, b = scene.joins(A), scene.joins(B)
    first, second = scene.send(*numbered(0, 1))
    hands_back(scene, a, first)
    scene.acknowledges(a, first)
    b.takes()
    scene.acknowledges(b, second)
    assert b.queued == [] and first.acked


def test_what_is_for_one_peer_is_handed_to_nobody_else(reliable: Scene) -> None:
    a, b = reliable.joins(A), reliable.joins(B)
    (receipt,) = reliable.send(b"0", to=A)
    hands_back(reliable, a, receipt)
    assert b.queued == [] and receipt.message_id in a.lane.unacked


def test_what_is_handed_back_too_often_is_given_up(scenes: Callable[..., Scene]) -> None:
    scene = scenes(delivery_guarantee=RELIABLE, max_resends=1)
    peers = [scene.joins(identity) for identity in (A, B, C)]
    (receipt,) = scene.send(b"0")
    for peer in peers[:2]:
        assert not receipt.failed
        hands_back(scene, peer, receipt)
    assert receipt.failed and scene.losses.undelivered == 1 and peers[2].queued == []


def test_what_somebody_has_not_got_he_cannot_hand_back(reliable: Scene) -> None:
    a, b = reliable.joins(A), reliable.joins(B)
    first, second = reliable.send(*numbered(0, 1))
    hands_back(reliable, b, first)
    reliable.sender.handed_back(b, [b"?" * 16])
    assert a.lane.unacked and reliable.sender.ledger.resent == 0
    reliable.acknowledges(a, first)
    reliable.sender.handed_back(a, [first.message_id])
    assert first.acked and b.queued == [], "it is over"
    assert not second.acked


def test_what_is_about_to_come_again_is_not_handed_on(reliable: Scene) -> None:
    a = reliable.joins(A)
    (receipt,) = reliable.send(b"0")
    a.takes()
    b = reliable.joins(B)
    for seconds in (0.0, 100.0):
        reliable.sender.resend(a, reliable.loop.clock.now + seconds)
    assert a.queued == [b"0"]
    reliable.sender.handed_back(a, [receipt.message_id])
    assert b.queued == [] and receipt.message_id in a.lane.unacked


# The end


def test_once_closed_nothing_is_sent(scene: Scene) -> None:
    a = scene.joins(A)
    scene.close()
    with pytest.raises(ClosedError):
        scene.send(b"late")
    assert a.queued == []


def test_in_a_forked_child_nothing_is_sent_or_waited_for(reliable: Scene) -> None:
    (receipt,) = reliable.send(b"0")
    reliable.life.fork()
    with pytest.raises(ForkedError):
        reliable.send(b"1")
    with pytest.raises(ForkedError):
        receipt.wait(timeout=1)


def test_at_close_what_has_not_been_sent_is_given_up_and_counted(scene: Scene) -> None:
    a = scene.joins(A)
    scene.send(*numbered(0, 1, 2))
    a.takes(1)
    scene.leaves(a)
    b = scene.joins(B)
    scene.send(b"3", to=B)
    assert scene.sender.take_all([b]) == 3
    assert scene.dropped == [("given up at close", 3, None)] and b.queued == []


def test_at_close_what_has_not_been_acknowledged_is_given_up_and_its_receipts_told(reliable: Scene) -> None:
    a = reliable.joins(A)
    receipts = reliable.send(*numbered(0, 1, 2, 3, 4))
    a.takes()
    reliable.acknowledges(a, receipts[0])

    def end() -> None:
        assert reliable.sender.take_all([a]) == 4

    reliable.meanwhile(end)
    with pytest.raises(UndeliveredError, match="unacknowledged when the Søcket was closed"):
        receipts[4].wait(timeout=1)
    assert [receipt.failed for receipt in receipts] == [False, True, True, True, True] and receipts[0].acked


def test_where_nothing_is_left_nothing_is_told(scene: Scene) -> None:
    a = scene.joins(A)
    scene.send(b"0")
    a.takes()
    assert scene.sender.take_all([a]) == 0 and scene.dropped == []


def test_what_comes_behind_the_end_is_counted(scene: Scene) -> None:
    a = scene.joins(A)
    scene.life.begin_closing()
    scene.life.end()
    assert scene.sender.take_all([a]) == 0
    scene.sender.leave(a)
    a.queue.append(data_frame(b"late", 1 << 20, Kind.PLAIN, None))  # by the short way, which looks at nothing before
    scene.sender.kick(a)
    assert scene.losses.dropped == {"given up at close": 1} and not scene.sender.router.unplaced


def test_what_a_peer_has_taken_is_what_its_computer_has() -> None:
    """The kernel here takes in large steps, and lets it go little by little."""
    scene = Scene()
    scene.joins(A)
    scene.loop.machine.missing = 500
    before = scene.sender.taken_by(A)
    scene.loop.machine.missing = 200
    assert scene.sender.taken_by(A) == before + 300
    assert scene.sender.taken_by(B) == 0
