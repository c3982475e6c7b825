"""A handler for each packet: connections cost no thread while they wait for one.

The two faces, of the server and of one of its clients, know each other; behind them is a `PacketService` a client.
"""

from __future__ import annotations

import logging
import math
import socket
import ssl
from collections.abc import Callable, Generator
from threading import get_ident
from typing import Any, Final, Generic, TypeVar, Union

from ..checks import check_size, check_timeout
from ..errors import (
    ClosedError, LocalProtocolError, PacketDecodeError, RemoteProtocolError, SendTimeoutError, again, as_broken,
    identity,
)
from ..packets.codec import Codec, check_codec
from ..packets.receiving import decodes_by_itself
from ..reactor.io_thread import IOThread
from ..sockets.proxy import SocketProxy
from ..speaking import say_soon
from ..streams.listener import Listener
from ..streams.socket_stream import PeerCredentials, peer_credentials
from ..tls import TLSInfo
from ..tls.contexts import check_server_context
from .connection_server import ConnectionServer
from .handlers import FunctionHandler, GeneratorHandler, Handler, check_handler, is_generator
from .packet_home import Terms, TLSTerms
from .packet_service import PacketService
from .stats import ServerStats

__all__ = ["PacketConnection", "PacketServer"]

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
        self._handler_type: Callable[[Any, Any], Handler] = \
            GeneratorHandler if (is_generator(handler) if generator is None else generator) else FunctionHandler
        self._user_handler: Callable[..., Any] = handler
        self._terms = Terms(
            io=self._io, encode=codec.encode, decoder=codec.decoder,
            decodes_in_steps=max_workers > 0 and not decodes_by_itself(codec),
            has_workers=max_workers > 0, tasks=self._pool.tasks if max_workers > 0 else (), idle_timeout=idle_timeout,
            send_hwm_bytes=send_hwm_bytes, send_timeout=send_timeout if send_timeout is not None else math.inf,
            handshakes=self._handshakes)
        self._tls_terms = {
            listener: TLSTerms(listener._ssl_context, listener._autostart_tls, listener._tls_standard_compatible,
                               listener._handshake_timeout) for listener in listeners}
        self._bad_packets = 0
        self._packets_received = self._packets_sent = 0  # of the connections that are gone

    def _accept(self, listener: Listener, sock: socket.socket, address: Any) -> PacketService[S]:
        service: PacketService[S] = PacketService(self, self._terms, self._tls_terms[listener], sock, address)
        service.client = PacketConnection(self, service)
        service.steps.handler = self._handler_type(self._user_handler, service.client)
        return service

    def clients(self) -> list[PacketConnection[S]]:
        """Those that are connected now, TLS established."""
        clients = [service.client for service in tuple(self._connections) if service.established]
        return [client for client in clients if client is not None]

    # See `netmsg.servers.packet_home.Home`

    def _run_later(self, task: Callable[[], None]) -> None:
        self._pool.put(task)

    def _bad_packet(self) -> None:
        self._bad_packets += 1

    def _step_failed(self, service: PacketService[S], error: BaseException, *, expected: bool) -> None:
        address = service.address
        if expected and isinstance(error, PacketDecodeError) and service.steps.decoder_has_failed:
            say_soon(log, logging.DEBUG, "%r: %s", address, error)
        elif expected and isinstance(error, PacketDecodeError):
            self._log.warning("bad packet", "%r: a bad packet from %r: %s", self, address, error)
        elif expected and isinstance(error, SendTimeoutError):
            say_soon(log, logging.DEBUG, "%r: %s", address, error)
        elif expected and isinstance(error, TimeoutError):
            self._given_up("idle", address, "it was silent for too long", usual=True)
        else:
            self._handler_failed(address, error, expected=expected)

    def _forget(self, connection: Any) -> None:
        if connection not in self._connections:
            return
        with self._counting:
            self._connections.discard(connection)
            self._packets_received += connection.packets_received
            self._packets_sent += connection.packets_sent
        super()._forget(connection)

    def stats(self) -> ServerStats:
        with self._counting:  # or one that goes meanwhile would count twice
            accepted, connections = self._accepted, tuple(self._connections)
            packets_received, packets_sent = self._packets_received, self._packets_sent
        return ServerStats(
            connections=len(connections), accepted=accepted,
            handshakes=len(self._handshakes),
            handshakes_failed=self._handshakes_failed, waiting=len(self._pool.tasks), workers=self._pool.workers,
            packets_received=packets_received + sum(one.packets_received for one in connections),
            packets_sent=packets_sent + sum(one.packets_sent for one in connections),
            bad_packets=self._bad_packets, handler_errors=self._handler_errors, accept_pauses=self._accept_pauses,
            accept_errors=self._accept_errors, closed_idle=self._closed_for["idle"],
            closed_slow=self._closed_for["slow"], closed_blocked=self._closed_for["blocked"],
            closed_unsent=self._closed_unsent)


def as_bytes(data: Any) -> bytes:
    """What a codec of the user's has made of a packet, as it is now."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"encode() of a codec returns bytes, not {type(data).__name__}")
    return bytes(data)


class _Default:
    def __repr__(self) -> str:
        return "<the server's send_timeout>"


DEFAULT: Final = _Default()


class PacketConnection(Generic[S]):
    """One client of a `PacketServer`, as its handler sees it. May be used from any thread."""

    __slots__ = ("server", "state", "_service", "_encode", "_mark", "__weakref__")

    def __init__(self, server: PacketServer[S, Any], service: PacketService[S]) -> None:
        self.server = server
        """The `PacketServer`."""
        self.state: Any = None
        """For the handler's own use."""
        self._service = service
        self._encode = service.terms.encode
        self._mark = service.terms.send_hwm_bytes

    def send_packet(self, packet: S, *, timeout: float | None | _Default = DEFAULT) -> None:
        """Send a packet, or queue it: above ``send_hwm_bytes`` of the server this waits, up to ``timeout`` seconds, and
        raises `SendTimeoutError`. By default it waits for the server's ``send_timeout``, and then this client is closed
        as well; other workers stand in for the one that waits. On a server without workers the handler never waits:
        with a ``timeout`` it raises at once, without one the client has the time of ``send_timeout`` to catch up, and
        is closed at once (`SendTimeoutError`) when the handlers of others have queued 16 times the mark for it.

        Raises `PacketEncodeError`, `ClosedError`, `ConnectionBrokenError`; ``TypeError`` for a codec that encodes to
        something else than bytes.
        """
        if timeout is not DEFAULT:
            check_timeout(timeout)  # type: ignore[arg-type]
        data = self._encode(packet)
        if data.__class__ is not bytes:
            data = as_bytes(data)
        service = self._service
        queue = service.queue
        if service.steps.closed or queue.failure is not None:
            raise self._refusal()
        if queue.size >= self._mark and queue.waits:
            self._wait_for_room(timeout)
        if service.runner.corked and get_ident() == service.io.ident:
            queue.put_aside(data)
            return
        try:
            taken = queue.put(data)
            if queue.blocked or queue.failure is not None:
                service.io.call(service.look)
        except BaseException:  # of a signal handler: the loop sends what is left
            service.io.call(service.has_room)
            raise
        if not taken or queue.failure is not None:
            raise self._refusal()

    def _wait_for_room(self, timeout: float | None | _Default) -> None:
        backpressure = self._service.backpressure
        try:
            if isinstance(timeout, _Default):
                backpressure.wait_for_room(None, explicit=False)
            else:
                backpressure.wait_for_room(timeout, explicit=True)
        except SendTimeoutError as error:
            self._told(error)
            raise
        if self.closed or self._service.queue.failure is not None:
            raise self._refusal()

    def _refusal(self) -> Exception:
        """Why nothing can be sent."""
        self.server._check_process()
        failure = self._service.queue.failure
        if self.closed or failure is None:
            return self._told(ClosedError("the connection is closed"))
        return self._told(as_broken(failure))

    def _told(self, error: Exception) -> Exception:
        """``error``, remembered as one of this connection's: a handler may have other connections."""
        self._service.steps.raised = identity(error)
        return error

    def start_tls(self, ssl_context: ssl.SSLContext | None = None, *, tls_standard_compatible: bool = True,
                  timeout: float | None = None) -> None:
        """Go on under TLS. For the handler, after the last packet in the clear was sent: that told the client to begin.

        ``ssl_context`` defaults to the listener's, ``timeout`` to its ``handshake_timeout``;
        ``tls_standard_compatible=False`` counts here and there. Anything that the client
        has sent behind the packet that asked for TLS may have been injected: `RemoteProtocolError`. Raises
        `TLSHandshakeError`; whatever goes wrong closes the connection.

        On a server without workers it returns at once, and what is sent waits for the handshake; if that fails, the
        error comes in the place of the next packet.
        """
        check_timeout(timeout)
        service = self._service
        tls_terms, steps = service.tls_terms, service.steps
        context = tls_terms.context if ssl_context is None else ssl_context
        if context is None:
            raise ValueError("ssl_context is required: the listener was made without one")
        check_server_context(context)
        if self.closed or service.queue.failure is not None:
            raise self._refusal()
        if not service.has_the_turn or steps.upgrading:
            raise LocalProtocolError("start_tls() is for the handler, once at a time")
        if steps.is_in_the_middle:
            self.abort()
            raise self._told(RemoteProtocolError("the client sent something in the clear behind what asked for TLS: "
                                                 "it may have been injected"))
        if service.start_tls(context, tls_standard_compatible, tls_terms.timeout if timeout is None else timeout):
            if steps.ending is not None:
                raise self._told(again(steps.ending))
            if steps.upgrading:
                raise self._refusal()

    def close(self) -> None:
        """Close, once what was sent has gone; a generator handler gets `ClosedError` at its ``yield``. Idempotent, from
        any thread; never waits."""
        self._service.close()

    def abort(self) -> None:
        """Close at once, dropping everything: over TCP the client gets `ConnectionBrokenError`, and no end."""
        self._service.abort()

    @property
    def closed(self) -> bool:
        """Whether `close` was called, or the connection is over."""
        return self._service.steps.closed

    @property
    def tls(self) -> TLSInfo | None:
        """What TLS agreed on; ``None`` in the clear. `LocalProtocolError` before the handshake is over."""
        transport = self._service.channel.transport
        if self._service.steps.upgrading or transport.handshaking:
            raise LocalProtocolError("the TLS handshake is not over")
        return transport.tls

    @property
    def local_address(self) -> Any:
        """(host, port), or the path of a UNIX socket."""
        return self._service.local_address

    @property
    def remote_address(self) -> Any:
        """(host, port), or the path of a UNIX socket (``""`` if it has none)."""
        return self._service.address

    @property
    def peer_credentials(self) -> PeerCredentials:
        """Who is at the other end of a UNIX connection (Linux). `LocalProtocolError` for TCP."""
        if self.closed:
            raise self._refusal()
        return peer_credentials(self._service.channel.socket)

    @property
    def socket(self) -> SocketProxy:
        """The socket's options and addresses."""
        self.server._check_process()
        return SocketProxy(self._service.channel.socket)

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return -1 if self.closed else self._service.channel.fileno()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.remote_address!r} {'closed' if self.closed else 'open'}>"
