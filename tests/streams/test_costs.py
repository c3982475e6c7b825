"""What streams cost, in operations and not in time: linear in what comes, however it is cut up."""

from __future__ import annotations

import io
import ssl
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from support.pairs import TIMEOUT

from netmsg import ByteStream, DelimiterNotFoundError, LineCodec, PacketClient, memory_stream_pair
from netmsg.deadline import Deadline
from netmsg.streams import memory
from netmsg.streams.memory import MemoryLink, memory_links
from netmsg.streams.read_ahead import ReadAhead
from netmsg.transports import encrypted
from netmsg.transports.encrypted import TLSTransport
from netmsg.transports.plain import Buffer, Transport

looks = 0


class Piece(bytes):
    """Counts how often it is looked at."""

    def __len__(self) -> int:
        global looks
        looks += 1
        return super().__len__()


class Dripping:
    """A link whose transport hands out a byte at a time, and lets a call wait after every ``patience`` of them."""

    def __init__(self, content: bytes, patience: int) -> None:
        self._link = memory_links(1)[0]
        self._left = [Piece(content[at:at + 1]) for at in range(len(content) - 1, -1, -1)]
        self._patience = patience
        self._come = 0
        self.transport: Transport = self._link.transport
        self.transport.receive = self._receive  # type: ignore[method-assign]

    def _receive(self, max_bytes: int, /) -> bytes:
        self._come += 1
        if self._come % self._patience == 0:
            raise BlockingIOError
        return self._left.pop()

    def wait(self, events: int, deadline: Deadline, unless: object = ()) -> int:
        raise TimeoutError

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


def looks_at(content: bytes, receive: Callable[[ByteStream], bytes], patience: int) -> int:
    global looks
    link: Any = Dripping(content, patience)
    stream = ByteStream(link)
    looks = 0
    got = b""
    while len(got) < len(content) - 1:
        try:
            got = receive(stream)
        except TimeoutError:
            pass
    assert got + b"\n" == content or got == content
    looked = looks
    stream.abort()
    return looked


@pytest.mark.parametrize("patience", [1_000_000, 10], ids=["in one call", "in many calls"])
@pytest.mark.parametrize("how", ["until", "exactly"])
def test_a_drip_costs_the_same_for_every_byte(how: str, patience: int) -> None:
    def cost(size: int) -> float:
        content = b"x" * (size - 1) + b"\n"
        if how == "until":
            return looks_at(content, lambda stream: stream.receive_until(b"\n", size), patience) / size
        return looks_at(content, lambda stream: stream.receive_exactly(size), patience) / size

    assert cost(8000) < 1.5 * cost(1000) < 20


def test_a_drip_without_a_delimiter_is_noticed_at_its_limit() -> None:
    link: Any = Dripping(b"x" * 100, 1_000_000)
    stream = ByteStream(link)
    with pytest.raises(DelimiterNotFoundError):
        stream.receive_until(b"\r\n", 10)
    assert stream.receive_exactly(12) == b"x" * 12
    stream.abort()


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items have been split off each time, and joined again."""
    counts: list[int] = []
    split, unsplit = ReadAhead.split, ReadAhead.unsplit

    def counting_split(ahead: ReadAhead, delimiter: bytes, at: int, max_bytes: int) -> None:
        before = len(ahead.items)
        split(ahead, delimiter, at, max_bytes)
        counts.append(len(ahead.items) - before)

    def counting_unsplit(ahead: ReadAhead) -> None:
        counts.append(len(ahead.items))
        unsplit(ahead)

    monkeypatch.setattr(ReadAhead, "split", counting_split)
    monkeypatch.setattr(ReadAhead, "unsplit", counting_unsplit)
    return counts


@pytest.mark.parametrize("timeout", [None, 10, 10.0, True])
@pytest.mark.parametrize("last", [b"", b"x" * 100], ids=["all short", "a long one behind them"])
def test_a_line_costs_the_same_however_many_there_are(last: bytes, timeout: float | None, moved: list[int]) -> None:
    def cost(lines: int) -> float:
        moved.clear()
        one, other = memory_stream_pair(buffer_size=1 << 20)
        one.send_all(b"x\n" * lines + last + b"\n")
        for _ in range(lines):
            assert other.receive_until(b"\n", 64, timeout=timeout) == b"x"
        if last:
            with pytest.raises(DelimiterNotFoundError):
                other.receive_until(b"\n", 64, timeout=timeout)
        assert other.receive(timeout=TIMEOUT) == last + b"\n"
        one.abort()
        other.abort()
        return sum(moved) / lines

    assert cost(8000) < 1.5 * cost(1000) < 5


def skip_lines(stream: ByteStream) -> None:
    while stream.receive_until(b"\n", timeout=TIMEOUT):
        pass


@pytest.mark.parametrize("lines", [1, 7, 12, 100])
@pytest.mark.parametrize("rest", [
    lambda stream: stream.receive_exactly(5, timeout=TIMEOUT),
    lambda stream: stream.receive(5, timeout=TIMEOUT),
    lambda stream: stream.receive_into(bytearray(5), timeout=TIMEOUT),
    lambda stream: stream.receive_file(io.BytesIO(), 5, timeout=TIMEOUT),
    lambda stream: stream.receive_until(b"\0", timeout=TIMEOUT)],
    ids=["receive_exactly", "receive", "receive_into", "receive_file", "receive_until"])
def test_lines_and_other_things_in_turn_cost_the_same_however_many_there_are(
        rest: Callable[[ByteStream], object], lines: int, moved: list[int]) -> None:
    """Headers and a body, over and over, all there already."""
    request = b"k\n" * lines + b"\n" + b"body\0"
    count = 60_000 // len(request)
    one, other = memory_stream_pair()
    one.send_all(request * count)
    for _ in range(count):
        skip_lines(other)
        rest(other)
    one.abort()
    other.abort()
    assert sum(moved) < 4 * 60_000


def test_lines_are_split_as_ever_where_something_else_comes_in_between_now_and_then(moved: list[int]) -> None:
    one, other = memory_stream_pair(buffer_size=1 << 20)
    for _ in range(50):
        one.send_all(b"x\n" * 10_000 + b"\n" + b"body\0")
        skip_lines(other)
        assert other.receive_exactly(5, timeout=TIMEOUT) == b"body\0"
    moved.clear()
    one.send_all(b"x\n" * 10_000 + b"\n")
    skip_lines(other)
    assert max(moved) > 5000
    one.abort()
    other.abort()


class Mortal(bytes):
    """Tells when it is gone."""

    gone = 0

    def __del__(self) -> None:
        Mortal.gone += 1


class Delivering(Dripping):
    """Hands out one large piece, and then nothing."""

    def __init__(self, content: Mortal) -> None:
        super().__init__(b"", 1)
        self._pieces = [content]

    def _receive(self, max_bytes: int, /) -> bytes:
        if not self._pieces:
            raise BlockingIOError
        return self._pieces.pop()


@pytest.mark.parametrize("wait", [
    lambda stream: stream.receive(), lambda stream: stream.receive_exactly(1),
    lambda stream: stream.receive_until(b"\r\n"), lambda stream: stream.receive_into(bytearray(10)),
    lambda stream: stream.receive_file(io.BytesIO()), lambda stream: stream.makefile("rb").readline(),
    lambda stream: PacketClient(stream, LineCodec()).recv_packet()])
def test_who_waits_keeps_nothing_of_what_was_taken(wait: Callable[[ByteStream], object]) -> None:
    link: Any = Delivering(Mortal(b"x" * 1000 + b"\n"))
    stream = ByteStream(link)
    Mortal.gone = 0
    assert stream.receive_until(b"\n", timeout=TIMEOUT) == b"x" * 1000
    with pytest.raises(TimeoutError):
        wait(stream)
    assert Mortal.gone == 1
    stream.abort()


class Counted(bytes):
    """Counts what is copied out of it."""

    copied = 0

    def __getitem__(self, which: Any) -> Any:
        part = Counted(super().__getitem__(which))
        Counted.copied += len(part)
        return part


def test_what_is_buffered_in_memory_is_not_copied_again_however_little_is_taken_at_a_time(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "bytes", Counted, raising=False)
    one, other = memory_stream_pair()
    one.send_all(b"abcd" * 10_000)
    Counted.copied = 0
    for _ in range(10_000):
        assert other.receive_exactly(4, timeout=TIMEOUT) == b"abcd"
    one.abort()
    other.abort()
    assert Counted.copied < 3 * 40_000


class Below:
    """A memory transport that counts what it is asked to send."""

    def __init__(self, link: MemoryLink) -> None:
        self._transport = link.transport
        self.sends = 0

    def send_one(self, buffer: Buffer, /) -> int:
        self.sends += 1
        return self._transport.send_one(buffer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Gathering(Below):
    """Hands out everything that has come at once, as a network does."""

    def receive(self, max_bytes: int, /) -> bytes:
        got = self._transport.receive(max_bytes)
        try:
            while True:
                got += self._transport.receive(max_bytes)
        except BlockingIOError:
            return got


def tls_pair(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> tuple[TLSTransport, TLSTransport, Below]:
    one, other = memory_links(1 << 22)
    below: Any = Below(other)
    gathering: Any = Gathering(one)
    server = TLSTransport(gathering, contexts[0], server_side=True)
    client = TLSTransport(below, contexts[1], server_side=False, server_hostname="localhost")
    while server.handshaking or client.handshaking:
        for end in (client, server):
            if end.handshaking:
                try:
                    end.handshake()
                except BlockingIOError:
                    pass
    return server, client, below


def test_tiny_tls_records_cost_the_same_each(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    counted = 0

    def counting_sum(numbers: Iterable[int]) -> int:
        nonlocal counted
        numbers = list(numbers)
        counted += len(numbers)
        return sum(numbers)

    def cost(records: int) -> float:
        nonlocal counted
        server, client, _ = tls_pair(tls_contexts)
        for _ in range(records):
            assert client.send_one(b"x") == 1
        counted = 0
        got = b""
        while len(got) < records:
            got += server.receive(65_536)
        return counted / records

    monkeypatch.setattr(encrypted, "sum", counting_sum, raising=False)
    assert cost(2000) < 1.5 * cost(250) < 20


def test_a_large_piece_under_tls_is_sent_in_a_few_writes(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """And not in one a record, each of which could wait for the network, and another thread for it."""
    server, client, below = tls_pair(tls_contexts)
    below.sends = 0
    content = memoryview(bytes(200_000))
    sent = 0
    while sent < len(content):
        sent += client.send_one(content[sent:])
    assert below.sends <= 4 + 2
    got = 0
    while got < len(content):
        got += len(server.receive(65_536))
