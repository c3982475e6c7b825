"""DatagramServer on UNIX sockets: who does not read its answers, and what that costs others."""

from __future__ import annotations

import socket
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.pairs import TIMEOUT
from support.servers import eventually, said

from netmsg import DatagramPeer, DatagramServer, SendTimeoutError, create_unix_datagram_socket
from netmsg.servers.unread_answers import UnreadAnswers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that counts like this")

BUFFER = 100


class FakeSocket:
    """A buffer for 100 datagrams, of a byte each, which its receivers share."""

    _send_buffer = BUFFER

    def __init__(self) -> None:
        self.unread: dict[str, int] = {}

    @property
    def _unread_bytes(self) -> int:
        return sum(self.unread.values())

    def send_to(self, data: bytes, address: str, *, timeout: float) -> None:
        if address == "gone":
            raise FileNotFoundError
        if self._unread_bytes >= BUFFER:
            raise SendTimeoutError("full")
        self.unread[address] = self.unread.get(address, 0) + 1


@pytest.fixture
def sock() -> FakeSocket:
    return FakeSocket()


@pytest.fixture
def answers(sock: FakeSocket) -> UnreadAnswers:
    return UnreadAnswers(sock)  # type: ignore[arg-type]


def fill(answers: UnreadAnswers, address: str) -> int:
    """Send to a client that does not read, as long as that goes."""
    for number in range(2 * BUFFER):
        try:
            answers.send(b"x", address, deaf=False)
        except SendTimeoutError:
            return number
    raise AssertionError("there is no end to it")


def exchange(answers: UnreadAnswers, sock: FakeSocket, address: str, count: int = 1000) -> None:
    for _ in range(count):
        answers.send(b"x", address, deaf=False)
        del sock.unread[address]


def test_nobody_may_have_more_unread_than_is_free(answers: UnreadAnswers, sock: FakeSocket) -> None:
    assert BUFFER // 2 <= fill(answers, "first") <= BUFFER // 2 + 1
    assert fill(answers, "second") <= BUFFER // 4 + 1
    assert fill(answers, "third") <= BUFFER // 8 + 1
    assert not answers.full


def test_whoever_reads_goes_on_beside_those_who_do_not(answers: UnreadAnswers, sock: FakeSocket) -> None:
    for number in range(3):
        fill(answers, f"deaf {number}")
        for reader in "one", "other":
            exchange(answers, sock, reader)


def test_who_asks_on_and_was_found_deaf_gets_nothing_of_what_others_have_read(answers: UnreadAnswers,
                                                                              sock: FakeSocket) -> None:
    sent = fill(answers, "deaf")
    for _ in range(1000):
        exchange(answers, sock, "reader", 1)
        with pytest.raises(SendTimeoutError):
            answers.send(b"x", "deaf", deaf=True)
    assert sock.unread == {"deaf": sent}


def test_who_has_read_is_answered_again(answers: UnreadAnswers, sock: FakeSocket) -> None:
    fill(answers, "late")
    fill(answers, "deaf")
    sock.unread["late"] = 0
    exchange(answers, sock, "late")
    fill(answers, "late")
    sock.unread.clear()
    assert fill(answers, "late") >= BUFFER // 2


def test_what_is_known_of_clients_is_bounded(answers: UnreadAnswers, sock: FakeSocket) -> None:
    fill(answers, "deaf")
    for number in range(3000):
        exchange(answers, sock, f"brief {number}", 1)
        with pytest.raises(FileNotFoundError):
            answers.send(b"x", "gone", deaf=False)
    with pytest.raises(SendTimeoutError):
        answers.send(b"x", "deaf", deaf=True)
    exchange(answers, sock, "reader")


# On a server

def connected(path: Path, name: str) -> socket.socket:
    """A client to which the kernel lets the server send until its buffer is full."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.settimeout(TIMEOUT)
    sock.bind(str(path.parent / name))
    sock.connect(str(path))
    return sock


def echo(client: DatagramPeer[bytes], packet: bytes) -> None:
    client.send_packet(packet)


@pytest.mark.parametrize("workers", [8, 0])
def test_one_client_that_does_not_read_keeps_nobody_unanswered(workers: int, tmp_path: Path,
                                                               caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "socket"
    with DatagramServer(echo, create_unix_datagram_socket(path=path), max_workers=workers) as server:
        with connected(path, "deaf") as deaf, connected(path, "reader") as reader:
            for _ in range(600):
                deaf.send(b"x" * 100)
            eventually(lambda: server.stats().packets_sent + server.stats().unanswered == 600)
            assert server.stats().unanswered > 0
            for number in range(300):
                reader.send(b"%d" % number)
                assert reader.recv(100) == b"%d" % number
            assert server.stats().handler_errors == 0
    assert len([record for record in said(caplog) if record.levelname == "WARNING"]) == 1


def test_nobody_is_taken_for_deaf_because_the_buffer_of_all_is_full(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    sock = create_unix_datagram_socket(path=path)
    with connected(path, "deaf") as deaf, connected(path, "reader") as reader:
        with pytest.raises(SendTimeoutError):
            while True:
                sock.send_to(b"x" * 100, str(tmp_path / "deaf"), timeout=0)
        with DatagramServer(echo, sock, max_workers=1) as server:
            reader.send(b"hello")
            eventually(lambda: server.stats().unanswered == 1)
            reader.send(b"hello again")  # it is waited for once more
            eventually(lambda: server.stats().packets_received == 2)
            deaf.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    deaf.recv(100)
            assert reader.recv(100) == b"hello again"


class Flooder:
    """A handler that sends without end, but to who says "ping"."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.over: list[str] = []

    def __call__(self, client: DatagramPeer[bytes], packet: bytes) -> None:
        if packet == b"ping":
            client.send_packet(b"pong")
            return
        self.began.release()
        try:
            while True:
                client.send_packet(b"x" * 100, timeout=1e6)
        except SendTimeoutError:
            self.over.append(Path(client.remote_address).name)


@pytest.mark.parametrize("pause", [0, 0.02], ids=["at once", "slowly"])
def test_88_workers_that_wait_for_room_do_not_count(pause: float, tmp_path: Path) -> None:
    """And what somebody reads is not credited to those whom they wait for, though they look again meanwhile."""
    flooder = Flooder()
    path = tmp_path / "socket"
    with ExitStack() as stack:
        server = stack.enter_context(DatagramServer(flooder, create_unix_datagram_socket(path=path), max_workers=2))
        for number in range(6):
            stack.enter_context(connected(path, f"deaf {number}")).send(b"flood me")
            assert flooder.began.acquire(timeout=TIMEOUT)
        reader = stack.enter_context(connected(path, "reader"))
        for _ in range(20):
            reader.send(b"ping")
            assert reader.recv(100) == b"pong"
            time.sleep(pause)
        assert not flooder.over
        assert server.stats().workers <= 2 + 64
        server.shutdown(timeout=0)


def test_88_who_has_been_waited_for_the_longest_is_given_up_when_too_many_are(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netmsg.servers.worker_pool.SPARE", 3)
    flooder = Flooder()
    path = tmp_path / "socket"
    with ExitStack() as stack:
        server = stack.enter_context(DatagramServer(flooder, create_unix_datagram_socket(path=path), max_workers=1))
        for number in range(8):
            stack.enter_context(connected(path, f"deaf {number}")).send(b"flood me")
            assert flooder.began.acquire(timeout=TIMEOUT)
            eventually(lambda: len(flooder.over) == max(0, number - 2))
        assert flooder.over == [f"deaf {number}" for number in range(5)]
        reader: Any = stack.enter_context(connected(path, "reader"))
        reader.send(b"ping")
        assert reader.recv(100) == b"pong"
        server.shutdown(timeout=0)
