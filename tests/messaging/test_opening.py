"""From an address to a listener or an endpoint, and what an interrupt leaves of it."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from support.servers import said
from support.stand_ins import Loop, settings

from netmsg.deadline import Deadline
from netmsg.errors import ClosedError
from netmsg.messaging import opening
from netmsg.messaging.carriers import Carrier
from netmsg.messaging.events import AcceptError, Event, EventQueue, Listening
from netmsg.messaging.life import Life
from netmsg.messaging.opening import Opening
from netmsg.messaging.places import Places

NOW = Deadline(0)


class Sock:
    closed = False

    def __init__(self, address: Any) -> None:
        self.address = address

    def close(self) -> None:
        self.closed = True


class Acceptor:
    def __init__(self, io: object, sock: Sock, accepted: Any, failed: Any, *, owns_file: bool) -> None:
        assert owns_file
        if sock.address == "bad":
            raise OSError("not a listener")
        self.address = sock.address
        self.accepted, self.failed = accepted, failed
        self.done: list[str] = []

    def start(self) -> None:
        self.done.append("start")

    def pause(self) -> None:
        self.done.append("pause")

    def close(self) -> None:
        self.done.append("close")


class Endpoint:
    def __init__(self, target: object, *parts: object, **options: object) -> None:
        self.target = target
        self.options = options
        self.done: list[str] = []

    def start(self) -> None:
        self.done.append("start")

    def stop(self) -> None:
        self.done.append("stop")


class Scene:
    """It is the doors, the population and the closing, too."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.life = Life()
        self.told: list[Event] = []
        self.places: Any = Places()
        self.attached = 0
        self.full = False
        self.came: list[Any] = []
        part: Any = self
        self.opening = Opening(settings(), self.life, self.loop.io, EventQueue(self.told.append), self.places, part,
                               part, part, part, lambda *arguments: None)

    def attach(self) -> None:
        self.life.check_open()
        self.attached += 1

    def regulate(self) -> bool:
        return self.full

    def accepted(self, *arguments: Any) -> None:
        self.came.append(arguments)

    def bind(self, *socks: Sock, host: str | None = None) -> None:
        self.loop.machine.listeners = [*socks]
        self.opening.bind(host, 7000, Carrier(), NOW)
        self.loop.settle()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = Scene()
    monkeypatch.setattr(opening, "Acceptor", Acceptor)
    monkeypatch.setattr(opening, "Endpoint", Endpoint)
    return scene


def test_it_listens_at_all_addresses_of_a_name(scene: Scene) -> None:
    scene.bind(Sock(("127.0.0.1", 7000)), Sock(("::1", 7000, 0, 0)), host="localhost")
    assert [acceptor.done for acceptor in scene.places.acceptors] == [["start"], ["start"]]
    assert scene.places.bound_urls == ["tcp://127.0.0.1:7000", "tcp://[::1]:7000"]
    assert [type(event) for event in scene.told] == [Listening, Listening]


def test_who_comes_is_handed_on_and_what_fails_is_told(scene: Scene) -> None:
    scene.bind(Sock(("127.0.0.1", 7000)))
    (acceptor,) = scene.places.acceptors
    acceptor.accepted("socket", "address")
    acceptor.failed(OSError("too many files"))
    assert scene.came == [("socket", "address", Carrier())] and type(scene.told[-1]) is AcceptError


def test_newcomers_wait_where_there_is_no_room(scene: Scene) -> None:
    scene.full = True
    scene.bind(Sock(("127.0.0.1", 7000)))
    assert scene.places.acceptors[0].done == ["pause", "start"]


def test_where_one_of_several_fails_all_that_are_left_are_closed(scene: Scene) -> None:
    socks = [Sock("bad"), Sock(("127.0.0.1", 7000))]
    with pytest.raises(OSError, match="not a listener"):
        scene.bind(*socks)
    assert all(sock.closed for sock in socks) and not scene.places.acceptors


def test_an_unknown_name_is_named(scene: Scene) -> None:
    scene.loop.machine.unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    with pytest.raises(socket.gaierror, match="nowhere.example"):
        scene.bind(host="nowhere.example")


@pytest.mark.parametrize("path, url", [("\0name", "unix:@name"), ("/run/name", "unix:///run/name")])
def test_a_unix_socket(scene: Scene, path: str, url: str) -> None:
    scene.loop.machine.listeners = [Sock(path)]
    scene.opening.bind_unix(path, Carrier())
    assert scene.places.bound_urls == [url]


def test_once_closed_nothing_is_opened(scene: Scene) -> None:
    scene.life.begin_closing()
    with pytest.raises(ClosedError):
        scene.bind(Sock(("127.0.0.1", 7000)))
    with pytest.raises(ClosedError):
        scene.opening.connect(("example.org", 7000), Carrier(), 5.0)
    assert not scene.places.acceptors and not scene.places.endpoints


def test_what_closes_meanwhile_is_closed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene, "attach", scene.life.begin_closing)
    scene.bind(Sock(("127.0.0.1", 7000)))
    scene.opening.connect(("example.org", 7000), Carrier(), 5.0)
    scene.loop.settle()
    assert scene.places.acceptors[0].done == ["start", "close"] and scene.places.endpoints[0].done == ["start", "stop"]


def test_what_is_connected_to_is_dialled(scene: Scene) -> None:
    scene.opening.connect(("example.org", 7000), Carrier(None, "name"), 5.0)
    scene.loop.settle()
    (endpoint,) = scene.places.endpoints
    assert endpoint.done == ["start"] and scene.attached == 1
    assert endpoint.options == {"carrier": Carrier(None, "name"), "connect_timeout": 5.0,
                                "reconnection_delay": None}


def test_an_interrupt_leaves_no_endpoint_that_nobody_knows(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Endpoint] = []

    def make(*parts: Any, **options: Any) -> Endpoint:
        made.append(Endpoint(*parts, **options))
        return made[-1]

    def interrupted(function: Any, *arguments: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(opening, "Endpoint", make)
    monkeypatch.setattr(scene.loop.io, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scene.opening.connect(("example.org", 7000), Carrier(), 5.0)
    scene.loop.settle()
    assert not scene.places.endpoints and made[0].done == ["stop"]


def test_a_step_that_fails_is_the_end_of_the_søcket(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    crashes: list[BaseException] = []
    scene.life.on_crash = crashes.append
    scene.regulate = SimpleNamespace()  # type: ignore[assignment, method-assign]
    scene.bind(Sock(("127.0.0.1", 7000)))
    assert [type(error) for error in crashes] == [TypeError]
    said(caplog)
