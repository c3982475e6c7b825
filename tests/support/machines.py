"""What a reactor that is driven by hand stands on: no thread, no descriptor, and no time but that of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from netmsg.deadline import Deadline
from netmsg.reactor.machine import Machine
from netmsg.reactor.polling import READ, HasFileno, Poller
from netmsg.sockets.addresses import Address

__all__ = ["Clock", "HandMachine", "HandPoller", "HandThread"]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class HandPoller(Poller):
    """Nothing is ready but what `happens`, and time goes on only while it waits."""

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


class HandThread:
    """One that was started, and runs when the test calls `run`."""

    def __init__(self, run: Callable[[], None], name: str) -> None:
        self.run = run
        self.name = name
        self.joined = False

    def join(self, timeout: float | None = None) -> None:
        self.joined = True


class HandMachine(Machine):
    """One on which nothing happens but what the test says."""

    def __init__(self, clock: Callable[[], float], poller: Poller | None = None) -> None:
        self.clock = self.stopwatch = clock
        self.luck = 1.0  # of all delays the longest
        self.chance = lambda: self.luck
        if poller is not None:
            self.new_poller = lambda: poller
        self.unknown: OSError | None = None
        """What is wrong with the names that are to be resolved, which are their own addresses otherwise."""
        self.lookups: list[tuple[str, int, Callable[[list[Address] | OSError], None]]] = []
        """Names that are to be resolved meanwhile, and who is to be told."""
        self.listeners: list[Any] = []
        """What comes of listening."""
        self.speaking: set[int] = set()
        """Descriptors of which something is to be read."""
        self.missing = 0
        """How many bytes other ends do not have yet."""
        self.threads: list[HandThread] = []

    def resolve(self, deadline: Deadline, host: str, port: int) -> list[Any]:
        if self.unknown is not None:
            raise self.unknown
        return [host]

    def resolve_in_background(self, host: str, port: int, done: Callable[[list[Address] | OSError], None]) -> None:
        self.lookups.append((host, port, done))

    def listen_tcp(self, addresses: list[Address], port: int, backlog: int) -> list[Any]:
        return self.listeners

    def listen_unix(self, path: str, backlog: int) -> Any:
        listener, = self.listeners
        return listener

    def new_socket(self, family: int) -> Any:
        raise AssertionError("there is no network")

    def readable(self, descriptors: Iterable[int]) -> set[int]:
        return self.speaking.intersection(descriptors)

    # What the system knows of scripted sockets, they tell themselves.

    def hung_up(self, sock: Any) -> bool:
        return bool(sock.hung_up)

    def acknowledged_within(self, sock: Any, seconds: float) -> bool:
        return bool(sock.acknowledging)

    def all_acknowledged(self, sock: Any) -> bool:
        return not self.missing

    def unacknowledged(self, sock: Any) -> int:
        return self.missing

    def start_thread(self, run: Callable[[], None], name: str) -> HandThread:
        self.threads.append(HandThread(run, name))
        return self.threads[-1]
