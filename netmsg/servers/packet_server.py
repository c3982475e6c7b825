"""A handler for each packet: connections cost no thread while they wait for one."""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import Callable, Collection, Generator
from typing import Any, Generic, TypeVar, Union

from ..deadline import check_timeout
from ..errors import PacketDecodeError, SendTimeoutError
from ..packets.codec import Codec, check_codec
from ..packets.receiving import decodes_by_itself
from ..reactor.io_thread import IOThread
from ..speaking import say_soon
from ..streams.byte_stream import check_size
from ..streams.listener import Listener
from ..streams.socket_stream import prepare
from .connection_server import ConnectionServer
from .handlers import FunctionHandler, GeneratorHandler, Handler, check_handler, is_generator
from .packet_connection import PacketConnection
from .stats import ServerStats

__all__ = ["PacketServer"]

log = logging.getLogger("netmsg.servers")

S = TypeVar("S")
R = TypeVar("R")


class PacketServer(ConnectionServer, Generic[S, R]):
    """Calls ``handler`` with each packet that a client sends, in one of a few worker threads.

    :param handler: a function ``handler(client, packet)``; or a generator function ``handler(client)``, called when a
        client connects, in which ``packet = yield`` waits for that client's next packet without holding a thread, or
        ``packet = yield 5.0`` so many seconds for it, and raises what `PacketClient.recv_packet` would:
        `PacketDecodeError`, ``TimeoutError``, `EndOfStream`, `ConnectionBrokenError`, and `ClosedError` when the server
        shuts down. When it returns the connection is closed. ``client`` is a `PacketConnection`; the steps of one
        client never overlap, those of different ones do. What else a handler raises than what happened to the
        connection is logged, with the peer's address, and closes that connection only; and so is a bad packet for a
        function.
    :param listeners: `Listener` objects, which belong to the server from then on. TLS is established before the handler
        begins, unless they were made with ``autostart_tls=False``.
    :param codec: a `Codec`.
    :param max_workers: steps that run at a time. With 0 they run on the selector thread itself: the fastest, for
        handlers that never block. A worker that waits in a call of a `PacketConnection`, or to send on a stream, does
        not count: up to 64 others stand in, and past that the client that has taken nothing for the longest, and for
        two seconds, is closed; of a stream that is no client's the sends of workers end, with `SendTimeoutError`.
    :param max_connections: when there are so many, accepting pauses.
    :param idle_timeout: seconds without a packet after which a client is closed; a generator gets ``TimeoutError``.
    :param send_hwm_bytes: when more than so many bytes wait to be sent to a client, `PacketConnection.send_packet`
        waits, nothing is read from that client, and no packet of its is handled.
    :param send_timeout: for how many seconds at most; then the client is closed. So is one for whose handler nobody
        waits, or whose handler has come to its end, once it has taken nothing at all for so long.
    :param generator: whether ``handler`` is a generator function, where that cannot be told by looking at it.
    :param io_thread: an `IOThread` to share; by default the server has its own.

    A context manager, which starts the server and shuts it down. May be used from any thread.
    """

    def __init__(self, handler: Union[Callable[[PacketConnection[S], R], Any],
                                      Callable[[PacketConnection[S]], Generator[float | None, R, Any]]],
                 *listeners: Listener, codec: Codec[S, R], max_workers: int = 8, max_connections: int = 100_000,
                 idle_timeout: float | None = None, send_hwm_bytes: int = 2**20, send_timeout: float = 30.0,
                 generator: bool | None = None, io_thread: IOThread | None = None) -> None:
        check_handler(handler, generators=True)
        check_codec(codec)
        check_size("max_workers", max_workers, least=0)
        check_size("send_hwm_bytes", send_hwm_bytes)
        check_timeout(idle_timeout)
        check_timeout(send_timeout)
        super().__init__(listeners, max_workers, max_connections, io_thread, patient=True)
        self._codec = codec
        self._encode = codec.encode
        self._has_workers = max_workers > 0
        self._tasks: Collection[Any] = self._pool.tasks if self._has_workers else ()
        """Who else waits for a worker."""
        self._decodes_in_steps = self._has_workers and not decodes_by_itself(codec)
        """What is a user's does not run on the loop."""
        self._idle_timeout = idle_timeout
        self._send_hwm_bytes = send_hwm_bytes
        self._send_timeout = send_timeout if send_timeout is not None else math.inf
        self._user_handler: Callable[..., Any] = handler
        self._handler_type: Callable[[Any, Any], Handler] = \
            GeneratorHandler if (is_generator(handler) if generator is None else generator) else FunctionHandler
        self._bad_packets = 0
        self._packets_received = self._packets_sent = 0  # of the connections that are gone

    def _make_handler(self, connection: PacketConnection[S]) -> Handler:
        return self._handler_type(self._user_handler, connection)

    def _accept(self, listener: Listener, sock: socket.socket, address: Any) -> PacketConnection[S]:
        prepare(sock)
        return PacketConnection(self, listener, sock, address)

    def clients(self) -> list[PacketConnection[S]]:
        """Those that are connected now, TLS established."""
        return [connection for connection in tuple(self._connections) if connection._established
                and not connection.closed]

    def _step_failed(self, connection: PacketConnection[S], error: BaseException, *, expected: bool) -> None:
        """Tell of what has left a handler; ``expected`` is what was raised in it, and not caught."""
        if expected and isinstance(error, PacketDecodeError) and connection._decoder_failed:
            say_soon(log, logging.DEBUG, "%r: %s", connection.remote_address, error)
        elif expected and isinstance(error, PacketDecodeError):
            self._log.warning("bad packet", "%r: a bad packet from %r: %s", self, connection.remote_address, error)
        elif expected and isinstance(error, SendTimeoutError):
            say_soon(log, logging.DEBUG, "%r: %s", connection.remote_address, error)
        elif expected and isinstance(error, TimeoutError):
            self._given_up("idle", connection.remote_address, "it was silent for too long", usual=True)
        else:
            self._handler_failed(connection.remote_address, error, expected=expected)

    def _forget(self, connection: Any) -> None:
        if connection not in self._connections:
            return
        with self._counting:
            self._connections.discard(connection)
            self._packets_received += connection._packets_received
            self._packets_sent += connection._packets_sent
        super()._forget(connection)

    def stats(self) -> ServerStats:
        with self._counting:  # or one that goes meanwhile would count twice
            connections = tuple(self._connections)
            packets_received, packets_sent = self._packets_received, self._packets_sent
        return ServerStats(
            connections=len(connections), accepted=self._accepted,
            handshakes=len(self._handshakes),
            handshakes_failed=self._handshakes_failed, waiting=len(self._pool.tasks), workers=self._pool.workers,
            packets_received=packets_received + sum(one._packets_received for one in connections),
            packets_sent=packets_sent + sum(one._packets_sent for one in connections),
            bad_packets=self._bad_packets, handler_errors=self._handler_errors, accept_pauses=self._accept_pauses,
            accept_errors=self._accept_errors, closed_idle=self._closed_for["idle"],
            closed_slow=self._closed_for["slow"], closed_blocked=self._closed_for["blocked"],
            closed_unsent=self._closed_unsent)
