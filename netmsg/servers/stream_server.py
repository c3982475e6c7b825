"""A handler for each connection, in a thread of its own as long as that lasts."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

from ..deadline import check_timeout
from ..reactor.handshaking import Handshake
from ..reactor.io_thread import READ, IOThread
from ..streams.byte_stream import IdleTimeoutError, check_size
from ..streams.listener import Listener
from ..streams.socket_stream import SocketStream
from .connection_server import ConnectionServer
from .handlers import check_handler
from .stats import ServerStats

__all__ = ["StreamServer"]

log = logging.getLogger("netmsg.servers")

StreamHandler = Callable[[SocketStream], Any]


class StreamServer(ConnectionServer):
    """Runs ``handler(stream)`` for each connection, in a worker thread, and closes the stream when it returns.

    :param handler: may use the `SocketStream` as long as it likes; TLS is established before it is called, unless the
        listener was made with ``autostart_tls=False``. What else it raises than what happened to the connection is
        logged, with the peer's address, and closes that connection only.
    :param listeners: `Listener` objects, which belong to the server from then on.
    :param max_workers: handlers that may run at a time. Further connections wait, accepted, without a thread. Workers
        that are not needed any more go away.
    :param max_connections: those that run and wait together; when there are so many, accepting pauses.
    :param wait_for_data: call the handler only once the client has sent something: silent ones cost no thread.
    :param idle_timeout: seconds for each call of the stream's that is given no ``timeout`` itself.
    :param io_thread: an `IOThread` to share; by default the server has its own.

    A context manager, which starts the server and shuts it down. May be used from any thread.
    """

    def __init__(self, handler: StreamHandler, *listeners: Listener, max_workers: int = 1000,
                 max_connections: int = 10_000, wait_for_data: bool = False, idle_timeout: float | None = None,
                 io_thread: IOThread | None = None) -> None:
        check_handler(handler)
        check_size("max_workers", max_workers)
        check_timeout(idle_timeout)
        super().__init__(listeners, max_workers, max_connections, io_thread, patient=False)
        self.handler = handler
        self.wait_for_data = wait_for_data
        self.idle_timeout = idle_timeout

    def _accept(self, listener: Listener, sock: socket.socket, address: Any) -> _Call:
        stream = listener.stream(sock, address)
        stream.idle_timeout = self.idle_timeout
        return _Call(self, sock, stream, listener.handshake_timeout)

    def stats(self) -> ServerStats:
        connections = tuple(self.connections)
        return ServerStats(
            connections=len(connections), accepted=self.accepted,
            handshakes=sum(call.handshake is not None for call in connections),
            handshakes_failed=self.handshakes_failed, waiting=len(self.pool.tasks), workers=self.pool.workers,
            handler_errors=self.handler_errors, accept_pauses=self.accept_pauses, accept_errors=self.accept_errors)


class _Call:
    """One connection: its handshake, perhaps the wait for its first byte, the wait for a worker, the handler."""

    def __init__(self, server: StreamServer, sock: socket.socket, stream: SocketStream,
                 handshake_timeout: float | None) -> None:
        self._server = server
        self._io = server.io
        self._socket = sock
        self._stream = stream
        self._handshake_timeout = handshake_timeout
        self._handed_over = False
        self._over = False
        self.handshake: Handshake | None = None

    # On the loop

    def start(self) -> None:
        transport = self._stream.transport
        if transport.handshaking:
            self.handshake = Handshake(self._io, self._socket, transport, self._handshake_timeout, self._shaken)
            self.handshake.start()
        else:
            self._established()

    def _shaken(self, error: OSError | None) -> None:
        self.handshake = None
        if error is not None:
            self._server.handshake_failed(self._stream.remote_address, error)
            self.cut()
        else:
            self._stream.handshake_over()
            self._established()

    def _established(self) -> None:
        if self._server.wait_for_data and not self._stream.transport.readable:
            self._io.watch(self._socket, READ, self)
        else:
            self._hand_over()

    def on_event(self, events: int) -> None:
        self._io.watch(self._socket, 0, self)
        self._hand_over()

    def _hand_over(self) -> None:
        self._handed_over = True
        self._server.run_by_worker(self._run)

    def finish(self) -> None:
        if not self._handed_over:
            self.cut()

    def cut(self) -> None:
        if self.handshake is not None:
            self.handshake.cancel()
            self.handshake = None
        if self._handed_over:
            self._stream.cut()  # and the worker sees to the rest
        else:
            self._io.watch(self._socket, 0, self)
            self._io.bury(self._stream.cut)
            self._forget()

    def _forget(self) -> None:
        if not self._over:
            self._over = True
            self._server.forget(self)

    def crashed(self, error: Exception) -> None:
        self.cut()

    def abandon(self) -> None:
        """Streams see to a fork themselves."""

    # In a worker

    def _run(self) -> None:
        stream = self._stream
        try:
            if not stream.closed:
                self._server.handler(stream)
        except IdleTimeoutError as error:
            log.debug("%r: %s", stream.remote_address, error)
        except BaseException as error:
            self._server.handler_failed(stream.remote_address, error,
                                        expected=id(error) == stream.failure or stream.closed)
        finally:
            try:
                stream.close()
            finally:
                self._io.call(self._forget)
