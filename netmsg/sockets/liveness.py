"""What the operating system knows of the other end of a connection that is not being read."""

from __future__ import annotations

import select
import socket
import struct
import sys
from typing import Final

__all__ = ["acknowledged_within", "hung_up"]

HUNG_UP: Final = (getattr(select, "POLLRDHUP", 0) | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)
                  | getattr(select, "POLLNVAL", 0))

# struct tcp_info of Linux: eight bytes of state, then numbers of 32 bits. Its beginning never changes.
TCPI_PROBES: Final = 3
TCPI_UNACKED: Final = 8 + 4 * 4
TCPI_LAST_ACK_RECEIVED: Final = 8 + 12 * 4


def hung_up(sock: socket.socket) -> bool:
    """Whether the other end has closed or reset the connection; what it sent before may still be there to be read.

    False where that cannot be told.
    """
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sock, getattr(select, "POLLRDHUP", 0))
    return any(happened & HUNG_UP for _, happened in poll.poll(0))


def acknowledged_within(sock: socket.socket, seconds: float) -> bool:
    """Whether the other end's system has everything that it was sent, or has acknowledged anything in the last
    ``seconds``. True where that cannot be told.

    A receiver that is full is sent nothing, and asked now and then whether it has room again, up to two minutes apart:
    as long as it answers it is there, and until it is asked again it cannot be told that it has gone.
    """
    if not sys.platform.startswith("linux") or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return True
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCPI_LAST_ACK_RECEIVED + 4)
    except OSError:
        return True
    return _is_answered(info, seconds)


def _is_answered(info: bytes, seconds: float) -> bool:
    (unacknowledged,) = struct.unpack_from("=I", info, TCPI_UNACKED)
    (milliseconds,) = struct.unpack_from("=I", info, TCPI_LAST_ACK_RECEIVED)
    return not (unacknowledged or info[TCPI_PROBES]) or milliseconds <= seconds * 1000
