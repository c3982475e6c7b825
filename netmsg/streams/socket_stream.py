"""Byte streams over sockets."""

from __future__ import annotations

import array
import errno
import io
import os
import socket
import stat
import struct
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from ..checks import check_size
from ..deadline import Deadline, Overtime
from ..errors import TOLD_ONCE, LocalProtocolError, RemoteProtocolError
from ..sockets.addresses import host_and_port
from ..sockets.adopting import check_socket
from ..sockets.options import prepare
from ..sockets.proxy import SocketProxy
from ..transports.plain import UNIXTransport
from ..uninterrupted import keep
from .byte_stream import ByteStream
from .links import SocketLink

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["PeerCredentials", "SocketStream", "peer_credentials", "socket_link"]

SENDFILE_PIECE: Final = 1 << 30
OF_THE_FILE: Final = {errno.EINVAL, errno.EIO, errno.ENOSYS, errno.EOPNOTSUPP, errno.EOVERFLOW}
"""Where the kernel does not copy, as from some of /proc, reading does, or tells why not."""


class PeerCredentials(NamedTuple):
    """The process at the other end of a UNIX stream, as the kernel vouches for it, at the time it connected."""

    pid: int
    uid: int
    gid: int


def peer_credentials(sock: socket.socket) -> PeerCredentials:
    """Of a connected UNIX socket. `LocalProtocolError` for another one, ``NotImplementedError`` but on Linux."""
    if sock.family != getattr(socket, "AF_UNIX", None):
        raise LocalProtocolError("only UNIX streams can do this")
    if not hasattr(socket, "SO_PEERCRED"):
        raise NotImplementedError("this system does not tell the credentials of a peer")
    form = struct.Struct("3i")
    return PeerCredentials(*form.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, form.size)))


class SocketStream(ByteStream):
    """A `ByteStream` over TCP or a UNIX socket; see there."""

    def __init__(self, sock: socket.socket, remote_address: Any = None) -> None:
        self._socket = sock
        self._local_address = host_and_port(sock.getsockname())
        if remote_address is None:
            try:
                remote_address = sock.getpeername()
            except OSError as error:  # gone already: the first use will tell
                if error.errno is None:
                    raise  # a signal handler raised it
                remote_address = None
        self._remote_address = host_and_port(remote_address)
        self._socket_link = SocketLink(sock)
        super().__init__(self._socket_link)
        self._proxy = SocketProxy(sock)

    @classmethod
    def from_socket(cls, sock: socket.socket) -> SocketStream:
        """A stream over a connected ``SOCK_STREAM`` socket, which it takes over. ``TypeError`` or ``ValueError`` for
        anything else, which then stays its owner's, untouched."""
        check_socket(sock, socket.SOCK_STREAM, (), "a socket of type SOCK_STREAM")
        if hasattr(sock, "_sslobj"):
            raise ValueError("the socket is under TLS already: hand over the plain one, and use start_tls()")
        try:
            sock.getpeername()
        except OSError as error:
            if error.errno is None:
                raise  # a signal handler raised it
            raise ValueError(f"the socket is not connected: {error}") from error
        if sock.timeout is not None or sock.getblocking():
            sock.setblocking(False)
        prepare(sock)
        return cls(sock)

    def fileno(self) -> int:
        return -1 if self.closed else self._socket.fileno()

    @property
    def local_address(self) -> Any:
        """(host, port), or the path of a UNIX socket; also after close."""
        return self._local_address

    @property
    def remote_address(self) -> Any:
        """The other end's."""
        return self._remote_address

    @property
    def socket(self) -> SocketProxy:
        """The socket's options and addresses."""
        return self._proxy

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {self._local_address!r} to {self._remote_address!r} {state}>"

    def _send_by_kernel(self, deadline: Deadline, file: IO[bytes], offset: int, count: int, counts: list[int]) -> None:
        raw = getattr(file, "raw", file)
        if (not hasattr(os, "sendfile") or self._connection.transport is not self._socket_link.transport
                or not isinstance(file, (io.BufferedReader, io.BufferedRandom, io.FileIO))
                or not isinstance(raw, io.FileIO) or not stat.S_ISREG(os.fstat(raw.fileno()).st_mode)):
            return  # what is read from anything else need not be what its descriptor has
        sending = self._sending
        sent = 0
        overtime = Overtime(deadline)
        while sent < count:
            try:
                keep(counts, os.sendfile, self._socket.fileno(), raw.fileno(), offset + sent,
                     min(count - sent, SENDFILE_PIECE))
            except BlockingIOError:
                sending.wait(deadline, counts)
                continue
            except OSError as error:
                if error.errno in TOLD_ONCE:
                    self._connection.lost = error  # before any call
                if error.errno is None:
                    raise  # not of the network: a signal handler raised it
                if error.errno in OF_THE_FILE:
                    return
                raise sending.failed(error)
            if not counts[-1]:
                return  # the file has become shorter
            sending.has_sent = True
            sent += counts[-1]
            if sent < count and overtime.is_over(counts[-1]):
                raise sending.too_late(counts)

    # UNIX streams

    def _check_unix(self) -> None:
        if self._socket.family != getattr(socket, "AF_UNIX", None):
            raise LocalProtocolError("only UNIX streams can do this")
        if self._connection.transport is not self._socket_link.transport:
            raise LocalProtocolError("descriptors cannot be passed under TLS")

    def send_fds(self, data: ReadableBuffer, fds: Sequence[int], *, timeout: float | None = None) -> None:
        """Pass open descriptors to the process at the other end, along with ``data``, which must not be empty."""
        deadline = self._connection.deadline(timeout)
        octets = bytes(data)
        if not octets:
            raise ValueError("descriptors travel with at least one byte of data")
        descriptors = array.array("i", [fd if isinstance(fd, int) else fd.fileno() for fd in fds])
        self._check_unix()
        self._sending.in_turn(deadline, self._send_fds, octets, descriptors)

    def _send_fds(self, deadline: Deadline, octets: bytes, descriptors: array.array[int]) -> None:
        sending = self._sending
        sending.check()
        counts: list[int] = []
        size = len(octets)
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
        sending.under_way = counts, size  # see `Sending.send_all`
        while not counts:
            try:
                keep(counts, self._socket.sendmsg, [octets], passed)
            except BlockingIOError:
                sending.wait(deadline, counts)
            except OSError as error:
                if error.errno == errno.ECONNRESET:
                    self._connection.lost = error  # before any call
                if isinstance(error, ConnectionError) and error.errno is not None:
                    raise sending.failed(error)
                raise
        sending.has_sent = True
        if counts[0] < size:
            sending.send_pieces(deadline, octets[counts[0]:], size - counts[0], counts)
        sending.under_way = None

    def receive_fds(self, max_bytes: int, max_fds: int, *, timeout: float | None = None) -> tuple[bytes, list[int]]:
        """Some bytes, and the descriptors that came with them, close-on-exec; they belong to the caller.

        What was read ahead is returned first. Descriptors are never lost to another receive: if one has taken the bytes
        that they came with, they are returned at once, with ``b""`` if there are no further bytes. ``(b"", [])`` at the
        end. Each call returns the descriptors of one message at most.

        `RemoteProtocolError` for a message with more than ``max_fds`` of them, or with more than this process has room
        for, and once more have come that nobody has asked for than are kept: those of one message, or 253 of several;
        before the first call of this on the stream 32 of several, the newest; and on all streams together a quarter of
        what the process may have open. The surplus has been closed then, and the bytes can still be read.
        """
        deadline = self._connection.deadline(timeout)
        check_size("max_bytes", max_bytes)
        check_size("max_fds", max_fds)
        self._check_unix()
        unix = self._socket_link.unix
        assert unix is not None
        found: list[int] = []
        try:
            data = self._receiving.take(deadline, self._some_and_fds, max_bytes, max_fds, unix, found)
        except BaseException:
            if found:
                unix.descriptors.kept[0:0] = (found,)  # without a call, and so without an interrupt
                if self._inside.closing.disposed:
                    unix.descriptors.close()
            raise
        return data, found

    def _some_and_fds(self, deadline: Deadline, max_bytes: int, max_fds: int, unix: UNIXTransport,
                      found: list[int]) -> tuple[int, int]:
        come = unix.descriptors
        size = self._receiving.some_there(max_bytes)
        come.ask()
        if not size and (unix.readable or not (come.kept or come.lost)):
            try:
                come.asking = True
                size, _ = self._receiving.some(deadline, max_bytes)
            finally:
                come.asking = False
        if come.lost:
            why, come.lost = come.lost, ""
            raise RemoteProtocolError(why)
        if come.kept and len(come.kept[0]) > max_fds:
            number = len(come.kept[0])
            come.unwanted += come.kept[0]
            del come.kept[0]
            come.close_unwanted()
            raise RemoteProtocolError(f"{number} descriptors came, and no more than {max_fds} were wanted")
        # No call from here on, and so no interrupt.
        if come.kept:
            found += come.kept[0]
            del come.kept[0]
        return size, 0

    @property
    def peer_credentials(self) -> PeerCredentials:
        """Who is at the other end of a UNIX stream (Linux)."""
        self._connection.check()
        return peer_credentials(self._socket)


def socket_link(stream: SocketStream) -> SocketLink:
    """Who waits at the socket under a stream, and how they are told to wait no more. For servers; see `inside`."""
    return stream._socket_link
