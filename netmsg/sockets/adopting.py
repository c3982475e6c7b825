"""Sockets that somebody else has made and that are taken over."""

from __future__ import annotations

import socket

__all__ = ["check_socket"]


def check_socket(sock: socket.socket, kind: int, families: tuple[int, ...], needed: str) -> None:
    """``sock`` is open and of this kind, and of one of these families unless there are none. Raises ``TypeError``,
    ``ValueError``."""
    if not isinstance(sock, socket.socket):
        raise TypeError(f"a socket.socket is needed, not {type(sock).__name__}")
    if sock.fileno() < 0:
        raise ValueError("the socket is closed")
    if sock.type != kind or families and sock.family not in families:
        raise ValueError(f"{needed} is needed")
