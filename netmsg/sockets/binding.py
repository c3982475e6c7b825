"""Binding UNIX sockets to paths, whoever else wants the same one.

The file of a socket outlives its program, so who binds has to replace a stale one, and to refuse one that is in use.
Whether it is, a socket *of another type* finds out by connecting to it: refused, if there is no socket behind the file;
of the wrong type, if there is one, even if it was bound this instant and does not listen yet. (One of the same type
would be refused by that, too, and be accepted as a client by any other.)

Binding itself is exclusive, and so needs no lock where there is no file. But the kernel has no single step for "replace
it if it is stale": between the look and the removal another program may have replaced it, and then a live one would be
removed, which nobody could reach any more. So the two are done under a lock: an advisory one (``flock``) on a file
beside the path, which the kernel lets go of when its holder ends, however it ends. It is removed by whoever holds the
lock. That is safe because a lock counts only if the locked file is, after locking, still the one that has the name: who
gets the lock of a file that was removed meanwhile tries again with the new one. The lock is on a file of its own and
not on the directory, which other programs lock for reasons of theirs; and the socket is not bound under another name
and renamed, for its clients would be shown that name, which the kernel keeps.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final

from ..deadline import Deadline

try:
    import fcntl
except ImportError:  # not POSIX
    fcntl = None  # type: ignore[assignment]

__all__ = ["bind_unix", "listen_unix"]

SUFFIX: Final = ".netmsg-bind"
"""Of the lock file."""
PATIENCE: Final = 5.0
"""Seconds to wait for somebody else who replaces the same file: it takes microseconds, unless he was stopped."""
PAUSE: Final = 0.002
"""Seconds between two tries: the system tells of a free lock only who waits for it without a time limit."""


def listen_unix(path: str, backlog: int, mode: int | None = None, deadline: Deadline | None = None) -> socket.socket:
    """Listen on a UNIX path: see `bind_unix`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        bind_unix(sock, path, mode, deadline)
        try:
            sock.listen(backlog)
        except BaseException:
            _unbind(sock, path)
            raise
    except BaseException:
        sock.close()
        raise
    return sock


def bind_unix(sock: socket.socket, path: str, mode: int | None, deadline: Deadline | None = None) -> None:
    """Bind to a UNIX path: a stale socket file is replaced, one that somebody uses is ``OSError(EADDRINUSE)``. The
    file has the permissions ``mode`` from the first instant on. Raises ``TimeoutError`` when somebody else is about to
    replace it all the time."""
    try:
        if mode is not None:
            os.fchmod(sock.fileno(), mode)  # which the file inherits, less the umask
        _bind(sock, path, deadline)
        if mode is not None and not path.startswith("\0"):
            os.chmod(path, mode)
    except BaseException:
        _unbind(sock, path)
        raise


def _bind(sock: socket.socket, path: str, deadline: Deadline | None) -> None:
    if _binds(sock, path):
        return
    with _lock(path, deadline):
        while True:
            if not _is_stale(path, sock.type):
                break
            _remove(path)
            if _binds(sock, path):  # unless somebody was faster: nobody needs the lock who finds no file
                return
    raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}: cannot listen on {path!r}")


def _binds(sock: socket.socket, path: str) -> bool:
    """Bind, unless there is a file already."""
    try:
        sock.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise OSError(error.errno, f"{error.strerror}: cannot listen on {path!r}") from None
        return False
    return True


def _unbind(sock: socket.socket, path: str) -> None:
    """Remove the file, if it is this socket's. While that is open, and is taken for live."""
    if not path.startswith("\0") and sock.getsockname() in (path, os.fsencode(path)):
        _remove(path)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # somebody else did, or did not let us


def _is_stale(path: str, kind: int) -> bool:
    """Whether ``path`` is a file of a socket that there is no more, or nothing at all by now."""
    if path.startswith("\0"):
        return False
    other = socket.SOCK_DGRAM if kind == socket.SOCK_STREAM else socket.SOCK_STREAM
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, other) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except OSError:  # most of all EPROTOTYPE
        return False
    return False


@contextmanager
def _lock(path: str, deadline: Deadline | None) -> Iterator[None]:
    """Keep others from replacing ``path`` meanwhile."""
    if fcntl is None or path.startswith("\0"):  # abstract names are never stale
        yield
        return
    name = path + SUFFIX
    patience = (deadline or Deadline(None)).sooner(PATIENCE)
    while True:
        try:
            file = open(name, "rb", buffering=0, opener=_open)
        except OSError:  # no such directory, or we may not write there: binding tells it better
            yield
            return
        with file:
            if _have(file, name):
                try:
                    yield
                finally:
                    _remove(name)
                return
        if patience.expired:
            if deadline is not None and deadline.expired:
                raise TimeoutError(f"somebody else was replacing {path!r} all the time")
            raise OSError(errno.EADDRINUSE, f"somebody else is about to replace {path!r}, and does not get on with it")
        time.sleep(PAUSE)


def _open(name: str, flags: int) -> int:
    # For reading, so that others may do the same whatever the umask; neither through a link nor waiting for the other
    # end of a pipe that somebody put there.
    return os.open(name, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)


def _have(file: IO[bytes], name: str) -> bool:
    """Whether ``file`` is locked now, and is the one that others lock, too."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # no locks on this file system: as far as can be, then
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(name))
    except FileNotFoundError:
        return False
