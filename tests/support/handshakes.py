"""Handshakes: both ends in one thread, or one that does not get on."""

from __future__ import annotations

import socket
import ssl
import time

import pytest

from netmsg.transports.plain import Transport

__all__ = ["client_hello", "drip", "shake"]

PATIENCE = 30.0
A_BYTE = 0.05
"""Seconds between two that are dripped."""


def shake(*ends: Transport) -> None:
    """Until it is over for all of them."""
    deadline = time.monotonic() + PATIENCE
    while any(end.handshaking for end in ends):
        assert time.monotonic() < deadline
        for end in ends:
            if end.handshaking:
                try:
                    end.handshake()
                except BlockingIOError:
                    pass


def client_hello(context: ssl.SSLContext) -> bytes:
    """What a client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def drip(sock: socket.socket, hello: bytes) -> int:
    """Send a byte at a time, until the other end hangs up: how many it took."""
    sock.settimeout(A_BYTE)
    for number in range(len(hello)):
        try:
            sock.sendall(hello[number:number + 1])
            if sock.recv(100) == b"":
                return number
        except TimeoutError:
            pass
        except ConnectionError:
            return number
    raise AssertionError("nobody hung up")
