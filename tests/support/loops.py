"""A reactor that is driven by hand: no thread, no descriptor, and a clock that goes on only while it waits."""

from __future__ import annotations

from typing import Any

from netmsg.reactor.polling import READ, HasFileno, Poller
from netmsg.reactor.reactor import Reactor


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
