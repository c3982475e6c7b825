"""A handshake that comes a byte at a time is given up at ``handshake_timeout``: bytes do not prolong it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.handshakes import client_hello, drip
from support.pairs import TIMEOUT, Background

from netmsg import (
    LineCodec, Listener, PacketServer, StreamServer, Søcket, connect_tcp, connect_unix, create_tcp_server,
    create_unix_server,
)

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
HANDSHAKE_TIMEOUT = 0.3


def accepting(stack: ExitStack, listener: Listener) -> None:
    def serve() -> None:
        for stream in listener:
            Background(use, stream)

    def use(stream: Any) -> None:
        with stream:
            try:
                stream.send_all(stream.receive(timeout=TIMEOUT))
            except OSError:
                pass

    stack.enter_context(listener)
    Background(serve)


def stream_server(stack: ExitStack, listener: Listener) -> None:
    stack.enter_context(StreamServer(lambda stream: stream.send_all(stream.receive()), listener))


def packet_server(stack: ExitStack, listener: Listener) -> None:
    stack.enter_context(PacketServer(lambda client, line: client.send_packet(line), listener, codec=LineCodec()))


@pytest.mark.parametrize("serve", [accepting, stream_server, packet_server], ids=lambda function: function.__name__)
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_56_a_dripped_handshake_is_gone_at_the_handshake_timeout(
        serve: Callable[[ExitStack, Listener], None], family: str, tls_contexts: Contexts, tmp_path: Path) -> None:
    options: dict[str, Any] = {"ssl_context": tls_contexts[0], "handshake_timeout": HANDSHAKE_TIMEOUT}
    path = tmp_path / "socket"
    with ExitStack() as stack:
        listener = create_tcp_server(**options) if family == "tcp" else create_unix_server(path, **options)
        serve(stack, listener)
        if family == "tcp":
            dripping = stack.enter_context(socket.create_connection(("127.0.0.1", listener.port)))
        else:
            dripping = stack.enter_context(socket.socket(socket.AF_UNIX))
            dripping.connect(str(path))
        dripped = Background(drip, dripping, client_hello(tls_contexts[1]))
        tls: dict[str, Any] = {"ssl_context": tls_contexts[1], "server_hostname": "localhost", "timeout": TIMEOUT}
        with connect_tcp("localhost", listener.port, **tls) if family == "tcp" else connect_unix(path, **tls) as other:
            other.send_all(b"meanwhile\n")
            assert other.receive_until(b"\n", timeout=TIMEOUT) == b"meanwhile"
        assert dripped.result() > 0


def test_56_a_dripped_handshake_to_a_søcket(tls_contexts: Contexts) -> None:
    with Søcket(linger=0, handshake_timeout=HANDSHAKE_TIMEOUT) as sock, Søcket(linger=0) as other:
        sock.bind("127.0.0.1", 0, ssl_context=tls_contexts[0])
        with socket.create_connection(("127.0.0.1", sock.bound_port)) as dripping:
            dripped = Background(drip, dripping, client_hello(tls_contexts[1]))
            other.connect("localhost", sock.bound_port, ssl_context=tls_contexts[1])
            other.send(b"meanwhile")
            assert sock.recv(timeout=TIMEOUT) == b"meanwhile"
            assert dripped.result() > 0
