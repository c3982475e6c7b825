"""StreamServer: a handler for each connection."""

from __future__ import annotations

import gc
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.forking import fork
from support.pairs import TIMEOUT, Background
from support.processes import interruptible
from support.servers import eventually, said
from support.wrong import wrong

from netmsg import (
    ByteStream, ClosedError, ConnectionBrokenError, EndOfStream, ForkedError, IOThread, SocketStream, StreamServer,
    TLSHandshakeError, connect_tcp, connect_unix, create_tcp_server, create_unix_server, memory_stream_pair,
)

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def echo(stream: ByteStream) -> None:
    for chunk in stream:
        stream.send_all(chunk)


def ask(port: int, data: bytes = b"hello") -> bytes:
    with connect_tcp("127.0.0.1", port, timeout=TIMEOUT) as stream:
        stream.send_all(data)
        return stream.receive_exactly(len(data), timeout=TIMEOUT)


def test_it_serves_every_client_and_closes_when_the_handler_returns() -> None:
    with StreamServer(lambda stream: stream.send_all(b"bye"), create_tcp_server()) as server:
        for host in ("127.0.0.1", "::1"):
            with connect_tcp(host, server.port) as stream:
                assert stream.receive_exactly(3, timeout=TIMEOUT) == b"bye"
                assert stream.receive(timeout=TIMEOUT) == b""
        assert server.stats().accepted == 2
        assert [address[1] for address in server.addresses] == [server.port] * 2
    assert server.closed and server.fileno() == -1


def test_several_listeners_of_several_kinds(tmp_path: Path) -> None:
    with StreamServer(echo, create_tcp_server(), create_unix_server(tmp_path / "socket")) as server:
        assert ask(server.port) == b"hello"
        with connect_unix(tmp_path / "socket") as stream:
            stream.send_all(b"hello")
            assert stream.receive_exactly(5, timeout=TIMEOUT) == b"hello"
    assert not (tmp_path / "socket").exists()


def test_89_the_server_may_speak_first() -> None:
    def greet(stream: ByteStream) -> None:
        stream.send_all(b"220 ready\r\n")
        stream.receive_until(b"\r\n")

    with StreamServer(greet, create_tcp_server()) as server, connect_tcp("127.0.0.1", server.port) as stream:
        assert stream.receive_until(b"\r\n", timeout=TIMEOUT) == b"220 ready"


def test_85_what_a_handler_raises_is_logged_and_closes_its_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    def handler(stream: ByteStream) -> None:
        if stream.receive(timeout=TIMEOUT) == b"fail":
            raise KeyError("the handler's own")
        stream.send_all(b"fine")
        stream.receive(timeout=TIMEOUT)

    with StreamServer(handler, create_tcp_server()) as server:
        with connect_tcp("127.0.0.1", server.port) as good, connect_tcp("127.0.0.1", server.port) as bad:
            good.send_all(b"ok")
            assert good.receive(timeout=TIMEOUT) == b"fine"
            bad.send_all(b"fail")
            assert bad.receive(timeout=TIMEOUT) == b""
            good.send_all(b"ok")
            address = bad.local_address
        assert server.stats().handler_errors == 1
    records = [record for record in said(caplog) if record.levelname == "ERROR"]
    assert len(records) == 1
    assert repr(address) in records[0].getMessage()
    assert records[0].exc_info is not None and records[0].exc_info[0] is KeyError


def test_85_what_clients_and_networks_do_is_not_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    over = threading.Semaphore(0)

    def handler(stream: ByteStream) -> None:
        try:
            stream.receive_exactly(10)
        finally:
            over.release()

    with StreamServer(handler, create_tcp_server()) as server:
        with connect_tcp("127.0.0.1", server.port) as stream:
            stream.send_all(b"five.")
        stream = connect_tcp("127.0.0.1", server.port)
        stream.send_all(b"five.")
        stream.abort()
        with connect_tcp("127.0.0.1", server.port):
            pass
        for _ in range(3):
            assert over.acquire(timeout=TIMEOUT)
    assert server.stats().handler_errors == 0
    assert not [record for record in said(caplog) if record.levelno >= 30]


def test_who_comes_while_there_are_no_threads_to_be_had_is_served_when_there_are(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nobody else comes or goes."""
    start = threading.Thread.start
    failed = threading.Event()

    def fail_once(thread: threading.Thread) -> None:
        if thread.name.startswith("netmsg-worker") and not failed.is_set():
            failed.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    with StreamServer(echo, create_tcp_server()) as server, connect_tcp("127.0.0.1", server.port) as staying:
        staying.send_all(b"hello")
        assert staying.receive_exactly(5, timeout=TIMEOUT) == b"hello"
        monkeypatch.setattr(threading.Thread, "start", fail_once)
        assert ask(server.port) == b"hello"
        assert failed.is_set()


def test_workers_are_as_many_as_allowed_and_the_others_wait_accepted() -> None:
    gate = threading.Event()
    running = threading.Semaphore(0)

    def handler(stream: ByteStream) -> None:
        running.release()
        gate.wait(TIMEOUT)
        stream.send_all(b"done")

    with StreamServer(handler, create_tcp_server(), max_workers=2) as server:
        streams = [connect_tcp("127.0.0.1", server.port) for _ in range(5)]
        for _ in range(2):
            assert running.acquire(timeout=TIMEOUT)
        eventually(lambda: server.stats().waiting == 3)
        stats = server.stats()
        assert (stats.workers, stats.connections) == (2, 5)
        gate.set()
        for stream in streams:
            assert stream.receive_exactly(4, timeout=TIMEOUT) == b"done"
            stream.close()


def test_90_workers_beyond_need_go_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.IDLE", 0.05)
    with StreamServer(echo, create_tcp_server()) as server:
        streams = [connect_tcp("127.0.0.1", server.port) for _ in range(20)]
        eventually(lambda: server.stats().workers == 20)
        for stream in streams[1:]:
            stream.close()
        eventually(lambda: server.stats().workers == 1)
        streams[0].send_all(b"still here")
        assert streams[0].receive_exactly(10, timeout=TIMEOUT) == b"still here"
        streams[0].close()
        eventually(lambda: server.stats().workers == 0)


def test_wait_for_data_keeps_silent_clients_from_costing_threads() -> None:
    with StreamServer(echo, create_tcp_server(), wait_for_data=True) as server:
        streams = [connect_tcp("127.0.0.1", server.port) for _ in range(20)]
        eventually(lambda: server.stats().connections == 20)
        assert server.stats().workers == 0
        streams[7].send_all(b"hello")
        assert streams[7].receive_exactly(5, timeout=TIMEOUT) == b"hello"
        assert server.stats().workers == 1
        for stream in streams:
            stream.close()
        eventually(lambda: server.stats().connections == 0)


def test_who_never_sends_anything_does_not_keep_the_others_out_for_ever() -> None:
    with StreamServer(echo, create_tcp_server(), wait_for_data=True, max_connections=3, idle_timeout=0.3) as server:
        with ExitStack() as stack:
            silent = [stack.enter_context(connect_tcp("127.0.0.1", server.port)) for _ in range(3)]
            eventually(lambda: server.stats().accept_pauses == 1)
            assert ask(server.port) == b"hello"
            assert [stream.receive(timeout=TIMEOUT) for stream in silent] == [b""] * 3
        assert server.stats().closed_idle == 3


def test_a_goodbye_for_which_there_is_no_room_yet_is_said_when_there_is(tmp_path: Path,
                                                                        tls_contexts: Contexts) -> None:
    """What the kernel of a UNIX socket has taken counts as arrived, and with some of these sizes it takes no more."""
    ours, theirs = tls_contexts
    path = tmp_path / "socket"

    def handler(stream: ByteStream) -> None:
        stream.send_all(bytes(int(stream.receive_until(b"\n"))))

    def slow(size: int) -> int:
        with connect_unix(path, ssl_context=theirs, server_hostname="localhost", timeout=TIMEOUT) as stream:
            stream.send_all(b"%d\n" % size)
            time.sleep(1.5)  # that is its speed
            return sum(map(len, stream.receive_chunks(timeout=TIMEOUT)))

    sizes = range(208_000, 230_000, 1000)
    with StreamServer(handler, create_unix_server(path, ssl_context=ours), max_workers=30):
        clients = [Background(slow, size) for size in sizes]
        assert [client.result() for client in clients] == list(sizes)


@pytest.mark.parametrize("secret", [False, True], ids=["in the clear", "TLS"])
@pytest.mark.parametrize("why", ["shutdown", "silence", "want of workers"])
def test_who_was_never_served_sees_a_clean_end(why: str, secret: bool, tls_contexts: Contexts) -> None:
    ours, theirs = tls_contexts if secret else (None, None)
    listener = create_tcp_server(interface="127.0.0.1", ssl_context=ours)
    if why == "want of workers":
        server = StreamServer(echo, listener, max_workers=1)
    else:
        server = StreamServer(echo, listener, wait_for_data=True, idle_timeout=0.1 if why == "silence" else None)
    with server, ExitStack() as stack:
        first = stack.enter_context(connect_tcp("127.0.0.1", server.port, ssl_context=theirs))
        if why == "want of workers":
            first.send_all(b"hello")
            assert first.receive_exactly(5, timeout=TIMEOUT) == b"hello"
        last = stack.enter_context(connect_tcp("127.0.0.1", server.port, ssl_context=theirs))
        eventually(lambda: (server.stats().connections, server.stats().accepted, server.stats().handshakes) == (
            0 if why == "silence" else 2, 2, 0))
        if why != "silence":
            stopping = Background(server.shutdown, timeout=TIMEOUT)
        if why == "want of workers":
            assert last.receive(timeout=TIMEOUT) == b""
            first.send_eof()
        assert first.receive(timeout=TIMEOUT) == last.receive(timeout=TIMEOUT) == b""
        if why != "silence":
            stopping.result()


@pytest.mark.parametrize("secret", [False, True], ids=["in the clear", "TLS"])
def test_who_reads_slowly_gets_all_that_was_sent_whatever_it_says_meanwhile(
        secret: bool, tls_contexts: Contexts) -> None:
    over = threading.Event()
    size = 500_000

    def handler(stream: ByteStream) -> None:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * size)
        stream.receive_exactly(2)
        stream.send_all(bytes(size))
        over.set()

    ours, theirs = tls_contexts if secret else (None, None)
    with StreamServer(handler, create_tcp_server(interface="127.0.0.1", ssl_context=ours), max_workers=1) as server, \
            connect_tcp("127.0.0.1", server.port, ssl_context=theirs) as stream:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000)
        stream.send_all(b"go")
        received, begin = 0, time.monotonic()
        while time.monotonic() - begin < 2.0:
            if not over.is_set() or received < size // 2:
                received += len(stream.receive(5000, timeout=TIMEOUT))
            stream.send_all(b"still here", timeout=TIMEOUT)
            time.sleep(0.02)  # that is how slow it is
        with connect_tcp("127.0.0.1", server.port, ssl_context=theirs) as other:
            other.send_all(b"go")  # and nobody waits for its worker
            assert other.receive_exactly(size, timeout=TIMEOUT) == bytes(size)
        while chunk := stream.receive(timeout=TIMEOUT):
            received += len(chunk)
        assert received == size


def test_who_does_not_read_what_was_sent_is_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmsg.servers.stream_server.LINGER", 0.3)

    def handler(stream: ByteStream) -> None:
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
        stream.receive_exactly(2)
        stream.send_all(bytes(1_000_000))

    with StreamServer(handler, create_tcp_server(interface="127.0.0.1")) as server, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(b"go")
        eventually(lambda: server.stats().accepted == 1 and server.stats().connections == 0)
        assert server.stats().handler_errors == 0


def test_wait_for_data_under_tls_with_the_first_bytes_behind_the_handshake(tls_contexts: Contexts) -> None:
    with StreamServer(echo, create_tcp_server(ssl_context=tls_contexts[0]), wait_for_data=True) as server:
        for _ in range(5):
            with connect_tcp("localhost", server.port, ssl_context=tls_contexts[1], timeout=TIMEOUT) as stream:
                stream.send_all(b"hello")
                assert stream.receive_exactly(5, timeout=TIMEOUT) == b"hello"


def test_idle_timeout_is_for_calls_without_one(caplog: pytest.LogCaptureFixture) -> None:
    results: list[Any] = []

    def handler(stream: ByteStream) -> None:
        try:
            results.append(stream.receive(timeout=TIMEOUT))
        except TimeoutError:
            results.append("too early")
        stream.receive()

    with StreamServer(handler, create_tcp_server(), idle_timeout=0.1) as server:
        with connect_tcp("127.0.0.1", server.port) as stream:
            time.sleep(0.2)
            stream.send_all(b"late")
            assert stream.receive(timeout=TIMEOUT) == b""
    assert results == [b"late"]
    assert not [record for record in said(caplog) if record.levelno >= 30]


def test_a_timeout_of_the_handlers_own_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def handler(stream: ByteStream) -> None:
        raise TimeoutError("the database did not answer")

    with StreamServer(handler, create_tcp_server(), idle_timeout=TIMEOUT) as server:
        with connect_tcp("127.0.0.1", server.port) as stream:
            assert stream.receive(timeout=TIMEOUT) == b""
        assert server.stats().handler_errors == 1
    assert any("database" in str(record.exc_info) for record in said(caplog))


def test_tls_in_tls_long_after_the_first_handshake(tls_contexts: Contexts) -> None:
    def handler(stream: ByteStream) -> None:
        stream.receive_until(b"\n")
        stream.start_tls(tls_contexts[0])
        stream.send_all(b"twice")

    with StreamServer(handler, create_tcp_server(ssl_context=tls_contexts[0], handshake_timeout=0.5)) as server:
        with connect_tcp("localhost", server.port, ssl_context=tls_contexts[1], timeout=TIMEOUT) as stream:
            time.sleep(0.7)
            stream.send_all(b"please\n")
            stream.start_tls(tls_contexts[1], timeout=TIMEOUT)
            assert stream.receive_exactly(5, timeout=TIMEOUT) == b"twice"


def test_tls_is_established_before_the_handler_runs(tls_contexts: Contexts) -> None:
    seen: list[Any] = []

    def handler(stream: ByteStream) -> None:
        seen.append(stream.tls)
        stream.send_all(b"secret")

    with StreamServer(handler, create_tcp_server(ssl_context=tls_contexts[0])) as server:
        with connect_tcp("localhost", server.port, ssl_context=tls_contexts[1], timeout=TIMEOUT) as stream:
            assert stream.receive_exactly(6, timeout=TIMEOUT) == b"secret"
    assert seen[0].version == "TLSv1.3"
    assert seen[0].peer_certificate["subjectAltName"] == (("email", "client@example.org"),)


def test_without_autostart_the_handler_decides(tls_contexts: Contexts) -> None:
    def handler(stream: ByteStream) -> None:
        assert stream.tls is None
        stream.receive_until(b"\n")
        stream.start_tls()
        stream.send_all(b"secret")

    with StreamServer(handler, create_tcp_server(ssl_context=tls_contexts[0], autostart_tls=False)) as server:
        with connect_tcp("localhost", server.port, ssl_context=tls_contexts[1], autostart_tls=False) as stream:
            stream.send_all(b"please\n")
            stream.start_tls(timeout=TIMEOUT)
            assert stream.receive_exactly(6, timeout=TIMEOUT) == b"secret"


def test_a_handshake_that_fails_in_the_handler_is_counted_and_warned_of(
        tls_contexts: Contexts, caplog: pytest.LogCaptureFixture) -> None:
    def handler(stream: ByteStream) -> None:
        stream.receive_until(b"\n")
        stream.start_tls()

    with StreamServer(handler, create_tcp_server(ssl_context=tls_contexts[0], autostart_tls=False)) as server:
        for failures in (1, 2):
            with connect_tcp("localhost", server.port) as stream:
                stream.send_all(b"please\nthis is not TLS\n")
                eventually(lambda: server.stats().handshakes_failed == failures)
        assert server.stats().handler_errors == 0
    assert len([record for record in said(caplog) if record.levelname == "WARNING"]) == 1


def test_an_idle_stream_of_another_server_is_the_handlers_own_error(caplog: pytest.LogCaptureFixture) -> None:
    others: list[ByteStream] = []
    over = threading.Event()

    def keep(stream: ByteStream) -> None:
        others.append(stream)
        over.wait(TIMEOUT)

    with StreamServer(keep, create_tcp_server(), idle_timeout=0.1) as quiet, \
            StreamServer(lambda stream: others[0].receive(), create_tcp_server()) as server:
        with connect_tcp("127.0.0.1", quiet.port):
            eventually(lambda: others)
            with connect_tcp("127.0.0.1", server.port) as stream:
                assert stream.receive(timeout=TIMEOUT) == b""
        over.set()
        eventually(lambda: server.stats().connections == 0)
        assert server.stats().handler_errors == 1
        assert server.stats().closed_idle == 0


def test_clients_that_do_not_finish_their_handshake_cost_no_worker_and_are_gone_in_time(
        tls_contexts: Contexts) -> None:
    with StreamServer(echo, create_tcp_server(ssl_context=tls_contexts[0], handshake_timeout=0.3),
                      max_workers=1) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        silent[0].send(b"GET / HTTP/1.0\r\n\r\n")
        silent[1].close()
        with connect_tcp("localhost", server.port, ssl_context=tls_contexts[1], timeout=TIMEOUT) as stream:
            stream.send_all(b"hello")
            assert stream.receive_exactly(5, timeout=TIMEOUT) == b"hello"
            eventually(lambda: server.stats().connections == 1)
            assert server.stats().handshakes_failed == 20
            for sock in silent[2:]:
                sock.settimeout(TIMEOUT)
                try:
                    assert sock.recv(100) == b""
                except ConnectionResetError:
                    pass
        for sock in silent:
            sock.close()


def test_at_max_connections_clients_wait_in_the_backlog() -> None:
    with StreamServer(echo, create_tcp_server(interface="127.0.0.1"), max_connections=3) as server:
        streams = [connect_tcp("127.0.0.1", server.port) for _ in range(5)]
        eventually(lambda: server.stats().connections == 3)
        late = streams[4]
        late.send_all(b"hello")
        with pytest.raises(TimeoutError):
            late.receive(timeout=0.1)
        assert server.stats().connections == 3
        for stream in streams[:2]:
            stream.close()
        assert late.receive_exactly(5, timeout=TIMEOUT) == b"hello"
        assert server.stats().accepted == 5
        assert server.stats().accept_pauses >= 1
        for stream in streams[2:]:
            stream.close()


# The end

def test_86_shutdown_lets_handlers_finish() -> None:
    started, finished = threading.Event(), []

    def handler(stream: ByteStream) -> None:
        started.set()
        stream.receive_exactly(4)
        stream.send_all(b"answer")
        finished.append(True)

    server = StreamServer(handler, create_tcp_server())
    server.start()
    with connect_tcp("127.0.0.1", server.port) as stream:
        assert started.wait(TIMEOUT)
        stopping = Background(server.shutdown, timeout=TIMEOUT)
        eventually(lambda: server.closed)
        stream.send_all(b"more")
        assert stream.receive_exactly(6, timeout=TIMEOUT) == b"answer"
        stopping.result()
    assert finished == [True]


def test_86_and_cuts_them_at_the_deadline() -> None:
    errors: list[Any] = []

    def handler(stream: ByteStream) -> None:
        try:
            stream.receive()
        except BaseException as error:
            errors.append(error)
            raise

    with StreamServer(handler, create_tcp_server()) as server:
        with connect_tcp("127.0.0.1", server.port) as stream:
            eventually(lambda: server.stats().workers == 1)
            start = time.monotonic()
            server.shutdown(timeout=0.2)
            assert 0.15 < time.monotonic() - start < 5
            assert stream.receive(timeout=TIMEOUT) == b""  # it was the client's turn
        assert server.stats().closed_unsent == 0
    assert isinstance(errors[0], ClosedError)


@pytest.mark.parametrize("by", ["the handler", "another"])
def test_86_who_is_cut_in_the_middle_is_told_no_clean_end(by: str, caplog: pytest.LogCaptureFixture) -> None:
    streams: list[ByteStream] = []

    def handler(stream: ByteStream) -> None:
        if by == "the handler":
            stream.send_all(bytes(20_000_000))
        else:
            streams.append(stream)
            stream.receive()

    def send() -> None:
        with pytest.raises(ClosedError):
            streams[0].send_all(bytes(20_000_000))

    with StreamServer(handler, create_tcp_server()) as server:
        with connect_tcp("127.0.0.1", server.port) as stream:
            if by == "another":
                eventually(lambda: streams)
                sending = Background(send)
            stream.receive_exactly(1, timeout=TIMEOUT)
            server.shutdown(timeout=0.1)
            with pytest.raises(ConnectionBrokenError):
                while stream.receive(1_000_000, timeout=TIMEOUT):
                    pass
        assert server.stats().closed_unsent == 1
        if by == "another":
            sending.result()
    warnings = [record.getMessage() for record in said(caplog) if record.levelname == "WARNING"]
    assert len(warnings) == 1 and "1 clients" in warnings[0]


def test_86_a_handler_that_does_not_look_is_not_waited_for_longer() -> None:
    gate, over = threading.Event(), threading.Event()

    def handler(stream: ByteStream) -> None:
        gate.wait(TIMEOUT)
        over.set()

    with StreamServer(handler, create_tcp_server()) as server, connect_tcp("127.0.0.1", server.port):
        eventually(lambda: server.stats().workers == 1)
        start = time.monotonic()
        server.shutdown(timeout=0.1)
        assert time.monotonic() - start < 8
        gate.set()
        assert over.wait(TIMEOUT)


def test_86_idle_connections_are_closed_at_once(tls_contexts: Contexts) -> None:
    with StreamServer(echo, create_tcp_server(ssl_context=tls_contexts[0]),
                      create_tcp_server(), wait_for_data=True) as server:
        silent = [socket.create_connection(address) for address in server.addresses if address[0] == "127.0.0.1"]
        eventually(lambda: server.stats().connections == 2)
        start = time.monotonic()
        server.shutdown(timeout=TIMEOUT)
        assert time.monotonic() - start < 5
        for sock in silent:
            sock.settimeout(TIMEOUT)
            assert sock.recv(10) == b""
            sock.close()


@pytest.mark.parametrize("wait", [True, False])
def test_86_from_a_handler(wait: bool) -> None:
    def handler(stream: ByteStream) -> None:
        if stream.receive() == b"stop":
            server.shutdown(wait=wait)
        stream.send_all(b"done")

    server = StreamServer(handler, create_tcp_server())
    serving = Background(server.serve_forever)
    eventually(lambda: "serving" in repr(server))
    assert ask(server.port, b"stop") == b"done"
    serving.result()
    assert server.closed


def test_86_twice_and_before_the_start() -> None:
    server = StreamServer(echo, create_tcp_server())
    server.shutdown()
    server.shutdown()
    server.close()
    with pytest.raises(ClosedError):
        server.start()
    with pytest.raises(ClosedError):
        server.serve_forever()
    again = StreamServer(echo, create_tcp_server())
    again.start()
    again.start()
    assert ask(again.port) == b"hello"
    again.shutdown()
    again.shutdown()


def test_86_another_shutdown_may_be_in_more_of_a_hurry() -> None:
    with StreamServer(echo, create_tcp_server()) as server, connect_tcp("127.0.0.1", server.port):
        eventually(lambda: server.stats().workers == 1)
        patient = Background(server.shutdown, timeout=None)
        eventually(lambda: server.closed)
        assert patient.is_alive()
        server.shutdown(timeout=0.05)
        patient.result()


def test_86_a_port_in_use_is_told_in_the_caller() -> None:
    with StreamServer(echo, create_tcp_server(interface="127.0.0.1")) as server:
        with pytest.raises(OSError):
            create_tcp_server(server.port, interface="127.0.0.1")


def test_close_does_not_wait() -> None:
    with StreamServer(echo, create_tcp_server()) as server:
        with connect_tcp("127.0.0.1", server.port) as stream:
            eventually(lambda: server.stats().workers == 1)
            server.close()
            try:
                assert stream.receive(timeout=TIMEOUT) == b""
            except ConnectionBrokenError:
                pass


def test_serving_inside_with_and_interrupted() -> None:
    """Ctrl-C in `serve_forever` shuts the server down."""
    with StreamServer(echo, create_tcp_server()) as server:
        threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
        with interruptible(), pytest.raises(KeyboardInterrupt):
            server.serve_forever()
        assert server.closed


def test_a_shared_io_thread() -> None:
    with IOThread() as io:
        one, other = (StreamServer(echo, create_tcp_server(), io_thread=io) for _ in range(2))
        with one, other:
            assert ask(one.port) == ask(other.port) == b"hello"
            one.shutdown()
            assert ask(other.port) == b"hello"
        with StreamServer(echo, create_tcp_server(), io_thread=io) as last:
            assert ask(last.port) == b"hello"
            io.close(timeout=TIMEOUT)
            eventually(lambda: last.closed)


def test_an_unused_server_is_told_of() -> None:
    server = StreamServer(echo, create_tcp_server())
    with pytest.warns(ResourceWarning, match="unclosed <StreamServer"):
        del server
        gc.collect()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_in_a_forked_child_it_is_refused_and_the_port_is_free_afterwards() -> None:
    with StreamServer(echo, create_tcp_server(interface="127.0.0.1")) as server:
        port = server.port
        with connect_tcp("127.0.0.1", port) as stream:
            eventually(lambda: server.stats().workers == 1)
            reader, writer = os.pipe()
            forked_reader, forked_writer = os.pipe()
            child = fork()
            if not child:
                code = 1
                try:
                    server.start()
                except ForkedError:
                    code = 42
                os.write(forked_writer, b"x")
                os.read(reader, 1)
                os._exit(code)
            os.read(forked_reader, 1)  # what is done in a child after a fork has been done
            stream.send_all(b"hello")
            assert stream.receive_exactly(5, timeout=TIMEOUT) == b"hello"
    try:
        with create_tcp_server(port, interface="127.0.0.1"):  # the child keeps no copy of the listener
            pass
    finally:
        os.write(writer, b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
        for end in (reader, writer, forked_reader, forked_writer):
            os.close(end)


@pytest.mark.parametrize("make", [
    lambda listener: StreamServer(wrong("no handler"), listener),
    lambda listener: StreamServer(echo, wrong("no listener")),
    lambda listener: StreamServer(echo, listener, max_workers=wrong("many")),
    lambda listener: StreamServer(echo, wrong(5)),
    lambda listener: StreamServer(echo, listener, io_thread=wrong(threading.Thread())),
])
def test_bad_types(make: Callable[[Any], Any]) -> None:
    with create_tcp_server() as listener:
        with pytest.raises(TypeError):
            make(listener)
        with StreamServer(echo, listener):  # it was not taken
            pass


@pytest.mark.parametrize("make", [
    lambda listener: StreamServer(echo), lambda listener: StreamServer(echo, listener, max_workers=0),
    lambda listener: StreamServer(echo, listener, max_connections=0),
    lambda listener: StreamServer(echo, listener, idle_timeout=-1),
])
def test_bad_values(make: Callable[[Any], Any]) -> None:
    with create_tcp_server() as listener:
        with pytest.raises(ValueError):
            make(listener)
        assert not listener.closed


def test_a_closed_listener_is_refused() -> None:
    listener = create_tcp_server()
    listener.close()
    with pytest.raises(ClosedError):
        StreamServer(echo, listener)


def test_a_refused_client_certificate_is_the_clients_error(tls_contexts: Contexts, authority: Any) -> None:
    anonymous = ssl.create_default_context()
    authority.configure_trust(anonymous)
    with StreamServer(echo, create_tcp_server(ssl_context=tls_contexts[0])) as server:
        with pytest.raises((TLSHandshakeError, ConnectionBrokenError)):
            with connect_tcp("localhost", server.port, ssl_context=anonymous, timeout=TIMEOUT) as stream:
                stream.receive(timeout=TIMEOUT)
        eventually(lambda: server.stats().handshakes_failed == 1)


def test_streams_are_socket_streams_with_addresses() -> None:
    seen: list[Any] = []

    def handler(stream: SocketStream) -> None:
        seen.extend((stream.remote_address, stream.local_address))
        stream.send_all(b"x")

    with StreamServer(handler, create_tcp_server()) as server, connect_tcp("127.0.0.1", server.port) as stream:
        stream.receive_exactly(1, timeout=TIMEOUT)
        assert seen == [stream.local_address, ("127.0.0.1", server.port)]


def test_errors_of_other_connections_are_the_handlers_own(caplog: pytest.LogCaptureFixture) -> None:
    def handler(stream: ByteStream) -> None:
        ours, theirs = memory_stream_pair()
        theirs.close()
        with ours:
            ours.receive_exactly(1)  # EndOfStream

    with StreamServer(handler, create_tcp_server()) as server, connect_tcp("127.0.0.1", server.port) as stream:
        assert stream.receive(timeout=TIMEOUT) == b""
        eventually(lambda: server.stats().handler_errors == 1)
    assert len([record for record in said(caplog) if record.levelname == "ERROR"]) == 1


@pytest.mark.parametrize("pass_on", [
    lambda stream, other: stream.receive_file(other.makefile("wb", buffering=0), 5),
    lambda stream, other: stream.receive_file(other.makefile("wb"), 5),
    lambda stream, other: stream.send_file(other.makefile("rb", buffering=0)),
    lambda stream, other: stream.receive_file(SimpleNamespace(write=other.send_all), 5),
], ids=["raw", "buffered", "sent", "alike"])
def test_so_are_those_of_streams_that_a_file_is_over(pass_on: Callable[[ByteStream, ByteStream], object],
                                                     caplog: pytest.LogCaptureFixture) -> None:
    def handler(stream: ByteStream) -> None:
        ours, theirs = memory_stream_pair()
        theirs.abort()
        with ours:
            pass_on(stream, ours)

    with StreamServer(handler, create_tcp_server()) as server, connect_tcp("127.0.0.1", server.port) as stream:
        stream.send_all(b"hello")
        eventually(lambda: server.stats().handler_errors == 1)
    assert len([record for record in said(caplog) if record.levelname == "ERROR"]) == 1


def test_what_breaks_while_a_file_is_passed_on_is_no_error_of_the_handlers(caplog: pytest.LogCaptureFixture) -> None:
    def handler(stream: ByteStream) -> None:
        ours, theirs = memory_stream_pair()
        with ours, theirs:
            stream.receive_file(ours.makefile("wb", buffering=0), 5)

    with StreamServer(handler, create_tcp_server()) as server:
        with connect_tcp("127.0.0.1", server.port) as stream:
            stream.send_all(b"hell")
            stream.send_eof()
            assert stream.receive(timeout=TIMEOUT) == b""
        eventually(lambda: server.stats().connections == 0)
        assert server.stats().handler_errors == 0
    assert not [record for record in said(caplog) if record.levelname == "ERROR"]


def test_nor_are_they_the_streams_where_it_has_raised_something_before(caplog: pytest.LogCaptureFixture) -> None:
    """Which is gone: another error may lie where that one did."""
    def handler(stream: ByteStream) -> None:
        ours, theirs = memory_stream_pair()
        theirs.close()
        with ours:
            try:
                stream.receive_exactly(1)
            except EndOfStream:
                pass
            ours.receive_exactly(1)

    with StreamServer(handler, create_tcp_server()) as server:
        for _ in range(30):
            with connect_tcp("127.0.0.1", server.port) as stream:
                stream.send_eof()
                assert stream.receive(timeout=TIMEOUT) == b""
        eventually(lambda: server.stats().connections == 0)
        assert server.stats().handler_errors == 30
    assert len([record for record in said(caplog) if record.levelname == "ERROR"]) == 30


def test_conversations_and_asynchronous_handlers_are_refused() -> None:
    def converse(stream: ByteStream) -> Any:
        yield

    async def handler(stream: ByteStream) -> None:
        pass

    with create_tcp_server() as listener:
        for function in (converse, handler):
            with pytest.raises(TypeError):
                StreamServer(function, listener)
