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
from typing import Final

from ..deadline import Deadline
from ..uninterrupted import keep, take_first
from .shortage import OUT_OF_RESOURCES

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
LOCK_FLAGS: Final = os.O_RDONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(
    os, "O_CLOEXEC", 0)
"""For reading, so that others may do the same whatever the umask; neither through a link nor waiting for the other end
of a pipe that somebody put there."""


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
    lock = _PathLock(path)
    try:
        lock.take(deadline)
        again = False
        while True:  # see `Turn` for why not "while" with a condition
            if not _is_stale(path, sock.type):
                break
            if again and deadline is not None and deadline.expired:
                raise TimeoutError(f"somebody else was replacing {path!r} all the time")
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass  # somebody else did
            except OSError as error:
                if error.errno is None:
                    raise  # a signal handler raised it
                raise _in_use(path, f", and the stale file cannot be removed: {error.strerror}") from error
            if _binds(sock, path):  # unless somebody was faster: nobody needs the lock who finds no file
                return
            again = True
    finally:
        try:
            lock.release()
        except BaseException:
            lock.release()  # an interrupt came before it was done
            raise
    raise _in_use(path)


def _in_use(path: str, why: str = "") -> OSError:
    return OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}: cannot bind to {path!r}{why}")


def _binds(sock: socket.socket, path: str) -> bool:
    """Bind, unless there is a file already."""
    try:
        sock.bind(path)
    except OSError as error:
        if error.errno is None:
            raise  # a signal handler raised it
        if error.errno != errno.EADDRINUSE:
            raise OSError(error.errno, f"{error.strerror}: cannot bind to {path!r}") from None
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
        if not stat.S_ISSOCK(os.lstat(path).st_mode):  # not of what a link leads to, which binding does not follow
            return False
        with socket.socket(socket.AF_UNIX, other) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except OSError as error:  # most of all EPROTOTYPE
        if error.errno is None or error.errno in OUT_OF_RESOURCES:
            raise  # a signal handler raised it, or it cannot be told
        return False
    return False


class _PathLock:
    """Keeps others from replacing ``path`` from `take` to `release`, which may be called again after an interrupt
    (Ctrl-C), wherever that came; what is left even so goes with the object."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._name = path + SUFFIX
        self._held: list[int] = []  # the descriptor of the file, once it is open

    def take(self, deadline: Deadline | None) -> None:
        """Wait for it. Where there can be none, nothing is held."""
        if fcntl is None or self._path.startswith("\0"):  # abstract names are never stale
            return
        patience = (deadline or Deadline(None)).sooner(PATIENCE)
        while True:
            try:
                keep(self._held, os.open, self._name, LOCK_FLAGS, 0o666)
            except OSError as error:  # no such directory, or we may not write there: binding tells it better
                if error.errno is None or error.errno in OUT_OF_RESOURCES:
                    raise  # a signal handler raised it, or one that is not held would have others in between
                return
            if self._is_ours():
                return
            self._close()
            if patience.expired:
                if deadline is not None and deadline.expired:
                    raise TimeoutError(f"somebody else was replacing {self._path!r} all the time")
                raise OSError(errno.EADDRINUSE,
                              f"somebody else is about to replace {self._path!r}, and does not get on with it")
            time.sleep(PAUSE)

    def release(self) -> None:
        if self._held:
            if self._is_ours():  # asked again: an interrupt may have come before anybody knew
                _remove(self._name)
            self._close()

    def _is_ours(self) -> bool:
        """Whether the file is locked now, and is the one that others lock, too."""
        descriptor = self._held[0]
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno is None:
                raise  # a signal handler raised it
            return True  # no locks on this file system: as far as can be, then
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._name))
        except FileNotFoundError:
            return False

    def _close(self) -> None:
        os.close(take_first(self._held))

    def __del__(self) -> None:
        if hasattr(self, "_held"):  # not where an interrupt came before it was made
            self.release()
