"""Clients that do not receive what they are sent: what they cost, and whom."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background
from support.servers import eventually, said

from netmsg import (
    ClosedError, IOThread, LineCodec, PacketClient, PacketConnection, PacketServer, SendTimeoutError, create_tcp_server,
)

SMALL = 4096
Conversation = Generator[Any, str, None]


def serve(handler: Any, **options: Any) -> PacketServer[Any, Any]:
    return PacketServer(handler, create_tcp_server(interface="127.0.0.1"), **{"codec": LineCodec(), **options})


def deaf(server: PacketServer[Any, Any], words: bytes = b"") -> socket.socket:
    """A client that says this and never receives anything, and for whom the kernel keeps but little."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    sock.settimeout(TIMEOUT)
    sock.connect(("127.0.0.1", server.port))
    sock.sendall(words)
    return sock


def client_of(server: PacketServer[Any, Any]) -> PacketClient[str, str]:
    return PacketClient(("127.0.0.1", server.port), LineCodec(), connect_timeout=TIMEOUT)


def is_answered(client: PacketClient[str, str]) -> None:
    client.send_packet("hello")
    assert client.recv_packet(timeout=TIMEOUT) == "hello"


def receive(sock: socket.socket, size: int) -> None:
    while size > 0:
        chunk = sock.recv(1_000_000)
        assert chunk, "the server has closed the connection"
        size -= len(chunk)


class Flooder:
    """A handler that sends without end to who asks for that, and answers the others."""

    def __init__(self) -> None:
        self.flooding = threading.Semaphore(0)
        self.over: list[BaseException] = []

    def __call__(self, client: PacketConnection[str], packet: str) -> None:
        if packet != "flood me":
            client.send_packet(packet)
            return
        self.flooding.release()
        try:
            while True:
                client.send_packet("x" * 100_000)
        except BaseException as error:
            self.over.append(error)
            raise


@pytest.mark.parametrize("slow", [2, 6])
def test_88_as_many_slow_readers_as_workers_and_more_stop_nobody(slow: int) -> None:
    flooder = Flooder()
    with ExitStack() as stack:
        server = stack.enter_context(serve(flooder, max_workers=2))
        client = stack.enter_context(client_of(server))
        for _ in range(slow):
            stack.enter_context(deaf(server, b"flood me\n"))
        for _ in range(slow):  # no slow reader has to wait for another to be given up
            assert flooder.flooding.acquire(timeout=TIMEOUT)
        for _ in range(20):
            is_answered(client)
        assert not flooder.over
        assert server.stats().workers <= 2 + 64
        server.shutdown(timeout=0.1)
        eventually(lambda: len(flooder.over) == slow)
        assert {type(error) for error in flooder.over} == {ClosedError}


def test_88_who_has_blocked_for_the_longest_goes_when_too_many_do(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.SPARE", 3)
    flooder = Flooder()
    with ExitStack() as stack:
        server = stack.enter_context(serve(flooder, max_workers=1))
        client = stack.enter_context(client_of(server))
        socks = []
        for number in range(8):
            socks.append(stack.enter_context(deaf(server, b"flood me\n")))
            assert flooder.flooding.acquire(timeout=TIMEOUT)
            # One after the other, so that it is known who is the first.
            eventually(lambda: len(flooder.over) == max(0, number - 2))
        is_answered(client)
        stats = server.stats()
        assert stats.closed_blocked == 5
        assert stats.handler_errors == 0
        assert stats.workers <= 1 + 3
        for sock in socks[:5]:  # the first ones have been closed
            try:
                while sock.recv(1_000_000):
                    pass
            except ConnectionResetError:
                pass
        assert stats.connections >= 4
        warnings = [record for record in said(caplog) if record.levelname == "WARNING"]
        assert len(warnings) == 1  # of five
        assert repr(socks[0].getsockname()) in warnings[0].getMessage()
        server.shutdown(timeout=0.1)


def test_88_who_waits_for_a_client_that_reads_goes_on() -> None:
    """Workers come in for those that wait, and step back when these go on: nothing is lost and all is in order."""
    def handler(client: PacketConnection[str], packet: str) -> None:
        for number in range(50):
            client.send_packet(f"{number} " + "x" * 20_000)

    with ExitStack() as stack:
        server = stack.enter_context(serve(handler, max_workers=2, send_hwm_bytes=20_000))
        clients = [stack.enter_context(client_of(server)) for _ in range(10)]
        for client in clients:
            client.send_packet("go")
        for _ in range(50):
            for client in clients:
                assert client.recv_packet(timeout=TIMEOUT)[20_000:]
        assert server.stats().packets_sent == 500
        for client in clients:
            client.send_packet("and again")
        for client in clients:
            assert [client.recv_packet(timeout=TIMEOUT).split()[0] for _ in range(50)] == [str(n) for n in range(50)]


@pytest.mark.parametrize("workers", [2, 0])
def test_a_client_above_its_mark_has_no_step_until_it_has_read(workers: int) -> None:
    """And so costs no worker: its packets wait, and nobody waits for room."""
    raised: list[Any] = []

    def handler(client: PacketConnection[str], packet: str) -> None:
        try:
            client.send_packet("x" * 100_000, timeout=0)
        except SendTimeoutError as error:
            raised.append(error)

    with serve(handler, max_workers=workers, send_hwm_bytes=50_000) as server:
        with deaf(server, b"go\n" * 500) as greedy, client_of(server) as client:
            for _ in range(5):
                client.send_packet("go")
                assert len(client.recv_packet(timeout=TIMEOUT)) == 100_000
            receive(greedy, 500 * 100_001)
        assert not raised


@pytest.mark.parametrize("packets, size", [(500, 100_000), (1, 10_000_000)])
@pytest.mark.parametrize("workers", [2, 0])
def test_who_never_reads_is_closed_in_the_end(workers: int, packets: int, size: int,
                                              caplog: pytest.LogCaptureFixture) -> None:
    """Whether there is more to be done for it or not."""
    def handler(client: PacketConnection[str], packet: str) -> None:
        client.send_packet("x" * size)

    with serve(handler, max_workers=workers, send_hwm_bytes=50_000, send_timeout=0.3) as server:
        with deaf(server, b"go\n" * packets) as sock:
            eventually(lambda: server.stats().accepted == 1 and server.stats().connections == 0)
            assert server.stats().closed_slow == 1
            assert server.stats().handler_errors == 0
            address = repr(sock.getsockname())
    assert any(address in record.getMessage() for record in said(caplog) if record.levelname == "WARNING")


@pytest.mark.parametrize("workers", [2, 0])
def test_who_never_reads_what_others_send_is_closed_in_the_end(workers: int) -> None:
    def listen(client: PacketConnection[str]) -> Conversation:
        while True:
            yield

    with serve(listen, max_workers=workers, send_hwm_bytes=50_000, send_timeout=0.3) as server, deaf(server):
        eventually(server.clients)
        server.clients()[0].send_packet("x" * 10_000_000)
        eventually(lambda: server.stats().connections == 0)
        assert server.stats().closed_slow == 1


def test_88_an_explicit_timeout_only_raises_whoever_sends() -> None:
    raised: list[Any] = []

    def handler(client: PacketConnection[str], packet: str) -> None:
        try:
            while True:
                client.send_packet("x" * 100_000, timeout=0.02)
        except SendTimeoutError as error:
            raised.append(error)

    with serve(handler, send_hwm_bytes=50_000, send_timeout=TIMEOUT) as server, deaf(server, b"go\n") as sock:
        eventually(lambda: raised)
        assert len(server.clients()) == 1 and server.stats().closed_slow == 0
        assert sock.recv(1) == b"x"


# Without workers

def broadcast(heard: Callable[[BaseException], None]) -> Any:
    def handler(client: PacketConnection[str], packet: str) -> None:
        for other in client.server.clients():
            try:
                other.send_packet(packet)
            except (SendTimeoutError, ClosedError) as error:
                heard(error)
    return handler


def test_without_workers_what_others_send_to_a_client_that_does_not_read_is_bounded() -> None:
    heard: list[Any] = []
    with serve(broadcast(heard.append), max_workers=0, send_hwm_bytes=50_000) as server, deaf(server):
        eventually(lambda: len(server.clients()) == 1)
        stalled = server.clients()[0]
        stalled.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        with client_of(server) as client:
            news = 0
            while not heard:
                news += 1
                client.send_packet("x" * 50_000)
                assert len(client.recv_packet(timeout=TIMEOUT)) == 50_000  # it may go on all the time
            assert isinstance(heard[0], SendTimeoutError)
            # 16 times the mark, and what the kernel has taken for it, which is not much.
            assert server.stats().packets_sent - news <= 16 + 10
            assert news <= 16 + 11
            eventually(lambda: server.stats().connections == 1)
            assert server.stats().closed_slow == 1
            client.send_packet("fine")
            assert client.recv_packet(timeout=TIMEOUT) == "fine"


def test_without_workers_a_burst_reaches_those_who_read() -> None:
    def handler(client: PacketConnection[str], packet: str) -> None:
        for number in range(10):
            for other in client.server.clients():
                other.send_packet(f"{number} " + "x" * 50_000)

    with ExitStack() as stack:
        server = stack.enter_context(serve(handler, max_workers=0, send_hwm_bytes=50_000))
        clients = [stack.enter_context(client_of(server)) for _ in range(3)]
        eventually(lambda: len(server.clients()) == 3)
        clients[0].send_packet("go")
        for client in clients:
            assert [client.recv_packet(timeout=TIMEOUT).split()[0] for _ in range(10)] == [str(n) for n in range(10)]
        assert server.stats().closed_slow == 0


# Time

@pytest.mark.parametrize("workers", [2, 0])
def test_no_time_is_up_while_packets_wait_for_a_client_that_is_behind(workers: int) -> None:
    """There are packets: it is this end that does not take them."""
    heard: list[Any] = []
    idle = threading.Event()

    def converse(client: PacketConnection[str]) -> Conversation:
        if (yield) == "idle":
            try:
                yield 0.3
            except TimeoutError:
                idle.set()  # and so the time of who has begun to wait before
            return
        for number in range(50):
            client.send_packet("x" * 100_000)
            try:
                heard.append((yield 0.2 if number < 49 else None))
            except TimeoutError as error:
                heard.append(error)
        client.send_packet("done")

    with serve(converse, max_workers=workers, send_hwm_bytes=100_000) as server:
        with deaf(server, b"begin\n" + b"".join(b"%d\n" % number for number in range(49))) as sock:
            eventually(lambda: server.stats().packets_sent >= 1)
            with client_of(server) as other:
                other.send_packet("idle")
                assert idle.wait(TIMEOUT)
            receive(sock, 50 * 100_001)
            sock.sendall(b"49\n")
            assert sock.makefile("rb").read() == b"done\n"
    assert heard == [str(number) for number in range(50)]


def function(client: PacketConnection[str], packet: str) -> None:
    client.send_packet("x" * 1_000_000)


def conversation(client: PacketConnection[str]) -> Conversation:
    yield
    client.send_packet("x" * 1_000_000)


@pytest.mark.parametrize("handler, packets", [(function, 2), (conversation, 1)])
def test_a_client_that_reads_slowly_and_steadily_gets_everything(handler: Any, packets: int) -> None:
    """Each piece within ``send_timeout``, and all of it not."""
    with serve(handler, send_hwm_bytes=50_000, send_timeout=1.0) as server, deaf(server) as sock:
        eventually(lambda: len(server.clients()) == 1)
        server.clients()[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000)
        sock.sendall(b"go\n" * packets)
        begin = time.monotonic()
        size = packets * 1_000_001
        while size:
            chunk = sock.recv(min(size, 50_000))
            assert chunk, "the server has closed the connection"
            size -= len(chunk)
            if time.monotonic() - begin < 2.5:
                time.sleep(0.1)  # that is how slow it is
        assert server.stats().closed_slow == 0


def last_words(client: PacketConnection[str], packet: str) -> None:
    """They wait in the kernel alone."""
    if packet == "go":
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        client.send_packet("x" * 100_000)
        client.close()


@pytest.mark.parametrize("workers", [2, 0])
def test_who_reads_slowly_gets_the_last_words_too_whatever_it_sends(workers: int,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmsg.reactor.farewell.LINGER", 0.05)
    with serve(last_words, max_workers=workers, send_timeout=5.0) as server, deaf(server, b"go\n") as sock:
        received = b""
        begin = time.monotonic()
        while len(received) < 100_001:
            chunk = sock.recv(1000)
            assert chunk
            received += chunk
            if time.monotonic() - begin < 0.5:
                sock.sendall(b"still here\n")
                time.sleep(0.05)  # that is how slow it is
        assert sock.recv(1) == b""
        eventually(lambda: server.stats().connections == 0)
        assert server.stats().closed_slow == 0


@pytest.mark.parametrize("workers", [2, 0])
def test_who_never_reads_the_last_words_is_given_up(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmsg.reactor.farewell.LINGER", 0.05)
    with serve(last_words, max_workers=workers, send_timeout=0.3) as server, deaf(server, b"go\n"):
        eventually(lambda: server.stats().accepted == 1 and server.stats().connections == 0)
        assert server.stats().closed_slow == 1


def dialogue(client: PacketConnection[str]) -> Conversation:
    while True:
        function(client, (yield))


@pytest.mark.parametrize("workers", [2, 0])
@pytest.mark.parametrize("handler", [function, dialogue])
def test_86_shutdown_handles_what_has_been_received_as_the_client_catches_up(handler: Any, workers: int) -> None:
    with serve(handler, max_workers=workers, send_hwm_bytes=50_000) as server:
        with deaf(server) as sock, client_of(server) as idle:
            sock.sendall(b"go\n" * 20 + b"half a packet")  # which are received at once
            eventually(lambda: server.stats().packets_received > 0)
            stopping = Background(server.shutdown, timeout=TIMEOUT)
            assert list(idle) == []
            receive(sock, 20 * 1_000_001)
            assert sock.recv(100) == b""
            stopping.result()
        assert server.stats().packets_received == 20
        assert server.stats().closed_unsent == 0


@pytest.mark.parametrize("workers", [2, 0])
def test_who_waits_for_room_at_a_client_that_always_wants_more_has_its_turn(workers: int) -> None:
    """Its own packets would fill the room at once, every time."""
    def handler(client: PacketConnection[str], packet: str) -> None:
        client.send_packet("x" * 4000)

    def ask(sock: socket.socket) -> None:
        try:
            while True:
                sock.sendall(b"\n" * 200)
        except OSError:
            pass  # it is over

    def read(sock: socket.socket) -> None:
        buffer = bytearray(1_000_000)
        try:
            while sock.recv_into(buffer):
                pass
        except OSError:
            pass

    with serve(handler, max_workers=workers, send_hwm_bytes=65_536, send_timeout=2.0) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            threads = [Background(ask, sock), Background(read, sock)]
            eventually(lambda: server.stats().packets_sent > 1000)
            client = server.clients()[0]
            for _ in range(50):
                client.send_packet("news")
            assert server.stats().closed_slow == 0
            client.abort()
            for thread in threads:
                thread.result()


# Clients of another server

def passes_on(other: PacketServer[Any, Any], heard: Callable[[BaseException], None]) -> Any:
    """A handler that sends much to all clients of ``other`` when it is asked to."""
    def handler(client: PacketConnection[str], packet: str) -> None:
        try:
            for _ in range(100 if packet == "flood them" else 0):
                for stalled in other.clients():
                    stalled.send_packet("x" * 50_000)
        except (SendTimeoutError, ClosedError) as error:
            heard(error)
        client.send_packet("hello")
    return handler


def nothing(client: PacketConnection[str], packet: str) -> None:
    """Neither says anything."""


@pytest.mark.parametrize("shared", [True, False])
def test_88_workers_that_wait_for_a_client_of_another_server_stop_nobody(shared: bool) -> None:
    heard: list[BaseException] = []
    with ExitStack() as stack:
        io = stack.enter_context(IOThread()) if shared else None
        public = stack.enter_context(serve(nothing, send_hwm_bytes=50_000, io_thread=io))
        server = stack.enter_context(serve(passes_on(public, heard.append), max_workers=2, io_thread=io))
        stack.enter_context(deaf(public))
        eventually(public.clients)
        for _ in range(4):
            stack.enter_context(client_of(server)).send_packet("flood them")
        eventually(lambda: server.stats().packets_received == 4)
        for _ in range(3):
            is_answered(stack.enter_context(client_of(server)))
        assert not heard
        public.close()
        eventually(lambda: len(heard) == 4)
        assert {type(error) for error in heard} == {ClosedError}


def test_88_and_the_client_that_they_have_waited_for_the_longest_goes_when_too_many_do(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.SPARE", 1)
    heard: list[BaseException] = []
    with ExitStack() as stack:
        public = stack.enter_context(serve(nothing, send_hwm_bytes=50_000))
        server = stack.enter_context(serve(passes_on(public, heard.append), max_workers=1))
        stack.enter_context(deaf(public))
        eventually(public.clients)
        for number in range(1, 3):
            stack.enter_context(client_of(server)).send_packet("flood them")
            eventually(lambda: server.stats().packets_received == number)
        is_answered(stack.enter_context(client_of(server)))
        eventually(lambda: len(heard) == 2)
        assert public.stats().closed_blocked == 1
        assert server.stats().closed_blocked == 0


def test_nor_does_one_whose_part_of_a_tls_handshake_comes_little_by_little(
        monkeypatch: pytest.MonkeyPatch, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.SPARE", 2)
    monkeypatch.setattr("netmsg.servers.worker_pool.DEAF", 1.5)  # seconds of silence

    def handler(client: PacketConnection[str], packet: str) -> None:
        client.start_tls(tls_contexts[0])

    with ExitStack() as stack:
        server = stack.enter_context(serve(handler, max_workers=4))
        clients = [stack.enter_context(deaf(server, b"starttls\n")) for _ in range(6)]
        eventually(lambda: server.stats().packets_received == 6)
        for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(10):  # the beginning of a ClientHello
            for sock in clients:
                sock.sendall(bytes((byte,)))
            time.sleep(0.1)  # a slow link
        assert server.stats().closed_blocked == 0
        eventually(lambda: 1 <= server.stats().closed_blocked <= 4)  # once they are silent, until there is room
        server.shutdown(timeout=0.1)


def test_one_that_receives_all_the_time_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.SPARE", 3)
    senders, packets, size = 20, 40, 1_000_000
    clients: list[PacketConnection[str]] = []

    def handler(client: PacketConnection[str], packet: str) -> None:
        if packet == "listen":
            clients.append(client)
            return
        for _ in range(packets):
            clients[0].send_packet("x" * (size - 1))
        client.send_packet("done")

    with ExitStack() as stack:
        server = stack.enter_context(serve(handler, max_workers=4, send_hwm_bytes=50_000))
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIMEOUT))
        sock.sendall(b"listen\n")
        eventually(lambda: clients)
        reader = Background(receive, sock, senders * packets * size)
        others = [stack.enter_context(client_of(server)) for _ in range(senders)]
        for other in others:
            other.send_packet("flood it")
        for other in others:
            assert other.recv_packet(timeout=TIMEOUT) == "done"
        reader.result()
        assert server.stats().closed_blocked == 0


@pytest.mark.parametrize("shared", [True, False])
def test_without_workers_no_client_of_another_server_is_waited_for(shared: bool) -> None:
    heard: list[BaseException] = []
    with ExitStack() as stack:
        io = stack.enter_context(IOThread()) if shared else None
        public = stack.enter_context(serve(nothing, send_hwm_bytes=50_000, io_thread=io))
        server = stack.enter_context(serve(passes_on(public, heard.append), max_workers=0, io_thread=io))
        stack.enter_context(deaf(public))
        eventually(public.clients)
        public.clients()[0].socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        client = stack.enter_context(client_of(server))
        client.send_packet("flood them")
        assert client.recv_packet(timeout=TIMEOUT) == "hello"
        assert [type(error) for error in heard] == [SendTimeoutError]
        eventually(lambda: not public.clients())
        assert public.stats().closed_slow == 1


def test_without_workers_a_client_of_another_server_that_has_caught_up_stays() -> None:
    with ExitStack() as stack:
        public = stack.enter_context(serve(nothing, send_hwm_bytes=500_000, send_timeout=0.3))
        server = stack.enter_context(serve(passes_on(public, print), max_workers=0))
        sock = stack.enter_context(deaf(public))
        eventually(public.clients)
        client = stack.enter_context(client_of(server))
        reading = Background(receive, sock, 100 * 50_001)
        client.send_packet("flood them")
        assert client.recv_packet(timeout=TIMEOUT) == "hello"
        reading.result()
        with pytest.raises(TimeoutError):
            sock.settimeout(1.0)  # longer than it would be waited for, if it were behind
            sock.recv(1)
        assert public.stats().closed_slow == 0


def test_a_client_that_several_threads_give_up_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(16)

    def send(client: PacketConnection[str]) -> None:
        together.wait(TIMEOUT)
        with pytest.raises((SendTimeoutError, ClosedError)):
            client.send_packet("news")

    with serve(nothing, send_hwm_bytes=1000, send_timeout=0.3) as server, deaf(server):
        eventually(server.clients)
        client = server.clients()[0]
        with pytest.raises(SendTimeoutError):
            while True:
                client.send_packet("x" * 100_000, timeout=0)

        def wait_for_others(record: logging.LogRecord) -> bool:
            eventually(lambda: client.closed or server.stats().closed_slow > 1)
            return True

        monkeypatch.setattr(logging.getLogger("netmsg.servers"), "filters", [wait_for_others])
        for thread in [Background(send, client) for _ in range(16)]:
            thread.result()
        eventually(lambda: server.stats().connections == 0)
        assert server.stats().closed_slow == 1
