"""Streams under TLS, in use by four threads each, both directions at once: every byte is checked.

In the suite for a moment; with ``make soak`` for ten minutes and more than a thousand connections.
"""

from __future__ import annotations

import os
import random
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
from support.pairs import Background

from netmsg import ByteStream, connect_tcp, create_tcp_server

SOAK = bool(os.environ.get("NETMSG_SOAK"))
SECONDS = 600.0 if SOAK else 2.0
CONNECTIONS = 1001 if SOAK else 8
SIDE_BY_SIDE = 4
TIMEOUT = 60.0


def content(seed: int) -> Iterator[bytes]:
    """What one end sends to the other: pieces of very different sizes, a quarter of a mebibyte or so in all."""
    numbers = random.Random(seed)
    for _ in range(numbers.randrange(5, 40)):
        yield numbers.randbytes(numbers.choice((1, 100, 5000, 16_384, 16_385, 70_000)))


def send(stream: ByteStream, seed: int) -> None:
    numbers = random.Random(-seed)
    pause = threading.Event()
    for piece in content(seed):
        stream.send_all(piece, timeout=TIMEOUT)
        if numbers.random() < 0.1:
            pause.wait(numbers.random() / 100)
    stream.send_eof(timeout=TIMEOUT)


def check(stream: ByteStream, seed: int) -> int:
    """Receive what the other end sends, by every way of receiving: how many bytes it were."""
    numbers = random.Random(seed + 1)
    expected = b"".join(content(seed))
    received = 0
    buffer = bytearray(30_000)
    while received < len(expected):
        way = numbers.randrange(3)
        if way == 0:
            piece = stream.receive(numbers.randrange(1, 100_000), timeout=TIMEOUT)
        elif way == 1:
            piece = stream.receive_exactly(numbers.randrange(1, len(expected) - received + 1), timeout=TIMEOUT)
        else:
            piece = bytes(buffer[:stream.receive_into(buffer, timeout=TIMEOUT)])
        assert piece == expected[received:received + len(piece)] and piece
        received += len(piece)
    assert stream.receive(timeout=TIMEOUT) == b""
    return received


def use(stream: ByteStream, sends: int, receives: int) -> int:
    with stream:
        sending = Background(send, stream, sends)
        received = check(stream, receives)
        sending.result(TIMEOUT)
    return received


@pytest.mark.timeout(SECONDS + 300)
def test_55_every_byte_arrives_on_every_connection(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    began = time.monotonic()
    done = 0
    with create_tcp_server(interface="127.0.0.1", ssl_context=tls_contexts[0]) as listener:
        while done < CONNECTIONS or time.monotonic() - began < SECONDS:
            ends = []
            for number in range(done, done + SIDE_BY_SIDE):
                client = connect_in_background(listener.port, tls_contexts[1])
                ends.append((Background(use, listener.accept(timeout=TIMEOUT), 2 * number, 2 * number + 1),
                             Background(use, client.result(TIMEOUT), 2 * number + 1, 2 * number), number))
            for server, user, number in ends:
                assert server.result(TIMEOUT) == sum(map(len, content(2 * number + 1)))
                assert user.result(TIMEOUT) == sum(map(len, content(2 * number)))
            done += SIDE_BY_SIDE
    assert done >= CONNECTIONS


def connect_in_background(port: int, context: ssl.SSLContext) -> Background:
    """The handshake needs the server's thread too, which is begun with the stream that is accepted."""
    return Background(connect_tcp, "127.0.0.1", port, ssl_context=context, timeout=TIMEOUT,
                      server_hostname="localhost")


@pytest.mark.skipif(not SOAK, reason="a gibibyte takes its time")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("encrypted", [False, True])
def test_22_a_gibibyte_in_one_piece(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], encrypted: bool) -> None:
    size = 1 << 30
    with create_tcp_server(interface="127.0.0.1", ssl_context=tls_contexts[0] if encrypted else None) as listener:
        connecting = Background(connect_tcp, "127.0.0.1", listener.port, timeout=TIMEOUT,
                                ssl_context=tls_contexts[1] if encrypted else None,
                                server_hostname="localhost" if encrypted else None)
        with listener.accept(timeout=TIMEOUT) as server:
            if encrypted:
                server.do_handshake(timeout=TIMEOUT)
            with connecting.result() as client:
                data = bytearray(size)
                data[::4096] = b"x" * (size // 4096)
                sending = Background(client.send_all, data, timeout=500)
                buffer = bytearray(size)
                view = memoryview(buffer)
                received = 0
                while received < size:
                    received += server.receive_into(view[received:], timeout=TIMEOUT)
                sending.result()
                assert buffer == data
