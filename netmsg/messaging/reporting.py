"""What the events of a Søcket say in the log, so that nothing fails in silence.

A failure is a warning the first time, and then once a minute at most: for each endpoint that is dialled, each host that
is refused, each cause of drops. Connections made and lost are for INFO.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any, Final, Protocol

from ..errors import RemoteProtocolError
from ..reactor.reactor import Reactor, Timer
from ..speaking import say, soon
from .events import AcceptError, Connected, Disconnected, Dropped, Event, HandshakeFailed, Retrying, Undelivered
from .life import Life
from .losses import WANTED, Losses

__all__ = ["Reporter", "Whereabouts", "failure", "readable"]

log = logging.getLogger("netmsg.messaging")

QUIET: Final = 60.0
"""Seconds between two warnings about the same."""
MOST_SUBJECTS: Final = 1000
"""What may be warned about is remembered for so many; a flood from everywhere counts as one."""
MOST_NAMED: Final = 3
GIVEN_UP: Final = "given up at close"
UNDELIVERED: Final = "undelivered"
CROSSED: Final = "both ends dialled"
"""How the reason begins why one of two connections was closed that are one too many, and no trouble at all."""


class Dialled(Protocol):
    """What a Søcket dials."""

    @property
    def trouble(self) -> str:
        """What is in the way of a connection, in words for people; empty while there is one. From any thread."""


class Whereabouts(Protocol):
    """What a Søcket dials, and what it listens at."""

    @property
    def acceptors(self) -> Collection[object]: ...

    @property
    def endpoints(self) -> Collection[Dialled]: ...


class Reporter:
    """Tells the log about one Søcket. `tell` may be called from any thread, at any rate."""

    def __init__(self, identity: bytes, io: Reactor, life: Life, places: Whereabouts, losses: Losses) -> None:
        self._refusal = ""  # what was wrong with the last connection that was accepted and not let in
        self._refused_at = 0.0
        self._io = io
        self._clock = io.clock
        self._life = life
        self._places = places
        self._losses = losses
        self._name = f"Søcket {identity.hex()[:8]}"
        self._quiet: dict[object, float] = {}  # until when each subject is; a glance saves the way to the other thread
        self._said: dict[object, float] = {}  # when; the thread that speaks alone looks at it
        self._counted: dict[str, int] = {}  # what has been said of each counter
        self._timer: Timer | None = None
        self._waiting = False  # whether something will be said of what has been lost in the meantime

    # From any thread

    def trouble(self) -> str:
        """What a ``TimeoutError`` adds to what was waited for: the last failures of the endpoints, as far as there are
        any, and of the last connection that was refused; or that there are none, which may be what is wrong."""
        endpoints = tuple(self._places.endpoints)
        if not endpoints and not self._places.acceptors:
            return "; the Søcket is neither bound nor connected to anything"
        failures = [failure for failure in (endpoint.trouble for endpoint in endpoints) if failure]
        told = failures[:MOST_NAMED]
        if self._refusal and self._clock() < self._refused_at + QUIET:
            told.append(self._refusal)
        if len(failures) > MOST_NAMED:
            told.append(f"and {len(failures) - MOST_NAMED} more fail")
        return "".join(f"; {text}" for text in told)

    def tell(self, event: Event) -> None:
        """Have it said, if it is worth it."""
        kind = type(event)
        if kind is Dropped:
            assert isinstance(event, Dropped)
            if event.reason == GIVEN_UP:
                soon(self._say, logging.WARNING, "%s: %d message%s given up at close%s", self._name, event.count,
                     "s were" if event.count > 1 else " was", self.trouble())
            elif event.reason not in WANTED:
                self._lost(event.reason)
        elif kind is Undelivered:
            self._lost(UNDELIVERED)
        elif kind is Connected or kind is Disconnected:
            self._came_or_went(event)
        elif kind in _TROUBLES:
            self._trouble(event)

    def _came_or_went(self, event: Event) -> None:
        if isinstance(event.error, RemoteProtocolError):
            self._warn(("protocol", _host(event.address)), "%s: the peer at %s broke the protocol, and the connection "
                       "was closed: %s", self._name, readable(event.address), event.error)
        elif log.isEnabledFor(logging.INFO):
            what, reason = ("connected to", "") if type(event) is Connected else ("lost", f": {event.reason}")
            soon(self._say, logging.INFO, "%s: %s peer %s at %s%s", self._name, what, (event.peer or b"").hex(),
                 readable(event.address), reason)

    def _trouble(self, event: Event) -> None:
        if event.reason.startswith(CROSSED):
            return
        address = readable(event.address)
        if isinstance(event, Retrying):
            if event.phase:
                self._warn(("dialled", event.address), "%s: no connection to %s: %s; it goes on trying", self._name,
                           address, failure(event.phase, event.reason))
        elif isinstance(event, HandshakeFailed):
            if event.phase and not event.dialled:  # what is dialled is retried, and told of by that
                host = _host(event.address)
                self._refusal = f"{readable(host)} was refused: {failure(event.phase, event.reason)}"
                self._refused_at = self._clock()
                who = f" (identity {event.peer.hex()})" if event.peer else ""
                self._warn(("accepted", host), "%s: a connection from %s%s was refused: %s", self._name, address, who,
                           failure(event.phase, event.reason))
        elif isinstance(event, AcceptError):
            self._warn(("accepting", event.address), "%s: a connection at %s could not be accepted: %s", self._name,
                       address, event.reason)

    def complain(self, function: str, text: str, *arguments: object, error: BaseException | None = None) -> None:
        """Of a function of the user's, by its name: what it returns or raises others may cause at will."""
        self._warn(("function", function), f"%s: %s() {text}", self._name, function, *arguments, error=error)

    def raised(self, function: str, error: BaseException) -> None:
        """A function of the user's has raised."""
        self.complain(function, "raised", error=error)

    def _warn(self, subject: object, text: str, *arguments: object, error: BaseException | None = None) -> None:
        if not self._is_quiet(subject) and log.isEnabledFor(logging.WARNING):
            soon(self._warn_now, subject, error, text, *arguments)
            self._hush(subject)  # afterwards, for an interrupt may come in between

    def _is_quiet(self, subject: object) -> bool:
        if subject not in self._quiet and len(self._quiet) >= MOST_SUBJECTS:
            subject = None
        return self._clock() < self._quiet.get(subject, 0.0)

    def _hush(self, subject: object) -> None:
        now = self._clock()
        if subject not in self._quiet and len(self._quiet) >= MOST_SUBJECTS:
            for known, until in tuple(self._quiet.items()):
                if until <= now:
                    self._quiet.pop(known, None)
            if len(self._quiet) >= MOST_SUBJECTS:
                subject = None
        self._quiet[subject] = now + QUIET

    def _lost(self, cause: str) -> None:
        """Messages have been lost: say it now, or when there has been silence about it for long enough."""
        if self._waiting:
            return
        if not log.isEnabledFor(logging.WARNING):
            return
        if self._is_quiet("lost"):
            self._waiting = True
            try:
                self._io.call(self._wait)
            except BaseException:  # interrupted, perhaps before it was said: the next loss says it again
                self._waiting = False
                raise
        else:
            soon(self._say_losses)
            self._hush("lost")

    # The network thread

    def _wait(self) -> None:
        if not self._life.closed and self._timer is None:
            self._timer = self._io.call_later(self._quiet.get("lost", 0.0) - self._clock(), self._waited)

    def _waited(self) -> None:
        self._timer = None
        self._waiting = False
        self._hush("lost")
        soon(self._say_losses)

    def close(self) -> None:
        """The last event has been told."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            soon(self._say_losses)

    def _crashed(self, error: Exception) -> None:
        """A step on the network thread failed: it was only about the log."""
        self._waiting = False

    # The thread that speaks

    def _say(self, level: int, text: str, *arguments: object) -> None:
        say(log, level, text, *arguments)

    def _warn_now(self, subject: object, error: BaseException | None, text: str, *arguments: object) -> None:
        now = self._clock()
        if now < self._said.get(subject, -QUIET) + QUIET:
            return  # two threads came at once
        if len(self._said) >= MOST_SUBJECTS:
            self._said = {known: when for known, when in self._said.items() if now < when + QUIET}
        self._said[subject] = now
        say(log, logging.WARNING, text, *arguments, exc_info=error)

    def _say_losses(self) -> None:
        if self._life.forked:
            return
        counts = {cause: count for cause, count in tuple(self._losses.dropped.items()) if cause != GIVEN_UP}
        counts[UNDELIVERED] = self._losses.undelivered
        for cause, count in counts.items():
            more = count - self._counted.get(cause, 0)
            if more <= 0:
                continue
            self._counted[cause] = count
            if cause == UNDELIVERED:
                say(log, logging.WARNING, "%s: %d message%s given up, resent as often as max_resends allows and never "
                    "acknowledged", self._name, more, "s were" if more > 1 else " was")
            else:
                say(log, logging.WARNING, "%s: %d message%s dropped: %s (%d in all)", self._name, more,
                    "s were" if more > 1 else " was", cause, count)


_TROUBLES: Final = frozenset({Retrying, HandshakeFailed, AcceptError})


def failure(phase: str, reason: str) -> str:
    """A phase of connecting and why it failed, in one line."""
    return f"{phase} failed: {reason.removeprefix(f'{phase}: ')}"


def readable(address: Any) -> str:
    """An address in one word."""
    if isinstance(address, tuple):
        host, port = address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    text = str(address)
    return f"@{text[1:]}" if text.startswith("\0") else text


def _host(address: Any) -> Any:
    """Of an address that was accepted from: its port is another one each time."""
    return address[0] if isinstance(address, tuple) else address
