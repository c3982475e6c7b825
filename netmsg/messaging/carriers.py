"""What the connections of one address go over: the bare socket, TLS, WebSocket, or WebSocket over TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple

from ..transports.encrypted import RECORD_SIZE, TLSTransport
from ..transports.plain import PlainTransport, Transport
from ..transports.websocket import WebSocketTransport
from ..wire.websocket_opening import ClientOpening, ServerOpening

__all__ = ["Carrier"]


class Carrier(NamedTuple):
    """What was said of it to `Søcket.bind` or `Søcket.connect`."""

    context: ssl.SSLContext | None = None
    """For TLS,"""
    server_hostname: str | None = None
    """and the name that the other end has to show, if it is we who dial."""
    origins: frozenset[str] | None = None
    """Where peers come to us: the pages that may come by WebSocket, beside programs; ``None``: nobody may."""
    path: str = ""
    """And that of the ``ws://`` by which they are to come, if it was one."""
    opening: Callable[[], ClientOpening] | None = None
    """Where we dial: what begins a WebSocket connection, if it is to be one."""

    def transport(self, sock: socket.socket, *, dialled: bool) -> Transport:
        """For a new connection. What has come to us is WebSocket only when its first bytes have said so."""
        transport: Transport = PlainTransport(sock)
        if self.context is not None:
            transport = TLSTransport(transport, self.context, server_side=not dialled,
                                     server_hostname=self.server_hostname, piece=RECORD_SIZE)
        return transport if self.opening is None else WebSocketTransport(transport, self.opening())

    def websocket(self, transport: Transport, first: bytes) -> WebSocketTransport:
        """For a connection that has begun with these bytes, as a WebSocket client's does, over ``transport``; where
        there are ``origins``."""
        assert self.origins is not None
        websocket = WebSocketTransport(transport, ServerOpening(self.origins))
        websocket.feed(first)
        return websocket
