"""Ctrl-C that does not end the system call which the main thread is in is noticed all the same, by every blocking call,
and leaves the object usable."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.interrupts import Interrupted, missed_signal
from support.pairs import TIMEOUT

from netmsg import (
    Søcket, connect_tcp, connect_unix, create_tcp_server, create_udp_socket, create_unix_datagram_socket,
    create_unix_server, memory_stream_pair,
)

Blocking = tuple[Any, Any]
"""A call that blocks, and one that shows that the object is usable afterwards."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def accept(stack: ExitStack, directory: Path) -> Blocking:
    listener = stack.enter_context(create_tcp_server())

    def use() -> None:
        with connect_tcp("localhost", listener.port, timeout=TIMEOUT), listener.accept(timeout=TIMEOUT):
            pass

    return listener.accept, use


def receive(stack: ExitStack, directory: Path) -> Blocking:
    listener = stack.enter_context(create_tcp_server(interface="127.0.0.1"))
    client = stack.enter_context(connect_tcp("127.0.0.1", listener.port))
    server = stack.enter_context(listener.accept(timeout=TIMEOUT))

    def use() -> None:
        server.send_all(b"x")
        assert client.receive(timeout=TIMEOUT) == b"x"

    return client.receive, use


def receive_from_memory(stack: ExitStack, directory: Path) -> Blocking:
    client, server = map(stack.enter_context, memory_stream_pair())

    def use() -> None:
        server.send_all(b"x")
        assert client.receive(timeout=TIMEOUT) == b"x"

    return client.receive, use


def receive_datagram(stack: ExitStack, directory: Path) -> Blocking:
    sock = stack.enter_context(create_udp_socket(interface="127.0.0.1"))

    def use() -> None:
        sock.send_to(b"x", sock.local_address)
        assert sock.receive(timeout=TIMEOUT)[0] == b"x"

    return sock.receive, use


def send_datagram(stack: ExitStack, directory: Path) -> Blocking:
    receiver = stack.enter_context(create_unix_datagram_socket(path=directory / "receiver"))
    sender = stack.enter_context(create_unix_datagram_socket(target_path=directory / "receiver"))

    def fill() -> None:
        while True:
            sender.send(b"x")

    def use() -> None:
        assert receiver.receive(timeout=TIMEOUT)[0] == b"x"
        sender.send(b"x", timeout=TIMEOUT)

    return fill, use


def connect_to_full_backlog(stack: ExitStack, directory: Path) -> Blocking:
    listener = stack.enter_context(create_unix_server(directory / "server", backlog=0))

    def connect() -> None:
        while True:
            stack.enter_context(connect_unix(directory / "server"))

    def use() -> None:
        listener.accept(timeout=TIMEOUT).close()
        connect_unix(directory / "server", timeout=TIMEOUT).close()

    return connect, use


def connect_to_silence(stack: ExitStack, directory: Path) -> Blocking:
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    for _ in range(8):
        filler = stack.enter_context(socket.socket())
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
    return lambda: connect_tcp(*listener.getsockname()), lambda: None


def resolve(stack: ExitStack, directory: Path) -> Blocking:
    real, release = socket.getaddrinfo, threading.Event()

    def silent(host: Any, port: Any, *arguments: Any, flags: int = 0, **options: Any) -> Any:
        if flags & socket.AI_NUMERICHOST:
            return real(host, port, *arguments, flags=flags, **options)
        assert release.wait(TIMEOUT)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(socket, "getaddrinfo", silent)
    stack.callback(release.set)
    return lambda: connect_tcp("silent.test", 1), lambda: None


def receive_message(stack: ExitStack, directory: Path) -> Blocking:
    sock, other = stack.enter_context(Søcket(linger=0)), stack.enter_context(Søcket(linger=0))
    sock.bind(port=0)
    other.connect(port=sock.bound_port)

    def use() -> None:
        other.send(b"x")
        assert sock.recv(timeout=TIMEOUT) == b"x"

    return sock.recv, use


@pytest.mark.parametrize("blocking", [
    accept, receive, receive_from_memory, receive_datagram, send_datagram, connect_to_full_backlog, connect_to_silence,
    resolve, receive_message], ids=lambda function: function.__name__)
def test_a_signal_that_ends_no_system_call_is_noticed(blocking: Any, stack: ExitStack, tmp_path: Path) -> None:
    call, use = blocking(stack, tmp_path)
    for _ in range(3):
        with pytest.raises(Interrupted), missed_signal():
            call()
        use()
