"""A Søcket and those who begin and do not go on: they are gone when their time is up, however they drip; when there are
too many of them, the oldest make room; and whoever has something to say comes in at once."""

from __future__ import annotations

import os
import socket
import ssl
import time
from contextlib import ExitStack
from typing import Any

import pytest
from support.handshakes import client_hello, drip
from support.pairs import until
from support.wire_peer import HELLO, dial, hello

from netmsg import Søcket
from netmsg.messaging.strangers import MOST_STRANGERS

MANY = 1000 if os.environ.get("NETMSG_SOAK") else 300
AT_ONCE = 1.0
"""Seconds until somebody is in who says who he is."""

HTTP = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 500

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def bound(contexts: Contexts | None, handshake_timeout: float) -> Søcket:
    listening: dict[str, Any] = {"ssl_context": contexts[0]} if contexts else {"websocket_origins": ["*"]}
    return Søcket(linger=0, handshake_timeout=handshake_timeout).bind("127.0.0.1", 0, **listening)


def come_in(port: int, contexts: Contexts | None) -> float:
    """Connect and say who one is, as others do who have something to say: the seconds it took to be answered."""
    begun = time.monotonic()
    with dial(port) as peer:
        if contexts:
            peer.sock = contexts[1].wrap_socket(peer.sock, server_hostname="localhost")
        peer.send(hello(peer.identity))
        assert peer.read_frame()[0] == HELLO
        return time.monotonic() - begun


@pytest.mark.parametrize("words", [hello(b"I" * 16), HTTP], ids=["hello", "http"])
def test_what_is_dripped_is_given_up_at_the_handshake_timeout(words: bytes) -> None:
    """Bytes do not prolong it."""
    words = words[:60]
    with bound(None, 0.4) as sock, socket.create_connection(("127.0.0.1", sock.bound_port)) as slow:
        begun = time.monotonic()
        assert 0 < drip(slow, words) < len(words) - 1
        assert time.monotonic() - begun > 0.3


@pytest.mark.timeout(150)
@pytest.mark.parametrize("kind", ["hello", "http", "tls"])
def test_all_are_gone_when_their_time_is_up_and_others_come_in_at_once(kind: str, tls_contexts: Contexts) -> None:
    contexts = tls_contexts if kind == "tls" else None
    words = {"hello": hello(b"s" * 16), "http": HTTP, "tls": client_hello(tls_contexts[1])}[kind]
    with bound(contexts, 1.5) as sock, ExitStack() as stack:
        slow = []
        for _ in range(MANY):
            slow.append(stack.enter_context(dial(sock.bound_port)))
            slow[-1].send(words[:3])
        for byte in range(3, 13):
            assert come_in(sock.bound_port, contexts) < AT_ONCE
            for one in slow:
                try:
                    one.send(words[byte:byte + 1])
                except OSError:
                    pass  # it has gone
        for one in slow:
            one.wait_for_end()
        until(lambda: not sock.peers())


@pytest.mark.parametrize("kind", ["hello", "http", "tls"])
def test_when_there_are_too_many_the_oldest_make_room(kind: str, tls_contexts: Contexts) -> None:
    contexts = tls_contexts if kind == "tls" else None
    words = {"hello": hello(b"s" * 16), "http": HTTP, "tls": client_hello(tls_contexts[1])}[kind]
    with bound(contexts, 60.0) as sock, ExitStack() as stack:
        slow = []
        for _ in range(MOST_STRANGERS):
            slow.append(stack.enter_context(dial(sock.bound_port)))
            slow[-1].send(words[:3])
        for _ in range(3):
            assert come_in(sock.bound_port, contexts) < AT_ONCE
        slow[0].wait_for_end()
        newest = slow[-1].sock
        newest.settimeout(0.1)
        with pytest.raises(TimeoutError):
            newest.recv(1)
