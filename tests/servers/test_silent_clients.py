"""StreamServer: clients that say nothing do not keep the workers from those that do."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background
from support.servers import eventually, said

from netmsg import (
    ByteStream, ClosedError, IOThread, LineCodec, PacketClient, PacketConnection, PacketServer, StreamServer,
    connect_tcp, create_tcp_server,
)
from netmsg.servers import stream_server
from netmsg.streams.links import SocketLink

SILENCE = 0.3


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_server, "SILENCE", SILENCE)


def echo(stream: ByteStream) -> None:
    for chunk in stream:
        stream.send_all(chunk)


def serve(handler: Any, **options: Any) -> StreamServer:
    return StreamServer(handler, create_tcp_server(interface="127.0.0.1"), **options)


def silent_one(server: StreamServer) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port))
    sock.settimeout(TIMEOUT)
    return sock


def ask(server: StreamServer, data: bytes = b"hello") -> bytes:
    with connect_tcp("127.0.0.1", server.port, timeout=TIMEOUT) as stream:
        stream.send_all(data)
        return stream.receive_exactly(len(data), timeout=TIMEOUT)


def test_silent_clients_starve_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(serve(echo, max_workers=3))
        silent = [stack.enter_context(silent_one(server)) for _ in range(20)]
        eventually(lambda: server.stats().connections == 20)
        eventually(lambda: server.stats().workers == 3)
        for _ in range(3):
            assert ask(server) == b"hello"
        assert server.stats().closed_idle >= 3
        assert server.stats().handler_errors == 0
        assert silent[0].recv(10) == b""
        warnings = [record.getMessage() for record in said(caplog) if record.levelname == "WARNING"]
        assert len(warnings) == 1  # of several
        assert any(repr(sock.getsockname()) in warnings[0] for sock in silent[:3])  # those who had the workers


def test_nor_do_those_whose_handlers_wait_for_each_others_clients() -> None:
    met: list[ByteStream] = []
    both = threading.Barrier(2)
    over: list[BaseException] = []

    def handler(stream: ByteStream) -> None:
        if stream.receive_exactly(5) == b"hello":
            stream.send_all(b"hello")
            return
        met.append(stream)
        both.wait(TIMEOUT)
        partner, = (one for one in met if one is not stream)
        try:
            for chunk in partner:
                stream.send_all(chunk)
        except TimeoutError as error:
            over.append(error)

    with ExitStack() as stack:
        server = stack.enter_context(serve(handler, max_workers=2))
        for _ in range(2):
            stack.enter_context(silent_one(server)).sendall(b"relay")
        eventually(lambda: len(met) == 2)
        assert ask(server) == b"hello"
        assert 1 <= len(over) <= server.stats().closed_idle


@pytest.mark.parametrize("secret", [False, True], ids=["in the clear", "TLS"])
def test_who_is_timed_out_may_say_goodbye_and_no_more(secret: bool,
                                                      tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    theirs: list[Any] = []

    def handler(stream: ByteStream) -> None:
        if stream.receive_exactly(4) == b"stay":
            try:
                stream.receive()
            except TimeoutError:
                stream.send_all(b"goodbye", timeout=TIMEOUT)
            try:
                stream.receive(timeout=TIMEOUT)
            except ClosedError as error:
                theirs.append(error)

    ours, other = tls_contexts if secret else (None, None)
    listener = create_tcp_server(interface="127.0.0.1", ssl_context=ours)
    with StreamServer(handler, listener, max_workers=1) as server, \
            connect_tcp("127.0.0.1", server.port, ssl_context=other) as stream:
        stream.send_all(b"stay")
        eventually(lambda: server.stats().workers == 1)
        with connect_tcp("127.0.0.1", server.port, ssl_context=other) as another:
            another.send_all(b"and go")
            assert stream.receive_exactly(7, timeout=TIMEOUT) == b"goodbye"
            assert stream.receive(timeout=TIMEOUT) == b""
        assert len(theirs) == 1


def test_who_reads_slowly_and_steadily_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the kernel tells of room only when there is much."""
    monkeypatch.setattr(stream_server, "SILENCE", 1.5)
    heard: list[BaseException] = []

    def handler(stream: ByteStream) -> None:
        for chunk in stream:
            try:
                stream.send_all(bytes(20_000_000) if chunk == b"all" else chunk)
            except BaseException as error:
                heard.append(error)
                raise

    with ExitStack() as stack:
        server = stack.enter_context(serve(handler, max_workers=1))
        slow, talker = (stack.enter_context(silent_one(server)) for _ in range(2))
        slow.sendall(b"all")
        waiting = stack.enter_context(silent_one(server))
        begin = time.monotonic()
        while time.monotonic() - begin < 3.5:
            assert slow.recv(10_000)
            talker.sendall(b"x")
            assert talker.recv(1) == b"x"
            time.sleep(0.02)  # that is how slow it is
        assert server.stats().waiting == 1
        assert server.stats().closed_idle == 0
        assert not heard
        waiting.close()


def test_who_has_said_something_comes_before_who_has_not() -> None:
    gate, began = threading.Event(), threading.Semaphore(0)
    order: list[Any] = []

    def handler(stream: ByteStream) -> None:
        order.append(stream.remote_address)
        began.release()
        gate.wait(TIMEOUT)

    with ExitStack() as stack:
        io = stack.enter_context(IOThread())
        server = stack.enter_context(serve(handler, max_workers=1, io_thread=io))
        neighbour = stack.enter_context(PacketServer(
            lambda client, packet: client.send_packet(packet), create_tcp_server(interface="127.0.0.1"),
            codec=LineCodec(), max_workers=0, io_thread=io))
        silent = [stack.enter_context(silent_one(server)) for _ in range(5)]
        assert began.acquire(timeout=TIMEOUT)
        eventually(lambda: server.stats().waiting == 4)
        talker = stack.enter_context(silent_one(server))
        eventually(lambda: server.stats().waiting == 5)
        talker.sendall(b"hello")
        with PacketClient(("127.0.0.1", neighbour.port), LineCodec()) as client:
            client.send_packet("ping")  # when this is answered, by the same thread, the other has been noticed
            assert client.recv_packet(timeout=TIMEOUT) == "ping"
        gate.set()
        for _ in range(5):
            assert began.acquire(timeout=TIMEOUT)
        assert order[1] == talker.getsockname()
        assert set(order) == {sock.getsockname() for sock in [talker, *silent]}


def test_who_speaks_while_a_worker_becomes_free_for_it_is_handed_over_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.IDLE", 0.01)
    began, gate, held, free = threading.Semaphore(0), threading.Event(), threading.Event(), threading.Event()

    def handler(stream: ByteStream) -> None:
        stream.send_all(b"220 ready\n")
        began.release()
        gate.wait(TIMEOUT)

    def hold(client: PacketConnection[str], packet: str) -> None:
        held.set()
        assert free.wait(TIMEOUT)

    with ExitStack() as stack:
        io = stack.enter_context(IOThread())
        server = stack.enter_context(serve(handler, max_workers=1, io_thread=io))
        neighbour = stack.enter_context(PacketServer(hold, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(),
                                                     max_workers=0, io_thread=io))
        first, second = (stack.enter_context(silent_one(server)) for _ in range(2))
        assert began.acquire(timeout=TIMEOUT)
        eventually(lambda: server.stats().waiting == 1)
        client = stack.enter_context(PacketClient(("127.0.0.1", neighbour.port), LineCodec()))
        client.send_packet("wait")
        assert held.wait(TIMEOUT)  # the network thread is; and both of these are for its next round
        second.sendall(b"hello")
        gate.set()
        assert first.recv(100) == b"220 ready\n"
        eventually(lambda: server.stats().workers == 0)
        free.set()
        assert second.recv(100) == b"220 ready\n"
        eventually(lambda: server.stats().connections == 0)
        with silent_one(server) as third:  # for whom there is a worker, as before
            assert third.recv(100) == b"220 ready\n"


def test_89_the_server_still_speaks_first_to_those_who_wait() -> None:
    def greet(stream: ByteStream) -> None:
        stream.send_all(b"220 ready\n")
        stream.receive_until(b"\n")

    with ExitStack() as stack:
        server = stack.enter_context(serve(greet, max_workers=2))
        socks = [stack.enter_context(silent_one(server)) for _ in range(8)]
        for sock in socks:
            assert sock.recv(100) == b"220 ready\n"


def test_nobody_is_sent_away_while_nobody_waits() -> None:
    looks = threading.Semaphore(0)

    def handler(stream: ByteStream) -> None:
        with pytest.raises(TimeoutError):
            stream.receive(timeout=3 * SILENCE)
        looks.release()
        stream.send_all(b"still here")

    with ExitStack() as stack:
        server = stack.enter_context(serve(handler, max_workers=3))
        socks = [stack.enter_context(silent_one(server)) for _ in range(3)]
        for _ in socks:
            assert looks.acquire(timeout=TIMEOUT)
        for sock in socks:
            assert sock.recv(100) == b"still here"
        assert server.stats().closed_idle == 0


def test_handlers_that_do_not_wait_for_their_client_are_left_alone() -> None:
    gate, began = threading.Event(), threading.Semaphore(0)

    def handler(stream: ByteStream) -> None:
        if stream.receive(timeout=TIMEOUT) == b"work":
            began.release()
            gate.wait(TIMEOUT)  # its client is as silent as the others, and that is not what it waits for
        stream.send_all(b"done")
        stream.receive()

    with ExitStack() as stack:
        server = stack.enter_context(serve(handler, max_workers=2))
        worker = stack.enter_context(silent_one(server))
        worker.sendall(b"work")
        assert began.acquire(timeout=TIMEOUT)
        for _ in range(5):
            sock = stack.enter_context(silent_one(server))
            sock.sendall(b"hello")
            assert sock.recv(10) == b"done"
        gate.set()
        assert worker.recv(10) == b"done"


def test_the_handler_gets_a_timeout_error_and_may_say_goodbye(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []

    def handler(stream: ByteStream) -> None:
        try:
            stream.receive(timeout=1e6)
        except TimeoutError as error:
            heard.append(error)
            stream.send_all(b"421 too slow\n")
            try:
                stream.receive(timeout=1e6)
            except BaseException as error:
                heard.append(error)
                raise

    with serve(handler, max_workers=1) as server, silent_one(server) as silent:
        eventually(lambda: server.stats().workers == 1)
        with silent_one(server):
            assert silent.makefile("rb").read() == b"421 too slow\n"
        assert isinstance(heard[0], TimeoutError)
        assert isinstance(heard[1], ClosedError)
        assert server.stats().handler_errors == 0
    assert not [record for record in said(caplog) if record.levelname == "ERROR"]


def test_silent_clients_starve_nobody_though_a_handler_goes_on_after_its_time(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_server, "LATELY", SILENCE)
    gate = threading.Event()
    tidying: list[Any] = []

    def handler(stream: ByteStream) -> None:
        try:
            stream.send_all(stream.receive())
        except TimeoutError:
            tidying.append(stream.remote_address)
            if len(tidying) == 1:
                gate.wait(TIMEOUT)

    with ExitStack() as stack:
        stack.callback(gate.set)
        server = stack.enter_context(serve(handler, max_workers=2))
        for _ in range(2):
            stack.enter_context(silent_one(server))
        eventually(lambda: server.stats().workers == 2)
        assert [ask(server), ask(server)] == [b"hello", b"hello"]
        assert len(tidying) == 2
        gate.set()


def test_silent_clients_starve_nobody_though_their_handlers_look_up_now_and_then() -> None:
    """Each wait is short, and the silence is long."""
    def handler(stream: ByteStream) -> None:
        while True:
            try:
                data = stream.receive(timeout=SILENCE / 10)
            except TimeoutError:
                continue
            if not data:
                return
            stream.send_all(data)

    with ExitStack() as stack:
        server = stack.enter_context(serve(handler, max_workers=2))
        for _ in range(2):
            stack.enter_context(silent_one(server))
        eventually(lambda: server.stats().workers == 2)
        assert ask(server) == ask(server) == b"hello"
        assert server.stats().closed_idle >= 1
        assert server.stats().handler_errors == 0


def test_silent_clients_starve_nobody_though_their_handlers_poll() -> None:
    """They hardly ever wait for the stream."""
    over = threading.Event()
    pauses = threading.Event()

    def handler(stream: ByteStream) -> None:
        while not over.is_set():
            try:
                data = stream.receive(timeout=0)
            except TimeoutError:
                pauses.wait(SILENCE / 10)
                continue
            if not data:
                return
            stream.send_all(data)

    with ExitStack() as stack:
        server = stack.enter_context(serve(handler, max_workers=2))
        stack.callback(over.set)
        for _ in range(2):
            stack.enter_context(silent_one(server))
        eventually(lambda: server.stats().workers == 2)
        assert ask(server) == ask(server) == b"hello"
        assert server.stats().closed_idle >= 1
        assert server.stats().handler_errors == 0


def test_a_wait_in_vain_is_no_end_of_the_silence_and_each_byte_is() -> None:
    ours, theirs = socket.socketpair()
    link = SocketLink(ours)
    with ByteStream(link) as stream, theirs:
        def silent_since() -> float:
            with pytest.raises(TimeoutError):
                stream.receive(timeout=0)
            return link.silent_since()

        begin = silent_since()
        assert silent_since() == begin
        theirs.sendall(b"come while nobody waited")
        assert stream.receive(4, timeout=TIMEOUT) == b"come"
        stream.receive(timeout=TIMEOUT)
        received = silent_since()
        assert received > begin
        assert silent_since() == received
        stream.send_all(b"gone")
        sent = silent_since()
        assert sent > received
        assert silent_since() == sent
        with pytest.raises(TimeoutError):
            while True:
                stream.send_all(bytes(100_000), timeout=0)
        full = silent_since()
        assert silent_since() == full > sent


def test_the_idle_timeout_is_the_measure_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_server, "SILENCE", 1000.0)

    def handler(stream: ByteStream) -> None:
        stream.receive(timeout=1000)

    with serve(handler, max_workers=1, idle_timeout=SILENCE) as server, silent_one(server) as silent:
        eventually(lambda: server.stats().workers == 1)
        with silent_one(server):
            assert silent.recv(10) == b""
        assert server.stats().closed_idle >= 1


def test_idle_timeouts_are_counted() -> None:
    with serve(echo, idle_timeout=0.05) as server, silent_one(server) as silent:
        assert silent.recv(10) == b""
        eventually(lambda: server.stats().closed_idle == 1)


def test_86_shutdown_lets_go_at_once_of_who_waits_and_has_said_nothing() -> None:
    gate, began = threading.Event(), threading.Event()

    def handler(stream: ByteStream) -> None:
        began.set()
        gate.wait(TIMEOUT)

    with ExitStack() as stack:
        server = stack.enter_context(serve(handler, max_workers=1))
        stack.enter_context(silent_one(server))
        assert began.wait(TIMEOUT)
        waiting = stack.enter_context(silent_one(server))
        eventually(lambda: server.stats().waiting == 1)
        stopping = Background(server.shutdown, timeout=TIMEOUT)
        assert waiting.recv(10) == b""
        gate.set()
        stopping.result()
        assert server.stats().connections == server.stats().waiting == 0
