"""The options of every connection."""

from __future__ import annotations

import socket

__all__ = ["hold_back", "prepare", "size_buffers"]


def prepare(sock: socket.socket) -> None:
    """The options of every TCP connection: no delay for small pieces, and a look now and then whether the other end is
    still there."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def size_buffers(sock: socket.socket, send: int | None, receive: int | None) -> None:
    """How many bytes the kernel is to hold in either direction, as far as it allows that (Linux takes twice as many);
    ``None``: as it likes. Over TCP those of a listening socket are those of its connections, from their first
    byte on."""
    if send is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send)
    if receive is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)


def hold_back(sock: socket.socket) -> bool:
    """What is sent from now on goes with the end behind it, and not before: whether the system can do that."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_CORK"):
        return False
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    return True
