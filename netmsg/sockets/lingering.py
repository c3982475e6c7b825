"""Closing without losing what was sent."""

from __future__ import annotations

import array
import socket
import struct

try:
    import fcntl
    import termios
except ImportError:  # not POSIX
    fcntl = None  # type: ignore[assignment]

__all__ = ["all_acknowledged", "reset_on_close", "unacknowledged"]


def all_acknowledged(sock: socket.socket) -> bool:
    """Whether the other end's kernel has everything that was sent; true where that cannot be told."""
    if sock.family == getattr(socket, "AF_UNIX", None):
        return True  # a UNIX socket delivers as it sends
    return unacknowledged(sock) == 0


def unacknowledged(sock: socket.socket) -> int:
    """How many bytes the other end's kernel does not have yet, or has not told so; of a UNIX socket how many those that
    they were sent to have not read, as the kernel counts them. 0 where that cannot be told."""
    if fcntl is None:
        return 0
    size = array.array("i", [0])
    try:
        fcntl.ioctl(sock, termios.TIOCOUTQ, size)
    except (OSError, ValueError):  # the latter of a closed one
        return 0
    return size[0]


def reset_on_close(sock: socket.socket) -> None:
    """Have closing drop what was sent and is not there yet, and tell the other end at once, where there is a way to:
    of a UNIX socket it sees an end."""
    try:
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
