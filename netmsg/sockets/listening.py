"""Opening listening sockets."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, Final

from .addresses import Address
from .binding import listen_unix
from .resolving import resolve

__all__ = ["listen_tcp", "listen_unix", "share_port", "tcp_addresses"]

PORT_TRIES: Final = 20


def listen_tcp(addresses: list[Address], port: int, backlog: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Listen on every one of ``addresses``, with one port for all if ``port`` is 0.

    All or nothing: if one cannot be bound the others are closed, and the ``OSError`` says which it was. Only a family
    that this machine does not have is left out, if there is another.
    """
    tries = PORT_TRIES if port == 0 and len(addresses) > 1 else 1
    while True:
        tries -= 1
        opened: list[socket.socket] = []
        try:
            _listen_at_all(opened, addresses, port, backlog, reuse_port)
            return opened
        except BaseException as error:
            for sock in opened:
                sock.close()
            if not (isinstance(error, OSError) and error.errno == errno.EADDRINUSE and tries):
                raise


def _listen_at_all(opened: list[socket.socket], addresses: list[Address], port: int, backlog: int,
                   reuse_port: bool) -> None:
    absent = OSError(errno.EADDRNOTAVAIL, "no address to listen on")
    for family, address in addresses:
        chosen = opened[0].getsockname()[1] if port == 0 and opened else port
        try:
            opened.append(_listen(family, (address[0], chosen, *address[2:]), backlog, reuse_port))
        except OSError as error:
            missing = error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
            if not missing or all(other == family for other, _ in addresses):
                raise
            absent = error
    if not opened:
        raise absent


def share_port(sock: socket.socket) -> None:
    """Let several sockets have the port. Raises ``NotImplementedError`` where that cannot be."""
    if not hasattr(socket, "SO_REUSEPORT"):
        raise NotImplementedError("reuse_port: this platform lets no two sockets share a port")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _listen(family: int, address: tuple[Any, ...], backlog: int, reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # over TIME_WAIT; elsewhere this would let two listen on one port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            share_port(sock)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        try:
            sock.bind(address)
            sock.listen(backlog)
        except OSError as error:
            if error.errno is None:
                raise  # a signal handler raised it
            raise OSError(error.errno, f"{error.strerror}: cannot listen on {address[0]!r} port {address[1]}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def tcp_addresses(host: str | None, port: int) -> list[Address]:
    """Where ``host`` means to listen, both families: ``None`` on every interface, ``"localhost"`` on the loopback,
    whatever the system's table of hosts says. Any other name blocks in the resolver."""
    if host is not None and host != "localhost":
        return resolve(host, port, socket.AI_PASSIVE)
    addresses: list[Address] = [(socket.AF_INET, ("0.0.0.0" if host is None else "127.0.0.1", port))]
    if socket.has_ipv6:
        addresses.append((socket.AF_INET6, ("::" if host is None else "::1", port, 0, 0)))
    return addresses
