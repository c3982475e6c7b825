"""TLS handshakes on the reactor."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Final

from ..errors import TLSHandshakeError
from ..transports.plain import Transport
from .reactor import READ, WRITE, Scope

__all__ = ["Handshake", "PendingHandshakes", "step_aside"]

_numbers = itertools.count(1)

MOST_PENDING: Final = 256
"""Handshakes of one server that wait for the other end; and twice as many at all."""


class PendingHandshakes:
    """Those of one server that are under way, the oldest first. When there are too many, the oldest that wait for the
    other end are given up. Those of which something has come that nobody has looked at yet, or is looking at just now,
    are spared, for then it is this end that is behind, up to twice the number. On the loop."""

    def __init__(self, readable: Callable[[Iterable[int]], set[int]]) -> None:
        """``readable`` tells of which descriptors something is to be read."""
        self._readable = readable
        self._handshakes: dict[Handshake, None] = {}

    def __len__(self) -> int:
        return len(self._handshakes)

    def add(self, handshake: Handshake) -> None:
        self._handshakes[handshake] = None
        if len(self._handshakes) > MOST_PENDING:
            self._make_room(handshake)

    def discard(self, handshake: Handshake) -> None:
        self._handshakes.pop(handshake, None)

    def _make_room(self, newest: Handshake) -> None:
        ready = self._readable(one.fileno() for one in self._handshakes)
        older = [one for one in self._handshakes if one is not newest]
        waiting = [one for one in older if not one.is_aside and one.fileno() not in ready]
        for one in waiting[:len(self) - MOST_PENDING]:
            one.give_up()
        for one in older[:max(0, len(self) - 2 * MOST_PENDING)]:
            one.give_up()


def step_aside(io: Scope, transport: Transport, done: Callable[[OSError | None], None]) -> None:
    """Do a step of a handshake that calls the user's ``sni_callback``, in a thread of its own; then, on the loop,
    ``done`` with what it raised: ``BlockingIOError`` if there is more to come. Meanwhile nobody else may use the
    transport."""
    def step() -> None:
        failure: OSError | None = None
        try:
            transport.handshake()
        except OSError as error:
            failure = error
        except BaseException as error:
            failure = OSError(f"the TLS handshake failed: {error!r}")
        io.call(done, failure)

    try:
        threading.Thread(target=step, name=f"netmsg-handshake-{next(_numbers)}", daemon=True).start()
    except RuntimeError as error:  # out of threads, or the interpreter is exiting
        done(OSError(f"no thread for the TLS handshake: {error}"))


class Handshake:
    """The TLS handshake of one connection, within ``timeout`` seconds (``None``: however long it takes); ends with
    ``done(None)`` or ``done(error)``. ``speaks_first``: nothing comes before this end has said something. Its steps
    belong to the ``io`` of whoever has the connection, if that is a scope of its own. Every method belongs on the
    loop."""

    def __init__(self, io: Scope, sock: socket.socket, transport: Transport, timeout: float | None,
                 done: Callable[[OSError | None], None], pending: PendingHandshakes | None = None, *,
                 speaks_first: bool = False) -> None:
        self._io = io
        self._socket = sock
        self._transport = transport
        self._done = done
        self._over = False
        self.moves = 0
        """How often something has come, or room for more: the other end is not silent."""
        self.is_aside = False
        """Whether a step is being done in a thread of its own."""
        self._pending = pending
        self._speaks_first = speaks_first
        self._timer = io.call_later(timeout, self._too_slow) if timeout is not None else None

    def start(self) -> None:
        if self._pending is not None:
            self._pending.add(self)
        self._on_event(READ)

    def fileno(self) -> int:
        return self._socket.fileno()

    def give_up(self) -> None:
        """In favour of newer ones."""
        if not self._over:
            self._finish(TLSHandshakeError("the TLS handshake was not finished, and too many newer ones were waiting"))

    def _on_event(self, events: int) -> None:
        if self._over:
            return
        self.moves += 1
        if self._transport.calls_back:
            self._io.watch(self._socket, 0, self)
            self.is_aside = True
            step_aside(self._io, self._transport, self._stepped)
            return
        if self._io.loop.handshake_steps:
            self._io.loop.handshake_steps -= 1
            self._speaks_first = False
            try:
                self._transport.handshake()
            except BlockingIOError:
                if self._transport.readable:
                    self._io.call(self._on_event, READ)  # it has had its share, and no event will come
            except OSError as error:
                self._finish(error)
                return
            else:
                self._finish(None)
                return
        elif self._transport.readable or self._speaks_first:
            self._io.call(self._on_event, READ)  # this round has had its share of them, and no event will come
        self._io.watch(self._socket, READ | WRITE if self._transport.unsent else READ, self)

    def _stepped(self, error: OSError | None) -> None:
        """A step that was done aside has ended."""
        self.is_aside = False
        if self._over:
            return
        if not isinstance(error, BlockingIOError):
            self._finish(error)
        elif self._transport.readable:
            self._on_event(READ)
        else:
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
            if self._pending is not None:
                self._pending.discard(self)
            if self._timer is not None:
                self._timer.cancel()
            self._io.watch(self._socket, 0, self)

    def _crashed(self, error: Exception) -> None:
        self._finish(OSError(f"the TLS handshake failed: {error!r}"))
