"""Servers under load, and clients that mean no good. Clients are processes of their own, for the descriptors' sake."""

from __future__ import annotations

import gc
import os
import resource
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background
from support.processes import Program
from support.servers import descriptors_left, eventually

from netmsg import LineCodec, PacketClient, PacketConnection, PacketServer, StreamServer, create_tcp_server

IDLERS = Path(__file__).resolve().parent.parent / "support" / "idle_clients.py"
LOAD_TIMEOUT = 50.0


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def threads() -> int:
    return sum(thread.name.startswith("netmsg-") for thread in threading.enumerate())


@contextmanager
def idle_clients(port: int, count: int, processes: int = 2) -> Iterator[None]:
    """So many connections that say nothing, until the end."""
    with ExitStack() as stack:
        programs = [stack.enter_context(Program(IDLERS, str(port), str(count // processes)))
                    for _ in range(processes)]
        for program in programs:
            program.wait_for("connected", timeout=LOAD_TIMEOUT)
        yield
        for program in programs:
            program.end_input()
            assert program.finish(timeout=LOAD_TIMEOUT) == 0


def echo(client: PacketConnection[str], packet: str) -> None:
    client.send_packet(packet)


def talk(port: int, connections: int, rounds: int) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(PacketClient(("127.0.0.1", port), LineCodec())) for _ in range(connections)]
        for number in range(rounds):
            for client in clients:
                client.send_packet(str(number))
            for client in clients:
                assert client.recv_packet(timeout=TIMEOUT) == str(number)


def enough_descriptors(count: int) -> bool:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= count


@pytest.mark.timeout(120)
@pytest.mark.parametrize("idle", [1000, pytest.param(10_000, marks=pytest.mark.skipif(
    not enough_descriptors(10_500), reason="this process may not have so many descriptors"))])
def test_84_idle_clients_cost_no_threads_and_50_busy_ones_are_served(idle: int) -> None:
    with PacketServer(echo, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(), max_workers=8) as server:
        talk(server.port, 50, 2)
        gc.collect()
        before = resident()
        with idle_clients(server.port, idle):
            eventually(lambda: server.stats().connections == idle, LOAD_TIMEOUT)
            grown = resident() - before
            talk(server.port, 50, 20)
            assert threads() <= 9
            assert len(server.clients()) >= idle
        eventually(lambda: server.stats().connections == 0, LOAD_TIMEOUT)
        if idle >= 10_000:  # fewer are too few to be told from the rest
            assert grown / idle < 6 * 1024


@pytest.mark.timeout(120)
def test_84_idle_conversations_cost_none_either() -> None:
    def converse(client: PacketConnection[str]) -> Any:
        while True:
            client.send_packet((yield))

    with PacketServer(converse, create_tcp_server(interface="127.0.0.1"), codec=LineCodec()) as server:
        with idle_clients(server.port, 1000):
            eventually(lambda: len(server.clients()) == 1000, LOAD_TIMEOUT)
            talk(server.port, 50, 5)
            assert threads() <= 9
        eventually(lambda: server.stats().connections == 0, LOAD_TIMEOUT)


@pytest.mark.timeout(120)
def test_a_thousand_connections_on_a_stream_server() -> None:
    def handler(stream: Any) -> None:
        for line in stream.receive_delimited_chunks(b"\n"):
            stream.send_all(line + b"\n")

    with StreamServer(handler, create_tcp_server(interface="127.0.0.1")) as server:
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                       for _ in range(1000)]
            for _ in range(2):
                for sock in sockets:
                    sock.sendall(b"hello\n")
                for sock in sockets:
                    sock.settimeout(TIMEOUT)
                    assert sock.recv(100) == b"hello\n"
            assert server.stats().workers == 1000
        eventually(lambda: server.stats().connections == 0, LOAD_TIMEOUT)


@pytest.mark.timeout(120)
def test_a_thousand_silent_ones_that_wait_for_data_cost_no_thread() -> None:
    with StreamServer(lambda stream: None, create_tcp_server(interface="127.0.0.1"), wait_for_data=True) as server:
        with idle_clients(server.port, 1000):
            eventually(lambda: server.stats().connections == 1000, LOAD_TIMEOUT)
            assert threads() == 1
        eventually(lambda: server.stats().connections == 0, LOAD_TIMEOUT)


@pytest.fixture(params=["plain", "tls"])
def security(request: pytest.FixtureRequest,
             tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> tuple[Any, Any]:
    return (None, None) if request.param == "plain" else tls_contexts


@pytest.mark.parametrize("workers", [3, 0], ids=["workers", "inline"])
def test_85_clients_that_mean_no_good_harm_nobody_else(security: tuple[Any, Any], workers: int) -> None:
    """They never read, never write, drip, reset and flood, all at once, and a good one is served all the time."""
    listener = create_tcp_server(interface="127.0.0.1", ssl_context=security[0], handshake_timeout=1.0)
    over = threading.Event()

    def handler(client: PacketConnection[str], packet: str) -> None:
        client.send_packet(packet * (20 if packet.startswith("flood") else 1))

    def connect() -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.settimeout(0.1)
        if security[1] is not None:
            sock.settimeout(TIMEOUT)
            sock = security[1].wrap_socket(sock, server_hostname="localhost")
            sock.settimeout(0.1)
        return sock

    def repeatedly(misdeed: Any) -> None:
        while not over.is_set():
            try:
                with connect() as sock:
                    misdeed(sock)
            except OSError:
                pass

    def flood_and_never_read(sock: socket.socket) -> None:
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline and not over.is_set():
            sock.sendall(b"flood\n" * 1000)

    def drip(sock: socket.socket) -> None:
        for byte in b"a long line that comes a byte at a time":
            sock.sendall(bytes([byte]))
            if over.wait(0.01):
                return

    def never_write(sock: socket.socket) -> None:
        over.wait(0.3)

    def reset(sock: socket.socket) -> None:
        sock.sendall(b"line\nhalf a li")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def vanish(sock: socket.socket) -> None:
        sock.sendall(b"line\n" * 10)

    def nonsense(sock: socket.socket) -> None:
        sock.sendall(os.urandom(1000))

    def no_handshake(sock: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as bare:
            bare.sendall(b"\x16\x03\x01\x02")
            over.wait(0.05)

    with PacketServer(handler, listener, codec=LineCodec(), max_workers=workers, send_timeout=0.3,
                      send_hwm_bytes=100_000) as server:
        mischief = [Background(repeatedly, misdeed) for misdeed in (
            flood_and_never_read, flood_and_never_read, drip, never_write, reset, vanish, nonsense, no_handshake)]
        try:
            with PacketClient(("127.0.0.1", server.port), LineCodec(), ssl_context=security[1],
                              connect_timeout=LOAD_TIMEOUT) as client:
                deadline = time.monotonic() + 3
                answered = 0
                memory = resident()
                while time.monotonic() < deadline or answered < 10:
                    client.send_packet(str(answered))
                    assert client.recv_packet(timeout=TIMEOUT) == str(answered)
                    answered += 1
                    assert resident() - memory < 100 * 2**20
        finally:
            over.set()
        for thread in mischief:
            thread.result()
        eventually(lambda: server.stats().connections == 0, LOAD_TIMEOUT)
        assert server.stats().handler_errors == 0
        assert threads() <= 1 + workers


def test_out_of_descriptors_it_pauses_and_goes_on() -> None:
    with PacketServer(echo, create_tcp_server(interface="127.0.0.1"), codec=LineCodec()) as server:
        talk(server.port, 1, 1)
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(20)]
            with descriptors_left(3):
                for sock in sockets:
                    sock.connect(("127.0.0.1", server.port))
                eventually(lambda: server.stats().accept_errors >= 1)
                assert server.stats().connections < 20
            eventually(lambda: server.stats().connections == 20)
            sockets[-1].sendall(b"hello\n")
            sockets[-1].settimeout(TIMEOUT)
            assert sockets[-1].recv(100) == b"hello\n"
