"""An endpoint that a Søcket was told to connect to: dialled, and dialled again, for the life of the Søcket."""

from __future__ import annotations

import logging
import math
import random
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..errors import ConnectFailedError
from ..reactor.dialling import Dial
from ..reactor.io_thread import Timer
from ..sockets.addresses import Address
from ..sockets.resolving import resolve_in_background
from .backoff import Backoff
from .events import Connecting, Retrying
from .peers import Peer

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["Endpoint"]

log = logging.getLogger("netmsg.messaging")

STABLE: Final = 5.0
"""Seconds of connection after which the next failure starts again with a short delay."""


class Endpoint:
    """Belongs to the network thread. One attempt is in progress at a time; what a former one still brings, such as the
    late answer of a resolver, is known by its generation and ignored."""

    def __init__(self, engine: Engine, target: tuple[str, int] | str, *, ssl_context: ssl.SSLContext | None,
                 server_hostname: str | None, connect_timeout: float,
                 reconnection_delay: Callable[[], float] | None) -> None:
        self.target = target
        self.peer: Peer | None = None
        self.connecting = False
        """Whether an attempt is in progress: from the dialling to the end of the handshake."""
        self._engine = engine
        self._io = engine.io
        self._ssl_context = ssl_context
        self._server_hostname = server_hostname
        self._connect_timeout = connect_timeout
        self._reconnection_delay = reconnection_delay
        self._backoff = Backoff(random.random)
        self._generation = 0
        self._dial: Dial | None = None
        self._timer: Timer | None = None
        self._stopped = False
        self._resting = False

    def start(self) -> None:
        """Dial."""
        if self._stopped or self._engine.closed:
            return
        self._generation += 1
        generation = self._generation
        self.connecting = True
        self._engine.events.add(Connecting(self.target))
        self._timer = self._io.call_later(self._connect_timeout, self._timed_out, generation)
        if isinstance(self.target, str):
            self._resolved(generation, [(socket.AF_UNIX, self.target)])
        else:
            host, port = self.target
            resolve_in_background(host, port,
                                  lambda found: self._io.call(self._resolved, generation, found))

    def _resolved(self, generation: int, found: list[Address] | OSError) -> None:
        if generation != self._generation or self._stopped:
            return
        if isinstance(found, OSError):
            self._failed(found)
            return
        self._dial = Dial(self._io, found, self._dialled)
        self._dial.start()

    def _timed_out(self, generation: int) -> None:
        if generation == self._generation and self.connecting and self.peer is None:
            self._failed(TimeoutError(f"no connection within {self._connect_timeout:g} s"))

    def _dialled(self, sock: socket.socket | None, failures: list[tuple[Address, OSError]]) -> None:
        self._dial = None
        if sock is None:
            reasons = "; ".join(dict.fromkeys(str(error) for _, error in failures))
            self._failed(ConnectFailedError(reasons or "no address", [(at, error) for (_, at), error in failures]))
            return
        self._cancel()
        self.peer = self._engine.connected(sock, self.target, self, self._ssl_context, self._server_hostname)

    def _failed(self, error: OSError) -> None:
        self._cancel()
        self.connecting = False
        self._wait(str(error), error)

    def opened(self) -> None:
        """The handshake is over, and the peer in."""
        self.connecting = False

    def ended(self, open_for: float, reason: str, error: BaseException | None) -> None:
        """The connection has gone, ``open_for`` seconds after its handshake (0: it never came to that)."""
        self.peer = None
        self.connecting = False
        if self._resting:
            return
        if open_for >= STABLE:
            self._backoff.reset()
        self._wait(reason, error)

    def rest(self) -> None:
        """The peer is there by another connection: do not dial until `wake`."""
        self._resting = True

    def wake(self, reason: str) -> None:
        """That connection has gone."""
        self._resting = False
        self._wait(reason, None)

    def _wait(self, reason: str, error: BaseException | None) -> None:
        """Dial again after a while, unless there is nothing to dial for any more."""
        if self._stopped or not self._engine.wants(self):
            self._engine.check_closed()
            return
        delay = self._backoff.next()
        if self._reconnection_delay is None:
            self._wait_for(self._generation, delay, reason, error)
            return
        generation = self._generation

        def decided(result: Any, _: BaseException | None) -> None:
            self._io.call(self._wait_for, generation, _delay(result, delay), reason, error)

        self._engine.callbacks.run(self._reconnection_delay, (), decided)

    def _wait_for(self, generation: int, delay: float, reason: str, error: BaseException | None) -> None:
        if generation != self._generation or self._stopped:
            return
        self._engine.events.add(Retrying(self.target, None, reason, error, delay=delay, at=time.time()))
        self._timer = self._io.call_later(delay, self.start)

    def stop(self) -> None:
        """Dial no more; a connection that is up stays."""
        self._stopped = True
        self._cancel()
        self.connecting = False

    def abandon(self) -> None:
        """In a forked child: close this process's copies of the descriptors, and nothing else."""
        if self._dial is not None:
            self._dial.abandon()

    def _cancel(self) -> None:
        """Let nothing of the attempt in progress come back."""
        self._generation += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None

    def crashed(self, error: Exception) -> None:
        self._failed(OSError(f"connecting failed: {error!r}"))


def _delay(wish: Any, default: float) -> float:
    """What the user's function returned if it makes sense; else, with a word in the log, the default."""
    try:
        delay = float(wish)
        if delay >= 0 and math.isfinite(delay):
            return delay
    except (TypeError, ValueError):
        pass
    log.warning("reconnection_delay() returned %r, which is no number of seconds: using %.2f", wish, default)
    return default
