"""Listening, and accepting connections as streams."""

from __future__ import annotations

import errno
import logging
import operator
import os
import socket
import ssl
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from ..checks import check_host, check_port, check_size, check_timeout
from ..deadline import Deadline
from ..errors import ClosedError, ForkedError
from ..forking import Process, close_in_child, current_process
from ..sockets.addresses import host_and_port, socket_file, unix_path
from ..sockets.adopting import check_socket
from ..sockets.listening import listen_tcp, listen_unix, tcp_addresses
from ..sockets.options import prepare
from ..sockets.resolving import resolve_within
from ..sockets.shortage import OUT_OF_RESOURCES
from ..sockets.waiting import READ, Occupancy
from ..speaking import say_soon
from ..tls.contexts import check_server_context
from ..uninterrupted import keep, move_first
from ..waiting import ONE
from .byte_stream import inside
from .socket_stream import SocketStream

__all__ = ["Listener", "create_tcp_server", "create_unix_server"]

log = logging.getLogger("netmsg.streams")

PAUSE: Final = 0.1
"""Seconds without accepting after running out of descriptors or memory."""
LONGEST_BACKLOG: Final = 65_535

# What accept() brings of a connection that is gone already, or of the network it came from: see accept(2).
PASSING: Final = frozenset(
    getattr(errno, name) for name in (
        "ECONNABORTED", "EPROTO", "ENOPROTOOPT", "ENETDOWN", "EHOSTDOWN", "ENONET", "EHOSTUNREACH", "EOPNOTSUPP",
        "ENETUNREACH", "EPERM", "ECONNRESET", "ETIMEDOUT") if hasattr(errno, name))

_accept = operator.methodcaller("_accept")


class Listener:
    """One or more listening sockets. A context manager; may be used from any thread, and several may accept.

    Under TLS a stream performs its handshake at its first use, in the thread that uses it, and is given up
    ``handshake_timeout`` seconds after it was accepted: a slow client holds up nobody.

    In a child after ``os.fork()`` its copy is closed, so that what the parent closes is closed. For accepting in
    several processes each has to make its own, with ``reuse_port=True`` or by `from_socket`.
    """

    def __init__(self, sockets: list[socket.socket], *, ssl_context: ssl.SSLContext | None = None,
                 autostart_tls: bool = True, tls_standard_compatible: bool = True,
                 handshake_timeout: float | None = 10.0) -> None:
        self._sockets = sockets
        self._addresses = [host_and_port(sock.getsockname()) for sock in sockets]
        self._files = [file for file in map(socket_file, self._addresses) if file is not None]
        self._ssl_context = ssl_context
        self._autostart_tls = autostart_tls
        self._tls_standard_compatible = tls_standard_compatible
        self._handshake_timeout = handshake_timeout
        self._first = 0  # which socket is asked first, in turn
        self._left: list[list[Any]] = []  # arrivals that interrupted calls have left, for the next one: `_stream_over`
        self._process: Process = current_process()
        self._occupancy = Occupancy()
        close_in_child(self)

    @classmethod
    def from_socket(cls, sock: socket.socket, *, ssl_context: ssl.SSLContext | None = None, autostart_tls: bool = True,
                    tls_standard_compatible: bool = True, handshake_timeout: float | None = 10.0) -> Listener:
        """Accept on a listening socket that was inherited or made elsewhere, and is taken over. ``TypeError`` or
        ``ValueError`` for anything else, which then stays its owner's."""
        check_socket(sock, socket.SOCK_STREAM, (), "a socket of type SOCK_STREAM")
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

        While the process is out of descriptors it accepts nothing and goes on trying. An interrupt (Ctrl-C) loses
        nobody: the connection that was being taken is what the next call returns.
        """
        deadline = Deadline(timeout)
        occupancy = self._occupancy
        left = self._left
        arrival: list[Any] = []
        claim = object()
        try:
            occupancy.inside[claim] = None
            self._check()
            while True:
                if not arrival:
                    self._take(arrival, deadline)
                try:
                    stream = self._stream_over(arrival)
                except OSError as error:
                    if isinstance(error, TimeoutError) and error.errno is None:
                        raise  # a signal handler raised it
                    log.debug("%r: a client was gone before it could be served: %s", self, error)
                    _discard(arrival)
                    continue
                # No call from here on, and so no interrupt.
                return stream
        except BaseException:
            if arrival:
                left += (arrival,)
                if occupancy.inside != {claim: None}:  # for who waits already: see `WakeUp`
                    try:
                        for signal in occupancy.wake_up.signals[:1]:
                            os.write(signal.ends[-1], ONE)
                    except BlockingIOError:
                        pass  # it is set
            raise
        finally:
            del occupancy.inside[claim]
            if occupancy.closing:
                occupancy.left(self._dispose)

    def _take(self, arrival: list[Any], deadline: Deadline) -> None:
        """Accept a connection, and append its descriptor and address, as the kernel tells them. One that an interrupted
        call has left comes first."""
        left = self._left
        first = self._first
        self._first = (first + 1) % len(self._sockets)
        ready = deque((*self._sockets[first:], *self._sockets[:first]))
        while True:
            if left and move_first(left, arrival):
                return
            if ready:
                try:
                    keep(arrival, _accept, ready[0])  # ``socket.accept`` is several calls
                    return
                except BlockingIOError:
                    del ready[0]
                except OSError as error:
                    self._check()
                    if error.errno in OUT_OF_RESOURCES:
                        self._pause(deadline)
                    elif error.errno not in PASSING:
                        raise
                continue
            found = self._occupancy.wake_up.wait({sock.fileno(): READ for sock in self._sockets}, deadline, left)
            self._check()
            descriptors = {descriptor for descriptor, _ in found}
            ready.extend(sock for sock in self._sockets if sock.fileno() in descriptors)

    def _pause(self, deadline: Deadline) -> None:
        if deadline.expired:
            raise TimeoutError("out of descriptors or memory")
        self._occupancy.wake_up.ready({}, deadline.sooner(PAUSE))
        self._check()

    def _stream_over(self, arrival: list[Any]) -> SocketStream:
        """The stream over a connection that was accepted.

        ``arrival`` has the descriptor with the address, then the socket, then the stream: all that there is, whatever
        interrupts, so that nothing is collected, and closed with that, and the next call can go on. Every step can be
        repeated.
        """
        descriptor, address = arrival[0]
        if len(arrival) < 2:
            arrival.append(socket.socket.__new__(socket.socket))
        sock: socket.socket = arrival[1]
        if len(arrival) < 3:
            socket.socket.__init__(sock, fileno=descriptor)
            arrival.append(SocketStream.__new__(SocketStream))
        stream: SocketStream = arrival[2]
        self._set_up(stream, sock, address)
        return stream

    def _set_up(self, stream: SocketStream, sock: socket.socket, address: Any) -> None:
        prepare(sock)
        SocketStream.__init__(stream, sock, address)
        maker = inside(stream)
        maker.expect_tls(self._ssl_context, server_side=True, standard_compatible=self._tls_standard_compatible)
        if self._ssl_context is not None and self._autostart_tls:
            maker.begin_tls(self._handshake_timeout)

    def _stream(self, sock: socket.socket, address: Any) -> SocketStream:
        """The stream over a socket that was accepted. For whoever accepts in this object's place."""
        stream = SocketStream.__new__(SocketStream)
        try:
            self._set_up(stream, sock, address)
        except BaseException:
            sock.close()
            raise
        return stream

    def accept_connections(self) -> Iterator[SocketStream]:
        """Iterate over the connections that come, until closed."""
        return _Connections(self)

    def __iter__(self) -> Iterator[SocketStream]:
        return _Connections(self)

    # State

    def _check(self) -> None:
        if self._process is not current_process():
            raise ForkedError("this listener belongs to the parent process")
        if self._occupancy.closing:
            raise ClosedError("the listener is closed")

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._occupancy.closing

    def fileno(self) -> int:
        """The descriptor of the first socket; -1 once closed."""
        return -1 if self.closed else self._sockets[0].fileno()

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
        return f"<Listener on {self._addresses!r} {'closed' if self.closed else 'open'}>"

    def __del__(self) -> None:
        if not hasattr(self, "_occupancy") or self._process is not current_process():
            return
        if not self.closed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self._remove_files()
        self._occupancy.closing = True
        self._occupancy.left(self._dispose)

    # The end

    def close(self) -> None:
        """Stop listening; connections that were accepted go on. Idempotent, from any thread or signal handler.

        A UNIX socket's file is removed, if it is still this one's. Whoever waits in `accept` gets `ClosedError`.
        """
        if self._process is not current_process():
            return  # what it had here is closed
        if not self._occupancy.over:
            self._remove_files()
        self._occupancy.close(self._dispose)

    def _remove_files(self) -> None:
        for file in self._files:
            try:
                file.remove()
            except OSError as error:  # such as after giving up privileges
                say_soon(log, logging.WARNING, "%r: cannot remove its file: %s", self, error)

    def _dispose(self) -> None:
        """By whoever is last inside."""
        for sock in self._sockets:
            sock.close()
        for arrival in self._left:
            if len(arrival) == 3:
                try:
                    arrival[2].abort()
                except AttributeError:
                    pass  # the interrupt that left it here came before it was finished
            _discard(arrival)

    def _forked(self) -> None:
        """In a forked child: close this process's copies."""
        for arrival in self._left:
            _discard(arrival)
        self._occupancy.forked(self._dispose)


class _Connections(Iterator[SocketStream]):
    """An iterator that may be asked again after it raised, which a generator may not."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def __next__(self) -> SocketStream:
        try:
            return self._listener.accept()
        except ClosedError:
            raise StopIteration from None


def _discard(arrival: list[Any]) -> None:
    """Close a connection of which nobody has heard."""
    if len(arrival) > 1 and arrival[1].fileno() >= 0:
        arrival[1].close()
    elif 0 < len(arrival) < 3:  # the socket has not got the descriptor yet
        socket.close(arrival[0][0])
    arrival.clear()


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
    sockets: list[socket.socket] = []
    try:
        sockets = listen_tcp(addresses, port, min(backlog, LONGEST_BACKLOG), reuse_port=reuse_port)
        return Listener(sockets, ssl_context=ssl_context, autostart_tls=autostart_tls,
                        tls_standard_compatible=tls_standard_compatible, handshake_timeout=handshake_timeout)
    except BaseException:  # an interrupt, whose traceback would keep them open
        for sock in sockets:
            sock.close()
        raise


def create_unix_server(path: str | bytes | os.PathLike[str], *, mode: int | None = None, backlog: int = 4096,
                       ssl_context: ssl.SSLContext | None = None, autostart_tls: bool = True,
                       tls_standard_compatible: bool = True, handshake_timeout: float | None = 10.0,
                       timeout: float | None = None) -> Listener:
    """Listen on a UNIX socket; a leading NUL in ``path`` is the abstract namespace (Linux).

    A stale socket file is replaced; one that somebody listens on, a link and any other file are
    ``OSError(EADDRINUSE)``. ``mode`` gives the file's permissions, in force from the first instant; by default the
    process's umask decides. ``timeout`` bounds the wait for another program that is about to bind to the same path.
    ``NotImplementedError`` where there are no UNIX sockets.
    """
    deadline = Deadline(timeout)
    text = unix_path(path)
    _check_listening(backlog, ssl_context, handshake_timeout)
    sock = None
    try:
        sock = listen_unix(text, min(backlog, LONGEST_BACKLOG), mode, deadline)
        return Listener([sock], ssl_context=ssl_context, autostart_tls=autostart_tls,
                        tls_standard_compatible=tls_standard_compatible, handshake_timeout=handshake_timeout)
    except BaseException:  # an interrupt, whose traceback would keep it open
        if sock is not None:
            sock.close()
        raise


def _check_listening(backlog: int, context: ssl.SSLContext | None, handshake_timeout: float | None) -> None:
    check_size("backlog", backlog, least=0)
    check_server_context(context)
    check_timeout(handshake_timeout)
