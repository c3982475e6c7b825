"""The TLS of a Søcket is cut, in the midst of its handshake, of a message or between two: it is told, nothing that was
not whole is delivered, and others go on."""

from __future__ import annotations

import socket
import ssl
import struct

import pytest
from support.handshakes import client_hello
from support.pairs import TIMEOUT, wait_for_event
from support.wire_peer import DATA, frame, hello

from netmsg import Disconnected, HandshakeFailed, Søcket

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def cut(sock: socket.socket, how: str) -> None:
    if how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def others_go_on(sock: Søcket, contexts: Contexts) -> None:
    with Søcket(linger=0).connect("localhost", sock.bound_port, ssl_context=contexts[1]) as other:
        other.send(b"from another one")
        assert sock.recv(timeout=TIMEOUT) == b"from another one"


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_in_the_midst_of_its_handshake(how: str, tls_contexts: Contexts) -> None:
    with Søcket(linger=0).bind("127.0.0.1", 0, ssl_context=tls_contexts[0]) as sock:
        for length in 3, 100:
            raw = socket.create_connection(("127.0.0.1", sock.bound_port), TIMEOUT)
            raw.sendall(client_hello(tls_contexts[1])[:length])
            cut(raw, how)
            event = wait_for_event(sock, HandshakeFailed)
            assert event.phase == "TLS" and event.reason and event.error is not None
        others_go_on(sock, tls_contexts)


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("begun", [b"", frame(DATA, b"half of it")[:-2]], ids=["between messages", "within one"])
def test_without_the_goodbye_of_tls(begun: bytes, how: str, tls_contexts: Contexts) -> None:
    """Nobody knows what would have come."""
    with Søcket(linger=0).bind("127.0.0.1", 0, ssl_context=tls_contexts[0]) as sock:
        raw = socket.create_connection(("127.0.0.1", sock.bound_port), TIMEOUT)
        secured = tls_contexts[1].wrap_socket(raw, server_hostname="localhost")
        secured.sendall(hello(b"I" * 16) + frame(DATA, b"whole") + begun)
        assert sock.recv(timeout=TIMEOUT) == b"whole"
        cut(secured, how)
        event = wait_for_event(sock, Disconnected)
        assert event.peer == b"I" * 16 and isinstance(event.error, OSError)
        with pytest.raises(TimeoutError):
            sock.recv(timeout=0)
        others_go_on(sock, tls_contexts)
