"""DatagramServer: a handler for each datagram."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.forking import fork
from support.pairs import TIMEOUT, Background
from support.servers import eventually, said
from support.wrong import wrong

from netmsg import (
    ClosedError, DatagramClient, DatagramPeer, DatagramServer, ForkedError, IOThread, JSONCodec, LineCodec,
    create_udp_socket, create_unix_datagram_socket,
)

Serve = Callable[..., "DatagramServer[Any]"]


@pytest.fixture(params=[8, 0], ids=["workers", "inline"])
def serve(request: pytest.FixtureRequest) -> Serve:
    def make(handler: Any, *sockets: Any, **options: Any) -> DatagramServer[Any]:
        return DatagramServer(handler, *(sockets or [create_udp_socket(interface="127.0.0.1")]),
                              **{"max_workers": request.param, **options})
    return make


@pytest.fixture
def client() -> Iterator[Any]:
    with create_udp_socket(interface="127.0.0.1") as sock:
        yield sock


def reverse(client: DatagramPeer[bytes], packet: bytes) -> None:
    client.send_packet(packet[::-1])


def test_without_a_codec_packets_are_bytes(serve: Serve, client: Any) -> None:
    with serve(reverse) as server:
        for data in (b"hello", b""):
            client.send_to(data, ("127.0.0.1", server.port))
            assert client.receive(timeout=TIMEOUT) == (data[::-1], ("127.0.0.1", server.port))
        eventually(lambda: (server.stats().packets_received, server.stats().packets_sent) == (2, 2))


def test_several_sockets_and_a_codec(serve: Serve, tmp_path: Path) -> None:
    seen: list[Any] = []

    def handler(client: DatagramPeer[Any], packet: Any) -> None:
        seen.append((client.remote_address, client.local_address, client.server is server))
        client.send_packet({"you said": packet})

    sockets = [create_udp_socket(interface="127.0.0.1"), create_udp_socket(interface="::1"),
               create_unix_datagram_socket(path=tmp_path / "socket")]
    with serve(handler, *sockets, codec=JSONCodec()) as server:
        for address in server.addresses:
            with DatagramClient(address, JSONCodec()) as client:
                client.send_packet([1])
                assert client.recv_packet(timeout=TIMEOUT) == {"you said": [1]}
                assert seen[-1] == (client.local_address, address, True)
    assert not (tmp_path / "socket").exists()


def test_85_bad_ones_and_failing_handlers_are_logged_and_nothing_else(
        serve: Serve, client: Any, caplog: pytest.LogCaptureFixture) -> None:
    def handler(client: DatagramPeer[str], packet: str) -> None:
        if packet == "fail":
            raise KeyError("the handler's own")
        client.send_packet(packet)

    with serve(handler, codec=LineCodec()) as server:
        address = ("127.0.0.1", server.port)
        for data in (b"\xff", b"two\nlines", b"fail", b"fine\n"):
            client.send_to(data, address)
        assert client.receive(timeout=TIMEOUT)[0] == b"fine\n"
        eventually(lambda: server.stats().bad_packets == 2)
        eventually(lambda: server.stats().handler_errors == 1)
    errors = [record for record in said(caplog) if record.levelname == "ERROR"]
    assert [repr(client.local_address) in record.getMessage() for record in errors] == [True]


def test_85_a_bad_packet_of_somebody_else_is_the_handlers_own_error(
        serve: Serve, client: Any, caplog: pytest.LogCaptureFixture) -> None:
    def handler(client: DatagramPeer[str], packet: str) -> None:
        if packet == "fail":
            LineCodec().decode(b"\xff")
        client.send_packet(packet)

    with serve(handler, codec=LineCodec()) as server:
        for data in (b"fail", b"fine"):
            client.send_to(data, ("127.0.0.1", server.port))
        assert client.receive(timeout=TIMEOUT)[0] == b"fine\n"
        eventually(lambda: server.stats().handler_errors == 1)
        assert server.stats().bad_packets == 0
    assert len([record for record in said(caplog) if record.levelname == "ERROR"]) == 1


def test_overlong_datagrams_are_skipped_counted_and_logged(serve: Serve, tmp_path: Path,
                                                           caplog: pytest.LogCaptureFixture) -> None:
    with serve(reverse, create_unix_datagram_socket(path=tmp_path / "socket")) as server:
        with create_unix_datagram_socket(target_path=tmp_path / "socket") as client:
            client.send(bytes(100_000))
            client.send(b"fine")
            assert client.receive(timeout=TIMEOUT)[0] == b"enif"
        assert server.stats().overlong_datagrams == 1
    assert any("65536" in record.getMessage() for record in said(caplog))


def test_85_a_slow_handler_holds_up_nobody_and_a_flood_is_bounded(client: Any) -> None:
    gate = threading.Event()

    def handler(client: DatagramPeer[bytes], packet: bytes) -> None:
        if packet == b"slow":
            gate.wait(TIMEOUT)
        client.send_packet(packet)

    with DatagramServer(handler, create_udp_socket(interface="127.0.0.1"), max_workers=2) as server:
        address = ("127.0.0.1", server.port)
        client.send_to(b"slow", address)
        client.send_to(b"quick", address)
        assert client.receive(timeout=TIMEOUT)[0] == b"quick"
        client.send_to(b"slow", address)
        for _ in range(5000):
            client.send_to(b"flood", address)
        eventually(lambda: server.stats().waiting >= 100)
        assert server.stats().waiting <= 1001
        gate.set()
        flooding = Background(lambda: [client.receive(timeout=0.5) for _ in range(100)])
        flooding.result()
        eventually(lambda: server.stats().waiting == 0)
        with DatagramClient(address, LineCodec()) as other:
            other.send_packet("still here")
            assert other.recv_packet(timeout=TIMEOUT) == "still here"


def test_what_is_missing_besides_is_the_handlers_own_error(serve: Serve, tmp_path: Path) -> None:
    def handler(client: DatagramPeer[bytes], packet: bytes) -> None:
        try:
            client.send_packet(packet)
        except ConnectionRefusedError:
            pass
        raise ConnectionRefusedError("of another connection")  # perhaps where the other one has been

    with serve(handler, create_unix_datagram_socket(path=tmp_path / "socket")) as server:
        for _ in range(30):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
                nameless.sendto(b"hello", str(tmp_path / "socket"))
        eventually(lambda: server.stats().packets_received == 30)
        eventually(lambda: server.stats().handler_errors == 30)


def test_85_a_sender_that_cannot_be_answered_is_no_error_of_the_handlers(
        serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever may write to the socket could fill the log with tracebacks."""
    with serve(reverse, create_unix_datagram_socket(path=tmp_path / "socket")) as server:
        for number in range(5):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
                nameless.sendto(b"hello", str(tmp_path / "socket"))
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
                path = tmp_path / f"gone{number}"  # of its own: an answer to one is not to reach the next
                gone.bind(str(path))
                path.unlink()
                gone.sendto(b"hello", str(tmp_path / "socket"))
        with create_unix_datagram_socket(target_path=tmp_path / "socket") as client:
            client.send(b"fine")
            assert client.receive(timeout=TIMEOUT)[0] == b"enif"
        eventually(lambda: server.stats().packets_received == 11)
        assert server.stats().handler_errors == 0
        eventually(lambda: server.stats().packets_sent == 1)
    shown = [record for record in said(caplog) if record.levelno >= 30]
    assert len(shown) == 1 and "no answer" in shown[0].getMessage()


def test_85_bad_datagrams_do_not_fill_the_log(serve: Serve, client: Any, caplog: pytest.LogCaptureFixture) -> None:
    with serve(lambda client, packet: None, codec=LineCodec()) as server:
        for _ in range(50):
            client.send_to(b"\xff", ("127.0.0.1", server.port))
        eventually(lambda: server.stats().bad_packets == 50)
    assert len([record for record in said(caplog) if record.levelno >= 30]) == 1


def test_a_sender_without_an_address_cannot_be_answered(serve: Serve, tmp_path: Path) -> None:
    refused = threading.Event()

    def handler(client: DatagramPeer[bytes], packet: bytes) -> None:
        assert client.remote_address == ""
        try:
            client.send_packet(packet)
        except ConnectionRefusedError:
            refused.set()

    with serve(handler, create_unix_datagram_socket(path=tmp_path / "socket")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
            nameless.sendto(b"hello", str(tmp_path / "socket"))
        assert refused.wait(TIMEOUT)


def test_a_client_that_does_not_read_its_answers_stops_nobody(tmp_path: Path,
                                                              caplog: pytest.LogCaptureFixture) -> None:
    with DatagramServer(reverse, create_unix_datagram_socket(path=tmp_path / "socket"), max_workers=2) as server:
        with create_unix_datagram_socket(target_path=tmp_path / "socket") as silent:
            sent = 0
            try:
                while sent < 2000:
                    silent.send(b"ask", timeout=0.2)
                    sent += 1
            except TimeoutError:
                pass  # the server is stuck with it, for now
            with create_unix_datagram_socket(target_path=tmp_path / "socket") as client:
                client.send(b"hello", timeout=TIMEOUT)
                assert client.receive(timeout=TIMEOUT)[0] == b"olleh"
        assert server.stats().handler_errors == 0
    assert not [record for record in said(caplog) if record.levelname == "ERROR"]


def test_86_shutdown_lets_handlers_finish(client: Any) -> None:
    started, gate = threading.Event(), threading.Event()

    def handler(client: DatagramPeer[bytes], packet: bytes) -> None:
        started.set()
        gate.wait(TIMEOUT)
        client.send_packet(packet)

    with DatagramServer(handler, create_udp_socket(interface="127.0.0.1")) as server:
        client.send_to(b"hello", ("127.0.0.1", server.port))
        assert started.wait(TIMEOUT)
        stopping = Background(server.shutdown, timeout=TIMEOUT)
        eventually(lambda: server.closed)
        gate.set()
        stopping.result()
        assert client.receive(timeout=TIMEOUT)[0] == b"hello"


def test_86_and_cuts_them_at_the_deadline(client: Any) -> None:
    gate, started, refused = threading.Event(), threading.Event(), threading.Event()

    def handler(client: DatagramPeer[bytes], packet: bytes) -> None:
        started.set()
        gate.wait(TIMEOUT)
        try:
            client.send_packet(packet)
        except ClosedError:
            refused.set()
            raise

    with DatagramServer(handler, create_udp_socket(interface="127.0.0.1")) as server:
        client.send_to(b"hello", ("127.0.0.1", server.port))
        assert started.wait(TIMEOUT)
        start = time.monotonic()
        server.shutdown(timeout=0.1)
        assert time.monotonic() - start < 8
        gate.set()
        assert refused.wait(TIMEOUT)


def test_86_no_handler_begins_after_the_end(client: Any) -> None:
    gate, started = threading.Event(), threading.Semaphore(0)
    ended: list[bool] = []

    def handler(client: DatagramPeer[bytes], packet: bytes) -> None:
        started.release()
        gate.wait(TIMEOUT)
        ended.append(True)

    with DatagramServer(handler, create_udp_socket(interface="127.0.0.1"), max_workers=1) as server:
        for _ in range(5):
            client.send_to(b"hello", ("127.0.0.1", server.port))
        assert started.acquire(timeout=TIMEOUT)
        eventually(lambda: server.stats().waiting == 4)
        server.shutdown(timeout=0)
        gate.set()
        eventually(lambda: server.stats().workers == 0)
        assert len(ended) == 1
        assert server.stats().waiting == 0


def test_86_from_a_handler_twice_and_before_the_start(serve: Serve, client: Any) -> None:
    def handler(client: DatagramPeer[bytes], packet: bytes) -> None:
        server.shutdown()
        client.send_packet(b"done")

    server = serve(handler)
    serving = Background(server.serve_forever)
    eventually(lambda: "serving" in repr(server))
    client.send_to(b"stop", server.addresses[0])
    assert client.receive(timeout=TIMEOUT)[0] == b"done"
    serving.result()
    server.shutdown()
    assert server.fileno() == -1
    unused = serve(reverse)
    unused.shutdown()
    with pytest.raises(ClosedError):
        unused.start()


def test_a_shared_io_thread(client: Any, serve: Serve) -> None:
    with IOThread() as io, serve(reverse, io_thread=io) as one, serve(reverse, io_thread=io) as other:
        for server in (one, other):
            client.send_to(b"ab", server.addresses[0])
            assert client.receive(timeout=TIMEOUT)[0] == b"ba"


def test_nobody_listens_to_the_answer(serve: Serve, client: Any) -> None:
    """The refusal comes back to the server's socket, and is nobody's error."""
    with serve(reverse) as server:
        for _ in range(20):
            with create_udp_socket(interface="127.0.0.1") as brief:
                brief.send_to(b"anybody?", server.addresses[0])
        client.send_to(b"ab", server.addresses[0])
        assert client.receive(timeout=TIMEOUT)[0] == b"ba"
        assert server.stats().handler_errors == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_in_a_forked_child_it_is_refused(serve: Serve, client: Any) -> None:
    with serve(reverse) as server:
        child = fork()
        if not child:
            try:
                server.start()
            except ForkedError:
                os._exit(42)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
        client.send_to(b"ab", server.addresses[0])
        assert client.receive(timeout=TIMEOUT)[0] == b"ba"


@pytest.mark.parametrize("make", [
    lambda sock: DatagramServer(wrong(5), sock), lambda sock: DatagramServer(reverse, wrong(5)),
    lambda sock: DatagramServer(reverse, sock, codec=wrong(LineCodec)),
    lambda sock: DatagramServer(reverse, sock, max_workers=wrong("8")),
    lambda sock: DatagramServer(reverse, sock, io_thread=wrong("one")),
])
def test_bad_types(make: Any) -> None:
    with create_udp_socket() as sock:
        with pytest.raises(TypeError):
            make(sock)
        with DatagramServer(reverse, sock):  # it was not taken
            pass


def test_a_socket_belongs_to_one_server() -> None:
    with create_udp_socket(interface="127.0.0.1") as sock, DatagramServer(reverse, sock):
        with pytest.raises(ValueError, match="belongs"):
            DatagramServer(reverse, sock)


def test_bad_values() -> None:
    with create_udp_socket() as sock:
        with pytest.raises(ValueError):
            DatagramServer(reverse)
        with pytest.raises(ValueError):
            DatagramServer(reverse, sock, max_workers=-1)
    with pytest.raises(ClosedError):
        DatagramServer(reverse, sock)
