"""Many bad packets: an error is made of each, in its place, but not of all at once."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Generator
from typing import Any

import pytest
from support.pairs import TIMEOUT

from netmsg import (
    Codec, DelimitedCodec, JSONCodec, LineCodec, PacketClient, PacketConnection, PacketDecodeError, PacketServer,
    RemoteProtocolError, connect_tcp, create_tcp_server, memory_stream_pair,
)

MANY = 5000
FEW = 500
"""What is an error at a time may be no more than that."""


class Counting:
    """Decodes numbers, and counts how often it was asked to."""

    def __init__(self) -> None:
        self.count = 0
        self.codec: Codec[bytes, int] = DelimitedCodec(b"\n").map(decode=self.decode)

    def decode(self, content: bytes) -> int:
        self.count += 1
        return int(content)


@pytest.mark.parametrize("codec", [JSONCodec(), LineCodec(), DelimitedCodec(b"\n").map(decode=json.loads)],
                         ids=["json", "lines", "mapped"])
def test_a_decoder_tells_of_every_one_in_its_place(codec: Codec[Any, Any]) -> None:
    wire = b"".join(b'"%d"\n' % n if n % 3 else b"\xff\n" for n in range(MANY))
    packets = codec.decoder().feed(wire + b'"the')
    assert len(packets) == MANY
    for n, packet in enumerate(packets):
        if n % 3:
            assert packet in (str(n), f'"{n}"')
        else:
            assert isinstance(packet, PacketDecodeError) and packet.data == b"\xff"


def test_a_client_is_not_kept_busy_by_those_that_it_has_not_got_to_yet() -> None:
    counting = Counting()
    stream, peer = memory_stream_pair()
    with PacketClient(stream, counting.codec) as client, peer:
        peer.send_all(b"x\n" * MANY + b"7\n")
        with pytest.raises(PacketDecodeError):
            client.recv_packet(timeout=TIMEOUT)
        assert counting.count <= FEW
        for _ in range(MANY - 1):
            with pytest.raises(PacketDecodeError):
                client.recv_packet(timeout=TIMEOUT)
        assert client.recv_packet(timeout=TIMEOUT) == 7
        peer.send_all(b"8\n")
        assert client.recv_packet(timeout=TIMEOUT) == 8


def test_what_was_not_got_to_may_have_been_injected() -> None:
    stream, peer = memory_stream_pair()
    with PacketClient(stream, JSONCodec()) as client, peer:
        peer.send_all(b"\n" * 64 + b"1\n")
        for _ in range(64):
            with pytest.raises(PacketDecodeError):
                client.recv_packet(timeout=TIMEOUT)
        with pytest.raises(RemoteProtocolError):
            client.start_tls(True, server_side=False, server_hostname="localhost", timeout=TIMEOUT)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_server_hands_out_every_one_in_its_place(workers: int) -> None:
    def handler(client: PacketConnection[Any]) -> Generator[Any, Any, None]:
        while True:
            try:
                packet = yield
            except PacketDecodeError as error:
                packet = f"bad: {error.data.decode()}"
            client.send_packet(packet)

    with PacketServer(handler, create_tcp_server(interface="127.0.0.1"), codec=JSONCodec(),
                      max_workers=workers) as server, connect_tcp("127.0.0.1", server.port) as stream:
        stream.send_all(b"".join(b"%d\n" % n if n % 2 else b"x%d\n" % n for n in range(1000)), timeout=TIMEOUT)
        client = PacketClient(stream, JSONCodec())
        for n in range(1000):
            assert client.recv_packet(timeout=TIMEOUT) == (n if n % 2 else f"bad: x{n}")


def test_a_server_does_not_decode_what_a_client_sends_behind_a_bad_one() -> None:
    counting = Counting()
    with PacketServer(lambda client, packet: None, create_tcp_server(interface="127.0.0.1"),
                      codec=counting.codec) as server:
        with connect_tcp("127.0.0.1", server.port) as stream:
            stream.send_all(b"x\n" * MANY, timeout=TIMEOUT)
            try:
                assert stream.receive(timeout=TIMEOUT) == b""
            except ConnectionError:
                pass  # for much of it was not read
        assert counting.count <= FEW


def test_an_error_does_not_keep_alive_what_was_received_with_it() -> None:
    class Number:
        def __init__(self, content: bytes) -> None:
            self.value = int(content)

    gc.disable()
    try:
        packets: list[Any] = DelimitedCodec(b"\n").map(decode=Number).decoder().feed(b"1\nx\ny\n")
        number, error = weakref.ref(packets[0]), packets[1]
        assert isinstance(error, PacketDecodeError) and isinstance(error.__cause__, ValueError)
        del packets
        assert number() is None
    finally:
        gc.enable()


def test_nor_are_errors_made_of_all_that_is_in_a_bad_datagram() -> None:
    counting = Counting()
    with pytest.raises(PacketDecodeError, match=f"there are {MANY}"):
        counting.codec.decode(b"x\n" * MANY)
    assert counting.count <= FEW
