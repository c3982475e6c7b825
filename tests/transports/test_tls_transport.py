"""TLS over a socket that takes only some of it: nothing is lost, sent twice, or forgotten."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest

from netmsg.transports.encrypted import TLSTransport
from netmsg.transports.plain import PlainTransport

Pair = tuple[TLSTransport, TLSTransport]


@pytest.fixture
def pair(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[Pair]:
    a, b = socket.socketpair()
    for sock in (a, b):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    server = TLSTransport(PlainTransport(a), tls_contexts[0], server_side=True)
    client = TLSTransport(PlainTransport(b), tls_contexts[1], server_side=False, server_hostname="localhost")
    while server.handshaking or client.handshaking:
        for end in (client, server):
            if end.handshaking:
                try:
                    end.handshake()
                except BlockingIOError:
                    pass
    yield server, client
    a.close()
    b.close()


def receive(transport: TLSTransport) -> bytes | None:
    try:
        return transport.receive(65536)
    except BlockingIOError:
        return None


def test_ciphertext_that_the_kernel_does_not_take_is_sent_before_anything_else(pair: Pair) -> None:
    server, client = pair
    with pytest.raises(BlockingIOError):
        client.send_one(b"a" * 65536)
    assert client.unsent
    got = b""
    while client.unsent:  # the plaintext counts as sent once the last of its ciphertext is
        with pytest.raises(BlockingIOError):
            client.send_one(b"a" * 65536)
        got += receive(server) or b""
        client.flush()
    assert client.send_one(b"a" * 65536) == 65536
    while len(got) < 65536:
        got += receive(server) or b""
    assert client.send_one(b"then") == 4
    got += receive(server) or b""
    assert got == b"a" * 65536 + b"then"


def test_a_goodbye_waits_behind_what_the_kernel_did_not_take(pair: Pair) -> None:
    server, client = pair
    with pytest.raises(BlockingIOError):
        client.send_one(b"a" * 65536)
    client.end_sending()
    assert client.unsent
    got = b""
    while (chunk := receive(server)) != b"":
        got += chunk or b""
        client.flush()
    assert got == b"a" * 65536 and not client.unsent
    server.send_one(b"still heard")
    assert receive(client) == b"still heard"


def test_reading_goes_on_while_what_is_to_be_sent_waits(pair: Pair) -> None:
    server, client = pair
    with pytest.raises(BlockingIOError):
        client.send_one(b"a" * 65536)
    server.send_one(b"meanwhile")
    assert receive(client) == b"meanwhile" and client.unsent
