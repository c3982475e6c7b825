"""TLS over a socket that takes only some of it: nothing is lost, sent twice, or forgotten."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from support.handshakes import shake

from netmsg.errors import ConnectionBrokenError
from netmsg.transports import encrypted
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
    shake(client, server)
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


class Forestalled(TLSTransport):
    """The other end has had our goodbye, and went before that of this one."""

    def end_sending(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_goodbye_is_said_whatever_becomes_of_that_below(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """TLS in TLS."""
    ours, theirs = tls_contexts
    a, b = socket.socketpair()
    with a, b:
        for sock in (a, b):
            sock.setblocking(False)
        below_server = TLSTransport(PlainTransport(a), ours, server_side=True)
        below_client = Forestalled(PlainTransport(b), theirs, server_side=False, server_hostname="localhost")
        server = TLSTransport(below_server, ours, server_side=True)
        client = TLSTransport(below_client, theirs, server_side=False, server_hostname="localhost")
        for ends in ((below_client, below_server), (client, server)):
            shake(*ends)
        client.end_sending()
        assert not client.unsent
        assert receive(server) == b""


class Stored:
    """What is below TLS, with any amount of room; counts how much is taken."""

    handshaking = unsent = finishing = stalled = begun = readable = False

    def __init__(self, incoming: bytearray, outgoing: bytearray) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.full = False

    def receive(self, max_bytes: int, /) -> bytes:
        if not self.incoming:
            raise BlockingIOError
        chunk = bytes(self.incoming[:max_bytes])
        del self.incoming[:max_bytes]
        return chunk

    def send_one(self, buffer: Any, /) -> int:
        if self.full:
            raise BlockingIOError
        self.outgoing += buffer
        return len(buffer)


@pytest.fixture
def flooded(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[tuple[TLSTransport, TLSTransport, Stored]]:
    """A server, a client, and what is below that, with thousands of session tickets in it."""
    usual = tls_contexts[0].num_tickets
    tls_contexts[0].num_tickets = 2000
    to_server, to_client = bytearray(), bytearray()
    upper: Any = Stored(to_server, to_client)
    lower: Any = Stored(to_client, to_server)
    server = TLSTransport(upper, tls_contexts[0], server_side=True)
    client = TLSTransport(lower, tls_contexts[1], server_side=False, server_hostname="localhost")
    shake(client, server)
    yield server, client, lower
    tls_contexts[0].num_tickets = usual


def test_records_without_plaintext_do_not_keep_a_call_inside(
        flooded: tuple[TLSTransport, TLSTransport, Stored]) -> None:
    """Session tickets here, as many as a server likes to send; a client can do the same with key updates."""
    server, client, below = flooded
    server.send_one(b"what is behind them")
    assert len(below.incoming) > 400_000
    got = None
    while got is None:
        before = len(below.incoming)
        got = receive(client)
        assert before - len(below.incoming) <= 65_536
        assert got is not None or below.incoming, "nothing is left to wake who waits for what has come"
    assert got == b"what is behind them"


def test_answers_that_nobody_receives_do_not_pile_up(flooded: tuple[TLSTransport, TLSTransport, Stored],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    server, client, below = flooded
    monkeypatch.setattr(encrypted, "MOST_UNSENT", 1000)
    server.send_one(b"what came before")
    got = None
    while got is None:
        got = receive(client)
    assert got == b"what came before"
    below.full = True
    with pytest.raises(BlockingIOError):
        client.send_one(bytes(2000))
    server.send_one(b"not taken any more")
    with pytest.raises(ConnectionBrokenError):
        client.receive(65_536)
    assert below.incoming
