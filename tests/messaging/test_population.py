"""Who is let in, takes over, and leaves: with peers that are nothing but names, and neighbours that write down what
they are told."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from support.servers import said
from support.stand_ins import Loop, ScriptedSocket, settings

from netmsg.messaging import population as population_module
from netmsg.messaging.carriers import Carrier
from netmsg.messaging.choices import OnDuplicate
from netmsg.messaging.connections import Connections
from netmsg.messaging.credit import Credit
from netmsg.messaging.events import Connected, Disconnected, DuplicatePeer, Event, EventQueue, HandshakeFailed
from netmsg.messaging.kept import Kept
from netmsg.messaging.lane import Lane
from netmsg.messaging.life import Life
from netmsg.messaging.places import Places
from netmsg.messaging.population import Population

OURS, A, B = b"o" * 16, b"a" * 16, b"z" * 16


class Peer:
    """In the place of `netmsg.messaging.peers.Peer`."""

    def __init__(self, neighbours: Any, sock: Any, address: Any, endpoint: Any, carrier: Carrier) -> None:
        self.home = neighbours.home
        self.io = neighbours.io
        self.sock = sock
        self.address = address
        self.endpoint = endpoint
        self.carrier = carrier
        self.identity = b""
        self.phase = "HELLO"
        self.lane = Lane(b"", nullcontext(), self, dialled=endpoint)
        self.credit: Credit | None = None
        self.open_for = self.known_for = 0.0
        self.has_spoken = self.announced = True
        self.certificate: bytes | None = None
        self.challenger: Peer | None = None
        self.probe_until = 0.0
        self.announced_interval = 5.0
        self.liveness = SimpleNamespace(timeout=15.0, last_heard=self.io.clock())
        self.known = False
        self.paused = False
        self.following = False
        self.received_messages = self.received_bytes = 0
        self.done: list[Any] = []
        """What it was told to do."""
        self.closed: list[str] = []
        self.on_look: Callable[[], None] = lambda: None

    def start(self) -> None:
        self.done.append("start")

    def introduce(self) -> None:
        self.done.append("introduce")

    def _crashed(self, error: Exception) -> None:
        self.closed.append(f"crashed: {error!r}")

    def challenge(self, old: Peer, seconds: float) -> None:
        self.done.append("challenge")
        self.io.call_later(seconds, self.probe_over, old)

    def heartbeat(self) -> None:
        self.done.append("heartbeat")

    def read_now(self) -> None:
        self.done.append("look")
        self.on_look()

    def let_in(self, credit: Credit) -> None:
        self.done.append("let in")
        self.credit = credit
        self.open_for = 60.0

    def follow(self, old: Peer, *, send: bool) -> None:
        self.done.append(("follow", old, send))
        self.following = True

    def retire(self, reason: str, *, replaced: bool = False) -> None:
        self.done.append(("retire", reason, *["replaced"] * replaced))

    def on_work(self) -> None:
        self.done.append("write")

    def bursting(self) -> bool:
        return False

    def probe_over(self, old: Peer) -> None:
        self.home.probe_over(old, self)

    def close(self, reason: str, error: BaseException | None = None) -> None:
        if not self.closed:
            self.closed.append(reason)
            self.sock.close()
            self.home.lost(self, reason, error)

    def says_hello(self, identity: bytes) -> None:
        self.identity = self.lane.identity = identity
        self.phase = "authorizing"
        self.home.greeted(self)


class Endpoint:
    def __init__(self, leads_to: bytes = b"") -> None:
        self.leads_to = leads_to
        self.done: list[Any] = []

    def opened(self, identity: bytes) -> None:
        self.done.append(("opened", identity))
        self.leads_to = identity

    def ended(self, open_for: float, reason: str, error: BaseException | None) -> None:
        self.done.append(("ended", open_for, reason))

    def rest(self, identity: bytes) -> None:
        self.done.append(("rest", identity))

    def wake(self, reason: str) -> None:
        self.done.append("wake")


class Doors:
    def __init__(self) -> None:
        self.outside: list[Any] = []
        self.regulated = 0

    def came(self, stranger: Any) -> None:
        self.outside.append(stranger)

    def introduced(self, peer: Any) -> None:
        if peer in self.outside:
            self.outside.remove(peer)

    def regulate(self) -> bool:
        self.regulated += 1
        return False


class Accounts:
    def __init__(self) -> None:
        self.holders: list[Any] = []
        self.more = 0
        """Connections that each identity has beyond those."""

    def open(self, peer: Any) -> Credit:
        self.holders.append(peer)
        return Credit(peer.identity, 10, 1000)

    def leave(self, peer: Any) -> None:
        self.holders.remove(peer)

    def connections_of(self, identity: bytes) -> int:
        return [holder.identity for holder in self.holders].count(identity) + self.more


class Sender:
    """Knows which connection of each identity messages go to."""

    def __init__(self) -> None:
        self.lanes: dict[bytes, Lane] = {}
        self.copies: dict[object, Kept] = {}
        self.router = self
        self.done: list[Any] = []
        self.woken = 0

    def find(self, identity: bytes) -> Lane | None:
        return self.lanes.get(identity)

    def join(self, peer: Any) -> None:
        self.lanes[peer.identity] = peer.lane

    def leave(self, peer: Any) -> None:
        if self.find(peer.identity) is peer.lane:
            del self.lanes[peer.identity]

    def succeed(self, old: Any, new: Any, *, finish: bool, same: bool) -> None:
        self.done.append(("succeed", finish))
        assert self.lanes[old.identity] is old.lane
        self.lanes[old.identity] = new.lane

    def ended(self, peer: Any) -> None:
        assert self.find(peer.identity) is not peer.lane

    def bring(self, endpoint: Any, peer: Any) -> None:
        self.done.append(("bring", endpoint, peer))

    def wake_all(self) -> None:
        self.woken += 1


class Receiver:
    lending = True

    def stop_lending(self) -> None:
        self.lending = False


class Closing:
    def __init__(self) -> None:
        self.has = False
        self.done: list[Any] = []

    def has_for(self, identity: bytes, way: object) -> bool:
        return self.has

    def wants(self, endpoint: Any) -> bool:
        return self.has

    def check_closed(self) -> None:
        self.done.append("check")

    def close_places(self) -> None:
        self.done.append("settle")

    def left(self, peer: Any) -> None:
        self.done.append(("left", peer))

    def finish_peer(self, peer: Any) -> None:
        self.done.append(("finish", peer))

    def finish_peers(self) -> None:
        self.done.append("finish all")


class Asking:
    def __init__(self) -> None:
        self.queue: list[Any] = []

    def add(self, newcomer: Any) -> None:
        self.queue.append(newcomer)

    def forget(self, newcomer: Any) -> None:
        if newcomer in self.queue:
            self.queue.remove(newcomer)


class Scene:
    def __init__(self, *, asking: bool = False, **changes: Any) -> None:
        self.loop = Loop()
        self.life = Life()
        self.told: list[Event] = []
        self.places = Places()
        self.connections = Connections()
        self.doors = Doors()
        self.accounts = Accounts()
        self.sender = Sender()
        self.receiver = Receiver()
        self.closing = Closing()
        self.sweeps = 0
        self.asking = Asking() if asking else None
        parts: Any = (self.doors, self.accounts, self.sender, self.receiver, self.closing)
        there: Any = SimpleNamespace(begin=self.sweep), self.asking
        self.population = Population(OURS, settings(**changes), self.life, self.loop.io, EventQueue(self.told.append),
                                     self.places, self.connections, *parts, *there)

    def sweep(self) -> None:
        self.sweeps += 1

    def comes(self, identity: bytes | None = None) -> Any:
        """Somebody dials us, and says hello if it has an identity."""
        sock: Any = ScriptedSocket()
        before = set(self.connections.handshaking)
        self.population.accepted(sock, ("192.0.2.1", 7001), Carrier())
        (peer,) = set(self.connections.handshaking) - before
        return self.greets(peer, identity)

    def dials(self, identity: bytes | None = None, endpoint: Endpoint | None = None) -> Any:
        """We dial somebody, who says hello if it has an identity."""
        sock: Any = ScriptedSocket()
        way: Any = endpoint or Endpoint()
        self.places.endpoints.append(way)
        peer: Any = self.population.connected(sock, ("example.org", 7000), way, Carrier())
        self.loop.settle()
        return self.greets(peer, identity)

    def greets(self, peer: Any, identity: bytes | None) -> Any:
        if identity is not None:
            peer.says_hello(identity)
            self.loop.settle()
        return peer

    def hangs_up(self, peer: Any) -> None:
        """What it sent before is still to be read."""
        peer.sock.hung_up = True

    def events(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.told if type(event) is kind]

    @property
    def there(self) -> list[Any]:
        """Those that messages go to."""
        return [lane.owner for lane in self.sender.lanes.values()]


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scene]:
    monkeypatch.setattr(population_module, "Peer", Peer)
    return Scene


@pytest.fixture
def scene(scenes: Callable[..., Scene]) -> Scene:
    return scenes()


# Coming


def test_who_is_accepted_waits_at_the_door_until_it_says_who_it_is(scene: Scene) -> None:
    peer = scene.comes()
    assert scene.doors.outside == [peer] and peer.done == ["start"] and scene.there == []
    peer.says_hello(A)
    assert scene.doors.outside == [] and scene.there == [peer]


def test_whom_we_have_dialled_is_no_stranger(scene: Scene) -> None:
    peer = scene.dials()
    assert scene.doors.outside == [] and peer.done == ["start"] and peer.address == ("192.0.2.1", 7001)


def test_who_is_dialled_starts_on_the_loop_when_its_endpoint_knows_it(scene: Scene) -> None:
    sock: Any = ScriptedSocket()
    endpoint: Any = Endpoint()
    carrier = Carrier(server_hostname="example.org")
    peer: Any = scene.population.connected(sock, "/run/søcket", endpoint, carrier)
    assert peer.done == [] and peer.address == "/run/søcket" and peer.carrier is carrier
    scene.loop.settle()
    assert peer.done == ["start"]


def test_one_that_has_gone_already_is_known_by_where_it_was_dialled(scene: Scene) -> None:
    sock: Any = ScriptedSocket(socket.AF_INET)
    sock.broken = OSError(errno.ENOTCONN, "not connected")
    endpoint: Any = Endpoint()
    peer: Any = scene.population.connected(sock, ("example.org", 7000), endpoint, Carrier())
    scene.loop.settle()
    assert peer.address == ("example.org", 7000) and peer.done == ["start"], "reading will tell"


def test_one_without_an_address_is_known_by_where_it_has_come_in(scene: Scene) -> None:
    sock: Any = ScriptedSocket()
    scene.population.accepted(sock, "", Carrier())
    (peer,) = scene.connections.handshaking
    assert peer.address == ("127.0.0.1", 7000)


def test_once_it_is_closed_nobody_starts(scene: Scene) -> None:
    scene.life.begin_closing()
    scene.life.end()
    peer = scene.dials()
    assert peer.closed == ["closed"] and peer.done == [] and not scene.connections.handshaking
    sock: Any = ScriptedSocket()
    scene.population.accepted(sock, ("192.0.2.1", 7001), Carrier())
    assert sock.closed


def test_one_of_our_own_identity_is_turned_away(scene: Scene) -> None:
    peer = scene.comes(OURS)
    assert "connected to itself" in peer.closed[0] and scene.there == []
    (event,) = scene.events(HandshakeFailed)
    assert event.phase == "authorizing" and not event.dialled


# Being let in


def test_who_is_let_in_exchanges_messages_and_everybody_is_told(scene: Scene) -> None:
    peer = scene.comes(A)
    assert scene.there == [peer] and peer.done == ["start", "let in", "write"] and peer.known
    assert list(scene.connections.open) == [peer] and not scene.connections.handshaking and scene.connections.made == 1
    assert [(event.peer, event.address) for event in scene.events(Connected)] == [(A, ("192.0.2.1", 7001))]
    assert scene.sender.woken and scene.sweeps == 1 and peer.credit.identity == A


def test_its_endpoint_is_told_to_whom_it_leads(scene: Scene) -> None:
    assert scene.dials(A).endpoint.done == [("opened", A)]


def test_one_that_has_hung_up_meanwhile_is_read_and_gets_nothing(scene: Scene) -> None:
    peer = scene.dials()
    way = peer.endpoint
    scene.hangs_up(peer)
    peer.says_hello(A)
    assert scene.there == [] and ("retire", "the peer closed the connection") in peer.done
    assert list(scene.connections.open) == [peer] and way.done[-1][0] == "ended", "and it is dialled again"
    again = scene.dials(A, way)
    assert scene.there == [again] and ("follow", peer, True) in again.done, "read behind the other"


def test_what_is_kept_for_an_endpoint_is_for_the_peer_it_led_to_by_whatever_way_that_comes(scene: Scene) -> None:
    way: Any = Endpoint(A)
    scene.places.endpoints.append(way)
    scene.sender.copies[way] = Kept()
    assert scene.comes(A).lane.dialled is way


def test_a_way_that_leads_to_a_peer_is_noted_though_nothing_is_kept_for_it_yet(scene: Scene) -> None:
    way: Any = Endpoint(A)
    scene.places.endpoints.append(way)
    assert scene.comes(A).lane.dialled is way
    assert scene.comes(B).lane.dialled is None
    mine = scene.dials(b"c" * 16)
    assert mine.lane.dialled is mine.endpoint


# authorize


@pytest.fixture
def asking(scenes: Callable[..., Scene]) -> Scene:
    return scenes(asking=True)


def test_who_is_asked_about_waits_for_the_verdict(asking: Scene) -> None:
    peer = asking.comes(A)
    assert asking.asking is not None and asking.asking.queue == [peer]
    assert asking.there == [] and peer in asking.connections.handshaking
    asking.population.judged(peer, True, None)
    assert asking.there == [peer]


@pytest.mark.parametrize("error, reason", [(None, "not authorized"),
                                           (ArithmeticError("?"), "authorize() raised ArithmeticError('?')")])
def test_who_is_not_wanted_is_turned_away(asking: Scene, error: BaseException | None, reason: str) -> None:
    peer = asking.comes(A)
    asking.population.judged(peer, False, error)
    (event,) = asking.events(HandshakeFailed)
    assert peer.closed == [event.reason] == [reason] and event.peer == A and event.error is error


def test_who_goes_is_not_asked_about_any_more(asking: Scene) -> None:
    peer = asking.comes(A)
    peer.close("the peer closed the connection during the handshake")
    assert asking.asking is not None and asking.asking.queue == []
    asking.population.judged(peer, True, None)
    assert asking.there == [] and peer.done == ["start"]


def test_who_is_authorized_may_still_find_its_identity_taken(scenes: Callable[..., Scene]) -> None:
    scene = scenes(asking=True, on_duplicate=OnDuplicate.REJECT)
    first, second = scene.comes(A), scene.comes(A)
    scene.population.judged(second, True, None)
    scene.population.judged(first, True, None)
    assert scene.there == [second] and first.closed


# Gone before being let in


def test_who_goes_in_the_handshake_is_told_of_by_how_far_it_came(scene: Scene) -> None:
    peer = scene.dials()
    peer.close("no end to the handshake within 10 s", TimeoutError())
    (event,) = scene.events(HandshakeFailed)
    assert (event.phase, event.dialled, event.peer) == ("HELLO", True, None)
    assert peer.endpoint.done == [("ended", 0.0, "no end to the handshake within 10 s")]
    assert not scene.connections.handshaking and not scene.events(Disconnected)


def test_who_goes_without_a_word_is_not_told_of(scene: Scene) -> None:
    peer = scene.comes()
    peer.close("")
    assert scene.told == [] and scene.doors.outside == [] and not scene.connections.handshaking


def test_while_it_closes_it_is_this_end_that_has_ended_it(scene: Scene) -> None:
    peer = scene.comes()
    scene.life.begin_closing()
    peer.close("closed")
    assert scene.events(HandshakeFailed)[0].phase == "" and scene.closing.done == [("left", peer)]


# Going


def test_who_goes_is_told_of_and_dialled_again(scene: Scene) -> None:
    peer = scene.dials(A)
    way = peer.endpoint
    woken = scene.sender.woken
    peer.close("the peer closed the connection")
    assert scene.there == [] and not scene.connections.open and scene.connections.lost == 1
    assert [event.reason for event in scene.events(Disconnected)] == ["the peer closed the connection"]
    assert way.done[-1] == ("ended", 60.0, "the peer closed the connection")
    assert scene.sender.woken > woken and scene.accounts.holders == []


def test_one_that_can_be_sent_nothing_is_gone_for_the_program_and_read_to_its_end(scene: Scene) -> None:
    peer = scene.dials(A)
    way = peer.endpoint
    scene.population.cannot_send(peer, "the connection broke", OSError())
    assert scene.there == [] and ("retire", "the connection broke") in peer.done and peer.closed == []
    assert len(scene.events(Disconnected)) == 1 and way.done[-1][0] == "ended"
    peer.close("the connection broke")
    assert len(scene.events(Disconnected)) == 1 and scene.connections.lost == 1 and len(way.done) == 2
    assert not scene.connections.open and not scene.connections.retired


def test_who_comes_again_is_read_behind_it(scene: Scene) -> None:
    peer = scene.comes(A)
    scene.population.cannot_send(peer, "the connection broke", OSError())
    again = scene.comes(A)
    assert ("follow", peer, True) in again.done and scene.there == [again]


# A second connection under one identity


def test_reject_keeps_the_old_one(scenes: Callable[..., Scene]) -> None:
    scene = scenes(on_duplicate=OnDuplicate.REJECT)
    old, new = scene.comes(A), scene.comes(A)
    assert scene.there == [old] and new.closed == ["the identity is connected already"]
    assert [event.reason for event in scene.events(DuplicatePeer)] == [
        "the new connection is closed: the identity is connected already"]


def test_an_endpoint_that_leads_to_one_who_is_there_rests_until_it_has_gone(scenes: Callable[..., Scene]) -> None:
    scene = scenes(on_duplicate=OnDuplicate.REJECT)
    old = scene.dials(A)
    way = Endpoint()
    scene.dials(A, way)
    assert way.done == [("rest", A)] and ("bring", way, old) in scene.sender.done
    old.close("over")
    assert way.done == [("rest", A), "wake"]


@pytest.mark.parametrize("policy", [OnDuplicate.PROBE, OnDuplicate.TAKEOVER])
def test_an_endpoint_is_dialled_again_whose_peer_has_come_by_another_way(scenes: Callable[..., Scene],
                                                                         policy: OnDuplicate) -> None:
    """It may have moved there, and somebody else have its address."""
    scene = scenes(on_duplicate=policy)
    way = Endpoint()
    old, new = scene.dials(A, way), scene.dials(A)
    old.close("the peer closed the connection")
    assert scene.there == [new] and way.done[-1][0] == "ended"


def test_what_is_kept_for_a_resting_endpoint_is_for_the_connection_that_is_there(scenes: Callable[..., Scene]) -> None:
    scene = scenes(on_duplicate=OnDuplicate.REJECT)
    old = scene.comes(A)
    old.open_for = 60.0
    way = Endpoint()
    scene.dials(A, way)
    assert old.lane.dialled is way


def test_takeover_replaces_it(scenes: Callable[..., Scene]) -> None:
    scene = scenes(on_duplicate=OnDuplicate.TAKEOVER)
    old, new = scene.comes(A), scene.comes(A)
    assert scene.there == [new] and old.closed == ["taken over"] and scene.sender.done == [("succeed", False)]
    assert "look" in old.done, "what it has sent is read first"
    assert [type(event) for event in scene.told] == [Connected, DuplicatePeer, Disconnected, Connected]


def test_what_it_was_dialled_by_rests_while_the_peer_is_there_by_its_own_dial(scenes: Callable[..., Scene]) -> None:
    """Or each end would dial again what the other one has just taken over from, for ever."""
    scene = scenes(on_duplicate=OnDuplicate.TAKEOVER)
    way = Endpoint()
    old = scene.dials(A, way)
    old.open_for, old.has_spoken = 60.0, True
    new = scene.comes(A)
    assert scene.there == [new] and old.closed == ["taken over"]
    assert ("rest", A) in way.done and not [done for done in way.done if done[0] == "ended"]
    new.close("over")
    assert way.done[-1] == "wake"


def test_all_that_has_come_of_the_one_that_is_replaced_is_read(scenes: Callable[..., Scene]) -> None:
    scene = scenes(on_duplicate=OnDuplicate.TAKEOVER)
    old = scene.comes(A)
    left = [100, 50, 20]

    def read() -> None:
        old.received_bytes += left.pop() if left else 0

    old.on_look = read
    scene.comes(A)
    assert old.received_bytes == 170 and old.done.count("look") == 4 and old.closed == ["taken over"]


def test_one_that_is_not_read_yet_is_replaced_and_read_in_turn(scenes: Callable[..., Scene]) -> None:
    scene = scenes(on_duplicate=OnDuplicate.TAKEOVER)
    old = scene.comes(A)
    old.following = True
    new = scene.comes(A)
    assert scene.there == [new] and old.closed == [] and "look" not in old.done
    assert ("follow", old, True) in new.done and ("retire", "taken over", "replaced") in old.done
    assert ("succeed", False) in scene.sender.done, "what it was writing goes out anew, and first"
    assert [type(event) for event in scene.told] == [Connected, DuplicatePeer, Disconnected, Connected]


def test_one_that_ends_while_it_is_looked_at_is_not_succeeded_but_replaced(scenes: Callable[..., Scene]) -> None:
    scene = scenes(on_duplicate=OnDuplicate.TAKEOVER)
    old = scene.comes(A)
    old.on_look = lambda: old.close("the peer closed the connection")
    new = scene.comes(A)
    assert scene.there == [new] and scene.sender.done == []


def test_the_same_certificate_replaces_it_at_once(scene: Scene) -> None:
    old = scene.comes(A)
    new = scene.comes()
    old.certificate = new.certificate = b"certificate"
    new.says_hello(A)
    assert scene.there == [new] and old.closed == ["the same certificate, connecting again"]


def test_another_certificate_does_not(scene: Scene) -> None:
    old = scene.comes(A)
    new = scene.comes()
    old.certificate, new.certificate = b"certificate", b"another"
    new.says_hello(A)
    assert scene.there == [old]


def test_who_has_hung_up_hands_over_to_its_next_connection(scene: Scene) -> None:
    old = scene.comes(A)
    scene.hangs_up(old)
    new = scene.comes(A)
    assert scene.there == [new] and old.closed == [] and ("succeed", True) in scene.sender.done
    assert ("follow", old, True) in new.done and ("retire", "the peer closed the connection") in old.done
    assert new.done.index("let in") < new.done.index("write"), "HELLO goes out"
    assert scene.connections.retired == {A: old}
    assert [type(event) for event in scene.told] == [Connected, DuplicatePeer, Disconnected, Connected]


def test_a_newcomer_that_has_hung_up_is_refused(scene: Scene) -> None:
    old = scene.comes(A)
    new = scene.comes()
    scene.hangs_up(new)
    new.says_hello(A)
    assert scene.there == [old] and new.closed == ["its peer has closed it"]


def test_two_that_have_hung_up_are_read_one_after_the_other(scene: Scene) -> None:
    old = scene.comes(A)
    new = scene.comes()
    scene.hangs_up(old)
    scene.hangs_up(new)
    new.says_hello(A)
    assert scene.there == [] and old.closed == new.closed == []
    assert ("follow", old, True) in new.done and scene.connections.retired == {A: new}
    assert [type(event) for event in scene.told] == [Connected, Disconnected, Connected]


def test_where_that_was_dialled_there_is_no_need_to_do_so_again(scene: Scene) -> None:
    old = scene.dials(A)
    way = Endpoint()
    new = scene.dials(endpoint=way)
    scene.hangs_up(new)
    new.says_hello(A)
    assert scene.there == [old] and way.done == [("rest", A)]


def test_too_many_connections_of_one_identity_are_refused(scene: Scene) -> None:
    old = scene.comes(A)
    scene.accounts.more = 200
    new = scene.comes(A)
    assert scene.there == [old] and "too many connections" in new.closed[0]


# Both ends have dialled


@pytest.mark.parametrize("ours_first", [True, False])
def test_of_two_that_have_crossed_the_one_dialled_by_the_greater_identity_stays(scene: Scene, ours_first: bool) -> None:
    """Ours is greater than A."""
    if ours_first:
        mine = scene.dials(A)
        mine.open_for = 0.1
        theirs = scene.comes(A)
    else:
        theirs = scene.comes(A)
        theirs.open_for = 0.1
        mine = scene.dials(A)
    assert scene.there == [mine] and mine.closed == theirs.closed == []
    assert any(step[0] == "retire" for step in theirs.done)
    assert ("follow", theirs, ours_first) in mine.done, "in its place it sends only when all of the other is read"
    assert mine.endpoint is not None and mine.endpoint.done == [("opened", A)]


@pytest.mark.parametrize("policy", OnDuplicate)
def test_so_have_those_of_which_one_took_long_to_be_let_in(scenes: Callable[..., Scene], policy: OnDuplicate) -> None:
    """It began before the other one was there."""
    scene = scenes(on_duplicate=policy)
    theirs = scene.comes(B)
    theirs.open_for = 60.0
    mine = scene.dials()
    mine.known_for = 59.9
    scene.greets(mine, B)
    assert scene.there == [theirs] and any(step[0] == "retire" for step in mine.done)


@pytest.mark.parametrize("ours_first", [True, False])
def test_and_where_that_is_theirs_our_endpoint_rests(scene: Scene, ours_first: bool) -> None:
    """Ours is smaller than B."""
    way = Endpoint()
    if ours_first:
        mine = scene.dials(B, way)
        mine.open_for = 0.1
        theirs = scene.comes(B)
    else:
        theirs = scene.comes(B)
        theirs.open_for = 0.1
        mine = scene.dials(B, way)
    assert scene.there == [theirs] and mine.closed == theirs.closed == []
    assert any(step[0] == "retire" for step in mine.done) and ("follow", mine, not ours_first) in theirs.done
    assert mine.endpoint is None and way.done[-1] == ("rest", B)
    mine.close("both ends dialled")
    assert way.done[-1] == ("rest", B), "the other is still there"
    theirs.close("over")
    assert way.done[-1] == "wake"


@pytest.mark.parametrize("identity", [A, B])
def test_that_is_so_however_long_the_other_end_has_taken_to_let_the_first_in(scene: Scene, identity: bytes) -> None:
    """As long as it has not said anything on that, it may not have done so yet, and be about to let in the second."""
    theirs = scene.comes(identity)
    theirs.has_spoken = False
    mine = scene.dials(identity)
    assert scene.there == [mine if identity == A else theirs] and mine.closed == theirs.closed == []


def test_if_the_other_end_has_said_goodbye_on_the_one_the_other_takes_over(scene: Scene) -> None:
    theirs = scene.comes(B)
    scene.hangs_up(theirs)
    mine = scene.dials(B)
    assert scene.there == [mine] and any(step[0] == "retire" for step in theirs.done)


def test_who_comes_again_is_read_behind_the_one_that_is_still_read(scene: Scene) -> None:
    mine = scene.dials(A)
    mine.open_for = 0.1
    theirs = scene.comes(A)
    mine.close("the connection broke")
    again = scene.comes(A)
    assert scene.there == [again] and ("follow", theirs, True) in again.done


def test_one_that_has_crossed_and_hung_up_is_read_all_the_same(scene: Scene) -> None:
    theirs = scene.comes(A)
    theirs.open_for = 0.1
    mine = scene.dials()
    scene.hangs_up(mine)
    mine.says_hello(A)
    assert scene.there == [theirs] and mine.closed == [] and ("follow", mine, True) in theirs.done


# Who of two is alive


def probing(scene: Scene, endpoint: Endpoint | None = None) -> tuple[Any, Any]:
    old = scene.comes(A)
    new = scene.comes(A) if endpoint is None else scene.dials(A, endpoint)
    assert old.challenger is new and "challenge" in new.done and scene.there == [old] and new.closed == []
    return old, new


def test_the_old_one_has_a_heartbeat_and_a_second_to_show_itself(scene: Scene) -> None:
    old, new = probing(scene)
    assert scene.loop.delays == [population_module.LOOK_EVERY] and old.probe_until == scene.loop.clock.now + 6.0
    assert not scene.receiver.lending, "it is listened to here"
    scene.loop.pass_time(5.9)
    assert scene.there == [old]
    scene.loop.pass_time(0.2)
    assert scene.there == [new] and old.closed == ["no sign of life, and its identity has connected again"]


def test_who_shows_itself_stays(scene: Scene) -> None:
    way = Endpoint()
    old, new = probing(scene, way)
    scene.population.survived(old)
    assert new.closed == ["the identity is connected already, and alive"] and way.done == [("rest", A)]
    assert old.challenger is None and old.probe_until == 0.0
    scene.loop.pass_time(10.0)
    assert scene.there == [old]


def test_who_rejects_says_by_whom_one_that_it_has_dialled_is_turned_away(scenes: Callable[..., Scene]) -> None:
    """It would dial again and again."""
    scene = scenes(on_duplicate=OnDuplicate.REJECT)
    scene.dials(A)
    new = scene.comes(A)
    assert new.closed == ["the identity is connected already"] and "introduce" in new.done
    another = scene.comes(B)
    twice = scene.comes(B)
    assert another.closed == [] and twice.closed and "introduce" not in twice.done, "which may yet be needed"


def test_who_rejects_for_one_that_it_has_not_heard_for_long_leaves_the_other_to_complain(
        scenes: Callable[..., Scene]) -> None:
    scene = scenes(on_duplicate=OnDuplicate.REJECT)
    scene.dials(A)
    scene.loop.pass_time(6.1)
    new = scene.comes(A)
    assert new.closed == ["the identity is connected already"] and "introduce" not in new.done


def test_who_has_dialled_one_that_has_dialled_it_is_told_by_whom_it_is_turned_away(scene: Scene) -> None:
    """It would dial again and again."""
    old, new = scene.dials(A), scene.comes(A)
    assert old.challenger is new
    scene.population.survived(old)
    assert new.closed and new.done[-1] == "introduce"


@pytest.mark.parametrize("why", ["not of our own kind", "not dialled"])
def test_others_might_take_a_hello_for_more_than_it_is(scene: Scene, why: str) -> None:
    old = scene.dials(A) if why == "not of our own kind" else scene.comes(A)
    old.announced = why == "not dialled"
    new = scene.comes(A)
    scene.population.survived(old)
    assert new.closed and "introduce" not in new.done


def test_a_challenger_is_not_waited_for_that_has_gone(scene: Scene) -> None:
    """The other end, which reads nothing else before its end, has decided that the old one stays."""
    old, new = scene.comes(A), scene.dials(A)
    assert old.challenger is new
    scene.hangs_up(new)
    scene.loop.pass_time(0.3)
    assert old.challenger is None and ("retire", "both ends dialled: the other connection stays") in new.done


def test_one_that_has_come_and_gone_has_left_something_to_be_read_perhaps(scene: Scene) -> None:
    old, new = probing(scene)
    scene.hangs_up(new)
    scene.loop.pass_time(5.0)
    assert old.challenger is new
    scene.loop.pass_time(2.0)
    assert scene.there == [new]


def test_who_shows_itself_in_the_last_moment_stays(scene: Scene) -> None:
    old, new = probing(scene)
    old.on_look = lambda: scene.population.survived(old)
    scene.loop.pass_time(10.0)
    assert scene.there == [old] and new.closed


def test_a_silent_peer_has_no_more_time_than_a_dead_one(scene: Scene) -> None:
    old = scene.comes(A)
    old.announced_interval = 3600.0
    scene.comes(A)
    assert scene.loop.delays == [population_module.LOOK_EVERY] and old.probe_until == scene.loop.clock.now + 16.0


@pytest.mark.parametrize("acknowledges", [True, False])
def test_of_one_that_is_not_read_its_system_tells_whether_it_is_alive(scene: Scene, acknowledges: bool) -> None:
    old = scene.comes(A)
    old.paused = True
    new = scene.comes(A)
    assert "heartbeat" in old.done, "which its system can acknowledge"
    old.sock.acknowledging = acknowledges
    scene.loop.pass_time(10.0)
    assert scene.there == ([old] if acknowledges else [new])


def test_one_that_has_hung_up_meanwhile_does_not_stay_though_it_is_not_read(scene: Scene) -> None:
    old = scene.comes(A)
    old.following = True
    new = scene.comes(A)
    scene.hangs_up(old)
    scene.loop.pass_time(10.0)
    assert scene.there == [new]


def test_of_several_newcomers_the_newest_waits_and_no_longer_than_the_first_would(scene: Scene) -> None:
    old, second = probing(scene)
    scene.loop.pass_time(4.0)
    third = scene.comes(A)
    assert second.closed == ["a newer connection under this identity"] and old.challenger is third
    scene.loop.pass_time(2.1)
    assert scene.there == [third] and third.closed == []


def test_when_the_old_one_goes_its_challenger_is_let_in(scene: Scene) -> None:
    old, new = probing(scene)
    old.close("the peer closed the connection")
    assert scene.there == [new]
    scene.loop.pass_time(10.0)
    assert new.closed == [] and "let in" in new.done


def test_when_the_old_one_can_be_sent_nothing_its_challenger_is_let_in_behind_it(scene: Scene) -> None:
    old, new = probing(scene)
    scene.population.cannot_send(old, "the connection broke", OSError())
    assert scene.there == [new] and ("follow", old, True) in new.done


def test_when_its_challenger_goes_the_old_one_has_nothing_to_show(scene: Scene) -> None:
    way = Endpoint()
    old, new = probing(scene, way)
    new.close("the peer closed the connection during the handshake")
    assert old.challenger is None and way.done == [("rest", A)], "the other end was the first to decide"
    scene.loop.pass_time(10.0)
    assert scene.there == [old]


def test_who_takes_over_at_once_dismisses_one_that_waits(scene: Scene) -> None:
    old, second = probing(scene)
    scene.hangs_up(old)
    third = scene.comes(A)
    assert scene.there == [third] and second.closed == ["a newer connection under this identity"]


# While the Søcket closes


def test_only_who_has_something_to_get_is_let_in(scene: Scene) -> None:
    scene.life.begin_closing()
    assert scene.comes(A).closed == ["closed"]
    scene.closing.has = True
    peer = scene.comes(B)
    assert peer.closed == [] and scene.there == [peer] and "settle" in scene.closing.done


def test_whether_an_endpoint_is_dialled_again_is_for_closing_to_say(scene: Scene) -> None:
    way: Any = Endpoint()
    assert scene.population.wants(way)
    scene.life.begin_closing()
    assert not scene.population.wants(way)
    scene.closing.has = True
    assert scene.population.wants(way)
    scene.population.without(way)
    assert scene.closing.done == ["check"]


def test_what_has_been_sent_and_acknowledged_is_told_to_closing(scene: Scene) -> None:
    peer = scene.comes(A)
    scene.population.flushed(peer)
    scene.population.acknowledged()
    assert scene.closing.done == [("finish", peer), "finish all"]


def test_one_that_cannot_start_is_closed_and_nobody_else(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> bool:
        raise ArithmeticError

    scene.doors.regulate = fail  # type: ignore[method-assign]
    assert scene.dials().closed == ["crashed: ArithmeticError()"]
    said(caplog)
