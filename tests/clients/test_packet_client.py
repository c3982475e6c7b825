"""Whole packets over streams of every kind."""

from __future__ import annotations

import gc
import os
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.blocking import until_asleep
from support.forking import fork
from support.pairs import TIMEOUT, Background
from support.streams import connect

from netmsg import (
    ByteStream, ClosedError, Codec, ConnectFailedError, ConnectionBrokenError, Decoder, DelimitedCodec, EndOfStream,
    ForkedError, IncompleteReadError, JSONCodec, LineCodec, Listener, LocalProtocolError, NetstringCodec, PacketClient,
    PacketDecodeError, PacketEncodeError, RemoteProtocolError, SendTimeoutError, SocketStream, TLSHandshakeError,
    connect_tcp, create_tcp_server, create_unix_server, memory_stream_pair,
)

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
Pair = tuple[PacketClient[str, str], ByteStream]


@pytest.fixture(params=["tcp", "unix", "memory", "tls12", "tls13", "tls-in-tls"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, tls_contexts: Contexts) -> Iterator[Pair]:
    """A client of lines, and the other end's stream."""
    stream, peer = connect(request.param, tmp_path, tls_contexts)
    with PacketClient(stream, LineCodec()) as client, peer:
        yield client, peer
        peer.abort()


def accept_tls(listener: Listener) -> SocketStream:
    stream = listener.accept(timeout=TIMEOUT)
    stream.do_handshake(timeout=TIMEOUT)
    return stream


def test_70_a_whole_line_is_a_packet(pair: Pair) -> None:
    client, peer = pair
    peer.send_all(b"hello\n")
    assert client.recv_packet(timeout=TIMEOUT) == "hello"
    client.send_packet("wörld")
    assert peer.receive_until(b"\n", timeout=TIMEOUT).decode() == "wörld"


@pytest.mark.parametrize("timeout", [None, TIMEOUT, 5, 0, 0.0])
def test_a_packet_that_is_there_costs_one_call(timeout: float | None) -> None:
    stream, peer = memory_stream_pair()
    calls: list[str] = []
    with PacketClient(stream, LineCodec()) as client, peer:
        peer.send_all(b"a\nb\nc\n")
        assert client.recv_packet(timeout=TIMEOUT) == "a"
        sys.setprofile(lambda frame, event, argument: calls.append(event))
        packet = client.recv_packet(timeout=timeout)
        sys.setprofile(None)
        assert packet == "b"
        for wrong, error in ((-1, ValueError), (float("nan"), ValueError), ("1", TypeError)):
            with pytest.raises(error):
                client.recv_packet(timeout=wrong)  # type: ignore[arg-type]
        assert client.recv_packet(timeout=0) == "c"
    assert calls.count("call") == 1


def test_71_two_halves_are_one_packet(pair: Pair) -> None:
    client, peer = pair
    peer.send_all(b"hel")
    with pytest.raises(TimeoutError):
        client.recv_packet(timeout=0.05)
    peer.send_all(b"lo\n")
    assert client.recv_packet(timeout=TIMEOUT) == "hello"


def test_72_four_and_a_half_lines_in_a_segment(pair: Pair) -> None:
    client, peer = pair
    peer.send_all(b"1\n2\n3\n4\nfi")
    assert client.recv_packet(timeout=TIMEOUT) == "1"
    assert [client.recv_packet(timeout=0) for _ in range(3)] == ["2", "3", "4"]
    with pytest.raises(TimeoutError):
        client.recv_packet(timeout=0)
    peer.send_all(b"ve\n")
    assert client.recv_packet(timeout=TIMEOUT) == "five"


def test_73_the_end_is_told_from_a_break_and_from_our_own_close(pair: Pair) -> None:
    client, peer = pair
    peer.send_all(b"last\n")
    peer.close(timeout=0.1)
    assert client.recv_packet(timeout=TIMEOUT) == "last"
    for _ in range(2):
        with pytest.raises(EndOfStream):
            client.recv_packet(timeout=TIMEOUT)
    with pytest.raises(ConnectionBrokenError):
        while True:
            client.send_packet("x" * 1000, timeout=TIMEOUT)
    client.close()
    with pytest.raises(ClosedError):
        client.recv_packet(timeout=TIMEOUT)
    with pytest.raises(ClosedError):
        client.send_packet("late")


def test_73_a_reset_is_a_break() -> None:
    with create_tcp_server(interface="127.0.0.1") as listener:
        with PacketClient(("127.0.0.1", listener.port), LineCodec()) as client:
            listener.accept(timeout=TIMEOUT).abort()
            for _ in range(2):
                with pytest.raises(ConnectionBrokenError):
                    client.recv_packet(timeout=TIMEOUT)


def test_73_the_end_in_the_middle_of_a_packet_is_another_error(pair: Pair) -> None:
    client, peer = pair
    peer.send_all(b"whole\nha")
    peer.send_eof()
    assert client.recv_packet(timeout=TIMEOUT) == "whole"
    for _ in range(2):
        with pytest.raises(IncompleteReadError) as caught:
            client.recv_packet(timeout=TIMEOUT)
        assert caught.value.partial == b"ha"


def test_74_after_the_other_end_has_finished_sending_still_works(pair: Pair) -> None:
    client, peer = pair
    peer.send_eof()
    with pytest.raises(EndOfStream):
        client.recv_packet(timeout=TIMEOUT)
    client.send_packet("still here")
    assert peer.receive_until(b"\n", timeout=TIMEOUT) == b"still here"


def test_74_sending_after_our_own_end_is_refused_and_receiving_goes_on(pair: Pair) -> None:
    client, peer = pair
    client.send_packet("bye")
    client.send_eof()
    client.send_eof()
    with pytest.raises(LocalProtocolError):
        client.send_packet("more")
    assert peer.receive_until(b"\n", timeout=TIMEOUT) == b"bye"
    assert peer.receive(timeout=TIMEOUT) == b""
    peer.send_all(b"answer\n")
    assert client.recv_packet(timeout=TIMEOUT) == "answer"


def test_75_a_bad_packet_stands_between_its_neighbours(pair: Pair) -> None:
    client, peer = pair
    peer.send_all(b"a\n\xff\n\xfe\nb\n")
    assert client.recv_packet(timeout=TIMEOUT) == "a"
    for data in (b"\xff", b"\xfe"):
        with pytest.raises(PacketDecodeError) as caught:
            client.recv_packet(timeout=TIMEOUT)
        assert caught.value.data == data
    assert client.recv_packet(timeout=TIMEOUT) == "b"


def test_75_thousands_of_bad_packets_cost_no_more_than_good_ones() -> None:
    stream, peer = memory_stream_pair(buffer_size=2**20)
    with PacketClient(stream, JSONCodec()) as client, peer:
        peer.send_all(b"\n" * 50_000 + b"1\n")
        refused = 0
        while True:
            try:
                assert client.recv_packet(timeout=TIMEOUT) == 1
                break
            except PacketDecodeError:
                refused += 1
        assert refused == 50_000


def test_76_iterating_takes_what_is_there(pair: Pair) -> None:
    client, peer = pair
    assert list(client.iter_received_packets()) == []
    peer.send_all(b"1\n2\n3\n")
    assert client.recv_packet(timeout=TIMEOUT) == "1"
    assert list(client.iter_received_packets()) == ["2", "3"]


def test_76_the_timeout_is_for_all_the_waiting_together(pair: Pair) -> None:
    client, peer = pair
    over = threading.Event()

    def trickle() -> None:
        while not over.wait(0.05):
            peer.send_all(b"drop\n")

    trickling = Background(trickle)
    start = time.monotonic()
    got = list(client.iter_received_packets(timeout=0.3))
    took = time.monotonic() - start
    over.set()
    trickling.result()
    assert 0.25 < took < 5
    assert 1 <= len(got) and set(got) == {"drop"}


def test_76_time_that_is_spent_elsewhere_does_not_count() -> None:
    stream, peer = memory_stream_pair()
    with PacketClient(stream, LineCodec()) as client, peer:
        peer.send_all(b"1\n")
        packets = client.iter_received_packets(timeout=0.2)
        assert next(packets) == "1"
        time.sleep(0.4)  # longer than the iterator may wait, and it does not
        late = threading.Timer(0.05, peer.send_all, [b"2\n"])
        late.start()
        assert next(packets) == "2"
        late.join()


def test_76_errors_come_through_and_the_iterator_goes_on(pair: Pair) -> None:
    client, peer = pair
    peer.send_all(b"a\n\xff\nb\n")
    peer.send_eof()
    for packets in (client.iter_received_packets(timeout=TIMEOUT), iter(client)):
        assert next(packets) == "a"
        with pytest.raises(PacketDecodeError):
            next(packets)
        assert list(packets) == ["b"]
        break
    assert list(client.iter_received_packets(timeout=None)) == []


def test_76_without_a_timeout_it_goes_on_to_the_end(pair: Pair) -> None:
    client, peer = pair
    peer.send_all(b"1\n2\n")

    def send_the_rest() -> None:
        peer.send_all(b"3\n")
        peer.send_eof()

    late = threading.Timer(0.1, send_the_rest)
    late.start()
    assert list(client.iter_received_packets(timeout=None)) == ["1", "2", "3"]
    late.join()


def test_76_iterating_over_the_client_ends_with_the_stream_and_raises_at_a_break() -> None:
    with create_tcp_server(interface="127.0.0.1") as listener:
        with PacketClient(("127.0.0.1", listener.port), LineCodec()) as client:
            with listener.accept(timeout=TIMEOUT) as peer:
                peer.send_all(b"1\n2\n")
            assert list(client) == ["1", "2"]
        with PacketClient(("127.0.0.1", listener.port), LineCodec()) as client:
            peer = listener.accept(timeout=TIMEOUT)
            peer.send_all(b"1\n")
            assert client.recv_packet(timeout=TIMEOUT) == "1"
            peer.abort()
            with pytest.raises(ConnectionBrokenError):
                list(client)


def test_77_a_connected_socket_belongs_to_the_client() -> None:
    ours, theirs = socket.socketpair()
    with theirs, PacketClient(ours, LineCodec()) as client:
        assert client.fileno() == ours.fileno()
        client.send_packet("hello")
        assert theirs.recv(100) == b"hello\n"
    assert ours.fileno() == -1


@pytest.mark.parametrize("options", [{"codec": "no codec"}, {"max_recv_size": 0}, {"connect_timeout": -1},
                                     {"local_address": ("127.0.0.1", 0)}, {"ssl_context": 5}], ids=str)
def test_77_a_socket_stays_its_owners_if_anything_is_wrong(options: dict[str, Any]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises((TypeError, ValueError)):
            PacketClient(ours, **{"codec": LineCodec(), **options})
        assert ours.fileno() >= 0
        assert ours.getblocking()
        ours.send(b"x")
        assert theirs.recv(10) == b"x"


def test_77_a_socket_that_is_not_connected_is_an_oserror() -> None:
    with socket.socket() as sock:
        with pytest.raises(OSError):
            PacketClient(sock, LineCodec())
        assert sock.fileno() >= 0
    with pytest.raises(OSError):
        PacketClient(sock, LineCodec())  # closed
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect(("127.0.0.1", 9))
        with pytest.raises(ValueError):
            PacketClient(datagrams, LineCodec())
        assert datagrams.fileno() >= 0


def test_77_a_socket_goes_under_tls(tls_contexts: Contexts) -> None:
    with create_tcp_server(interface="127.0.0.1", ssl_context=tls_contexts[0]) as listener:
        accepting = Background(accept_tls, listener)
        sock = socket.create_connection(("127.0.0.1", listener.port))
        with PacketClient(sock, LineCodec(), ssl_context=tls_contexts[1], server_hostname="localhost",
                          connect_timeout=TIMEOUT) as client:
            assert client.tls is not None
            assert client.tls.server_hostname == "localhost"
            assert sock.fileno() == -1
            accepting.result().close()


def test_77_a_socket_whose_handshake_fails_stays_its_owners(tls_contexts: Contexts) -> None:
    with create_tcp_server(interface="127.0.0.1") as listener:
        with socket.create_connection(("127.0.0.1", listener.port)) as sock, listener.accept(timeout=TIMEOUT) as peer:
            sock.settimeout(3)
            peer.send_all(b"no TLS here\n")
            with pytest.raises(TLSHandshakeError):
                PacketClient(sock, LineCodec(), ssl_context=tls_contexts[1], server_hostname="localhost",
                             connect_timeout=TIMEOUT)
            assert sock.fileno() >= 0
            assert sock.gettimeout() == 3
        with socket.create_connection(("127.0.0.1", listener.port)) as sock:
            with pytest.raises(TimeoutError):
                PacketClient(sock, LineCodec(), ssl_context=tls_contexts[1], server_hostname="localhost",
                             connect_timeout=0.05)
            assert sock.fileno() >= 0


def test_78_a_packet_that_is_too_long_does_not_end_the_connection() -> None:
    stream, peer = memory_stream_pair()
    with PacketClient(stream, LineCodec(max_packet_size=10)) as client, peer:
        peer.send_all(b"x" * 25)
        with pytest.raises(PacketDecodeError):
            client.recv_packet(timeout=TIMEOUT)
        peer.send_all(b"y" * 25 + b"\nok\n")
        assert client.recv_packet(timeout=TIMEOUT) == "ok"


def test_78_but_where_nothing_can_be_found_behind_it_the_peer_has_broken_the_rules() -> None:
    stream, peer = memory_stream_pair()
    with PacketClient(stream, NetstringCodec()) as client, peer:
        peer.send_all(b"2:ok,nonsense,2:ok,")
        assert client.recv_packet(timeout=TIMEOUT) == b"ok"
        with pytest.raises(PacketDecodeError):
            client.recv_packet(timeout=TIMEOUT)
        for _ in range(2):
            with pytest.raises(RemoteProtocolError):
                client.recv_packet(timeout=TIMEOUT)
        client.send_packet(b"sorry")
        assert peer.receive_until(b",", timeout=TIMEOUT) == b"5:sorry"


def test_79_what_cannot_be_encoded_is_not_sent(pair: Pair) -> None:
    client, peer = pair
    with pytest.raises(PacketEncodeError):
        client.send_packet("two\nlines")
    client.send_packet("one line")
    assert peer.receive_until(b"\n", timeout=TIMEOUT) == b"one line"


def test_82_waiting_for_ones_turn_counts_against_the_timeout() -> None:
    stream, peer = memory_stream_pair(buffer_size=10)
    with PacketClient(stream, LineCodec()) as client, peer:
        receiving = Background(client.recv_packet)
        sending = Background(client.send_packet, "x" * 1000)
        peer.receive_exactly(20, timeout=TIMEOUT)  # so both are inside
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=0.1)
        with pytest.raises(SendTimeoutError):
            client.send_packet("y", timeout=0.1)
        assert time.monotonic() - start < 5
        peer.receive_exactly(981, timeout=TIMEOUT)
        sending.result()
        peer.send_all(b"done\n")
        assert receiving.result() == "done"


def test_82_a_bad_timeout_is_told_before_anything_else(pair: Pair) -> None:
    client, _ = pair
    for call in (lambda: client.send_packet("two\nlines", timeout=-1), lambda: client.recv_packet(timeout=-1),
                 lambda: client.iter_received_packets(timeout=float("nan")), lambda: client.send_eof(timeout=-1),
                 lambda: client.start_tls(timeout=-1)):
        with pytest.raises(ValueError, match="timeout"):
            call()


def test_one_thread_may_send_while_another_receives_and_packets_stay_whole(pair: Pair) -> None:
    client, peer = pair
    count = 300

    def echo() -> None:
        for line in peer.receive_delimited_chunks(b"\n"):
            peer.send_all(line + b"\n")

    def send(name: str) -> None:
        for number in range(count):
            client.send_packet(f"{name} {number} " + "x" * 500, timeout=TIMEOUT)

    echoing = Background(echo)
    senders = [Background(send, name) for name in "ab"]
    got: list[str] = []
    lock = threading.Lock()

    def receive() -> None:
        while True:
            with lock:
                if len(got) == 2 * count:
                    return
                got.append(client.recv_packet(timeout=TIMEOUT))

    receivers = [Background(receive) for _ in range(2)]
    for thread in (*senders, *receivers):
        thread.result(timeout=30)
    for name in "ab":
        assert [line.split()[1] for line in got if line[0] == name] == [str(number) for number in range(count)]
    client.send_eof()
    echoing.result()


def test_each_packet_goes_to_one_of_several_receivers() -> None:
    stream, peer = memory_stream_pair()
    with PacketClient(stream, LineCodec()) as client, peer:
        got: list[str] = []

        def receive() -> None:
            for packet in client:
                got.append(packet)

        receivers = [Background(receive) for _ in range(4)]
        for number in range(2000):
            peer.send_all(f"{number}\n".encode())
        peer.send_eof()
        for receiver in receivers:
            receiver.result()
        assert sorted(map(int, got)) == list(range(2000))


def test_closing_wakes_whoever_is_blocked(pair: Pair) -> None:
    client, _ = pair
    receiving = Background(client.recv_packet)
    iterating = Background(list, client)
    until_asleep(receiving, iterating)  # one is inside, and the other waits behind it
    client.close()
    for call in (receiving, iterating):
        with pytest.raises(ClosedError):
            call.result()
    assert client.closed
    assert client.fileno() == -1


def test_closing_wakes_who_waits_behind_a_decoder_that_takes_its_time() -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    def restore(line: str) -> str:
        begun.set()
        may_go_on.wait(TIMEOUT)
        return line

    stream, peer = memory_stream_pair()
    client = PacketClient(stream, LineCodec().map(decode=restore))
    peer.send_all(b"line\n")
    busy = Background(client.recv_packet)
    assert begun.wait(TIMEOUT)
    waiting = [Background(client.recv_packet) for _ in range(2)]
    until_asleep(*waiting)
    client.close()
    for call in waiting:
        with pytest.raises(ClosedError):
            call.result()
    assert busy.is_alive()
    may_go_on.set()
    busy.join(TIMEOUT)
    assert not busy.is_alive()
    peer.abort()


def test_what_was_received_cannot_be_had_after_close() -> None:
    stream, peer = memory_stream_pair()
    with PacketClient(stream, LineCodec()) as client, peer:
        peer.send_all(b"1\n2\n3\n")
        assert client.recv_packet(timeout=TIMEOUT) == "1"
        client.close()
        with pytest.raises(ClosedError):
            client.recv_packet()
        with pytest.raises(ClosedError):
            client.recv_packet(timeout=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_in_a_forked_child_it_is_refused() -> None:
    with create_tcp_server(interface="127.0.0.1") as listener:
        with PacketClient(("127.0.0.1", listener.port), LineCodec()) as client, listener.accept() as peer:
            peer.send_all(b"1\n2\n")
            assert client.recv_packet(timeout=TIMEOUT) == "1"
            child = fork()
            if not child:
                try:
                    client.recv_packet()
                except ForkedError:
                    os._exit(42)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
            assert client.recv_packet(timeout=TIMEOUT) == "2"
            client.send_packet("unharmed")
            assert peer.receive_until(b"\n", timeout=TIMEOUT) == b"unharmed"


# Connecting

def test_over_tcp_with_a_local_address() -> None:
    with create_tcp_server(interface="127.0.0.1") as listener:
        with PacketClient(("localhost", listener.port), LineCodec(), connect_timeout=TIMEOUT,
                          local_address=("127.0.0.2", 0)) as client, listener.accept(timeout=TIMEOUT) as peer:
            assert client.remote_address == ("127.0.0.1", listener.port)
            assert client.local_address[0] == "127.0.0.2"
            assert peer.remote_address == client.local_address
            assert client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert client.tls is None
    assert client.remote_address == ("127.0.0.1", listener.port)


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_over_a_unix_socket(tmp_path: Path, kind: Any) -> None:
    with create_unix_server(tmp_path / "socket") as listener:
        with PacketClient(kind(tmp_path / "socket"), LineCodec()) as client, listener.accept() as peer:
            client.send_packet("hello")
            assert peer.receive(timeout=TIMEOUT) == b"hello\n"


def test_over_tls(tls_contexts: Contexts) -> None:
    with create_tcp_server(ssl_context=tls_contexts[0]) as listener:
        accepting = Background(accept_tls, listener)
        with PacketClient(("localhost", listener.port), LineCodec(), ssl_context=tls_contexts[1],
                          connect_timeout=TIMEOUT) as client:
            assert client.tls is not None and client.tls.version == "TLSv1.3"
            accepting.result().close()


def test_nobody_there() -> None:
    with create_tcp_server(interface="127.0.0.1") as listener:
        port = listener.port
    with pytest.raises(ConnectFailedError) as caught:
        PacketClient(("127.0.0.1", port), LineCodec(), connect_timeout=TIMEOUT)
    assert isinstance(caught.value, ConnectionRefusedError)


@pytest.mark.parametrize("options", [{"connect_timeout": 1.0}, {"ssl_context": True}, {"server_hostname": "localhost"},
                                     {"local_address": ("127.0.0.1", 0)}], ids=str)
def test_options_for_connecting_do_not_go_with_a_stream(options: dict[str, Any]) -> None:
    stream, peer = memory_stream_pair()
    with stream, peer:
        with pytest.raises(ValueError):
            PacketClient(stream, LineCodec(), **options)
        assert not stream.closed


def test_a_closed_stream_is_refused() -> None:
    stream, peer = memory_stream_pair()
    stream.close()
    with peer, pytest.raises(ClosedError):
        PacketClient(stream, LineCodec())


@pytest.mark.parametrize("target", [5, None, ["localhost", 5], ("localhost",), ("localhost", 5, 6), ("localhost", "5")],
                         ids=repr)
def test_targets_that_are_none(target: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        PacketClient(target, LineCodec())


def test_max_recv_size_bounds_what_is_asked_for() -> None:
    ours, theirs = socket.socketpair()
    with theirs, PacketClient(ours, DelimitedCodec(b";"), max_recv_size=7) as client:
        theirs.sendall(b"0123456789;a;")
        assert client.recv_packet(timeout=TIMEOUT) == b"0123456789"
        assert client.recv_packet(timeout=TIMEOUT) == b"a"


# STARTTLS

@pytest.mark.parametrize("kind", ["tcp", "unix", "memory"])
def test_packets_go_on_under_tls(kind: str, tmp_path: Path, tls_contexts: Contexts) -> None:
    stream, peer_stream = connect(kind, tmp_path, tls_contexts)
    with PacketClient(stream, LineCodec()) as client, PacketClient(peer_stream, LineCodec()) as server:
        client.send_packet("STARTTLS")
        assert server.recv_packet(timeout=TIMEOUT) == "STARTTLS"
        server.send_packet("go ahead")
        upgrading = Background(server.start_tls, tls_contexts[0], server_side=True, timeout=TIMEOUT)
        assert client.recv_packet(timeout=TIMEOUT) == "go ahead"
        client.start_tls(tls_contexts[1], server_side=False, server_hostname="localhost", timeout=TIMEOUT)
        upgrading.result()
        assert client.tls is not None and server.tls is not None
        client.send_packet("secret")
        assert server.recv_packet(timeout=TIMEOUT) == "secret"


@pytest.mark.parametrize("injected", [b"evil\n", b"ev", b"\xff\n"])
def test_what_was_injected_before_tls_is_never_returned(tls_contexts: Contexts, injected: bytes) -> None:
    with create_tcp_server(interface="127.0.0.1") as listener:
        with (PacketClient(("127.0.0.1", listener.port), LineCodec()) as client,
              listener.accept(timeout=TIMEOUT) as peer):
            peer.send_all(b"go ahead\n" + injected)
            assert client.recv_packet(timeout=TIMEOUT) == "go ahead"
            with pytest.raises(RemoteProtocolError):
                client.start_tls(tls_contexts[1], server_hostname="localhost", timeout=TIMEOUT)
            assert client.closed
            with pytest.raises(ClosedError):
                client.recv_packet(timeout=TIMEOUT)


def test_a_failed_upgrade_closes_the_client(tls_contexts: Contexts) -> None:
    with create_tcp_server(interface="127.0.0.1") as listener:
        with (PacketClient(("127.0.0.1", listener.port), LineCodec()) as client,
              listener.accept(timeout=TIMEOUT) as peer):
            late = threading.Timer(0.1, peer.send_all, [b"not TLS at all, sorry\n"])
            late.start()
            with pytest.raises(TLSHandshakeError):
                client.start_tls(tls_contexts[1], server_hostname="localhost", timeout=TIMEOUT)
            assert client.closed
            late.join()


def test_an_upgrade_waits_for_its_turn_within_its_time(tls_contexts: Contexts) -> None:
    stream, peer = memory_stream_pair()
    with PacketClient(stream, LineCodec()) as client, peer:
        receiving = Background(client.recv_packet)
        until_asleep(receiving)
        with pytest.raises(TimeoutError):
            client.start_tls(tls_contexts[1], server_side=False, server_hostname="localhost", timeout=0.05)
        assert not client.closed
        peer.send_all(b"hello\n")
        assert receiving.result() == "hello"


def test_a_stream_that_was_connected_elsewhere_with_something_read_ahead() -> None:
    with create_tcp_server(interface="127.0.0.1") as listener:
        stream = connect_tcp("127.0.0.1", listener.port)
        with listener.accept(timeout=TIMEOUT) as peer:
            peer.send_all(b"CONNECT\nfirst\nsecond\n")
            assert stream.receive_until(b"\n", timeout=TIMEOUT) == b"CONNECT"
            with PacketClient(stream, LineCodec()) as client:
                assert [client.recv_packet(timeout=TIMEOUT) for _ in range(2)] == ["first", "second"]
    assert stream.closed


def test_reset_with_something_unread() -> None:
    """What had arrived before the reset is returned, on platforms that keep it."""
    with create_tcp_server(interface="127.0.0.1") as listener:
        with PacketClient(("127.0.0.1", listener.port), LineCodec()) as client:
            peer = listener.accept(timeout=TIMEOUT)
            peer.send_all(b"1\n2\n")
            assert client.recv_packet(timeout=TIMEOUT) == "1"
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.abort()
            assert client.recv_packet(timeout=TIMEOUT) == "2"
            with pytest.raises(ConnectionBrokenError):
                client.recv_packet(timeout=TIMEOUT)


class Failing(Decoder[int]):
    """Lines of digits; nobody has thought of anything else."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[int | PacketDecodeError]:
        *lines, self.rest = (self.rest + data).split(b"\n")
        return [int(line) for line in lines]

    def end(self) -> None:
        """Nothing to say."""


class Digits(Codec[int, int]):
    def encode(self, packet: int) -> bytes:
        return b"%d\n" % packet

    def decoder(self) -> Decoder[int]:
        return Failing()


@pytest.mark.parametrize("in_main_thread", [True, False])
def test_what_a_decoder_raises_is_told_once(in_main_thread: bool) -> None:
    """And not again and again, with the same bytes."""
    stream, peer = memory_stream_pair()

    def receive() -> list[Any]:
        got: list[Any] = []
        for _ in range(4):
            try:
                got.append(client.recv_packet(timeout=TIMEOUT))
            except (PacketDecodeError, RemoteProtocolError) as error:
                got.append(type(error))
        return got

    with PacketClient(stream, Digits()) as client, peer:
        peer.send_all(b"1\n")
        assert client.recv_packet(timeout=TIMEOUT) == 1
        peer.send_all(b"2\nx\n3\n")
        got = receive() if in_main_thread else Background(receive).result()
        assert got == [PacketDecodeError, RemoteProtocolError, RemoteProtocolError, RemoteProtocolError]


class Payload:
    """Something whose end can be seen."""


def ends(client: PacketClient[str, str], error: type[Exception]) -> weakref.ref[Payload]:
    """Receive an error, with something in the frame that would be kept alive by a traceback."""
    payload = Payload()
    with pytest.raises(error):
        client.recv_packet(timeout=TIMEOUT)
    return weakref.ref(payload)


@pytest.mark.parametrize(("last_words", "error"), [
    (b"", EndOfStream), (b"half a li", IncompleteReadError), (b"\xff\n", PacketDecodeError)])
def test_no_error_keeps_alive_where_it_was_raised(last_words: bytes, error: type[Exception]) -> None:
    stream, peer = memory_stream_pair()
    gc.collect()
    gc.disable()
    try:
        with PacketClient(stream, LineCodec()) as client, peer:
            peer.send_all(last_words)
            peer.send_eof()
            payload = ends(client, error)
            assert payload() is None
    finally:
        gc.enable()


def test_the_end_may_be_asked_for_as_often_as_one_likes() -> None:
    stream, peer = memory_stream_pair()
    with PacketClient(stream, LineCodec()) as client, peer:
        peer.send_eof()
        depths = set()
        for _ in range(10):
            try:
                client.recv_packet(timeout=TIMEOUT)
            except EndOfStream as error:
                depths.add(len(traceback.extract_tb(error.__traceback__)))
        assert len(depths) == 1


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="the system does not tell")
def test_who_is_at_the_other_end_of_a_unix_socket(tmp_path: Path) -> None:
    with create_unix_server(tmp_path / "socket") as listener:
        with PacketClient(tmp_path / "socket", LineCodec()) as client, listener.accept(timeout=TIMEOUT):
            assert client.peer_credentials == (os.getpid(), os.getuid(), os.getgid())


def test_nobody_vouches_for_the_other_end_of_anything_else() -> None:
    stream, peer = memory_stream_pair()
    with PacketClient(stream, LineCodec()) as client, peer, pytest.raises(LocalProtocolError):
        client.peer_credentials
    with create_tcp_server(interface="127.0.0.1") as listener:
        with PacketClient(("127.0.0.1", listener.port), LineCodec()) as client, pytest.raises(LocalProtocolError):
            client.peer_credentials


@pytest.mark.parametrize("how", ["connect", "adopt", "start_tls", "start_tls of its own"])
@pytest.mark.parametrize("compatible", [True, False])
def test_an_end_without_the_goodbye_of_tls(how: str, compatible: bool, tls_contexts: Contexts) -> None:
    """Truncated, or (tls_standard_compatible=False) a clean end."""
    with create_tcp_server(interface="127.0.0.1", ssl_context=tls_contexts[0]) as listener:
        accepting = Background(accept_tls, listener)
        address = ("127.0.0.1", listener.port)
        options: Any = {"ssl_context": tls_contexts[1], "server_hostname": "localhost", "connect_timeout": TIMEOUT,
                        "tls_standard_compatible": compatible}
        if how == "connect":
            client = PacketClient(address, LineCodec(), **options)
        elif how == "adopt":
            client = PacketClient(socket.create_connection(address), LineCodec(), **options)
        elif how == "start_tls":
            client = PacketClient(address, LineCodec(), tls_standard_compatible=compatible)
            client.start_tls(tls_contexts[1], server_hostname="localhost", timeout=TIMEOUT)
        else:
            client = PacketClient(address, LineCodec())
            client.start_tls(tls_contexts[1], server_hostname="localhost", tls_standard_compatible=compatible,
                             timeout=TIMEOUT)
        with client, accepting.result() as peer:
            peer.send_all(b"hello\n")
            assert client.recv_packet(timeout=TIMEOUT) == "hello"
            hang_up = socket.socket(fileno=os.dup(peer.fileno()))
            hang_up.shutdown(socket.SHUT_WR)
            hang_up.close()
            with pytest.raises(ConnectionBrokenError if compatible else EndOfStream):
                client.recv_packet(timeout=TIMEOUT)
            client.abort()
            peer.abort()
