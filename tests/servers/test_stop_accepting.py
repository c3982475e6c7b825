"""`stop_accepting`: nobody new, and the others go on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.pairs import TIMEOUT
from support.servers import eventually

from netmsg import (
    ConnectFailedError, DatagramClient, DatagramServer, LineCodec, Listener, PacketClient, PacketServer, StreamServer,
    create_tcp_server, create_udp_socket, create_unix_server,
)


def echo(client: Any, packet: Any) -> None:
    client.send_packet(packet)


def echo_stream(stream: Any) -> None:
    for chunk in stream:
        stream.send_all(chunk)


@pytest.fixture(params=["stream", "packet", "inline"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(kind: str, *listeners: Any) -> Any:
    listeners = listeners or (create_tcp_server(interface="127.0.0.1"),)
    if kind == "stream":
        return StreamServer(echo_stream, *listeners)
    return PacketServer(echo, *listeners, codec=LineCodec(), max_workers=0 if kind == "inline" else 8)


@contextmanager
def connected(target: Any) -> Iterator[PacketClient[str, str]]:
    with PacketClient(target, LineCodec(), connect_timeout=TIMEOUT) as client:
        is_answered(client)
        yield client


def is_answered(client: PacketClient[str, str]) -> None:
    client.send_packet("hello")
    assert client.recv_packet(timeout=TIMEOUT) == "hello"


def is_refused(target: Any) -> bool:
    try:
        PacketClient(target, LineCodec(), connect_timeout=TIMEOUT).close()
    except ConnectFailedError:
        return True
    return False


def test_nobody_new_is_accepted_and_the_others_go_on(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with make(kind, create_tcp_server(interface="127.0.0.1"), create_unix_server(path)) as server:
        address = ("127.0.0.1", server.port)
        with connected(address) as client, connected(path) as other:
            server.stop_accepting()
            server.stop_accepting()
            eventually(lambda: is_refused(address))
            eventually(lambda: not path.exists())
            is_answered(client)
            is_answered(other)
            assert not server.closed
            assert server.port == address[1]
            assert server.fileno() == -1
            make(kind, create_tcp_server(server.port, interface="127.0.0.1")).shutdown()  # the address is free
            assert server.stats().connections == 2
        eventually(lambda: server.stats().connections == 0)
    assert server.closed


def test_the_file_of_an_inherited_socket_stays(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as manager:  # who listens on, and lets others accept for it
        manager.bind(path)
        manager.listen()
        with make(kind, Listener.from_socket(manager.dup())) as server:
            with connected(path):
                server.stop_accepting()
            eventually(lambda: server.fileno() == -1)
        with make(kind, Listener.from_socket(manager.dup())), connected(path):
            pass


def test_before_the_start(kind: str) -> None:
    server = make(kind)
    server.stop_accepting()
    with server:
        assert is_refused(("127.0.0.1", server.port))
        assert server.stats().accepted == 0


def test_right_after_the_start(kind: str) -> None:
    server = make(kind)
    server.start()
    server.stop_accepting()
    eventually(lambda: is_refused(("127.0.0.1", server.port)))
    server.shutdown()
    server.stop_accepting()


def test_at_max_connections_nobody_is_let_in_later() -> None:
    with PacketServer(echo, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(), max_connections=1) as server:
        with connected(("127.0.0.1", server.port)):
            eventually(lambda: server.stats().accept_pauses == 1)
            server.stop_accepting()
            eventually(lambda: is_refused(("127.0.0.1", server.port)))
        eventually(lambda: server.stats().connections == 0)
        assert is_refused(("127.0.0.1", server.port))
        assert server.stats().accepted == 1


def test_from_a_handler() -> None:
    def handler(client: Any, packet: str) -> None:
        client.server.stop_accepting()
        client.send_packet(packet)

    with PacketServer(handler, create_tcp_server(interface="127.0.0.1"), codec=LineCodec()) as server:
        with connected(("127.0.0.1", server.port)) as client:
            eventually(lambda: is_refused(("127.0.0.1", server.port)))
            is_answered(client)


@pytest.mark.parametrize("workers", [8, 0])
def test_datagrams_are_not_taken_any_more_and_answers_still_go(workers: int) -> None:
    gate, began = threading.Event(), threading.Event()
    seen: list[Any] = []

    def handler(client: Any, packet: str) -> None:
        seen.append(packet)
        if packet == "last":
            client.server.stop_accepting()
            began.set()
            if workers:
                gate.wait(TIMEOUT)
        client.send_packet(packet)

    with DatagramServer(handler, create_udp_socket(interface="127.0.0.1"), codec=LineCodec(),
                        max_workers=workers) as server:
        with DatagramClient(("127.0.0.1", server.port), LineCodec()) as client:
            client.send_packet("last")
            assert began.wait(TIMEOUT)
            gate.set()
            assert client.recv_packet(timeout=TIMEOUT) == "last"
            taken = server.stats().packets_received
            for _ in range(3):
                client.send_packet("never")
            with pytest.raises(TimeoutError):
                client.recv_packet(timeout=0.1)
            assert server.stats().packets_received == taken == 1
            assert not server.closed
