"""The options of every connection."""

from __future__ import annotations

import socket

__all__ = ["hold_back", "prepare"]


def prepare(sock: socket.socket) -> None:
    """The options of every TCP connection: no delay for small pieces, and a look now and then whether the other end is
    still there."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def hold_back(sock: socket.socket) -> bool:
    """What is sent from now on goes with the end behind it, and not before: whether the system can do that."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_CORK"):
        return False
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    return True
