"""Listening sockets: opening them, and accepting on the reactor."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import sys
from collections.abc import Callable
from typing import Any, Final

from .io_thread import READ, IOThread
from .resolving import Address, resolve

__all__ = ["Acceptor", "listen_tcp", "listen_unix", "tcp_addresses", "unix_path"]

log = logging.getLogger("netmsg.reactor")

ACCEPTS_A_ROUND: Final = 64
PAUSE: Final = 0.1
"""Seconds without accepting after running out of descriptors or memory."""
PORT_TRIES: Final = 20
LONGEST_UNIX_PATH: Final = 107 if sys.platform == "linux" else 103

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


def unix_path(path: str | bytes | os.PathLike[str]) -> str:
    """A UNIX socket path as a ``str``; a leading NUL means the abstract namespace. Raises ``TypeError, ValueError``."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"path must be str, bytes or os.PathLike, not {type(path).__name__}")
    text = os.fsdecode(path)
    if not text:
        raise ValueError("the path of a UNIX socket is empty")
    if "\0" in text[1:]:
        raise ValueError("the path of a UNIX socket has a NUL in it")
    if len(os.fsencode(text)) > LONGEST_UNIX_PATH:
        raise ValueError(f"the path of a UNIX socket is longer than {LONGEST_UNIX_PATH} bytes: {text!r}")
    return text


def listen_tcp(addresses: list[Address], port: int, backlog: int) -> list[socket.socket]:
    """Listen on every one of ``addresses``, with one port for all if ``port`` is 0.

    All or nothing: if one cannot be bound the others are closed, and the ``OSError`` says which it was.
    """
    tries = PORT_TRIES if port == 0 and len(addresses) > 1 else 1
    while True:
        tries -= 1
        opened: list[socket.socket] = []
        try:
            for family, address in addresses:
                chosen = opened[0].getsockname()[1] if port == 0 and opened else port
                opened.append(_listen(family, (address[0], chosen, *address[2:]), backlog))
            return opened
        except OSError as error:
            for sock in opened:
                sock.close()
            if error.errno != errno.EADDRINUSE or not tries:
                raise


def _listen(family: int, address: tuple[Any, ...], backlog: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # over TIME_WAIT; elsewhere this would let two listen on one port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        try:
            sock.bind(address)
            sock.listen(backlog)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: cannot listen on {address[0]!r} port {address[1]}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def listen_unix(path: str, backlog: int) -> socket.socket:
    """Listen on a UNIX path: a stale socket file is replaced, one that somebody listens on is refused."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or path.startswith("\0") or not _is_stale(path):
                raise OSError(error.errno, f"{error.strerror}: cannot listen on {path!r}") from None
            os.unlink(path)
            sock.bind(path)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_stale(path: str) -> bool:
    """Whether ``path`` is a socket that nobody listens on."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def tcp_addresses(host: str | None, port: int) -> list[Address]:
    """Where ``host`` means to listen; ``None`` is every interface, both families. Blocks in the resolver."""
    if host is None:
        addresses: list[Address] = [(socket.AF_INET, ("0.0.0.0", port))]
        if socket.has_ipv6:
            addresses.append((socket.AF_INET6, ("::", port, 0, 0)))
        return addresses
    return resolve(host, port, socket.AI_PASSIVE)


class Acceptor:
    """One listening socket on the reactor. Every method belongs on the loop.

    Running out of descriptors pauses accepting, with the listener unregistered, and does not end it.
    """

    def __init__(self, io: IOThread, sock: socket.socket, accepted: Callable[[socket.socket, Any], None],
                 failed: Callable[[OSError], None]) -> None:
        self.address = sock.getsockname()
        self._io = io
        self._socket: socket.socket | None = sock
        self._accepted = accepted
        self._failed = failed
        self._paused = False
        self._inode = _inode(self.address)

    def start(self) -> None:
        if self._socket is not None and not self._paused:
            self._io.watch(self._socket, READ, self)

    def pause(self) -> None:
        """Leave new connections in the backlog until `resume`."""
        self._paused = True
        if self._socket is not None:
            self._io.watch(self._socket, 0, self)

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self.start()

    def on_event(self, events: int) -> None:
        for _ in range(ACCEPTS_A_ROUND):
            if self._socket is None or self._paused:
                return
            try:
                sock, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(error)
                if error.errno in _OUT_OF_RESOURCES:
                    self.pause()
                    self._io.call_later(PAUSE, self.resume)
                    return
                continue  # the connection was gone already
            sock.setblocking(False)
            self._accepted(sock, address)

    def close(self) -> None:
        """Stop listening; a UNIX socket file goes too, if it is still this one's."""
        sock, self._socket = self._socket, None
        if sock is None:
            return
        self._io.watch(sock, 0, self)
        self._io.bury(sock.close)
        if self._inode is not None and _inode(self.address) == self._inode:
            try:
                os.unlink(self.address)
            except OSError as error:  # such as after giving up privileges
                log.warning("cannot remove %s: %s", self.address, error)

    def abandon(self) -> None:
        """In a forked child: close this copy, and nothing else."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def crashed(self, error: Exception) -> None:
        self.close()
        self._failed(OSError(f"accepting failed: {error!r}"))


def _inode(address: Any) -> tuple[int, int] | None:
    """What identifies the file of a UNIX socket; ``None`` for any other address."""
    if not isinstance(address, str) or not address or address.startswith("\0"):
        return None
    try:
        found = os.stat(address)
    except OSError:
        return None
    return found.st_dev, found.st_ino
