"""What servers of connections have in common: listeners, limits, and which errors are the peer's."""

from __future__ import annotations

import functools
import logging
import socket
from typing import Any, Final, Protocol

from ..checks import check_size
from ..errors import (
    ClosedError, ConnectionBrokenError, EndOfStream, IncompleteReadError, RemoteProtocolError, SendTimeoutError,
    TLSHandshakeError,
)
from ..locks import new_reentrant_lock
from ..reactor.accepting import Acceptor
from ..reactor.handshaking import PendingHandshakes
from ..reactor.io_thread import IOThread, reactor_of
from ..speaking import say_soon
from ..streams.listener import Listener
from .server import Server, claim

__all__ = ["Connection", "ConnectionServer"]

log = logging.getLogger("netmsg.servers")

OF_THE_CONNECTION: Final = (ClosedError, ConnectionBrokenError, EndOfStream, IncompleteReadError, RemoteProtocolError,
                            SendTimeoutError, TLSHandshakeError)
"""What peers, the network and the end of the server do to a handler, and what is no fault of its own."""


class Connection(Protocol):
    """One client, on the loop."""

    def _start(self) -> None:
        """Begin, with the TLS handshake if there is one."""

    def _finish(self) -> None:
        """Close if idle, and otherwise as soon as it is."""

    def _cut(self) -> None:
        """Close at once."""

    def _crashed(self, error: Exception) -> None:
        """A method of this object raised: close at once."""

    def _abandon(self) -> None:
        """In a forked child: close this process's copy."""

    @property
    def _unsent(self) -> int:
        """How many bytes `_cut` would drop that a handler has sent and may have forgotten."""


class ConnectionServer(Server):
    """Accepts while there are fewer than ``max_connections``; the others wait in the backlog."""

    def __init__(self, listeners: tuple[Listener, ...], max_workers: int, max_connections: int,
                 io_thread: IOThread | None, *, patient: bool) -> None:
        check_size("max_connections", max_connections)
        io = reactor_of(io_thread)
        claim(listeners, Listener)
        super().__init__(max_workers, io, patient=patient)
        self._listeners = listeners
        self._max_connections = max_connections
        self._acceptors: list[Acceptor] = []
        self._connections: set[Any] = set()
        """On the loop."""
        self._accepted = 0
        self._handshakes = PendingHandshakes(io.machine.readable)
        self._handshakes_failed = 0
        self._accept_errors = 0
        self._accept_pauses = 0
        self._full = False
        self._closed_unsent = 0
        self._closed_for = {"idle": 0, "slow": 0, "blocked": 0}
        self._counting = new_reentrant_lock()  # guards the counters; a leaf, but for signal handlers

    def _accept(self, listener: Listener, sock: socket.socket, address: Any) -> Connection:
        """Make a connection of a socket, which calls `_forget` in the end. On the loop."""
        raise NotImplementedError

    # The life of the server

    def _open(self) -> None:
        self._acceptors = [
            Acceptor(self._io, sock, functools.partial(self._admit, listener), self._accept_failed)
            for listener in self._listeners for sock in listener._sockets]
        for acceptor in self._acceptors:
            acceptor.start()

    def _close_listeners(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        for listener in self._listeners:
            listener.close()

    def _finish_idle(self) -> None:
        for connection in tuple(self._connections):
            connection._finish()

    def _idle(self) -> bool:
        return not self._connections

    def _cut(self) -> None:
        connections = tuple(self._connections)
        dropped = [size for size in (connection._unsent for connection in connections) if size]
        if dropped:
            self._closed_unsent += len(dropped)
            self._log.warning("unsent", "%r: the time to shut down is over: %d clients are cut off, and %d bytes for "
                              "them are dropped", self, len(dropped), sum(dropped))
        for connection in connections:
            connection._cut()

    def _ended(self) -> None:
        super()._ended()
        for connection in tuple(self._connections):
            self._forget(connection)  # its handler has not come to its end: nobody is there any more to hear of that

    def _abandon(self) -> None:
        for acceptor in self._acceptors:
            acceptor.abandon()
        for listener in self._listeners:
            listener.close()
        for connection in tuple(self._connections):
            connection._abandon()

    # Accepting, on the loop

    def _admit(self, listener: Listener, sock: socket.socket, address: Any) -> None:
        try:
            connection = self._accept(listener, sock, address)
        except BaseException as error:
            self._accepted += 1
            sock.close()
            if isinstance(error, OSError):  # it is gone already
                say_soon(log, logging.DEBUG, "%r: %s", address, error)
            else:  # a codec of the user's, which may even exit
                self._handler_failed(address, error, expected=False)
            return
        with self._counting:  # or it would seem to have come and gone
            self._accepted += 1
            self._connections.add(connection)
        try:
            connection._start()
        except Exception as error:  # which is not to end the listener
            say_soon(log, logging.ERROR, "%r cannot begin with %r; closing it", self, address, exc_info=error)
            connection._crashed(error)
        if len(self._connections) >= self._max_connections and not self._full:
            self._full = True
            self._accept_pauses += 1
            self._log.warning("full", "%r: %d connections, and no more are accepted", self, len(self._connections))
            for acceptor in self._acceptors:
                acceptor.pause()

    def _accept_failed(self, error: OSError) -> None:
        self._accept_errors += 1
        self._log.warning("accept", "%r cannot accept: %s", self, error)

    def _forget(self, connection: Connection) -> None:
        """A connection is closed. On the loop. Does nothing the second time."""
        self._connections.discard(connection)
        if self._full and len(self._connections) < self._max_connections:
            self._full = False
            if not self._stopping:
                for acceptor in self._acceptors:
                    acceptor.resume()
        self._settle()

    # Errors

    def _handshake_failed(self, address: Any, error: OSError) -> None:
        self._handshakes_failed += 1
        self._log.warning("handshake", "%r: the TLS handshake with %r failed: %s", self, address, error)

    def _handler_failed(self, address: Any, error: BaseException, *, expected: bool) -> None:
        """Tell of an exception that has left a handler. It is ``expected`` if it was raised by the connection itself,
        and not by another one that the handler has."""
        if expected and isinstance(error, OF_THE_CONNECTION):
            say_soon(log, logging.DEBUG, "%r: %s", address, error)
            return
        self._handler_errors += 1
        self._tell_of("the handler of %r failed", address, error)

    def _given_up(self, kind: str, address: Any, why: str, *, usual: bool = False) -> None:
        """A client is closed because of what it does not do. From any thread."""
        with self._counting:
            self._closed_for[kind] += 1
        if usual:
            say_soon(log, logging.DEBUG, "%r: %r is closed: %s", self, address, why)
        else:
            self._log.warning(kind, "%r: %r is closed: %s", self, address, why)

    # For users

    @property
    def addresses(self) -> list[Any]:
        return [address for listener in self._listeners for address in listener.addresses]

    def fileno(self) -> int:
        return -1 if self._stopping else self._listeners[0].fileno()
