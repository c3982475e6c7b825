"""Listening, and accepting connections as streams."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import warnings
from collections import deque
from collections.abc import Iterator
from threading import get_ident
from typing import Any, Final

from ..deadline import Deadline, check_timeout
from ..errors import ClosedError, ForkedError
from ..forking import Process, current_process
from ..sockets.addresses import check_host, check_port, file_identity, host_and_port, unix_path
from ..sockets.listening import OUT_OF_RESOURCES, listen_tcp, listen_unix, tcp_addresses
from ..sockets.resolving import resolve_within
from ..tls.contexts import check_server_context
from ..waiting import Signal
from .byte_stream import check_size
from ..sockets.waiting import READ, wait_for_sockets
from .socket_stream import SocketStream, prepare
from .turns import Turn

__all__ = ["Listener", "create_tcp_server", "create_unix_server"]

PAUSE: Final = 0.1
"""Seconds without accepting after running out of descriptors or memory."""
LONGEST_BACKLOG: Final = 65_535

# What accept() brings of a connection that is gone already, or of the network it came from: see accept(2).
PASSING: Final = frozenset(
    getattr(errno, name) for name in (
        "ECONNABORTED", "EPROTO", "ENOPROTOOPT", "ENETDOWN", "EHOSTDOWN", "ENONET", "EHOSTUNREACH", "EOPNOTSUPP",
        "ENETUNREACH", "EPERM", "ECONNRESET", "ETIMEDOUT") if hasattr(errno, name))


class Listener:
    """One or more listening sockets. A context manager; may be used from any thread, and several may accept.

    Under TLS a stream performs its handshake at its first use, in the thread that uses it, and is given up
    ``handshake_timeout`` seconds after it was accepted: a slow client holds up nobody.
    """

    def __init__(self, sockets: list[socket.socket], *, ssl_context: ssl.SSLContext | None = None,
                 autostart_tls: bool = True, tls_standard_compatible: bool = True,
                 handshake_timeout: float | None = 10.0) -> None:
        self.sockets = sockets
        self._addresses = [host_and_port(sock.getsockname()) for sock in sockets]
        self._families = [sock.family for sock in sockets]
        self._files = [(address, identity) for address in self._addresses
                       if (identity := file_identity(address)) is not None]
        self.ssl_context = ssl_context
        self.autostart_tls = autostart_tls
        self.tls_standard_compatible = tls_standard_compatible
        self.handshake_timeout = handshake_timeout
        self._turn = Turn()
        self._ready: deque[socket.socket] = deque()
        self._signal = Signal()
        self._closing = False
        self._closed_by_last = False
        self._disposed = False
        self._process: Process = current_process()

    @classmethod
    def from_socket(cls, sock: socket.socket, *, ssl_context: ssl.SSLContext | None = None, autostart_tls: bool = True,
                    tls_standard_compatible: bool = True, handshake_timeout: float | None = 10.0) -> Listener:
        """Accept on a listening socket that was inherited or made elsewhere, and is taken over. ``TypeError`` or
        ``ValueError`` for anything else, which then stays its owner's."""
        if not isinstance(sock, socket.socket):
            raise TypeError(f"a socket.socket is needed, not {type(sock).__name__}")
        if sock.fileno() < 0:
            raise ValueError("the socket is closed")
        if sock.type != socket.SOCK_STREAM:
            raise ValueError("a socket of type SOCK_STREAM is needed")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError("the socket is not listening")
        check_server_context(ssl_context)
        check_timeout(handshake_timeout)
        sock.setblocking(False)
        listener = cls([sock], ssl_context=ssl_context, autostart_tls=autostart_tls,
                       tls_standard_compatible=tls_standard_compatible, handshake_timeout=handshake_timeout)
        listener._files = []  # whoever made them sees to them
        return listener

    # Accepting

    def accept(self, *, timeout: float | None = None) -> SocketStream:
        """The next connection. Raises ``TimeoutError``, and `ClosedError` once closed, also while it waits.

        While the process is out of descriptors it accepts nothing and goes on trying.
        """
        deadline = Deadline(timeout)
        self._check()
        claim = [get_ident()]
        try:
            self._turn.take(claim, deadline)
            self._check()
            return self._accept(deadline)
        finally:
            if self._turn.holder is claim:
                self._turn.holder = None
            self._turn.pass_on()
            if self._closed_by_last:
                self._dispose()

    def _accept(self, deadline: Deadline) -> SocketStream:
        while True:
            while self._ready:
                try:
                    sock, address = self._ready[0].accept()
                except BlockingIOError:
                    del self._ready[0]
                except OSError as error:
                    if error.errno in OUT_OF_RESOURCES:
                        self._pause(deadline)
                    elif error.errno not in PASSING:
                        raise
                else:
                    self._ready.rotate(-1)
                    return self.stream(sock, address)
            ready = wait_for_sockets({sock.fileno(): READ for sock in self.sockets}, self._signal, deadline)
            if self._closing:
                raise ClosedError("the listener was closed meanwhile")
            descriptors = {descriptor for descriptor, _ in ready}
            self._ready.extend(sock for sock in self.sockets if sock.fileno() in descriptors)

    def _pause(self, deadline: Deadline) -> None:
        if deadline.expired:
            raise TimeoutError("out of descriptors or memory")
        try:
            wait_for_sockets({}, self._signal, deadline.sooner(PAUSE))
        except TimeoutError:
            return
        raise ClosedError("the listener was closed meanwhile")

    def stream(self, sock: socket.socket, address: Any) -> SocketStream:
        """The stream over a socket that was accepted. For whoever accepts in this object's place."""
        try:
            prepare(sock)
            stream = SocketStream(sock, address)
        except BaseException:
            sock.close()
            raise
        stream.expect_tls(self.ssl_context, server_side=True, standard_compatible=self.tls_standard_compatible)
        if self.ssl_context is not None and self.autostart_tls:
            stream.begin_tls(self.handshake_timeout)
        return stream

    def accept_connections(self) -> Iterator[SocketStream]:
        """Iterate over the connections that come, until closed."""
        while True:
            try:
                stream = self.accept()
            except ClosedError:
                return
            yield stream

    def __iter__(self) -> Iterator[SocketStream]:
        return self.accept_connections()

    # State

    def _check(self) -> None:
        if self._process is not current_process():
            raise ForkedError("this listener belongs to the parent process")
        if self._closing:
            raise ClosedError("the listener is closed")

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing

    def fileno(self) -> int:
        """The descriptor of the first socket; -1 once closed."""
        return -1 if self._closing else self.sockets[0].fileno()

    @property
    def addresses(self) -> list[Any]:
        """(host, port) of every socket, or the path of a UNIX socket; also after close."""
        return list(self._addresses)

    @property
    def port(self) -> int:
        """The TCP port, the same for all addresses."""
        address = self._addresses[0]
        if not isinstance(address, tuple):
            raise AttributeError("a UNIX socket has no port")
        return int(address[1])

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Listener on {self._addresses!r} {'closed' if self._closing else 'open'}>"

    def __del__(self) -> None:
        if getattr(self, "_disposed", True) or self._process is not current_process():
            return
        if not self._closing:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        self._closing = True
        self._dispose()

    # The end

    def close(self) -> None:
        """Stop listening; connections that were accepted go on. Idempotent, from any thread or signal handler.

        A UNIX socket's file is removed, if it is still this one's. Whoever waits in `accept` gets `ClosedError`.
        """
        if self._closing:
            return
        self._closing = True
        if self._process is not current_process():
            for sock in self.sockets:
                sock.close()
            return
        for path, identity in self._files:
            if file_identity(path) == identity:
                try:
                    os.unlink(path)
                except OSError:
                    pass  # such as after giving up privileges
        self._signal.set()
        self._closed_by_last = True
        self._dispose()

    def _dispose(self) -> None:
        """By whoever is last inside."""
        if self._turn.holder is None and not self._disposed:
            self._disposed = True
            for sock in self.sockets:
                sock.close()
            self._signal.close()


def create_tcp_server(port: int = 0, interface: str | None = "localhost", *, family: int = socket.AF_UNSPEC,
                      backlog: int = 4096, reuse_port: bool = False, ssl_context: ssl.SSLContext | None = None,
                      autostart_tls: bool = True, tls_standard_compatible: bool = True,
                      handshake_timeout: float | None = 10.0, timeout: float | None = None) -> Listener:
    """Listen on TCP: by default on 127.0.0.1 and ::1, with the same ``port`` (0: a free one); ``None`` is every
    interface, ``"::"`` all of IPv6 and nothing of IPv4.

    ``reuse_port`` lets several processes listen on one port. ``timeout`` bounds the resolution of ``interface``.
    Raises ``OSError`` when the port is taken, and then nothing is left open; ``ValueError`` and ``TypeError``.
    """
    deadline = Deadline(timeout)
    check_port(port)
    if interface is not None:
        interface = check_host(interface)
    _check_listening(backlog, ssl_context, handshake_timeout)
    if interface in (None, "localhost"):
        addresses = tcp_addresses(interface, port)
    else:
        addresses = resolve_within(deadline, interface, port)
    addresses = [address for address in addresses if family in (socket.AF_UNSPEC, address[0])]
    if not addresses:
        raise OSError(errno.EADDRNOTAVAIL, f"{interface!r} has no address of this family")
    sockets = listen_tcp(addresses, port, min(backlog, LONGEST_BACKLOG), reuse_port=reuse_port)
    return Listener(sockets, ssl_context=ssl_context, autostart_tls=autostart_tls,
                    tls_standard_compatible=tls_standard_compatible, handshake_timeout=handshake_timeout)


def create_unix_server(path: str | bytes | os.PathLike[str], *, mode: int | None = None, backlog: int = 4096,
                       ssl_context: ssl.SSLContext | None = None, autostart_tls: bool = True,
                       tls_standard_compatible: bool = True, handshake_timeout: float | None = 10.0,
                       timeout: float | None = None) -> Listener:
    """Listen on a UNIX socket; a leading NUL in ``path`` is the abstract namespace (Linux).

    A stale socket file is replaced, one that somebody listens on is ``OSError(EADDRINUSE)``. ``mode`` gives the
    file's permissions, in force from the first instant; by default the process's umask decides.
    """
    check_timeout(timeout)
    text = unix_path(path)
    _check_listening(backlog, ssl_context, handshake_timeout)
    sock = listen_unix(text, min(backlog, LONGEST_BACKLOG), mode)
    return Listener([sock], ssl_context=ssl_context, autostart_tls=autostart_tls,
                    tls_standard_compatible=tls_standard_compatible, handshake_timeout=handshake_timeout)


def _check_listening(backlog: int, context: ssl.SSLContext | None, handshake_timeout: float | None) -> None:
    check_size("backlog", backlog, least=0)
    check_server_context(context)
    check_timeout(handshake_timeout)
