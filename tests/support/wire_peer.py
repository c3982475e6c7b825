"""A peer whose every byte the test decides: a plain socket that speaks frames by hand."""

from __future__ import annotations

import secrets
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TIMEOUT = 10.0

HELLO, HEARTBEAT, DATA, DATA_REQ, ACK, CAPABILITIES, NACK = 0x01, 0x02, 0x03, 0x04, 0x05, 0x80, 0x84


def frame(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("!IB", len(body) + 1, kind) + body


def hello(identity: bytes, version: int = 1) -> bytes:
    return frame(HELLO, bytes((version,)) + identity)


def capabilities(interval_ms: int = 5000, window: int = 10_000, features: int | None = 0) -> bytes:
    fields = struct.pack("!II", interval_ms, window)
    return frame(CAPABILITIES, fields if features is None else fields + struct.pack("!I", features))


class WirePeer:
    """One end of a connection to a Søcket, as a blocking socket."""

    def __init__(self, sock: Any, identity: bytes | None = None) -> None:
        self.sock = sock
        self.sock.settimeout(TIMEOUT)
        self.identity = secrets.token_bytes(16) if identity is None else identity
        self.buffer = b""

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def read_exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            chunk = self.sock.recv(65536)
            if not chunk:
                raise EOFError(f"the Søcket closed the connection, {len(self.buffer)} bytes into a read of {count}")
            self.buffer += chunk
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def read_frame(self) -> tuple[int, bytes]:
        (size,) = struct.unpack("!I", self.read_exactly(4))
        envelope = self.read_exactly(size)
        return envelope[0], envelope[1:]

    def read_kind(self, *kinds: int) -> tuple[int, bytes]:
        """The next frame of one of ``kinds``; others are passed over."""
        while True:
            kind, body = self.read_frame()
            if kind in kinds:
                return kind, body

    def shake_hands(self, *more: bytes) -> bytes:
        """Exchange HELLOs, sending ``more`` right behind ours: the Søcket's identity."""
        self.send(hello(self.identity), *more)
        kind, body = self.read_frame()
        assert kind == HELLO and body[0] == 1
        return body[1:]

    def wait_for_end(self) -> None:
        """Read on until the Søcket closes the connection, in whatever way."""
        deadline = time.monotonic() + TIMEOUT
        try:
            while time.monotonic() < deadline:
                if not self.sock.recv(65536):
                    return
        except ConnectionError:
            return
        raise TimeoutError("the Søcket did not close the connection")

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close so that the other end gets a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def __enter__(self) -> WirePeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def dial(port: int, identity: bytes | None = None, host: str = "127.0.0.1", *, receive_buffer: int = 0) -> WirePeer:
    """Connect to a bound Søcket; a small ``receive_buffer`` makes it easy to stall."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(TIMEOUT)
    sock.connect((host, port))
    return WirePeer(sock, identity)


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A listener for a Søcket to connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        yield listener


def accept(listener: socket.socket, identity: bytes | None = None) -> WirePeer:
    return WirePeer(listener.accept()[0], identity)
