"""One world: a plan happens, is watched, and comes to rest."""

from __future__ import annotations

import logging
import random
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Final

from netmsg import speaking

from . import fine_print, lasting_promises, promises, talk_promises
from .elder import Elder
from .intruder import Intruder
from .journal import Journal
from .network import Conditions, Host, Network
from .plan import NAMES, Ask, Close, Fault, Plan, Send, Taking
from .program import PORTS, Contexts, Program, User
from .promises import BrokenPromise
from .timeline import Timeline

__all__ = ["World", "run"]

LOOK_EVERY: Final = 0.25
SETTLED_WITHIN: Final = 400.0
"""Seconds of quiet after which everybody is connected and everything has arrived, where the network can carry that."""
CROWD: Final = 270
SETTLED_FOR: Final = 0.37
IDLE_FOR: Final = 30.0
KEPT_FOR: Final = 10.0
"""In the last seconds of that nobody connects any more: whoever is silent has been found out."""
MARGIN: Final = 3.0


class World:
    """Where the programs of one `Plan` live. ``story``: whether to note what happens, as text."""

    def __init__(self, plan: Plan, contexts: Callable[[], Contexts], *, story: bool = False) -> None:
        self.plan = plan
        self.timeline = Timeline()
        self.journal = Journal()
        self.story: list[str] | None = [] if story else None
        self.network = Network(self.timeline, str(plan.seed), self.tell)
        self.network.conditions = self._conditions
        self.programs: dict[str, Program] = {}
        """By host, those that run."""
        self._lives: Counter[str] = Counter()
        """How many each host has begun: of two faults that overlap each begins one."""
        self.past: list[Program] = []
        """Those that have ended in an instant."""
        self.errors: list[str] = []
        """What the library has logged as an error."""
        self.faults: list[Fault] = []
        """Those that came to pass."""
        self.intruders: list[Intruder] = []
        self.elders: list[Elder] = []
        self.at_rest = False
        self.burying = False
        """Whether a program is let go of that has died."""
        self._next_look = 0.0
        self._was_settled = False
        self.rounds_seen: dict[Program, int] = {}
        """At the last look."""
        self.broken: list[BrokenPromise] = []
        """Promises that did not hold, the first one first."""
        self._contexts = contexts
        self._dice = random.Random(f"{plan.seed}/world")
        for name in plan.hosts():
            self.network.add_host(name)
        for one in self.network.hosts.values():
            for other in self.network.hosts.values():
                link = self.network.link(one, other)
                link.latency, link.jitter = plan.latency, plan.jitter
        for number, host in enumerate(self.network.hosts.values()):
            host.walled = plan.walled
            if plan.detour:
                nowhere = (socket.AF_INET, (f"10.0.1.{number}", 0))
                self.network.names[f"{host.name}.test"] = [nowhere, (socket.AF_INET, (host.address, 0))]
        self.mallory = self.network.add_host("mallory")

    def _conditions(self, one: Host, other: Host) -> Conditions:
        plan = self.plan
        return Conditions(plan.send_buffer, plan.receive_buffer, plan.piece, plan.whole,
                          gives_up_after=plan.gives_up_after)

    # The story

    def tell(self, who: str, text: str, *arguments: object) -> None:
        if self.story is not None:
            self.story.append(f"{self.timeline.now:11.6f}  {who:<8} {text % arguments}")

    @property
    def users(self) -> list[User]:
        """Of the programs that run."""
        return [user for program in self.programs.values() for user in program.users]

    def user(self, name: str) -> User:
        return next(user for user in self.users if user.name == name)

    def home_of(self, name: str) -> Host:
        return self.network.hosts[self.plan.tenant(name).host]

    # What happens

    def begin(self) -> None:
        for name in self.plan.hosts():
            self._begin(name)
        for send in self.plan.sends:
            self.timeline.at(send.at, partial(self._send, send))
        for ask in self.plan.asks:
            self.timeline.at(ask.at, partial(self._ask, ask))
        for fault in self.plan.faults:
            self.timeline.at(fault.at, partial(self._happens, fault))
        for close in self.plan.closes:
            self.timeline.at(close.at, partial(self._close, close))
        self._watch()

    def _begin(self, host: str) -> None:
        life = self._lives[host]
        self._lives[host] += 1
        self.tell(host, "begins life %d", life)
        tenants = [tenant for tenant in self.plan.tenants if tenant.host == host]
        self.programs[host] = Program(self.network.hosts[host], tenants, life, self.timeline, str(self.plan.seed),
                                      self.journal, self.tell, self.home_of, self._contexts)

    def _send(self, send: Send) -> None:
        for user in self.users:
            if user.name == send.who and user.closing_since is None and not user.program.machine.stopped:
                for _ in range(send.count):
                    user.send(send.size, send.to)

    def _ask(self, ask: Ask) -> None:
        for user in self.users:
            if user.name == ask.who and user.closing_since is None and not user.program.machine.stopped:
                for _ in range(ask.count):
                    user.ask(ask.patience, ask.to)

    def _close(self, close: Close) -> None:
        for user in self.users:
            if user.name == close.who:
                user.close(close.linger)

    def _happens(self, fault: Fault) -> None:
        self.tell("fate", "%s", fault)
        self.faults.append(fault)
        over = getattr(self, f"_{fault.kind}")(fault)
        if over is not None:
            def end() -> None:
                self.tell("fate", "it is over: %s", fault)
                over()

            self.timeline.at(fault.until, end)

    def _cut(self, fault: Fault) -> Callable[[], None]:
        one, other = self.network.hosts[fault.host], self.network.hosts[fault.other]
        links = self.network.link(one, other), self.network.link(other, one)
        for link in links:
            link.block()

        def heal() -> None:
            for link in links:
                link.unblock(fault.until - fault.at)

        return heal

    def _mute(self, fault: Fault) -> Callable[[], None]:
        link = self.network.link(self.network.hosts[fault.host], self.network.hosts[fault.other])
        link.block()
        return lambda: link.unblock(fault.until - fault.at)

    def _slow(self, fault: Fault) -> Callable[[], None]:
        link = self.network.link(self.network.hosts[fault.host], self.network.hosts[fault.other])
        link.latency += fault.amount

        def heal() -> None:
            link.latency -= fault.amount

        return heal

    def _reset(self, fault: Fault) -> None:
        hosts = {self.network.hosts[fault.host], self.network.hosts[fault.other]}
        for one, other in self.network.connections:
            if {one.host, other.host} == hosts:
                one.reset()

    def _kill(self, fault: Fault) -> Callable[[], None] | None:
        return self._end_program(fault, lambda host: host.kill())

    def _power(self, fault: Fault) -> Callable[[], None] | None:
        return self._end_program(fault, lambda host: host.power_off())

    def _end_program(self, fault: Fault, end: Callable[[Host], None]) -> Callable[[], None] | None:
        """At once, or in the midst of what it does: at one of its next system calls, which are all that others see of
        it."""
        program = self.programs.get(fault.host)
        if program is None:
            return None
        host = self.network.hosts[fault.host]

        def die() -> None:
            if self.programs.get(fault.host) is program:
                self.tell(fault.host, "dies")
                del self.programs[fault.host]
                self.past.append(program)
                host.poor = False  # a program has its descriptors, and the next one its own
                program.machine.end()
                host.poke = lambda: None
                end(host)
                self.timeline.after(0.0, lambda: self._bury(program))

        if self._dice.random() < 0.5:
            host.dies = die
            host.dies_after = self._dice.randint(1, 20)
        else:
            die()

        def begin_anew() -> None:
            die()  # at the latest
            host.power_on()
            if fault.host not in self.programs:
                self._begin(fault.host)

        return begin_anew

    def _bury(self, program: Program) -> None:
        """What the library does from here on has no effect, and whether it goes well does not matter."""
        self.burying = True
        try:
            program.end()
        finally:
            self.burying = False

    def _full(self, fault: Fault) -> Callable[[], None]:
        disk = self.network.hosts[fault.host].disk
        disk.full = True

        def heal() -> None:
            disk.full = False

        return heal

    def _stop(self, fault: Fault) -> Callable[[], None] | None:
        program = self.programs.get(fault.host)
        if program is None or program.machine.stopped:
            return None
        program.machine.stop()
        return program.machine.go_on

    def _unknown(self, fault: Fault) -> Callable[[], None] | None:
        known = self.network.names.pop(f"{fault.host}.test", None)
        if known is None:
            return None

        def heal() -> None:
            self.network.names[f"{fault.host}.test"] = known

        return heal

    def _dumb(self, fault: Fault) -> Callable[[], None]:
        name = f"{fault.host}.test"
        self.network.dumb.add(name)
        return lambda: self.network.dumb.discard(name)

    def _late(self, fault: Fault) -> Callable[[], None]:
        name = f"{fault.host}.test"
        self.network.delays[name] = fault.amount

        def heal() -> None:
            self.network.delays.pop(name, None)

        return heal

    def _unwelcome(self, fault: Fault) -> Callable[[], None] | None:
        program = self.programs.get(fault.host)
        if program is None:
            return None
        whom = {tenant.name for tenant in self.plan.tenants if tenant.host == fault.other}
        for user in program.users:
            user.unwelcome |= whom

        def heal() -> None:
            for user in program.users:
                user.unwelcome -= whom

        return heal

    def _poor(self, fault: Fault) -> Callable[[], None] | None:
        if fault.host not in self.programs:
            return None
        host = self.network.hosts[fault.host]
        host.poor = True

        def heal() -> None:
            host.poor = False

        return heal

    def _crowd(self, fault: Fault) -> Callable[[], None] | None:
        crowd = [intruder for intruder, _ in (self._stranger(fault) for _ in range(CROWD)) if intruder is not None]

        def disperse() -> None:
            """All of it: where one is let in at a time, those who stay might be there for hours."""
            for intruder in crowd:
                intruder.leave()

        return disperse

    def _intruder(self, fault: Fault) -> Callable[[], None] | None:
        intruder, leaves = self._stranger(fault)
        return intruder.leave if intruder is not None and leaves else None

    def _stranger(self, fault: Fault) -> tuple[Intruder | None, bool]:
        """And whether he leaves when it is over."""
        places = [address for (family, address) in self.network.hosts[fault.host].listeners
                  if family == socket.AF_INET]
        if not places:
            return None, True
        intruder = Intruder(self.mallory, places[0], random.Random(f"{self.plan.seed}/{fault.amount}"),
                            [tenant.name for tenant in self.plan.tenants], self.tell)
        self.intruders.append(intruder)
        return intruder, self._dice.random() < 0.7

    def _elder(self, fault: Fault) -> Callable[[], None] | None:
        place = next((address for (family, address) in self.network.hosts[fault.host].listeners
                      if family == socket.AF_INET), None)
        if place is None:
            return None
        whom = NAMES[place[1] - PORTS["tcp"]] if place[1] - PORTS["tcp"] in range(len(NAMES)) else ""
        elder = Elder(self.mallory, place, whom, random.Random(
            f"{self.plan.seed}/{fault.amount}"), self.journal, self.tell)
        self.elders.append(elder)
        return elder.leave

    def _watch(self) -> None:
        """What has to hold all along."""
        if self.at_rest:
            return
        self.check(promises.marks_hold, promises.nobody_spins, *fine_print.ALL_ALONG)
        if self.broken:
            self.timeline.stop()  # somebody may spin, or hoard
        else:
            self.timeline.after(LOOK_EVERY, self._watch)

    def check(self, *checks: Callable[[World], None]) -> None:
        for check in checks:
            try:
                check(self)
            except BrokenPromise as broken:
                self.broken.append(broken)
                self.tell("fate", "%s", broken)

    # From the beginning to the end

    def run(self) -> None:
        self.begin()
        self.timeline.run(self.plan.quiet_at)
        self.be_quiet()
        settled = self.timeline.run(self.timeline.now + SETTLED_WITHIN + self._carrying(), self._is_settled)
        if self.broken:
            return  # and time has been stopped
        if settled:
            self.tell("fate", "all is settled")
        else:
            self.check(promises.nothing_is_under_way)
        self.at_rest = True
        self.check(*promises.AT_REST, *talk_promises.AT_REST, *lasting_promises.AT_REST)
        self.idle()
        self.check(*promises.AT_REST, *fine_print.AT_REST, fine_print.nobody_is_at_the_door)
        self.close_all()
        self.check(*promises.AT_THE_END, *lasting_promises.AT_THE_END, *fine_print.AFTER_CLOSING)

    def be_quiet(self) -> None:
        self.tell("fate", "be quiet")
        for user in self.users:
            user.taking = Taking(by_delivery=user.taking.by_delivery)

    def _carrying(self) -> float:
        """Seconds that it takes a single connection to carry all that is sent, a buffer in a round trip."""
        plan = self.plan
        size = sum(send.size * send.count for send in plan.sends)
        return 2 * (plan.latency + plan.jitter) * size / min(plan.send_buffer, plan.receive_buffer)

    def _is_settled(self) -> bool:
        """Whether it has been for a while: there may be something between two places."""
        now = self.timeline.now
        if now < self._next_look:
            return False
        self._next_look = now + SETTLED_FOR
        before, self._was_settled = self._was_settled, promises.is_settled(self)
        return before and self._was_settled

    def idle(self) -> None:
        """For a while nothing happens, which is to cost nothing."""
        before = self.rounds()
        self.timeline.run(self.timeline.now + IDLE_FOR - KEPT_FOR)
        connections = self.network.connected[socket.AF_INET]
        self.timeline.run(self.timeline.now + KEPT_FOR)
        spent = {program: rounds - before[program] for program, rounds in self.rounds().items()}
        self.check(lambda world: promises.idling_costs_nothing(world, spent, IDLE_FOR),
                   lambda world: promises.nobody_changes_places(
                       world, self.network.connected[socket.AF_INET] - connections, KEPT_FOR))

    def rounds(self) -> dict[Program, int]:
        """How many each network thread has gone, but for those that may be due to what has come."""
        return {program: program.machine.rounds - program.host.pieces for program in self.programs.values()}

    def counts(self) -> Counter[str]:
        """What there was in this world, for the sum of all."""
        found = Counter({
            "seconds": round(self.timeline.now), "Søckets": len(self.plan.tenants),
            "connections": self.network.connected.total(),
            "messages sent": sum(not sent.refused for sent in self.journal.sent.values()),
            "messages delivered": sum(len(sent.deliveries) for sent in self.journal.sent.values()),
            "requests": len(self.journal.asked),
            "replies": sum(isinstance(asked.outcome, bytes) for asked in self.journal.asked.values()),
            "rounds of network threads": sum(program.machine.rounds
                                             for program in (*self.past, *self.programs.values())),
        })
        found.update(f"fault: {fault.kind}" for fault in self.faults)
        return found

    def close_all(self) -> None:
        for user in self.users:
            user.close(self.plan.linger)
        longest = max((user.linger for user in self.users), default=0.0)
        self.timeline.run(self.timeline.now + longest + MARGIN,
                          lambda: all(user.closed for user in self.users))
        self.timeline.run(self.timeline.now + 2.0)  # the last look of the sweep


class _Listener(logging.Handler):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        if self._world.burying:
            return
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({record.exc_info[1]!r})"
        self._world.tell("log", "%s", re.sub(r" \(_ssl\.c:\d+\)", "", text))  # which differs between versions
        if record.levelno >= logging.ERROR:
            self._world.errors.append(text if record.exc_info is None else f"{text}\n{_traceback(record)}")


def _traceback(record: logging.LogRecord) -> str:
    return logging.Formatter().formatException(record.exc_info) if record.exc_info else ""


@contextmanager
def _listening(world: World) -> Iterator[None]:
    """What the library logs belongs to the story; errors break a promise."""
    log = logging.getLogger("netmsg")
    before = log.level, log.propagate
    handler = _Listener(world)
    log.addHandler(handler)
    log.setLevel(logging.INFO if world.story is not None else logging.WARNING)
    log.propagate = False
    try:
        with speaking.at_once():
            yield
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before
        log.setLevel(before[0])


def run(world: World) -> list[BrokenPromise]:
    """Have everything happen: the promises that were broken, the first one first.

    In a thread of its own: in the main one, where Ctrl-C may strike, the library leaves some things to others.
    """
    with ThreadPoolExecutor(1) as pool:
        pool.submit(_run, world).result()
    return world.broken


def _run(world: World) -> None:
    with _listening(world):
        try:
            world.run()
        finally:
            for program in world.programs.values():
                if not program.machine.reactor.is_over:
                    program.end()
