"""What is to happen in one world: who is there, who sends what to whom and when, and what goes wrong. All of it is
drawn from the seed before anything begins, so that a part of it can be left out and the rest stays as it is."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from netmsg import AckMode, DeliveryGuarantee, OnDuplicate, OnFull, SendMode, Søcket

__all__ = ["Answering", "Ask", "Close", "Fault", "MARKS", "NAMES", "Plan", "Send", "Taking", "Tenant", "Way", "draw",
           "draw_faults", "draw_options", "draw_sends", "make_plain", "proxies_among"]

NAMES: Final = ("ada", "bob", "cyd", "dan", "eve", "fay", "gus", "hal", "ivy", "jim", "kay", "lea")
DEFAULTS: Final = {
    name: parameter.default for name, parameter in inspect.signature(Søcket.__init__).parameters.items()}
KINDS: Final = ("tcp", "tls", "unix", "ws")
MARKS: Final = {"send_hwm", "recv_hwm", "send_hwm_bytes", "recv_hwm_bytes", "max_unacked", "on_full"}


@dataclass(frozen=True)
class Way:
    """Where a Søcket connects."""

    kind: str
    """``tcp``, ``tls``, ``unix`` or ``ws``."""
    to: str
    by_name: bool = False
    """Whether it has to be resolved."""


@dataclass(frozen=True)
class Taking:
    """How a user takes what has come: as soon as it is there, or ``most`` messages every ``every`` seconds, and before
    ``since`` none at all."""

    every: float = 0.0
    most: int = 1_000_000
    since: float = 0.0
    refuses: float = 0.0
    """With manual acknowledgement, how large a part is refused the first time."""
    answers_late: float = 0.0
    """With manual acknowledgement, after how many seconds."""
    in_batches: bool = False
    """By `recv_many`, which does not say from whom."""
    by_delivery: bool = False
    """By `recv_delivery`, so that requests can be answered."""
    replies: bool = False
    """Whether something is sent back to whoever has sent something to anybody."""


@dataclass(frozen=True)
class Answering:
    """How requests are answered."""

    after: float = 0.0
    fails: float = 0.0
    """To how large a part of them it is said that there is no reply,"""
    silent: float = 0.0
    """and to how large a part nothing."""


@dataclass(frozen=True)
class Tenant:
    """A Søcket and how it is used."""

    name: str
    host: str
    options: dict[str, Any] = field(default_factory=dict)
    binds: tuple[str, ...] = ()
    """The kinds."""
    ways: tuple[Way, ...] = ()
    taking: Taking = Taking()
    admits: float | None = None
    """How many seconds ``authorize`` takes, if there is one."""
    waits: float | None = None
    """What ``reconnection_delay`` returns, if there is one."""
    answering: Answering = Answering()
    """How requests are answered, where they are taken by delivery."""
    wants: tuple[bytes, ...] = ()
    """What it has subscribed to."""
    relays_to: str = ""
    """Which Søcket of the same host whatever comes here is handed on to: a proxy."""

    def option(self, name: str) -> Any:
        """Of the Søcket, the default where nothing is said of it."""
        return self.options.get(name, DEFAULTS[name])

    @property
    def is_plain(self) -> bool:
        """Whether no mark is ever met, and what comes is taken as it comes."""
        taking = self.taking
        return not (MARKS & self.options.keys() or taking.every or taking.since or taking.refuses
                    or taking.answers_late)

    @property
    def publishes(self) -> bool:
        return self.option("send_mode") is SendMode.PUBLISH

    @property
    def reliable(self) -> bool:
        return self.option("delivery_guarantee") is DeliveryGuarantee.AT_LEAST_ONCE


@dataclass(frozen=True)
class Send:
    at: float
    who: str
    count: int
    """So many in a row."""
    size: int
    to: str | None = None


@dataclass(frozen=True)
class Ask:
    """Requests, ``count`` in a row."""

    at: float
    who: str
    count: int
    patience: float
    """For so many seconds the reply is waited for."""
    to: str | None = None


@dataclass(frozen=True)
class Fault:
    """What goes wrong, from ``at`` to ``until``."""

    at: float
    until: float
    kind: str
    """
    ============= =====================================================================
    kind
    ============= =====================================================================
    cut           nothing goes from one host to the other, nor back
    mute          nothing goes from one host to the other
    slow          from one host to the other it takes ``amount`` seconds more
    reset         all connections between two hosts are reset, at once
    kill          the program of a host ends in an instant, and begins anew
    power         the same, and its connections are not told
    stop          the program of a host stands still
    unknown       the name of a host cannot be resolved
    dumb          the name of a host is asked for in vain
    late          it takes ``amount`` seconds to resolve the name of a host
    unwelcome     those of one host who ask ``authorize`` turn those of another away
    poor          a host has no descriptors left
    intruder      somebody connects to a host and says what he likes
    full          a disk is
    crowd         very many connect to a host and say nothing
    elder         a peer of the dialect of 2019 connects to a host, and says and hears something
    ============= =====================================================================
    """
    host: str
    other: str = ""
    amount: float = 0.0

    def __str__(self) -> str:
        others = f" and {self.other}" if self.other else ""
        return f"{self.kind} {self.host}{others} until {self.until:.3f}"


@dataclass(frozen=True)
class Close:
    """A Søcket is closed before the end."""

    at: float
    who: str
    linger: float


@dataclass(frozen=True)
class Plan:
    seed: int
    tenants: tuple[Tenant, ...]
    sends: tuple[Send, ...] = ()
    faults: tuple[Fault, ...] = ()
    closes: tuple[Close, ...] = ()
    quiet_at: float = 10.0
    """From here on nobody sends, nothing goes wrong, and whatever comes is taken at once."""
    latency: float = 0.0005
    jitter: float = 0.0
    piece: int = 1460
    whole: bool = True
    send_buffer: int = 65_536
    receive_buffer: int = 65_536
    gives_up_after: float = 100.0
    walled: bool = False
    """Whether a host that does not know a connection drops what comes for it, and does not answer with a reset."""
    detour: bool = False
    """Whether names stand for two addresses, of which the first leads nowhere."""
    linger: float = 5.0
    """With which all are closed in the end."""
    asks: tuple[Ask, ...] = ()

    def without(self, **less: Any) -> Plan:
        return replace(self, **less)

    def tenant(self, name: str) -> Tenant:
        return next(tenant for tenant in self.tenants if tenant.name == name)

    @property
    def names(self) -> set[str]:
        return {tenant.name for tenant in self.tenants}

    @property
    def proxies(self) -> set[str]:
        """The Søckets that hand on, and those that are handed on to."""
        return proxies_among(self.tenants)

    def hosts(self) -> list[str]:
        return list(dict.fromkeys(tenant.host for tenant in self.tenants))


def proxies_among(tenants: Iterable[Tenant]) -> set[str]:
    """The Søckets that hand on, and those that are handed on to."""
    pairs = {tenant.name: tenant.relays_to for tenant in tenants}
    return {name for front, back in pairs.items() if back in pairs for name in (front, back)}


def draw(seed: int) -> Plan:
    """The world of ``seed``, in which nobody does more than send and receive."""
    dice = random.Random(seed)
    length = dice.choice((3.0, 10.0, 10.0, 30.0, 100.0))
    tenants = _draw_tenants(dice, length)
    sends = draw_sends(dice, tenants, length)
    crowded = dice.random() < 0.3
    sizes: tuple[int, ...] = (300, 4_096) if crowded else (65_536, 65_536, 4_096, 1_000_000, 300)
    if any(way.kind == "tls" for tenant in tenants for way in tenant.ways):
        sizes = sizes[:-1] if not crowded else (4_096,)  # or no handshake would come to its end in time
    if crowded:
        # More is sent at once than goes into the buffers, and it is taken slowly.
        sends += tuple(Send(dice.random() * length * 0.9, tenant.name, dice.choice((50, 150)), dice.choice((10, 100)))
                       for tenant in tenants[:3] if dice.random() < 0.6)
        sends = tuple(sorted(sends, key=lambda send: send.at))
        tenants = tuple(replace(tenant, taking=replace(tenant.taking, every=0.1, most=20)) if dice.random() < 0.6
                        else tenant for tenant in tenants)
    plan = Plan(
        seed, tenants, sends, draw_faults(dice, tenants, sends, length), _draw_closes(dice, tenants, length), length,
        latency=dice.choice((0.00005, 0.0005, 0.01, 0.1)),
        jitter=dice.choice((0.0, 0.0, 0.001, 0.05)),
        piece=dice.choice((1460, 1460, 16_384, 65_536, 100, 17)),
        whole=dice.random() < 0.5,
        send_buffer=dice.choice(sizes),
        receive_buffer=dice.choice(sizes),
        gives_up_after=dice.choice((15.0, 60.0, 100.0)),
        walled=dice.random() < 0.3,
        detour=dice.random() < 0.2,
        linger=dice.choice((0.0, 0.5, 5.0, 30.0)),
    )
    return _vary(plan, random.Random(f"{seed}/rarer"))


def _vary(plan: Plan, dice: random.Random) -> Plan:
    """What is rarer, by a die of its own."""
    tenants = _draw_habits(dice, plan.tenants)
    faults = _draw_rarer_faults(dice, tenants, plan.faults, plan.quiet_at)
    closes = plan.closes
    if dice.random() < 0.25:
        # Much can only be told from everything else where little happens.
        tenants = tuple(make_plain(tenant) for tenant in tenants)
        plan = plan.without(send_buffer=65_536, receive_buffer=65_536, piece=1460)
        fate = dice.choice(("calm", "intruders", "as it comes"))
        if fate != "as it comes":
            closes = ()
            faults = tuple(fault for fault in faults if fate == "intruders" and fault.kind == "intruder")
    return plan.without(tenants=_draw_limits(dice, tenants, faults), faults=faults,
                        closes=_draw_more_closes(dice, plan.sends, closes))


def _draw_tenants(dice: random.Random, length: float) -> tuple[Tenant, ...]:
    count = dice.choice((2, 2, 2, 3, 3, 4, 5, 6, 8, 12))
    names = NAMES[:count]
    hosts = {name: name if dice.random() < 0.85 or index == 0 else names[dice.randrange(index)]
             for index, name in enumerate(names)}
    hosts = {name: hosts[host] for name, host in hosts.items()}  # of those who live with others
    tls = dice.random() < 0.15
    ways: dict[str, list[Way]] = {name: [] for name in names}

    def connect(one: str, other: str) -> None:
        kind = "tls" if tls else "tcp"
        if hosts[one] == hosts[other] and dice.random() < 0.5:
            kind = "unix"
        ways[one].append(Way(kind, other, dice.random() < 0.3))

    shape = dice.choice(("star", "star", "star out", "crossing", "mesh", "chain", "random"))
    if shape == "star":
        for name in names[1:]:
            connect(name, names[0])
    elif shape == "star out":
        for name in names[1:]:
            connect(names[0], name)
    elif shape == "crossing":
        for one, other in zip(names, names[1:]):
            connect(one, other)
            connect(other, one)
    elif shape == "mesh":
        for one in names[:6]:
            for other in names[:6]:
                if one < other:
                    connect(one, other)
    elif shape == "chain":
        for one, other in zip(names, names[1:]):
            connect(one, other)
    else:
        for name in names:
            others = [other for other in names if other != name]
            for other in dice.sample(others, dice.randint(1, min(3, len(others)))):
                connect(name, other)
    bound = {(way.to, way.kind) for each in ways.values() for way in each}
    hasty = dice.random() < 0.5
    reliable_world = dice.random()
    found = []
    for name in names:
        binds = tuple(kind for kind in KINDS if (name, kind) in bound)
        options = draw_options(dice, hasty, reliable_world)
        taking = Taking()
        if dice.random() < 0.3:
            taking = Taking(every=dice.choice((0.01, 0.1, 1.0)), most=dice.choice((1, 3, 50)),
                            since=dice.random() * length * 0.7 if dice.random() < 0.3 else 0.0)
        taking = replace(taking, in_batches=dice.random() < 0.2)
        if options["ack_mode"] is AckMode.MANUAL:
            taking = replace(taking, refuses=dice.choice((0.0, 0.1)), answers_late=dice.choice((0.0, 0.0, 0.01, 1.0)))
        found.append(Tenant(
            name, hosts[name], options, binds, tuple(ways[name]), taking,
            dice.choice((0.0, 0.01, 0.3)) if dice.random() < 0.15 else None,
            dice.choice((0.0, 0.05, 1.0)) if dice.random() < 0.15 else None))
    return tuple(found)


def draw_options(dice: random.Random, hasty: bool, reliable_world: float) -> dict[str, Any]:
    publishes = dice.random() < 0.2
    reliable = not publishes and dice.random() < reliable_world
    interval = dice.choice((0.5, 1.0)) if hasty else 5.0
    options: dict[str, Any] = {
        "send_mode": SendMode.PUBLISH if publishes else SendMode.ROUNDROBIN,
        "delivery_guarantee": DeliveryGuarantee.AT_LEAST_ONCE if reliable else DeliveryGuarantee.AT_MOST_ONCE,
        "ack_mode": dice.choice((AckMode.ON_RECV, AckMode.ON_RECV, AckMode.MANUAL, AckMode.ON_ARRIVAL)),
        "heartbeat_interval": interval,
        "heartbeat_timeout": 3 * interval,
        "handshake_timeout": dice.choice((2.0, 10.0)),
        "resend_after": dice.choice((0.5, 5.0)),
        "on_duplicate": dice.choice((OnDuplicate.PROBE, OnDuplicate.PROBE, OnDuplicate.TAKEOVER, OnDuplicate.REJECT)),
    }
    if dice.random() < 0.4:
        options["send_hwm"] = dice.choice((1, 2, 10, 100))
    if dice.random() < 0.4:
        options["recv_hwm"] = dice.choice((1, 2, 10, 100))
    if dice.random() < 0.2:
        options["send_hwm_bytes"] = dice.choice((1000, 100_000))
    if dice.random() < 0.2:
        options["recv_hwm_bytes"] = dice.choice((1000, 100_000))
    if dice.random() < 0.3:
        options["on_full"] = dice.choice(tuple(OnFull))
    if reliable and dice.random() < 0.3:
        options["max_unacked"] = dice.choice((1, 2, 20))
    if reliable and dice.random() < 0.1:
        options["max_resends"] = dice.choice((0, 1, 3))
    if dice.random() < 0.1:
        options["dedupe"] = dice.choice((1000, 2000))
    return options


def draw_sends(dice: random.Random, tenants: tuple[Tenant, ...], length: float) -> tuple[Send, ...]:
    names = [tenant.name for tenant in tenants]
    senders = [tenant for tenant in tenants if dice.random() < 0.6] or [dice.choice(tenants)]
    budget = dice.choice((20, 100, 300, 600))
    sends: list[Send] = []
    large = dice.random() < 0.25
    while budget > 0:
        tenant = dice.choice(senders)
        count = min(budget, dice.choice((1, 1, 1, 5, 20, 100)))
        budget -= count
        size = dice.choice((0, 1, 10, 100, 1000)) if not large else dice.choice((100, 3_000, 9_000, 50_000))
        if size >= 3_000:
            count = min(count, 5)
            budget -= 5
        to = dice.choice(names) if dice.random() < 0.15 else None
        sends.append(Send(dice.random() * length * 0.95, tenant.name, count, size,
                          to if to != tenant.name else None))
    return tuple(sorted(sends, key=lambda send: send.at))


def draw_faults(dice: random.Random, tenants: tuple[Tenant, ...], sends: tuple[Send, ...],
                length: float) -> tuple[Fault, ...]:
    hosts = list(dict.fromkeys(tenant.host for tenant in tenants))
    faults = []
    if dice.random() < 0.15:
        return ()
    for _ in range(dice.choice((1, 2, 3, 5, 8))):
        at = dice.random() * length * 0.9
        if sends and dice.random() < 0.5:  # when something is on its way
            at = min(dice.choice(sends).at + dice.choice((0.0001, 0.003, 0.1, 1.0)) * dice.random(), length * 0.95)
        until = min(at + dice.choice((0.01, 0.3, 2.0, 10.0, 40.0)) * (0.5 + dice.random()), length)
        host = dice.choice(hosts)
        kind = dice.choice(("cut", "cut", "mute", "slow", "reset", "reset", "reset", "kill", "kill", "power", "stop",
                            "unknown", "dumb", "poor", "intruder", "intruder"))
        if dice.random() < 0.02:
            kind = "crowd"
        other = ""
        amount = 0.0
        if kind in ("cut", "mute", "slow", "reset"):
            others = [one for one in hosts if one != host]
            if not others:
                continue
            other = dice.choice(others)
        if kind == "slow":
            amount = dice.choice((0.05, 0.5, 3.0))
        if kind == "intruder":
            amount = dice.random()
        faults.append(Fault(at, until, kind, host, other, amount))
    return tuple(sorted(faults, key=lambda fault: fault.at))


def _draw_habits(dice: random.Random, tenants: tuple[Tenant, ...]) -> tuple[Tenant, ...]:
    """Some know two ways to the same other one; and some look at who comes."""
    policies = {tenant.name: tenant.option("on_duplicate") for tenant in tenants}
    found = []
    for tenant in tenants:
        if tenant.admits is None and dice.random() < 0.2:
            tenant = replace(tenant, admits=0.0)
        if tenant.ways and dice.random() < 0.1:
            way = dice.choice(tenant.ways)
            if OnDuplicate.TAKEOVER not in (policies[way.to], policies[tenant.name]):  # or one takes over for ever
                tenant = replace(tenant, ways=(*tenant.ways, replace(way, by_name=not way.by_name)),
                                 waits=None if tenant.waits is None else 1.0)  # it may be turned away for ever
        found.append(tenant)
    return tuple(found)


def make_plain(tenant: Tenant) -> Tenant:
    """As most are: no mark is ever met, and what comes is taken as it comes."""
    options = {name: value for name, value in tenant.options.items() if name not in MARKS}
    return replace(tenant, options=options, taking=Taking(in_batches=tenant.taking.in_batches))


def _draw_limits(dice: random.Random, tenants: tuple[Tenant, ...], faults: tuple[Fault, ...]) -> tuple[Tenant, ...]:
    """Some have no more room than for those who are to come."""
    strangers = sum(fault.kind == "intruder" for fault in faults)
    known = [way.to for tenant in tenants for way in tenant.ways]
    return tuple(
        replace(tenant, options={
            **tenant.options, "max_connections": max(1, known.count(tenant.name) + len(tenant.ways) + strangers)})
        if dice.random() < 0.15 else tenant for tenant in tenants)


def _draw_more_closes(dice: random.Random, sends: tuple[Send, ...], closes: tuple[Close, ...]) -> tuple[Close, ...]:
    """Some close when they have just sent something."""
    if sends and dice.random() < 0.3:
        send = dice.choice(sends)
        if all(close.who != send.who for close in closes):
            closes = (*closes, Close(send.at + dice.random() * 0.001, send.who, 10.0))
    return closes


def _draw_rarer_faults(dice: random.Random, tenants: tuple[Tenant, ...], faults: tuple[Fault, ...],
                       length: float) -> tuple[Fault, ...]:
    found = [*faults]
    hosts = list(dict.fromkeys(tenant.host for tenant in tenants))
    named = [way.to for tenant in tenants for way in tenant.ways if way.by_name]
    asking = [tenant.host for tenant in tenants if tenant.admits is not None]
    for _ in range(dice.choice((0, 0, 1, 3)) if faults else 0):
        at = dice.random() * length * 0.9
        until = min(at + dice.choice((0.3, 2.0, 10.0)) * (0.5 + dice.random()), length)
        if named and dice.random() < 0.5:
            name = dice.choice(named)
            host = next(tenant.host for tenant in tenants if tenant.name == name)
            found.append(Fault(at, until, "late", host, amount=dice.choice((0.1, 1.0, 9.0, 30.0))))
        elif asking and len(hosts) > 1:
            host = dice.choice(asking)
            other = dice.choice([one for one in hosts if one != host])
            found.append(Fault(at, until, "unwelcome", host, other))
    return tuple(sorted(found, key=lambda fault: fault.at))


def _draw_closes(dice: random.Random, tenants: tuple[Tenant, ...], length: float) -> tuple[Close, ...]:
    return tuple(Close(dice.random() * length, tenant.name, dice.choice((0.0, 0.1, 2.0, 10.0)))
                 for tenant in tenants if dice.random() < 0.08)
