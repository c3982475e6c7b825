"""Connecting: from a name to a `SocketStream`, under one deadline."""

from __future__ import annotations

import errno
import functools
import math
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..deadline import Deadline
from ..errors import ConnectFailedError
from ..sockets.addresses import Address, check_host, check_port, file_identity, host_and_port, unix_path
from ..sockets.racing import ATTEMPT_DELAY, Race
from ..sockets.resolving import resolve_within
from ..tls.contexts import client_context
from ..sockets.waiting import WRITE, wait_for_sockets
from .socket_stream import SocketStream, prepare

__all__ = ["connect_tcp", "connect_unix"]

FAMILIES: Final = (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6)


def connect_tcp(host: str, port: int, *, timeout: float | None = None, family: int = socket.AF_UNSPEC,
                local_address: tuple[str, int] | None = None, ssl_context: ssl.SSLContext | bool | None = None,
                server_hostname: str | None = None, autostart_tls: bool = True, tls_standard_compatible: bool = True,
                happy_eyeballs_delay: float = ATTEMPT_DELAY) -> SocketStream:
    """Connect to a TCP server.

    All addresses of ``host`` are tried, the families alternating, each ``happy_eyeballs_delay`` seconds after the one
    before or as soon as that fails, and the first to answer is kept (RFC 8305). ``timeout`` covers name resolution,
    connecting and the TLS handshake. Given an ``ssl_context`` (``True``: the default one), TLS starts at once, or
    with ``autostart_tls=False`` by a later `ByteStream.start_tls`; the certificate has to be for ``server_hostname``,
    by default ``host``. ``tls_standard_compatible=False`` takes an end without TLS's goodbye for a clean one.

    Raises `ConnectFailedError`, which lists every attempt, and is also of the attempts' class when they all failed
    alike (``ConnectionRefusedError``, ``socket.gaierror``); `TLSHandshakeError`; ``TimeoutError``; ``ValueError`` and
    ``TypeError`` before anything is opened.
    """
    deadline = Deadline(timeout)
    host = check_host(host)
    check_port(port)
    if family not in FAMILIES:
        raise ValueError("family must be AF_UNSPEC, AF_INET or AF_INET6")
    if isinstance(happy_eyeballs_delay, str) or not 0 <= happy_eyeballs_delay < math.inf:
        raise ValueError(f"happy_eyeballs_delay must be a number of seconds, not {happy_eyeballs_delay!r}")
    if local_address is not None:
        local_address = check_host(local_address[0]), local_address[1]
        check_port(local_address[1])
    context, name = client_context(ssl_context, host if server_hostname is None else server_hostname)
    local: Sequence[Address] = ()
    try:
        addresses = _of_family(family, resolve_within(deadline, host, port), host)
        if local_address is not None:
            local = _of_family(family, resolve_within(deadline, *local_address), local_address[0])
    except socket.gaierror as error:
        raise _failed([((host, port), error)]) from error
    sock = _race(addresses, local, happy_eyeballs_delay, deadline)
    return _start(sock, context, name or server_hostname or host, deadline, autostart_tls, tls_standard_compatible)


def connect_unix(path: str | bytes | os.PathLike[str], *, timeout: float | None = None,
                 local_path: str | bytes | os.PathLike[str] | None = None,
                 ssl_context: ssl.SSLContext | bool | None = None, server_hostname: str | None = None,
                 autostart_tls: bool = True, tls_standard_compatible: bool = True) -> SocketStream:
    """Connect to a server on a UNIX socket; ``local_path`` gives this end an address too, which is removed on close.

    Everything else is as with `connect_tcp`, but that a context which checks host names needs a ``server_hostname``.
    """
    deadline = Deadline(timeout)
    target = unix_path(path)
    own = unix_path(local_path) if local_path is not None else None
    context, name = client_context(ssl_context, server_hostname)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    owned = None
    try:
        try:
            if own is not None:
                sock.bind(own)
                owned = own
            _connect_unix(sock, target, deadline)
        except TimeoutError:
            raise
        except OSError as error:
            raise _failed([(target, error)]) from error
    except BaseException:
        sock.close()
        if owned is not None:
            _remove(owned, file_identity(owned))
        raise
    remove = functools.partial(_remove, owned, file_identity(owned)) if owned is not None else None
    return _start(sock, context, name or server_hostname, deadline, autostart_tls, tls_standard_compatible, remove)


def _connect_unix(sock: socket.socket, path: str, deadline: Deadline) -> None:
    """While the server's backlog is full no event tells of room in it: only a blocking call waits for that."""
    remaining = deadline.remaining()
    if remaining == 0:
        sock.setblocking(False)
    elif remaining is not None:
        seconds = int(min(remaining, 1e9))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO,
                        struct.pack("ll", seconds, max(1, int(remaining % 1 * 1e6))))
    try:
        sock.connect(path)
    except BlockingIOError:
        raise TimeoutError(f"no room in the backlog of {path!r} in time") from None


def _remove(path: str, identity: tuple[int, int] | None) -> None:
    if identity is not None and file_identity(path) == identity:
        try:
            os.unlink(path)
        except OSError:
            pass  # somebody else did


def _of_family(family: int, addresses: list[Address], host: str) -> list[Address]:
    found = [address for address in addresses if family in (socket.AF_UNSPEC, address[0])]
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} has no address of this family")
    return found


def _race(addresses: list[Address], local: Sequence[Address], delay: float, deadline: Deadline) -> socket.socket:
    """The first connection to be made; all others are closed."""
    race = Race(addresses, delay)
    running: dict[int, tuple[socket.socket, Address]] = {}
    try:
        while True:
            while (address := race.start(time.monotonic())) is not None:
                descriptor = -1
                try:
                    sock = socket.socket(address[0], socket.SOCK_STREAM)
                    descriptor = sock.fileno()
                    running[descriptor] = sock, address
                    if _begin(sock, address, local):
                        return running.pop(descriptor)[0]
                except OSError as error:  # no such family here, out of descriptors, or refused at once
                    _lose(race, running, descriptor, address, error)
            if race.lost:
                raise _failed([(host_and_port(at[1]), error) for at, error in race.failures])
            next_at = race.next_at
            limit = deadline if next_at is None else deadline.sooner(max(0.0, next_at - time.monotonic()))
            try:
                ready = wait_for_sockets(dict.fromkeys(running, WRITE), None, limit)
            except TimeoutError:
                if deadline.expired:
                    raise TimeoutError("no connection in time") from None
                continue
            for descriptor, _ in ready:
                sock, address = running[descriptor]
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code and _connected_to_itself(sock):
                    code = errno.ECONNREFUSED
                if not code:
                    return running.pop(descriptor)[0]
                _lose(race, running, descriptor, address, OSError(code, os.strerror(code)))
    finally:
        for sock, _ in running.values():
            sock.close()


def _begin(sock: socket.socket, address: Address, local: Sequence[Address]) -> bool:
    """Start to connect; true if that is all there is to it. Raises ``OSError``."""
    sock.setblocking(False)
    for family, own in local:
        if family == address[0]:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(own)
            break
    else:
        if local:
            raise OSError(errno.EADDRNOTAVAIL, "local_address is of another family")
    code = sock.connect_ex(address[1])
    if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
        return False
    if code:
        raise OSError(code, os.strerror(code))
    return True


def _lose(race: Race, running: dict[int, tuple[socket.socket, Address]], descriptor: int, address: Address,
          error: OSError) -> None:
    entry = running.pop(descriptor, None)
    if entry is not None:
        entry[0].close()
    race.failed(address, error, time.monotonic())


def _connected_to_itself(sock: socket.socket) -> bool:
    """Dialling a free port of the ephemeral range can meet itself (TCP's simultaneous open)."""
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return False


def _failed(attempts: list[tuple[Any, OSError]]) -> ConnectFailedError:
    """An error that is also of the class of all attempts, if that is one."""
    errors = [error for _, error in attempts]
    first = errors[0]
    kind = type(first)
    alike = kind is not OSError and all(type(error) is kind for error in errors)
    described = "; ".join(dict.fromkeys(f"{_name(address)}: {error.strerror or error}" for address, error in attempts))
    failed = (_failed_class(kind) if alike else ConnectFailedError)(f"cannot connect: {described}", attempts)
    if all(error.errno == first.errno for error in errors):
        failed.errno = first.errno
    failed.__cause__ = first
    return failed


def _name(address: Any) -> str:
    return "%s port %d" % address[:2] if isinstance(address, tuple) else repr(address)


def _failed_class(kind: type[OSError]) -> type[ConnectFailedError]:
    if kind not in _failed_classes:
        _failed_classes[kind] = ConnectFailedError if issubclass(ConnectFailedError, kind) else type(
            "ConnectFailedError", (ConnectFailedError, kind),
            {"__module__": ConnectFailedError.__module__, "__reduce__": _reduce})
    return _failed_classes[kind]


_failed_classes: dict[type[OSError], type[ConnectFailedError]] = {}


def _reduce(error: ConnectFailedError) -> tuple[Any, ...]:
    return ConnectFailedError, (str(error), error.attempts)


def _start(sock: socket.socket, context: ssl.SSLContext | None, name: str | None, deadline: Deadline,
           autostart_tls: bool, standard_compatible: bool, at_close: Callable[[], None] | None = None) -> SocketStream:
    try:
        prepare(sock)
        stream = SocketStream(sock)
    except BaseException:
        sock.close()
        raise
    if at_close is not None:
        stream.at_close(at_close)
    stream.expect_tls(context, server_side=False, server_hostname=name, standard_compatible=standard_compatible)
    if context is not None and autostart_tls:
        stream.begin_tls(None)
        try:
            stream.do_handshake(timeout=deadline.remaining())
        except BaseException:
            stream.abort()
            raise
    return stream
