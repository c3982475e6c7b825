"""StreamServer: clients that do not receive what they are sent do not keep the workers from the others."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background
from support.servers import eventually, said

from netmsg import (
    ByteStream, ClosedError, ConnectionBrokenError, LineCodec, PacketClient, PacketConnection, PacketServer,
    StreamServer, connect_tcp, create_tcp_server,
)
from netmsg.servers import stream_server

BIG = bytes(20_000_000)


class Flooder:
    """A handler that sends much to who asks for that, and answers the others."""

    def __init__(self) -> None:
        self.flooding = threading.Semaphore(0)
        self.over: list[BaseException] = []

    def __call__(self, stream: ByteStream) -> None:
        for line in stream.receive_delimited_chunks(b"\n"):
            if line != b"flood me":
                stream.send_all(line + b"\n")
                continue
            self.flooding.release()
            try:
                stream.send_all(BIG)
            except BaseException as error:
                self.over.append(error)
                raise


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is timed out for want of workers."""
    monkeypatch.setattr(stream_server, "SILENCE", 1000.0)


def serve(handler: Any, **options: Any) -> StreamServer:
    return StreamServer(handler, create_tcp_server(interface="127.0.0.1"), **options)


def deaf(server: StreamServer) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), TIMEOUT)
    sock.sendall(b"flood me\n")
    return sock


def is_answered(server: StreamServer, **options: Any) -> None:
    with connect_tcp("127.0.0.1", server.port, timeout=TIMEOUT, **options) as stream:
        stream.send_all(b"hello\n")
        assert stream.receive_until(b"\n", timeout=TIMEOUT) == b"hello"


@pytest.mark.parametrize("number", [2, 6])
def test_88_as_many_deaf_clients_as_workers_and_more_stop_nobody(number: int) -> None:
    flooder = Flooder()
    with ExitStack() as stack:
        server = stack.enter_context(serve(flooder, max_workers=2))
        for _ in range(number):
            stack.enter_context(deaf(server))
        for _ in range(number):
            assert flooder.flooding.acquire(timeout=TIMEOUT)
        for _ in range(5):
            is_answered(server)
        assert not flooder.over
        assert server.stats().closed_blocked == server.stats().closed_idle == 0
        server.shutdown(timeout=0)
        eventually(lambda: len(flooder.over) == number)
        assert {type(error) for error in flooder.over} == {ClosedError}


def test_88_nor_do_they_under_tls(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    flooder = Flooder()
    listener = create_tcp_server(interface="127.0.0.1", ssl_context=tls_contexts[0])
    with StreamServer(flooder, listener, max_workers=1) as server, ExitStack() as stack:
        for _ in range(2):
            stream = stack.enter_context(connect_tcp("127.0.0.1", server.port, ssl_context=tls_contexts[1]))
            stream.send_all(b"flood me\n")
            assert flooder.flooding.acquire(timeout=TIMEOUT)
        is_answered(server, ssl_context=tls_contexts[1])
        server.shutdown(timeout=0)


def test_88_who_has_blocked_for_the_longest_goes_when_too_many_do(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.SPARE", 3)
    flooder = Flooder()
    with ExitStack() as stack:
        server = stack.enter_context(serve(flooder, max_workers=1))
        socks = []
        for number in range(8):
            socks.append(stack.enter_context(deaf(server)))
            assert flooder.flooding.acquire(timeout=TIMEOUT)
            # One after the other, so that it is known who is the first.
            eventually(lambda: len(flooder.over) == max(0, number - 2))
        is_answered(server)
        stats = server.stats()
        assert stats.closed_blocked == 5
        assert stats.handler_errors == 0
        assert stats.workers <= 1 + 3
        for sock in socks[:5]:
            with pytest.raises(ConnectionResetError):
                while sock.recv(1_000_000):
                    pass
        warnings = [record for record in said(caplog) if record.levelname == "WARNING"]
        assert len(warnings) == 1  # of five
        assert repr(socks[0].getsockname()) in warnings[0].getMessage()
        server.shutdown(timeout=0)


def test_88_nobody_goes_while_there_are_workers_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.SPARE", 1)
    flooder = Flooder()
    with ExitStack() as stack:
        server = stack.enter_context(serve(flooder, max_workers=8))
        for _ in range(6):
            stack.enter_context(deaf(server))
            assert flooder.flooding.acquire(timeout=TIMEOUT)
        is_answered(server)
        assert not flooder.over and server.stats().closed_blocked == 0
        server.shutdown(timeout=0)


def test_88_when_all_go_on_again_there_are_no_more_workers_than_before() -> None:
    flooder = Flooder()
    with ExitStack() as stack:
        server = stack.enter_context(serve(flooder, max_workers=2))
        socks = [stack.enter_context(deaf(server)) for _ in range(6)]
        for _ in socks:
            assert flooder.flooding.acquire(timeout=TIMEOUT)
        is_answered(server)  # all of them wait
        for sock in socks:
            size = len(BIG)
            while size:
                size -= len(sock.recv(min(size, 1_000_000)))
        for sock in socks:
            sock.sendall(b"hello\n")
            assert sock.recv(100) == b"hello\n"
        waiting = stack.enter_context(deaf(server))
        eventually(lambda: server.stats().waiting == 1)
        assert not flooder.flooding.acquire(blocking=False)
        for sock in socks:
            sock.close()
        assert flooder.flooding.acquire(timeout=TIMEOUT)
        assert waiting.recv(1)
        server.shutdown(timeout=0)


def test_88_nor_do_they_stop_the_workers_of_another_server() -> None:
    flooding = threading.Semaphore(0)
    over: list[BaseException] = []
    streams: list[ByteStream] = []

    def listen(stream: ByteStream) -> None:
        streams.append(stream)
        stream.receive()

    def pass_on(client: PacketConnection[str], packet: str) -> None:
        if packet == "flood it":
            flooding.release()
            try:
                streams[0].send_all(BIG)
            except ClosedError as error:
                over.append(error)
        client.send_packet(packet)

    with serve(listen) as public, ExitStack() as stack:
        stack.enter_context(socket.create_connection(("127.0.0.1", public.port), TIMEOUT))
        eventually(lambda: streams)
        server = stack.enter_context(PacketServer(pass_on, create_tcp_server(), codec=LineCodec(), max_workers=1))
        for words in ("flood it", "hello"):
            client = stack.enter_context(PacketClient(("localhost", server.port), LineCodec()))
            client.send_packet(words)
            if words == "flood it":
                assert flooding.acquire(timeout=TIMEOUT)
        assert client.recv_packet(timeout=TIMEOUT) == "hello"
        assert not over
        public.close()
        eventually(lambda: over)


# Several that wait for the same one

class Public:
    """A handler that lets each client have much sent to the one that has said "listen", whose own handler goes on for
    ``long``, or until the other end finishes."""

    def __init__(self, *, long: Callable[[ByteStream], object] = lambda stream: stream.receive()) -> None:
        self.long = long
        self.listener: ByteStream | None = None
        self.flooding = threading.Semaphore(0)
        self.over: list[BaseException] = []

    def __call__(self, stream: ByteStream) -> None:
        for line in stream.receive_delimited_chunks(b"\n"):
            if line == b"listen":
                self.listener = stream
                self.long(stream)
                return
            if line != b"flood it":
                stream.send_all(line + b"\n")
                continue
            assert self.listener is not None
            self.flooding.release()
            try:
                self.listener.send_all(BIG)
            except OSError as error:
                self.over.append(error)

    def listened_to(self, server: StreamServer, stack: ExitStack) -> socket.socket:
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIMEOUT))
        sock.sendall(b"listen\n")
        eventually(lambda: self.listener is not None)
        return sock

    def flood(self, server: StreamServer, stack: ExitStack) -> socket.socket:
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIMEOUT))
        sock.sendall(b"flood it\n")
        assert self.flooding.acquire(timeout=TIMEOUT)
        return sock


def test_who_waits_behind_others_for_a_deaf_client_stops_nobody_either() -> None:
    public = Public()
    with ExitStack() as stack:
        server = stack.enter_context(serve(public, max_workers=2))
        public.listened_to(server, stack)
        for _ in range(6):
            public.flood(server, stack)
        is_answered(server)
        assert not public.over
        assert server.stats().closed_blocked == server.stats().closed_idle == 0
        server.shutdown(timeout=0)
        eventually(lambda: len(public.over) == 6)
        assert {type(error) for error in public.over} == {ClosedError}


def test_nor_who_waits_behind_its_handshake(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    public = Public(long=lambda stream: stream.start_tls(tls_contexts[0]))
    with ExitStack() as stack:
        server = stack.enter_context(serve(public, max_workers=2))
        public.listened_to(server, stack)
        for _ in range(3):
            public.flood(server, stack)
        is_answered(server)
        assert not public.over
        server.shutdown(timeout=0)
        eventually(lambda: len(public.over) == 3)


def test_nor_who_waits_for_one_whose_handler_has_come_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_server, "LINGER", 1000.0)
    public = Public()
    with ExitStack() as stack:
        server = stack.enter_context(serve(public, max_workers=2))
        sock = public.listened_to(server, stack)
        public.flood(server, stack)
        assert sock.recv(1)  # and nothing of all the rest
        sock.shutdown(socket.SHUT_WR)
        for _ in range(3):
            public.flood(server, stack)
        is_answered(server)
        assert not public.over
        server.shutdown(timeout=0)
        eventually(lambda: len(public.over) == 4)


def test_nor_who_closes_one_that_does_not_say_goodbye(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    closing = threading.Semaphore(0)

    def handler(stream: ByteStream) -> None:
        line = stream.receive_until(b"\n")
        stream.send_all(line + b"\n")
        if line == b"close me":
            closing.release()
            stream.close(timeout=None)

    listener = create_tcp_server(interface="127.0.0.1", ssl_context=tls_contexts[0])
    with StreamServer(handler, listener, max_workers=1) as server, ExitStack() as stack:
        for _ in range(3):
            stream = stack.enter_context(connect_tcp("127.0.0.1", server.port, ssl_context=tls_contexts[1]))
            stream.send_all(b"close me\n")
            assert closing.acquire(timeout=TIMEOUT)
        is_answered(server, ssl_context=tls_contexts[1])
        server.shutdown(timeout=0)


def test_a_client_that_too_many_wait_for_goes_and_all_of_them_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.SPARE", 3)
    public = Public()
    with ExitStack() as stack:
        server = stack.enter_context(serve(public, max_workers=2))
        sock = public.listened_to(server, stack)
        floods = [public.flood(server, stack) for _ in range(4)]
        eventually(lambda: server.stats().closed_blocked == 1)
        floods[0].sendall(b"hello\n")
        assert floods[0].recv(100) == b"hello\n"
        eventually(lambda: len(public.over) == 4)
        with pytest.raises(ConnectionResetError):
            while sock.recv(1_000_000):
                pass
        assert {type(error) for error in public.over} <= {ClosedError, ConnectionBrokenError}
        assert server.stats().closed_blocked == 1
        assert server.stats().handler_errors == 0


def test_one_that_reads_all_the_time_is_not_given_up_for_those_who_wait_their_turn(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.SPARE", 3)
    public = Public()
    with ExitStack() as stack:
        server = stack.enter_context(serve(public, max_workers=4))
        sock = public.listened_to(server, stack)
        read = threading.Event()

        def read_all() -> None:
            left = 12 * len(BIG)
            while left:
                chunk = sock.recv(min(left, 1_000_000))
                if not chunk:
                    return
                left -= len(chunk)
            read.set()

        reader = Background(read_all)
        for _ in range(12):
            sender = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIMEOUT))
            sender.sendall(b"flood it\n")
            sender.shutdown(socket.SHUT_WR)
        reader.result()
        assert read.is_set() and not public.over
        assert server.stats().closed_blocked == 0


def test_nor_is_one_for_those_who_wait_behind_a_file_that_has_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.SPARE", 2)
    monkeypatch.setattr("netmsg.servers.worker_pool.DEAF", 0.0)
    listeners: list[ByteStream] = []
    flooding = threading.Semaphore(0)
    over: list[bytes] = []
    source, sink = os.pipe()

    def handler(stream: ByteStream) -> None:
        line = stream.receive_until(b"\n")
        if line == b"listen":
            listeners.append(stream)
            stream.receive()
        elif line == b"pass on":
            with open(source, "rb", buffering=0) as pipe:
                listeners[0].send_file(pipe)
        elif line == b"hello":
            stream.send_all(b"hello\n")
        else:
            flooding.release()
            try:
                (stream if line == b"flood me" else listeners[0]).send_all(BIG)
            except OSError:
                over.append(line)

    with ExitStack() as stack:
        stack.callback(os.close, sink)
        server = stack.enter_context(serve(handler, max_workers=3))

        def ask(words: bytes) -> socket.socket:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIMEOUT))
            sock.sendall(words + b"\n")
            return sock

        sock = ask(b"listen")
        eventually(lambda: listeners)
        ask(b"pass on")
        os.write(sink, b"first")
        assert sock.recv(5) == b"first"
        for words in (b"flood it", b"flood it", b"flood me"):
            ask(words)
            assert flooding.acquire(timeout=TIMEOUT)
        eventually(lambda: over)
        is_answered(server)
        assert over == [b"flood me"]
        server.shutdown(timeout=0)


# Those that are being closed

def test_those_that_take_nothing_while_they_are_closed_go_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.SPARE", 3)
    closing = threading.Semaphore(0)

    def handler(stream: ByteStream) -> None:
        line = stream.receive_until(b"\n")
        if line == b"flood me":
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
            stream.send_all(bytes(200_000))
            closing.release()
            stream.close(timeout=None)
        else:
            stream.send_all(line + b"\n")

    with ExitStack() as stack:
        server = stack.enter_context(serve(handler, max_workers=2))
        for _ in range(6):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.connect(("127.0.0.1", server.port))
            sock.sendall(b"flood me\n")
        for _ in range(6):
            assert closing.acquire(timeout=TIMEOUT)
        is_answered(server)
        assert server.stats().closed_blocked >= 1
        assert server.stats().handler_errors == 0
        server.shutdown(timeout=0)
