"""TLS between two ends of a connection that is none."""

from __future__ import annotations

import functools
import ssl
from typing import Final

from support.channels import as_any

from netmsg.transports.encrypted import TLSTransport
from netmsg.transports.plain import PlainTransport

from ..security import contexts
from .wires import WireLink, WireSocket

__all__ = ["VERSIONS", "handshaking", "shake", "under_tls"]

VERSIONS: Final = ("TLSv1.3", "TLSv1.2")


@functools.cache
def _client(version: str) -> ssl.SSLContext:
    """One that trusts anybody: made at once, and what is encrypted takes as many bytes each time, without tickets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    context.options |= ssl.OP_NO_TICKET
    return context


def handshaking(socks: tuple[WireSocket, WireSocket], version: str) -> tuple[TLSTransport, TLSTransport]:
    """A client and a server, before the handshake."""
    client, server = [PlainTransport(as_any(sock)) for sock in socks]
    return (TLSTransport(client, _client(version), server_side=False),
            TLSTransport(server, contexts()[0], server_side=True))


def under_tls(socks: tuple[WireSocket, WireSocket], version: str) -> tuple[WireLink, WireLink]:
    """The same, behind it."""
    transports = handshaking(socks, version)
    while any(transport.handshaking or transport.unsent for transport in transports):
        for transport in transports:
            shake(transport)
    one, other = transports
    return WireLink(socks[0], one), WireLink(socks[1], other)


def shake(transport: TLSTransport) -> None:
    """Have a handshake, and what it has to send, go on as far as it goes at once."""
    try:
        if transport.handshaking:
            transport.handshake()
        transport.flush()
    except BlockingIOError:
        pass
