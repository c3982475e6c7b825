"""PacketServer: a handler for each packet, or a conversation."""

from __future__ import annotations

import errno
import functools
import gc
import os
import random
import selectors
import socket
import ssl
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from support.forking import fork
from support.pairs import TIMEOUT, Background
from support.servers import descriptors_left, eventually, said
from support.strikes import Strike, Struck, strike_everywhere

from netmsg import (
    ClosedError, Codec, ConnectionBrokenError, Decoder, DelimitedCodec, EndOfStream, ForkedError, IncompleteReadError,
    IOThread, JSONCodec, LengthPrefixedCodec, LineCodec, Listener, LocalProtocolError, NetstringCodec, PacketClient,
    PacketConnection, PacketDecodeError, PacketEncodeError, PacketServer, RemoteProtocolError, SendTimeoutError,
    ServerStats, TLSHandshakeError, create_tcp_server, create_unix_server, memory_stream_pair,
)
from netmsg.reactor.handshaking import PendingHandshakes
from netmsg.sockets.lingering import all_acknowledged

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
Conversation = Generator[Any, str, None]
Serve = Callable[..., "PacketServer[Any, Any]"]


@pytest.fixture(params=[8, 0], ids=["workers", "inline"])
def serve(request: pytest.FixtureRequest) -> Serve:
    def make(handler: Any, *listeners: Listener, **options: Any) -> PacketServer[Any, Any]:
        return PacketServer(handler, *(listeners or [create_tcp_server(interface="127.0.0.1")]),
                            **{"codec": LineCodec(), "max_workers": request.param, **options})
    make.workers = request.param  # type: ignore[attr-defined]
    return make


def client_of(server: PacketServer[Any, Any], **options: Any) -> PacketClient[str, str]:
    return PacketClient(("localhost", server.port), LineCodec(), connect_timeout=TIMEOUT, **options)


def echo(client: PacketConnection[str], packet: str) -> None:
    client.send_packet(packet)


def raw(server: PacketServer[Any, Any]) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port))
    sock.settimeout(TIMEOUT)
    return sock


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in said(caplog) if record.levelname == "ERROR"]


# Functions

def test_what_is_interrupted_while_it_is_sent_arrives_whole_or_not_at_all() -> None:
    packet = b"x" * 5_000_000

    def receive(sock: socket.socket, size: int) -> bytes:
        received = bytearray()
        while len(received) < size and (chunk := sock.recv(1_000_000)):
            received += chunk
        return bytes(received)

    def trial(strike: Strike) -> None:
        with raw(server) as sock:
            eventually(lambda: len(server.clients()) == 1)
            client = server.clients()[0]
            sent = server.stats().packets_sent
            receiving = Background(receive, sock, len(packet) + 1)
            try:
                with strike:
                    client.send_packet(packet.decode())
            except Struck:
                pass
            if server.stats().packets_sent == sent:
                client.abort()
                with pytest.raises(ConnectionResetError):
                    receiving.result()
            else:
                assert receiving.result() == packet + b"\n"
        eventually(lambda: server.stats().connections == 0)

    with PacketServer(echo, create_tcp_server(interface="127.0.0.1"), codec=LineCodec()) as server:
        assert strike_everywhere(trial) > 10


def test_each_packet_is_answered_in_order(serve: Serve) -> None:
    with serve(echo) as server, client_of(server) as client:
        for number in range(100):
            client.send_packet(f"one {number}")
            assert client.recv_packet(timeout=TIMEOUT) == f"one {number}"
        for number in range(1000):
            client.send_packet(f"many {number}")
        assert [client.recv_packet(timeout=TIMEOUT) for _ in range(1000)] == [f"many {n}" for n in range(1000)]
        stats = server.stats()
        assert stats.packets_received == stats.packets_sent == 1100
    assert server.stats().packets_received == 1100
    assert server.stats().connections == 0


def test_a_client_that_goes_while_somebody_looks_is_counted_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    length = PendingHandshakes.__len__
    going: list[PacketClient[str, str]] = []

    def let_it_go(pending: PendingHandshakes) -> int:
        while going:
            going.pop().close()
            eventually(lambda: server.stats().connections == 0)
        return length(pending)

    with serve(echo) as server, client_of(server) as client:
        client.send_packet("hello")
        assert client.recv_packet(timeout=TIMEOUT) == "hello"
        monkeypatch.setattr(PendingHandshakes, "__len__", let_it_go)  # which is looked at, too
        going.append(client)
        stats = server.stats()
        assert not going
        assert stats.packets_received == stats.packets_sent == 1
        stats = server.stats()
        assert stats.packets_received == stats.packets_sent == 1


def test_the_client_object(serve: Serve) -> None:
    seen: list[Any] = []

    def handler(client: PacketConnection[str], packet: str) -> None:
        client.state = (client.state or 0) + 1
        seen.append(client)
        client.send_packet(f"{packet} {client.state}")

    with serve(handler) as server, client_of(server) as client, client_of(server) as other:
        for expected in ("x 1", "x 2"):
            client.send_packet("x")
            assert client.recv_packet(timeout=TIMEOUT) == expected
        other.send_packet("y")
        assert other.recv_packet(timeout=TIMEOUT) == "y 1"
        connection = seen[0]
        assert connection.server is server
        assert connection.remote_address == client.local_address
        assert connection.local_address == client.remote_address
        assert connection.tls is None
        assert connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not connection.closed and connection.fileno() >= 0
        assert set(server.clients()) == {connection, seen[2]}
    assert connection.closed and connection.fileno() == -1
    assert server.clients() == []
    with pytest.raises(ClosedError):
        connection.send_packet("late")


def test_half_closed_clients_get_their_answers(serve: Serve) -> None:
    with serve(echo) as server, client_of(server) as client:
        for number in range(100):
            client.send_packet(str(number))
        client.send_eof()
        assert list(client) == [str(number) for number in range(100)]
        eventually(lambda: server.stats().connections == 0)


def test_85_what_a_handler_raises_is_logged_and_closes_its_connection_only(
        serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def handler(client: PacketConnection[str], packet: str) -> None:
        client.send_packet(f"got {packet}")
        if packet == "fail":
            raise KeyError("the handler's own")

    with serve(handler) as server, client_of(server) as good, client_of(server) as bad:
        bad.send_packet("fail")
        assert list(bad) == ["got fail"]
        good.send_packet("fine")
        assert good.recv_packet(timeout=TIMEOUT) == "got fine"
        assert server.stats().handler_errors == 1
        address = bad.local_address
    assert [repr(address) in message for message in errors_in(caplog)] == [True]


def test_85_a_bad_packet_is_logged_and_closes(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with serve(echo) as server, raw(server) as bad, client_of(server) as good:
        bad.sendall(b"first\n\xff\nnever\n")
        assert bad.makefile("rb").read() == b"first\n"
        good.send_packet("fine")
        assert good.recv_packet(timeout=TIMEOUT) == "fine"
        assert server.stats().bad_packets == 1
        assert server.stats().handler_errors == 0
    assert not errors_in(caplog)
    assert any("bad packet" in record.getMessage() for record in said(caplog) if record.levelname == "WARNING")


def test_85_what_clients_do_is_not_logged_as_an_error(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    gone = threading.Event()

    def handler(client: PacketConnection[str], packet: str) -> None:
        if packet == "wait":
            gone.wait(TIMEOUT)
        for _ in range(100):
            client.send_packet("x" * 10_000)

    with serve(handler, send_hwm_bytes=1000, send_timeout=0.2) as server:
        for last_words in (b"half a pack", b"", b"reset"):
            sock = raw(server)
            sock.sendall(last_words)
            if last_words == b"reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        sock = raw(server)
        sock.sendall(b"wait\n")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        gone.set()
        eventually(lambda: server.stats().accepted == 4 and server.stats().connections == 0)
        assert server.stats().handler_errors == 0
    assert not errors_in(caplog)


def test_85_a_handler_that_sleeps_holds_up_nobody_else() -> None:
    gate = threading.Event()

    def handler(client: PacketConnection[str], packet: str) -> None:
        if packet == "sleep":
            gate.wait(TIMEOUT)
        client.send_packet(packet)

    listener = create_tcp_server(interface="127.0.0.1")
    with PacketServer(handler, listener, codec=LineCodec(), max_workers=3) as server:
        sleepers = [client_of(server) for _ in range(2)]
        for sleeper in sleepers:
            sleeper.send_packet("sleep")
        with client_of(server) as client:
            for number in range(50):
                client.send_packet(str(number))
                assert client.recv_packet(timeout=TIMEOUT) == str(number)
        gate.set()
        for sleeper in sleepers:
            assert sleeper.recv_packet(timeout=TIMEOUT) == "sleep"
            sleeper.close()


def flood(sock: socket.socket, data: bytes) -> int:
    """Send until the other end takes no more; how many bytes it has taken. The kernel's share is kept small."""
    sock.settimeout(1.0)
    sent = 0
    try:
        while True:
            sent += sock.send(data)
    except TimeoutError:
        return sent


def test_85_a_flood_stays_with_the_kernel_while_a_handler_is_busy(serve: Serve) -> None:
    """What is read before it is wanted is one read: 64 KiB, and what that has been decoded into."""
    gate, began = threading.Event(), threading.Event()

    def handler(client: PacketConnection[str], packet: str) -> None:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        began.set()
        gate.wait(2 * TIMEOUT)

    with serve(handler, create_tcp_server(interface="127.0.0.1")) as server, raw(server) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        sock.sendall(b"begin\n")
        assert began.wait(TIMEOUT)
        taken = flood(sock, b"flood\n" * 10_000)
        gate.set()
        # Two reads, and twice what was asked of the kernel at either end, which doubles it for its own sake.
        assert taken < 2 * 65_536 + 4 * 16_384 + 60_000
        server.shutdown(timeout=0.1)


def test_85_floods_starve_nobody() -> None:
    over = threading.Event()

    def handler(client: PacketConnection[str], packet: str) -> None:
        if packet != "flood":
            client.send_packet(packet)
        elif not over.is_set():
            over.wait(0.001)

    def keep_flooding(sock: socket.socket) -> None:
        sock.settimeout(0.05)
        while not over.is_set():
            try:
                sock.send(b"flood\n" * 10_000)
            except TimeoutError:
                pass

    with PacketServer(handler, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(), max_workers=2) as server:
        floods = [raw(server) for _ in range(4)]
        flooding = [Background(keep_flooding, sock) for sock in floods]
        eventually(lambda: server.stats().packets_received >= 20)
        with client_of(server) as client:
            for number in range(10):
                client.send_packet(str(number))
                assert client.recv_packet(timeout=TIMEOUT) == str(number)
        over.set()
        for thread in flooding:
            thread.result()
        for sock in floods:
            sock.close()
        server.shutdown(timeout=0.1)


# Conversations

def test_87_a_conversation(serve: Serve) -> None:
    def converse(client: PacketConnection[str]) -> Conversation:
        client.send_packet("220 ready")  # 89: the server speaks first
        name = yield
        while True:
            client.send_packet(f"hello {name}")
            answer = yield
            if answer == "bye":
                client.send_packet("221 bye")
                return
            name = answer

    with serve(converse) as server, client_of(server) as client, client_of(server) as other:
        assert client.recv_packet(timeout=TIMEOUT) == "220 ready"
        assert other.recv_packet(timeout=TIMEOUT) == "220 ready"
        for name in ("Ann", "Bob"):
            client.send_packet(name)
            assert client.recv_packet(timeout=TIMEOUT) == f"hello {name}"
        client.send_packet("bye")
        assert list(client) == ["221 bye"]
        other.send_packet("Zoe")
        assert other.recv_packet(timeout=TIMEOUT) == "hello Zoe"


def test_87_steps_never_overlap(serve: Serve) -> None:
    inside: dict[Any, int] = {}
    overlaps = []

    def converse(client: PacketConnection[str]) -> Conversation:
        inside[client] = 0
        while True:
            packet = yield
            inside[client] += 1
            if inside[client] != 1:
                overlaps.append(packet)
            time.sleep(0.0005)
            inside[client] -= 1
            client.send_packet(packet)

    with serve(converse) as server:
        clients = [client_of(server) for _ in range(4)]
        for number in range(50):
            for client in clients:
                client.send_packet(str(number))
        for client in clients:
            assert [client.recv_packet(timeout=TIMEOUT) for _ in range(50)] == [str(n) for n in range(50)]
            client.close()
        eventually(lambda: server.stats().connections == 0)
    assert not overlaps


def test_87_timeouts_and_bad_packets_are_thrown_in(serve: Serve) -> None:
    def converse(client: PacketConnection[str]) -> Conversation:
        wait = None
        while True:
            try:
                packet = yield wait
                client.send_packet(f"got {packet}")
                wait = float(packet) if packet[0].isdigit() else None
            except PacketDecodeError as error:
                client.send_packet(f"bad {error.data!r}")
            except TimeoutError:
                client.send_packet("late")
                wait = None

    with serve(converse) as server, raw(server) as sock, sock.makefile("r") as lines:
        sock.sendall(b"a\n\xff\nb\n")
        assert [lines.readline().strip() for _ in range(3)] == ["got a", "bad b'\\xff'", "got b"]
        sock.sendall(b"0.05\n")
        assert [lines.readline().strip() for _ in range(2)] == ["got 0.05", "late"]
        sock.sendall(b"0\n")
        assert [lines.readline().strip() for _ in range(2)] == ["got 0", "late"]
        sock.sendall(b"30\nc\n")
        assert [lines.readline().strip() for _ in range(2)] == ["got 30", "got c"]
        with raw(server) as other, other.makefile("r") as its_lines:
            sock.sendall(b"0.05\nd\n")
            assert [lines.readline().strip() for _ in range(2)] == ["got 0.05", "got d"]
            other.sendall(b"0.1\n")
            assert [its_lines.readline().strip() for _ in range(2)] == ["got 0.1", "late"]
            sock.sendall(b"e\n")  # a wait that was over in time has not struck later, when another one's time was up
            assert lines.readline().strip() == "got e"


def test_87_yielding_0_takes_what_is_there_already(serve: Serve) -> None:
    all_sent = threading.Event()

    def converse(client: PacketConnection[str]) -> Conversation:
        first = yield
        got = [first]
        assert all_sent.wait(TIMEOUT)  # over loopback they have arrived, in the kernel
        while True:
            try:
                got.append((yield 0))
            except TimeoutError:
                break
        client.send_packet(" ".join(got))

    with serve(converse) as server, client_of(server) as client:
        client.send_packet("a")
        eventually(lambda: server.stats().packets_received == 1)
        client.send_packet("b")
        client.send_packet("c")
        all_sent.set()
        assert client.recv_packet(timeout=TIMEOUT) == "a b c"


@pytest.mark.parametrize(("last_words", "error"), [(b"", EndOfStream), (b"ha", IncompleteReadError),
                                                   (b"RST", ConnectionBrokenError)])
def test_87_a_disconnect_ends_it(serve: Serve, last_words: bytes, error: type[Exception],
                                 caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []
    over = threading.Event()

    def converse(client: PacketConnection[str]) -> Conversation:
        try:
            while True:
                heard.append((yield))
        except BaseException as error:
            heard.append(error)
            raise
        finally:
            over.set()

    with serve(converse) as server:
        sock = raw(server)
        sock.sendall(b"hello\n" + last_words.replace(b"RST", b""))
        eventually(lambda: heard)
        if last_words == b"RST":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        assert over.wait(TIMEOUT)
        eventually(lambda: server.stats().connections == 0)
    assert heard[0] == "hello"
    assert isinstance(heard[1], error)
    assert not errors_in(caplog)
    assert server.stats().handler_errors == 0


def test_87_after_the_end_sending_still_works(serve: Serve) -> None:
    def converse(client: PacketConnection[str]) -> Conversation:
        got = []
        try:
            while True:
                got.append((yield))
        except EndOfStream:
            client.send_packet(" ".join(got))

    with serve(converse) as server, client_of(server) as client:
        for packet in "abc":
            client.send_packet(packet)
        client.send_eof()
        assert list(client) == ["a b c"]


def test_87_a_generator_that_does_not_take_the_end_for_one_hears_it_again(serve: Serve) -> None:
    heard = []

    def converse(client: PacketConnection[str]) -> Conversation:
        for _ in range(3):
            try:
                yield
            except EndOfStream:
                heard.append("end")

    with serve(converse) as server:
        client_of(server).close()
        eventually(lambda: server.stats().accepted == 1 and server.stats().connections == 0)
    assert heard == ["end"] * 3


def test_87_a_failing_conversation_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def converse(client: PacketConnection[str]) -> Conversation:
        yield
        raise KeyError("the handler's own")

    with serve(converse) as server, client_of(server) as client:
        client.send_packet("x")
        assert list(client) == []
    assert len(errors_in(caplog)) == 1


@pytest.mark.parametrize("kind", ["method", "partial", "object", "flag"])
def test_87_generators_of_every_kind(serve: Serve, kind: str) -> None:
    def converse(client: PacketConnection[str], prefix: str = "hello") -> Conversation:
        while True:
            client.send_packet(f"{prefix} {(yield)}")

    class Conversations:
        def converse(self, client: PacketConnection[str]) -> Conversation:
            return (yield from converse(client))

        def __call__(self, client: PacketConnection[str]) -> Conversation:
            return (yield from converse(client))

    handler: Any = {"method": Conversations().converse, "partial": functools.partial(converse, prefix="hello"),
                    "object": Conversations(), "flag": lambda client: converse(client)}[kind]
    with serve(handler, generator=True if kind == "flag" else None) as server, client_of(server) as client:
        client.send_packet("you")
        assert client.recv_packet(timeout=TIMEOUT) == "hello you"


def test_a_bad_wait_is_an_error_of_the_handlers(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def converse(client: PacketConnection[str]) -> Conversation:
        yield "soon"

    with serve(converse) as server, client_of(server) as client:
        assert list(client) == []
    assert len(errors_in(caplog)) == 1


# Sending

def test_88_a_slow_reader_blocks_only_the_worker_that_writes_to_it() -> None:
    blocked: list[Any] = []

    def handler(client: PacketConnection[str], packet: str) -> None:
        if packet == "flood me":
            try:
                while True:
                    client.send_packet("x" * 100_000)
            except BaseException as error:
                blocked.append(error)
                raise
        client.send_packet(packet)

    listener = create_tcp_server(interface="127.0.0.1")
    with PacketServer(handler, listener, codec=LineCodec(), max_workers=2, send_hwm_bytes=200_000,
                      send_timeout=1.0) as server:
        with client_of(server) as slow, client_of(server) as client:
            slow.send_packet("flood me")
            start = time.monotonic()
            while not blocked and time.monotonic() - start < TIMEOUT:
                client.send_packet("hello")
                assert client.recv_packet(timeout=TIMEOUT) == "hello"
            assert isinstance(blocked[0], SendTimeoutError)
            with pytest.raises((ConnectionBrokenError, EOFError)):
                while True:
                    slow.recv_packet(timeout=TIMEOUT)
            client.send_packet("still here")
            assert client.recv_packet(timeout=TIMEOUT) == "still here"


def test_88_an_explicit_timeout_only_raises() -> None:
    raised: list[Any] = []
    gate = threading.Event()

    def handler(client: PacketConnection[str], packet: str) -> None:
        sent = 0
        try:
            while True:
                client.send_packet("x" * 100_000, timeout=0.05)
                sent += 1
        except SendTimeoutError as error:
            raised.append(error)
        gate.set()
        client.send_packet(f"after {sent}")

    listener = create_tcp_server(interface="127.0.0.1")
    with PacketServer(handler, listener, codec=LineCodec(), send_hwm_bytes=200_000) as server:
        with client_of(server) as client:
            client.send_packet("go")
            assert gate.wait(TIMEOUT)
            got = client.recv_packet(timeout=TIMEOUT)
            count = 0
            while not got.startswith("after"):
                count += 1
                got = client.recv_packet(timeout=TIMEOUT)
            assert got == f"after {count}"


def test_88_closing_wakes_whoever_waits_to_send() -> None:
    raised: list[Any] = []

    def handler(client: PacketConnection[str], packet: str) -> None:
        if packet == "hello":
            client.send_packet(packet)
            return
        try:
            while True:
                client.send_packet("x" * 100_000, timeout=None)
        except ClosedError as error:
            raised.append(error)

    listener = create_tcp_server(interface="127.0.0.1")
    with PacketServer(handler, listener, codec=LineCodec(), max_workers=1) as server, client_of(server) as client:
        client.send_packet("go")
        eventually(lambda: server.stats().packets_received == 1)
        slow = server.clients()[0]
        with client_of(server) as other:
            other.send_packet("hello")  # it is answered once the only worker is found to wait for the slow one
            assert other.recv_packet(timeout=TIMEOUT) == "hello"
            slow.abort()
            eventually(lambda: raised)


def test_88_without_workers_sending_never_blocks() -> None:
    raised: list[Any] = []

    def handler(client: PacketConnection[str], packet: str) -> None:
        if packet != "flood me":
            client.send_packet(packet)
            return
        for _ in range(200):
            client.send_packet("x" * 100_000)
        try:
            client.send_packet("y", timeout=5)
        except SendTimeoutError as error:
            raised.append(error)

    listener = create_tcp_server(interface="127.0.0.1")
    with PacketServer(handler, listener, codec=LineCodec(), max_workers=0, send_timeout=0.3) as server:
        with client_of(server) as slow, client_of(server) as client:
            slow.send_packet("flood me")
            slow.send_packet("and this waits, for a client above its mark is not read")
            client.send_packet("hello")
            assert client.recv_packet(timeout=TIMEOUT) == "hello"
            assert raised
            eventually(lambda: server.stats().closed_slow == 1)  # it does not read in time
            with pytest.raises((ConnectionBrokenError, EOFError)):
                while True:
                    slow.recv_packet(timeout=TIMEOUT)
        with client_of(server) as quick:
            quick.send_packet("flood me")
            assert [len(quick.recv_packet(timeout=TIMEOUT)) for _ in range(200)] == [100_000] * 200
            quick.send_packet("fine")
            assert quick.recv_packet(timeout=TIMEOUT) == "fine"


def test_broadcasting_from_any_thread(serve: Serve) -> None:
    with serve(echo) as server:
        clients = [client_of(server) for _ in range(10)]
        eventually(lambda: len(server.clients()) == 10)

        def broadcast(name: str) -> None:
            for number in range(50):
                for connection in server.clients():
                    connection.send_packet(f"{name} {number}")

        threads = [Background(broadcast, name) for name in "abc"]
        broadcast("d")
        for thread in threads:
            thread.result()
        for client in clients:
            got = [client.recv_packet(timeout=TIMEOUT) for _ in range(200)]
            for name in "abcd":
                assert [line for line in got if line[0] == name] == [f"{name} {number}" for number in range(50)]
            client.close()


def test_what_others_send_during_a_step_is_behind_what_it_has_sent(serve: Serve) -> None:
    def handler(client: PacketConnection[str], packet: str) -> None:
        client.send_packet("accepted")
        Background(client.send_packet, "done").result()
        client.send_packet("bye")

    with serve(handler) as server, client_of(server) as client:
        for _ in range(3):
            client.send_packet("go")
            assert [client.recv_packet(timeout=TIMEOUT) for _ in range(3)] == ["accepted", "done", "bye"]


def test_what_cannot_be_encoded_is_the_handlers_error(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def handler(client: PacketConnection[str], packet: str) -> None:
        try:
            client.send_packet("two\nlines")
        except PacketEncodeError:
            client.send_packet("refused")
        with pytest.raises(ValueError, match="timeout"):
            client.send_packet("x", timeout=-1)

    with serve(handler) as server, client_of(server) as client:
        client.send_packet("go")
        assert client.recv_packet(timeout=TIMEOUT) == "refused"
    assert not errors_in(caplog)


class Careless(LineCodec):
    """One packet it encodes to something else."""

    def encode(self, packet: str) -> Any:
        encoded = super().encode(packet)
        return "text" if packet == "fail" else bytearray(encoded)


def test_a_codec_that_encodes_to_no_bytes_fails_for_its_own_connection_only(
        serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    greetings = iter(["first", "fail", "third"])

    def greet(client: PacketConnection[str]) -> Conversation:
        client.send_packet(next(greetings))
        yield

    with serve(greet, codec=Careless()) as server:
        for expected in b"first\n", b"", b"third\n":
            with raw(server) as sock:
                assert sock.makefile("rb").readline() == expected
        assert server.stats().handler_errors == 1
    assert len(errors_in(caplog)) == 1
    said(caplog)
    assert "returns bytes, not str" in caplog.text


def test_closing_a_client_from_its_handler_delivers_what_was_sent(serve: Serve) -> None:
    def handler(client: PacketConnection[str], packet: str) -> None:
        for number in range(100):
            client.send_packet(f"{number} " + "x" * 10_000)
        client.close()
        with pytest.raises(ClosedError):
            client.send_packet("late")

    with serve(handler) as server:
        for _ in range(5):
            with client_of(server) as client:
                for packet in "go", "never", "looked", "at":
                    client.send_packet(packet)
                assert [packet.split()[0] for packet in client] == [str(number) for number in range(100)]
        assert server.stats().handler_errors == 0


def test_closing_a_client_from_elsewhere_ends_a_conversation(serve: Serve) -> None:
    heard: list[Any] = []

    def converse(client: PacketConnection[str]) -> Conversation:
        try:
            yield
        except ClosedError as error:
            heard.append(error)

    with serve(converse) as server, client_of(server) as client:
        eventually(lambda: server.clients())
        server.clients()[0].close()
        assert list(client) == []
        eventually(lambda: heard)


# TLS

def test_tls_is_established_before_the_handler_begins(serve: Serve, tls_contexts: Contexts) -> None:
    seen: list[Any] = []

    def converse(client: PacketConnection[str]) -> Conversation:
        seen.append(client.tls)
        client.send_packet("secret")
        while True:
            client.send_packet((yield) * 10_000)

    with serve(converse, create_tcp_server(ssl_context=tls_contexts[0])) as server:
        with client_of(server, ssl_context=tls_contexts[1]) as client:
            assert client.recv_packet(timeout=TIMEOUT) == "secret"
            for letter in "abc":
                client.send_packet(letter)
            for letter in "abc":
                assert client.recv_packet(timeout=TIMEOUT) == letter * 10_000
    assert seen[0].version == "TLSv1.3"


def test_large_packets_both_ways_under_tls(serve: Serve, tls_contexts: Contexts) -> None:
    with serve(echo, create_tcp_server(ssl_context=tls_contexts[0])) as server:
        with client_of(server, ssl_context=tls_contexts[1]) as client:
            packets = [letter * 700_000 for letter in "abcde"]

            def send() -> None:
                for packet in packets:
                    client.send_packet(packet)

            sending = Background(send)
            assert [client.recv_packet(timeout=TIMEOUT) for _ in packets] == packets
            sending.result()


def test_clients_that_do_not_finish_their_handshake_are_gone_in_time(serve: Serve, tls_contexts: Contexts) -> None:
    with serve(echo, create_tcp_server(ssl_context=tls_contexts[0], handshake_timeout=0.3)) as server:
        silent = [raw(server) for _ in range(20)]
        silent[0].sendall(b"GET / HTTP/1.0\r\n\r\n")
        silent[1].close()
        eventually(lambda: server.stats().accepted == 20)
        with client_of(server, ssl_context=tls_contexts[1]) as client:
            client.send_packet("hello")
            assert client.recv_packet(timeout=TIMEOUT) == "hello"
            assert len(server.clients()) == 1
            eventually(lambda: server.stats().connections == 1)
        assert server.stats().handshakes_failed == 20
        for sock in silent:
            sock.close()


def starttls(client: PacketConnection[str]) -> Conversation:
    while True:
        packet = yield
        if packet == "STARTTLS":
            client.send_packet("go ahead")
            client.start_tls()
        elif packet == "secure?":
            client.send_packet(str(client.tls is not None))


def test_starttls_in_a_conversation(serve: Serve, tls_contexts: Contexts) -> None:
    listener = create_tcp_server(ssl_context=tls_contexts[0], autostart_tls=False)
    with serve(starttls, listener) as server:
        for _ in range(10):
            with client_of(server) as client:
                client.send_packet("secure?")
                assert client.recv_packet(timeout=TIMEOUT) == "False"
                client.send_packet("STARTTLS")
                assert client.recv_packet(timeout=TIMEOUT) == "go ahead"
                client.start_tls(tls_contexts[1], timeout=TIMEOUT)
                client.send_packet("secure?")
                assert client.recv_packet(timeout=TIMEOUT) == "True"
        assert server.stats().handler_errors == 0


def test_starttls_with_a_function(serve: Serve, tls_contexts: Contexts) -> None:
    def handler(client: PacketConnection[str], packet: str) -> None:
        if packet == "STARTTLS":
            client.send_packet("go ahead")
            client.start_tls(tls_contexts[0])
            client.send_packet("welcome")  # under TLS
        else:
            client.send_packet(str(client.tls is not None))

    with serve(handler) as server, client_of(server) as client:
        client.send_packet("STARTTLS")
        assert client.recv_packet(timeout=TIMEOUT) == "go ahead"
        client.start_tls(tls_contexts[1], timeout=TIMEOUT)
        assert client.recv_packet(timeout=TIMEOUT) == "welcome"
        client.send_packet("secure?")
        assert client.recv_packet(timeout=TIMEOUT) == "True"


@pytest.mark.parametrize("injected", [b"secure?\n", b"sec", b"\xff\n"])
def test_plaintext_behind_starttls_never_reaches_the_handler(serve: Serve, tls_contexts: Contexts, injected: bytes,
                                                             caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []

    def converse(client: PacketConnection[str]) -> Conversation:
        try:
            while True:
                packet = yield
                heard.append(packet)
                client.send_packet("go ahead")
                client.start_tls(tls_contexts[0])
        except BaseException as error:
            heard.append(error)
            raise

    with serve(converse) as server, raw(server) as sock:
        sock.sendall(b"STARTTLS\n" + injected)
        try:
            assert sock.makefile("rb").read() in (b"go ahead\n", b"")
        except ConnectionResetError:
            pass
        eventually(lambda: server.stats().connections == 0)
    assert heard[0] == "STARTTLS"
    assert isinstance(heard[1], (RemoteProtocolError, TLSHandshakeError))
    assert not errors_in(caplog)


def test_a_client_hello_that_does_not_wait(serve: Serve, tls_contexts: Contexts) -> None:
    """It comes while the handler is still at the packet that asked for TLS."""
    asked, hello_sent = threading.Event(), threading.Event()

    def converse(client: PacketConnection[str]) -> Conversation:
        yield
        asked.set()
        assert hello_sent.wait(TIMEOUT)
        client.start_tls(tls_contexts[0])
        client.send_packet("welcome")
        yield

    with serve(converse) as server, client_of(server) as client:
        client.send_packet("STARTTLS")
        assert asked.wait(TIMEOUT)
        upgrading = Background(client.start_tls, tls_contexts[1], timeout=TIMEOUT)
        with pytest.raises(TimeoutError):
            upgrading.result(timeout=0.1)  # it has sent its hello, and waits for an answer
        hello_sent.set()
        upgrading.result()
        assert client.recv_packet(timeout=TIMEOUT) == "welcome"


def test_a_failed_upgrade_closes_the_connection(serve: Serve, tls_contexts: Contexts,
                                                caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []

    def converse(client: PacketConnection[str]) -> Conversation:
        yield
        client.send_packet("go ahead")
        try:
            client.start_tls(tls_contexts[0], timeout=0.3)
            yield
        except TLSHandshakeError as error:
            heard.append(error)
            with pytest.raises(LocalProtocolError):
                client.tls
            with pytest.raises((ClosedError, ConnectionBrokenError, TLSHandshakeError)):
                client.send_packet("in the clear")
                client.send_packet("in the clear")

    for nonsense in (b"this is not TLS\n", b""):
        with serve(converse) as server, raw(server) as sock, sock.makefile("rb") as lines:
            sock.sendall(b"STARTTLS\n")
            assert lines.readline() == b"go ahead\n"
            sock.sendall(nonsense)
            try:
                assert b"clear" not in lines.read()
            except ConnectionResetError:
                pass
            eventually(lambda: server.stats().connections == 0)
            assert server.stats().handler_errors == 0
    assert len(heard) == 2


def test_an_upgrade_that_takes_too_long_is_counted_and_warned_of(serve: Serve, tls_contexts: Contexts,
                                                                 caplog: pytest.LogCaptureFixture) -> None:
    def converse(client: PacketConnection[str]) -> Conversation:
        yield
        client.send_packet("go ahead")
        client.start_tls(tls_contexts[0], timeout=0.1)
        yield

    with serve(converse) as server:
        for _ in range(3):
            with raw(server) as sock, sock.makefile("rb") as lines:
                sock.sendall(b"STARTTLS\n")
                assert lines.read() == b"go ahead\n"
        eventually(lambda: server.stats().connections == 0)
        assert server.stats().handshakes_failed == 3
        assert server.stats().handler_errors == 0
    assert len([record for record in said(caplog) if record.levelname == "WARNING"]) == 1


def test_who_is_aborted_sees_no_end_whatever_the_network_thread_had_to_do_before() -> None:
    held, free = threading.Event(), threading.Event()

    def hold(client: PacketConnection[str], packet: str) -> None:
        held.set()
        assert free.wait(TIMEOUT)

    with IOThread() as io, \
            PacketServer(hold, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(), max_workers=0,
                         io_thread=io) as neighbour, \
            PacketServer(echo, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(), io_thread=io) as server, \
            client_of(neighbour) as other, raw(server) as sock:
        eventually(server.clients)
        client = server.clients()[0]
        other.send_packet("wait")
        assert held.wait(TIMEOUT)
        client.close()
        client.abort()
        free.set()
        with pytest.raises(ConnectionResetError):
            sock.recv(100)


def test_closing_ends_an_upgrade_under_which_there_is_nothing_to_send(serve: Serve, tls_contexts: Contexts) -> None:
    heard: list[BaseException] = []

    def converse(client: PacketConnection[str]) -> Conversation:
        try:
            yield
            client.send_packet("go ahead")
            client.start_tls(tls_contexts[0], timeout=1e6)
            yield
        except ClosedError as error:
            heard.append(error)
            raise

    with serve(converse) as server, raw(server) as sock:
        sock.sendall(b"STARTTLS\n")
        assert sock.recv(100) == b"go ahead\n"
        eventually(lambda: server.stats().handshakes == 1)
        server.clients()[0].close()
        assert sock.recv(100) == b""
        eventually(lambda: server.stats().connections == 0)
        assert len(heard) == 1


def test_starttls_wants_a_context_and_a_handler(serve: Serve, tls_contexts: Contexts) -> None:
    problems: list[Any] = []

    def handler(client: PacketConnection[str], packet: str) -> None:
        for arguments in ((), (tls_contexts[1],)):
            try:
                client.start_tls(*arguments)
            except ValueError as error:
                problems.append(error)
        client.send_packet("ok")

    with serve(handler) as server, client_of(server) as client:
        client.send_packet("go")
        assert client.recv_packet(timeout=TIMEOUT) == "ok"
        assert len(problems) == 2
        with pytest.raises(LocalProtocolError):
            server.clients()[0].start_tls(tls_contexts[0])


# Limits

def test_idle_clients_are_closed(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with serve(echo, idle_timeout=0.2) as server, client_of(server) as idle, client_of(server) as busy:
        start = time.monotonic()
        while time.monotonic() - start < 0.5:
            busy.send_packet("busy")
            assert busy.recv_packet(timeout=TIMEOUT) == "busy"
            time.sleep(0.02)
        assert list(idle) == []
        assert len(server.clients()) == 1
        assert list(busy) == []
    assert not errors_in(caplog)


def test_idle_conversations_get_a_timeout(serve: Serve) -> None:
    def converse(client: PacketConnection[str]) -> Conversation:
        try:
            yield
        except TimeoutError:
            client.send_packet("too slow")

    with serve(converse, idle_timeout=0.1) as server, client_of(server) as client:
        assert list(client) == ["too slow"]


def test_at_max_connections_clients_wait_in_the_backlog(serve: Serve) -> None:
    with serve(echo, max_connections=2) as server:
        clients = [client_of(server) for _ in range(4)]
        eventually(lambda: server.stats().connections == 2)
        clients[3].send_packet("hello")
        with pytest.raises(TimeoutError):
            clients[3].recv_packet(timeout=0.1)
        clients[0].close()
        clients[1].close()
        assert clients[3].recv_packet(timeout=TIMEOUT) == "hello"
        assert server.stats().accept_pauses >= 1
        for client in clients[2:]:
            client.close()


def test_a_client_that_the_selector_does_not_take_is_closed_and_others_are_served(
        serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    register = selectors.DefaultSelector.register
    full = threading.Event()

    def limited(self: Any, sock: Any, events: int, data: Any = None) -> Any:
        if full.is_set():
            full.clear()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return register(self, sock, events, data)

    monkeypatch.setattr(selectors.DefaultSelector, "register", limited)
    with serve(echo) as server, client_of(server) as before:
        before.send_packet("hello")
        assert before.recv_packet(timeout=TIMEOUT) == "hello"
        full.set()
        with raw(server) as sock:
            assert sock.recv(10) == b""
        with client_of(server) as after:
            for client in before, after:
                client.send_packet("hello")
                assert client.recv_packet(timeout=TIMEOUT) == "hello"
        assert len(errors_in(caplog)) == 1


def test_a_format_that_is_lost_ends_the_connection(serve: Serve) -> None:
    heard: list[Any] = []

    def converse(client: PacketConnection[bytes]) -> Generator[Any, bytes, None]:
        while True:
            try:
                heard.append((yield))
            except PacketDecodeError as error:
                heard.append(error)
            except RemoteProtocolError as error:
                heard.append(error)
                return

    with serve(converse, codec=NetstringCodec()) as server, raw(server) as sock:
        sock.sendall(b"2:ok,nonsense")
        assert sock.recv(10) == b""
    assert heard[0] == b"ok"
    assert [type(error) for error in heard[1:]] == [PacketDecodeError, RemoteProtocolError]


@pytest.mark.parametrize(("codec", "packet"), [(JSONCodec(), {"a": [1, None]}), (LengthPrefixedCodec(), b"x" * 200_000),
                                               (DelimitedCodec(b"--"), b"abc")])
def test_other_codecs_over_unix_sockets(serve: Serve, codec: Any, packet: Any, tmp_path: Path) -> None:
    with serve(echo, create_unix_server(tmp_path / "socket"), codec=codec) as server:
        with PacketClient(tmp_path / "socket", codec) as client:
            client.send_packet(packet)
            assert client.recv_packet(timeout=TIMEOUT) == packet
            assert server.clients()[0].remote_address == ""
        with pytest.raises(AttributeError):
            server.port


# The end

@pytest.mark.parametrize("kind", ["function", "conversation"])
def test_what_the_kernel_has_is_handled_although_nothing_can_be_sent_any_more(serve: Serve, kind: str) -> None:
    holding, gate = threading.Event(), threading.Event()
    handled: list[str] = []
    heard: list[Any] = []

    def handler(client: PacketConnection[str], packet: str) -> None:
        if packet == "hold":
            holding.set()
            assert gate.wait(TIMEOUT)
        handled.append(packet)
        try:
            client.send_packet("an answer")
        except ConnectionBrokenError as error:
            heard.append(error)

    def converse(client: PacketConnection[str]) -> Conversation:
        while True:
            handler(client, (yield))

    packets = [f"{number} " + "x" * 100 for number in range(900)]
    with serve(handler if kind == "function" else converse) as server:
        with raw(server) as sock:
            sock.sendall(b"first\n")
            assert sock.recv(1, socket.MSG_PEEK)  # unread, so that closing is a reset
            sock.sendall(b"hold\n")
            assert holding.wait(TIMEOUT)
            sock.sendall("".join(packet + "\n" for packet in packets).encode())
            eventually(lambda: all_acknowledged(sock))
        gate.set()
        eventually(lambda: server.stats().connections == 0)
    assert handled == ["first", "hold", *packets]
    assert heard


def test_who_cannot_be_sent_anything_and_does_not_end_is_gone_in_time(serve: Serve, tmp_path: Path) -> None:
    heard: list[Any] = []

    def converse(client: PacketConnection[str]) -> Conversation:
        try:
            while True:
                packet = yield
                heard.append(packet)
                try:
                    client.send_packet(packet)
                except ConnectionBrokenError:
                    pass
        except ConnectionBrokenError as error:
            heard.append(type(error))

    path = tmp_path / "sock"
    with serve(converse, create_unix_server(path), send_timeout=0.3) as server:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.shutdown(socket.SHUT_RD)
            for packet in ("one", "two", "three"):
                sock.sendall(packet.encode() + b"\n")
                eventually(lambda: heard and heard[-1] == packet)
            eventually(lambda: server.stats().connections == 0)
    assert heard == ["one", "two", "three", ConnectionBrokenError]


def test_what_is_dropped_at_the_end_of_the_time_is_no_clean_end(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def handler(client: PacketConnection[str], packet: str) -> None:
        client.send_packet("x" * 20_000_000)

    with serve(handler) as server, raw(server) as sock:
        sock.sendall(b"go\n")
        eventually(lambda: server.stats().packets_sent == 1)
        server.shutdown(timeout=0.1)
        with pytest.raises(ConnectionResetError):
            while sock.recv(1_000_000):
                pass
        assert server.stats().closed_unsent == 1
    warnings = [record.getMessage() for record in said(caplog) if record.levelname == "WARNING"]
    assert len(warnings) == 1 and "1 clients" in warnings[0]


def test_an_aborted_connection_has_no_clean_end(serve: Serve) -> None:
    with serve(echo) as server, client_of(server) as client:
        client.send_packet("hello")
        assert client.recv_packet(timeout=TIMEOUT) == "hello"
        server.clients()[0].abort()
        with pytest.raises(ConnectionBrokenError):
            client.recv_packet(timeout=TIMEOUT)


def test_an_upgrade_that_waits_for_a_client_that_does_not_read_is_given_up(
        serve: Serve, tls_contexts: Contexts) -> None:
    def handler(client: PacketConnection[str], packet: str) -> None:
        client.send_packet("x" * 20_000_000, timeout=None)
        client.start_tls(tls_contexts[0], timeout=0.2)

    with serve(handler, send_hwm_bytes=100_000_000, send_timeout=1000.0) as server, raw(server) as sock:
        sock.sendall(b"STARTTLS\n")
        eventually(lambda: server.stats().accepted == 1 and server.stats().connections == 0)


def test_the_last_word_after_starttls_waits_for_what_is_in_the_clear(serve: Serve, tls_contexts: Contexts) -> None:
    def handler(client: PacketConnection[str], packet: str) -> None:
        client.send_packet("x" * 20_000_000)
        client.start_tls(tls_contexts[0])
        client.send_packet("goodbye")
        client.close()

    with serve(handler, send_hwm_bytes=100_000_000) as server:
        with PacketClient(("localhost", server.port), LineCodec(max_packet_size=2**26), max_recv_size=2**26) as client:
            client.send_packet("STARTTLS")
            assert len(client.recv_packet(timeout=TIMEOUT)) == 20_000_000
            client.start_tls(tls_contexts[1], timeout=TIMEOUT)
            assert client.recv_packet(timeout=TIMEOUT) == "goodbye"


def test_86_shutdown_closes_idle_clients_and_lets_steps_finish() -> None:
    started, gate = threading.Event(), threading.Event()

    def handler(client: PacketConnection[str], packet: str) -> None:
        started.set()
        gate.wait(TIMEOUT)
        client.send_packet(packet)

    listener = create_tcp_server(interface="127.0.0.1")
    with PacketServer(handler, listener, codec=LineCodec()) as server:
        with client_of(server) as idle, socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as busy:
            busy.sendall(b"first\nsecond\n")  # in one piece: with the one the other has been received, too
            assert started.wait(TIMEOUT)
            stopping = Background(server.shutdown, timeout=TIMEOUT)
            assert list(idle) == []
            assert stopping.is_alive()
            gate.set()
            with busy.makefile("rb") as answers:
                assert answers.read() == b"first\nsecond\n"
            stopping.result()


def test_86_and_cuts_them_at_the_deadline() -> None:
    gate, over = threading.Event(), threading.Event()

    def handler(client: PacketConnection[str], packet: str) -> None:
        gate.wait(TIMEOUT)
        with pytest.raises(ClosedError):
            client.send_packet("late")
        over.set()

    listener = create_tcp_server(interface="127.0.0.1")
    with PacketServer(handler, listener, codec=LineCodec()) as server, client_of(server) as client:
        client.send_packet("go")
        eventually(lambda: server.stats().packets_received == 1)
        start = time.monotonic()
        server.shutdown(timeout=0.2)
        assert 0.15 < time.monotonic() - start < 8
        with pytest.raises(ConnectionBrokenError):
            client.recv_packet(timeout=TIMEOUT)
        gate.set()
        assert over.wait(TIMEOUT)


@pytest.mark.parametrize("timeout", [0, 0.1])
def test_86_when_the_time_is_up_no_handler_is_waited_for(timeout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmsg.servers.server.GRACE", 10 * TIMEOUT)
    gate = threading.Event()
    with PacketServer(lambda client, packet: gate.wait(TIMEOUT), create_tcp_server(interface="127.0.0.1"),
                      codec=LineCodec()) as server, client_of(server) as client:
        client.send_packet("go")
        eventually(lambda: server.stats().packets_received == 1)
        try:
            Background(server.shutdown, timeout=timeout).result()
            assert not gate.is_set() and server.stats().workers == 1
        finally:
            gate.set()


def test_86_idle_conversations_hear_of_it(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []

    def converse(client: PacketConnection[str]) -> Conversation:
        try:
            yield
        except BaseException as error:
            heard.append(error)
            raise

    with serve(converse) as server:
        clients = [client_of(server) for _ in range(5)]
        eventually(lambda: len(server.clients()) == 5)
        start = time.monotonic()
        server.shutdown(timeout=TIMEOUT)
        assert time.monotonic() - start < 5
        for client in clients:
            assert list(client) == []
            client.close()
    assert [type(error) for error in heard] == [ClosedError] * 5
    assert not errors_in(caplog)


@pytest.mark.parametrize("wait", [True, False])
def test_86_from_a_handler(serve: Serve, wait: bool) -> None:
    def handler(client: PacketConnection[str], packet: str) -> None:
        server.shutdown(wait=wait)
        client.send_packet("done")

    server = serve(handler)
    serving = Background(server.serve_forever)
    eventually(lambda: "serving" in repr(server))
    with client_of(server) as client:
        client.send_packet("stop")
        assert list(client) == ["done"]
    serving.result()


def test_86_twice_and_before_the_start(serve: Serve) -> None:
    server = serve(echo)
    server.shutdown()
    server.shutdown()
    with pytest.raises(ClosedError):
        server.start()


def test_86_while_clients_come_and_go(serve: Serve) -> None:
    over = threading.Event()

    def knock(port: int) -> None:
        while not over.is_set():
            try:
                with PacketClient(("127.0.0.1", port), LineCodec(), connect_timeout=TIMEOUT) as client:
                    client.send_packet("hello")
                    client.recv_packet(timeout=TIMEOUT)
            except (OSError, EOFError):
                pass

    for _ in range(5):
        over.clear()
        server = serve(echo)
        server.start()
        knocking = [Background(knock, server.port) for _ in range(3)]
        eventually(lambda: server.stats().packets_received > 20)
        start = time.monotonic()
        server.shutdown(timeout=TIMEOUT)
        assert time.monotonic() - start < 8
        over.set()
        for thread in knocking:
            thread.result()


def test_a_shared_io_thread(serve: Serve) -> None:
    with IOThread() as io:
        with serve(echo, io_thread=io) as one, serve(echo, io_thread=io) as other:
            for server in (one, other):
                with client_of(server) as client:
                    client.send_packet("hello")
                    assert client.recv_packet(timeout=TIMEOUT) == "hello"
            threads = {thread.name for thread in threading.enumerate() if thread.name.startswith("netmsg-io")}
            assert len(threads) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_in_a_forked_child_it_is_refused_and_nothing_is_kept(serve: Serve) -> None:
    with serve(echo) as server, client_of(server) as client:
        client.send_packet("hello")
        assert client.recv_packet(timeout=TIMEOUT) == "hello"
        connection = server.clients()[0]
        reader, writer = os.pipe()
        child = fork()
        if not child:
            code = 0
            try:
                server.start()
            except ForkedError:
                code += 40
            try:
                connection.send_packet("from the child")
            except ForkedError:
                code += 2
            os.read(reader, 1)
            os._exit(code)
        client.send_packet("again")
        assert client.recv_packet(timeout=TIMEOUT) == "again"
        connection.close()
        assert list(client) == []  # no copy in the child keeps it open
    os.write(writer, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("options", [{"handler": 5}, {"handler": dict}, {"codec": LineCodec}, {"max_workers": "8"},
                                     {"send_hwm_bytes": 1.5}], ids=str)
def test_bad_types(options: dict[str, Any]) -> None:
    with create_tcp_server() as listener, pytest.raises(TypeError):
        PacketServer(options.pop("handler", echo), listener, **{"codec": LineCodec(), **options})


@pytest.mark.parametrize("options", [{"max_workers": -1}, {"send_hwm_bytes": 0}, {"max_connections": 0},
                                     {"idle_timeout": -1}, {"send_timeout": float("nan")}], ids=str)
def test_bad_values(options: dict[str, Any]) -> None:
    with create_tcp_server() as listener, pytest.raises(ValueError):
        PacketServer(echo, listener, **{"codec": LineCodec(), **options})


def test_asynchronous_handlers_are_refused() -> None:
    async def handler(client: Any, packet: Any) -> None:
        pass

    with create_tcp_server() as listener, pytest.raises(TypeError, match="asynchronous"):
        PacketServer(handler, listener, codec=LineCodec())


# What a review found

@pytest.mark.parametrize("options", [{"send_timeout": None}, {"idle_timeout": 30 * 86_400.0}], ids=str)
def test_times_that_never_come_harm_nobody(serve: Serve, options: dict[str, Any]) -> None:
    with serve(echo, **options) as server:
        for _ in range(3):
            with client_of(server) as client:
                client.send_packet("hello")
                assert client.recv_packet(timeout=TIMEOUT) == "hello"
        eventually(lambda: server.stats().connections == 0)


def test_a_very_patient_shutdown(serve: Serve) -> None:
    with serve(echo) as server, client_of(server) as client:
        client.send_packet("hello")
        assert client.recv_packet(timeout=TIMEOUT) == "hello"
        server.shutdown(timeout=30 * 86_400.0)


def test_a_very_patient_conversation(serve: Serve) -> None:
    def converse(client: PacketConnection[str]) -> Conversation:
        while True:
            client.send_packet((yield 1e9))

    with serve(converse) as server, client_of(server) as client:
        for number in range(3):
            client.send_packet(str(number))
            assert client.recv_packet(timeout=TIMEOUT) == str(number)


@pytest.mark.parametrize("widened", [True, False])
def test_what_comes_at_the_end_of_a_step_stays_in_order_and_is_not_forgotten(
        widened: bool) -> None:
    chance = random.Random(89)

    def converse(client: PacketConnection[str]) -> Conversation:
        while True:
            client.send_packet((yield 100.0))

    def hesitate(frame: FrameType, event: str, argument: object) -> None:
        """Let others come between any two steps of a worker."""
        if event == "return" and "netmsg/servers" in frame.f_code.co_filename and chance.random() < 0.1:
            time.sleep(0.02)

    def drip(port: int, over: float) -> None:
        number = 0
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as sock, sock.makefile("rb") as lines:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while time.monotonic() < over:
                for byte in b"%d\n%d\n" % (number, number + 1):
                    sock.sendall(bytes([byte]))
                    if widened:
                        time.sleep(0.005)
                assert [lines.readline() for _ in range(2)] == [b"%d\n" % number, b"%d\n" % (number + 1)]
                number += 2

    interval = sys.getswitchinterval()
    listener = create_tcp_server(interface="127.0.0.1")
    with PacketServer(converse, listener, codec=LineCodec(), max_workers=4) as server:
        if widened:
            threading.setprofile(hesitate)  # of threads that begin from now on: the workers'
        else:
            sys.setswitchinterval(1e-6)
        try:
            over = time.monotonic() + 2
            for thread in [Background(drip, server.port, over) for _ in range(4)]:
                thread.result(timeout=30)
        finally:
            threading.setprofile(None)
            sys.setswitchinterval(interval)


def loop_cpu() -> float:
    """Seconds of processor time that the selector threads have had."""
    total = 0.0
    for thread in threading.enumerate():
        if thread.name.startswith("netmsg-io"):
            status = Path(f"/proc/self/task/{thread.native_id}/stat").read_text(encoding="ascii")
            fields = status.rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def idles(seconds: float = 0.5) -> bool:
    before = loop_cpu()
    time.sleep(seconds)
    return loop_cpu() - before < seconds / 4


def test_a_tls_client_that_floods_and_does_not_read_costs_no_time(serve: Serve, tls_contexts: Contexts) -> None:
    def handler(client: PacketConnection[str], packet: str) -> None:
        client.send_packet(packet * 40)

    with serve(handler, create_tcp_server(ssl_context=tls_contexts[0]), send_hwm_bytes=100_000) as server:
        client = client_of(server, ssl_context=tls_contexts[1])
        with pytest.raises(TimeoutError):
            while True:
                client.send_packet("x" * 60_000, timeout=1)
        assert idles()
        client.abort()
        server.shutdown(timeout=0.1)


def test_a_tls_client_that_resets_in_the_middle_of_a_step_costs_no_time(tls_contexts: Contexts) -> None:
    gate, sent = threading.Event(), threading.Event()

    def handler(client: PacketConnection[str], packet: str) -> None:
        try:
            client.send_packet("x" * 8_000_000)
        finally:
            sent.set()
            gate.wait(TIMEOUT)

    listener = create_tcp_server(interface="127.0.0.1", ssl_context=tls_contexts[0])
    with PacketServer(handler, listener, codec=LineCodec()) as server:
        client = client_of(server, ssl_context=tls_contexts[1])
        client.send_packet("go")
        assert sent.wait(TIMEOUT)
        client.abort()
        assert idles()
        gate.set()
        eventually(lambda: server.stats().connections == 0)


def test_many_upgrades_at_once(tls_contexts: Contexts) -> None:
    """More than are taken up in one round of the loop, and their ClientHellos have been read already."""
    asked, everybody, gate = threading.Semaphore(0), threading.Event(), threading.Event()

    def converse(client: PacketConnection[str]) -> Conversation:
        yield
        asked.release()
        gate.wait(TIMEOUT)
        client.start_tls(tls_contexts[0])
        client.send_packet("welcome")
        yield

    def upgrade(port: int) -> str:
        with PacketClient(("localhost", port), LineCodec()) as client:
            client.send_packet("STARTTLS")
            assert everybody.wait(TIMEOUT)
            client.start_tls(tls_contexts[1], timeout=30)
            return client.recv_packet(timeout=30)

    listener = create_tcp_server()
    with PacketServer(converse, listener, codec=LineCodec(), max_workers=40) as server:
        clients = [Background(upgrade, server.port) for _ in range(40)]
        for _ in clients:
            assert asked.acquire(timeout=TIMEOUT)
        everybody.set()
        for client in clients:
            with pytest.raises(TimeoutError):
                client.result(timeout=0.01)  # its hello is on its way
        gate.set()
        assert [client.result(timeout=40) for client in clients] == ["welcome"] * 40


def test_without_workers_packets_wait_for_a_client_that_does_not_read() -> None:
    def handler(client: PacketConnection[str], packet: str) -> None:
        client.send_packet("x" * 100_000)

    listener = create_tcp_server(interface="127.0.0.1")
    with PacketServer(handler, listener, codec=LineCodec(), max_workers=0, send_timeout=1.0) as server:
        with raw(server) as greedy, client_of(server) as client:
            greedy.sendall(b"\n" * 10_000)
            client.send_packet("go")
            assert len(client.recv_packet(timeout=TIMEOUT)) == 100_000
            received = 0
            while received < 20_000_000:  # whoever reads gets what he has asked for
                received += len(greedy.recv(1_000_000))
        with raw(server) as never_reads:
            never_reads.sendall(b"\n" * 10_000)
            eventually(lambda: server.stats().accepted == 3 and server.stats().connections == 0)


def test_87_a_conversation_that_never_ends_is_ended(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def converse(client: PacketConnection[str]) -> Conversation:
        while True:
            try:
                client.send_packet((yield))
            except Exception:
                pass  # and it goes on

    with serve(converse) as server, client_of(server) as client:
        with client_of(server) as other:
            other.send_packet("hello")
            assert other.recv_packet(timeout=TIMEOUT) == "hello"
        client.send_packet("still here")
        assert client.recv_packet(timeout=TIMEOUT) == "still here"
        eventually(lambda: server.stats().connections == 1)
    assert all("failed" in message for message in errors_in(caplog))


@pytest.mark.parametrize("kind", ["function", "conversation"])
def test_what_was_sent_arrives_although_the_client_has_broken_the_format(serve: Serve, kind: str) -> None:
    size = 5_000_000

    def handler(client: PacketConnection[bytes], packet: bytes) -> None:
        client.send_packet(bytes(size))

    def converse(client: PacketConnection[bytes]) -> Generator[Any, bytes, None]:
        yield
        client.send_packet(bytes(size))
        yield

    with serve(handler if kind == "function" else converse, codec=NetstringCodec(),
               send_hwm_bytes=10_000_000) as server, raw(server) as sock:
        sock.sendall(b"2:ok,nonsense")
        eventually(lambda: server.stats().bad_packets == 1)
        received = 0
        while chunk := sock.recv(1_000_000):
            received += len(chunk)
    assert received == len(NetstringCodec().encode(bytes(size)))


def test_the_last_word_after_starttls_goes_under_tls(serve: Serve, tls_contexts: Contexts) -> None:
    def converse(client: PacketConnection[str]) -> Conversation:
        yield
        client.send_packet("go ahead")
        client.start_tls(tls_contexts[0])
        client.send_packet("bye")

    with serve(converse) as server, client_of(server) as client:
        client.send_packet("STARTTLS")
        assert client.recv_packet(timeout=TIMEOUT) == "go ahead"
        client.start_tls(tls_contexts[1], timeout=TIMEOUT)
        assert list(client) == ["bye"]


def test_86_a_conversation_does_not_begin_after_the_cut() -> None:
    began: list[Any] = []
    gate = threading.Event()

    def converse(client: PacketConnection[str]) -> Conversation:
        began.append(client.closed)
        gate.wait(TIMEOUT)
        yield

    listener = create_tcp_server(interface="127.0.0.1")
    with PacketServer(converse, listener, codec=LineCodec(), max_workers=1) as server:
        clients = [client_of(server) for _ in range(3)]
        eventually(lambda: server.stats().connections == 3 and began)
        server.shutdown(timeout=0.1)
        gate.set()
        for client in clients:
            client.close()
    assert began == [False]


def test_max_connections_holds_after_a_want_of_descriptors(serve: Serve) -> None:
    with serve(echo, create_tcp_server(), max_connections=3) as server:
        sockets = [socket.socket() for _ in range(6)] + [socket.socket(socket.AF_INET6) for _ in range(6)]
        try:
            with descriptors_left(1):
                for sock in sockets:
                    sock.connect(("127.0.0.1" if sock.family == socket.AF_INET else "::1", server.port))
                eventually(lambda: server.stats().accept_errors >= 1)
            eventually(lambda: server.stats().connections == 3)
            time.sleep(0.3)  # longer than the pause of an acceptor
            assert server.stats().connections == 3
        finally:
            for sock in sockets:
                sock.close()


def test_a_client_that_is_being_let_in_does_not_seem_to_have_come_and_gone(serve: Serve) -> None:
    class Looking(LineCodec):
        def decoder(self) -> Any:
            looks.append(server.stats())
            return super().decoder()

    looks: list[ServerStats] = []
    with serve(echo, codec=Looking()) as server, client_of(server) as client:
        client.send_packet("hello")
        assert client.recv_packet(timeout=TIMEOUT) == "hello"
        looks.append(server.stats())
    assert [(look.accepted, look.connections) for look in looks] == [(0, 0), (1, 1)]


def test_a_codec_that_fails_closes_that_connection_only(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    class Moody(LineCodec):
        calls = 0

        def decoder(self) -> Any:
            type(self).calls += 1
            if self.calls == 1:
                raise KeyError("not today")
            return super().decoder()

    with serve(echo, codec=Moody()) as server:
        with raw(server) as sock:
            assert sock.recv(10) == b""
        with client_of(server) as client:
            client.send_packet("hello")
            assert client.recv_packet(timeout=TIMEOUT) == "hello"
        assert server.stats().handler_errors == 1
    assert len(errors_in(caplog)) == 1


def test_errors_of_other_connections_are_the_handlers_own(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def handler(client: PacketConnection[str], packet: str) -> None:
        ours, theirs = memory_stream_pair()
        theirs.close()
        with PacketClient(ours, LineCodec()) as backend:
            backend.recv_packet(timeout=TIMEOUT)  # EndOfStream

    def converse(client: PacketConnection[str]) -> Conversation:
        yield
        handler(client, "")

    for one in (handler, converse):
        with serve(one) as server, client_of(server) as client:
            client.send_packet("go")
            assert list(client) == []
            assert server.stats().handler_errors == 1
    assert len(errors_in(caplog)) == 2


def test_nor_are_they_the_clients_where_it_has_raised_something_before(serve: Serve,
                                                                       caplog: pytest.LogCaptureFixture) -> None:
    """Which is gone: another error may lie where that one did."""
    def converse(client: PacketConnection[str]) -> Conversation:
        yield
        client.close()
        ours, theirs = memory_stream_pair()
        ours.close()
        theirs.close()
        try:
            client.send_packet("too late")
        except ClosedError:
            pass
        ours.send_all(b"too late")  # ClosedError

    with serve(converse) as server:
        for _ in range(30):
            with client_of(server) as client:
                client.send_packet("go")
                assert list(client) == []
        eventually(lambda: server.stats().connections == 0)
        assert server.stats().handler_errors == 30
    assert len(errors_in(caplog)) == 30


def test_so_are_the_bad_packets_that_they_bring(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    def handler(client: PacketConnection[str], packet: str) -> None:
        ours, theirs = memory_stream_pair()
        with theirs, PacketClient(ours, LineCodec()) as backend:
            theirs.send_all(b"\xff\n")
            backend.recv_packet(timeout=TIMEOUT)  # PacketDecodeError

    def converse(client: PacketConnection[str]) -> Conversation:
        yield
        handler(client, "")

    for one in (handler, converse):
        with serve(one) as server, client_of(server) as client:
            client.send_packet("go")
            assert list(client) == []
            assert server.stats().handler_errors == 1
            assert server.stats().bad_packets == 0
    assert len(errors_in(caplog)) == 2


@pytest.mark.parametrize("error", [KeyError("a mistake"), PacketDecodeError("raised instead of returned")])
def test_a_decoder_that_raises_harms_its_connection_only(serve: Serve, error: Exception,
                                                         caplog: pytest.LogCaptureFixture) -> None:
    class Moody(LineCodec):
        def decoder(self) -> Any:
            return MoodyDecoder()

    class MoodyDecoder(Decoder[str]):
        def feed(self, data: bytes) -> list[str | PacketDecodeError]:
            if data == b"fail\n":
                raise error
            return [data.decode().strip()]

        def end(self) -> None:
            pass

    with serve(echo, codec=Moody()) as server, client_of(server) as good, client_of(server) as bad:
        bad.send_packet("fail")
        assert list(bad) == []
        good.send_packet("fine")
        assert good.recv_packet(timeout=TIMEOUT) == "fine"
        address = bad.local_address
    assert any(repr(address) in record.getMessage() for record in said(caplog) if record.levelno >= 30)
    assert {record.name for record in said(caplog) if record.levelno >= 30} == {"netmsg.servers"}


@pytest.mark.parametrize("where", ["decoder", "feed"])
def test_a_decoder_that_exits_is_the_end_of_its_client_and_of_nobody_else(
        serve: Serve, where: str, caplog: pytest.LogCaptureFixture) -> None:
    class Exiting(LineCodec):
        made = 0

        def decoder(self) -> Any:
            Exiting.made += 1
            if where == "decoder" and Exiting.made == 2:
                sys.exit("the decoder")
            return ExitingDecoder()

    class ExitingDecoder(DigitsDecoder):
        def feed(self, data: bytes) -> list[str | PacketDecodeError]:
            if data == b"exit\n":
                sys.exit("feeding")
            return super().feed(data)

    with serve(echo, codec=Exiting()) as server, raw(server) as good:
        good.sendall(b"1\n")
        assert good.recv(10) == b"1\n"
        with raw(server) as bad:
            if where == "feed":
                bad.sendall(b"exit\n")
            assert bad.recv(10) == b""
        good.sendall(b"2\n")
        assert good.recv(10) == b"2\n"
    said(caplog)


class Digits(LineCodec):
    """Its decoder has not thought of anything but digits."""

    def decoder(self) -> Any:
        return DigitsDecoder()


class DigitsDecoder(Decoder[str]):
    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[str | PacketDecodeError]:
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [str(int(line)) for line in lines]

    def end(self) -> None:
        """Nothing to say."""


def test_87_a_conversation_hears_that_its_decoder_failed_and_comes_to_an_end(
        serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []
    over = threading.Event()

    def converse(client: PacketConnection[str]) -> Conversation:
        try:
            while True:
                try:
                    heard.append((yield))
                except PacketDecodeError as error:
                    heard.append(type(error.__cause__))
        except RemoteProtocolError as error:
            heard.append(type(error))
            client.send_packet("bye")
        finally:
            over.set()

    with serve(converse, codec=Digits()) as server, raw(server) as sock:
        sock.sendall(b"1\n")
        eventually(lambda: heard)
        sock.sendall(b"2\nx\n3\n")
        assert sock.makefile("rb").read() == b"bye\n"
        assert over.wait(TIMEOUT)
        eventually(lambda: server.stats().connections == 0)
        assert server.stats().handler_errors == server.stats().bad_packets == 1
        address = repr(sock.getsockname())
    assert heard == ["1", ValueError, RemoteProtocolError]
    assert [address in message for message in errors_in(caplog)] == [True]


def test_87_nor_is_one_forgotten_that_takes_no_notice(serve: Serve) -> None:
    over = threading.Event()

    def converse(client: PacketConnection[str]) -> Conversation:
        try:
            yield
        finally:
            over.set()

    with serve(converse, codec=Digits()) as server, raw(server) as sock:
        sock.sendall(b"x\n")
        assert sock.recv(10) == b""
        assert over.wait(TIMEOUT)
        eventually(lambda: server.stats().connections == 0)


def test_what_a_user_has_written_decodes_in_a_worker(serve: Serve) -> None:
    where: list[str] = []

    def decode(line: str) -> str:
        where.append(threading.current_thread().name)
        return line

    with serve(echo, codec=LineCodec().map(decode=decode)) as server, client_of(server) as client:
        for number in range(3):
            client.send_packet(str(number))
            assert client.recv_packet(timeout=TIMEOUT) == str(number)
        for number in range(100):
            client.send_packet(f"{number} " + "x" * 5000)
        assert [client.recv_packet(timeout=TIMEOUT).split()[0] for _ in range(100)] == [str(n) for n in range(100)]
    assert len(where) == 103
    kind = "netmsg-worker" if serve.workers else "netmsg-io"  # type: ignore[attr-defined]
    assert all(name.startswith(kind) for name in where)


def test_a_users_decoder_hears_of_the_end_in_a_worker(serve: Serve) -> None:
    where: list[str] = []
    over = threading.Event()

    class Noting(Decoder[bytes]):
        def feed(self, data: bytes) -> list[bytes | PacketDecodeError]:
            where.append(threading.current_thread().name)
            return [data]

        def end(self) -> None:
            where.append(threading.current_thread().name)
            over.set()

    class Chunks(Codec[bytes, bytes]):
        def encode(self, packet: bytes) -> bytes:
            return packet

        def decoder(self) -> Noting:
            return Noting()

    with serve(echo, codec=Chunks()) as server, raw(server) as sock:
        sock.sendall(b"x")
        assert sock.recv(10) == b"x"
        sock.shutdown(socket.SHUT_WR)
        assert over.wait(TIMEOUT)
        assert sock.recv(10) == b""
    kind = "netmsg-worker" if serve.workers else "netmsg-io"  # type: ignore[attr-defined]
    assert len(where) == 2
    assert all(name.startswith(kind) for name in where)


def test_slow_decoding_holds_up_nobody_else() -> None:
    began, gate = threading.Event(), threading.Event()

    def decode(line: str) -> str:
        if line == "slow":
            began.set()
            gate.wait(TIMEOUT)
        return line

    with PacketServer(echo, create_tcp_server(interface="127.0.0.1"), codec=LineCodec().map(decode=decode),
                      max_workers=2) as server:
        with client_of(server) as slow, client_of(server) as client:
            slow.send_packet("slow")
            assert began.wait(TIMEOUT)
            for number in range(10):
                client.send_packet(str(number))
                assert client.recv_packet(timeout=TIMEOUT) == str(number)
            gate.set()
            assert slow.recv_packet(timeout=TIMEOUT) == "slow"


@pytest.mark.parametrize("codec", [LineCodec(), LineCodec().map(decode=str)], ids=["ours", "mapped"])
def test_87_a_packet_that_comes_in_drips_does_not_prolong_the_wait(serve: Serve, codec: Any) -> None:
    over = threading.Event()

    def converse(client: PacketConnection[str]) -> Conversation:
        try:
            yield 0.3
        except TimeoutError:
            client.send_packet("too slow")
        over.set()

    with serve(converse, codec=codec) as server, raw(server) as sock:
        for _ in range(1000):
            try:
                sock.sendall(b"x")
            except OSError:
                pass
            if over.wait(0.01):
                break
        assert over.is_set()
        assert sock.recv(100) == b"too slow\n"


def test_86_close_is_heard_by_every_conversation(serve: Serve) -> None:
    heard: list[Any] = []

    def converse(client: PacketConnection[str]) -> Conversation:
        try:
            yield
        except ClosedError as error:
            heard.append(error)

    with serve(converse) as server:
        clients = [client_of(server) for _ in range(5)]
        eventually(lambda: len(server.clients()) == 5)
        server.close()
        eventually(lambda: len(heard) == 5)
        eventually(lambda: server.stats().connections == 0)
        for client in clients:
            client.close()


def test_86_nobody_is_connected_after_the_cut() -> None:
    """Although a handler is still at it."""
    gate, over = threading.Event(), threading.Event()

    def handler(client: PacketConnection[str], packet: str) -> None:
        gate.wait(TIMEOUT)
        over.set()

    with IOThread() as io:
        with PacketServer(handler, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(), io_thread=io) as server:
            with client_of(server) as client:
                client.send_packet("go")
                eventually(lambda: server.stats().packets_received == 1)
                server.shutdown(timeout=0.1)
                assert server.stats().connections == 0
                assert server.stats().packets_received == 1
                gate.set()
                assert over.wait(TIMEOUT)
        with PacketServer(echo, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(), io_thread=io) as other:
            with client_of(other) as client:  # by then the thread has heard of the end of that handler
                client.send_packet("hello")
                assert client.recv_packet(timeout=TIMEOUT) == "hello"
        assert (server.stats().connections, server.stats().packets_received) == (0, 1)


def test_idle_clients_are_counted(serve: Serve) -> None:
    with serve(echo, idle_timeout=0.05) as server, client_of(server) as client:
        assert list(client) == []
        eventually(lambda: server.stats().connections == 0)
        assert server.stats().closed_idle == 1


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="the system does not tell")
def test_who_is_at_the_other_end_of_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    problems: list[Any] = []

    def handler(client: PacketConnection[str], packet: str) -> None:
        try:
            client.send_packet(str(tuple(client.peer_credentials)))
        except LocalProtocolError as error:
            problems.append(error)
            client.send_packet("nobody knows")

    with serve(handler, create_unix_server(tmp_path / "socket"), create_tcp_server(interface="127.0.0.1")) as server:
        with PacketClient(tmp_path / "socket", LineCodec()) as client:
            client.send_packet("who?")
            assert client.recv_packet(timeout=TIMEOUT) == str((os.getpid(), os.getuid(), os.getgid()))
            connection = server.clients()[0]
        with client_of(server) as client:
            client.send_packet("who?")
            assert client.recv_packet(timeout=TIMEOUT) == "nobody knows"
    assert len(problems) == 1
    with pytest.raises(ClosedError):
        connection.peer_credentials


@pytest.mark.parametrize("listener_says", [True, False])
@pytest.mark.parametrize("handler_says", [True, False])
def test_an_end_without_the_goodbye_of_tls(serve: Serve, tls_contexts: Contexts, listener_says: bool,
                                           handler_says: bool) -> None:
    heard: list[Any] = []

    def converse(client: PacketConnection[str]) -> Conversation:
        yield
        client.send_packet("go ahead")
        client.start_tls(tls_contexts[0], tls_standard_compatible=handler_says)
        try:
            while True:
                heard.append((yield))
        except (EndOfStream, ConnectionBrokenError) as error:
            heard.append(type(error))

    listener = create_tcp_server(interface="127.0.0.1", tls_standard_compatible=listener_says)
    with serve(converse, listener) as server, client_of(server) as client:
        client.send_packet("STARTTLS")
        assert client.recv_packet(timeout=TIMEOUT) == "go ahead"
        client.start_tls(tls_contexts[1], timeout=TIMEOUT)
        client.send_packet("last")
        eventually(lambda: heard == ["last"])
        with socket.socket(fileno=os.dup(client.fileno())) as twin:
            twin.shutdown(socket.SHUT_WR)
        eventually(lambda: len(heard) == 2)
        client.abort()
    assert heard[1] is (ConnectionBrokenError if listener_says and handler_says else EndOfStream)


def test_an_upgrade_that_nobody_answers_costs_no_worker(tls_contexts: Contexts) -> None:
    def converse(client: PacketConnection[str]) -> Conversation:
        if (yield) == "STARTTLS":
            client.start_tls(tls_contexts[0])
        client.send_packet("hello")
        yield

    with PacketServer(converse, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(), max_workers=2) as server:
        silent = [raw(server) for _ in range(6)]
        for sock in silent:
            sock.sendall(b"STARTTLS\n")
        eventually(lambda: server.stats().packets_received == 6)
        with client_of(server) as client:
            client.send_packet("anybody?")
            assert client.recv_packet(timeout=TIMEOUT) == "hello"
        for sock in silent:
            sock.close()


def test_no_error_of_a_client_keeps_alive_where_it_was_raised() -> None:
    """As long as somebody keeps the client's object."""
    class Payload:
        pass

    kept: list[Any] = []
    payloads: list[Any] = []

    def converse(client: PacketConnection[str]) -> Conversation:
        payload = Payload()
        payloads.append(weakref.ref(payload))
        kept.append(client)
        try:
            while True:
                yield
                client.send_packet("x" * 100_000)
        finally:
            client.state = "over"

    with PacketServer(converse, create_tcp_server(interface="127.0.0.1"), codec=LineCodec()) as server:
        sock = raw(server)
        sock.sendall(b"go\n" * 10)
        eventually(lambda: server.stats().packets_sent >= 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        eventually(lambda: server.stats().connections == 0)
        assert kept[0].state == "over"
        eventually(lambda: gc.collect() is not None and payloads[0]() is None)


@pytest.mark.parametrize("word", ["stay", "close"])
def test_nothing_of_a_client_waits_for_a_garbage_collection(serve: Serve, word: str) -> None:
    clients: list[Any] = []

    def answer(client: PacketConnection[str], packet: str) -> None:
        clients.append(weakref.ref(client))
        client.send_packet("x" * 10_000_000)
        if packet == "close":
            client.close()

    gc.disable()
    try:
        with serve(answer) as server:
            with raw(server) as sock:
                sock.sendall(word.encode() + b"\n")
                assert sock.recv(1) == b"x"
            eventually(lambda: server.stats().connections == 0)
            eventually(lambda: clients[0]() is None)
    finally:
        gc.enable()


def test_nothing_of_a_conversation_waits_for_it_either(serve: Serve) -> None:
    locals_: list[Any] = []

    class Local:
        """What a handler has."""

    def converse(client: Any) -> Conversation:
        local = Local()
        locals_.append(weakref.ref(local))
        while True:
            client.send_packet((yield))

    gc.disable()
    try:
        with serve(converse) as server:
            with client_of(server) as client:
                client.send_packet("hello")
                assert client.recv_packet(timeout=TIMEOUT) == "hello"
            eventually(lambda: server.stats().connections == 0)
            eventually(lambda: locals_[0]() is None)
    finally:
        gc.enable()


def test_a_listener_belongs_to_one_server(serve: Serve) -> None:
    with create_tcp_server() as listener:
        with pytest.raises(ValueError, match="belongs"):
            serve(echo, listener, listener)
        with serve(echo, listener):
            with pytest.raises(ValueError, match="belongs"):
                serve(echo, listener)
