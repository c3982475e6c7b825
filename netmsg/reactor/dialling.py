"""Dialling on the reactor: the attempts of a `Race`."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence

from ..sockets.addresses import Address
from ..sockets.lingering import reset_on_close
from ..sockets.racing import Race
from .reactor import WRITE, Scope, Timer

__all__ = ["Dial"]


class Dial:
    """One `Race` run in the `Scope` of whoever dials, who cancels it should that crash; ends with
    ``done(socket, failures)``, the socket being ``None`` where all have failed. On the loop."""

    def __init__(self, io: Scope, addresses: Sequence[Address],
                 done: Callable[[socket.socket | None, list[tuple[Address, OSError]]], None]) -> None:
        self._io = io
        self._race = Race(addresses)
        self._done = done
        self._attempts: dict[_Attempt, None] = {}
        self._timer: Timer | None = None
        self._over = False

    def start(self) -> None:
        self._go_on()

    def _go_on(self) -> None:
        while not self._over and (address := self._race.start(self._io.loop.now)) is not None:
            attempt = _Attempt(self._io, address, self._attempt_ended)
            self._attempts[attempt] = None
            attempt.start()
        if self._over:
            return
        if self._race.lost:
            self._finish(None)
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._race.next_at is not None:
            self._timer = self._io.call_later(self._race.next_at - self._io.loop.now, self._go_on)

    def _attempt_ended(self, attempt: _Attempt, error: OSError | None) -> None:
        self._attempts.pop(attempt, None)
        if self._over:
            return
        if error is None:
            self._finish(attempt.sock)
        else:
            self._race.failed(attempt.address, error, self._io.loop.now)
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


class _Attempt:
    """One socket on its way to one address."""

    def __init__(self, io: Scope, address: Address, ended: Callable[[_Attempt, OSError | None], None]) -> None:
        self.address = address
        self.sock: socket.socket | None = None
        self._io = io
        self._ended = ended

    def start(self) -> None:
        family, address = self.address
        try:
            self.sock = self._io.loop.machine.new_socket(family)
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

    def _on_event(self, events: int) -> None:
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
            # Dialling a free port of the ephemeral range can meet itself (TCP's simultaneous open). Closed in order, it
            # would keep the port from who waits to listen there, for a minute (TIME_WAIT).
            reset_on_close(self.sock)
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
            self._io.close_afterwards(sock.close)
