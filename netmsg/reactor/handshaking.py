"""TLS handshakes on the reactor."""

from __future__ import annotations

import socket
from collections.abc import Callable

from ..errors import TLSHandshakeError
from ..transports.plain import Transport
from .io_thread import READ, WRITE, IOThread

__all__ = ["Handshake"]


class Handshake:
    """The TLS handshake of one connection, within ``timeout`` seconds (``None``: however long it takes); ends with
    ``done(None)`` or ``done(error)``. Every method belongs on the loop."""

    def __init__(self, io: IOThread, sock: socket.socket, transport: Transport, timeout: float | None,
                 done: Callable[[OSError | None], None]) -> None:
        self._io = io
        self._socket = sock
        self._transport = transport
        self._done = done
        self._over = False
        self._timer = io.call_later(timeout, self._too_slow) if timeout is not None else None

    def start(self) -> None:
        self.on_event(READ)

    def on_event(self, events: int) -> None:
        if self._over:
            return
        if self._io.handshake_steps:
            self._io.handshake_steps -= 1
            try:
                self._transport.handshake()
            except BlockingIOError:
                pass
            except OSError as error:
                self._finish(error)
                return
            else:
                self._finish(None)
                return
        elif self._transport.readable:
            self._io.call(self.on_event, READ)  # this round has had its share of them, and no event will come
        self._io.watch(self._socket, READ | WRITE if self._transport.unsent else READ, self)

    def _too_slow(self) -> None:
        if not self._over:
            self._finish(TLSHandshakeError("the TLS handshake was not finished in time"))

    def _finish(self, error: OSError | None) -> None:
        self.cancel()
        self._done(error)

    def cancel(self) -> None:
        """Give up, without telling."""
        if not self._over:
            self._over = True
            if self._timer is not None:
                self._timer.cancel()
            self._io.watch(self._socket, 0, self)

    def crashed(self, error: Exception) -> None:
        self._finish(OSError(f"the TLS handshake failed: {error!r}"))
