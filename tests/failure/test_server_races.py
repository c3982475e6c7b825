"""PacketServer: what one thread does between two steps of another one."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from support.pairs import TIMEOUT, Background

from netmsg import Decoder, LineCodec, PacketConnection, PacketServer, create_tcp_server

Hook = Callable[[str, str, str], None]


@contextmanager
def told(hook: Hook) -> Iterator[None]:
    """``hook(event, module, function)`` is called, as a profiler is, in all threads that begin meanwhile."""
    def profile(frame: FrameType, event: str, argument: Any) -> None:
        name = argument.__name__ if event.startswith("c_") else frame.f_code.co_name
        hook(event, os.path.basename(frame.f_code.co_filename), name)

    threading.setprofile(profile)
    try:
        yield
    finally:
        threading.setprofile(None)  # type: ignore[arg-type]


def on_loop() -> bool:
    return threading.current_thread().name.startswith("netmsg-io")


def broadcasting() -> bool:
    return isinstance(threading.current_thread(), Background)


def lines_of(sock: socket.socket, number: int) -> list[bytes]:
    with sock.makefile("rb") as file:
        return [file.readline() for _ in range(number)]


@contextmanager
def connection_to(server: PacketServer[Any, Any]) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock:
        yield sock


def test_what_is_received_while_a_step_stops_at_the_mark_is_behind_what_it_has_left() -> None:
    begun, received, stopped = threading.Event(), threading.Event(), threading.Event()
    handled: list[str] = []

    def handler(client: PacketConnection[str], packet: str) -> None:
        begun.set()
        assert received.wait(TIMEOUT)
        handled.append(packet)
        client.send_packet(packet + "x" * 8_000_000)

    def hold(event: str, module: str, name: str) -> None:
        if module != "packet_connection.py" or not begun.is_set():
            return
        if event == "c_return" and name == "recv" and on_loop() and not received.is_set():
            received.set()
            assert stopped.wait(TIMEOUT)
        elif event == "return" and name == "_step":
            stopped.set()

    with told(hold), PacketServer(handler, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(),
                                  max_workers=1, send_hwm_bytes=50_000) as server, connection_to(server) as sock:
        sock.sendall(b"1\n2\n3\n")
        assert begun.wait(TIMEOUT)
        sock.sendall(b"4\n5\n")
        assert [line[:1] for line in lines_of(sock, 5)] == [b"1", b"2", b"3", b"4", b"5"]
    assert handled == ["1", "2", "3", "4", "5"]


class OfAUser(LineCodec):
    """Whose decoder runs in a worker."""

    def decoder(self) -> Any:
        inner = super().decoder()

        class Own(Decoder[str]):
            def feed(self, data: bytes) -> list[str]:
                return inner.feed(data)
        return Own()


def test_a_step_that_has_decoded_at_once_is_the_only_one() -> None:
    busy, free, scheduled, decoded, gate = (threading.Event() for _ in range(5))
    inside: list[str] = []
    together: list[list[str]] = []

    def handler(client: PacketConnection[str], packet: str) -> None:
        if packet == "busy":
            busy.set()
            assert free.wait(TIMEOUT)
        elif packet != "hello":
            inside.append(packet)
            together.append(inside.copy())
            decoded.set()
            assert gate.wait(TIMEOUT)
            inside.remove(packet)
        client.send_packet(packet)

    def hold(event: str, module: str, name: str) -> None:
        if module == "packet_connection.py" and event == "return" and name == "_schedule":
            if busy.is_set() and not scheduled.is_set():
                scheduled.set()
                assert decoded.wait(TIMEOUT)  # by a worker that need not be woken

    with told(hold), PacketServer(handler, create_tcp_server(interface="127.0.0.1"), codec=OfAUser(),
                                  max_workers=2) as server:
        with connection_to(server) as one, connection_to(server) as two, connection_to(server) as three:
            one.sendall(b"busy\n")
            assert busy.wait(TIMEOUT)
            two.sendall(b"1\n2\n")
            assert scheduled.wait(TIMEOUT)
            free.set()
            assert lines_of(one, 1) == [b"busy\n"]
            three.sendall(b"hello\n")
            assert lines_of(three, 1) == [b"hello\n"]  # behind whatever else there was for a worker
            gate.set()
            assert lines_of(two, 2) == [b"1\n", b"2\n"]
    assert together == [["1"], ["2"]]


def test_a_long_packet_that_goes_whole_while_the_loop_looks_stops_nothing() -> None:
    """It is as long as the mark, but does not wait."""
    sending, looked = threading.Event(), threading.Event()

    def hold(event: str, module: str, name: str) -> None:
        if event == "call" and module == "send_queue.py" and name == "_send" and broadcasting():
            sending.set()
            assert looked.wait(TIMEOUT)
        elif event == "return" and module == "packet_connection.py" and name == "_read" and sending.is_set():
            looked.set()

    def echo(client: PacketConnection[str], packet: str) -> None:
        client.send_packet(packet)

    with told(hold), PacketServer(echo, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(), max_workers=1,
                                  send_hwm_bytes=50_000) as server, connection_to(server) as sock:
        sock.sendall(b"hello\n")
        assert lines_of(sock, 1) == [b"hello\n"]
        broadcast = Background(server.clients()[0].send_packet, "x" * 60_000)
        assert sending.wait(TIMEOUT)
        sock.sendall(b"still there?\n")
        assert set(lines_of(sock, 2)) == {b"x" * 60_000 + b"\n", b"still there?\n"}
        broadcast.result()
