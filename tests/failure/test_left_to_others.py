"""One interrupt at every place where it can strike inside of a call that takes something: what that had in hand already
is for whoever calls next, in any thread. In a program whose main thread takes an interrupt and goes on to other things,
a worker may be the only one that ever calls again."""

from __future__ import annotations

import ssl
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from support.blocking import until_asleep, until_asleep_or_over, until_polling_or_over
from support.interrupts import Alarm
from support.pairs import TIMEOUT, Background
from support.streams import connect
from support.strikes import Strike, Struck, strike_everywhere

from netmsg import (
    ByteStream, Codec, DatagramClient, JSONCodec, LineCodec, Listener, PacketClient, Søcket, connect_tcp,
    create_tcp_server, create_udp_socket, create_unix_datagram_socket, create_unix_server, memory_stream_pair,
)

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
CONTENT = b"".join(b"%09d\n" % number for number in range(12))


@pytest.mark.parametrize("kind", ["memory", "unix", "tls12", "tls13", "tls-in-tls"])
@pytest.mark.parametrize("how", [
    lambda stream: stream.receive(7, timeout=TIMEOUT), lambda stream: stream.receive_exactly(10, timeout=TIMEOUT),
    lambda stream: stream.receive_until(b"\n", timeout=TIMEOUT) + b"\n",
], ids=["some", "exactly", "until"])
def test_bytes(kind: str, how: Callable[[ByteStream], bytes], tmp_path: Path, tls_contexts: Contexts) -> None:
    sender, receiver = connect(kind, tmp_path, tls_contexts)

    def trial(strike: Strike) -> None:
        sender.send_all(CONTENT[:30])
        sender.send_all(CONTENT[30:])
        got = b""
        try:
            with strike:
                while len(got) < 50:
                    got += how(receiver)
        except Struck:
            pass
        rest = Background(receiver.receive_exactly, len(CONTENT) - len(got), timeout=TIMEOUT).result()
        assert got + rest == CONTENT

    assert strike_everywhere(trial) > 20
    sender.abort()
    receiver.abort()


def trial_of(send: Callable[[bytes], object], receive: Callable[[], bytes]) -> Callable[[Strike], None]:
    def trial(strike: Strike) -> None:
        for number in range(3):
            send(b"%d" % number)
        got: list[bytes] = []
        try:
            with strike:
                while len(got) < 2:
                    got.append(receive())
        except (Struck, Alarm):
            pass
        got += Background(lambda: [receive() for _ in range(3 - len(got))]).result()
        assert sorted(got) == [b"0", b"1", b"2"]

    return trial


def with_codecs_and_errors(test: Any) -> Any:
    codecs = LineCodec(), JSONCodec().map(encode=int, decode=str)
    return pytest.mark.parametrize("error", [Struck, Alarm])(
        pytest.mark.parametrize("codec", codecs, ids=["lines", "mapped JSON"])(test))


def test_datagrams_of_udp() -> None:
    with create_udp_socket(interface="127.0.0.1") as receiver, create_udp_socket() as sender:
        trial = trial_of(lambda data: sender.send_to(data, receiver.local_address),
                         lambda: receiver.receive(timeout=TIMEOUT)[0])
        assert strike_everywhere(trial) > 20


def test_datagrams_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with (create_unix_datagram_socket(path=path) as receiver,
          create_unix_datagram_socket(target_path=path) as sender):
        assert strike_everywhere(trial_of(sender.send, lambda: receiver.receive(timeout=TIMEOUT)[0])) > 20


@with_codecs_and_errors
def test_packets_in_datagrams(codec: Codec[str, str], error: type[BaseException]) -> None:
    with create_udp_socket(interface="127.0.0.1") as far:
        with DatagramClient(far.local_address, codec) as client:
            client.send_packet("0")
            _, address = far.receive(timeout=TIMEOUT)
            trial = trial_of(lambda data: far.send_to(data + b"\n", address),
                             lambda: client.recv_packet(timeout=TIMEOUT).encode())
            assert strike_everywhere(trial, error) > 20


@with_codecs_and_errors
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
def test_packets_in_a_stream(codec: Codec[str, str], error: type[BaseException], at_once: bool) -> None:
    stream, peer = memory_stream_pair()
    held = bytearray()

    def send(data: bytes) -> None:
        held.extend(data + b"\n")
        if not at_once or data == b"2":
            peer.send_all(held)
            held.clear()

    with PacketClient(stream, codec) as client, peer:
        trial = trial_of(send, lambda: client.recv_packet(timeout=TIMEOUT).encode())
        assert strike_everywhere(trial, error) > 20


@pytest.mark.parametrize("one_at_a_time", [True, False], ids=["conversing", "streaming"])
def test_messages(one_at_a_time: bool) -> None:
    with Søcket() as sender, Søcket() as receiver:
        receiver.bind(port=0)
        sender.connect(port=receiver.bound_port)
        sender.wait_for_peers(timeout=TIMEOUT)
        if one_at_a_time:  # until the thread that receives reads the connection itself
            for _ in range(100):
                sender.send(b"")
                receiver.recv(timeout=TIMEOUT)
        assert strike_everywhere(trial_of(sender.send, lambda: receiver.recv(timeout=TIMEOUT))) > 5


def test_connections() -> None:
    with create_tcp_server(interface="127.0.0.1") as listener:
        def trial(strike: Strike) -> None:
            with connect_tcp("127.0.0.1", listener.port) as client:
                try:
                    with strike:
                        stream = listener.accept(timeout=TIMEOUT)
                except Struck:
                    stream = Background(listener.accept, timeout=TIMEOUT).result()
                with stream:
                    assert stream.remote_address == client.local_address

        assert strike_everywhere(trial) > 20


def strike_while_another_begins_to_wait(send: Callable[[], object], receive: Callable[[], Any],
                                        use: Callable[[Any], object] = repr) -> int:
    """Everywhere in ``receive``, of what ``send`` sends: the other, who is there already, gets what this one leaves."""
    others: list[Background] = []

    def struck(text: str) -> Struck:
        others.append(Background(receive))
        until_polling_or_over(others[-1])
        return Struck(text)

    def trial(strike: Strike) -> None:
        send()
        try:
            with strike:
                got = receive()
        except Struck:
            got = others[-1].result()
        use(got)

    return strike_everywhere(trial, struck)


@pytest.mark.parametrize("kind", ["udp", "unix"])
@pytest.mark.parametrize("how", [
    lambda sock: sock.receive(timeout=TIMEOUT), lambda sock: next(sock.receive_packets(timeout=TIMEOUT)),
], ids=["receive", "iterate"])
def test_a_datagram_is_for_who_waits_already(kind: str, how: Callable[[Any], object], tmp_path: Path) -> None:
    with (create_udp_socket(interface="127.0.0.1") if kind == "udp" else
          create_unix_datagram_socket(path=tmp_path / "socket")) as sock:
        send = lambda: sock.send_to(b"x", sock.local_address)  # noqa: E731
        assert strike_while_another_begins_to_wait(send, lambda: how(sock)) > 10


@pytest.mark.parametrize("kind", ["udp", "unix"])
@pytest.mark.parametrize("how", [
    lambda client: client.recv_packet(timeout=TIMEOUT),
    lambda client: next(client.iter_received_packets(timeout=TIMEOUT)),
], ids=["recv", "iterate"])
def test_a_packet_in_a_datagram_is_for_who_waits_already(kind: str, how: Callable[[Any], object],
                                                         tmp_path: Path) -> None:
    with (create_udp_socket(interface="127.0.0.1") if kind == "udp" else
          create_unix_datagram_socket(path=tmp_path / "socket")) as far:
        with DatagramClient(far.local_address, LineCodec()) as client:
            client.send_packet("hello")
            _, address = far.receive(timeout=TIMEOUT)
            assert strike_while_another_begins_to_wait(lambda: far.send_to(b"x", address), lambda: how(client)) > 10


def test_a_connection_is_for_who_waits_already() -> None:
    with create_tcp_server(interface="127.0.0.1") as listener, ExitStack() as clients:
        assert strike_while_another_begins_to_wait(
            lambda: clients.enter_context(connect_tcp("127.0.0.1", listener.port)),
            lambda: listener.accept(timeout=TIMEOUT), lambda stream: stream.close()) > 10


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_an_address_of_which_nobody_got_the_listener_is_free(kind: str, tmp_path: Path) -> None:
    with create_tcp_server(interface="127.0.0.1") as before:
        free_port = before.port

    def listen() -> Listener:
        if kind == "tcp":
            return create_tcp_server(free_port, interface="127.0.0.1")
        return create_unix_server(tmp_path / "socket")

    def trial(strike: Strike) -> None:
        taken: list[Listener] = []
        try:
            with strike:
                taken += [listen()]
        except Struck:
            listen().close()  # while the traceback keeps alive what there was
        for listener in taken:
            listener.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of one that was made and not returned
        assert strike_everywhere(trial) > 20


def test_a_connection_that_nobody_takes_is_closed_with_the_listener() -> None:
    def trial(strike: Strike) -> None:
        listener = create_tcp_server(interface="127.0.0.1")
        taken: list[ByteStream] = []
        with connect_tcp("127.0.0.1", listener.port) as client:
            try:
                with strike:
                    taken += [listener.accept(timeout=TIMEOUT)]
            except Struck:
                pass
            listener.close()
            for stream in taken:
                stream.abort()
            try:
                assert client.receive(timeout=TIMEOUT) == b""
            except ConnectionError:
                pass  # it was reset

    assert strike_everywhere(trial) > 20


@pytest.mark.parametrize("kind", ["memory", "unix", "tcp", "tls13"])
@pytest.mark.parametrize("how", ["receive", "receive_into", "receive_until", "recv_packet", "file"])
def test_what_is_left_when_the_next_was_woken_wakes_that_again(kind: str, how: str, tmp_path: Path,
                                                               tls_contexts: Contexts) -> None:
    """It has come to wait for the network meanwhile."""
    sender, receiver = connect(kind, tmp_path, tls_contexts)
    client = PacketClient(receiver, LineCodec()) if how == "recv_packet" else None
    file = receiver.makefile("rb", buffering=0)
    receive: dict[str, Callable[[], Any]] = {
        "receive": lambda: receiver.receive(timeout=TIMEOUT),
        "receive_into": lambda: receiver.receive_into(bytearray(10), timeout=TIMEOUT),
        "receive_until": lambda: receiver.receive_until(b"\n", timeout=TIMEOUT),
        "recv_packet": lambda: client is not None and client.recv_packet(timeout=TIMEOUT),
        "file": lambda: file.read(10),
    }
    others: list[Background] = []
    main = threading.current_thread()

    def feed() -> None:
        until_asleep(main)
        others.append(Background(receive[how]))
        until_asleep(others[0])
        sender.send_all(b"line\n")

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_return" and argument.__name__ == "release" and frame.f_code.co_name in ("take", "_recv"):
            until_asleep_or_over(others[0])
            raise Struck("the next was woken")

    feeding = Background(feed)
    sys.setprofile(profile)
    try:
        with pytest.raises(Struck):
            receive[how]()
    finally:
        sys.setprofile(None)
    feeding.result()
    assert others[0].result() in (b"line\n", b"line", "line", 5)
    sender.abort()
    receiver.abort()
