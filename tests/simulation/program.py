"""A program on a host: its Søckets, and the users of those. It may end in an instant, and begin anew as another life of
the same."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from netmsg import (
    AckMode, ClosedError, Delivery, Disconnected, Dropped, NetmsgError, QueueFullError, SendTimeoutError, Søcket,
)
from netmsg.deadline import Deadline
from netmsg.messaging.proxying import relay_between
from netmsg.messaging.relaying import LOOK, Questions, Relay

from .journal import Asked, Journal, Sent
from .machine import SimulatedMachine
from .network import Host
from .plan import NAMES, Tenant, proxies_among
from .timeline import Timeline

__all__ = ["PORTS", "Program", "User", "identity_of", "name_of"]

PORTS: Final = {"tcp": 25_000, "tls": 26_000, "ws": 27_000}
FOREVER: Final = Deadline(None)
AT_ONCE: Final = Deadline(0)
REACTION: Final = 0.00005
"""Seconds that a user takes to notice."""

Tell = Callable[..., None]
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def identity_of(name: str) -> bytes:
    return name.encode().ljust(16, b".")


def name_of(identity: bytes) -> str:
    return identity.rstrip(b".").decode("latin-1")


class Returning:
    """What a call that waits is told by: it returns."""

    def __init__(self, release: Callable[[], None]) -> None:
        self.release = release


class User:
    """One Søcket, for one life, and who uses it: by calls that never block, as from a thread of its own."""

    def __init__(self, program: Program, tenant: Tenant, journal: Journal) -> None:
        self.program = program
        self.tenant = tenant
        self.name = tenant.name
        self.life = program.life
        self.taking = tenant.taking
        self.stands_between = tenant.name in program.proxies
        """Whether it belongs to a proxy: then nobody else takes what comes."""
        self.closing_since: float | None = None
        self.linger = 0.0
        self.taken = 0
        """Messages that `recv` has handed over,"""
        self.refused = 0
        """and those of them that were refused."""
        self.unwelcome: set[str] = set()
        """Whom it turns away, if it is asked."""
        self._ended = False
        self._journal = journal
        self._held: list[tuple[float, Delivery]] = []
        self._refused: set[bytes] = set()
        self._owed: list[tuple[float, Delivery]] = []
        """Requests to be answered, and when."""
        self.replied = 0
        """How many have been: intruders ask, too."""
        self.asking: list[Asked] = []
        """What it has asked, and waits for."""
        self._due = 0.0
        options: dict[str, Any] = dict(tenant.options)
        if tenant.admits is not None:
            options["authorize"] = self._authorize
        if tenant.waits is not None:
            options["reconnection_delay"] = lambda: tenant.waits
        self.manual = tenant.option("ack_mode") is AckMode.MANUAL
        self.reliable = tenant.reliable
        self.durable = "outbox" in options
        for name in ("outbox", "dedupe_path"):
            if name in options:
                options[name] = f"{tenant.name}.{name}"
        self.socket: Søcket[Any] = Søcket(identity=identity_of(tenant.name), io_thread=program.machine.io_thread,
                                          linger=5.0, **options)
        disk = program.host.disk
        self._remembered = frozenset(disk.contents.get(f"{tenant.name}.dedupe_path", ()))
        for prefix in tenant.wants:
            self.socket.subscribe(prefix)
        self._events: Iterator[Any] = self.socket.events(timeout=0)
        self.heard: Counter[str] = Counter()
        """Of which events how many,"""
        self.heard_dropped: Counter[str] = Counter()
        """of how many dropped messages, by cause,"""
        self.gone: list[tuple[float, bytes]] = []
        """and who has gone when."""
        self.failed_before_closing = 0
        """Receipts."""

    def _authorize(self, peer: Any) -> bool:
        name = name_of(peer.identity)
        return name in NAMES and name not in self.unwelcome

    @property
    def closed(self) -> bool:
        """Whether it has been let go of, its messages too."""
        if self.closing_since is not None and not self._ended:
            self._ended = self.listen()  # it has told all that it had to tell
        return self._ended

    def listen(self) -> bool:
        """Hear the events. Whether there will be no more."""
        told = self.socket._engine.events
        if not (told._events or told._closed):
            return False  # to ask a Søcket takes its time, and this is asked all the time
        try:
            for event in self._events:
                self.heard[type(event).__name__] += 1
                if isinstance(event, Dropped):
                    self.heard_dropped[event.reason] += event.count
                elif isinstance(event, Disconnected):
                    self.gone.append((self.program.timeline.now, event.peer or b""))
            return True
        except TimeoutError:
            return False

    def bind(self) -> None:
        host = self.program.host
        for kind in self.tenant.binds:
            if kind == "unix":
                self.socket.bind_unix(f"\0{self.name}")
            elif kind == "ws":
                self.socket.bind(f"ws://{host.address}:{self.program.port(kind, self.name)}/")
            else:
                context = self.program.contexts[0] if kind == "tls" else None
                self.socket.bind(host.address, self.program.port(kind, self.name), ssl_context=context)

    def connect(self) -> None:
        for way in self.tenant.ways:
            if way.kind == "unix":
                self.socket.connect_unix(f"\0{way.to}")
                continue
            home = self.program.home_of(way.to)
            place = f"{home.name}.test" if way.by_name else home.address
            if way.kind == "ws":
                self.socket.connect(f"ws://{place}:{self.program.port(way.kind, way.to)}/")
                continue
            tls: dict[str, Any] = {}
            if way.kind == "tls":
                tls = {"ssl_context": self.program.contexts[1], "server_hostname": "simulated.test"}
            self.socket.connect(place, self.program.port(way.kind, way.to), **tls)

    # What users do

    def send(self, size: int, to: str | None) -> Sent:
        sent = self._journal.begin(self, to)
        data = sent.label.ljust(size, b"*")
        if self.durable and self._has_begun_to_store(sent, data):
            return sent
        try:
            if to is None and self._is_roomy(len(data)):
                sent.receipt = self.socket.send(data)  # the usual way, which would wait for room
            else:
                sent.receipt = self.socket.send(data, None if to is None else identity_of(to), timeout=0)
        except (SendTimeoutError, QueueFullError) as error:
            sent.refused = type(error).__name__
        except ClosedError:
            sent.refused = "ClosedError"
        sent.turned_away = sent.receipt is not None and sent.receipt.failed
        self.listen()
        self.program.tell(self.name, "sends %s%s%s", sent, "" if to is None else f" to {to}",
                          f": {sent.refused}" if sent.refused else "")
        return sent

    def _has_begun_to_store(self, sent: Sent, data: bytes) -> bool:
        """With an outbox `send` does not return at once; false where it has no room, and does not wait for any."""
        sender = self.socket._engine.sender
        try:
            sending = sender._begin_storing((data,), None if sent.to is None else identity_of(sent.to))
        except ClosedError:
            return False
        if sending is None:
            return False
        sent.refused = "under way"
        sending.ticket = Returning(lambda: self._stored(sent, sending))  # type: ignore[assignment]
        self.program.tell(self.name, "stores %s%s", sent, "" if sent.to is None else f" for {sent.to}")
        return True

    def _stored(self, sent: Sent, sending: Any) -> None:
        if self.program.machine.dead:
            return
        if sending.error is not None:
            sent.refused = type(sending.error).__name__
        else:
            sent.refused = ""
            sent.is_stored = True
            sent.receipt = sending.receipts[0]
        self.program.tell(self.name, "has stored %s%s", sent, f": {sent.refused}" if sent.refused else "")

    def _is_roomy(self, size: int) -> bool:
        """Whether `send` does not wait."""
        peers = self.socket.peers()
        mark = self.tenant.option("send_hwm")
        return bool(peers) and size < 100 and all(peer.queued + 1 < mark for peer in peers) \
            and not self.reliable and "send_hwm_bytes" not in self.tenant.options

    @property
    def waiting(self) -> int:
        """Messages received that nobody was handed; where some are not to be delivered, those there are to be taken."""
        if self.tenant.wants or self.tenant.option("conflate") or self.stands_between or self.taking.by_delivery:
            inbox = self.socket._inbox
            return len(inbox.last.queue) + sum(len(batch.queue) for batch in inbox._batches)
        stats = self.socket.stats()
        return stats.received - stats.duplicates - self.taken - self.refused

    def take(self, now: float) -> None:
        """Take what is there, if it is time to."""
        taking = self.taking
        self.listen()
        self._go_on_asking(now)
        if self.stands_between:
            return
        self._answer_due(now)
        if now < taking.since or now < self._due or self.closing_since is not None:
            return
        inbox = self.socket._inbox
        for _ in range(taking.most):
            if inbox.last.finished and not inbox._ready():
                break  # see `listen`
            try:
                if taking.in_batches and not self.manual and not taking.by_delivery:
                    for data in self.socket.recv_many(7, timeout=0):
                        self._got(b"", data)
                elif self.manual or taking.by_delivery:
                    self._consider(self.socket.recv_delivery(timeout=0), now)
                else:
                    identity, data = self.socket.recv_identity(timeout=0)
                    self._got(identity, data)
            except TimeoutError:
                break
        if taking.every:
            self._due = now + taking.every
        while self._held and self._held[0][0] <= now:
            self._acknowledge(self._held.pop(0)[1])

    def _got(self, identity: bytes, data: bytes) -> None:
        self.taken += 1
        sent = self._journal.delivered(self, identity, data)
        if sent is not None and sent.receipt is not None and (
                identity_of(sent.sender) + sent.receipt.message_id in self._remembered):
            self._journal.again.append((self.name, str(sent)))
        self.program.tell(self.name, "gets %s", sent)
        if self.taking.replies and sent is not None and sent.to is None:
            self.send(0, sent.sender)

    def _consider(self, delivery: Delivery, now: float) -> None:
        if delivery.is_request:
            self.taken += 1
            asked = self._journal.served(self, delivery.data)
            self.program.tell(self.name, "is asked %s", asked)
            self._owed.append((now + self.tenant.answering.after, delivery))
            self._answer_due(now)
            return
        label = self._journal.label_of(delivery.data)
        chance = self.program.machine.chance
        if self.manual and self.taking.refuses and label not in self._refused \
                and self._journal.is_reliable(delivery.data) and chance() < self.taking.refuses:
            self._refused.add(label)
            self.refused += 1
            self.program.tell(self.name, "refuses %s", label.decode())
            delivery.nack()
            return
        self._got(delivery.identity, delivery.data)
        if self.taking.answers_late:
            self._held.append((now + self.taking.answers_late, delivery))
        else:
            self._acknowledge(delivery)

    def _acknowledge(self, delivery: Delivery) -> None:
        """Without waiting until it is noted."""
        if not self.socket.closed:
            self.socket._engine.receiver.settle_soon(delivery, True)

    # Requests

    def ask(self, patience: float, to: str | None) -> None:
        asked = self._journal.ask(self, patience, to)
        self.program.tell(self.name, "asks %s%s", asked, "" if to is None else f" of {to}")
        asked.request = self.socket._engine.sender.requesting.begin(
            asked.label, None if to is None else identity_of(to), lambda: None)  # it looks after each round
        self.asking.append(asked)
        self._go_on_asking(self.program.timeline.now)

    def _go_on_asking(self, now: float) -> None:
        for asked in tuple(self.asking):
            asked.outcome = self._outcome(asked, now)
            if asked.outcome is not None:
                assert asked.request is not None
                self.socket._engine.sender.requesting.end(asked.request)
                self.asking.remove(asked)
                self.program.tell(self.name, "hears of %s: %s", asked, asked.outcome)

    def _outcome(self, asked: Asked, now: float) -> bytes | str | None:
        requesting, request = self.socket._engine.sender.requesting, asked.request
        assert request is not None
        try:
            requesting.go_on(request, FOREVER)
            if request.settled:
                return requesting.outcome(request)
        except NetmsgError as error:
            return type(error).__name__
        if self.socket.closed:
            return "ClosedError"
        return "TimeoutError" if now >= asked.at + asked.patience else None

    def _answer_due(self, now: float) -> None:
        answering, chance = self.tenant.answering, self.program.machine.chance
        while self._owed and self._owed[0][0] <= now:
            _, delivery = self._owed.pop(0)
            fate = chance()
            if fate < answering.silent:
                continue
            try:
                if fate < answering.silent + answering.fails:
                    delivery.fail("it is not to be", timeout=0)
                else:
                    delivery.reply(b"re:" + delivery.data, timeout=0)
                self.replied += 1
            except (SendTimeoutError, QueueFullError):
                self._journal.asked[delivery.data].unsaid += 1
            except ClosedError:
                pass

    def awake_at(self) -> float | None:
        """When there is something to do for it, whatever comes."""
        if self.closing_since is not None:
            return None
        due = [at for at, _ in self._held[:1] + self._owed[:1]]
        if self.taking.every:
            due.append(max(self._due, self.taking.since))
        return min(due) if due else None

    def close(self, linger: float) -> None:
        if self.closing_since is None:
            self.closing_since = self.program.timeline.now
            self.failed_before_closing = self._journal.failed(self.name, self.life)
            self.linger = linger
            self.program.tell(self.name, "closes, linger %s", linger)
            machine = self.program.machine
            if machine.running:
                machine.reactor.call(self._close)  # there it only begins to
            else:
                self._close()

    def _close(self) -> None:
        self.socket.close(linger=self.linger)


class Program:
    """One life of what runs on a host."""

    def __init__(self, host: Host, tenants: list[Tenant], life: int, timeline: Timeline, seed: str, journal: Journal,
                 tell: Tell, home_of: Callable[[str], Host], contexts: Callable[[], Contexts]) -> None:
        self.host = host
        self.proxies = proxies_among(tenants)
        self.life = life
        self.timeline = timeline
        self.tell = tell
        self.home_of = home_of
        self._contexts = contexts
        self.machine = machine = SimulatedMachine(timeline, host, f"{seed}/{host.name}/{life}")
        admits = {tenant.name: tenant.admits for tenant in tenants}
        slowest = max((admit for admit in admits.values() if admit is not None), default=0.0)
        machine.answers = lambda name: slowest if name == "authorize" else 0.001
        machine.after_round = self._look
        self.users = [User(self, tenant, journal) for tenant in tenants]
        self._looking = False
        self._relays: list[tuple[Relay, Questions]] = []
        self._next_look = 0.0
        self._begin_relays()
        for user in self.users:
            user.bind()
        for user in self.users:
            user.connect()
        self._wake_regularly()

    def _begin_relays(self) -> None:
        """Proxies, whose threads have no time of their own here: each goes on when something has happened."""
        sockets = {user.name: user.socket for user in self.users}
        for user in self.users:
            to = user.tenant.relays_to
            if to in sockets:
                self._relays.append(relay_between(user.socket, sockets[to], self._look))
                sockets[to]._engine.sender.begin_following(self)

    def _hand_on(self) -> None:
        for relay, questions in self._relays:
            try:
                while relay.step(AT_ONCE):
                    pass
            except (TimeoutError, ClosedError):
                pass
            while questions.news:
                questions.go_on()
            if self.timeline.now >= self._next_look:
                self._next_look = self.timeline.now + LOOK
                questions.look()

    @property
    def contexts(self) -> Contexts:
        return self._contexts()

    def port(self, kind: str, name: str) -> int:
        return PORTS[kind] + NAMES.index(name)

    def _look(self) -> None:
        """The network thread has done something: perhaps there is something to take."""
        if not self._looking:
            self._looking = True
            self.timeline.after(REACTION, self._take)

    def _take(self) -> None:
        self._looking = False
        if not self.machine.dead and not self.machine.stopped:
            for user in self.users:
                user.take(self.timeline.now)
            self._hand_on()

    def _wake_regularly(self) -> None:
        if self.machine.dead:
            return
        self._take()
        due = [at for at in (user.awake_at() for user in self.users) if at is not None]
        pause = 0.5 if not due else max(0.001, min(0.5, min(due) - self.timeline.now))
        self.timeline.after(pause, self._wake_regularly)

    def end(self) -> None:
        """In an instant. What the library does from here on has no effect."""
        machine = self.machine
        machine.end()
        reactor = machine.reactor
        for user in self.users:
            if not (user.tenant.binds or user.tenant.ways):  # of which the network thread does not know
                user.socket.close(linger=0)
        reactor.close(timeout=0)  # or the exit of the interpreter would wait for these Søckets
        for _ in range(10):
            if reactor.is_over:
                break
            reactor.settle()
            reactor.go_on([])
        reactor.end()
