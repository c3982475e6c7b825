"""What happens to a Søcket, for those who want to know."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ..deadline import Deadline
from ..errors import ConnectFailedError
from ..uninterrupted import take_first
from ..waiting import Waiters
from . import exiting

__all__ = [
    "AcceptError",
    "Connected",
    "Connecting",
    "Disconnected",
    "Dropped",
    "DuplicatePeer",
    "Event",
    "EventQueue",
    "Full",
    "HandshakeFailed",
    "Listening",
    "Retrying",
    "Undelivered",
    "strip",
]

QUEUE_SIZE: Final = 1000


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    address: Any = None
    """Of the other end, or of the listener; ``None`` where there is none."""
    peer: bytes | None = None
    """The peer's identity, where it is known."""
    reason: str = ""
    error: BaseException | None = None
    """The exception behind `reason`, if there is one; its ``__cause__`` may tell more. Without tracebacks, whose frames
    would keep alive what they worked on."""
    at: float = field(default_factory=time.time)
    """When, in seconds since the epoch."""


class Listening(Event):
    """``bind`` succeeded."""


class Connecting(Event):
    """An address is being dialled."""


class Connected(Event):
    """A peer is there: messages can flow."""


@dataclass(frozen=True)
class HandshakeFailed(Event):
    """A connection came to nothing: TLS, HELLO, authorization or the time for them."""

    phase: str = ""
    """How far it had come: ``"TLS"``, ``"HELLO"`` or ``"authorizing"``; empty where only this end has closed."""
    dialled: bool = False
    """Whether this end made the connection; then `Retrying` follows."""


class Disconnected(Event):
    """A peer has gone."""


@dataclass(frozen=True)
class Retrying(Event):
    """A peer that we dial is away; the next attempt is in `delay` seconds."""

    delay: float = 0.0
    phase: str = ""
    """What failed: ``"resolving"``, ``"connecting"``, ``"TLS"``, ``"HELLO"`` or ``"authorizing"``; empty where a
    connection has ended that was open."""


class DuplicatePeer(Event):
    """A second connection under the identity of a peer that is connected: `reason` says which was closed."""


class Full(Event):
    """A send queue has reached its high-water mark."""


@dataclass(frozen=True)
class Dropped(Event):
    """Messages were dropped, as the settings demand: `reason` says which of them."""

    count: int = 1


@dataclass(frozen=True)
class Undelivered(Event):
    """An at-least-once message was given up on."""

    message_id: bytes = b""


class AcceptError(Event):
    """A connection could not be accepted; out of descriptors, accepting pauses and resumes."""


def strip(error: BaseException) -> None:
    """Take from an error, and from its causes, what keeps alive more than can be read: tracebacks, with the frames and
    the buffers and peers that those worked on."""
    seen: set[int] = set()
    errors: list[BaseException | None] = [error]
    while errors:
        found = errors.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        found.__traceback__ = None
        errors += (found.__cause__, found.__context__)
        if isinstance(found, ConnectFailedError):
            errors += (attempt for _, attempt in found.attempts)
        if isinstance(found, BaseExceptionGroup):
            errors += found.exceptions
        if isinstance(found, AttributeError):
            found.obj = None


class EventQueue:
    """The newest events, oldest first. Adding never blocks: where nobody reads, the oldest are forgotten. Each is also
    handed to ``tell``, which must not block either."""

    def __init__(self, tell: Callable[[Event], None] = lambda event: None) -> None:
        self._tell = tell
        self._events: deque[Event] = deque(maxlen=QUEUE_SIZE)
        self._waiters = Waiters()
        self._closed = False

    def add(self, event: Event) -> None:
        if event.error is not None:
            strip(event.error)
        self._tell(event)
        self._events.append(event)
        if self._waiters.waiting:
            self._waiters.notify()

    def close(self) -> None:
        self._closed = True
        self._waiters.notify_all()

    def iterate(self, timeout: float | None, check: Callable[[], None]) -> Iterator[Event]:
        """Take one after the other; ``check`` may raise before each."""
        return _EventIterator(self, timeout, check)

    def take(self, timeout: float | None) -> Event | None:
        """The next event; ``None`` once closed and empty. Raises ``TimeoutError``."""
        deadline = Deadline(timeout)
        events = self._events
        while True:
            try:
                event: Event = take_first(events)
                return event
            except IndexError:
                pass
            if self._closed:
                return None
            if not self._waiters.wait(lambda: events or self._closed, deadline):
                raise TimeoutError("no event in time")


class _EventIterator(Iterator[Event]):
    """An iterator that goes on after it raised ``TimeoutError``, which a generator cannot."""

    def __init__(self, queue: EventQueue, timeout: float | None, check: Callable[[], None]) -> None:
        self._queue = queue
        self._timeout = timeout
        self._check = check

    def __next__(self) -> Event:
        self._check()
        event = self._queue.take(self._timeout)
        if event is None:
            exiting.stay_blocked()
            raise StopIteration
        return event
