"""Closing without losing what was sent."""

from __future__ import annotations

import array
import socket

try:
    import fcntl
    import termios
except ImportError:  # not POSIX
    fcntl = None  # type: ignore[assignment]

__all__ = ["all_acknowledged"]


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
