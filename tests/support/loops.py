"""A reactor that is driven by hand: no thread, no descriptor, and a clock that goes on only while it waits. And what
stands in place of one, for the tests of a part that only asks for calls and timers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netmsg.reactor.polling import READ, HasFileno, Poller
from netmsg.reactor.reactor import Reactor, Timer


class HandPoller(Poller):
    """Nothing is ready but what `happens`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.watched: dict[Any, tuple[Any, int]] = {}
        self.happened: list[tuple[Any, int]] = []
        self.timeouts: list[float | None] = []
        """What each `poll` was to wait at most."""
        self.woken = 0
        self.closed = False

    def watch(self, sock: HasFileno, events: int, what: Any) -> None:
        if events:
            self.watched[sock] = what, events
        else:
            self.watched.pop(sock, None)

    def happens(self, sock: HasFileno, events: int) -> None:
        """The next `poll` tells of it, if it is watched for."""
        self.happened.append((sock, events))

    def poll(self, timeout: float | None) -> list[tuple[Any, int]]:
        self.timeouts.append(timeout)
        ready: list[tuple[Any, int]] = [(None, READ)] if self.woken else []
        for sock, events in self.happened:
            what, wanted = self.watched.get(sock, (None, 0))
            if events & wanted:
                ready.append((what, events & wanted))
        self.happened.clear()
        if not ready and timeout is not None:
            self.clock.now += timeout
        return ready

    def wake(self) -> None:
        self.woken += 1

    def forget_wake_ups(self) -> None:
        self.woken = 0

    def close(self) -> None:
        self.closed = True


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def by_hand() -> tuple[Reactor, HandPoller, Clock]:
    """A reactor for `Reactor.round`, with what it stands on."""
    clock = Clock()
    poller = HandPoller(clock)
    io = Reactor(lambda: poller, clock)
    io.open()
    return io, poller, clock


class Descriptor:
    """Something to be watched."""

    def fileno(self) -> int:
        return 7


class Loop:
    """In place of a reactor: it does what it is asked to when it is told to, and its time goes on when it is told to.
    Its `monotonic` can stand in place of that of the module ``time``."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.calls: list[Callable[[], None]] = []
        self.timers: list[Timer] = []
        """The next one first."""
        self.work: set[Any] = set()
        self.notices: list[Callable[[], None]] = []

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        self.calls.append(lambda: function(*arguments))

    def call_later(self, delay: float, function: Callable[..., None], *arguments: Any) -> Timer:
        timer = Timer(self.now + delay, function, arguments, [0])
        self.timers.append(timer)
        self.timers.sort(key=lambda timer: timer.at)
        return timer

    def scope(self, on_crash: Callable[[Exception], None]) -> LoopScope:
        return LoopScope(self, on_crash)

    def monotonic(self) -> float:
        return self.now

    def run(self) -> None:
        """Do what was asked for, and what is asked for meanwhile."""
        while self.calls:
            self.calls.pop(0)()

    def run_timer(self) -> None:
        """Let time go on until the next timer."""
        timer = self.timers.pop(0)
        self.now = max(self.now, timer.at)
        function, timer.function = timer.function, None
        if function is not None:
            function(*timer.arguments)
        self.run()

    def wait(self, seconds: float) -> None:
        """Let time go on."""
        until = self.now + seconds
        while self.timers and self.timers[0].at <= until:
            self.run_timer()
        self.now = until


class LoopScope:
    """In place of a `Scope` of one."""

    def __init__(self, loop: Loop, on_crash: Callable[[Exception], None]) -> None:
        self._loop = loop
        self._on_crash = on_crash

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        self._loop.call(self._try, function, *arguments)

    def call_later(self, delay: float, function: Callable[..., None], *arguments: Any) -> Timer:
        return self._loop.call_later(delay, self._try, function, *arguments)

    def _try(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception as error:
            self._on_crash(error)
