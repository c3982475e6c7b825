"""Accepting connections on the reactor."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any, Final

from ..sockets.addresses import socket_file
from ..sockets.shortage import OUT_OF_RESOURCES
from ..speaking import say_soon
from .reactor import READ, Scope

__all__ = ["ACCEPTS_A_ROUND", "Acceptor"]

log = logging.getLogger("netmsg.reactor")

ACCEPTS_A_ROUND: Final = 64
PAUSE: Final = 0.1
"""Seconds without accepting after running out of descriptors or memory, or a failure of our own."""


class Acceptor:
    """One listening socket on the reactor, with which goes its UNIX socket file, if it ``owns_file``. Every method
    belongs on the loop.

    Running out of descriptors pauses accepting, with the listener unregistered, and does not end it. Nor does what
    ``accepted`` raises, which belongs to that one connection: it is logged, and the connection closed.
    """

    def __init__(self, io: Scope, sock: socket.socket, accepted: Callable[[socket.socket, Any], None],
                 failed: Callable[[OSError], None], *, owns_file: bool = False) -> None:
        self.address = sock.getsockname()
        self._io = io
        self._socket: socket.socket | None = sock
        self._accepted = accepted
        self._failed = failed
        self._paused = False
        self._resting = False  # see `PAUSE`
        self._arriving: socket.socket | None = None  # of which nobody else knows yet
        self._file = socket_file(self.address) if owns_file else None

    def start(self) -> None:
        if self._socket is not None and not self._paused and not self._resting:
            self._io.watch(self._socket, READ, self)

    def pause(self) -> None:
        """Leave new connections in the backlog until `resume`. Idempotent, as that is."""
        if not self._paused:
            self._paused = True
            self._unwatch()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self.start()

    @property
    def is_awaited(self) -> bool:
        """Whether anybody waits in the backlog."""
        sock = self._socket
        return sock is not None and bool(self._io.loop.machine.readable((sock.fileno(),)))

    def _rest(self) -> None:
        self._resting = True
        self._unwatch()
        self._io.call_later(PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        self.start()

    def _unwatch(self) -> None:
        if self._socket is not None:
            self._io.watch(self._socket, 0, self)

    def _on_event(self, events: int) -> None:
        for _ in range(ACCEPTS_A_ROUND):
            if self._socket is None or self._paused:
                return
            try:
                sock, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._tell(error)
                if error.errno in OUT_OF_RESOURCES:
                    self._rest()
                    return
                continue  # the connection was gone already
            self._arriving = sock
            try:
                sock.setblocking(False)
                self._accepted(sock, address)
            except Exception as error:
                say_soon(log, logging.ERROR, "a connection from %r could not be served; closing it", address,
                         exc_info=error)
                self._io.watch(sock, 0, self)  # it may be watched already
                self._io.close_afterwards(sock.close)
            self._arriving = None

    def close(self) -> None:
        """Stop listening; a UNIX socket file goes too, if it is this one's and still the same."""
        sock, self._socket = self._socket, None
        if sock is None:
            return
        self._io.watch(sock, 0, self)
        self._io.close_afterwards(sock.close)
        if self._file is not None:
            try:
                self._file.remove()
            except OSError as error:  # such as after giving up privileges
                say_soon(log, logging.WARNING, "cannot remove %s: %s", self.address, error)

    def abandon(self) -> None:
        """In a forked child: close these copies, and nothing else."""
        for sock in (self._socket, self._arriving):
            if sock is not None:
                sock.close()
        self._socket = self._arriving = None

    def _tell(self, error: OSError) -> None:
        try:
            self._failed(error)
        except Exception as another:  # which is no fault of the listener's
            say_soon(log, logging.ERROR, "an error of accepting could not be told of", exc_info=another)

    def _crashed(self, error: Exception) -> None:
        """Whatever it was, others wait in the backlog: go on in a while."""
        self._tell(OSError(f"accepting failed: {error!r}"))
        self._rest()
