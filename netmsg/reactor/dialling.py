"""Happy eyeballs (RFC 8305): try the addresses of a host side by side, a little apart, and keep the first to answer."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

from .io_thread import WRITE, IOThread, Timer
from .resolving import Address

__all__ = ["ATTEMPT_DELAY", "Dial", "Race", "interleave"]

ATTEMPT_DELAY: Final = 0.25
"""Seconds that an attempt has to itself."""


def interleave(addresses: Sequence[Address]) -> list[Address]:
    """Alternate between the families, beginning with that of the first address; the order within each is kept."""
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    queues = list(families.values())
    return [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]


class Race:
    """Which address to try when. Pure: handed ``now``, in seconds.

    An attempt starts ``delay`` seconds after the one before, or at once when that failed.
    """

    def __init__(self, addresses: Sequence[Address], delay: float = ATTEMPT_DELAY) -> None:
        self.failures: list[tuple[Address, OSError]] = []
        self._waiting = interleave(addresses)
        self._delay = delay
        self._running = 0
        self.next_at: float | None = 0.0 if self._waiting else None
        """When to ask `start` again; ``None`` when all have been started."""

    def start(self, now: float) -> Address | None:
        """The address to try now, if it is time for one."""
        if self.next_at is None or now < self.next_at:
            return None
        self._running += 1
        address = self._waiting.pop(0)
        self.next_at = now + self._delay if self._waiting else None
        return address

    def failed(self, address: Address, error: OSError, now: float) -> None:
        """An attempt came to nothing: the next may start at once."""
        self._running -= 1
        self.failures.append((address, error))
        if self._waiting:
            self.next_at = now

    @property
    def lost(self) -> bool:
        """Whether every address has been tried in vain."""
        return not self._running and not self._waiting


class Dial:
    """One `Race` run on an `IOThread`; ends with ``done(socket, address)``, or ``done(None, failures)``."""

    def __init__(self, io: IOThread, addresses: Sequence[Address],
                 done: Callable[[socket.socket | None, list[tuple[Address, OSError]]], None]) -> None:
        self._io = io
        self._race = Race(addresses)
        self._done = done
        self._attempts: set[_Attempt] = set()
        self._timer: Timer | None = None
        self._over = False

    def start(self) -> None:
        self._go_on()

    def _go_on(self) -> None:
        while not self._over and (address := self._race.start(self._io.now)) is not None:
            attempt = _Attempt(self._io, address, self._attempt_ended)
            self._attempts.add(attempt)
            attempt.start()
        if self._over:
            return
        if self._race.lost:
            self._finish(None)
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._race.next_at is not None:
            self._timer = self._io.call_later(self._race.next_at - self._io.now, self._go_on)

    def _attempt_ended(self, attempt: _Attempt, error: OSError | None) -> None:
        self._attempts.discard(attempt)
        if self._over:
            return
        if error is None:
            self._finish(attempt.sock)
        else:
            self._race.failed(attempt.address, error, self._io.now)
            self._go_on()

    def cancel(self) -> None:
        """Give up, without telling."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        for attempt in tuple(self._attempts):
            attempt.cancel()
        self._attempts.clear()

    def abandon(self) -> None:
        """In a forked child: close this process's copies, and nothing else."""
        for attempt in self._attempts:
            if attempt.sock is not None:
                attempt.sock.close()

    def _finish(self, winner: socket.socket | None) -> None:
        self.cancel()
        self._done(winner, self._race.failures)

    def crashed(self, error: Exception) -> None:
        self._race.failures.append(((0, None), OSError(f"dialling failed: {error!r}")))
        self._finish(None)


class _Attempt:
    """One socket on its way to one address."""

    def __init__(self, io: IOThread, address: Address, ended: Callable[[_Attempt, OSError | None], None]) -> None:
        self.address = address
        self.sock: socket.socket | None = None
        self._io = io
        self._ended = ended

    def start(self) -> None:
        family, address = self.address
        try:
            self.sock = socket.socket(family, socket.SOCK_STREAM)
            self.sock.setblocking(False)
            code = self.sock.connect_ex(address)
        except OSError as error:  # no such family here, or out of descriptors
            self._fail(error)
            return
        if code == 0:
            self._connected()
        elif code in (errno.EINPROGRESS, errno.EWOULDBLOCK) and family != getattr(socket, "AF_UNIX", None):
            self._io.watch(self.sock, WRITE, self)
        else:
            self._fail(OSError(code, os.strerror(code)))

    def on_event(self, events: int) -> None:
        if self.sock is None:
            return
        self._io.watch(self.sock, 0, self)
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(OSError(code, os.strerror(code)))
        else:
            self._connected()

    def _connected(self) -> None:
        assert self.sock is not None
        if self.sock.family != getattr(socket, "AF_UNIX", None) and self._connected_to_itself(self.sock):
            # Dialling a free port of the ephemeral range can meet itself (TCP's simultaneous open).
            self._fail(ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)))
            return
        self._ended(self, None)

    @staticmethod
    def _connected_to_itself(sock: socket.socket) -> bool:
        try:
            return bool(sock.getsockname() == sock.getpeername())
        except OSError:
            return False

    def _fail(self, error: OSError) -> None:
        self.cancel()
        self._ended(self, error)

    def cancel(self) -> None:
        sock, self.sock = self.sock, None
        if sock is not None:
            self._io.watch(sock, 0, self)
            self._io.bury(sock.close)

    def crashed(self, error: Exception) -> None:
        self._fail(OSError(f"dialling failed: {error!r}"))
