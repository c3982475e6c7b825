"""Packets over datagrams."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background
from support.wrong import wrong

from netmsg import (
    ClosedError, DatagramClient, JSONCodec, LineCodec, PacketDecodeError, PacketEncodeError, StructCodec,
    create_udp_socket, create_unix_datagram_socket,
)

Pair = tuple[DatagramClient[str, str], Any]


@pytest.fixture(params=["udp", "udp6", "unix", "abstract"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """A client of lines, and the socket at the other end."""
    if "udp" in request.param:
        peer: Any = create_udp_socket(interface="::1" if "6" in request.param else "127.0.0.1")
    else:
        peer = create_unix_datagram_socket(path=tmp_path / "peer" if request.param == "unix" else None)
    with peer, DatagramClient(peer.local_address, LineCodec()) as client:
        yield client, peer


def test_83_one_packet_in_one_datagram_both_ways(pair: Pair) -> None:
    client, peer = pair
    assert client.remote_address == peer.local_address
    client.send_packet("hello")
    data, address = peer.receive(timeout=TIMEOUT)
    assert data == b"hello\n"
    assert address == client.local_address
    peer.send_to(b"answer\n", address)
    peer.send_to(b"without its end", address)
    assert client.recv_packet(timeout=TIMEOUT) == "answer"
    assert client.recv_packet(timeout=TIMEOUT) == "without its end"


def test_83_bad_datagrams_stand_in_their_place(pair: Pair) -> None:
    client, peer = pair
    for data in (b"a\n", b"\xff\n", b"two\nlines\n", b"b\n"):
        peer.send_to(data, client.local_address)
    assert client.recv_packet(timeout=TIMEOUT) == "a"
    for data in (b"\xff", b"two\nlines\n"):
        with pytest.raises(PacketDecodeError) as caught:
            client.recv_packet(timeout=TIMEOUT)
        assert caught.value.data == data
    assert client.recv_packet(timeout=TIMEOUT) == "b"


def test_83_what_cannot_be_encoded_is_not_sent(pair: Pair) -> None:
    client, peer = pair
    with pytest.raises(PacketEncodeError):
        client.send_packet("two\nlines")
    client.send_packet("one")
    assert peer.receive(timeout=TIMEOUT)[0] == b"one\n"


def test_83_iterating(pair: Pair) -> None:
    client, peer = pair
    assert list(client.iter_received_packets()) == []
    for data in (b"1\n", b"\xff", b"2\n"):
        peer.send_to(data, client.local_address)
    packets = client.iter_received_packets(timeout=0.1)
    assert next(packets) == "1"
    with pytest.raises(PacketDecodeError):
        next(packets)
    start = time.monotonic()
    assert list(packets) == ["2"]
    assert time.monotonic() - start < 5


def test_83_running_out_of_time(pair: Pair) -> None:
    client, _ = pair
    for timeout in (0, 0.05):
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=timeout)
    for call in (lambda: client.send_packet("two\nlines", timeout=-1), lambda: client.recv_packet(timeout=-1),
                 lambda: client.iter_received_packets(timeout=-1)):
        with pytest.raises(ValueError, match="timeout"):
            call()


def test_83_closing_wakes_whoever_waits(pair: Pair) -> None:
    client, _ = pair
    receiving = Background(client.recv_packet)
    threading.Timer(0.05, client.close).start()
    with pytest.raises(ClosedError):
        receiving.result()
    with pytest.raises(ClosedError):
        client.send_packet("late")
    assert client.closed and client.fileno() == -1


def test_83_datagrams_of_strangers_are_passed_over(pair: Pair, tmp_path: Path) -> None:
    client, peer = pair
    if isinstance(client.local_address, tuple):
        stranger: Any = create_udp_socket(interface=client.local_address[0])
    else:
        stranger = create_unix_datagram_socket()
    with stranger:
        for _ in range(3):
            stranger.send_to(b"strange\n", client.local_address)
        peer.send_to(b"known\n", client.local_address)
        assert client.recv_packet(timeout=TIMEOUT) == "known"
        stranger.send_to(b"strange\n", client.local_address)
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=0.05)
        with pytest.raises(TimeoutError):
            client.recv_packet(timeout=0)


def test_83_nobody_there(tmp_path: Path) -> None:
    with create_udp_socket(interface="127.0.0.1") as peer:
        address = peer.local_address
    with DatagramClient(address, LineCodec()) as client:
        client.send_packet("anybody?")
        with pytest.raises(ConnectionRefusedError):
            client.recv_packet(timeout=TIMEOUT)
    with DatagramClient(tmp_path / "nobody", LineCodec()) as client:
        with pytest.raises(FileNotFoundError):
            client.send_packet("anybody?")


def test_83_too_long_for_a_datagram() -> None:
    with create_udp_socket(interface="127.0.0.1") as peer, DatagramClient(peer.local_address, LineCodec()) as client:
        with pytest.raises(OSError) as caught:
            client.send_packet("x" * 70_000)
        assert caught.value.errno == errno.EMSGSIZE


@pytest.mark.parametrize(("codec", "packet"), [(JSONCodec(), {"a": [1]}), (StructCodec("!IB"), (1, 2))])
def test_83_with_other_codecs(codec: Any, packet: Any) -> None:
    with create_udp_socket(interface="127.0.0.1") as peer, DatagramClient(peer.local_address, codec) as client:
        client.send_packet(packet)
        data, address = peer.receive(timeout=TIMEOUT)
        peer.send_to(data, address)
        assert client.recv_packet(timeout=TIMEOUT) == packet


def test_a_socket_of_ones_own() -> None:
    with create_udp_socket(interface="127.0.0.1") as peer:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock:
            with pytest.raises(OSError):
                DatagramClient(sock, LineCodec())
            assert sock.fileno() >= 0
            sock.connect(peer.local_address)
            with DatagramClient(sock, LineCodec()) as client:
                client.send_packet("hello")
                assert peer.receive(timeout=TIMEOUT)[0] == b"hello\n"
                assert client.socket.getsockname() == client.local_address
            assert sock.fileno() == -1
        with create_udp_socket(target_host="127.0.0.1", target_port=peer.local_address[1]) as own:
            with DatagramClient(own, LineCodec()) as client:
                assert client.remote_address == peer.local_address
            assert own.closed
            with pytest.raises(ClosedError):
                DatagramClient(own, LineCodec())
        with create_udp_socket() as nowhere, pytest.raises(ValueError):
            DatagramClient(nowhere, LineCodec())


@pytest.mark.parametrize("target", [5, None, ("localhost",), ["localhost", 1]], ids=repr)
def test_targets_that_are_none(target: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        DatagramClient(target, LineCodec())


def test_a_codec_is_needed() -> None:
    with pytest.raises(TypeError):
        DatagramClient(("127.0.0.1", 9), LineCodec)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_local_address_of_ones_own(host: str) -> None:
    with create_udp_socket(interface=host) as peer, create_udp_socket(interface=host) as probe:
        port = probe.local_address[1]
        probe.close()
        with DatagramClient(peer.local_address, LineCodec(), local_address=(host, port)) as client:
            assert client.local_address == (host, port)
            client.send_packet("hello")
            assert peer.receive(timeout=TIMEOUT) == (b"hello\n", (host, port))
            with pytest.raises(OSError) as caught:
                DatagramClient(peer.local_address, LineCodec(), local_address=(host, port))
            assert caught.value.errno == errno.EADDRINUSE


def test_a_local_path_of_ones_own(tmp_path: Path) -> None:
    with create_unix_datagram_socket(path=tmp_path / "peer") as peer:
        with DatagramClient(tmp_path / "peer", LineCodec(), local_address=tmp_path / "client") as client:
            client.send_packet("hello")
            assert peer.receive(timeout=TIMEOUT) == (b"hello\n", str(tmp_path / "client"))
            peer.send(b"answer\n", tmp_path / "client")
            assert client.recv_packet(timeout=TIMEOUT) == "answer"
        assert not (tmp_path / "client").exists()


def test_local_addresses_that_are_none(tmp_path: Path) -> None:
    with create_udp_socket(interface="127.0.0.1") as peer, \
            create_udp_socket(target_host="127.0.0.1", target_port=peer.local_address[1]) as own:
        for target, local_address, error in ((own, ("127.0.0.1", 0), ValueError),
                                             (peer.local_address, "path", TypeError),
                                             (peer.local_address, ("127.0.0.1",), ValueError),
                                             (peer.local_address, ("127.0.0.1", "0"), TypeError),
                                             (tmp_path / "peer", ("127.0.0.1", 0), TypeError)):
            with pytest.raises(error):
                DatagramClient(target, LineCodec(), local_address=wrong(local_address))
        assert not own.closed


def test_a_unix_socket_of_ones_own() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with DatagramClient(one, LineCodec()) as a, DatagramClient(other, LineCodec()) as b:
        a.send_packet("hello")
        assert b.recv_packet(timeout=TIMEOUT) == "hello"
        b.send_packet("answer")
        assert list(a.iter_received_packets(timeout=0.05)) == ["answer"]


def test_what_a_codec_raises_does_not_come_again() -> None:
    class Broken(LineCodec):
        def decode(self, data: Any) -> str:
            if data == b"bad\n":
                raise RuntimeError("a fault of the codec")
            return super().decode(data)

    with create_udp_socket(interface="127.0.0.1") as peer, DatagramClient(peer.local_address, Broken()) as client:
        client.send_packet("hello")
        address = peer.receive(timeout=TIMEOUT)[1]
        for data in (b"bad\n", b"good\n"):
            peer.send_to(data, address)
        with pytest.raises(RuntimeError):
            client.recv_packet(timeout=TIMEOUT)
        assert client.recv_packet(timeout=TIMEOUT) == "good"
