"""From what a packet client is given to the stream that it reads and writes."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any, Union

from ..checks import check_address
from ..errors import ClosedError
from ..streams.byte_stream import ByteStream
from ..streams.connecting import connect_tcp, connect_unix
from ..streams.socket_stream import SocketStream
from ..tls.contexts import client_context

__all__ = ["Target", "connected"]

Target = Union[tuple[str, int], str, bytes, "os.PathLike[str]", socket.socket]


def connected(target: Target | ByteStream, timeout: float | None, context: ssl.SSLContext | bool | None,
              server_hostname: str | None, local_address: Any, compatible: bool) -> ByteStream:
    """A stream to ``target``: see `PacketClient`."""
    if isinstance(target, ByteStream):
        if any(option is not None for option in (timeout, context, server_hostname, local_address)):
            raise ValueError("the stream is connected: the options for connecting do not go with it")
        if target.closed:
            raise ClosedError("the stream is closed")
        return target
    if isinstance(target, socket.socket):
        if local_address is not None:
            raise ValueError("the socket is connected: local_address does not go with it")
        return _adopt(target, timeout, context, server_hostname, compatible)
    if isinstance(target, tuple):
        host, port = check_address("target", target)
        return connect_tcp(host, port, timeout=timeout, ssl_context=context, server_hostname=server_hostname,
                           local_address=local_address, tls_standard_compatible=compatible)
    if isinstance(target, (str, bytes, os.PathLike)):
        return connect_unix(target, timeout=timeout, ssl_context=context, server_hostname=server_hostname,
                            local_path=local_address, tls_standard_compatible=compatible)
    raise TypeError("target must be a (host, port), the path of a UNIX socket, a socket.socket or a ByteStream, not "
                    f"{type(target).__name__}")


def _adopt(sock: socket.socket, timeout: float | None, context: ssl.SSLContext | bool | None,
           server_hostname: str | None, compatible: bool) -> ByteStream:
    """Take over a socket, which is its owner's, and open, if that fails."""
    context, name = client_context(context, server_hostname)
    sock.getpeername()  # raises OSError if it is not connected
    if context is None:
        return SocketStream.from_socket(sock)
    before = sock.gettimeout()
    twin = sock.dup()
    try:
        stream = SocketStream.from_socket(twin)
    except BaseException:
        twin.close()
        raise
    try:
        stream.start_tls(context, server_side=False, server_hostname=name, tls_standard_compatible=compatible,
                         timeout=timeout)
    except BaseException:
        stream.close(timeout=0)
        sock.settimeout(before)
        raise
    sock.close()
    return stream
