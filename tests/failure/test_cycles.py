"""Opening and closing many times over: threads, descriptors and memory stay as they were.

In the suite for a moment; with ``make soak`` ten thousand times.
"""

from __future__ import annotations

import gc
import os
import ssl
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, until, wait_for_event
from support.wire_peer import dial

from netmsg import (
    DatagramClient, Disconnected, IOThread, LineCodec, Søcket, connect_tcp, connect_unix, create_tcp_server,
    create_udp_socket, create_unix_datagram_socket, create_unix_server,
)

CYCLES = 10_000 if os.environ.get("NETMSG_SOAK") else 300
WARM_UP = 30
LEEWAY = 1 << 17
"""Bytes that are nobody's fault: a buffer in use at the other end, caches, free lists. What a cycle leaves behind, if
it does, is kilobytes each time."""

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def flat(cycle: Callable[[], None]) -> None:
    """Fail if ``cycle`` leaves something behind: in either half of the cycles, for a table of the interpreter's own may
    double in one of them, and what is left behind each time is left in both."""
    for _ in range(WARM_UP):
        cycle()
    gc.collect()
    threads, opened = threading.active_count(), descriptors()
    tracemalloc.start()
    try:
        cycle()
        gc.collect()
        first = tracemalloc.take_snapshot()
        grown = []
        for _ in range(2):
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(CYCLES // 2):
                cycle()
            gc.collect()
            grown.append(tracemalloc.get_traced_memory()[0] - before)
        left = tracemalloc.take_snapshot().compare_to(first, "lineno")[:20]
    finally:
        tracemalloc.stop()
    until(lambda: threading.active_count() <= threads and descriptors() <= opened)
    assert min(grown) < LEEWAY + 50 * CYCLES, "\n".join(map(str, left))


@pytest.mark.timeout(60 + CYCLES // 10)
@pytest.mark.parametrize("how", ["tcp", "name", "unix", "tls"])
def test_18_connecting_and_closing(how: str, tmp_path: Path, tls_contexts: Contexts) -> None:
    server: dict[str, Any] = {"ssl_context": tls_contexts[0]} if how == "tls" else {}
    client: dict[str, Any] = {"ssl_context": tls_contexts[1], "server_hostname": "localhost"} if how == "tls" else {}
    host = "localhost" if how == "name" else "127.0.0.1"
    listener = create_unix_server(tmp_path / "s") if how == "unix" else create_tcp_server(**server)

    def serve() -> None:
        for stream in listener:
            with stream:
                stream.send_all(stream.receive(timeout=TIMEOUT), timeout=TIMEOUT)

    def cycle() -> None:
        where = (tmp_path / "s",) if how == "unix" else (host, listener.port)
        with (connect_unix if how == "unix" else connect_tcp)(*where, timeout=TIMEOUT, **client) as stream:
            stream.send_all(b"x")
            assert stream.receive(timeout=TIMEOUT) == b"x"

    with listener:
        serving = Background(serve)
        flat(cycle)
    serving.result()


@pytest.mark.timeout(60 + CYCLES // 10)
def test_18_connecting_in_vain(tmp_path: Path) -> None:
    with create_tcp_server(interface="127.0.0.1") as probe:
        port = probe.port

    def cycle() -> None:
        with pytest.raises(ConnectionRefusedError):
            connect_tcp("127.0.0.1", port, timeout=TIMEOUT)
        with pytest.raises(FileNotFoundError):
            connect_unix(tmp_path / "nobody", local_path=tmp_path / "own", timeout=TIMEOUT)
        with pytest.raises(OSError):
            connect_tcp("a..b", port, timeout=TIMEOUT)

    flat(cycle)


@pytest.mark.timeout(60 + CYCLES // 10)
@pytest.mark.parametrize("how", ["tcp", "unix", "stale"])
def test_18_listening_and_closing(how: str, tmp_path: Path) -> None:
    with create_unix_server(tmp_path / "dead"):
        os.link(tmp_path / "dead", tmp_path / "left")

    def cycle() -> None:
        if how == "stale":
            os.link(tmp_path / "left", tmp_path / "s")
        with create_tcp_server() if how == "tcp" else create_unix_server(tmp_path / "s") as listener:
            with pytest.raises(TimeoutError):
                listener.accept(timeout=0)

    flat(cycle)
    assert not (tmp_path / "s").exists()


@pytest.mark.timeout(60 + CYCLES // 10)
@pytest.mark.parametrize("how", ["udp", "unix"])
def test_18_datagrams(how: str, tmp_path: Path) -> None:
    peer: Any = create_unix_datagram_socket(path=tmp_path / "s") if how == "unix" else create_udp_socket(
        interface="127.0.0.1")

    def cycle() -> None:
        with DatagramClient(peer.local_address, LineCodec()) as client:
            client.send_packet("x")
            data, address = peer.receive(timeout=TIMEOUT)
            peer.send_to(data, address)
            assert client.recv_packet(timeout=TIMEOUT) == "x"
            with pytest.raises(TimeoutError):
                client.recv_packet(timeout=0)

    with peer:
        flat(cycle)


@pytest.mark.timeout(60 + CYCLES // 10)
@pytest.mark.parametrize("io", ["one thread", "a thread each"])
@pytest.mark.parametrize("how", ["connecting", "binding"])
def test_18_søckets(how: str, io: str) -> None:
    """The regular look at the peers comes often, for until the last one a Søcket that is closed is kept."""
    with IOThread() as shared, Søcket(linger=0).bind(port=0) as hub:
        def cycle() -> None:
            with Søcket(io_thread=shared if io == "one thread" else None, linger=0, heartbeat_interval=0.02) as sock:
                if how == "connecting":
                    sock.connect(port=hub.bound_port)
                    sock.wait_for_peers(timeout=TIMEOUT)
                else:
                    with dial(sock.bind(port=0).bound_port) as peer:
                        peer.shake_hands()
                        sock.wait_for_peers(timeout=TIMEOUT)
            if how == "connecting":
                wait_for_event(hub, Disconnected)

        flat(cycle)
