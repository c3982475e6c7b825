"""Names: what cannot be resolved, and who waits for whom."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, until, until_waiting

from netmsg import ClosedError, Retrying, Søcket, connect_tcp, create_tcp_server, create_udp_socket
from netmsg.deadline import Deadline
from netmsg.errors import ConnectFailedError
from netmsg.sockets import resolving
from netmsg.sockets.resolving import resolve_in_background, resolve_within

NO_NAMES = ["a..b", "x" * 64, "\udcff", "."]


def resolvers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("netmsg-resolve-")]


class Resolver:
    """The system's, of which names that begin with ``dead`` get no answer until `release`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.release = threading.Event()
        self._real: Any = socket.getaddrinfo

    def __call__(self, host: Any, port: Any, *arguments: Any, flags: int = 0, **options: Any) -> Any:
        if not flags & socket.AI_NUMERICHOST:
            self.asked.append(host)
            if host.startswith("dead"):
                assert self.release.wait(TIMEOUT)
                raise socket.gaierror(socket.EAI_AGAIN, "no answer")
            if host.endswith(".test"):
                host = "127.0.0.1"
        return self._real(host, port, *arguments, flags=flags, **options)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    stand_in = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", stand_in)
    yield stand_in
    stand_in.release.set()


# What cannot be resolved

@pytest.mark.parametrize("name", NO_NAMES, ids=ascii)
@pytest.mark.parametrize("call", [
    lambda name: connect_tcp(name, 80, timeout=TIMEOUT),
    lambda name: connect_tcp("127.0.0.1", 80, local_address=(name, 0), timeout=TIMEOUT),
    lambda name: create_tcp_server(interface=name, timeout=TIMEOUT),
    lambda name: create_udp_socket(target_host=name, target_port=80, timeout=TIMEOUT),
    lambda name: create_udp_socket(interface=name, timeout=TIMEOUT),
    lambda name: resolve_within(Deadline(TIMEOUT), name, 80),
])
def test_21_what_cannot_be_a_name_is_a_name_that_is_not_known(name: str, call: Callable[[str], Any]) -> None:
    with pytest.raises(socket.gaierror) as raised:
        call(name)
    assert repr(name) in str(raised.value)


def test_21_a_datagram_to_no_name() -> None:
    with create_udp_socket() as sock, pytest.raises(socket.gaierror, match="'a..b'"):
        sock.send(b"x", "a..b", 80)


def test_21_a_name_that_is_not_known_is_named() -> None:
    for local_address in (None, ("no-such-host.invalid", 0)):
        with pytest.raises(ConnectFailedError, match="'no-such-host.invalid' cannot be resolved") as raised:
            connect_tcp("no-such-host.invalid" if local_address is None else "127.0.0.1", 80,
                        local_address=local_address, timeout=TIMEOUT)
        assert isinstance(raised.value.__cause__, socket.gaierror)


def test_21_a_name_with_a_nul_is_refused() -> None:
    for call in (lambda: connect_tcp("a\0b", 80), lambda: create_tcp_server(interface="a\0b"),
                 lambda: create_udp_socket(target_host="a\0b", target_port=80)):
        with pytest.raises(ValueError, match="NUL"):
            call()


def test_a_søcket_says_what_is_wrong_with_the_name_at_each_retry() -> None:
    with Søcket(linger=0, reconnection_delay=lambda: 0.0) as sock:
        sock.connect("nobody.invalid", 80)
        retries = (event for event in sock.events(timeout=TIMEOUT) if isinstance(event, Retrying))
        for _ in range(3):
            event = next(retries)
            assert isinstance(event.error, socket.gaierror) and "'nobody.invalid'" in event.reason


def test_whatever_the_resolver_raises_is_told_to_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(host: Any, *_: Any, flags: int = 0, **__: Any) -> Any:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "no literal")
        raise RuntimeError("a broken resolver")

    monkeypatch.setattr(socket, "getaddrinfo", broken)
    with pytest.raises(OSError, match="'any.test'.*a broken resolver"):
        resolve_within(Deadline(TIMEOUT), "any.test", 1)


# Who waits for whom

def test_names_of_dead_servers_hold_up_no_other(resolver: Resolver) -> None:
    waiting = [Background(resolve_within, Deadline(TIMEOUT), f"dead{number}.test", 1) for number in range(20)]
    until(lambda: len(resolver.asked) == 20)
    assert resolve_within(Deadline(TIMEOUT), "good.test", 5) == [(socket.AF_INET, ("127.0.0.1", 5))]
    assert all(thread.is_alive() for thread in waiting)
    resolver.release.set()
    for number, thread in enumerate(waiting):
        with pytest.raises(socket.gaierror, match=f"'dead{number}.test'"):
            thread.result()
    until(lambda: not resolvers())


def test_a_name_has_two_threads_at_most_however_many_ask(resolver: Resolver) -> None:
    waiting = [Background(resolve_within, Deadline(TIMEOUT), "dead.test", port) for port in range(30)]
    until(lambda: len(resolver.asked) == 2)
    assert resolve_within(Deadline(TIMEOUT), "good.test", 5)
    with pytest.raises(TimeoutError, match="'dead.test'"):
        resolve_within(Deadline(0), "dead.test", 1)
    assert resolver.asked == ["dead.test"] * 2 + ["good.test"]
    resolver.release.set()
    errors = []
    for thread in waiting:
        with pytest.raises(socket.gaierror) as raised:
            thread.result()
        errors.append(raised.value)
    assert len(set(map(id, errors))) == 30  # each its own, for what is raised grows a traceback


def test_who_asks_again_while_the_first_lookup_is_stuck_need_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = socket.getaddrinfo
    release, asked = threading.Event(), []

    def stuck_at_first(host: Any, port: Any, *arguments: Any, flags: int = 0, **options: Any) -> Any:
        if not flags & socket.AI_NUMERICHOST:
            asked.append(host)
            if len(asked) == 1:
                assert release.wait(TIMEOUT)
            host = "127.0.0.1"
        return real(host, port, *arguments, flags=flags, **options)

    monkeypatch.setattr(socket, "getaddrinfo", stuck_at_first)
    with pytest.raises(TimeoutError):
        resolve_within(Deadline(0.05), "name.test", 1)
    assert resolve_within(Deadline(TIMEOUT), "name.test", 7) == [(socket.AF_INET, ("127.0.0.1", 7))]
    release.set()


@pytest.mark.parametrize("send", [
    lambda sock: sock.send(b"x", "dead.test", 1), lambda sock: sock.send_to(b"x", ("dead.test", 1)),
    lambda sock: sock.request(b"x", ("dead.test", 1))])
def test_close_wakes_who_resolves_a_datagrams_target(send: Callable[[Any], Any], resolver: Resolver) -> None:
    sock = create_udp_socket(interface=None)
    sending = Background(send, sock)
    until(lambda: resolver.asked)
    until_waiting(sending)
    sock.close()
    with pytest.raises(ClosedError):
        sending.result()


def test_names_beyond_all_threads_have_their_turn(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "MOST_THREADS", 3)
    found: list[Any] = []
    for number in range(3):
        resolve_in_background(f"dead{number}.test", 1, found.append)
        until(lambda: len(resolver.asked) == number + 1)
    for number in range(10):
        resolve_in_background(f"good{number}.test", number, found.append)
    assert len(resolvers()) == 3
    resolver.release.set()
    until(lambda: len(found) == 13)
    assert sorted(result[0][1][1] for result in found if isinstance(result, list)) == list(range(10))
    until(lambda: not resolvers())


def refusing_to_start(*_: Any) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("whose", [threading.Thread, resolving])
def test_no_thread_can_be_started_is_told(whose: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whose, "start" if whose is threading.Thread else "start_new_thread", refusing_to_start)
    with pytest.raises(OSError, match="'name.test' cannot be resolved: can't start new thread"):
        resolve_within(Deadline(TIMEOUT), "name.test", 1)
