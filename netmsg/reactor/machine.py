"""What the network thread stands on: time, chance, names, sockets and threads.

Søckets and servers ask all of it of one `Machine`, the reactor's. So the same Søckets run on a machine that is not
there, where no time goes by and one seed decides everything: see tests/simulation.
"""

from __future__ import annotations

import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeVar

from ..deadline import Deadline
from ..sockets.addresses import Address
from ..sockets.lingering import all_acknowledged, unacknowledged
from ..sockets.listening import listen_tcp, listen_unix
from ..sockets.liveness import acknowledged_within, hung_up
from ..sockets.resolving import resolve_in_background, resolve_within
from ..sockets.waiting import READ, ready_sockets
from ..storage.committing import Committer, Committing, File
from ..storage.files import PathLike
from ..storage.outbox import OutboxFile
from ..storage.seen import SeenFile
from ..waiting import Waiters
from .callbacks import Callbacks
from .polling import Poller

__all__ = ["MACHINE", "Joinable", "Machine"]

C = TypeVar("C")


class Joinable(Protocol):
    """A thread that runs."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, ``timeout`` seconds at most."""


class Running:
    """A thread that can be waited for once more after an interrupt, which `threading.Thread.join` takes for the end of
    the thread (CPython 3.11, 3.12)."""

    def __init__(self, run: Callable[[], None], name: str) -> None:
        self._function = run
        self._over = False
        self._waiters = Waiters()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._function()
        finally:
            self._over = True
            self._waiters.notify_all()

    def join(self, timeout: float | None = None) -> None:
        deadline = Deadline(timeout)
        if self._waiters.wait(lambda: self._over, deadline):
            self._thread.join(deadline.remaining())


class Machine:
    """The one that this program runs on. Any thread may ask."""

    # Attributes and not methods, where every call counts.

    clock: Callable[[], float] = staticmethod(time.monotonic)
    """Seconds, which nobody sets."""
    stopwatch: Callable[[], float] = staticmethod(time.perf_counter)
    """The same, finer, for microseconds between two looks."""
    chance: Callable[[], float] = staticmethod(random.random)
    """A number from 0 to 1."""
    token: Callable[[int], bytes] = staticmethod(secrets.token_bytes)
    """So many bytes that nobody can guess."""
    new_poller: Callable[[], Poller] = Poller

    # Names and sockets

    def resolve(self, deadline: Deadline, host: str, port: int) -> list[Address]:
        """See `netmsg.sockets.resolving.resolve_within`. Blocks."""
        return resolve_within(deadline, host, port)

    def resolve_in_background(self, host: str, port: int, done: Callable[[list[Address] | OSError], None]) -> None:
        """See `netmsg.sockets.resolving`."""
        resolve_in_background(host, port, done)

    def listen_tcp(self, addresses: list[Address], port: int, backlog: int) -> list[socket.socket]:
        """See `netmsg.sockets.listening`."""
        return listen_tcp(addresses, port, backlog)

    def listen_unix(self, path: str, backlog: int) -> socket.socket:
        """See `netmsg.sockets.binding`."""
        return listen_unix(path, backlog)

    def new_socket(self, family: int) -> socket.socket:
        """A non-blocking stream socket to connect."""
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        return sock

    # What the system knows of them

    def readable(self, descriptors: Iterable[int]) -> set[int]:
        """Those of which something is to be read or accepted, or told, now."""
        wanted = dict.fromkeys(descriptors, READ)
        return {descriptor for descriptor, _ in ready_sockets(wanted, None, Deadline(0)) or ()}

    def hung_up(self, sock: socket.socket) -> bool:
        """See `netmsg.sockets.liveness`."""
        return hung_up(sock)

    def acknowledged_within(self, sock: socket.socket, seconds: float) -> bool:
        """See `netmsg.sockets.liveness`."""
        return acknowledged_within(sock, seconds)

    def all_acknowledged(self, sock: socket.socket) -> bool:
        """See `netmsg.sockets.lingering`."""
        return all_acknowledged(sock)

    def unacknowledged(self, sock: socket.socket) -> int:
        """See `netmsg.sockets.lingering`."""
        return unacknowledged(sock)

    # Files

    def open_outbox(self, path: PathLike, identity: bytes | None, *, wait_for_disk: bool) -> OutboxFile:
        """See `netmsg.storage.outbox`."""
        return OutboxFile(path, identity, wait_for_disk=wait_for_disk)

    def open_memory(self, path: PathLike, remember: int) -> SeenFile:
        """See `netmsg.storage.seen`."""
        return SeenFile(path, remember)

    def committer(self, file: File[C]) -> Committing[C]:
        """Who writes it, once started: see `netmsg.storage.committing`."""
        return Committer(file)

    # Threads

    def start_thread(self, run: Callable[[], None], name: str) -> Joinable:
        """Have a daemonic thread call ``run()``. Raises ``RuntimeError`` where there can be none."""
        return Running(run, name)

    def callbacks(self, name: str, complain: Callable[[str, BaseException], None]) -> Callbacks:
        """Where the user's function of that name is called."""
        return Callbacks(name, complain)


MACHINE: Final = Machine()
