"""A stream's way under TLS: what with, the handshake, and `start_tls`."""

from __future__ import annotations

import ssl
from typing import Any

from ..deadline import Deadline
from ..errors import ClosedError, LocalProtocolError, NetmsgError, RemoteProtocolError, TLSHandshakeError
from ..sockets.waiting import READ, WRITE
from ..tls import TLSInfo, verified_hostname
from ..tls.contexts import check_server_context, client_context
from ..transports.encrypted import TLSTransport
from .closing import Closing
from .connection import FOREVER, Connection, closed_meanwhile
from .files import Readers
from .receiving import Receiving
from .sending import Sending

__all__ = ["Securing"]


class Securing:
    """The handshake is performed by whoever comes first, and has all others wait. If it fails, the stream is closed."""

    def __init__(self, connection: Connection, receiving: Receiving, sending: Sending, readers: Readers,
                 closing: Closing) -> None:
        self._connection = connection
        self._receiving = receiving
        self._sending = sending
        self._readers = readers
        self._closing = closing
        self._context: ssl.SSLContext | bool | None = None
        self._server_side: bool | None = None
        self._server_hostname: str | None = None
        self._handshake_deadline = FOREVER
        connection.shake_hands = self._shake_hands

    def expect(self, context: ssl.SSLContext | None, server_side: bool, server_hostname: str | None,
               standard_compatible: bool) -> None:
        """What `begin` and `start_tls` are to use."""
        self._context = context
        self._server_side = server_side
        self._server_hostname = server_hostname
        self._connection.standard_compatible = standard_compatible

    def begin(self, handshake_timeout: float | None) -> None:
        """TLS from the first byte on, with the handshake at the first use."""
        context = self._context
        assert isinstance(context, ssl.SSLContext) and self._server_side is not None
        hostname = verified_hostname(context, self._server_hostname) if not self._server_side else None
        self._connection.transport = self._over_tls(context, self._server_side, hostname,
                                                    self._connection.standard_compatible)
        self._handshake_deadline = Deadline(handshake_timeout)

    def handshake_over(self) -> None:
        """Somebody else has performed the handshake, on the transport."""
        self._handshake_deadline = FOREVER

    def _over_tls(self, context: ssl.SSLContext, server_side: bool, server_hostname: str | None,
                  standard_compatible: bool) -> TLSTransport:
        self._connection.link.go_under_tls()
        return TLSTransport(self._connection.transport, context, server_side=server_side,
                            server_hostname=server_hostname, standard_compatible=standard_compatible)

    # The handshake

    def do_handshake(self, deadline: Deadline) -> TLSInfo:
        """See `ByteStream.do_handshake`."""
        if self._connection.transport.handshaking:
            self._shake_hands(deadline)
        info = self._connection.transport.tls
        if info is None:
            raise LocalProtocolError("this stream is in the clear: see start_tls()")
        return info

    def _shake_hands(self, deadline: Deadline) -> None:
        self._connection.in_turn(self._connection.shaking, deadline, self._handshake)

    def _handshake(self, deadline: Deadline) -> None:
        connection = self._connection
        transport = connection.transport
        upgrading = self._sending.turn.is_mine
        shaken = again = False
        while transport.handshaking or (shaken and transport.finishing):
            try:
                if shaken:
                    connection.wait(WRITE, deadline)  # without the rest of it the other end cannot finish
                    continue
                try:
                    transport.handshake()
                    shaken = True
                except BlockingIOError:
                    self._wait_for_handshake(deadline, again)
                    again = True
            except BaseException as error:
                if isinstance(error, OSError) and (error.errno is not None or isinstance(error, NetmsgError)):
                    raise self._handshake_failed(error)
                elif upgrading and (transport.handshaking or isinstance(error, TimeoutError)):
                    self._abandon()  # it is neither in the clear nor under TLS
                raise
        self._handshake_deadline = FOREVER

    def _handshake_failed(self, error: OSError) -> OSError:
        """Keep it, and close: what to raise."""
        if self._connection.closed:
            return closed_meanwhile()
        if isinstance(error, ClosedError):
            return error
        if not isinstance(error, TLSHandshakeError):
            cause = error
            error = TLSHandshakeError(f"the connection broke during the TLS handshake: {cause}")
            error.__cause__ = cause
        self._receiving.error = self._sending.error = error
        failed = self._connection.broken(error)
        self._abandon()
        return failed

    def _wait_for_handshake(self, deadline: Deadline, again: bool) -> None:
        """Within the caller's time, and the handshake's own, even if something comes all the time."""
        limit = self._handshake_deadline.remaining()
        remaining = deadline.remaining()
        if limit is None or (remaining is not None and remaining <= limit):
            if again and remaining == 0:
                raise self._connection.too_late(deadline)
            self._connection.wait(READ, deadline)
            return
        try:
            if again and limit == 0:
                raise TimeoutError("timed out")
            self._connection.wait(READ, self._handshake_deadline)
        except TimeoutError as error:
            if not self._handshake_deadline.expired:
                raise  # a signal handler raised it
            raise TLSHandshakeError("the TLS handshake was not finished in time") from error

    def _abandon(self) -> None:
        """The stream is of no use any more: close it, but for the alert that is on its way."""
        self._closing.close(0)

    # Upgrading

    def start_tls(self, deadline: Deadline, context: ssl.SSLContext | bool | None, server_side: bool | None,
                  server_hostname: str | None, standard_compatible: bool) -> None:
        """See `ByteStream.start_tls`. Within all turns there are, in their order."""
        connection = self._connection
        context = self._context if context is None else context
        server_side = self._server_side if server_side is None else server_side
        if server_side is None:
            raise ValueError("server_side is required: which end this is cannot be told from how the stream was made")
        if context is None:
            raise ValueError("ssl_context is required: the stream was made without one")
        if server_side:
            if server_hostname is not None:
                raise ValueError("server_hostname is for the client's side")
            if not isinstance(context, ssl.SSLContext):
                raise TypeError("on the server's side ssl_context must be an ssl.SSLContext")
            check_server_context(context)
        else:
            context, server_hostname = client_context(
                context, self._server_hostname if server_hostname is None else server_hostname)
        if connection.transport.handshaking:
            self._shake_hands(deadline)
        connection.in_turn(connection.shaking, deadline, self._start, context, server_side, server_hostname,
                           standard_compatible)

    def _start(self, deadline: Deadline, *arguments: Any) -> None:
        self._connection.in_turn(self._sending.turn, deadline, self._start_unsent, *arguments)

    def _start_unsent(self, deadline: Deadline, *arguments: Any) -> None:
        self._sending.check()
        self._connection.in_turn(self._readers.turn, deadline, self._start_unread, *arguments)

    def _start_unread(self, deadline: Deadline, *arguments: Any) -> None:
        self._connection.in_turn(self._receiving.turn, deadline, self._upgrade, *arguments)

    def _upgrade(self, deadline: Deadline, context: ssl.SSLContext, server_side: bool,
                 server_hostname: str | None, standard_compatible: bool) -> None:
        connection, receiving = self._connection, self._receiving
        if receiving.error is not None:
            raise connection.broken(receiving.error)
        if receiving.writing is not None:
            receiving.conclude_file()
        ahead = receiving.ahead
        self._readers.hand_back(ahead.returned)
        early = ahead.peek_all()
        if early and not server_side:
            self._closing.abort()
            raise RemoteProtocolError(f"the peer sent {len(early)} bytes in the clear behind what asked for TLS: they "
                                      "may have been injected")
        standard_compatible = standard_compatible and connection.standard_compatible
        transport = self._over_tls(context, server_side, server_hostname, standard_compatible)
        if early:
            transport.feed(early)
            ahead.clear()
        connection.standard_compatible = standard_compatible
        receiving.ended = False
        connection.transport = transport
        self._handshake(deadline)
