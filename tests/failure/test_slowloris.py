"""Slowloris: a thousand connections that begin and do not go on. The machine's own clients are served meanwhile."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background
from support.servers import eventually

from netmsg import LineCodec, PacketClient, PacketServer, StreamServer, create_tcp_server
from netmsg.reactor import handshaking

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
MANY = 1000
LOAD_TIMEOUT = 60.0
AT_ONCE = 1.0
"""Seconds that a visit takes at most, while there is nothing to do but for those who say nothing."""
HELLO = b"\x16\x03\x01\x02\x00\x01\x00"
"""How a ClientHello begins."""


@pytest.fixture(params=["packets", "inline", "streams"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(kind: str, **listening: Any) -> Any:
    def echo_stream(stream: Any) -> None:
        for chunk in stream:
            stream.send_all(chunk)

    listener = create_tcp_server(interface="127.0.0.1", **listening)
    if kind == "streams":
        return StreamServer(echo_stream, listener, idle_timeout=2.0)
    return PacketServer(lambda client, packet: client.send_packet(packet), listener, codec=LineCodec(),
                        max_workers=0 if kind == "inline" else 8, idle_timeout=2.0)


@contextmanager
def dripping(port: int, beginning: bytes) -> Iterator[list[socket.socket]]:
    """So many connections, each of which says one more byte now and then until it is closed."""
    over = threading.Event()
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(MANY)]

        def drip() -> None:
            for byte in beginning:
                for sock in socks:
                    try:
                        sock.send(bytes([byte]))
                    except OSError:
                        pass
                if over.wait(0.2):
                    return

        thread = Background(drip)
        try:
            yield socks
        finally:
            over.set()
            thread.result()


def are_all_gone(socks: list[socket.socket]) -> bool:
    for sock in socks:
        sock.settimeout(TIMEOUT)
        try:
            while sock.recv(100):
                pass  # the answers of who answers every byte
        except ConnectionError:
            pass
    return True


def talk(port: int, context: ssl.SSLContext | None, rounds: int) -> float:
    """The seconds that the longest of some short visits took."""
    longest = 0.0
    for number in range(rounds):
        begun = time.monotonic()
        with PacketClient(("127.0.0.1", port), LineCodec(), ssl_context=context, connect_timeout=TIMEOUT,
                          server_hostname="localhost" if context is not None else None) as client:
            client.send_packet(str(number))
            assert client.recv_packet(timeout=TIMEOUT) == str(number)
        longest = max(longest, time.monotonic() - begun)
    return longest


@pytest.mark.timeout(150)
def test_in_the_clear_all_are_gone_when_their_time_is_up_and_others_are_served(kind: str) -> None:
    """A packet that comes in drips does not count as one, nor a byte as an answer."""
    with make(kind) as server:
        with dripping(server.port, b"ab") as socks:
            talk(server.port, None, 10)
            eventually(lambda: server.stats().accepted == MANY + 10, LOAD_TIMEOUT)
            assert talk(server.port, None, 10) < AT_ONCE
            assert are_all_gone(socks)
        eventually(lambda: server.stats().connections == 0, LOAD_TIMEOUT)
        stats = server.stats()
        # On a slow machine one that has talked may be found silent before it is seen to leave.
        assert MANY <= stats.closed_idle <= MANY + 20
        assert stats.handler_errors == 0


@pytest.mark.timeout(150)
def test_under_tls_the_oldest_go_first_and_all_in_time(kind: str, tls_contexts: Contexts) -> None:
    with make(kind, ssl_context=tls_contexts[0], handshake_timeout=2.0) as server:
        with dripping(server.port, HELLO) as socks:
            talk(server.port, tls_contexts[1], 5)
            eventually(lambda: server.stats().accepted == MANY + 5, LOAD_TIMEOUT)
            assert server.stats().handshakes <= 2 * handshaking.MOST_PENDING
            assert talk(server.port, tls_contexts[1], 5) < AT_ONCE
            assert are_all_gone(socks)
        eventually(lambda: server.stats().connections == 0, LOAD_TIMEOUT)
        stats = server.stats()
        assert stats.handshakes == 0
        assert stats.handshakes_failed == MANY
        assert stats.handler_errors == 0
