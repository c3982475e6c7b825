"""A connection that is lost: the kernel tells why only once, and that may be whoever sends."""

from __future__ import annotations

import errno
import gc
import io
import os
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, until, until_waiting
from support.streams import secure

from netmsg import (
    ByteStream, ConnectionBrokenError, EndOfStream, SendTimeoutError, TLSHandshakeError, connect_tcp, create_tcp_server,
    memory_stream_pair,
)
from netmsg.sockets.liveness import hung_up
from netmsg.streams import receiving
from netmsg.streams.links import SocketLink
from netmsg.streams.memory import memory_links
from netmsg.transports.plain import PlainTransport

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]

HOW: dict[str, Callable[[ByteStream], object]] = {
    "receive": lambda stream: stream.receive(timeout=TIMEOUT),
    "receive_into": lambda stream: stream.receive_into(bytearray(10), timeout=TIMEOUT),
    "receive_exactly": lambda stream: stream.receive_exactly(1, timeout=TIMEOUT),
    "receive_until": lambda stream: stream.receive_until(b"\n", timeout=TIMEOUT),
    "receive_file": lambda stream: stream.receive_file(io.BytesIO(), timeout=TIMEOUT),
    "iteration": list,
    "makefile": lambda stream: stream.makefile("rb", timeout=TIMEOUT).read(),
}


class Losing:
    """A transport that, from some moment on, tells once that the connection is lost, and to who sends."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.lost: int | None = None
        self._told = False
        if inner.receive_into is not None:
            self.receive_into = self._receive_into

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def send_one(self, buffer: Any) -> int:
        if self.lost is None:
            return int(self._inner.send_one(buffer))
        number = errno.EPIPE if self._told else self.lost
        self._told = True
        raise OSError(number, os.strerror(number))

    def receive(self, max_bytes: int) -> bytes:
        return b"" if self._told else self._inner.receive(max_bytes)

    def _receive_into(self, view: memoryview) -> int:
        return 0 if self._told else self._inner.receive_into(view)


@pytest.fixture(params=["socket", "memory"])
def losing(request: pytest.FixtureRequest) -> Iterator[tuple[ByteStream, Losing, ByteStream]]:
    links: Any
    if request.param == "socket":
        links = [SocketLink(end) for end in socket.socketpair()]
        links[0].transport = PlainTransport(links[0].sock)
    else:
        links = memory_links(1 << 16)
    transport: Any = Losing(links[0].transport)
    links[0].transport = transport
    one, other = ByteStream(links[0]), ByteStream(links[1])
    yield one, transport, other
    one.abort()
    other.abort()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH])
def test_13_what_a_send_is_told_is_no_end_to_who_receives(losing: Any, how: str, number: int) -> None:
    one, transport, _ = losing
    transport.lost = number
    with pytest.raises(ConnectionBrokenError):
        one.send_all(b"x", timeout=TIMEOUT)
    for _ in range(2):
        with pytest.raises(ConnectionBrokenError) as raised:
            HOW[how](one)
        assert raised.value.errno == number


def test_13_an_end_is_one_though_nothing_can_be_sent_any_more(losing: Any) -> None:
    one, transport, _ = losing
    transport.lost = errno.EPIPE  # the peer has finished, and then gone
    with pytest.raises(ConnectionBrokenError):
        one.send_all(b"x", timeout=TIMEOUT)
    with pytest.raises(EndOfStream):
        one.receive_exactly(1, timeout=TIMEOUT)


def test_13_under_tls_too_where_no_goodbye_is_needed(losing: Any, tls_contexts: Contexts) -> None:
    """And where it is told while something is received."""
    one, transport, other = losing
    upgrading = Background(other.start_tls, tls_contexts[0], server_side=True, timeout=TIMEOUT)
    one.start_tls(tls_contexts[1], server_side=False, server_hostname="localhost", tls_standard_compatible=False,
                  timeout=TIMEOUT)
    upgrading.result()
    transport.lost = errno.ETIMEDOUT
    with pytest.raises(ConnectionBrokenError):
        one.send_all(b"x", timeout=TIMEOUT)
    for _ in range(2):
        with pytest.raises(ConnectionBrokenError) as raised:
            one.receive(timeout=TIMEOUT)
        assert raised.value.errno == errno.ETIMEDOUT


class Slow(PlainTransport):
    """Is told of the reset, and takes its time to say so."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.told, self.may_say = threading.Event(), threading.Event()
        self.send_one = self._send_one

    def _send_one(self, buffer: Any, *_: Any) -> int:
        try:
            return self._socket.send(buffer)
        except ConnectionResetError:
            self.told.set()
            assert self.may_say.wait(TIMEOUT)
            raise


@pytest.mark.parametrize("how", ["receive", "receive_into"])
def test_13_what_a_send_is_being_told_is_no_end_either(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(receiving, "TELLING", TIMEOUT)
    with create_tcp_server(interface="127.0.0.1") as listener:
        sock = socket.create_connection(("127.0.0.1", listener.port))
        other = listener.accept(timeout=TIMEOUT)
    link = SocketLink(sock)
    transport = Slow(sock)
    link.transport = transport
    with ByteStream(link) as one:
        other.abort()
        until(lambda: hung_up(sock))
        send = Background(one.send_all, b"x")
        assert transport.told.wait(TIMEOUT)
        receive = Background(HOW[how], one)
        until_waiting(receive)
        transport.may_say.set()
        for call in (send, receive):
            with pytest.raises(ConnectionBrokenError):
                call.result()


def test_an_end_is_told_at_once_beside_who_sends() -> None:
    with create_tcp_server(interface="127.0.0.1") as listener:
        one, other = connect_tcp("127.0.0.1", listener.port), listener.accept(timeout=TIMEOUT)
    sending = Background(one.send_all, bytes(50_000_000))
    assert other.receive_exactly(1, timeout=TIMEOUT) == b"\0"
    other.send_eof()
    assert one.receive(timeout=TIMEOUT) == b""
    assert sending.is_alive()
    one.abort()
    other.abort()
    with pytest.raises(OSError):
        sending.result()


# What was raised keeps nothing alive

@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def fail_in_a_handshake(stream: ByteStream, other: ByteStream, contexts: Contexts) -> None:
    other.send_all(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(TLSHandshakeError):
        stream.start_tls(contexts[0], server_side=True, timeout=TIMEOUT)


def break_during_a_handshake(stream: ByteStream, other: ByteStream, contexts: Contexts) -> None:
    other.abort()
    with pytest.raises(TLSHandshakeError):
        stream.start_tls(contexts[0], server_side=True, timeout=TIMEOUT)


def cut_a_send_short(stream: ByteStream, other: ByteStream, contexts: Contexts) -> None:
    with pytest.raises(SendTimeoutError):
        stream.send_all(bytes(10_000_000), timeout=0)
    with pytest.raises(ConnectionBrokenError):
        stream.send_all(b"x", timeout=0)


def receive_a_part_of_a_file(stream: ByteStream, other: ByteStream, contexts: Contexts) -> None:
    other.send_all(b"part")
    other.send_eof()
    with pytest.raises(EOFError):
        stream.receive_file(io.BytesIO(), 100, timeout=TIMEOUT)


def lack_a_goodbye(stream: ByteStream, other: ByteStream, contexts: Contexts) -> None:
    secure(other, stream, contexts)
    other.abort()
    for _ in range(2):
        with pytest.raises(ConnectionBrokenError):
            stream.receive(timeout=TIMEOUT)


@pytest.mark.parametrize("fail", [
    fail_in_a_handshake, break_during_a_handshake, cut_a_send_short, receive_a_part_of_a_file, lack_a_goodbye])
@pytest.mark.parametrize("kind", ["tcp", "memory"])
def test_a_stream_that_failed_is_gone_when_it_is_let_go_of(kind: str, fail: Callable[..., None], no_collector: None,
                                                           tls_contexts: Contexts) -> None:
    stream: ByteStream | None
    if kind == "memory":
        stream, other = memory_stream_pair()
    else:
        with create_tcp_server(interface="127.0.0.1") as listener:
            other, stream = connect_tcp("127.0.0.1", listener.port), listener.accept(timeout=TIMEOUT)
    fail(stream, other, tls_contexts)
    stream.close(timeout=0)
    other.abort()
    watched = weakref.ref(stream)
    stream = None
    assert watched() is None
