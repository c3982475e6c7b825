"""A Søcket speaks whatever dialect the first bytes of the other end name, with nobody knowing but that dialect."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from support.lines_dialect import BEGINNING, Lines
from support.pairs import TIMEOUT, wait_for_event
from support.wire_peer import DATA, dial

from netmsg import DeliveryGuarantee, Disconnected, SendMode, Søcket
from netmsg.wire import sniffing
from netmsg.wire.sniffing import Sniffed

IDENTITY = b"a writer of text"
RELIABLE: Final = DeliveryGuarantee.AT_LEAST_ONCE


@pytest.fixture(autouse=True)
def _spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sniffing.SPOKEN, Sniffed.LEGACY, Lines)


class Writer:
    """The other end."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT)
        self.sock = sock
        self.file = sock.makefile("rb")

    def write(self, *lines: bytes) -> None:
        self.sock.sendall(b"".join(line + b"\n" for line in lines))

    def read(self) -> bytes:
        """The next line that is not a heartbeat."""
        while (line := self.file.readline()) == b".\n":
            pass
        return line.rstrip(b"\n")

    def greet(self) -> None:
        self.write(BEGINNING + IDENTITY)
        assert self.read() == b"wait"
        assert self.read() == b"welcome"


@contextmanager
def writer(sock: Søcket) -> Iterator[Writer]:
    with socket.create_connection(("127.0.0.1", sock.bound_port)) as connection:
        made = Writer(connection)
        with made.file:
            yield made


def test_messages_go_both_ways_and_are_written_as_the_peer_reads_them() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        sock.send(b"early")
        with writer(sock) as peer:
            peer.greet()
            assert peer.read() == b"-early"
            assert [info.dialect for info in sock.peers()] == ["lines"]
            sock.send(b"x" * 20_000)
            sock.send(b"to you", IDENTITY)
            assert [peer.read(), peer.read()] == [b"-" + b"x" * 20_000, b"-to you"]
            peer.write(b"-one", b"?are you there", b"-two")
            assert [sock.recv(timeout=TIMEOUT), sock.recv(timeout=TIMEOUT)] == [b"one", b"two"]
            assert peer.read() == b"yes, are you there"
            for number in range(50):  # one at a time
                peer.write(b"-%d" % number)
                assert sock.recv(timeout=TIMEOUT) == b"%d" % number
                sock.send(b"%d" % number)
                assert peer.read() == b"-%d" % number


def test_acknowledgements_are_those_of_the_dialect() -> None:
    with Søcket(delivery_guarantee=RELIABLE, linger=0) as sock:
        sock.bind(port=0)
        with writer(sock) as peer:
            peer.greet()
            receipt = sock.send(b"keep this")
            assert receipt is not None
            assert peer.read() == b"+" + receipt.message_id.hex().encode() + b" keep this"
            peer.write(b"!" + receipt.message_id.hex().encode())
            receipt.wait(timeout=TIMEOUT)
            peer.write(b"+" + b"ab" * 16 + b" take this")
            assert sock.recv(timeout=TIMEOUT) == b"take this"
            assert peer.read() == b"!" + b"ab" * 16


def test_heartbeats_are_those_of_the_dialect() -> None:
    with Søcket(heartbeat_interval=0.1, linger=0) as sock:
        sock.bind(port=0)
        with writer(sock) as peer:
            peer.greet()
            assert peer.file.readline() == b".\n"


def test_published_messages_reach_peers_of_either_dialect() -> None:
    with Søcket(SendMode.PUBLISH, linger=0) as sock:
        sock.bind(port=0)
        with writer(sock) as lines, dial(sock.bound_port) as frames:
            lines.greet()
            frames.shake_hands()
            sock.wait_for_peers(2, timeout=TIMEOUT)
            sock.send(b"news")
            assert lines.read() == b"-news"
            assert frames.read_kind(DATA)[1] == b"news"


@pytest.mark.parametrize("guarantee", DeliveryGuarantee)
def test_what_one_was_not_sent_goes_to_another_in_its_own_dialect(guarantee: DeliveryGuarantee) -> None:
    with Søcket(delivery_guarantee=guarantee, linger=0) as sock:
        sock.bind(port=0)
        with writer(sock) as first:
            first.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            first.greet()
            for number in range(3000):
                sock.send(b"%04d" % number + bytes(5000).replace(b"\0", b"."))
            assert first.read()[-5004:-5000] == b"0000"
        wait_for_event(sock, Disconnected)  # or the second is given what waits for either
        with dial(sock.bound_port) as second:
            second.shake_hands()
            kind, body = second.read_kind(0x04 if guarantee is RELIABLE else DATA)
            at = 16 if guarantee is RELIABLE else 0
            begun = number = int(body[at:at + 4])
            assert begun == 0 if guarantee is RELIABLE else begun > 0
            for number in range(begun + 1, begun + 100):
                assert int(second.read_kind(kind)[1][at:at + 4]) == number


def test_a_refusal_is_said_in_the_dialect() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with writer(sock) as peer:
            peer.write(BEGINNING + b"SOMEBODY LOUD")
            assert peer.read() == b"no capitals"
            assert peer.read() == b""


def test_a_violation_of_the_dialect_ends_the_connection() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with writer(sock) as peer:
            peer.greet()
            peer.write(b"-good", b"*bad", b"-too late")
            assert sock.recv(timeout=TIMEOUT) == b"good"
            assert peer.read() == b""
