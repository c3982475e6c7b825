"""A view of a socket that belongs to somebody else."""

from __future__ import annotations

import socket
from typing import Any

from ..errors import ClosedError, ForkedError
from ..forking import current_process

__all__ = ["SocketProxy"]


class SocketProxy:
    """What may be asked of a socket, and set, without getting into the way of the one who owns it.

    Never waits for a call that is blocked. What asks the system raises `ClosedError` once the socket is closed, and
    `ForkedError` in a forked child.
    """

    __slots__ = ("_process", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._process = current_process()

    @property
    def family(self) -> int:
        """Such as ``socket.AF_INET6``."""
        return self._socket.family

    @property
    def type(self) -> int:
        """Such as ``socket.SOCK_STREAM``."""
        return self._socket.type

    @property
    def proto(self) -> int:
        """The protocol number."""
        return self._socket.proto

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return self._socket.fileno()

    def getsockopt(self, *arguments: Any) -> Any:
        """As ``socket.socket.getsockopt``."""
        self._check()
        return self._socket.getsockopt(*arguments)

    def setsockopt(self, *arguments: Any) -> None:
        """As ``socket.socket.setsockopt``."""
        self._check()
        self._socket.setsockopt(*arguments)

    def getsockname(self) -> Any:
        """As ``socket.socket.getsockname``."""
        self._check()
        return self._socket.getsockname()

    def getpeername(self) -> Any:
        """As ``socket.socket.getpeername``."""
        self._check()
        return self._socket.getpeername()

    def _check(self) -> None:
        if self._process is not current_process():
            raise ForkedError("this socket belongs to the parent process")
        if self._socket.fileno() < 0:
            raise ClosedError("the socket is closed")

    def __repr__(self) -> str:
        return f"<SocketProxy of {self._socket!r}>"
