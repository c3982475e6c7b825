"""Readiness: which descriptors may be read or written. By epoll where there is one, else by the best of `selectors`."""

from __future__ import annotations

import math
import os
import select
import selectors
import socket
from typing import Any, Final, Protocol

__all__ = ["READ", "WRITE", "HasFileno", "Poller"]

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE

EPOLLIN: Final = getattr(select, "EPOLLIN", 0)
EPOLLOUT: Final = getattr(select, "EPOLLOUT", 0)


class HasFileno(Protocol):
    """A socket, or an object that stands for one."""

    def fileno(self) -> int:
        """Its descriptor."""


class Poller:
    """The descriptors that are watched, with what stands for each. Of one thread, but for `wake`."""

    def __init__(self) -> None:
        self._watched: dict[int, tuple[Any, int]] = {}
        self._epoll: Any = None
        self._selector = selectors.DefaultSelector()
        self._wake_receiver: Any = None
        self._wake_sender: Any = None
        try:
            if hasattr(select, "epoll") and isinstance(self._selector, selectors.EpollSelector):
                # The same epoll through a descriptor of its own: what the selector does for each event takes as long
                # as many handlers.
                self._epoll = select.epoll.fromfd(os.dup(self._selector.fileno()))
            self._wake_receiver, self._wake_sender = socket.socketpair()
            self._wake_receiver.setblocking(False)
            self._wake_sender.setblocking(False)
            self.watch(self._wake_receiver, READ, None)
        except BaseException:
            self.close()
            raise

    def watch(self, sock: HasFileno, events: int, what: Any) -> None:
        """Have `poll` tell of these events of ``sock`` from now on; 0 for none.

        A mask of 0 is never left registered: epoll reports errors and hang-ups regardless, and would spin.
        """
        descriptor = sock.fileno()
        known = descriptor in self._watched if descriptor >= 0 else self._is_known_by_itself(sock)
        if events:
            key = self._selector.modify(sock, events, what) if known else self._selector.register(sock, events, what)
            self._watched[key.fd] = what, events
        elif known:
            del self._watched[self._selector.unregister(sock).fd]

    def _is_known_by_itself(self, sock: HasFileno) -> bool:
        """For one that is closed, and has no descriptor any more."""
        try:
            self._selector.get_key(sock)
        except (KeyError, ValueError):
            return False
        return True

    def poll(self, timeout: float | None) -> list[tuple[Any, int]]:
        """Wait until something happens, or for so many seconds (``None``: for ever): what stands for the descriptors of
        which there is something to tell, and which events. ``None`` stands for `wake`."""
        if self._epoll is None:
            return [(key.data, events) for key, events in self._selector.select(timeout)]
        watched = self._watched
        if timeout is not None:
            timeout = math.ceil(timeout * 1e3) * 1e-3  # or it would look again and again in the last millisecond
        ready = []
        for descriptor, happened in self._epoll.poll(timeout):
            what, wanted = watched[descriptor]
            # Errors and hang-ups are told of as whatever was asked for.
            ready.append((what, (READ if happened & ~EPOLLOUT else 0) & wanted
                          | (WRITE if happened & ~EPOLLIN else 0) & wanted))
        return ready

    def wake(self) -> None:
        """End the `poll` that goes on, or else the next one. From any thread; takes no lock."""
        try:
            self._wake_sender.send(b"\0")
        except BlockingIOError:
            pass  # it has more wake-ups than it can read already
        except OSError:
            pass  # it has ended

    def forget_wake_ups(self) -> None:
        """After `poll` has told of one, and only once nobody calls `wake` any more who need not: it is a system call,
        in which others go on."""
        try:
            self._wake_receiver.recv(4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        for resource in (self._epoll, self._selector, self._wake_receiver, self._wake_sender):
            if resource is not None:
                resource.close()
        self._watched.clear()
