"""The beginning of a connection by itself: the peer that it is for, and the reading that it counts for, are fakes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.channels import Outlet, Script, User, as_any
from support.lanes import lane
from support.lines_dialect import BEGINNING, Lines
from support.stand_ins import Loop, ScriptedSocket, settings
from support.wire_peer import DATA, frame, hello

from netmsg.errors import RemoteProtocolError, TLSHandshakeError
from netmsg.messaging.carriers import Carrier
from netmsg.messaging.greeting import FIRST_READ, Greeting
from netmsg.reactor.channel import Channel
from netmsg.reactor.polling import READ
from netmsg.wire import sniffing
from netmsg.wire.messages import Capabilities
from netmsg.wire.session import Session, State
from netmsg.wire.sniffing import Sniffed

OURS = b"o" * 16
THEIRS = b"t" * 16


class Peer(User):
    """The one that comes."""

    greeting: Greeting
    channel: Channel

    def __init__(self) -> None:
        super().__init__()
        self.session: Session | None = None
        self.met: Callable[[], object] = lambda: None
        """What is done about it once it has said who it is."""
        self.closed: list[str] = []
        self.error: BaseException | None = None

    def received(self, chunk: bytes) -> bool:
        return self.greeting.received(chunk)

    def greeted(self, session: Session) -> None:
        assert self.session is None
        self.session = session
        self.met()

    def close(self, reason: str, error: BaseException | None) -> None:
        self.closed.append(reason)
        self.error = error
        self.channel.close()
        self.greeting.end()

    def bursting(self) -> bool:
        return False

    def on_work(self) -> None:
        pass

    def go_over(self, transport: Any) -> None:
        self.transport = transport


class Scene:
    def __init__(self, *, dialled: bool = False, handshake: list[Any] | None = None) -> None:
        self.loop = Loop()
        self.sock = ScriptedSocket()
        self.transport = Script(handshake=handshake)
        self.lane = lane()
        self.peer = Peer()
        self.reading = SimpleNamespace(received_bytes=0)
        neighbours: Any = SimpleNamespace(identity=OURS, capabilities=Capabilities(5.0, 1000), settings=settings())
        outlet: Any = Outlet()
        self.channel = Channel(self.loop.io, as_any(self.sock), self.transport, outlet, self.peer)
        self.greeting = Greeting(self.peer, neighbours, self.loop.io, self.channel, self.lane,
                                 as_any(self.reading), Carrier(), dialled=dialled)
        self.peer.greeting, self.peer.channel = self.greeting, self.channel
        self.greeting.begin()
        self.channel.watch()

    def receives(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.transport.feed(chunk)
            self.loop.happens(self.sock, READ)

    @property
    def listens(self) -> bool:
        return self.loop.watched(self.sock) == READ


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at:at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("dialled", [True, False])
def test_who_has_dialled_says_hello_at_once(dialled: bool) -> None:
    scene = Scene(dialled=dialled)
    assert scene.lane.control == ([hello(OURS)] if dialled else [])


@pytest.mark.parametrize("size", range(1, 23))
def test_who_it_is_may_come_in_any_pieces(size: int) -> None:
    scene = Scene()
    *pieces, last = cut(hello(THEIRS), size)
    scene.receives(*pieces)
    assert scene.peer.session is None and scene.listens
    scene.receives(last)
    assert scene.peer.session is not None and scene.peer.session.peer_identity == THEIRS
    assert scene.peer.session.state is State.GREETED and scene.reading.received_bytes == 22


def test_little_is_received_at_a_time() -> None:
    scene = Scene()
    scene.receives(hello(THEIRS) + bytes(10_000))
    assert set(scene.transport.sizes) == {FIRST_READ} and scene.reading.received_bytes == FIRST_READ
    assert not scene.listens


def test_the_end_of_one_who_waits_is_noticed() -> None:
    scene = Scene()
    scene.receives(hello(THEIRS))
    assert scene.listens


def test_what_one_says_who_waits_is_kept() -> None:
    scene = Scene()
    scene.receives(hello(THEIRS), frame(DATA, b"hasty"))
    session = scene.peer.session
    assert session is not None and session.decoder.buffered and not scene.listens


def test_who_is_let_in_at_once_is_read_on_by_somebody_else() -> None:
    scene = Scene()

    def let_in() -> None:
        assert scene.peer.session is not None
        scene.peer.session.welcome()
        scene.channel.reading = True

    scene.peer.met = let_in
    scene.receives(hello(THEIRS) + frame(DATA, b"hasty"))
    assert scene.channel.reading


def test_who_is_turned_away_at_once_is_not_read_any_more() -> None:
    scene = Scene()
    scene.peer.met = lambda: scene.peer.close("no", None)
    scene.receives(hello(THEIRS) + frame(DATA, b"hasty"))
    assert scene.peer.closed == ["no"] and not scene.listens


@given(st.lists(st.binary(max_size=12), max_size=8), st.integers(0, 22))
def test_whatever_is_said_first_only_a_hello_is_understood(chunks: list[bytes], begin: int) -> None:
    chunks = [chunk for chunk in (hello(THEIRS)[:begin], *chunks) if chunk]
    said = b"".join(chunks)
    scene = Scene()
    scene.receives(*chunks)
    legacy = said[:4] == b"\0\0\0\x10" and len(said) >= 20
    assert (scene.peer.session is not None) is (said[:6] == hello(THEIRS)[:6] and len(said) >= 22 or legacy)
    if scene.peer.closed:
        assert not hello(THEIRS).startswith(said) and isinstance(scene.peer.error, RemoteProtocolError)


@pytest.mark.parametrize("size", [5, 100])
@pytest.mark.parametrize("first, reason", [
    (b"GET / HTTP/1.1\r\n", "WebSocket"),
    (b"\x16\x03\x01\x02\x00", "TLS client"),
    (frame(DATA, b"no greeting"), "DATA, not HELLO"),
    (bytes(4), "not a Søcket"),
    (hello(THEIRS, version=2), "version 2"),
])
def test_strangers_are_turned_away(first: bytes, reason: str, size: int) -> None:
    scene = Scene()
    scene.receives(*cut(first, size))
    assert len(scene.peer.closed) == 1 and reason in scene.peer.closed[0]
    assert isinstance(scene.peer.error, RemoteProtocolError) and scene.reading.received_bytes
    assert scene.transport.ended is (reason == "WebSocket") is scene.transport.sent.startswith(b"HTTP/1.1 403")


def test_a_stranger_that_cannot_be_told_is_turned_away_all_the_same() -> None:
    scene = Scene()
    scene.transport.broken = BrokenPipeError()
    scene.receives(b"GET /")
    assert len(scene.peer.closed) == 1


@pytest.mark.parametrize("size", range(1, 30))
def test_an_end_that_dialled_goes_on_in_the_dialect_of_the_answer(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sniffing.SPOKEN, Sniffed.LEGACY, Lines)
    scene = Scene(dialled=True)
    scene.receives(*cut(BEGINNING + b"a writer of text\n-message\n", size))
    session = scene.peer.session
    assert session is not None and session.peer_identity == b"a writer of text" and session.dialect.name == "lines"
    assert scene.lane.control == [hello(OURS), b"wait\n"]
    assert session.welcome() == b"again\n"
    scene.receives(b"")


def test_what_a_dialect_says_of_what_it_does_not_understand_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sniffing.SPOKEN, Sniffed.LEGACY, Lines)
    scene = Scene()
    scene.receives(BEGINNING + b"CAPITALS\n")
    assert scene.transport.sent == b"no capitals\n" and scene.peer.closed == ["capitals"]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_who_is_turned_away_is_told_by_whom_only_where_the_end_comes_with_that(family: socket.AddressFamily) -> None:
    scene = Scene()
    scene.sock.family = family
    scene.receives(hello(THEIRS))
    assert scene.peer.session is not None
    scene.greeting.introduce(scene.peer.session.welcome())
    together = family == socket.AF_INET and hasattr(socket, "TCP_CORK")
    assert scene.transport.ended is together and scene.transport.sent.startswith(hello(OURS)) is together


def test_the_time_for_all_of_it_is_bounded() -> None:
    scene = Scene()
    scene.receives(hello(THEIRS)[:10])
    scene.loop.pass_time(10.1)
    assert scene.peer.closed == ["no end to the handshake within 10 s"]
    assert isinstance(scene.peer.error, TimeoutError)


def test_unless_it_depends_on_others() -> None:
    scene = Scene()
    scene.receives(hello(THEIRS))
    scene.greeting.take_time()
    scene.loop.pass_time(60.0)
    assert scene.peer.closed == []


@pytest.mark.parametrize("dialled", [True, False])
@pytest.mark.parametrize("said", [b"", b"\0", hello(THEIRS)])
def test_who_has_come_and_said_nothing_is_known(dialled: bool, said: bytes) -> None:
    scene = Scene(dialled=dialled)
    if said:
        scene.receives(said)
    assert scene.greeting.silent is (not dialled and not said)


def test_a_session_ends_with_its_connection() -> None:
    scene = Scene()
    scene.receives(hello(THEIRS) + frame(DATA, b"hasty"))
    scene.greeting.end()
    session = scene.peer.session
    assert session is not None and session.state is State.CLOSED and not session.decoder.buffered
    assert scene.loop.delays == []


@pytest.mark.parametrize("error, reason", [
    (TLSHandshakeError("no"), "TLS: no"),
    (OSError("gone"), "the connection broke during the TLS handshake: gone"),
])
def test_why_the_tls_handshake_failed_is_said(error: OSError, reason: str) -> None:
    scene = Scene()
    scene.greeting.fail(error)
    assert scene.peer.closed == [reason] and scene.peer.error is error
