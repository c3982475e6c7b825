"""Name resolution off the network thread: ``getaddrinfo`` blocks."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from ..deadline import Deadline
from ..locks import new_lock
from ..waiting import Waiters
from .addresses import Address

__all__ = ["resolve", "resolve_in_background", "resolve_within"]

MAX_THREADS: Final = 4

Done = Callable[["list[Address] | OSError"], None]

_lock = new_lock()  # guards the two below; a leaf, never held while waiting
_pending: deque[tuple[str | None, int, int, Done]] = deque()
_threads: set[threading.Thread] = set()


def _after_fork_in_child() -> None:
    """The threads are the parent's, and so may the lock be."""
    global _lock
    _lock = new_lock()
    _pending.clear()
    _threads.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def resolve(host: str | None, port: int, flags: int = 0) -> list[Address]:
    """The stream addresses of ``host``, in the system's order of preference. Blocks. Raises ``gaierror``."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def resolve_in_background(host: str, port: int, done: Done) -> None:
    """Call ``done`` with the addresses or the error: at once for an IP literal, else later from another thread.

    At most four threads (``netmsg-resolve-N``), each gone when there is nothing left to resolve. They are daemonic
    and never joined, because nothing can interrupt ``getaddrinfo``.
    """
    try:
        addresses = resolve(host, port, socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    else:
        done(addresses)
        return
    with _lock:
        _pending.append((host, port, 0, done))
        if len(_threads) >= MAX_THREADS:
            return
        thread = threading.Thread(target=_work, name=f"netmsg-resolve-{len(_threads) + 1}", daemon=True)
        _threads.add(thread)
    try:
        thread.start()
    except RuntimeError as error:  # out of threads, or the interpreter is exiting
        with _lock:
            _threads.discard(thread)
            abandoned = [] if _threads else list(_pending)
            if not _threads:
                _pending.clear()
        for _, _, _, told in abandoned:
            told(OSError(f"cannot resolve {host!r}: {error}"))


def resolve_within(deadline: Deadline, host: str, port: int) -> list[Address]:
    """`resolve` in another thread, for nothing can interrupt the resolver. Raises ``gaierror``, ``TimeoutError``."""
    found: list[list[Address] | OSError] = []
    waiters = Waiters()

    def done(result: list[Address] | OSError) -> None:
        found.append(result)
        waiters.notify_all()

    resolve_in_background(host, port, done)
    if not waiters.wait(lambda: found, deadline):
        raise TimeoutError(f"{host!r} was not resolved in time")
    if isinstance(found[0], OSError):
        raise found[0]
    return found[0]


def _work() -> None:
    while True:
        with _lock:
            if not _pending:
                _threads.discard(threading.current_thread())
                return
            host, port, flags, done = _pending.popleft()
        try:
            result: list[Address] | OSError = resolve(host, port, flags)
        except OSError as error:
            result = error
        except UnicodeError as error:  # a name that cannot be put into IDNA
            result = socket.gaierror(socket.EAI_NONAME, f"{host!r} is no host name: {error}")
        done(result)
