"""Handlers that send to somebody else than a client of a server do not keep the workers from the others either."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support.blocking import until_asleep
from support.forking import fork
from support.pairs import TIMEOUT, Background
from support.servers import eventually

from netmsg import (
    ByteStream, LineCodec, Listener, PacketClient, PacketServer, SendTimeoutError, StreamServer, connect_tcp,
    create_tcp_server, memory_stream_pair,
)
from netmsg.servers import stream_server
from netmsg.standing_in import this_thread

BIG = 20_000_000
Work = Callable[[str], str]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is timed out for want of workers."""
    monkeypatch.setattr(stream_server, "SILENCE", 1000.0)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Upstreams:
    """That take nothing, each of its own connection, until they are closed."""

    def __init__(self, stack: ExitStack, kind: str = "stream") -> None:
        self.kind = kind
        self.sending = threading.Semaphore(0)
        self.over: list[BaseException] = []
        self.near: list[ByteStream] = []
        self.far: list[Any] = []
        self._address = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100)).getsockname()
        stack.callback(self.close)

    def close(self) -> None:
        for stream in (*self.near, *self.far):
            stream.abort()

    def connect(self) -> ByteStream:
        if self.kind == "memory":
            near, far = memory_stream_pair()
            self.far.append(far)
        else:
            near = connect_tcp(*self._address[:2], timeout=TIMEOUT)
        self.near.append(near)
        return near

    def send(self, stream: ByteStream) -> None:
        self.sending.release()
        try:
            if self.kind == "packets":
                with PacketClient(stream, LineCodec()) as client:
                    client.send_packet("x" * BIG)
            else:
                stream.send_all(bytes(BIG))
        except BaseException as error:
            self.over.append(error)
            raise

    def work(self, order: str) -> str:
        """Of a handler."""
        if order == "pass on":
            self.send(self.connect())
        return order


def serve(stack: ExitStack, kind: str, work: Work, **options: Any) -> StreamServer | PacketServer[str, str]:
    """A server that answers a line by what ``work`` makes of it."""
    def handle_stream(stream: ByteStream) -> None:
        stream.send_all(work(stream.receive_until(b"\n").decode()).encode() + b"\n")

    listener = create_tcp_server(interface="127.0.0.1")
    server: StreamServer | PacketServer[str, str]
    if kind == "stream":
        server = StreamServer(handle_stream, listener, **options)
    else:
        server = PacketServer(lambda client, packet: client.send_packet(work(packet)), listener, codec=LineCodec(),
                              **options)
    stack.enter_context(server)
    stack.callback(server.shutdown, timeout=0)
    return server


def ask(stack: ExitStack, server: Any, order: str) -> ByteStream:
    stream = stack.enter_context(connect_tcp("127.0.0.1", server.port, timeout=TIMEOUT))
    stream.send_all(order.encode() + b"\n")
    return stream


def is_answered(stack: ExitStack, server: Any) -> None:
    assert ask(stack, server, "hello").receive_until(b"\n", timeout=TIMEOUT) == b"hello"


def accept(listener: Listener, number: int) -> list[ByteStream]:
    """And answer the handshakes, but no goodbye."""
    streams: list[ByteStream] = []
    for _ in range(number):
        streams.append(listener.accept(timeout=TIMEOUT))
        streams[-1].do_handshake(timeout=TIMEOUT)
    return streams


both_servers = pytest.mark.parametrize("server_kind", ["stream", "packet"])


@both_servers
@pytest.mark.parametrize("kind", ["stream", "packets", "memory"])
def test_as_many_deaf_upstreams_as_workers_and_more_stop_nobody(stack: ExitStack, server_kind: str, kind: str) -> None:
    upstreams = Upstreams(stack, kind)
    server = serve(stack, server_kind, upstreams.work, max_workers=2)
    for _ in range(5):
        ask(stack, server, "pass on")
        assert upstreams.sending.acquire(timeout=TIMEOUT)
    is_answered(stack, server)
    assert not upstreams.over
    upstreams.close()
    eventually(lambda: len(upstreams.over) == 5)


@both_servers
def test_nor_do_those_who_wait_behind_a_thread_of_the_program(stack: ExitStack, server_kind: str) -> None:
    upstreams = Upstreams(stack)
    shared = upstreams.connect()
    ours = Background(shared.send_all, bytes(BIG))
    until_asleep(ours)

    def work(order: str) -> str:
        if order == "pass on":
            upstreams.send(shared)
        return order

    server = serve(stack, server_kind, work, max_workers=2)
    for _ in range(3):
        ask(stack, server, "pass on")
        assert upstreams.sending.acquire(timeout=TIMEOUT)
    is_answered(stack, server)
    assert not upstreams.over and ours.is_alive()
    shared.abort()
    eventually(lambda: len(upstreams.over) == 3)


def test_nor_do_those_who_receive_to_a_file_over_one_or_close_it(
        stack: ExitStack, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    upstreams = Upstreams(stack)
    listener = stack.enter_context(create_tcp_server(interface="127.0.0.1", ssl_context=tls_contexts[0]))
    busy = threading.Semaphore(0)
    near, far = memory_stream_pair(buffer_size=BIG)
    far.send_all(bytes(BIG))
    stack.callback(near.abort)
    stack.callback(far.abort)

    def work(order: str) -> str:
        if order == "pass on":
            busy.release()
            near.receive_file(upstreams.connect().makefile("wb"))
        elif order == "close":
            upstream = connect_tcp("127.0.0.1", listener.port, ssl_context=tls_contexts[1], timeout=TIMEOUT)
            upstreams.near.append(upstream)
            upstream.send_all(b"something")
            busy.release()
            upstream.close(timeout=None)  # the other end does not say goodbye
        return order

    server = serve(stack, "stream", work, max_workers=1)
    accepting = Background(accept, listener, 2)
    ask(stack, server, "pass on")
    ask(stack, server, "close")
    ask(stack, server, "close")
    for _ in range(3):
        assert busy.acquire(timeout=TIMEOUT)
    is_answered(stack, server)
    for stream in accepting.result():
        stream.abort()
    upstreams.close()


# More than others can stand in for

@both_servers
@pytest.mark.parametrize("kind", ["stream", "packets", "memory"])
def test_the_sends_that_have_waited_for_the_longest_end_when_too_many_do(
        stack: ExitStack, monkeypatch: pytest.MonkeyPatch, server_kind: str, kind: str) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.SPARE", 2)
    upstreams = Upstreams(stack, kind)
    server = serve(stack, server_kind, upstreams.work, max_workers=1)
    for number in range(5):
        ask(stack, server, "pass on")
        assert upstreams.sending.acquire(timeout=TIMEOUT)
        # One after the other, so that it is known who is the first.
        eventually(lambda: len(upstreams.over) == max(0, number - 1))
    is_answered(stack, server)
    assert [type(error) for error in upstreams.over] == [SendTimeoutError] * 3
    for error in upstreams.over:
        assert isinstance(error, SendTimeoutError)
        assert 0 < error.bytes_sent < BIG and "too many workers waited" in str(error)
    assert server.stats().handler_errors == 3
    assert server.stats().closed_blocked == 0
    upstreams.close()
    eventually(lambda: len(upstreams.over) == 5)


@both_servers
def test_a_handler_may_answer_then_and_nobody_elses_send_ends(stack: ExitStack, monkeypatch: pytest.MonkeyPatch,
                                                              server_kind: str) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.SPARE", 1)
    upstreams = Upstreams(stack)
    shared = upstreams.connect()
    ours = Background(shared.send_all, bytes(BIG))
    until_asleep(ours)

    def work(order: str) -> str:
        if order == "pass on":
            try:
                upstreams.send(shared)
            except SendTimeoutError as error:
                return f"sorry, {error.bytes_sent}"
        return order

    server = serve(stack, server_kind, work, max_workers=1)
    clients = []
    for _ in range(2):
        clients.append(ask(stack, server, "pass on"))
        assert upstreams.sending.acquire(timeout=TIMEOUT)
    for client in clients:
        assert client.receive_until(b"\n", timeout=TIMEOUT) == b"sorry, 0"
    is_answered(stack, server)
    assert ours.is_alive() and not shared.closed
    assert server.stats().handler_errors == server.stats().closed_blocked == 0
    shared.abort()


def test_one_that_reads_however_slowly_is_waited_for(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.SPARE", 1)
    upstreams = Upstreams(stack)
    listener = stack.enter_context(create_tcp_server(interface="127.0.0.1"))
    enough = threading.Event()

    def work(order: str) -> str:
        if order == "pass on":
            upstreams.send(upstreams.connect())
        elif order == "to one that reads":
            with connect_tcp("127.0.0.1", listener.port) as stream:
                while not enough.is_set():
                    stream.send_all(bytes(1_000_000))
        return order

    def read() -> None:
        with listener.accept(timeout=TIMEOUT) as stream:
            while stream.receive(200_000, timeout=TIMEOUT):
                enough.wait(0.05)

    server = serve(stack, "stream", work, max_workers=1)
    slow = ask(stack, server, "to one that reads")
    reading = Background(read)
    for number in range(3):
        ask(stack, server, "pass on")
        eventually(lambda: len(upstreams.over) == number + 1)
    enough.set()
    assert slow.receive_until(b"\n", timeout=TIMEOUT) == b"to one that reads"
    reading.result()


def test_those_that_do_not_say_goodbye_are_waited_for_no_more(
        stack: ExitStack, monkeypatch: pytest.MonkeyPatch,
        tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.SPARE", 1)
    listener = stack.enter_context(create_tcp_server(interface="127.0.0.1", ssl_context=tls_contexts[0]))

    def work(order: str) -> str:
        if order == "close":
            upstream = connect_tcp("127.0.0.1", listener.port, ssl_context=tls_contexts[1], timeout=TIMEOUT)
            upstream.send_all(b"something")
            upstream.close(timeout=None)
        return order

    server = serve(stack, "stream", work, max_workers=1)
    accepting = Background(accept, listener, 2)
    for _ in range(2):
        ask(stack, server, "close")
    is_answered(stack, server)
    for stream in accepting.result():
        stream.abort()


def test_in_a_forked_child_a_worker_is_none(stack: ExitStack) -> None:
    """Whoever sends there waits for nobody who would stand in."""
    outcomes: list[int] = []

    def work(order: str) -> str:
        if order == "fork":
            assert this_thread.pool is not None
            child = fork()
            if not child:
                os._exit(this_thread.pool is not None)
            outcomes.append(os.waitpid(child, 0)[1])
        return order

    server = serve(stack, "stream", work, max_workers=1)
    assert ask(stack, server, "fork").receive_until(b"\n", timeout=TIMEOUT) == b"fork"
    assert outcomes == [0]
