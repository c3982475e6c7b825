"""Storms of interrupts on streams, by a timer of the kernel's: whatever a call was doing, nothing is lost, doubled,
reordered or spliced, and nobody waits for ever. What `test_stream_strikes` tries place by place this tries by chance,
over real connections and with another thread at the other end."""

from __future__ import annotations

import io
import os
import random
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background
from support.streams import connect
from support.strikes import Storm, Struck, storm

from netmsg import (
    ByteStream, ClosedError, ConnectionBrokenError, LineCodec, LocalProtocolError, NetmsgError, PacketClient,
    SendTimeoutError, SocketStream,
)

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]

pytestmark = pytest.mark.timeout(120, method="thread")  # SIGALRM is the storm's

STRIKES = 1000 if os.environ.get("NETMSG_SOAK") else 100
"""How many there have to be before a storm is over."""
LINES = 500 * STRIKES
"""At most, for a storm does not count while the test's own lines are at work, and these are quick."""
SOCKETS = ["tcp", "unix", "tls13"]


@pytest.fixture(params=SOCKETS)
def make(request: pytest.FixtureRequest, tmp_path: Path, tls_contexts: Contexts) -> Callable[[], Any]:
    numbers = iter(range(1_000_000))

    def connected() -> tuple[ByteStream, ByteStream]:
        directory = tmp_path / str(next(numbers))
        directory.mkdir()
        return connect(request.param, directory, tls_contexts)

    return connected


# Receiving

def receive_line(stream: ByteStream) -> bytes:
    return stream.receive_until(b"\n") + b"\n"


def receive_line_in_time(stream: ByteStream) -> bytes:
    try:
        return stream.receive_until(b"\n", timeout=0.001) + b"\n"
    except TimeoutError:
        return b""


def receive_into(stream: ByteStream) -> bytes:
    buffer = bytearray(777)
    return bytes(buffer[:stream.receive_into(buffer, timeout=TIMEOUT)])


RECEIVE: dict[str, Callable[[ByteStream], bytes]] = {
    "receive": lambda stream: stream.receive(777, timeout=TIMEOUT),
    "receive_exactly": lambda stream: stream.receive_exactly(10, timeout=TIMEOUT),
    "receive_until": receive_line,
    "receive_until in time": receive_line_in_time,
    "receive_into": receive_into,
}


def feed(stream: ByteStream, raging: Storm, sent: list[int]) -> None:
    """Numbered lines, until there has been enough of a storm."""
    number = 0
    while raging.strikes < STRIKES and number < LINES:
        stream.send_all(b"".join(b"%09d\n" % n for n in range(number, number + 20)), timeout=TIMEOUT)
        number += 20
    stream.send_all(b"the last\n\n", timeout=TIMEOUT)
    sent.append(number)


@pytest.mark.parametrize("how", RECEIVE)
def test_receiving(make: Any, how: str) -> None:
    sender, receiver = make()
    receive = RECEIVE[how]
    sent: list[int] = []
    got: list[bytes] = []
    with storm() as raging:
        feeding = Background(feed, sender, raging, sent)
        tail = b""
        while not tail.endswith(b"the last\n\n"):
            try:
                piece = receive(receiver)
                got.append(piece)
                tail = (tail + piece)[-10:]
            except Struck:
                pass
    feeding.result()
    assert raging.strikes
    assert b"".join(got) == b"".join(b"%09d\n" % n for n in range(sent[0])) + b"the last\n\n"
    receiver.abort()
    sender.abort()


@pytest.mark.parametrize("open_file", [
    lambda: tempfile.TemporaryFile(buffering=0), io.BytesIO, lambda: tempfile.SpooledTemporaryFile(1 << 30),
], ids=["disk", "memory", "spooled"])
def test_receiving_a_file(make: Any, open_file: Callable[[], Any]) -> None:
    sender, receiver = make()
    sent: list[int] = []
    with open_file() as file, storm() as raging:
        def feed_to_the_end() -> None:
            feed(sender, raging, sent)
            sender.send_eof()

        feeding = Background(feed_to_the_end)
        while True:
            try:
                receiver.receive_file(file, timeout=TIMEOUT)
                break
            except Struck:
                pass
        raging.raging = False
        feeding.result()
        file.seek(0)
        assert file.read() == b"".join(b"%09d\n" % n for n in range(sent[0])) + b"the last\n\n"
    receiver.abort()
    sender.abort()


def test_receiving_packets(make: Any) -> None:
    sender, receiver = make()
    sent: list[int] = []
    got: list[str] = []
    client = PacketClient(receiver, LineCodec(), max_recv_size=777)
    with storm() as raging:
        feeding = Background(feed, sender, raging, sent)
        while not got or got[-1] != "the last":
            try:
                packet = client.recv_packet()
                got.append(packet)
            except Struck:
                pass
    feeding.result()
    assert got[:-1] == ["%09d" % n for n in range(sent[0])]
    receiver.abort()
    sender.abort()


def test_who_waits_for_the_turn_gets_it(make: Any) -> None:
    """Three threads receive what is sent, one of them in the storm: each byte goes to one of them, and none starves."""
    sender, receiver = make()
    sent: list[int] = []

    def receive() -> list[bytes]:
        got = []
        while (piece := receiver.receive_exactly(10, timeout=TIMEOUT)) != b"the last\n\n":
            got.append(piece)
        return got

    with storm() as raging:
        others = [Background(receive) for _ in range(2)]
        feeding = Background(feed, sender, raging, sent)
        got = []
        while feeding.is_alive():
            try:
                piece = receiver.receive_exactly(10, timeout=0.001)
                got.append(piece)
            except (Struck, TimeoutError):
                pass
    feeding.result()
    ends = [piece for piece in got if piece == b"the last\n\n"]
    sender.send_all(b"the last\n\n" * (1 + len(ends)))
    for other in others:
        got += other.result()
    assert sorted(set(got) - {b"the last\n\n"}) == [b"%09d\n" % n for n in range(sent[0])]
    assert len(got) - len(ends) == sent[0]
    receiver.abort()
    sender.abort()


# Sending

def messages() -> Iterator[bytes]:
    """Each tells its number and its length."""
    numbers = random.Random(1)
    number = 0
    while True:
        number += 1
        size = numbers.choice((0, 100, 5000, 70_000, 300_000))
        yield b"%08d%08d" % (number, size) + numbers.randbytes(1) * size


def check(got: bytes, accepted: list[int], cut: bool) -> None:
    """All that were accepted, in order, once and whole; what was interrupted whole or not at all, but for the last
    one, behind which nothing was accepted any more."""
    seen = []
    at = 0
    while at < len(got):
        header = got[at:at + 16]
        if len(header) < 16 or at + 16 + int(header[8:]) > len(got):
            assert cut, "a message was cut, and others were accepted behind it"
            break
        number, size = int(header[:8]), int(header[8:])
        assert len(set(got[at + 16:at + 16 + size])) <= 1, "spliced"
        seen.append(number)
        at += 16 + size
    assert seen == sorted(set(seen))
    assert set(accepted) <= set(seen)


def send_bytes(stream: ByteStream, message: bytes) -> None:
    stream.send_all(message, timeout=TIMEOUT)


def send_bytes_in_time(stream: ByteStream, message: bytes) -> None:
    stream.send_all(message, timeout=0.001)


def send_memory(stream: ByteStream, message: bytes) -> None:
    assert stream.send_file(io.BytesIO(message), timeout=TIMEOUT) == len(message)


def send_disk(stream: ByteStream, message: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(message)
        stream.send_file(file, timeout=TIMEOUT)


def received(stream: ByteStream) -> bytes:
    got = []
    try:
        while piece := stream.receive(timeout=TIMEOUT):
            got.append(piece)
    except ConnectionBrokenError:
        pass  # under TLS the rest of a record is missing, where a send was cut
    return b"".join(got)


@pytest.mark.parametrize("send", [send_bytes, send_bytes_in_time, send_memory, send_disk])
def test_sending(make: Any, send: Callable[[ByteStream, bytes], None]) -> None:
    with storm() as raging:
        while raging.strikes < STRIKES:
            raging.raging = False
            sender, receiver = make()
            receiving = Background(received, receiver)
            accepted = []
            cut = False
            raging.raging = True
            for message in messages():
                try:
                    send(sender, message)
                    accepted.append(int(message[:8]))
                    cut = False
                except (Struck, SendTimeoutError):
                    cut = True
                except ConnectionBrokenError:
                    break
                if raging.strikes >= STRIKES:
                    break
            raging.raging = False
            sender.close()
            check(receiving.result(), accepted, cut)
            receiver.close()


def test_send_eof(make: Any) -> None:
    with storm(0.0002) as raging:
        for _ in range(2000):
            raging.raging = False
            sender, receiver = make()
            sender.send_all(b"last")
            raging.raging = True
            while True:
                try:
                    sender.send_eof(timeout=TIMEOUT)
                    break
                except Struck:
                    pass
            raging.raging = False
            assert receiver.receive_exactly(4, timeout=TIMEOUT) == b"last"
            assert receiver.receive(timeout=TIMEOUT) == b""
            receiver.send_all(b"heard")
            assert sender.receive_exactly(5, timeout=TIMEOUT) == b"heard"
            sender.abort()
            receiver.abort()
            if raging.strikes >= STRIKES // 10:
                return
    raise AssertionError("no storm")


def test_close(make: Any) -> None:
    with storm(0.0003) as raging:
        for _ in range(2000):
            raging.raging = False
            one, other = make()
            waiting = [Background(one.receive), Background(one.receive)]
            one.send_all(b"last")
            raging.raging = True
            while True:
                try:
                    one.close(timeout=0.05)
                    break
                except Struck:
                    pass
            raging.raging = False
            for thread in waiting:
                with pytest.raises(ClosedError):
                    thread.result()
            assert one.closed and one.fileno() == -1
            assert received(other) == b"last"
            other.abort()
            if raging.strikes >= STRIKES // 5:
                return
    raise AssertionError("no storm")


# TLS and descriptors

def is_in_the_clear(stream: ByteStream) -> bool:
    try:
        return stream.tls is None
    except LocalProtocolError:  # TLS has begun
        return False


def upgrade(client: ByteStream, context: ssl.SSLContext) -> None:
    """Until it is under TLS, or closed."""
    while True:
        try:
            if client.closed:
                return
            if is_in_the_clear(client):
                client.start_tls(context, server_side=False, server_hostname="localhost", timeout=TIMEOUT)
            client.do_handshake(timeout=TIMEOUT)
            return
        except Struck:
            pass
        except NetmsgError:
            with suppress(Struck):
                client.close(timeout=0)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_start_tls(kind: str, tmp_path: Path, tls_contexts: Contexts) -> None:
    upgraded = 0
    with storm(0.002) as raging:
        for number in range(1000):
            raging.raging = False
            directory = tmp_path / str(number)
            directory.mkdir()
            client, server = connect(kind, directory, tls_contexts)
            upgrading = Background(server.start_tls, tls_contexts[0], server_side=True, timeout=TIMEOUT)
            # Some are left in peace: where a handshake takes longer than the timer none would come through.
            raging.raging = number % 4 > 0
            upgrade(client, tls_contexts[1])
            raging.raging = False
            if client.closed:
                client.close()  # that of the upgrade may have been interrupted, too
                with pytest.raises(NetmsgError):
                    upgrading.result()
                    server.receive_exactly(1, timeout=TIMEOUT)
            else:
                upgrading.result()
                client.send_all(b"encrypted")
                assert server.receive_exactly(9, timeout=TIMEOUT) == b"encrypted"
                upgraded += 1
            client.abort()
            server.abort()
            if raging.strikes >= STRIKES // 2 and upgraded:
                return
    raise AssertionError(f"no storm: {raging.strikes} interrupts, {upgraded} upgraded")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_receiving_descriptors() -> None:
    one, other = socket.socketpair()
    sender, receiver = SocketStream.from_socket(one), SocketStream.from_socket(other)
    with open(os.devnull, "rb") as file:
        before = descriptors()

        def send(raging: Storm) -> int:
            number = 0
            while raging.strikes < STRIKES:
                sender.send_fds(b"%08d" % number, [file.fileno()] * (number % 3), timeout=TIMEOUT)
                number += 1
            sender.send_eof()
            return number

        got: list[tuple[bytes, int]] = []
        with storm() as raging:
            sending = Background(send, raging)
            while True:
                try:
                    data, found = receiver.receive_fds(8, 2, timeout=TIMEOUT)
                except Struck:
                    continue
                for descriptor in found:
                    os.close(descriptor)
                if not data and not found:
                    break
                got.append((data, len(found)))
        count = sending.result()
        sender.close()
        receiver.close()
        assert descriptors() <= before - 2
    assert b"".join(data for data, _ in got) == b"".join(b"%08d" % number for number in range(count))
    assert [found for _, found in got if found] == [number % 3 for number in range(count) if number % 3]


def test_sending_descriptors() -> None:
    one, other = socket.socketpair()
    sender, receiver = SocketStream.from_socket(one), SocketStream.from_socket(other)

    def receive() -> tuple[bytes, int]:
        data, count = b"", 0
        while True:
            more, found = receiver.receive_fds(8, 2, timeout=TIMEOUT)
            for descriptor in found:
                os.close(descriptor)
            if not more:
                return data, count
            data += more
            count += len(found)

    accepted = []
    with open(os.devnull, "rb") as file, storm() as raging:
        receiving = Background(receive)
        number = 0
        while raging.strikes < STRIKES:
            number += 1
            try:
                sender.send_fds(b"%08d" % number, [file.fileno()], timeout=TIMEOUT)
                accepted.append(number)
            except Struck:
                pass
        raging.raging = False
        sender.send_eof()
        data, count = receiving.result()
    seen = [int(data[at:at + 8]) for at in range(0, len(data), 8)]
    assert seen == sorted(set(seen)) and set(accepted) <= set(seen)
    assert count == len(seen)
    sender.close()
    receiver.close()
