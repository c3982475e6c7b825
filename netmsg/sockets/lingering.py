"""Closing without losing what was sent."""

from __future__ import annotations

import array
import socket

try:
    import fcntl
    import termios
except ImportError:  # not POSIX
    fcntl = None  # type: ignore[assignment]

__all__ = ["all_acknowledged", "unread_by_others"]


def all_acknowledged(sock: socket.socket) -> bool:
    """Whether the other end's kernel has everything that was sent; true where that cannot be told."""
    if fcntl is None or sock.family == getattr(socket, "AF_UNIX", None):
        return True  # a UNIX socket delivers as it sends
    unacknowledged = array.array("i", [0])
    try:
        fcntl.ioctl(sock, termios.TIOCOUTQ, unacknowledged)
    except OSError:
        return True
    return unacknowledged[0] == 0


def unread_by_others(sock: socket.socket) -> int:
    """How much of the send buffer of a UNIX socket the receivers have not read yet, in bytes as the kernel counts them;
    0 where that cannot be told."""
    if fcntl is None:
        return 0
    unread = array.array("i", [0])
    try:
        fcntl.ioctl(sock, termios.TIOCOUTQ, unread)
    except OSError:
        return 0
    return unread[0]
