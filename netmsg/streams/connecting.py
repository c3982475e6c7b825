"""Connecting: from a name to a `SocketStream`, under one deadline."""

from __future__ import annotations

import errno
import functools
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..checks import check_address, check_host, check_port, check_seconds
from ..deadline import Deadline
from ..errors import ConnectFailedError
from ..interrupts import SIGNAL_CHECK, in_main_thread
from ..sockets.addresses import Address, SocketFile, check_family, host_and_port, socket_file, unix_path
from ..sockets.binding import bind_unix
from ..sockets.lingering import reset_on_close
from ..sockets.options import prepare
from ..sockets.racing import ATTEMPT_DELAY, Race
from ..sockets.resolving import resolve_within
from ..sockets.waiting import WRITE, ready_sockets
from ..tls.contexts import client_context
from .byte_stream import inside
from .socket_stream import SocketStream

__all__ = ["connect_tcp", "connect_unix"]


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
    alike (``ConnectionRefusedError``, ``socket.gaierror``); `TLSHandshakeError`; ``TimeoutError``, which says what was
    being waited for, and has the last failure for its cause; ``ValueError`` and ``TypeError`` before anything is
    opened.
    """
    deadline = Deadline(timeout)
    host = check_host(host)
    check_port(port)
    check_family(family)
    check_seconds("happy_eyeballs_delay", happy_eyeballs_delay, zero=True)
    if local_address is not None:
        own_host, own_port = check_address("local_address", local_address)
        local_address = check_host(own_host), own_port
        check_port(own_port)
    context, name = client_context(ssl_context, host if server_hostname is None else server_hostname)
    target = host, port
    addresses = _resolved(target, family, deadline, target)
    local = _resolved(local_address, family, deadline, target) if local_address is not None else ()
    sock = _race(target, addresses, local, happy_eyeballs_delay, deadline)
    return _start(sock, context, name or server_hostname or host, deadline, autostart_tls, tls_standard_compatible,
                  target)


def connect_unix(path: str | bytes | os.PathLike[str], *, timeout: float | None = None,
                 local_path: str | bytes | os.PathLike[str] | None = None,
                 ssl_context: ssl.SSLContext | bool | None = None, server_hostname: str | None = None,
                 autostart_tls: bool = True, tls_standard_compatible: bool = True) -> SocketStream:
    """Connect to a server on a UNIX socket; ``local_path`` gives this end an address too, which is removed on close. A
    stale file there is replaced, as a server's is.

    Everything else is as with `connect_tcp`, but that a context which checks host names needs a ``server_hostname``.
    """
    deadline = Deadline(timeout)
    target = unix_path(path)
    own = unix_path(local_path) if local_path is not None else None
    context, name = client_context(ssl_context, server_hostname)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    file = None
    try:
        try:
            if own is not None:
                bind_unix(sock, own, None, deadline)
                file = socket_file(own)
            _connect_unix(sock, target, deadline)
        except TimeoutError:
            raise
        except OSError as error:
            raise _failed([(target, error)]) from error
        remove = functools.partial(_remove, file) if file is not None else None
        return _start(sock, context, name or server_hostname, deadline, autostart_tls, tls_standard_compatible, target,
                      remove)
    except BaseException:
        if file is None and own is not None and sock.fileno() >= 0 and sock.getsockname() == own:
            file = socket_file(own)  # an interrupt came before it was known
        if file is not None:
            _remove(file)
        sock.close()
        raise


def _connect_unix(sock: socket.socket, path: str, deadline: Deadline) -> None:
    """While the server's backlog is full no event tells of room in it: only a blocking call waits for that.

    What the call says is not believed: after a signal whose handler does not raise, it returns as if connected.
    """
    sock.setblocking(True)  # whatever the program's default timeout is, with which Python would not block
    while True:
        remaining = deadline.remaining()
        if remaining == 0:
            sock.setblocking(False)
        else:
            if in_main_thread():
                remaining = SIGNAL_CHECK if remaining is None else min(remaining, SIGNAL_CHECK)
            if remaining is not None:
                _set_send_timeout(sock, remaining)
        try:
            sock.connect(path)
        except BlockingIOError:
            if deadline.expired:
                raise _timed_out(path, "no room in its backlog") from None
            continue
        except OSError as error:
            if error.errno != errno.EISCONN:
                raise
        try:
            sock.getpeername()
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
        else:
            return


def _set_send_timeout(sock: socket.socket, seconds: float) -> None:
    """How long a blocking ``connect`` may wait; a millisecond at least, for 0 is for ever."""
    microseconds = max(1000, int(min(seconds, 1e9) * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", *divmod(microseconds, 1_000_000)))


def _remove(file: SocketFile) -> None:
    try:
        file.remove()
    except OSError:
        pass  # somebody else did


def _resolved(name: tuple[str, int], family: int, deadline: Deadline, target: tuple[str, int]) -> list[Address]:
    """The addresses of ``name``, with errors that tell of ``target``, too."""
    try:
        addresses = resolve_within(deadline, *name)
        found = [address for address in addresses if family in (socket.AF_UNSPEC, address[0])]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, f"{name[0]!r} has no address of this family")
        return found
    except TimeoutError:
        if not deadline.expired:
            raise  # a signal handler raised it
        raise _timed_out(target, f"resolving {name[0]!r}") from None
    except OSError as error:
        raise _failed([(target, error)]) from error


def _timed_out(target: Any, phase: str) -> TimeoutError:
    return TimeoutError(f"no connection to {_name(target)} in time: {phase}")


def _race(target: tuple[str, int], addresses: list[Address], local: Sequence[Address], delay: float,
          deadline: Deadline) -> socket.socket:
    """The first connection to be made; all others are closed."""
    race = Race(addresses, delay)
    running: dict[int, tuple[socket.socket, Address]] = {}
    try:
        while True:
            while True:
                address = race.start(time.monotonic())
                if address is None:
                    break
                descriptor = -1
                try:
                    sock = socket.socket(address[0], socket.SOCK_STREAM)
                    descriptor = sock.fileno()
                    running[descriptor] = sock, address
                    if _begin(sock, address, local):
                        return running.pop(descriptor)[0]
                except OSError as error:  # no such family here, out of descriptors, or refused at once
                    if error.errno is None:
                        raise  # a signal handler raised it
                    _lose(race, running, descriptor, address, error)
            if race.lost:
                raise _failed([(host_and_port(at[1]), error) for at, error in race.failures])
            next_at = race.next_at
            limit = deadline if next_at is None else deadline.sooner(max(0.0, next_at - time.monotonic()))
            ready = ready_sockets(dict.fromkeys(running, WRITE), None, limit)
            if ready is None and deadline.expired:
                silent = [host_and_port(address[1]) for _, address in running.values()]
                raise _gave_up(target, silent, race) from (race.failures[-1][1] if race.failures else None)
            for descriptor, _ in ready or ():
                sock, address = running[descriptor]
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code and _connected_to_itself(sock):
                    reset_on_close(sock)  # or the port would be taken for a minute (TIME_WAIT)
                    code = errno.ECONNREFUSED
                if not code:
                    return running.pop(descriptor)[0]
                _lose(race, running, descriptor, address, OSError(code, os.strerror(code)))
    finally:
        for sock, _ in running.values():
            sock.close()


def _gave_up(target: tuple[str, int], silent: list[tuple[str, int]], race: Race) -> TimeoutError:
    phase = f"connecting, no answer from {', '.join(map(_name, silent)) or 'any address'}"
    if race.failures:
        address, error = race.failures[-1]
        phase += f"; the last failure: {_name(host_and_port(address[1]))}: {error.strerror or error}"
    return _timed_out(target, phase)


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
    except OSError as error:
        if error.errno is None:
            raise  # a signal handler raised it
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
           autostart_tls: bool, standard_compatible: bool, target: Any,
           at_close: Callable[[], None] | None = None) -> SocketStream:
    try:
        prepare(sock)
        stream = SocketStream(sock)
    except BaseException:
        if at_close is not None:
            at_close()
        sock.close()
        raise
    try:
        if at_close is not None:
            inside(stream).when_closed(at_close)
        inside(stream).expect_tls(context, server_side=False, server_hostname=name,
                                  standard_compatible=standard_compatible)
        if context is not None and autostart_tls:
            inside(stream).begin_tls(None)
            stream.do_handshake(timeout=deadline.remaining())
    except BaseException as error:
        stream.abort()
        if isinstance(error, TimeoutError) and not error.errno and deadline.expired:  # not the kernel's, nor an alarm's
            raise _timed_out(target, "TLS, the handshake is not over") from None
        raise
    return stream
