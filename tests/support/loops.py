"""A reactor that is driven by hand: no thread, no descriptor, and a clock that goes on only while it waits. And what
stands in place of one, for the tests of a part that only asks for calls and timers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netmsg.reactor.reactor import Reactor, Timer

from .machines import Clock, HandMachine, HandPoller


def by_hand() -> tuple[Reactor, HandPoller, Clock]:
    """A reactor for `Reactor.round`, with what it stands on."""
    clock = Clock()
    poller = HandPoller(clock)
    io = Reactor(HandMachine(clock, poller))
    io.open()
    return io, poller, clock


class Descriptor:
    """Something to be watched."""

    def fileno(self) -> int:
        return 7


class Loop:
    """In place of a reactor: it does what it is asked to, and its time goes on, when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.clock = lambda: self.now
        self.machine = HandMachine(self.clock)
        self.calls: list[Callable[[], None]] = []
        self.timers: list[Timer] = []
        """The next one first."""
        self.work: dict[Any, None] = {}
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
