"""Ctrl-C that does not end the system call which the main thread is in is noticed all the same, by every blocking call,
and leaves the object usable. So is an alarm, though its handler raises ``TimeoutError``."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.interrupts import Alarm, Interrupted, missed_signal
from support.pairs import TIMEOUT
from support.strikes import SignalStrike, Strike, Struck, strike_everywhere

from netmsg import (
    DatagramClient, LineCodec, PacketClient, SocketStream, Søcket, UDPSocket, UNIXDatagramSocket, connect_tcp,
    connect_unix, create_tcp_server, create_udp_socket, create_unix_datagram_socket, create_unix_server,
    memory_stream_pair,
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


def iterate_over_datagrams(stack: ExitStack, directory: Path, timeout: float | None = None) -> Blocking:
    sock = stack.enter_context(create_udp_socket(interface="127.0.0.1"))
    datagrams = sock.receive_packets(timeout=timeout)

    def use() -> None:
        sock.send_to(b"x", sock.local_address)
        assert next(datagrams)[0] == b"x"

    return lambda: next(datagrams), use


def iterate_over_datagrams_for_a_while(stack: ExitStack, directory: Path) -> Blocking:
    return iterate_over_datagrams(stack, directory, TIMEOUT)


def request(stack: ExitStack, directory: Path) -> Blocking:
    sock = stack.enter_context(create_udp_socket(interface="127.0.0.1"))
    silent = stack.enter_context(create_udp_socket(interface="127.0.0.1"))

    def use() -> None:
        sock.send_to(b"x", sock.local_address)
        assert sock.receive(timeout=TIMEOUT)[0] == b"x"

    return lambda: sock.request(b"?", silent.local_address, timeout=TIMEOUT, interval=TIMEOUT), use


def iterate_over_packets(stack: ExitStack, directory: Path) -> Blocking:
    stream, server = map(stack.enter_context, memory_stream_pair())
    client = stack.enter_context(PacketClient(stream, LineCodec()))
    packets = client.iter_received_packets(timeout=TIMEOUT)

    def use() -> None:
        server.send_all(b"x\n")
        assert next(packets) == "x"

    return lambda: next(packets), use


def iterate_over_packets_in_datagrams(stack: ExitStack, directory: Path) -> Blocking:
    server = stack.enter_context(create_udp_socket(interface="127.0.0.1"))
    client = stack.enter_context(DatagramClient(server.local_address, LineCodec()))
    packets = client.iter_received_packets(timeout=TIMEOUT)

    def use() -> None:
        server.send_to(b"x\n", client.local_address)
        assert next(packets) == "x"

    return lambda: next(packets), use


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
    real: Any = socket.getaddrinfo
    release = threading.Event()

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


@pytest.mark.parametrize("error", [Interrupted, Alarm])
@pytest.mark.parametrize("blocking", [
    accept, receive, receive_from_memory, receive_datagram, send_datagram, iterate_over_datagrams,
    iterate_over_datagrams_for_a_while, request, iterate_over_packets, iterate_over_packets_in_datagrams,
    connect_to_full_backlog, connect_to_silence, resolve, receive_message], ids=lambda function: function.__name__)
def test_a_signal_that_ends_no_system_call_is_noticed(blocking: Any, error: type[BaseException], stack: ExitStack,
                                                      tmp_path: Path) -> None:
    call, use = blocking(stack, tmp_path)
    for _ in range(3):
        with pytest.raises(error), missed_signal(error):
            call()
        use()


@pytest.mark.parametrize("make", [
    lambda stack: stack.enter_context(create_udp_socket(interface="127.0.0.1")).receive,
    lambda stack: stack.enter_context(create_tcp_server(interface="127.0.0.1")).accept,
], ids=["receive", "accept"])
def test_an_alarm_in_the_first_wait_is_no_lack_of_descriptors(make: Any) -> None:
    def trial(strike: Strike) -> None:
        with ExitStack() as stack:
            call = make(stack)
            with pytest.raises(TimeoutError) as caught, strike:
                call(timeout=0)
            assert isinstance(caught.value, Alarm) == strike.struck, "it was swallowed"

    assert strike_everywhere(trial, Alarm) > 20


@pytest.mark.untraced
def test_an_interrupt_while_there_is_no_room_leaves_no_socket_open(stack: ExitStack, tmp_path: Path) -> None:
    """Not for a moment: the interpreter would warn of one that is collected before it is closed."""
    stack.enter_context(create_unix_datagram_socket(path=tmp_path / "receiver"))
    sender = stack.enter_context(create_unix_datagram_socket(target_path=tmp_path / "receiver"))
    with pytest.raises(TimeoutError):
        while True:
            sender.send(b"x", timeout=0)

    def trial(strike: Strike) -> None:
        with pytest.raises((Struck, TimeoutError)), strike:
            sender.send(b"x", timeout=0.001)

    assert strike_everywhere(trial, kind=SignalStrike) > 20


def datagrams(stack: ExitStack, timeout: float | None) -> Iterator[Any]:
    sock = stack.enter_context(create_udp_socket(interface="127.0.0.1"))
    sock.send_to(b"x", sock.local_address)
    return sock.receive_packets(timeout=timeout)


def packets_in_datagrams(stack: ExitStack, timeout: float | None) -> Iterator[Any]:
    sock = stack.enter_context(create_udp_socket(interface="127.0.0.1"))
    client = stack.enter_context(DatagramClient(sock.local_address, LineCodec()))
    sock.send_to(b"x", client.local_address)
    return client.iter_received_packets(timeout=timeout)


def packets(stack: ExitStack, timeout: float | None) -> Iterator[Any]:
    stream, server = map(stack.enter_context, memory_stream_pair())
    server.send_all(b"x\n")
    return stack.enter_context(PacketClient(stream, LineCodec())).iter_received_packets(timeout=timeout)


def connected_socket(kind: socket.SocketKind, address: Any = None) -> socket.socket:
    """Without one to an address of its own."""
    if address is not None:
        sock = socket.socket(socket.AF_INET, kind)
    else:
        sock = socket.socket(socket.AF_UNIX, kind)
        sock.bind("")
        address = sock.getsockname()
    sock.connect(address)
    return sock


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # what is finished and not handed over is left to the collector
@pytest.mark.parametrize("open_one", [
    lambda port, folder: connect_tcp("127.0.0.1", port, timeout=TIMEOUT),
    lambda port, folder: connect_unix(folder / "server", local_path=folder / "stale", timeout=TIMEOUT),
    lambda port, folder: create_tcp_server(), lambda port, folder: create_unix_server(folder / "stale"),
    lambda port, folder: create_unix_datagram_socket(path=folder / "stale"),
    lambda port, folder: create_udp_socket(target_host="localhost", target_port=9),
    lambda port, folder: SocketStream.from_socket(connected_socket(socket.SOCK_STREAM, ("127.0.0.1", port))),
    pytest.param(lambda port, folder: UNIXDatagramSocket.from_socket(connected_socket(socket.SOCK_DGRAM)),
                 marks=pytest.mark.skipif(sys.platform != "linux", reason="names without a file are Linux's")),
    lambda port, folder: UDPSocket.from_socket(connected_socket(socket.SOCK_DGRAM, ("127.0.0.1", port))),
], ids=["connect_tcp", "connect_unix", "create_tcp_server", "create_unix_server", "unix datagrams", "udp",
        "adopted stream", "adopted unix datagrams", "adopted udp"])
def test_an_alarm_while_a_socket_is_opened_is_no_failure_of_that(open_one: Any, stack: ExitStack,
                                                                 tmp_path: Path) -> None:
    tcp = stack.enter_context(create_tcp_server(interface="127.0.0.1"))
    stack.enter_context(create_unix_server(tmp_path / "server"))

    def trial(strike: Strike) -> None:
        with ExitStack() as opened:
            with socket.socket(socket.AF_UNIX) as stale:
                if not (tmp_path / "stale").exists():
                    stale.bind(str(tmp_path / "stale"))
            try:
                with strike:
                    sock = open_one(tcp.port, tmp_path)
                opened.enter_context(sock)
            except Alarm:
                pass
            else:
                assert not strike.struck, "it was swallowed"

    assert strike_everywhere(trial, Alarm)


@pytest.mark.parametrize("timeout", [TIMEOUT, None])
@pytest.mark.parametrize("received", [datagrams, packets_in_datagrams, packets], ids=lambda function: function.__name__)
def test_an_alarm_is_no_timeout_wherever_it_strikes(received: Any, timeout: float | None) -> None:
    def trial(strike: Strike) -> None:
        with ExitStack() as stack:
            iterator = received(stack, timeout)
            try:
                with strike:
                    next(iterator)
            except Alarm:
                pass
            else:
                assert not strike.struck, "it was swallowed"

    assert strike_everywhere(trial, Alarm)
