"""PacketServer: what one thread does between two steps of another one."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background

from netmsg import ClosedError, Decoder, LineCodec, PacketConnection, PacketDecodeError, PacketServer, create_tcp_server

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
        threading.setprofile(None)


def on_loop() -> bool:
    return threading.current_thread().name.startswith("netmsg-io")


def broadcasting() -> bool:
    return isinstance(threading.current_thread(), Background)


def lines_of(sock: socket.socket, number: int) -> list[bytes]:
    with sock.makefile("rb") as file:
        return [file.readline() for _ in range(number)]


@contextmanager
def connection_to(server: PacketServer[Any, Any], *, room: int | None = None) -> Iterator[socket.socket]:
    """``room``: for how many bytes to be received."""
    with socket.socket() as sock:
        if room is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        sock.settimeout(TIMEOUT)
        sock.connect(("127.0.0.1", server.port))
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
        if not begun.is_set():
            return
        if (event, module, name) == ("c_return", "channel.py", "recv") and on_loop() and not received.is_set():
            received.set()
            assert stopped.wait(TIMEOUT)
        elif (event, module, name) == ("return", "step_runner.py", "_step"):
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
            def feed(self, data: bytes) -> list[str | PacketDecodeError]:
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
        if (event, module, name) == ("return", "step_runner.py", "schedule"):
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


def answer_and_close(client: PacketConnection[str], packet: str) -> None:
    client.send_packet(packet)
    if packet == "bye":
        client.send_packet("x" * 100_000)
        client.close()


def test_what_is_sent_just_when_the_end_was_is_refused_and_leaves_that_alone() -> None:
    about_to_send, ended, refused = threading.Event(), threading.Event(), threading.Event()

    def hold(event: str, module: str, name: str) -> None:
        if event == "call" and module == "send_queue.py" and name == "put" and broadcasting():
            about_to_send.set()
            assert ended.wait(TIMEOUT)
        elif event == "c_return" and name == "shutdown" and on_loop() and not ended.is_set():
            ended.set()
            assert refused.wait(TIMEOUT)

    def handler(client: PacketConnection[str], packet: str) -> None:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        answer_and_close(client, packet)

    with told(hold), PacketServer(handler, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(),
                                  max_workers=1) as server, connection_to(server, room=4096) as sock:
        sock.sendall(b"hello\n")
        assert lines_of(sock, 1) == [b"hello\n"]
        broadcast = Background(server.clients()[0].send_packet, "news")
        assert about_to_send.wait(TIMEOUT)
        sock.sendall(b"bye\n")
        with pytest.raises(ClosedError):
            broadcast.result()
        refused.set()
        with connection_to(server) as other:  # by whose answer whatever came of that has been seen
            other.sendall(b"hello\n")
            assert lines_of(other, 1) == [b"hello\n"]
        assert lines_of(sock, 3) == [b"bye\n", b"x" * 100_000 + b"\n", b""]


def test_what_is_just_being_sent_at_the_end_is_before_it() -> None:
    about_to_send, ending, sending, looked = (threading.Event() for _ in range(4))

    def hold(event: str, module: str, name: str) -> None:
        if broadcasting() and event == "call" and module == "send_queue.py":
            if name == "put":
                about_to_send.set()
                assert ending.wait(TIMEOUT)
            elif name == "go_on":
                sending.set()
                assert looked.wait(TIMEOUT)
        elif on_loop() and module in ("packet_service.py", "send_queue.py"):
            if (event, name) == ("call", "_say_goodbye"):
                ending.set()
                assert sending.wait(TIMEOUT)
            elif (event, name) in [("call", "end"), ("return", "_say_goodbye")]:
                looked.set()

    with told(hold), PacketServer(answer_and_close, create_tcp_server(interface="127.0.0.1"), codec=LineCodec(),
                                  max_workers=1) as server, connection_to(server) as sock:
        sock.sendall(b"hello\n")
        assert lines_of(sock, 1) == [b"hello\n"]
        broadcast = Background(server.clients()[0].send_packet, "news")
        assert about_to_send.wait(TIMEOUT)
        sock.sendall(b"bye\n")
        assert lines_of(sock, 4) == [b"bye\n", b"x" * 100_000 + b"\n", b"news\n", b""]
        broadcast.result()


def test_a_long_packet_that_goes_whole_while_the_loop_looks_stops_nothing() -> None:
    """It is as long as the mark, but does not wait."""
    sending, looked = threading.Event(), threading.Event()

    def hold(event: str, module: str, name: str) -> None:
        if event == "call" and module == "send_queue.py" and name == "go_on" and broadcasting():
            sending.set()
            assert looked.wait(TIMEOUT)
        elif (event, module, name) == ("return", "channel.py", "_on_event") and sending.is_set():
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
