"""The reading side of a connection by itself: what comes of the bytes, when it is read, and who reads."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest
from support.channels import Outlet, Script, User, as_any
from support.lanes import lane
from support.stand_ins import Loop, ScriptedSocket, events_of
from support.wire_peer import ACK, CAPABILITIES, DATA, DATA_REQ, HEARTBEAT, capabilities, frame, hello

from netmsg.messaging.credit import Credit
from netmsg.messaging.inbox import Batch
from netmsg.messaging.life import Life
from netmsg.messaging.reading import Reading
from netmsg.reactor.channel import Channel
from netmsg.reactor.polling import READ
from netmsg.wire.messages import READ_SIZE, Capabilities
from netmsg.wire.session import Session
from netmsg.wire.version_1 import Version1

UNKNOWN = 0x7F


class Peer(User):
    """Whom it is for; closed, it delivers what is left."""

    reading: Reading[Any]
    channel: Channel

    def __init__(self) -> None:
        super().__init__()
        self.credit = Credit(b"t" * 16, 1000, 1 << 20)
        self.paused = False
        self.probe_until = 0.0
        self.closed: list[str] = []
        self.failed: list[Exception] = []
        self.worked = 0

    def received(self, chunk: bytes) -> bool:
        return self.reading.received(chunk)

    def close(self, reason: str, error: BaseException | None) -> None:
        self.closed.append(reason)
        self.channel.close()

    def bursting(self) -> bool:
        return False

    def on_work(self) -> None:
        self.worked += 1

    def _crashed(self, error: Exception) -> None:
        self.failed.append(error)


class Socket:
    """What of the Søcket there is: its inlet, its outlet and its home."""

    manual = False
    expecting = False
    fails = False

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.acks: list[bytes] = []
        self.told: list[str] = []
        self.batches: list[Batch] = []
        self.append_batch = self.batches.append
        self.lent: Reading[Any] | None = None

    def arrived(self, peer: Peer, payloads: list[bytes]) -> None:
        if self.fails:
            raise ArithmeticError
        self.messages += payloads
        peer.credit.arrived += len(payloads)

    def one_arrived(self, peer: Peer, payload: bytes) -> None:
        self.told.append("one")
        self.arrived(peer, [payload])

    def reliable_arrived(self, peer: Peer, message_ids: list[bytes], payloads: list[bytes]) -> None:
        self.arrived(peer, payloads)

    def count_taken(self) -> None:
        self.told.append("settle")

    def appended(self) -> None:
        self.told.append("appended")

    subscriptions = SimpleNamespace(any=False)

    def stop_lending(self) -> None:
        if self.lent is not None:
            self.lent.take_back()

    def acknowledged(self, peer: Any = None, message_ids: list[bytes] | None = None) -> None:
        """The outlet's, and that of the home."""
        if message_ids is None:
            self.told.append("acknowledged")
        else:
            self.acks += message_ids

    def capable(self, peer: Peer, capabilities: Capabilities) -> None:
        self.told.append("capable")

    def expects(self, peer: Peer) -> bool:
        return self.expecting

    def survived(self, peer: Peer) -> None:
        peer.probe_until = 0.0
        self.told.append("survived")


class Scene:
    """One that is let in, unless it is not to be."""

    def __init__(self, *, hwm: int = 1000, begun: bool = True) -> None:
        self.loop = Loop()
        self.sock = ScriptedSocket()
        self.transport = Script()
        self.life = Life()
        self.home = Socket()
        self.peer = Peer()
        self.peer.credit.hwm = hwm
        self.writing = SimpleNamespace(stopped=False, blocked=False)
        self.lane = lane()
        outlet: Any = Outlet()
        self.channel = Channel(self.loop.io, as_any(self.sock), self.transport, outlet, self.peer)
        neighbours: Any = SimpleNamespace(life=self.life, inlet=self.home, outlet=self.home, home=self.home)
        self.reading: Reading[Any] = Reading(self.peer, neighbours, self.loop.io, self.channel, self.lane,
                                             as_any(self.writing))
        self.peer.reading, self.peer.channel = self.reading, self.channel
        self.session = Session(b"o" * 16, Capabilities(5.0, 1000), Version1(1 << 20), dialled=False)
        self.session.greet(hello(b"t" * 16))
        self.channel.open(None)
        if begun:
            self.begin()

    def begin(self) -> None:
        self.session.welcome()
        self.reading.begin(self.session)
        self.loop.settle()
        if not self.reading.held:
            self.receives(capabilities())
        self.reading.received_bytes = 0
        self.home.told.clear()
        self.transport.sizes.clear()

    def receives(self, *chunks: bytes | OSError) -> None:
        """Each in one read."""
        self.transport.incoming.extend(chunks)
        self.loop.happens(self.sock, READ)

    @property
    def watched(self) -> str:
        return events_of(self.loop.watched(self.sock))


def data(*payloads: bytes) -> bytes:
    return b"".join(frame(DATA, payload) for payload in payloads)


def test_it_begins_with_what_has_been_received_already() -> None:
    scene = Scene(begun=False)
    scene.session.greet(data(b"hasty"))
    scene.begin()
    assert scene.home.messages == [b"hasty"] and scene.watched == "read"


def test_before_that_nothing_goes_on() -> None:
    scene = Scene(begun=False)
    scene.session.greet(data(b"hasty"))
    scene.reading.go_on()
    scene.reading.finish()
    scene.reading.discard()
    assert scene.home.messages == [] and scene.session.decoder.buffered and not scene.reading.lend()


def test_each_kind_goes_its_way() -> None:
    scene = Scene()
    several = frame(ACK, b"a" * 16) + frame(DATA_REQ, b"i" * 16 + b"please") + capabilities()
    scene.receives(data(b"alone"))
    scene.receives(several)
    assert scene.home.messages == [b"alone", b"please"] and scene.home.told == ["one", "capable"]
    assert scene.home.acks == [b"a" * 16]
    assert (scene.reading.received_messages, scene.reading.received_bytes) == (2, len(data(b"alone") + several))


def test_one_small_message_is_one_read() -> None:
    scene = Scene()
    scene.receives(data(b"1"), data(b"2"))
    assert scene.home.messages == [b"1"] and scene.transport.sizes == [READ_SIZE]


def test_of_a_large_message_as_much_is_read_as_it_needs_and_at_once() -> None:
    scene = Scene()
    whole = data(b"x" * 300_000)
    scene.receives(whole[:10], whole[10:200_000], whole[200_000:], data(b"next"))
    assert scene.home.messages == [b"x" * 300_000] and scene.transport.sizes[0] == READ_SIZE
    assert scene.transport.sizes[1:3] == [len(whole) - 10, len(whole) - 200_000]


def test_who_breaks_the_protocol_is_closed_behind_what_was_good() -> None:
    scene = Scene()
    scene.receives(data(b"good") + bytes(5))
    assert scene.home.messages == [b"good"] and scene.peer.closed == ["protocol error: an empty envelope"]


def test_it_is_read_as_far_as_there_is_room_and_again_when_there_is_some() -> None:
    scene = Scene(hwm=2)
    scene.receives(data(b"1", b"2", b"3"))
    assert scene.home.messages == [b"1", b"2"] and scene.peer.paused and scene.watched == ""
    assert scene.peer.credit.waits and scene.home.told == ["settle"], "taken since, perhaps"
    scene.peer.credit.taken = 2
    scene.reading.resume()
    assert scene.home.messages == [b"1", b"2", b"3"] and not scene.peer.paused and scene.watched == "read"


def test_an_event_from_before_the_pause_is_ignored() -> None:
    scene = Scene(hwm=1)
    scene.receives(data(b"1"))
    scene.transport.feed(data(b"2"))
    scene.channel._on_event(READ)
    assert scene.home.messages == [b"1"] and not scene.channel.paused


def test_a_failure_on_reading_on_is_told_to_the_peer_alone() -> None:
    scene = Scene(hwm=1)
    scene.receives(data(b"1", b"2"))
    scene.peer.credit.taken = 1
    scene.home.fails = True
    scene.reading.resume_safely()
    assert [type(error) for error in scene.peer.failed] == [ArithmeticError]


def test_for_acknowledgements_it_is_read_past_the_mark() -> None:
    scene = Scene(hwm=1)
    scene.home.expecting = True
    scene.receives(data(b"1", b"2", b"3") + frame(ACK, b"a" * 16))
    scene.loop.settle()
    assert scene.home.acks == [b"a" * 16] and not scene.peer.paused


def test_while_closing_there_is_room_for_everything_and_acknowledgements_are_told_of() -> None:
    scene = Scene(hwm=1)
    scene.life.begin_closing()
    scene.receives(data(b"1", b"2", b"3") + frame(ACK, b"a" * 16))
    scene.loop.settle()
    assert len(scene.home.messages) == 3 and "acknowledged" in scene.home.told


def test_a_sign_of_life_is_told_to_who_waits_for_it() -> None:
    scene = Scene()
    scene.peer.probe_until = 1.0
    scene.receives(data(b"here"))
    scene.receives(data(b"and here"))
    assert scene.home.told.count("survived") == 1


@pytest.mark.parametrize("blocked", [True, False])
def test_sending_that_had_to_wait_for_something_to_come_goes_on(blocked: bool) -> None:
    """Under TLS: whoever waits for room waits on."""
    scene = Scene()
    scene.writing.stopped, scene.writing.blocked = True, blocked
    scene.receives(data(b"something"))
    assert scene.peer.worked == (not blocked)


def test_what_was_received_is_delivered_at_the_end() -> None:
    scene = Scene(hwm=1)
    scene.receives(data(b"1", b"2", b"3"))
    scene.reading.finish()
    assert scene.home.messages == [b"1", b"2", b"3"]


def test_unless_that_has_failed() -> None:
    scene = Scene(hwm=1)
    scene.receives(data(b"1", b"2", b"3"))
    scene.reading.discard()
    scene.reading.finish()
    assert scene.home.messages == [b"1"]


# Many short ones

FLOOD = [frame(HEARTBEAT), frame(UNKNOWN), frame(DATA, b"x") + frame(HEARTBEAT), frame(ACK, b"a" * 16) + frame(UNKNOWN)]


@pytest.mark.parametrize("short", FLOOD)
def test_however_many_short_ones_come_the_others_have_their_turn(short: bytes) -> None:
    scene = Scene(hwm=100_000)
    scene.transport.incoming.extend([short * 5000 + data(b"last"), data(b"next")])
    scene.channel._on_event(READ)
    assert b"last" not in scene.home.messages and scene.session.decoder.envelopes < 1000
    assert scene.watched == "", "nothing more is received meanwhile"
    before = scene.session.decoder.envelopes
    scene.loop.turn()
    assert 0 < scene.session.decoder.envelopes - before < 1000
    scene.loop.settle()
    assert scene.home.messages[-1] == b"last" and scene.watched == "read"
    scene.loop.happens(scene.sock, READ)
    assert scene.home.messages[-1] == b"next"


def test_who_has_broken_the_protocol_waits_for_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()

    def arrived(peer: Peer, payloads: list[bytes]) -> None:
        peer.credit.arrived_bytes += 2 << 20

    monkeypatch.setattr(scene.home, "arrived", arrived)
    scene.receives(data(b"1", b"2") + frame(CAPABILITIES, b"abc"))
    assert len(scene.peer.closed) == 1 and not scene.peer.paused and not scene.peer.credit.waits


def test_while_it_waits_for_its_turn_it_may_be_another_ones() -> None:
    scene = Scene()
    scene.transport.incoming.append(frame(HEARTBEAT) * 5000 + data(b"last"))
    scene.channel._on_event(READ)
    scene.reading.hold()
    scene.loop.settle()
    assert scene.home.messages == [] and scene.watched == ""
    scene.reading.release()
    scene.loop.settle()
    assert scene.home.messages == [b"last"] and scene.watched == "read"


def test_at_the_end_all_of_them_count() -> None:
    scene = Scene()
    scene.transport.incoming.append(frame(HEARTBEAT) * 5000 + data(b"last"))
    scene.channel._on_event(READ)
    scene.reading.finish()
    assert scene.home.messages == [b"last"]


def test_each_of_several_capabilities_is_looked_at() -> None:
    scene = Scene()
    scene.receives(frame(CAPABILITIES, b"abc") + capabilities())
    assert len(scene.peer.closed) == 1 and "capabilities" not in scene.home.told


# One after the other


@pytest.mark.parametrize("begun", [True, False])
def test_it_is_not_read_before_its_turn(begun: bool) -> None:
    scene = Scene(begun=begun)
    scene.reading.hold()
    if not begun:
        scene.begin()
    assert scene.watched == ""
    scene.reading.release()
    assert scene.watched == "read"


def test_nor_when_there_is_room_before_its_turn() -> None:
    scene = Scene(hwm=2)
    scene.receives(data(b"1", b"2", b"3"))
    scene.reading.hold()
    scene.peer.credit.taken = 2
    scene.reading.resume()
    assert len(scene.home.messages) == 2
    scene.reading.release()
    assert len(scene.home.messages) == 3


def test_a_turn_before_it_is_let_in_is_no_reason_to_read() -> None:
    scene = Scene(begun=False)
    scene.channel.reading = False
    scene.reading.hold()
    scene.reading.release()
    assert not scene.channel.reading


# Lent


def lent(scene: Scene) -> Reading[Any]:
    assert scene.reading.lend()
    scene.home.lent = scene.reading
    return scene.reading


def test_who_waits_reads_by_itself() -> None:
    scene = Scene()
    reading = lent(scene)
    assert scene.watched == "" and not reading.hear()
    scene.transport.feed(data(b"message"))
    assert reading.hear() and scene.home.told == ["appended"] and scene.home.messages == []
    assert [list(batch.queue) for batch in scene.home.batches] == [[b"message"]]
    assert reading.received_messages == 1 and reading.unread == []


@pytest.mark.parametrize("got", [data(b"1", b"2"), data(b"1")[:3], b"", ConnectionResetError(errno.ECONNRESET, "r")])
def test_anything_else_is_left_and_nothing_is_read_behind_it(got: bytes | OSError) -> None:
    scene = Scene()
    reading = lent(scene)
    scene.transport.incoming.extend([got, data(b"later")])
    assert not reading.hear() and not reading.hear()
    assert reading.unread == [got] and len(scene.transport.incoming) == 1
    reading.take_back()
    assert reading.unread == [] and not reading.lent
    if got and isinstance(got, bytes):
        assert scene.watched == "read" and scene.home.messages == [b"1", b"2"][:2 * (len(got) > 3)]
    else:
        assert scene.watched == "" and scene.peer.told[-1][0] == "ended"


def test_what_was_left_may_be_more_than_there_is_room_for() -> None:
    scene = Scene(hwm=1)
    reading = lent(scene)
    scene.transport.feed(data(b"1", b"2"))
    reading.hear()
    reading.take_back()
    assert scene.home.messages == [b"1"] and scene.peer.paused and scene.watched == ""


@pytest.mark.parametrize("step", [Reading.read_now, Reading.hold])
def test_who_needs_the_right_to_read_takes_it_back(step: Any) -> None:
    scene = Scene()
    reading = lent(scene)
    scene.transport.feed(data(b"1", b"2"))
    reading.hear()
    step(reading)
    assert not reading.lent and scene.home.messages == [b"1", b"2"]


@pytest.mark.parametrize("why", ["held", "half a frame", "closed"])
def test_it_is_not_lent_where_more_goes_on(why: str) -> None:
    scene = Scene()
    if why == "held":
        scene.reading.hold()
    elif why == "closed":
        scene.channel.close()
    else:
        scene.receives(data(b"half")[:6])
    assert not scene.reading.lend() and not scene.reading.lent


def test_a_look_reads_what_is_there() -> None:
    scene = Scene()
    scene.transport.feed(data(b"here"))
    scene.reading.read_now()
    assert scene.home.messages == [b"here"]
