"""An endpoint that a Søcket was told to connect to: dialled, and dialled again, for the life of the Søcket."""

from __future__ import annotations

import logging
import math
import reprlib
import socket
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from ..errors import ConnectFailedError
from ..reactor.callbacks import Callbacks
from ..reactor.dialling import Dial
from ..reactor.reactor import Reactor, Timer
from ..sockets.addresses import Address, host_and_port
from .backoff import Backoff
from .carriers import Carrier
from .events import Connecting, EventQueue, Retrying
from .life import Life
from .reporting import failure, readable

__all__ = ["Complain", "Connection", "Endpoint", "Welcome", "naming"]

log = logging.getLogger("netmsg.messaging")

STABLE: Final = 5.0
"""Seconds of connection after which the next failure starts again with a short delay."""
SHORTEST: Final = 0.01
"""Seconds that are waited before every attempt, whatever the user's function says: with none at all, an address that
refuses would be dialled by one core without a pause."""
PATIENCE: Final = 1.0
"""Seconds that the user's function may take, at least."""
LONGEST_AT_CLOSE: Final = 0.1
"""Seconds that are waited at most while `close` lingers: there is not much time left."""


Complain = Callable[..., None]
"""See `Reporter.complain`."""


class Connection(Protocol):
    """What an endpoint knows of a connection that it has led to."""

    open_since: float | None
    """When the handshake was over, by the clock of the machine."""

    @property
    def phase(self) -> str:
        """How far it has come that is not open."""


class Welcome(Protocol):
    """Those to whom an endpoint brings its connections."""

    def connected(self, sock: socket.socket, target: tuple[str, int] | str, endpoint: Endpoint,
                  carrier: Carrier) -> Connection:
        """Here is one."""

    def wants(self, endpoint: Endpoint) -> bool:
        """Whether another one is wanted."""

    def without(self, endpoint: Endpoint) -> None:
        """There will be no other one."""


class Endpoint:
    """Belongs to the network thread. One attempt is in progress at a time; what a former one still brings, such as the
    late answer of a resolver, is known by its generation and ignored."""

    def __init__(self, target: tuple[str, int] | str, welcome: Welcome, life: Life, io: Reactor, events: EventQueue,
                 delaying: Callbacks, complain: Complain, *, carrier: Carrier, connect_timeout: float,
                 reconnection_delay: Callable[[], float] | None) -> None:
        self.target = target
        self.peer: Connection | None = None
        self.connecting = False
        """Whether an attempt is in progress: from the dialling to the end of the handshake."""
        self._welcome = welcome
        self._life = life
        self._io = io.scope(self._crashed)
        self._machine = io.machine
        self._events = events
        self._delaying = delaying
        self._complain = complain
        self._carrier = carrier
        self._connect_timeout = connect_timeout
        self._reconnection_delay = reconnection_delay
        self._backoff = Backoff(io.machine.chance)
        self._generation = 0
        self._phase = ""
        self._failure = ""
        self._dial: Dial | None = None
        self._timer: Timer | None = None
        self._stopped = False
        self._resting = False
        self.leads_to = b""
        """The identity of the peer that it led to last."""
        self.took_leave = False
        """Whether that peer has been said goodbye to, because the Søcket closes."""

    def start(self) -> None:
        """Dial."""
        if self._stopped or self._life.closed:
            return
        self._generation += 1
        generation = self._generation
        self.connecting = True
        self._events.add(Connecting(self.target))
        self._timer = self._io.call_later(self._connect_timeout, self._timed_out, generation)
        self._phase = "resolving"
        if isinstance(self.target, str):
            self._resolved(generation, [(socket.AF_UNIX, self.target)])
        else:
            host, port = self.target
            self._machine.resolve_in_background(
                host, port, lambda found: self._io.call(self._resolved, generation, found))

    def _resolved(self, generation: int, found: list[Address] | OSError) -> None:
        if generation != self._generation or self._stopped:
            return
        if isinstance(found, OSError):
            self._failed(naming(found, self.target[0]))
            return
        self._phase = "connecting"
        self._dial = Dial(self._io, found, self._dialled)
        self._dial.start()

    def _timed_out(self, generation: int) -> None:
        if generation == self._generation and self.connecting and self.peer is None:
            self._failed(TimeoutError(f"no connection within {self._connect_timeout:g} s"))

    def _dialled(self, sock: socket.socket | None, failures: list[tuple[Address, OSError]]) -> None:
        self._dial = None
        if sock is None:
            reasons = "; ".join(dict.fromkeys(str(error) for _, error in failures))
            self._failed(ConnectFailedError(reasons or "no address",
                                            [(host_and_port(at), error) for (_, at), error in failures]))
            return
        self._cancel()
        try:
            self.peer = self._welcome.connected(sock, self.target, self, self._carrier)
        except Exception:
            self._io.close_afterwards(sock.close)
            raise

    def _failed(self, error: OSError) -> None:
        self._cancel()
        self.connecting = False
        self._wait(self._phase, str(error), error)

    def opened(self, identity: bytes) -> None:
        """The handshake is over, and the peer in."""
        self.leads_to = identity
        self.took_leave = False
        self.connecting = False
        self._failure = ""

    def ended(self, open_for: float, reason: str, error: BaseException | None) -> None:
        """The connection has gone, ``open_for`` seconds after its handshake (0: it never came to that)."""
        phase = "" if self.peer is None or self.peer.open_since is not None else self.peer.phase
        self.peer = None
        self.connecting = False
        if self._resting:
            return
        if open_for >= STABLE:
            self._backoff.reset()
        self._wait(phase, reason, error)

    def rest(self, identity: bytes) -> None:
        """The peer is there by another connection: do not dial until `wake`."""
        self.leads_to = identity
        self.peer = None
        self.connecting = False
        self._resting = True
        self._failure = ""

    def wake(self, reason: str) -> None:
        """That connection has gone."""
        self._resting = False
        self._wait("", reason, None)

    @property
    def trouble(self) -> str:
        """What is in the way of a connection, in words for people; empty while there is one. From any thread."""
        if self._failure:
            return f"no connection to {readable(self.target)}: {self._failure}"
        peer = self.peer
        if peer is not None and peer.open_since is not None:
            return ""
        phase = self._phase if peer is None else peer.phase
        return f"{readable(self.target)} is not past {phase} yet" if self.connecting else ""

    def _wait(self, phase: str, reason: str, error: BaseException | None) -> None:
        """Dial again after a while, unless there is nothing to dial for any more."""
        self._failure = failure(phase, reason) if phase else reason
        if self._stopped or not self._welcome.wants(self):
            self._welcome.without(self)
            return
        delay = self._backoff.next()
        if self._reconnection_delay is None or self._life.closing:
            self._wait_for(self._generation, delay, phase, reason, error)
            return
        generation = self._generation
        complain = self._complain

        def decided(result: Any, failure: BaseException | None) -> None:
            wish = delay if failure is not None else _delay(result, delay, complain)
            self._io.call(self._wait_for, generation, wish, phase, reason, error)

        def undecided() -> None:
            if generation == self._generation:
                complain("reconnection_delay", "does not return: using %.2f s", delay)
                self._wait_for(generation, SHORTEST, phase, reason, error)  # it has been waited for

        self._timer = self._io.call_later(max(PATIENCE, delay), undecided)
        self._delaying.run(self._reconnection_delay, (), decided)

    def _wait_for(self, generation: int, delay: float, phase: str, reason: str, error: BaseException | None) -> None:
        if generation != self._generation or self._stopped:
            return
        self._cancel()  # whatever else may have been decided comes too late
        delay = max(SHORTEST, min(delay, LONGEST_AT_CLOSE) if self._life.closing else delay)
        self._events.add(Retrying(self.target, None, reason, error, delay=delay, phase=phase, at=time.time()))
        self._timer = self._io.call_later(delay, self.start)

    def hurry(self) -> None:
        """The Søcket closes, and lingers: wait no longer than that allows for an attempt that was to come later."""
        if not (self.connecting or self._stopped or self._resting) and self.peer is None:
            self._cancel()  # a function that was asked for the delay need not answer any more
            delay = SHORTEST + self._machine.chance() * (LONGEST_AT_CLOSE - SHORTEST)
            self._timer = self._io.call_later(delay, self.start)

    def revive(self) -> None:
        """The Søcket closes, and something waits again: dial, where that had been given up."""
        if self._timer is None and self._dial is None:
            self.hurry()

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

    def _crashed(self, error: Exception) -> None:
        self._failed(OSError(f"connecting failed: {error!r}"))


def _delay(wish: Any, default: float, complain: Complain) -> float:
    """What the user's function returned if it makes sense; else, with a word in the log, the default."""
    try:
        delay = float(wish)
        if delay >= 0 and math.isfinite(delay):
            return delay
    except BaseException:  # whatever a class of the user's can think of: this thread is not its to end
        pass
    try:
        shown = reprlib.repr(wish)
    except BaseException:
        shown = f"an object of {type(wish).__name__}"
    complain("reconnection_delay", "returned %s, which is no number of seconds: using %.2f", shown, default)
    return default


def naming(error: OSError, host: str) -> OSError:
    """An error of the resolver that says what name it was about."""
    if not isinstance(error, socket.gaierror) or host in str(error):
        return error
    named = socket.gaierror(error.errno, f"{error.strerror}: {host!r}")
    named.__cause__ = error
    return named
