"""One connection of a Søcket, by itself: the socket, the loop and the neighbours are stand-ins."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.servers import said
from support.stand_ins import Loop, ScriptedSocket, events_of, settings
from support.wire_peer import ACK, CAPABILITIES, DATA, DATA_REQ, HEARTBEAT, NACK, capabilities, frame, hello

from netmsg.errors import ConnectionBrokenError, RemoteProtocolError, TLSHandshakeError
from netmsg.messaging import carriers, peers, writing
from netmsg.messaging.carriers import Carrier
from netmsg.messaging.credit import Credit
from netmsg.messaging.inbox import Batch
from netmsg.messaging.lane import Lane
from netmsg.messaging.life import Life
from netmsg.messaging.neighbours import Neighbours
from netmsg.messaging.peers import Peer
from netmsg.reactor import handshaking
from netmsg.reactor.polling import READ, WRITE
from netmsg.wire.envelope import FAILURE, REPLY, REQUEST, SUBSCRIBE, UNSUBSCRIBE, data_frame
from netmsg.wire.messages import Capabilities

OURS = b"o" * 16
THEIRS = b"t" * 16
OUR_CAPABILITIES = frame(CAPABILITIES, b"\0\0\x13\x88" b"\0\0\x03\xe8" b"\0\0\0\0")


class Inlet:
    """Counts messages as the receiving half does."""

    by_hand = False

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.reliable: list[tuple[bytes, bytes]] = []
        self.requests: list[tuple[bytes, bytes]] = []
        self.ways: list[str] = []
        """By which call the messages came."""
        self.batches: list[Batch] = []
        self.append_batch = self.batches.append
        self.told = 0
        self.lent: list[Peer] = []
        self.untold: Callable[[], None] = lambda: None
        """What `count_taken` is to find."""
        self.fails = False

    def arrived(self, peer: Peer, payloads: list[bytes]) -> None:
        if self.fails:
            raise ArithmeticError("on arrival")
        self.ways.append("several")
        self.messages += payloads
        peer.credit.arrived += len(payloads)

    def one_arrived(self, peer: Peer, payload: bytes) -> None:
        self.arrived(peer, [payload])
        self.ways[-1] = "one"

    def requests_arrived(self, peer: Peer, correlation_ids: list[bytes], payloads: list[bytes]) -> None:
        self.requests += zip(correlation_ids, payloads)

    def reliable_arrived(self, peer: Peer, message_ids: list[bytes], payloads: list[bytes]) -> None:
        self.reliable += zip(message_ids, payloads)
        peer.credit.arrived += len(payloads)

    def count_taken(self) -> None:
        self.untold()

    def appended(self) -> None:
        self.told += 1

    def stop_lending(self) -> None:
        for peer in self.lent:
            peer.take_back()

    subscriptions = SimpleNamespace(any=False)


class Outlet:
    def __init__(self) -> None:
        self.acks: list[bytes] = []
        self.nacks: list[bytes] = []
        self.prefixes: list[bytes] = []
        self.answers: list[tuple[bytes, bytes]] = []
        self.failures: list[tuple[bytes, bytes]] = []
        self.capabilities: list[Capabilities] = []
        self.given_back: list[Any] = []
        self.flushes = 0
        self.expecting = False

    def acknowledged(self, peer: Peer, message_ids: list[bytes]) -> None:
        self.acks += message_ids

    def handed_back(self, peer: Peer, message_ids: list[bytes]) -> None:
        self.nacks += message_ids

    def subscribed(self, peer: Peer, prefixes: list[bytes]) -> None:
        if b"too much" in prefixes:
            raise RemoteProtocolError("too much")
        self.prefixes += prefixes

    def unsubscribed(self, peer: Peer, prefixes: list[bytes]) -> None:
        for prefix in prefixes:
            self.prefixes.remove(prefix)

    def answered(self, peer: Peer, correlation_ids: list[bytes], replies: list[bytes]) -> None:
        self.answers += zip(correlation_ids, replies)

    def refused(self, peer: Peer, correlation_ids: list[bytes], reasons: list[bytes]) -> None:
        self.failures += zip(correlation_ids, reasons)

    def capable(self, peer: Peer, capabilities: Capabilities) -> None:
        self.capabilities.append(capabilities)

    def expects(self, peer: Peer) -> bool:
        return self.expecting

    def give_back(self, lane: Lane) -> None:
        with lane.lock:
            self.given_back += lane.take_back()

    def flushed(self, peer: Peer) -> None:
        self.flushes += 1


class Home:
    """Lets everybody in who comes, if it is told to."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.credit: Credit | None = None

    def greeted(self, peer: Peer) -> None:
        self.said.append(("greeted", peer.identity))
        if self.credit is not None:
            peer.let_in(self.credit)

    def judged(self, peer: Peer, verdict: bool, error: BaseException | None) -> None:
        self.said.append(("judged", verdict, error))

    def survived(self, peer: Peer) -> None:
        peer.probe_until = 0.0
        self.said.append(("survived",))

    def probe_over(self, old: Peer, challenger: Peer) -> None:
        self.said.append(("probe over", old, challenger))

    def flushed(self, peer: Peer) -> None:
        self.said.append(("flushed",))

    def acknowledged(self) -> None:
        self.said.append(("acknowledged",))

    def handed_back(self) -> None:
        self.said.append(("handed back",))

    def cannot_send(self, peer: Peer, reason: str, error: BaseException | None) -> None:
        self.said.append(("cannot send", reason))
        peer.retire(reason)

    def lost(self, peer: Peer, reason: str, error: BaseException | None) -> None:
        self.said.append(("lost", reason))
        self.error = error


class Way:
    """What was dialled."""

    took_leave = False


class Scene:
    """A peer, and all around it."""

    def __init__(self, **changes: Any) -> None:
        self.loop = Loop()
        self.life = Life()
        self.inlet = Inlet()
        self.outlet = Outlet()
        self.home = Home()
        self.settings = settings(**changes)
        self.sock = ScriptedSocket()
        self.neighbours = Neighbours(OURS, Capabilities(5.0, 1000), self.settings, self.life, self.loop.io, self.inlet,
                                     self.outlet, self.home)

    def peer(self, *, dialled: bool = False, sock: ScriptedSocket | None = None, context: Any = None) -> Peer:
        way: Any = Way() if dialled else None
        fake: Any = sock or self.sock
        return Peer(self.neighbours, fake, ("192.0.2.1", 7001), way, Carrier(context))

    def started(self, **options: Any) -> Peer:
        peer = self.peer(**options)
        self.loop.io.call(peer.start)
        self.loop.settle()
        return peer

    def open(self, sock: ScriptedSocket | None = None) -> Peer:
        """One that has been let in, and has told what it is capable of, with nothing sent or said yet but that."""
        self.home.credit = Credit(THEIRS, self.settings.recv_hwm, self.settings.recv_hwm_bytes)
        peer = self.started(sock=sock)
        self.receives(hello(THEIRS), sock=sock)
        self.receives(capabilities(), sock=sock)
        (sock or self.sock).take_sent()
        self.home.said.clear()
        self.outlet.capabilities.clear()
        self.outlet.flushes = 0
        return peer

    def receives(self, *chunks: bytes | OSError, sock: ScriptedSocket | None = None) -> None:
        """Each in one read."""
        sock = sock or self.sock
        sock.coming.extend(chunks)
        self.loop.happens(sock, READ)

    def sends(self, peer: Peer, *payloads: bytes) -> None:
        for payload in payloads:
            peer.queue.append(frame(DATA, payload))
        self.loop.io.work[peer] = None
        self.loop.settle()

    @property
    def watched(self) -> str:
        return events_of(self.loop.watched(self.sock))

    @property
    def lost(self) -> list[str]:
        """Why the peer has gone, each time."""
        return [said[1] for said in self.home.said if said[0] == "lost"]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def numbered(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


def data(*payloads: bytes) -> bytes:
    return b"".join(frame(DATA, payload) for payload in payloads)


# The handshake


@pytest.mark.parametrize("family, options", [
    (socket.AF_INET, [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]),
    (socket.AF_INET6, [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]),
    (socket.AF_UNIX, []),
])
def test_small_messages_are_not_kept_back(scene: Scene, family: socket.AddressFamily, options: list[Any]) -> None:
    sock = ScriptedSocket(family)
    scene.peer(sock=sock)
    assert sock.options == options


def test_who_has_dialled_says_hello_at_once(scene: Scene) -> None:
    peer = scene.started(dialled=True)
    assert scene.sock.sent == hello(OURS) and isinstance(peer.endpoint, Way) and peer.lane.dialled is peer.endpoint


def test_who_is_dialled_listens_first_and_answers_when_the_other_is_let_in(scene: Scene) -> None:
    peer = scene.started()
    assert scene.sock.sent == b"" and scene.watched == "read"
    scene.receives(hello(THEIRS))
    assert scene.home.said == [("greeted", THEIRS)] and scene.sock.sent == b""
    peer.let_in(Credit(THEIRS, 10, 1000))
    scene.loop.settle()
    assert scene.sock.sent == hello(OURS) + OUR_CAPABILITIES


def test_who_has_dialled_adds_what_it_is_capable_of_once_the_other_has_said_hello(scene: Scene) -> None:
    scene.home.credit = Credit(THEIRS, 10, 1000)
    scene.started(dialled=True)
    scene.sock.take_sent()
    scene.receives(hello(THEIRS))
    assert scene.sock.sent == OUR_CAPABILITIES


def test_hello_may_come_byte_by_byte(scene: Scene) -> None:
    scene.started()
    for byte in hello(THEIRS):
        assert scene.home.said == []
        scene.receives(bytes((byte,)))
    assert scene.home.said == [("greeted", THEIRS)]


def test_the_end_of_one_who_waits_to_be_let_in_is_noticed(scene: Scene) -> None:
    scene.started(dialled=True)
    scene.receives(hello(THEIRS))
    assert scene.watched == "read"
    scene.receives(b"")
    assert scene.lost == ["the peer closed the connection during the handshake"]


def test_what_comes_behind_hello_waits_in_the_kernel_until_it_is_let_in(scene: Scene) -> None:
    peer = scene.started()
    scene.receives(hello(THEIRS) + data(b"first"))
    assert scene.watched == ""
    scene.sock.coming.append(data(b"second"))
    scene.loop.happens(scene.sock, READ)
    assert scene.inlet.messages == []
    peer.let_in(Credit(THEIRS, 1000, 1000))
    scene.loop.settle()
    assert scene.inlet.messages == [b"first"] and scene.watched == "read"
    scene.loop.happens(scene.sock, READ)
    assert scene.inlet.messages == [b"first", b"second"]


def test_the_handshake_has_its_time(scene: Scene) -> None:
    scene.started()
    scene.loop.pass_time(9.9)
    assert scene.lost == []
    scene.loop.pass_time(0.2)
    assert scene.lost == ["no end to the handshake within 10 s"]
    assert isinstance(scene.home.error, TimeoutError) and scene.sock.closed


def test_the_time_is_over_when_it_is_let_in(scene: Scene) -> None:
    peer = scene.started()
    scene.receives(hello(THEIRS))
    peer.let_in(Credit(THEIRS, 10, 1000))
    scene.loop.pass_time(60.0)
    assert scene.lost == []


def test_a_challenger_waits_for_as_long_as_the_old_one_has_to_show_itself(scene: Scene) -> None:
    peer = scene.started()
    scene.receives(hello(THEIRS))
    peer.challenge(peer, 20.0)
    scene.loop.pass_time(19.9)
    assert scene.lost == [] and ("probe over", peer, peer) not in scene.home.said
    scene.loop.pass_time(0.2)
    assert scene.lost == [] and ("probe over", peer, peer) in scene.home.said


@pytest.mark.parametrize("end", ["let in", "closed"])
def test_no_timer_is_left_of_a_challenger(scene: Scene, end: str) -> None:
    peer = scene.started()
    scene.receives(hello(THEIRS))
    peer.challenge(peer, 20.0)
    if end == "closed":
        peer.close("a newer connection under this identity", None)
    else:
        peer.let_in(Credit(THEIRS, 10, 1000))
    scene.loop.pass_time(60.0)
    assert ("probe over", peer, peer) not in scene.home.said


@pytest.mark.parametrize("end", [b"", ConnectionResetError(errno.ECONNRESET, "reset")], ids=["end", "reset"])
def test_a_port_scan_goes_unreported(scene: Scene, end: bytes | OSError) -> None:
    scene.started()
    scene.receives(end)
    assert scene.lost == [""] and scene.sock.closed


def test_a_connection_that_breaks_in_the_handshake_is_reported(scene: Scene) -> None:
    scene.started(dialled=True)
    scene.receives(ConnectionResetError(errno.ECONNRESET, "reset"))
    assert scene.lost == ["the connection broke: [Errno 104] reset"]
    assert isinstance(scene.home.error, ConnectionBrokenError)


def test_a_hello_that_cannot_be_sent_is_the_end(scene: Scene) -> None:
    scene.sock.broken = BrokenPipeError(errno.EPIPE, "broken")
    scene.started(dialled=True)
    assert scene.lost == ["the connection broke: [Errno 32] broken"]


def test_something_else_than_a_søcket_is_turned_away(scene: Scene) -> None:
    scene.started()
    scene.receives(b"SSH-2.0-OpenSSH_9.2\r\n")
    assert "not a Søcket" in scene.lost[0] and isinstance(scene.home.error, RemoteProtocolError)
    assert scene.sock.sent == b"" and scene.sock.closed


def test_a_browser_is_told_that_it_may_not(scene: Scene) -> None:
    scene.started()
    scene.receives(b"GET / HTTP/1.1\r\n\r\n")
    assert scene.sock.sent.startswith(b"HTTP/1.1 403 Forbidden") and scene.sock.half_closed
    assert "WebSocket" in scene.lost[0]


def test_how_far_it_has_come(scene: Scene) -> None:
    peer = scene.started()
    assert peer.phase == "HELLO" and peer.open_for == 0.0
    scene.receives(hello(THEIRS))
    assert peer.phase == "authorizing"
    peer.let_in(Credit(THEIRS, 10, 1000))
    scene.loop.pass_time(3.0)
    assert peer.open_for == 3.0


# TLS


class ScriptedTLS:
    """A transport whose handshake goes as the test says."""

    calls_back = False
    answered = False
    tls = None
    unsent = False

    def __init__(self, below: Any, context: Any, **options: Any) -> None:
        self.steps: list[OSError | None] = context.steps
        self.handshaking = True
        self.options = options
        self.readable = context.readable
        self.calls_back = context.calls_back
        self.below = below
        self.sock = below._socket
        self.taken = 0
        """Bytes of which the number is not told yet."""
        self.steps_taken = 0
        self.flushes = 0
        self.send_one, self.send_many, self.end_sending = below.send_one, below.send_many, below.end_sending

    def handshake(self) -> None:
        self.steps_taken += 1
        outcome = self.steps.pop(0) if self.steps else None
        if outcome is not None:
            raise outcome
        self.handshaking = False

    def receive(self, size: int) -> bytes:
        """All that has come is in here with the first of it."""
        self.readable = False
        received: bytes = self.below.receive(size)
        self.readable = bool(self.sock.coming)
        return received

    def flush(self) -> None:
        self.flushes += 1
        if self.sock.broken is not None:
            raise self.sock.broken
        self.unsent = False

    def unreported(self) -> int:
        return self.taken


class TLSScript:
    """In the place of a context: what the handshake is to do."""

    def __init__(self, *steps: OSError | None, readable: bool = False, calls_back: bool = False) -> None:
        self.steps = [*steps]
        self.readable = readable
        self.calls_back = calls_back


@pytest.fixture
def scripted_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in carriers, writing:
        monkeypatch.setattr(module, "TLSTransport", ScriptedTLS)


@pytest.mark.usefixtures("scripted_tls")
def test_tls_comes_before_hello(scene: Scene) -> None:
    peer = scene.started(dialled=True, context=TLSScript(BlockingIOError()))
    assert scene.sock.sent == b"" and peer.phase == "TLS" and scene.watched == "read"
    scene.loop.happens(scene.sock, READ)
    assert scene.sock.sent == hello(OURS) and peer.phase == "HELLO"


@pytest.mark.usefixtures("scripted_tls")
@pytest.mark.parametrize("dialled", [True, False])
def test_who_was_dialled_is_the_server_of_tls(scene: Scene, dialled: bool) -> None:
    transport: Any = scene.started(dialled=dialled, context=TLSScript()).channel.transport
    assert transport.options["server_side"] is not dialled


@pytest.mark.usefixtures("scripted_tls")
def test_what_came_with_the_end_of_the_handshake_is_read_without_an_event(scene: Scene) -> None:
    scene.sock.coming.append(hello(THEIRS))
    scene.started(context=TLSScript(readable=True))
    assert scene.home.said == [("greeted", THEIRS)]


@pytest.mark.usefixtures("scripted_tls")
def test_a_step_that_could_go_on_goes_on_in_another_round(scene: Scene) -> None:
    peer = scene.peer(context=TLSScript(BlockingIOError(), readable=True))
    scene.loop.io.handshake_steps = 1
    peer.start()
    transport: Any = peer.channel.transport
    assert transport.steps_taken == 1, "the others have their turn"
    scene.loop.settle()
    assert not transport.handshaking


@pytest.mark.usefixtures("scripted_tls")
def test_when_a_round_has_taken_its_steps_the_rest_waits_for_the_next(scene: Scene) -> None:
    peer = scene.peer(dialled=True, context=TLSScript())
    scene.loop.io.handshake_steps = 0
    peer.start()
    transport: Any = peer.channel.transport
    assert transport.steps_taken == 0
    scene.loop.settle()
    assert transport.steps_taken == 1


@pytest.mark.usefixtures("scripted_tls")
@pytest.mark.parametrize("failure, reason", [
    (TLSHandshakeError("no"), "TLS: no"),
    (ConnectionResetError(errno.ECONNRESET, "reset"),
     "the connection broke during the TLS handshake: [Errno 104] reset"),
], ids=["refused", "broken"])
def test_the_handshake_of_tls_fails(scene: Scene, failure: OSError, reason: str) -> None:
    scene.started(context=TLSScript(failure))
    assert scene.lost == [reason] and scene.home.error is failure


@pytest.mark.usefixtures("scripted_tls")
def test_a_step_that_calls_the_users_function_is_taken_aside(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    aside: list[Callable[[OSError | None], None]] = []
    monkeypatch.setattr(handshaking, "step_aside", lambda io, transport, done: aside.append(done))
    peer = scene.started(context=TLSScript(calls_back=True))
    assert scene.watched == "", "nobody else uses the transport meanwhile"
    aside[0](BlockingIOError())
    assert scene.watched == "read"
    scene.loop.happens(scene.sock, READ)
    peer.channel.transport.handshaking = False
    aside[1](None)
    assert scene.watched == "read" and scene.lost == []
    assert len(aside) == 2


@pytest.mark.usefixtures("scripted_tls")
def test_a_step_aside_that_comes_back_too_late_is_ignored(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    aside: list[Callable[[OSError | None], None]] = []
    monkeypatch.setattr(handshaking, "step_aside", lambda io, transport, done: aside.append(done))
    scene.started(context=TLSScript(calls_back=True))
    scene.loop.pass_time(10.0)
    aside[0](None)
    assert scene.lost == ["no end to the handshake within 10 s"] and scene.watched == ""


@pytest.mark.usefixtures("scripted_tls")
def test_what_tls_has_to_say_by_itself_is_flushed_when_there_is_room(scene: Scene) -> None:
    transport: Any = scene.started(context=TLSScript()).channel.transport
    transport.unsent = True
    scene.receives(hello(THEIRS))
    assert scene.watched == "both"
    scene.loop.happens(scene.sock, WRITE)
    assert transport.flushes == 1 and scene.watched == "read"


def encrypted(scene: Scene) -> tuple[Peer, Any]:
    """One that has been let in, and its transport."""
    scene.home.credit = Credit(THEIRS, 1000, 1000)
    peer = scene.started(context=TLSScript())
    scene.receives(hello(THEIRS))
    scene.home.said.clear()
    scene.sock.take_sent()
    return peer, peer.channel.transport


@pytest.mark.usefixtures("scripted_tls")
def test_what_tls_has_to_say_by_itself_cannot_be_flushed(scene: Scene) -> None:
    peer, transport = encrypted(scene)
    transport.unsent = True
    scene.sock.broken = BrokenPipeError(errno.EPIPE, "broken")
    peer.on_work()
    peer.on_work()
    assert scene.home.said == [("cannot send", "the connection broke: [Errno 32] broken")]
    assert transport.flushes == 1 and scene.lost == [], "what has come is still to be read"
    scene.receives(data(b"last words"), b"")
    scene.loop.settle()
    assert scene.inlet.messages == [b"last words"] and len(scene.lost) == 1


@pytest.mark.usefixtures("scripted_tls")
def test_one_that_is_closing_and_cannot_be_flushed_is_not_told_of_room_for_ever(scene: Scene) -> None:
    peer, transport = encrypted(scene)
    transport.unsent = True
    peer.channel.watch()
    peer.closing = True
    scene.sock.broken = BrokenPipeError(errno.EPIPE, "broken")
    assert scene.watched == "both"
    peer.on_work()
    assert scene.watched == "read"


@pytest.mark.usefixtures("scripted_tls")
def test_one_that_cannot_be_flushed_waits_for_its_turn_to_be_read(scene: Scene) -> None:
    peer, transport = encrypted(scene)
    old = scene.peer()
    peer.follow(old, send=True)
    transport.unsent = True
    scene.sock.broken = BrokenPipeError(errno.EPIPE, "broken")
    peer.on_work()
    assert scene.lost == [] and peer.following


@pytest.mark.usefixtures("scripted_tls")
def test_what_is_received_and_not_read_yet_is_read_without_an_event(scene: Scene) -> None:
    encrypted(scene)
    scene.receives(*[data(b"%d" % number) for number in range(40)])
    assert scene.inlet.messages == numbered(*range(40))


@pytest.mark.usefixtures("scripted_tls")
def test_sending_under_tls_that_could_not_go_on_does_so_when_something_has_come(scene: Scene) -> None:
    """It renegotiates."""
    peer, _ = encrypted(scene)
    scene.sock.room = 0
    scene.sends(peer, b"message")
    assert peer.blocked and scene.watched == "read"
    scene.sock.room = 1000
    scene.receives(data(b"something"))
    assert scene.sock.sent == data(b"message") and not peer.blocked


@pytest.mark.usefixtures("scripted_tls")
def test_and_also_when_that_was_nothing_but_tls(scene: Scene) -> None:
    peer, _ = encrypted(scene)
    scene.sock.room = 0
    scene.sends(peer, b"message")
    scene.sock.room = 1000
    scene.loop.happens(scene.sock, READ)
    assert scene.sock.sent == data(b"message") and not peer.blocked


@pytest.mark.usefixtures("scripted_tls")
@pytest.mark.parametrize("writing", [True, False])
def test_the_goodbye_is_returned_unless_it_would_stand_behind_half_a_message(scene: Scene, writing: bool) -> None:
    """Which the other end would take for a whole one."""
    peer, _ = encrypted(scene)
    if writing:
        scene.sock.room = 3
        scene.sends(peer, b"message")
    scene.receives(b"")
    assert scene.sock.half_closed is not writing and scene.lost == ["the peer closed the connection"]


@pytest.mark.usefixtures("scripted_tls")
def test_what_tls_has_taken_and_not_told_of_counts_as_sent_at_the_end(scene: Scene) -> None:
    peer, transport = encrypted(scene)
    scene.sock.room = 0
    scene.sends(peer, b"one", b"two")
    transport.taken = len(data(b"one"))
    peer.close("over", None)
    with peer.lane.lock:
        assert peer.lane.take_back() == [data(b"two")]


def test_a_certificate_is_shown_under_tls_alone(scene: Scene) -> None:
    assert scene.open().certificate is None


# Reading


def test_a_message_that_comes_alone_goes_the_short_way(scene: Scene) -> None:
    peer = scene.open()
    scene.receives(data(b"alone"))
    scene.receives(data(b"1", b"2"))
    assert scene.inlet.messages == [b"alone", b"1", b"2"] and scene.inlet.ways == ["one", "several"]
    assert peer.received_messages == 3


def test_where_there_is_little_room_none_goes_the_short_way() -> None:
    scene = Scene(recv_hwm=100)
    scene.open()
    scene.receives(data(b"alone"))
    assert scene.inlet.messages == [b"alone"] and scene.inlet.ways == ["several"]


def test_each_kind_of_envelope_goes_its_way(scene: Scene) -> None:
    peer = scene.open()
    scene.receives(frame(ACK, b"a" * 16) + frame(HEARTBEAT) + frame(DATA_REQ, b"i" * 16 + b"please")
                   + capabilities(2500, 40) + data(b"plain") + frame(0x7F, b"?") + frame(REQUEST, b"q" * 16 + b"what")
                   + frame(REPLY, b"r" * 16 + b"that") + frame(FAILURE, b"f" * 16 + b"why")
                   + frame(NACK, b"n" * 16) + frame(NACK, b"m" * 16))
    assert scene.outlet.nacks == [b"n" * 16, b"m" * 16]
    assert scene.outlet.acks == [b"a" * 16] and scene.outlet.capabilities == [Capabilities(2.5, 40)]
    assert scene.inlet.reliable == [(b"i" * 16, b"please")] and scene.inlet.messages == [b"plain"]
    assert scene.inlet.requests == [(b"q" * 16, b"what")]
    assert scene.outlet.answers == [(b"r" * 16, b"that")] and scene.outlet.failures == [(b"f" * 16, b"why")]
    assert peer.received_messages == 5


def test_what_it_subscribes_to_is_told_and_too_much_is_the_end(scene: Scene) -> None:
    scene.open()
    scene.receives(frame(SUBSCRIBE, b"a") + frame(SUBSCRIBE, b"b") + frame(SUBSCRIBE) + frame(UNSUBSCRIBE, b"a"))
    assert scene.outlet.prefixes == [b"b", b""] and scene.lost == []
    scene.receives(frame(SUBSCRIBE, b"x" * 255))
    assert scene.outlet.prefixes[-1] == b"x" * 255 and scene.lost == []
    scene.receives(frame(SUBSCRIBE, b"too much"))
    assert scene.lost == ["protocol error: too much"]


def test_subscriptions_are_told_in_their_order_and_no_more_at_once_than_leaves_it_reading(scene: Scene) -> None:
    peer = scene.open()
    scene.sock.room = 0
    wanted = [b"%0250d" % number for number in range(5000)]
    peer.subscribe(wanted, True)
    peer.subscribe(wanted[:1], False)
    peer.subscribe([b"last", wanted[0]], True)
    scene.loop.settle()
    assert peer.lane.control_bytes < 300_000
    scene.sock.room = 1 << 62
    scene.loop.happens(scene.sock, WRITE)
    assert scene.sock.sent == b"".join([*(frame(SUBSCRIBE, prefix) for prefix in wanted), frame(UNSUBSCRIBE, wanted[0]),
                                        frame(SUBSCRIBE, b"last"), frame(SUBSCRIBE, wanted[0])])


def test_who_does_not_hear_of_them_is_told_what_they_came_to(scene: Scene) -> None:
    """And never of more at a time than there may be."""
    peer = scene.open()
    peer.lane.control_bytes = 1 << 20
    for number in range(50_000):
        peer.subscribe([b"%d" % number], True)
        peer.subscribe([b"%d" % (number - 1)], False)
    peer.lane.control_bytes = 0
    scene.loop.settle()
    told = scene.sock.sent
    assert len(told) < 50_000 * len(frame(SUBSCRIBE, b"49999")), "half of it is not told"
    assert told.endswith(frame(SUBSCRIBE, b"49999") + frame(UNSUBSCRIBE, b"49998"))
    there: set[bytes] = set()
    while told:
        size = int.from_bytes(told[:4], "big")
        kind, prefix, told = told[4], told[5:4 + size], told[4 + size:]
        there = there | {prefix} if kind == SUBSCRIBE else there - {prefix}
        assert len(there) <= 2
    assert there == {b"49999"}


def test_who_is_only_read_is_told_of_no_subscription(scene: Scene) -> None:
    """It would be written behind the end, and what is still to be read be lost to the error."""
    peer = scene.open()
    peer.subscribe([b"a"], True)
    scene.loop.settle()
    assert scene.sock.sent == frame(SUBSCRIBE, b"a")
    peer.retire("another one")
    scene.loop.settle()
    peer.subscribe([b"b"], True)
    scene.loop.settle()
    assert scene.sock.sent == frame(SUBSCRIBE, b"a") and scene.lost == []


@pytest.mark.parametrize("kind", [SUBSCRIBE, UNSUBSCRIBE])
def test_a_prefix_that_is_too_long_is_the_end(scene: Scene, kind: int) -> None:
    scene.open()
    scene.receives(frame(kind, b"x" * 256))
    assert len(scene.lost) == 1 and "SUBSCRIBE of 257 bytes" in scene.lost[0]


def test_acknowledgements_are_told_at_home_while_closing(scene: Scene) -> None:
    scene.open()
    scene.receives(frame(ACK, b"a" * 16) + frame(NACK, b"n" * 16))
    assert scene.home.said == []
    scene.life.begin_closing()
    scene.receives(frame(ACK, b"b" * 16))
    assert ("acknowledged",) in scene.home.said


def test_capabilities_that_make_no_sense_are_the_end(scene: Scene) -> None:
    scene.open()
    scene.receives(frame(CAPABILITIES, b"?"))
    assert scene.lost == ["protocol error: CAPABILITIES of 1 bytes"]


def test_what_came_before_a_violation_of_the_protocol_is_delivered(scene: Scene) -> None:
    scene.open()
    scene.receives(data(b"good") + b"\0\0\0\0\0")
    assert scene.inlet.messages == [b"good"]
    assert scene.lost == ["protocol error: an empty envelope"] and scene.sock.closed


def test_a_violation_behind_the_mark_is_found_at_the_end_and_is_its_reason() -> None:
    scene = Scene(recv_hwm=2)
    peer = scene.open()
    scene.receives(data(*numbered(0, 1, 2)) + b"\0\0\0\0\0")
    peer.close("over", None)
    assert scene.inlet.messages == numbered(0, 1, 2) and scene.lost == ["protocol error: an empty envelope"]


def test_one_peer_has_no_more_than_its_share_of_a_round(scene: Scene) -> None:
    scene.open()
    scene.receives(frame(DATA, b"x" * 100_000)[:10])
    scene.sock.coming.extend([b"x"] * 20)
    scene.loop.happens(scene.sock, READ)
    assert len(scene.sock.coming) == 4, "the rest is for another round"
    scene.loop.happens(scene.sock, READ)
    assert not scene.sock.coming


def test_with_the_room_used_up_it_is_not_read_any_more() -> None:
    scene = Scene(recv_hwm=4)
    peer = scene.open()
    scene.receives(data(*numbered(0, 1, 2, 3, 4, 5)))
    assert scene.inlet.messages == numbered(0, 1, 2, 3)
    assert peer.paused and peer.credit.waits and scene.watched == ""


def test_nor_where_it_has_sent_exactly_as_much_as_there_is_room_for() -> None:
    scene = Scene(recv_hwm=4)
    peer = scene.open()
    scene.receives(data(*numbered(0, 1, 2, 3)))
    assert len(scene.inlet.messages) == 4 and peer.paused and scene.watched == ""


def test_it_is_read_again_when_half_of_the_room_is_there() -> None:
    scene = Scene(recv_hwm=4)
    peer = scene.open()
    scene.receives(data(*numbered(0, 1, 2, 3, 4, 5)))
    peer.credit.taken = 2
    peer.resume()
    assert peer.paused, "waking for each would be slow"
    peer.credit.taken = 3
    peer.resume()
    assert scene.inlet.messages == numbered(0, 1, 2, 3, 4, 5)
    assert not peer.paused and scene.watched == "read"


def test_with_acknowledgement_by_hand_it_is_read_again_for_any_room() -> None:
    scene = Scene(recv_hwm=4)
    scene.inlet.by_hand = True
    peer = scene.open()
    scene.receives(data(*numbered(0, 1, 2, 3, 4, 5)))
    peer.credit.arrived -= 1
    peer.resume()
    assert scene.inlet.messages == numbered(0, 1, 2, 3, 4) and peer.paused


def test_what_was_taken_meanwhile_is_found_by_looking() -> None:
    scene = Scene(recv_hwm=4)
    peer = scene.open()

    def taken() -> None:
        peer.credit.taken = peer.credit.arrived

    scene.inlet.untold = taken
    scene.receives(data(*numbered(0, 1, 2, 3, 4, 5)))
    assert scene.inlet.messages == numbered(0, 1, 2, 3, 4, 5), "taken between the last look and the pause"
    scene.inlet.untold = lambda: None
    scene.receives(data(*numbered(6, 7, 8)))
    assert peer.paused
    peer.look_for_room()
    assert peer.paused and len(scene.inlet.messages) == 8
    scene.inlet.untold = taken
    peer.look_for_room()
    assert not peer.paused and scene.inlet.messages == numbered(*range(9))


def test_the_mark_in_bytes_counts_as_well() -> None:
    scene = Scene(recv_hwm_bytes=100)
    peer = scene.open()
    peer.credit.arrived_bytes = 100
    scene.receives(data(b"one more"))
    assert peer.paused and scene.inlet.messages == []
    peer.credit.taken_bytes = 100
    peer.resume()
    assert not peer.paused and scene.inlet.messages == [b"one more"]


def test_for_acknowledgements_that_are_waited_for_it_is_read_past_the_mark() -> None:
    scene = Scene(recv_hwm=4)
    peer = scene.open()
    scene.receives(data(*numbered(0, 1, 2, 3, 4)) + frame(ACK, b"a" * 16))
    assert peer.paused and scene.outlet.acks == []
    scene.outlet.expecting = True
    peer.resume()
    assert scene.outlet.acks == [b"a" * 16] and scene.inlet.messages == numbered(0, 1, 2, 3, 4)


def test_while_closing_everything_is_read() -> None:
    scene = Scene(recv_hwm=4)
    peer = scene.open()
    scene.receives(data(*numbered(0, 1, 2, 3, 4, 5)))
    scene.life.begin_closing()
    peer.resume()
    assert scene.inlet.messages == numbered(0, 1, 2, 3, 4, 5) and scene.watched == "read"


def test_who_asks_for_more_than_it_takes_is_not_read(scene: Scene) -> None:
    peer = scene.open()
    scene.sock.room = 0
    peer.lane.add_control(b"x" * ((1 << 20) + 1))  # acknowledgements
    scene.receives(frame(DATA_REQ, b"i" * 16 + b"one more"))
    assert peer.paused and scene.watched == ""
    scene.sock.room = 1 << 62
    peer.on_work()
    peer.resume()
    assert not peer.paused and scene.watched == "read"


def test_nothing_that_was_received_is_dropped_at_the_end() -> None:
    scene = Scene(recv_hwm=4)
    peer = scene.open()
    scene.receives(data(*numbered(0, 1, 2, 3, 4, 5)))
    peer.close("over", None)
    assert scene.inlet.messages == numbered(0, 1, 2, 3, 4, 5)


def test_nor_is_a_large_message_whose_end_came_when_there_was_no_room() -> None:
    scene = Scene(recv_hwm=2)
    peer = scene.open()
    large = frame(DATA, b"x" * 100_000)
    scene.receives(data(b"0") + large[:1000])
    peer.credit.arrived += 1  # by another connection of the same peer
    scene.receives(large[1000:])
    assert peer.paused and scene.inlet.messages == [b"0"]
    peer.close("over", None)
    assert scene.inlet.messages == [b"0", b"x" * 100_000]


@pytest.mark.parametrize("left", [1, 4], ids=["nothing left", "more left"])
def test_reading_on_that_fails_is_the_end_of_this_one_alone(left: int,
                                                            caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(recv_hwm=2)
    peer = scene.open()
    scene.receives(data(*numbered(*range(2 + left))))
    peer.credit.taken = 2
    scene.inlet.fails = True
    peer.resume_safely()
    scene.loop.settle()
    assert scene.lost == ["internal error: ArithmeticError('on arrival')"] and scene.sock.closed
    assert "reading on failed" in [record.message for record in said(caplog)]


def test_the_end_is_told_after_the_other_events_of_the_round(scene: Scene) -> None:
    scene.open()
    order: list[str] = []
    scene.home.lost = lambda peer, reason, error: order.append(reason)  # type: ignore[method-assign]
    other = ScriptedSocket()

    class Another:
        def _on_event(self, events: int) -> None:
            order.append("another")

    scene.loop.io.watch(other, READ, Another())
    scene.sock.coming.append(b"")
    scene.loop.poller.happens(scene.sock, READ)
    scene.loop.poller.happens(other, READ)
    scene.loop.turn()
    scene.loop.settle()
    assert order == ["another", "the peer closed the connection"]


def test_a_connection_that_breaks_is_reported_as_broken(scene: Scene) -> None:
    scene.open()
    scene.receives(data(b"before"), TimeoutError(errno.ETIMEDOUT, "timed out"))
    scene.loop.happens(scene.sock, READ)
    assert scene.inlet.messages == [b"before"]
    assert scene.lost == ["the connection broke: [Errno 110] timed out"]
    assert isinstance(scene.home.error, ConnectionBrokenError)
    assert isinstance(scene.home.error.__cause__, TimeoutError)


def test_whoever_claims_its_identity_is_told_that_it_shows_itself(scene: Scene) -> None:
    peer = scene.open()
    peer.probe_until = 1.0
    scene.receives(frame(HEARTBEAT))
    scene.receives(frame(HEARTBEAT))
    assert scene.home.said == [("survived",)]


def test_a_look_reads_what_has_come_without_an_event(scene: Scene) -> None:
    peer = scene.open()
    scene.sock.coming.append(data(b"here"))
    peer.read_now()
    assert scene.inlet.messages == [b"here"]


# Reading by the thread that waits


def lent(scene: Scene) -> Peer:
    peer = scene.open()
    scene.inlet.lent.append(peer)
    assert peer.lend()
    return peer


def test_a_peer_that_is_lent_is_not_watched(scene: Scene) -> None:
    peer = lent(scene)
    assert scene.watched == "" and peer.lent
    scene.receives(data(b"message"))
    assert scene.inlet.messages == [] and scene.inlet.batches == []


def test_the_thread_that_has_it_delivers_a_message_that_comes_alone(scene: Scene) -> None:
    peer = lent(scene)
    assert not peer.hear(), "there is nothing"
    scene.sock.coming.append(data(b"message"))
    assert peer.hear()
    assert [list(batch.queue) for batch in scene.inlet.batches] == [[b"message"]] and scene.inlet.told == 1
    assert peer.received_messages == 1 and peer.credit.pending == 0 and peer.reading.unread == []


@pytest.mark.parametrize("chunk, messages", [
    (data(b"1", b"2"), [b"1", b"2"]),
    (data(b"1") + b"\0\0", [b"1"]),
    (frame(HEARTBEAT), []),
], ids=["two", "one and a half", "a heartbeat"])
def test_what_is_no_single_message_is_left_to_the_network_thread(scene: Scene, chunk: bytes,
                                                                 messages: list[bytes]) -> None:
    peer = lent(scene)
    scene.sock.coming.append(chunk)
    assert not peer.hear() and peer.reading.unread == [chunk]
    scene.sock.coming.append(data(b"later"))
    assert not peer.hear(), "nothing is read behind that"
    peer.take_back()
    assert scene.inlet.messages == messages and scene.watched == "read" and not peer.lent


@pytest.mark.parametrize("end, reason", [
    (b"", "the peer closed the connection"),
    (ConnectionResetError(errno.ECONNRESET, "reset"), "the connection broke: [Errno 104] reset"),
], ids=["end", "reset"])
def test_the_end_is_left_to_the_network_thread(scene: Scene, end: bytes | OSError, reason: str) -> None:
    peer = lent(scene)
    scene.sock.coming.append(end)
    assert not peer.hear() and scene.lost == []
    peer.take_back()
    scene.loop.settle()
    assert scene.lost == [reason]


def test_when_it_has_been_taken_back_nothing_is_heard(scene: Scene) -> None:
    peer = lent(scene)
    peer.take_back()
    scene.sock.coming.append(data(b"message"))
    assert not peer.hear() and scene.sock.coming


@pytest.mark.parametrize("why", ["closed", "closing", "retired", "paused", "claimed", "half a frame", "handshake"])
def test_a_peer_that_has_more_going_on_is_not_lent(why: str) -> None:
    scene = Scene(recv_hwm=4)
    peer = scene.started() if why == "handshake" else scene.open()
    if why == "closed":
        peer.close("over", None)
    elif why == "closing":
        peer.finish()
    elif why == "retired":
        peer.retire("another")
    elif why == "paused":
        scene.receives(data(*numbered(1, 2, 3, 4, 5)))
    elif why == "claimed":
        peer.probe_until = 1.0
    elif why == "half a frame":
        scene.receives(data(b"half")[:6])
    assert not peer.lend() and not peer.lent


@pytest.mark.usefixtures("scripted_tls")
def test_under_tls_it_is_not_lent(scene: Scene) -> None:
    scene.home.credit = Credit(THEIRS, 10, 1000)
    peer = scene.started(context=TLSScript())
    scene.receives(hello(THEIRS))
    assert peer.open_since is not None and not peer.lend()


@pytest.mark.parametrize("step", [lambda peer, scene: peer.read_now(),
                                  lambda peer, scene: peer.retire("another"),
                                  lambda peer, scene: peer.follow(scene.peer(), send=True),
                                  lambda peer, scene: peer.close("over", None)],
                         ids=["look", "retire", "follow", "close"])
def test_what_needs_the_right_to_read_takes_it_back_first(scene: Scene, step: Callable[[Peer, Scene], None]) -> None:
    peer = lent(scene)
    scene.sock.coming.append(data(b"1", b"2"))
    peer.hear()
    step(peer, scene)
    assert not peer.lent and scene.inlet.messages == [b"1", b"2"]


# Writing


def test_what_is_queued_is_written_in_order(scene: Scene) -> None:
    peer = scene.open()
    scene.sends(peer, b"1", b"2")
    peer.lane.add_control(frame(HEARTBEAT))
    scene.sends(peer, b"3")
    assert scene.sock.sent == data(b"1", b"2") + frame(HEARTBEAT) + data(b"3")
    assert peer.lane.sent_messages == 3 and scene.outlet.flushes == 2 and scene.watched == "read"


def test_large_messages_are_written_uncopied(scene: Scene) -> None:
    peer = scene.open()
    peer.queue.append(data_frame(b"x" * 10_000))
    peer.lane.large_bytes += 10_005
    scene.sends(peer, b"small")
    assert scene.sock.sent == data(b"x" * 10_000, b"small") and peer.lane.large_bytes == 0


def test_when_the_kernel_takes_no_more_it_waits_for_room_and_goes_on(scene: Scene) -> None:
    peer = scene.open()
    scene.sock.room = 8
    scene.sends(peer, b"message", b"another")
    assert peer.blocked and scene.watched == "both" and not peer.stuck
    assert peer.lane.sent_messages == 0 and len(peer.queue) == 2
    scene.sock.room = 5
    scene.loop.happens(scene.sock, WRITE)
    assert peer.blocked
    scene.sock.room = 1000
    scene.loop.happens(scene.sock, WRITE)
    assert scene.sock.sent == data(b"message", b"another")
    assert not peer.blocked and scene.watched == "read" and peer.lane.sent_messages == 2


def test_one_peer_has_no_more_than_its_share_of_the_writing(scene: Scene) -> None:
    peer = scene.open()
    peer.queue += [frame(DATA, b"x")] * (512 * 4 + 1)
    peer.on_work()
    assert len(peer.queue) == 1 and peer in scene.loop.io.work
    scene.loop.settle()
    assert not peer.queue


def test_a_sender_writes_by_itself(scene: Scene) -> None:
    peer = scene.open()
    peer.queue.append(frame(DATA, b"now"))
    peer.write_burst()
    assert scene.sock.sent == data(b"now") and not scene.loop.io.calls
    assert peer.bursting() and not peer.bursting()


def test_a_sender_leaves_it_to_whoever_is_writing(scene: Scene) -> None:
    peer = scene.open()
    peer.queue.append(frame(DATA, b"now"))
    with peer.lane.lock:
        peer.write_burst()
    assert scene.sock.sent == b"" and not peer.bursting()


@pytest.mark.parametrize("broken", [None, BrokenPipeError(errno.EPIPE, "broken")], ids=["blocked", "broken"])
def test_a_sender_that_cannot_write_tells_the_network_thread(scene: Scene, broken: OSError | None) -> None:
    peer = scene.open()
    scene.sock.room = 0
    scene.sock.broken = broken
    peer.queue.append(frame(DATA, b"now"))
    peer.write_burst()
    assert scene.loop.io.calls
    scene.loop.settle()
    if broken is None:
        assert scene.watched == "both"
    else:
        assert scene.home.said == [("cannot send", "the connection broke: [Errno 32] broken")]


def test_what_a_sender_queues_too_late_is_given_back(scene: Scene) -> None:
    peer = scene.open()
    peer.close("over", None)
    scene.sends(peer, b"late")
    assert scene.outlet.given_back == [frame(DATA, b"late")] and scene.sock.sent == b""


def test_what_is_queued_though_another_has_taken_over_is_given_back(scene: Scene) -> None:
    peer = scene.open()
    peer.retire("another")
    scene.sends(peer, b"late")
    assert scene.outlet.given_back == [frame(DATA, b"late")]


def test_a_message_that_was_queued_and_not_told_of_is_noticed(scene: Scene) -> None:
    peer = scene.open()
    assert not peer.stuck
    peer.queue.append(frame(DATA, b"untold"))
    assert peer.stuck


def test_while_closing_it_is_told_at_home_that_everything_is_written(scene: Scene) -> None:
    peer = scene.open()
    scene.life.begin_closing()
    scene.sends(peer, b"last")
    assert scene.home.said == [("flushed",)]


def test_a_heartbeat_is_sent_where_nothing_else_is(scene: Scene) -> None:
    peer = scene.open()
    peer.heartbeat()
    scene.loop.settle()
    assert scene.sock.take_sent() == frame(HEARTBEAT)
    peer.queue.append(frame(DATA, b"message"))
    peer.heartbeat()
    assert peer.lane.control == []


# Nothing can be sent any more


def broken_on_sending(scene: Scene) -> Peer:
    peer = scene.open()
    scene.sock.broken = BrokenPipeError(errno.EPIPE, "broken")
    scene.sends(peer, b"lost")
    assert scene.home.said == [("cannot send", "the connection broke: [Errno 32] broken")]
    return peer


def test_what_had_come_before_the_connection_broke_is_read(scene: Scene) -> None:
    broken_on_sending(scene)
    assert scene.watched == "read", "and not for room, of which epoll would tell for ever"
    scene.receives(data(b"1"), data(b"2"))
    assert scene.inlet.messages[:1] == [b"1"] and scene.lost == []
    scene.receives()
    assert scene.inlet.messages == [b"1", b"2"]


@pytest.mark.parametrize("end", [b"", ConnectionResetError(errno.ECONNRESET, "reset"), None],
                         ids=["end", "reset", "no more"])
def test_and_then_it_is_over(scene: Scene, end: bytes | OSError | None) -> None:
    broken_on_sending(scene)
    scene.receives(*[] if end is None else [end])
    assert len(scene.lost) == 1 and scene.lost[0].startswith("the connection broke: ")


def test_for_no_longer_than_a_dead_peer_is_waited_for(scene: Scene) -> None:
    broken_on_sending(scene)
    scene.loop.pass_time(14.9)
    assert scene.lost == []
    scene.loop.pass_time(0.2)
    assert scene.lost == ["the connection broke: [Errno 32] broken"]


def test_what_nobody_takes_is_waited_for_longer_where_it_comes_to_an_end() -> None:
    scene = Scene(recv_hwm=2)
    peer = scene.open()
    scene.receives(data(*numbered(0, 1, 2)))
    scene.sock.broken = BrokenPipeError(errno.EPIPE, "broken")
    scene.sock.hung_up = True
    scene.sends(peer, b"lost")
    scene.loop.pass_time(40.0)
    assert scene.lost == [] and peer.paused
    scene.sock.hung_up = False
    scene.loop.pass_time(15.0)
    assert scene.inlet.messages == numbered(0, 1, 2), "what it had brought is not lost with it"
    assert len(scene.lost) == 1


# The end of a connection whose peer is still there


def test_a_retired_connection_is_half_closed_when_all_is_written(scene: Scene) -> None:
    peer = scene.open()
    scene.sock.room = 8
    scene.sends(peer, b"message")
    peer.lane.finishing = True
    peer.retire("another")
    assert peer.lane.dead and not scene.sock.half_closed
    scene.sock.room = 1000
    scene.loop.happens(scene.sock, WRITE)
    assert scene.sock.sent == data(b"message") and scene.sock.half_closed


def test_a_retired_connection_is_read_to_its_end(scene: Scene) -> None:
    peer = scene.open()
    peer.retire("another")
    scene.loop.settle()
    scene.receives(data(b"last"))
    scene.receives(b"")
    assert scene.inlet.messages == [b"last"] and scene.lost == ["another"]


def test_a_retired_connection_that_does_not_end_is_closed_in_the_end(scene: Scene) -> None:
    peer = scene.open()
    peer.retire("another")
    scene.loop.pass_time(15.1)
    assert scene.lost == ["another"] and scene.sock.closed


def followed(scene: Scene, *, send: bool = True) -> tuple[Peer, Peer, ScriptedSocket]:
    """An old connection, and the one that is read behind it."""
    old = scene.open()
    sock = ScriptedSocket()
    new = scene.open(sock)
    new.follow(old, send=send)
    old.retire("another")
    scene.loop.settle()
    return old, new, sock


def test_who_follows_is_not_read_before_the_other_has_come_to_its_end(scene: Scene) -> None:
    _, new, sock = followed(scene)
    assert new.following and events_of(scene.loop.watched(sock)) == ""
    scene.receives(data(b"later"), sock=sock)
    scene.receives(data(b"earlier"))
    assert scene.inlet.messages == [b"earlier"]
    scene.receives(b"")
    assert not new.following and events_of(scene.loop.watched(sock)) == "read"
    scene.loop.happens(sock, READ)
    assert scene.inlet.messages == [b"earlier", b"later"]


def test_who_follows_before_it_is_let_in_is_not_read_either(scene: Scene) -> None:
    old = scene.open()
    scene.home.credit = None
    sock = ScriptedSocket()
    new = scene.started(sock=sock)
    scene.receives(hello(THEIRS) + data(b"later"), sock=sock)
    new.follow(old, send=True)
    new.let_in(Credit(THEIRS, 1000, 1000))
    scene.loop.settle()
    assert scene.inlet.messages == [] and events_of(scene.loop.watched(sock)) == ""
    old.close("over", None)
    scene.loop.settle()
    assert scene.inlet.messages == [b"later"]


@pytest.mark.parametrize("send", [True, False])
def test_whether_who_follows_may_send_meanwhile(scene: Scene, send: bool) -> None:
    old, new, sock = followed(scene, send=send)
    scene.sends(new, b"message")
    assert sock.sent == (data(b"message") if send else b"")
    old.close("over", None)
    scene.loop.settle()
    assert sock.sent == data(b"message")


def test_who_follows_sends_at_last_though_the_other_does_not_come_to_its_end() -> None:
    scene = Scene(recv_hwm=2)
    old = scene.open()
    scene.receives(data(*numbered(0, 1, 2)))
    sock = ScriptedSocket()
    new = scene.open(sock)
    new.follow(old, send=False)
    old.retire("another")
    scene.sends(new, b"message")
    scene.loop.pass_time(14.0)
    assert sock.sent == b""
    scene.loop.pass_time(2.0)
    assert sock.sent == data(b"message") and new.following and scene.lost == []


def test_who_has_come_behind_another_meanwhile_does_not_go_ahead(scene: Scene) -> None:
    old, new, sock = followed(scene)
    third = scene.open(ScriptedSocket())
    new.follow(third, send=True)
    old.close("over", None)
    assert new.following
    third.close("over", None)
    assert not new.following


def test_a_paused_one_goes_ahead_when_there_is_room() -> None:
    scene = Scene(recv_hwm=2)
    old = scene.open()
    sock = ScriptedSocket()
    new = scene.open(sock)
    scene.receives(data(*numbered(0, 1, 2)), sock=sock)
    new.follow(old, send=True)
    new.credit.taken = 2
    new.resume()
    assert new.paused, "not before its turn"
    old.close("over", None)
    assert not new.paused and scene.inlet.messages == numbered(0, 1, 2)


def test_goodbye_is_said_and_the_other_end_read_to_its_own(scene: Scene) -> None:
    peer = scene.open()
    peer.finish()
    assert scene.sock.half_closed and peer.closing and not scene.sock.closed
    scene.receives(data(b"last"))
    scene.receives(b"")
    assert scene.inlet.messages == [b"last"] and scene.lost == ["closed"] and scene.sock.closed


def test_goodbye_is_said_once(scene: Scene) -> None:
    peer = scene.open()
    peer.finish()
    peer.finish()
    scene.loop.settle()
    assert scene.lost == []


@pytest.mark.parametrize("over", [lambda peer: peer.close("over", None), lambda peer: peer.retire("another")],
                         ids=["closed", "retired"])
def test_who_has_gone_is_not_said_goodbye_to(scene: Scene, over: Callable[[Peer], None]) -> None:
    peer = scene.open()
    over(peer)
    peer.finish()
    assert not scene.sock.half_closed


def test_at_the_goodbye_a_paused_connection_is_read_on() -> None:
    scene = Scene(recv_hwm=2)
    peer = scene.open()
    scene.receives(data(*numbered(0, 1, 2)))
    scene.life.begin_closing()
    peer.finish()
    assert not peer.paused and scene.inlet.messages == numbered(0, 1, 2)


def test_a_goodbye_that_cannot_be_said_is_the_end(scene: Scene) -> None:
    peer = scene.open()
    scene.sock.broken = OSError(errno.ENOTCONN, "not connected")
    peer.finish()
    assert scene.lost == ["the connection broke: [Errno 107] not connected"]


def test_a_retired_one_whose_goodbye_cannot_be_said_is_still_read(scene: Scene) -> None:
    peer = scene.open()
    scene.sock.broken = OSError(errno.ENOTCONN, "not connected")
    peer.retire("another")
    scene.loop.settle()
    assert scene.lost == []
    scene.receives(data(b"last"))
    assert scene.inlet.messages == [b"last"]


# The end


def test_it_ends_once(scene: Scene) -> None:
    peer = scene.open()
    peer.close("first", None)
    peer.close("second", None)
    scene.loop.settle()
    assert scene.lost == ["first"] and scene.sock.closed and scene.watched == "" and peer.lane.dead


def test_the_descriptor_is_closed_when_the_events_of_the_round_are_told(scene: Scene) -> None:
    peer = scene.open()
    peer.close("over", None)
    assert not scene.sock.closed
    scene.loop.settle()
    assert scene.sock.closed


def test_a_step_that_fails_is_the_end_of_this_connection(scene: Scene) -> None:
    scene.open()
    scene.inlet.fails = True
    scene.receives(data(b"message"))
    assert scene.lost == ["internal error: ArithmeticError('on arrival')"]
    assert isinstance(scene.home.error, ArithmeticError) and scene.sock.closed


def test_a_timer_that_comes_too_late_does_nothing(scene: Scene) -> None:
    peer = scene.open()
    peer.retire("another")
    peer.close("over", None)
    scene.loop.pass_time(100.0)
    assert scene.lost == ["over"] and scene.loop.delays == []


def test_events_of_a_connection_that_is_over_are_ignored(scene: Scene) -> None:
    peer = scene.open()
    peer.close("over", None)
    for events in (READ, WRITE, READ | WRITE):
        peer.channel._on_event(events)
    assert scene.lost == ["over"]


def test_a_forked_child_closes_its_copy_and_says_nothing(scene: Scene) -> None:
    peer = scene.open()
    peer.abandon()
    assert scene.sock.closed and scene.sock.sent == b"" and scene.lost == []


def test_what_is_known_of_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "time", SimpleNamespace(time=scene.loop.clock))
    peer = scene.open()
    scene.receives(data(b"1", b"2"))
    scene.sends(peer, b"3")
    peer.queue.append(frame(DATA, b"4"))
    info = peer.info()
    assert (info.identity, info.address, info.tls) == (THEIRS, ("192.0.2.1", 7001), None)
    assert (info.received, info.sent, info.queued, info.unacked) == (2, 1, 1, 0)
    assert info.connected_since == scene.loop.clock.now


def test_verdicts_are_handed_on_to_those_who_have_to_carry_them_out(scene: Scene) -> None:
    peer, old = scene.started(), scene.peer()
    peer.judged(False, None)
    peer.probe_over(old)
    assert scene.home.said == [("judged", False, None), ("probe over", old, peer)]
