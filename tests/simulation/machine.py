"""A machine for the library, on which no time goes by and no thread runs: see `netmsg.reactor.machine`.

The network thread is the real `Reactor`, whose rounds are called when something has happened on its host. Between
`Reactor.settle` and `Reactor.go_on` it waits, and others do what they do.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Any, Final, cast

from netmsg.deadline import Deadline
from netmsg.errors import ClosedError
from netmsg.reactor.callbacks import Callbacks, Done
from netmsg.reactor.io_thread import IOThread
from netmsg.reactor.machine import Machine
from netmsg.reactor.polling import READ, HasFileno, Poller
from netmsg.reactor.reactor import Reactor
from netmsg.sockets.addresses import Address

from .disk import SimulatedCommitter, SimulatedMemory, SimulatedOutbox
from .network import HANG_UP, Connected, Host, Listening
from .timeline import Timeline

__all__ = ["SimulatedMachine"]

ROUND: Final = 0.00002
"""Seconds that a round takes, so that a loop without an end does not stop time."""
NEVER: Final = 1e9


class SimulatedPoller(Poller):
    """Looks at the descriptors of a host."""

    def __init__(self, host: Host, chance: random.Random) -> None:
        self._host = host
        self._chance = chance
        self._by_number: dict[int, tuple[Any, Any, int]] = {}
        self.woken = False
        self.closed = False

    def watch(self, sock: HasFileno, events: int, what: Any) -> None:
        number = sock.fileno()
        if number < 0:
            number = next((number for number, (watched, _, _) in self._by_number.items() if watched is sock), number)
            if events and not self.closed:
                raise AssertionError("a closed socket is to be watched")
        if not events or self.closed:
            self._by_number.pop(number, None)
        elif number in self._by_number and self._by_number[number][0] is not sock:
            raise FileNotFoundError(errno.ENOENT, "it was closed while it was watched, and a stranger has its number")
        else:
            self._by_number[number] = sock, what, events

    def poll(self, timeout: float | None) -> list[tuple[Any, int]]:
        ready = [(None, READ)] if self.woken else []
        for sock, what, wanted in self._by_number.values():
            if wanted == READ and not sock.may_be_read:
                continue  # most of them, all the time
            happened = 0 if sock.closed else sock.ready
            if happened & (wanted | HANG_UP):
                ready.append((what, wanted if happened & HANG_UP else wanted & happened))
        if len(ready) > 1:
            self._chance.shuffle(ready)
        return ready

    @property
    def is_ready(self) -> bool:
        """Whether `poll` has something to tell."""
        if self.woken:
            return True
        for sock, _, wanted in self._by_number.values():
            if (wanted != READ or sock.may_be_read) and not sock.closed and sock.ready & (wanted | HANG_UP):
                return True
        return False

    def wake(self) -> None:
        if not self.woken:
            self.woken = True
            self._host.poke()

    def forget_wake_ups(self) -> None:
        self.woken = False

    def close(self) -> None:
        self.closed = True

    @property
    def watched(self) -> int:
        """How many descriptors are."""
        return len(self._by_number)


class SimulatedMachine(Machine):
    """One program's view of its host."""

    def __init__(self, timeline: Timeline, host: Host, seed: str) -> None:
        self.host = host
        self.rounds = 0
        """Of the network thread, so far."""
        self.answers: Callable[[str], float] = lambda name: 0.0
        """How many seconds the user's function of that name takes."""
        self.after_round: Callable[[], None] = lambda: None
        self.dead = False
        """Whether the program has ended in an instant, and nothing that it does has any effect."""
        self._timeline = timeline
        self._dice = random.Random(f"{seed}/machine")
        self._due = NEVER
        self.stopped = False
        self.running = False
        self.clock = self.stopwatch = lambda: timeline.now
        self.chance = self._dice.random
        self.token = self._dice.randbytes
        self.poller = SimulatedPoller(host, self._dice)
        self.new_poller = lambda: self.poller
        self.reactor = Reactor(self)
        self.io_thread = IOThread._of(self.reactor)

    def after(self, delay: float, action: Callable[[], None]) -> None:
        """In so many seconds, if the program is still there."""
        self._timeline.after(delay, lambda: None if self.dead else action())

    # The network thread

    def start_thread(self, run: Callable[[], None], name: str) -> SimulatedMachine:
        self.running = True
        self.host.poke = self.poke
        self._timeline.after(0.0, self._settle)
        return self

    def join(self, timeout: float | None = None) -> None:
        """Nobody waits here."""

    def poke(self) -> None:
        """Something has happened, perhaps, that the network thread waits for."""
        if self.running and not self.stopped and self._due > self._timeline.now and self.poller.is_ready:
            self._schedule(self._timeline.now + self._dice.random() * 0.00003)

    def _schedule(self, when: float) -> None:
        if when < self._due:
            self._due = when
            self._timeline.at(when, lambda: self._step(when))

    def _step(self, when: float) -> None:
        if when != self._due or self.stopped or not self.running:
            return  # another one came first
        self._due = NEVER
        self.rounds += 1
        reactor = self.reactor
        reactor.ident = get_ident()
        try:
            reactor.go_on(self.poller.poll(0.0))
            self._settle()
        finally:
            reactor.ident = None
        self.after_round()

    def _settle(self) -> None:
        if self.stopped:
            return
        reactor = self.reactor
        if reactor.is_over:
            reactor.end()
            self.running = False
            return
        timeout = reactor.settle()
        if self.poller.is_ready:
            timeout = 0.0
        if timeout is not None:
            self._schedule(self._timeline.now + max(timeout, ROUND))

    def end(self) -> None:
        """The program ends in an instant: what it does from here on has no effect."""
        self.dead = True
        self.poller.closed = True
        self.stop()

    def stop(self) -> None:
        """The program does not run: the machine sleeps, or is busy with others."""
        self.stopped = True
        self._due = NEVER

    def go_on(self) -> None:
        self.stopped = False
        if self.running:
            self._schedule(self._timeline.now)

    # Names and sockets

    def resolve(self, deadline: Deadline, host: str, port: int) -> list[Address]:
        return [(socket.AF_INET, (self.host.address, port))]

    def resolve_in_background(self, host: str, port: int, done: Callable[[list[Address] | OSError], None]) -> None:
        if self.host.network.host_at(host) is not None:
            done([(socket.AF_INET, (host, port))])
            return
        network = self.host.network
        if host in network.dumb:
            return
        found = network.names.get(host)
        if found is None:
            answer: list[Address] | OSError = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        else:
            answer = [(family, (address[0], port)) for family, address in found]
        self.after(network.delays.get(host, 0.0) + self._dice.random() * 0.01, lambda: done(answer))

    def listen_tcp(self, addresses: list[Address], port: int, backlog: int) -> list[socket.socket]:
        return [as_socket(self.host.listen(family, tuple(address[:2]), backlog)) for family, address in addresses]

    def listen_unix(self, path: str, backlog: int) -> socket.socket:
        return as_socket(self.host.listen(socket.AF_UNIX, path, backlog))

    def new_socket(self, family: int) -> socket.socket:
        return as_socket(Connected(self.host, family))

    def readable(self, descriptors: Iterable[int]) -> set[int]:
        known = self.host.descriptors
        return {number for number in descriptors if number in known and known[number].ready & (READ | HANG_UP)}

    def hung_up(self, sock: socket.socket) -> bool:
        return cast(Connected, sock).hung_up

    def acknowledged_within(self, sock: socket.socket, seconds: float) -> bool:
        return cast(Connected, sock).acknowledged_within(seconds)

    def all_acknowledged(self, sock: socket.socket) -> bool:
        return not self.unacknowledged(sock)

    def unacknowledged(self, sock: socket.socket) -> int:
        return cast(Connected, sock).unacknowledged

    # Files

    def open_outbox(self, path: Any, identity: bytes | None, *, wait_for_disk: bool) -> Any:
        return SimulatedOutbox(self.host.disk, path, self, identity, syncs=wait_for_disk)

    def open_memory(self, path: Any, remember: int) -> Any:
        return SimulatedMemory(self.host.disk, path, self, remember)

    def committer(self, file: Any) -> Any:
        return SimulatedCommitter(file, self, self._dice.random)

    # Functions of the user's

    def callbacks(self, name: str, complain: Callable[[str, BaseException], None]) -> Callbacks:
        return SimulatedCallbacks(self, name, complain)


class SimulatedCallbacks(Callbacks):
    """A function of the user's takes its time, and gives its answer. No thread is ever started."""

    def __init__(self, machine: SimulatedMachine, name: str, complain: Callable[[str, BaseException], None]) -> None:
        super().__init__(name, complain)
        self._machine = machine
        self._whose = name
        self._tell = complain
        self._over = False

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...], done: Done) -> None:
        self._machine.after(self._machine.answers(self._whose), lambda: self._answer(function, arguments, done))

    def _answer(self, function: Callable[..., Any], arguments: tuple[Any, ...], done: Done) -> None:
        if self._over:
            done(None, ClosedError("the Søcket is closed"))
            return
        try:
            result = function(*arguments)
        except Exception as error:
            self._tell(self._whose, error)
            done(None, error)
        else:
            done(result, None)

    def close(self) -> None:
        self._over = True


def as_socket(sock: Connected | Listening) -> socket.socket:
    """For the library, which knows no other."""
    return cast(socket.socket, sock)
