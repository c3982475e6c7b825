"""Addresses as users give and see them, and as the system takes them; the files of UNIX sockets."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any, Final

from ..locks import new_reentrant_lock

__all__ = ["Address", "SocketFile", "check_family", "check_unix_sockets", "file_identity", "host_and_port",
           "socket_file", "unix_path"]

FAMILIES: Final = (socket.AF_UNSPEC, socket.AF_INET, socket.AF_INET6)

LONGEST_UNIX_PATH: Final = 107 if sys.platform == "linux" else 103

Address = tuple[int, Any]
"""An address family and what ``connect`` and ``bind`` take for it."""


def check_family(family: int) -> None:
    """Raises ``ValueError``."""
    if family not in FAMILIES:
        raise ValueError("family must be AF_UNSPEC, AF_INET or AF_INET6")


def host_and_port(address: Any) -> Any:
    """An address as users see it: ``(host, port)`` in either family, the path of a UNIX socket as ``str``."""
    if isinstance(address, tuple):
        host, port = address[:2]
        if len(address) == 4 and address[3] and "%" not in host:
            host = f"{host}%{_scope(address[3])}"
        return host, port
    return os.fsdecode(address) if isinstance(address, bytes) else address


def _scope(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def check_unix_sockets() -> None:
    """Raises ``NotImplementedError`` where there are none."""
    if not hasattr(socket, "AF_UNIX"):
        raise NotImplementedError(f"UNIX sockets: Python has none on this platform ({sys.platform})")


def unix_path(path: str | bytes | os.PathLike[str]) -> str:
    """A UNIX socket path as a ``str``; a leading NUL means the abstract namespace. Raises ``TypeError``,
    ``ValueError``, ``NotImplementedError``."""
    check_unix_sockets()
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


def file_identity(address: Any) -> tuple[int, int] | None:
    """What identifies the file of a UNIX socket; ``None`` for any other address."""
    if not isinstance(address, str) or not address or address.startswith("\0"):
        return None
    try:
        found = os.stat(address)
    except OSError as error:
        if error.errno is None:
            raise  # a signal handler raised it
        return None
    return found.st_dev, found.st_ino


class SocketFile:
    """The file of a UNIX socket, for whoever removes it with that: the same one when the program has another working
    directory by then."""

    __slots__ = ("_identity", "_lock", "_path")

    def __init__(self, path: str, identity: tuple[int, int]) -> None:
        self._path = os.path.abspath(path)
        self._identity: tuple[int, int] | None = identity
        self._lock = new_reentrant_lock()  # guards the identity; a leaf, but for a signal handler that closes

    def remove(self) -> None:
        """Once, unless it is another one by now. Raises ``OSError``. For all that close the socket, before they do:
        while it is open the file is in use, so that nobody replaces it as stale, and no other gets its number."""
        with self._lock:
            found = file_identity(self._path)
            # No call from here to the last one, and so no interrupt.
            identity = self._identity
            self._identity = None
            if identity is not None and found == identity:
                os.unlink(self._path)


def socket_file(address: Any) -> SocketFile | None:
    """The file of the UNIX socket that was bound to ``address``; ``None`` for any other address."""
    identity = file_identity(address)
    return None if identity is None else SocketFile(address, identity)
