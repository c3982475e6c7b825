"""Another end that keeps up with a call does not keep it inside for longer than its timeout; what the system holds
ready is had with any timeout."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.streams import connect

from netmsg import ByteStream, ConnectionBrokenError, DelimitedCodec, PacketClient, SendTimeoutError
from netmsg.streams.memory import memory_links

MB = 1 << 20
MUCH = 64 * MB
"""More than any system holds ready."""


class Endless:
    """A link that always has more, and always takes more; no call is to move as much as `MUCH`."""

    def __init__(self) -> None:
        self._link = memory_links(1)[0]
        self.transport = self._link.transport
        self.transport.receive = self._receive  # type: ignore[method-assign]
        self.transport.send_one = self._send_one  # type: ignore[method-assign]
        self.bytes_moved = 0

    def _move(self, size: int) -> int:
        self.bytes_moved += size
        assert self.bytes_moved < MUCH, "the call does not come to an end"
        return size

    def _receive(self, max_bytes: int, /) -> bytes:
        return bytes(self._move(max_bytes))

    def _send_one(self, buffer: Any, /) -> int:
        return self._move(min(len(buffer), MB))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


@pytest.mark.parametrize("receive", [
    lambda stream: stream.receive_exactly(1 << 30, timeout=0),
    lambda stream: stream.receive_until(b"\n", 1 << 30, timeout=0),
], ids=["receive_exactly", "receive_until"])
def test_a_receive_that_is_too_late_ends_although_more_comes_and_loses_nothing(
        receive: Callable[[ByteStream], bytes]) -> None:
    link: Any = Endless()
    stream = ByteStream(link)
    with pytest.raises(TimeoutError):
        receive(stream)
    moved = link.bytes_moved
    assert stream.receive_exactly(moved) == bytes(moved)
    assert link.bytes_moved == moved
    stream.abort()


def test_what_is_there_is_received_at_once_however_many_reads_it_takes() -> None:
    link: Any = Endless()
    stream = ByteStream(link)
    assert stream.receive_exactly(6 * MB, timeout=0) == bytes(6 * MB)
    file = io.BytesIO()
    assert stream.receive_file(file, 6 * MB, timeout=0) == 6 * MB
    assert file.getvalue() == bytes(6 * MB)
    stream.abort()


def test_a_file_that_is_received_too_late_has_what_came() -> None:
    link: Any = Endless()
    stream = ByteStream(link)
    file = io.BytesIO()
    with pytest.raises(TimeoutError):
        stream.receive_file(file, timeout=0)
    assert len(file.getvalue()) == link.bytes_moved
    stream.abort()


@pytest.mark.parametrize("send", [
    lambda stream: stream.send_all(bytes(MUCH), timeout=0),
    lambda stream: stream.send_file(io.BytesIO(bytes(MUCH)), timeout=0),
], ids=["send_all", "send_file"])
def test_a_send_that_is_too_late_ends_although_more_is_taken(send: Callable[[ByteStream], object]) -> None:
    link: Any = Endless()
    stream = ByteStream(link)
    stream.send_all(bytes(6 * MB), timeout=0)
    before = link.bytes_moved
    with pytest.raises(SendTimeoutError) as caught:
        send(stream)
    assert caught.value.bytes_sent == link.bytes_moved - before
    with pytest.raises(ConnectionBrokenError):
        stream.send_all(b"more")
    stream.abort()


def test_a_file_that_the_kernel_sends_too_late_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = 0

    def sendfile(out: int, source: int, offset: int, count: int) -> int:
        nonlocal moved
        moved += MB
        assert moved < MUCH, "the call does not come to an end"
        return MB

    client, server = connect("tcp", tmp_path, None)  # type: ignore[arg-type]
    monkeypatch.setattr(os, "sendfile", sendfile)
    with client, server, open(tmp_path / "large", "w+b") as file:
        file.truncate(MUCH)
        with pytest.raises(SendTimeoutError) as caught:
            client.send_file(file, timeout=0)
        assert caught.value.bytes_sent == moved
        with pytest.raises(ConnectionBrokenError):
            client.send_all(b"more")


def test_a_packet_that_never_ends_does_not_keep_recv_packet_inside() -> None:
    link: Any = Endless()
    stream = ByteStream(link)
    client = PacketClient(stream, DelimitedCodec(b"\n", max_packet_size=1 << 30))
    with pytest.raises(TimeoutError):
        client.recv_packet(timeout=0)
    link.bytes_moved = 0
    assert list(client.iter_received_packets(timeout=0)) == []
    client.abort()
