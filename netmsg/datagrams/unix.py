"""UNIX datagram sockets."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Final

from ..deadline import Deadline
from ..sockets.addresses import check_unix_sockets, file_identity, socket_file, unix_path
from ..sockets.adopting import check_socket
from ..sockets.binding import bind_unix
from ..sockets.lingering import unacknowledged
from ..sockets.shortage import OUT_OF_RESOURCES
from ..sockets.waiting import WRITE
from ..speaking import say_soon
from ..uninterrupted import keep
from .datagram_socket import DatagramSocket

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["UNIXDatagramSocket", "create_unix_datagram_socket"]

log = logging.getLogger("netmsg.datagrams")

LOOK: Final = 0.01
"""Seconds between two looks at whether there is room, where no event tells."""

Path = str | bytes | os.PathLike[str]


class UNIXDatagramSocket(DatagramSocket):
    """A UNIX datagram socket; see `create_unix_datagram_socket` and, for what holds of all its members,
    `DatagramSocket`.

    `receive` gives ``""`` as the address of a sender that has none. With a target it hears nobody else; the target is
    looked up at each send, so that a receiver may be restarted. Datagrams are neither lost nor reordered; where the
    receiver does not keep up, sending waits.
    """

    _longest = 262_144

    @classmethod
    def from_socket(cls, sock: socket.socket) -> UNIXDatagramSocket:
        """Take over a UNIX datagram socket that was inherited or made elsewhere, whose file, if it has one, is left to
        whoever made it. If it is connected, its peer is the target, and stays it. ``TypeError`` or ``ValueError`` for
        anything else, which then stays its owner's; ``NotImplementedError`` where there are no UNIX sockets."""
        check_unix_sockets()
        check_socket(sock, socket.SOCK_DGRAM, (socket.AF_UNIX,), "a UNIX datagram socket")
        try:
            peer = sock.getpeername()
        except OSError as error:
            if error.errno is None:
                raise  # a signal handler raised it
            return cls(sock, None, owns_file=False)
        return cls(sock, os.fsdecode(peer), connected=True, owns_file=False)

    def __init__(self, sock: socket.socket, target: str | None, *, connected: bool = False,
                 owns_file: bool = True) -> None:
        self._path = target
        self._file = socket_file(self._address(sock.getsockname())) if owns_file else None
        super().__init__(sock, connected=connected)

    @property
    def _fixed_target(self) -> str | None:
        return self._path

    def _is_target(self, sender: Any) -> bool:
        return self._path is not None and (self._connected or _same(sender, self._path))

    def _is_strange(self, sender: Any) -> bool:
        return self._path is not None and not self._connected and not _same(self._address(sender), self._path)

    def _address(self, address: Any) -> Any:
        return os.fsdecode(address) if isinstance(address, bytes) else address or ""

    def _target(self, address: Any, deadline: Deadline) -> str | None:
        if address is None:
            if self._path is None:
                raise ValueError("a path is needed: the socket was made without a target_path")
            return None if self._connected else self._path
        if self._path is not None:
            raise ValueError("the socket has a target_path: no other may be given")
        return unix_path(address)

    def _is_from(self, sender: Any, expected: Any) -> bool:
        return expected is None or _same(sender, expected)

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

    def _wait(self, events: int, deadline: Deadline, target: Any) -> bool:
        if target is None:
            return super()._wait(events, deadline, target)
        return self._await_room(deadline, target)

    def _await_room(self, deadline: Deadline, target: str) -> bool:
        """Only to a connected socket does the kernel tell that its peer has room again; this one is not. Nor does it
        tell when one that is full has any: it waits for three quarters."""
        wake_up, slice = self._occupancy.wake_up, deadline.sooner(LOOK)
        wanted: dict[int, int] = {}
        probes: list[Any] = []
        try:
            try:
                keep(probes, socket.SocketType, socket.AF_UNIX, socket.SOCK_DGRAM)
            except OSError as error:
                if error.errno not in OUT_OF_RESOURCES:
                    raise
            else:
                probe = probes[0]
                probe.setblocking(False)
                if self._unread_bytes < self._send_buffer:
                    try:
                        probe.connect(target)
                        wanted = {probe.fileno(): WRITE}
                    except PermissionError:
                        pass  # it is connected to this one: it takes what this one has room for
            return wake_up.ready(wanted, slice) is not None or not deadline.expired
        finally:
            if probes:
                probes[0].close()

    # For servers

    @property
    def _unread_bytes(self) -> int:
        """How much of what was sent has not been read, as the kernel counts it against `_send_buffer`."""
        return self._inside(unacknowledged, self._socket)

    @property
    def _send_buffer(self) -> int:
        """Where there is so much unread, by whomever, nobody can be sent anything."""
        return self._inside(self._socket.getsockopt, socket.SOL_SOCKET, socket.SO_SNDBUF)

    def _wait_for_room(self, address: str, deadline: Deadline) -> None:
        """Wait until it may be worth trying to send there again. Raises ``TimeoutError``."""
        if not self._inside(self._await_room, deadline, address):
            raise TimeoutError("timed out")

    def _dispose(self) -> None:
        if self._file is not None and self._socket.fileno() >= 0:
            try:
                self._file.remove()
            except OSError as error:  # such as after giving up privileges
                say_soon(log, logging.WARNING, "%r: cannot remove its file: %s", self, error)
        super()._dispose()

    def _forked(self) -> None:
        self._file = None  # it is the parent's
        super()._forked()


def _same(sender: str, path: str) -> bool:
    """Whether ``sender`` is the one at ``path``, though it may have been bound to another name of the same file."""
    if sender == path:
        return True
    found = file_identity(path) if sender else None
    return found is not None and file_identity(sender) == found


def create_unix_datagram_socket(*, path: Path | None = None, target_path: Path | None = None, mode: int | None = None,
                                timeout: float | None = None) -> UNIXDatagramSocket:
    """A UNIX datagram socket, bound to ``path``, which has the permissions ``mode`` from the first instant and is
    removed on close. A stale file is replaced, one that is in use is ``OSError(EADDRINUSE)``.

    Without ``path`` it gets an address of its own, so that it can be answered: an abstract one on Linux, elsewhere a
    temporary file.

    ``timeout`` bounds the wait for another program that is about to bind to the same path. ``NotImplementedError``
    where there are no UNIX sockets.
    """
    deadline = Deadline(timeout)
    check_unix_sockets()
    target = unix_path(target_path) if target_path is not None else None
    own = unix_path(path) if path is not None else None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        if own is not None:
            bind_unix(sock, own, mode, deadline)
        elif sys.platform == "linux":
            sock.bind("")
        else:
            sock.bind(tempfile.mktemp(prefix="netmsg-"))
        return UNIXDatagramSocket(sock, target)
    except BaseException:
        sock.close()
        raise
