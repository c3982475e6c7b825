"""What the network thread has to do, and whom each part of it belongs to."""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from .machine import Machine
from .polling import HasFileno, Poller

__all__ = ["Agenda", "Scope", "Timer", "Watcher", "Worker", "crash_of"]

MOST_CANCELLED: Final = 1000
"""Timers that were cancelled and are kept until their time comes, if they are not more than the others."""

Call = tuple[Callable[..., None], tuple[Any, ...], "Scope"]


class Watcher(Protocol):
    """What a descriptor's readiness is told to."""

    def _on_event(self, events: int) -> None:
        """Called with READ, WRITE or both."""


class Worker(Protocol):
    """What may be put into `Agenda.work`."""

    def bursting(self) -> bool:
        """Whether its producer has been writing by itself since the last look: if so, look again in a moment."""

    def on_work(self) -> None:
        """Do what there is to do."""

    def _crashed(self, error: Exception) -> None:
        """One of these two raised: close what this stands for."""


class Timer:
    """One call at one time, until cancelled."""

    __slots__ = ("at", "function", "arguments", "scope", "_cancelled")

    def __init__(self, at: float, function: Callable[..., None], arguments: tuple[Any, ...], cancelled: list[int],
                 scope: Scope | None = None) -> None:
        self.at = at
        self._cancelled = cancelled
        self.function: Callable[..., None] | None = function
        self.arguments = arguments
        self.scope = scope

    def cancel(self) -> None:
        if self.function is not None:
            self.is_over()
            self._cancelled[0] += 1

    def is_over(self) -> None:
        """Let go of what it is of."""
        self.function = None
        self.arguments = ()
        self.scope = None


class Scope:
    """What one thing (a connection, an endpoint, a server) has on the network thread. An exception in any call, timer
    or watcher that was asked for here, whatever callable it is, is logged and handed to ``on_crash``, on the loop,
    which closes that one thing. See `netmsg.reactor.reactor` for which thread may call what.
    """

    def __init__(self, loop: Agenda, on_crash: Callable[[Exception], None] | None) -> None:
        self.loop = loop
        self.on_crash = on_crash

    def scope(self, on_crash: Callable[[Exception], None]) -> Scope:
        """One for something else on the same thread."""
        return Scope(self.loop, on_crash)

    # From any thread

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have the loop call ``function(*arguments)`` soon. Takes no lock: safe in a signal handler."""
        loop = self.loop
        loop.calls.append((function, arguments, self))
        if loop.polling:
            loop.send_wake_up()

    # On the loop

    def watch(self, sock: HasFileno, events: int, watcher: Watcher) -> None:
        """Tell ``watcher`` of these events of ``sock`` from now on; 0 for none."""
        self.loop.poller.watch(sock, events, (watcher, self))

    def call_later(self, delay: float, function: Callable[..., None], *arguments: Any) -> Timer:
        """Call ``function(*arguments)`` in so many seconds, unless the timer is cancelled."""
        loop = self.loop
        timer = Timer(loop.clock() + delay, function, arguments, loop.cancelled, self)
        timers = loop.timers
        if timer.at < math.inf:
            heapq.heappush(timers, (timer.at, next(loop.timer_numbers), timer))
        if loop.cancelled[0] > max(MOST_CANCELLED, len(timers) // 2):
            timers[:] = [entry for entry in timers if entry[2].function is not None]
            heapq.heapify(timers)
            loop.cancelled[0] = 0
        return timer

    def afterwards(self, function: Callable[[], None]) -> None:
        """Call ``function`` when all events of this round have been told."""
        self.loop.last_calls.append((function, self))

    def close_afterwards(self, close: Callable[[], None]) -> None:
        """Call ``close`` once this round's events are dealt with, so that none of them meets a reused descriptor."""
        self.loop.to_close.append((close, self))


class Agenda(Scope):
    """All that there is to do, for whomever; and the scope of what belongs to nobody in particular."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(self, None)
        self.machine = machine
        self.clock = machine.clock
        self.now = machine.clock()
        """When the current round began."""
        self.handshake_steps = 0
        """How many steps of TLS handshakes may still be taken in this round."""
        self.asleep = False
        """Whether the loop has looked at `work`, and waits."""
        self.work: dict[Worker, None] = {}
        """In the order in which they came. Looked at and added to by any thread, without a call; taken from on the
        loop."""
        self.notices: list[Callable[[], None]] = []
        self.before_sleep: Callable[[Callable[[], None]], None] = self.notices.append
        """For wake-ups of waiting threads, kept until this thread is about to sleep: woken any earlier they would only
        wait for the interpreter lock, and be woken a second time. On the loop."""
        self.polling = False
        """Whether the loop has looked at `calls`, and may wait."""
        self.calls: deque[Call] = deque()
        self.last_calls: deque[tuple[Callable[[], None], Scope]] = deque()
        self.to_close: list[tuple[Callable[[], None], Scope]] = []
        self.timers: list[tuple[float, int, Timer]] = []
        self.timer_numbers = itertools.count()
        self.cancelled = [0]  # how many of them are
        self.poller: Poller
        self.send_wake_up: Callable[[], None]


def crash_of(step: Any) -> Callable[[Exception], None] | None:
    """Who is to be told of an exception in ``step``, a callable, watcher or worker that was not asked for in a scope of
    its own: its ``_crashed``, or that of the object whose method it is, if there is one."""
    while isinstance(step, functools.partial):
        step = step.func
    crashed: Callable[[Exception], None] | None = getattr(getattr(step, "__self__", step), "_crashed", None)
    return crashed
