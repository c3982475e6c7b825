"""PacketServer: clients that always have another packet do not keep the workers from the others."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import pytest
from support.pairs import TIMEOUT
from support.servers import eventually

from netmsg import Decoder, LineCodec, PacketConnection, PacketDecodeError, PacketServer, create_tcp_server


class Record:
    """Notes each packet, and holds its worker until it is told to go on."""

    def __init__(self) -> None:
        self.handled: list[str] = []
        self.began = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def note(self, packet: str) -> None:
        self.handled.append(packet)
        self.began.release()
        assert self.go_on.acquire(timeout=TIMEOUT)


class Slowly(Record):
    """Waits before the first packet alone, and takes its time over each."""

    def note(self, packet: str) -> None:
        self.handled.append(packet)
        if len(self.handled) == 1:
            self.began.release()
            assert self.go_on.acquire(timeout=TIMEOUT)
        until = time.perf_counter() + 0.0005
        while time.perf_counter() < until:
            pass


def function(record: Record) -> Any:
    def handler(client: PacketConnection[str], packet: str) -> None:
        record.note(packet)
    return handler


def conversation(record: Record) -> Any:
    def handler(client: PacketConnection[str]) -> Generator[Any, str, None]:
        while True:
            record.note((yield))
    return handler


class SlowDecoder(LineCodec):
    """A codec of a user's, whose decoder takes its time over each chunk."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record

    def decoder(self) -> Any:
        record = self.record

        class OfAUser(Decoder[str]):
            def feed(self, data: bytes) -> list[str | PacketDecodeError]:
                record.note(data.decode())
                return []
        return OfAUser()


def connect(server: PacketServer[Any, Any], stack: ExitStack) -> socket.socket:
    before = server.stats().accepted
    sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), TIMEOUT))
    eventually(lambda: server.stats().accepted == before + 1 and len(server.clients()) == before + 1
               and not server.stats().waiting)
    return sock


def keep_one_busy(server: PacketServer[Any, Any], record: Record, end: bytes) -> list[str]:
    """What is handled, when one client has more to say each time and two others say one thing."""
    with ExitStack() as stack:
        busy, second, third = (connect(server, stack) for _ in range(3))
        busy.sendall(b"busy 1" + end)
        assert record.began.acquire(timeout=TIMEOUT)
        busy.sendall(b"busy 2" + end)
        for waiting, sock in enumerate((second, third), 1):  # when it has read the last one, it has all before it
            sock.sendall(b"other %d" % waiting + end)
            eventually(lambda: server.stats().waiting == waiting)
        for _ in range(3):
            record.go_on.release()
            assert record.began.acquire(timeout=TIMEOUT)
        record.go_on.release()
        return [packet.strip() for packet in record.handled]


@pytest.mark.parametrize("make", [function, conversation])
def test_what_came_during_a_packet_is_behind_what_others_have_sent(make: Any) -> None:
    record = Record()
    with PacketServer(make(record), create_tcp_server(interface="127.0.0.1"), codec=LineCodec(),
                      max_workers=1) as server:
        assert keep_one_busy(server, record, b"\n") == ["busy 1", "other 1", "other 2", "busy 2"]


def test_and_so_is_what_is_no_whole_packet_yet() -> None:
    record = Record()
    with PacketServer(lambda client, packet: None, create_tcp_server(interface="127.0.0.1"),
                      codec=SlowDecoder(record), max_workers=1) as server:
        assert keep_one_busy(server, record, b"...") == ["busy 1...", "other 1...", "other 2...", "busy 2..."]


def test_who_gives_way_has_its_time_begin_anew() -> None:
    """With its last packet: what has come behind that need not be a whole one."""
    record = Record()
    over: list[str] = []

    def handler(client: PacketConnection[str]) -> Generator[Any, str, None]:
        record.note((yield))
        try:
            yield 0.01
        except TimeoutError:
            over.append(client.remote_address[0])
            raise

    with PacketServer(handler, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(),
                      max_workers=1) as server, ExitStack() as stack:
        one, other = (connect(server, stack) for _ in range(2))
        one.sendall(b"hello\n")
        assert record.began.acquire(timeout=TIMEOUT)
        one.sendall(b"half a packet")
        other.sendall(b"hello\n")
        eventually(lambda: server.stats().waiting == 1)
        record.go_on.release(2)
        assert one.recv(10) == other.recv(10) == b""
        assert len(over) == 2
        assert server.stats().closed_idle == 2


@pytest.mark.parametrize("make", [function, conversation])
def test_without_workers_a_client_that_sends_much_at_once_does_not_hold_up_the_others(make: Any) -> None:
    record = Slowly()
    with PacketServer(make(record), create_tcp_server(interface="127.0.0.1"), codec=LineCodec(),
                      max_workers=0) as server, ExitStack() as stack:
        busy, other = (connect(server, stack) for _ in range(2))
        busy.sendall(b"".join(b"busy %d\n" % number for number in range(300)))
        assert record.began.acquire(timeout=TIMEOUT)
        other.sendall(b"other\n")
        record.go_on.release()
        eventually(lambda: len(record.handled) == 301)
        assert record.handled.index("other") < 300
        record.handled.remove("other")
        assert record.handled == [f"busy {number}" for number in range(300)]


def test_and_what_it_is_answered_comes_in_order() -> None:
    def handler(client: PacketConnection[str], packet: str) -> None:
        record.note(packet)
        client.send_packet(packet)

    record = Slowly()
    packets = b"".join(b"%d\n" % number for number in range(300))
    with PacketServer(handler, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(),
                      max_workers=0) as server, ExitStack() as stack:
        sock = connect(server, stack)
        sock.sendall(packets)
        record.go_on.release()
        answers = sock.makefile("rb")
        assert b"".join(answers.readline() for _ in range(300)) == packets


def test_and_shutdown_is_not_held_up_either() -> None:
    record = Slowly()
    with PacketServer(function(record), create_tcp_server(interface="127.0.0.1"), codec=LineCodec(),
                      max_workers=0) as server, ExitStack() as stack:
        busy = connect(server, stack)
        busy.sendall(b"busy\n" * 10_000)
        assert record.began.acquire(timeout=TIMEOUT)
        record.go_on.release()
        server.shutdown(timeout=0.01)
        assert server.stats().connections == 0
        assert len(record.handled) < 10_000
