"""A logging handler is the user's, and may raise or block: it costs a server nothing."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support.pairs import TIMEOUT
from support.servers import eventually

from netmsg import (
    ByteStream, DatagramPeer, DatagramServer, IOThread, LineCodec, PacketClient, PacketConnection, PacketServer,
    StreamServer, create_tcp_server, create_udp_socket,
)


class Unable(logging.Handler):
    """Cannot do what it is for."""

    def __init__(self, fail: Callable[[], object]) -> None:
        super().__init__(logging.DEBUG)
        self.failed = threading.Semaphore(0)
        self._fail = fail

    def emit(self, record: logging.LogRecord) -> None:
        self.failed.release()
        self._fail()


@pytest.fixture
def install() -> Iterator[Callable[[Unable], Unable]]:
    log = logging.getLogger("netmsg")
    installed: list[Unable] = []

    def add(handler: Unable) -> Unable:
        installed.append(handler)
        log.addHandler(handler)
        return handler

    propagate, level = log.propagate, log.level
    log.propagate = False
    log.setLevel(logging.DEBUG)
    yield add
    log.propagate, log.level = propagate, level
    for handler in installed:
        log.removeHandler(handler)


def exit_thread() -> None:
    raise SystemExit


def break_down() -> None:
    raise OSError("the log server is not there")


@pytest.fixture(params=[break_down, exit_thread])
def unable(request: pytest.FixtureRequest, install: Any) -> Unable:
    handler: Unable = install(Unable(request.param))
    return handler


def handle(client: Any, packet: Any) -> None:
    if packet in ("fail", b"fail"):
        raise ZeroDivisionError
    client.send_packet(packet)


def converse(stream: ByteStream) -> None:
    for line in stream.receive_delimited_chunks(b"\n"):
        if line == b"fail":
            raise ZeroDivisionError
        stream.send_all(line + b"\n")


def packet_server(workers: int, **options: Any) -> PacketServer[Any, Any]:
    return PacketServer(handle, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(), max_workers=workers,
                        **options)


@pytest.mark.parametrize("make", [
    lambda: packet_server(2), lambda: packet_server(0),
    lambda: StreamServer(converse, create_tcp_server(interface="127.0.0.1"), max_workers=2),
], ids=["packets", "packets without workers", "streams"])
def test_a_failing_handler_costs_no_worker_and_no_connection(make: Callable[[], Any], unable: Unable) -> None:
    with make() as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock:
                sock.sendall(b"fail\n")
                assert sock.recv(1) == b""
            assert unable.failed.acquire(timeout=TIMEOUT)
        with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock:
            sock.sendall(b"hello\n")
            assert sock.recv(100) == b"hello\n"
        assert server.stats().handler_errors == 3
        eventually(lambda: server.stats().connections == 0)
        eventually(lambda: server.stats().workers <= 2)  # others stood in for those that closed slowly


@pytest.mark.parametrize("workers", [2, 0])
def test_nor_do_datagrams(workers: int, unable: Unable) -> None:
    with DatagramServer(handle, create_udp_socket(interface="127.0.0.1"), max_workers=workers) as server, \
            create_udp_socket(interface="127.0.0.1") as client:
        for _ in range(3):
            client.send_to(b"fail", server.addresses[0])
            assert unable.failed.acquire(timeout=TIMEOUT)
        client.send_to(b"hello", server.addresses[0])
        assert client.receive(timeout=TIMEOUT)[0] == b"hello"


@pytest.mark.parametrize("workers", [2, 0])
def test_nor_does_a_bad_packet(workers: int, unable: Unable) -> None:
    with packet_server(workers) as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock:
                sock.sendall(b"\xff\n")
                assert sock.recv(1) == b""
        with PacketClient(("127.0.0.1", server.port), LineCodec()) as client:
            client.send_packet("hello")
            assert client.recv_packet(timeout=TIMEOUT) == "hello"
        assert server.stats().bad_packets == 3


def test_strangers_end_no_server(unable: Unable, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with IOThread() as io, ExitStack() as stack:
        secret = stack.enter_context(PacketServer(
            handle, create_tcp_server(interface="127.0.0.1", ssl_context=tls_contexts[0]), codec=LineCodec(),
            io_thread=io))
        server = stack.enter_context(packet_server(2, max_connections=1, io_thread=io))
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", secret.port), TIMEOUT) as sock:
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                while sock.recv(1000):
                    pass
        eventually(lambda: secret.stats().handshakes_failed == 2)
        assert unable.failed.acquire(timeout=TIMEOUT)
        with PacketClient(("127.0.0.1", server.port), LineCodec()) as client:  # and there is no room for another
            client.send_packet("hello")
            assert client.recv_packet(timeout=TIMEOUT) == "hello"
        assert server.stats().accept_pauses == 1


def test_the_network_thread_does_not_wait_for_the_log(install: Callable[[Unable], Unable],
                                                      tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    gate = threading.Event()
    slow = install(Unable(lambda: gate.wait(TIMEOUT)))
    try:
        with IOThread() as io, ExitStack() as stack:
            secret = stack.enter_context(PacketServer(
                handle, create_tcp_server(interface="127.0.0.1", ssl_context=tls_contexts[0]), codec=LineCodec(),
                io_thread=io))
            server = stack.enter_context(packet_server(0, io_thread=io))
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", secret.port), TIMEOUT))
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert slow.failed.acquire(timeout=TIMEOUT)
            with PacketClient(("127.0.0.1", server.port), LineCodec()) as client:
                client.send_packet("fail")
                assert list(client) == []
            with PacketClient(("127.0.0.1", server.port), LineCodec()) as client:
                client.send_packet("hello")
                assert client.recv_packet(timeout=TIMEOUT / 2) == "hello"
            assert not gate.is_set()
    finally:
        gate.set()


def test_a_log_that_sends_to_the_clients_of_the_server_does_not_stop_it(install: Callable[[Unable], Unable]) -> None:
    """Such as one that shows itself to who looks after the server."""
    def show() -> None:
        for client in server.clients():
            client.send_packet("trouble")

    install(Unable(show))
    with packet_server(2) as server, PacketClient(("127.0.0.1", server.port), LineCodec()) as watching:
        eventually(server.clients)
        with PacketClient(("127.0.0.1", server.port), LineCodec()) as client:
            client.send_packet("fail")
            assert watching.recv_packet(timeout=TIMEOUT) == "trouble"
            eventually(lambda: server.stats().connections == 1)


def test_who_gives_a_slow_client_up_hears_nothing_of_the_log(unable: Unable) -> None:
    def nothing(client: PacketConnection[str], packet: str) -> None:
        """It does not say anything."""

    with PacketServer(nothing, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(), send_hwm_bytes=1000,
                      send_timeout=0.1) as server, socket.create_connection(("127.0.0.1", server.port), TIMEOUT):
        eventually(server.clients)
        client = server.clients()[0]
        with pytest.raises(TimeoutError):
            while True:
                client.send_packet("x" * 1_000_000)
        eventually(lambda: server.stats().connections == 0)
        assert unable.failed.acquire(timeout=TIMEOUT)


def test_datagrams_that_fail_faster_than_the_log_is_written_wait_for_it(install: Callable[[Unable], Unable]) -> None:
    """In their workers: what has not been said is not to fill the memory."""
    gate = threading.Event()
    slow = install(Unable(lambda: gate.wait(TIMEOUT)))

    def fail(client: DatagramPeer[bytes], packet: bytes) -> None:
        raise ZeroDivisionError

    try:
        with DatagramServer(fail, create_udp_socket(interface="127.0.0.1"), max_workers=1) as server, \
                create_udp_socket(interface="127.0.0.1") as client:
            for _ in range(5):
                client.send_to(b"fail", server.addresses[0])
            assert slow.failed.acquire(timeout=TIMEOUT)
            eventually(lambda: server.stats().waiting == 4)
            assert server.stats().handler_errors == 1
            gate.set()
            eventually(lambda: server.stats().handler_errors == 5)
    finally:
        gate.set()
