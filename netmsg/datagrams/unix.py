"""UNIX datagram sockets."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from ..deadline import Deadline, check_timeout
from ..sockets.addresses import file_identity, unix_path
from ..sockets.listening import bind_unix
from .datagram_socket import DatagramSocket

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["UNIXDatagramSocket", "create_unix_datagram_socket"]

Path = str | bytes | os.PathLike[str]


class UNIXDatagramSocket(DatagramSocket):
    """A UNIX datagram socket; see `create_unix_datagram_socket` and, for what holds of all its members,
    `DatagramSocket`.

    `receive` gives ``""`` as the address of a sender that has none. The target is looked up at each send, so that a
    receiver may be restarted. Datagrams are neither lost nor reordered; where the receiver does not keep up, sending
    waits.
    """

    def __init__(self, sock: socket.socket, target: str | None) -> None:
        self._path = target
        super().__init__(sock, connected=target is not None)
        self._file = file_identity(self._local_address)

    @property
    def target(self) -> str | None:
        return self._path

    def is_target(self, sender: Any) -> bool:
        return self._path is not None and bool(sender == self._path)

    def _address(self, address: Any) -> Any:
        return os.fsdecode(address) if isinstance(address, bytes) else address or ""

    def _target(self, address: Any, deadline: Deadline) -> str:
        if address is None:
            if self._path is None:
                raise ValueError("a path is needed: the socket was made without a target_path")
            return self._path
        if self._path is not None:
            raise ValueError("the socket has a target_path: no other may be given")
        return unix_path(address)

    def _is_from(self, sender: Any, expected: Any) -> bool:
        return bool(sender == expected)

    def send(self, data: ReadableBuffer, path: Path | None = None, *, timeout: float | None = None) -> None:
        """Send one datagram to ``path``, or without it to the ``target_path``.

        ``FileNotFoundError`` or ``ConnectionRefusedError`` if nobody is there, ``OSError(EMSGSIZE)`` if it is too
        long.
        """
        deadline = Deadline(timeout)
        self._check()
        self._send(data, self._target(path, deadline), deadline)

    def send_to(self, data: ReadableBuffer, address: Path, *, timeout: float | None = None) -> None:
        """`send` to an address as `receive` gave it."""
        self.send(data, address, timeout=timeout)

    def _wait(self, events: int, deadline: Deadline, target: Any) -> None:
        super()._wait(events, deadline, target)
        if target is None or self.closed:
            return
        # Only to a connected socket does the kernel tell that its peer has room again; this one is not.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            probe.setblocking(False)
            probe.connect(target)
            self._wake_up.wait({probe.fileno(): events}, deadline)

    def _dispose(self) -> None:
        super()._dispose()
        if self._file is not None and file_identity(self._local_address) == self._file:
            try:
                os.unlink(self._local_address)
            except OSError:
                pass  # such as after giving up privileges

    def forked(self) -> None:
        self._file = None  # it is the parent's
        super().forked()


def create_unix_datagram_socket(*, path: Path | None = None, target_path: Path | None = None, mode: int | None = None,
                                timeout: float | None = None) -> UNIXDatagramSocket:
    """A UNIX datagram socket, bound to ``path``, which has the permissions ``mode`` from the first instant and is
    removed on close. A stale file is replaced, one that is in use is ``OSError(EADDRINUSE)``.

    Without ``path`` it gets an address of its own, so that it can be answered: an abstract one on Linux, elsewhere a
    temporary file.
    """
    check_timeout(timeout)
    target = unix_path(target_path) if target_path is not None else None
    own = unix_path(path) if path is not None else None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        if own is not None:
            bind_unix(sock, own, mode)
        elif sys.platform == "linux":
            sock.bind("")
        else:
            sock.bind(tempfile.mktemp(prefix="netmsg-"))
        return UNIXDatagramSocket(sock, target)
    except BaseException:
        sock.close()
        raise
