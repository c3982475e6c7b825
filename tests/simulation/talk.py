"""Worlds in which more is done than to send and receive: requests, subscriptions, only the newest, proxies, peers of
the dialect of 2019, WebSocket. Drawn, as the others are, from the seed alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from netmsg import AckMode, DeliveryGuarantee, OnFull, OnNoPeer, SendMode

from .plan import (
    NAMES, Answering, Ask, Fault, Plan, Taking, Tenant, Way, draw, draw_faults, draw_options, draw_sends, make_plain,
)

__all__ = ["FIRST", "draw_any"]

FIRST: Final = 100_000
"""The first seed of such worlds: those below are what they were before there were any, for some that have failed once
are kept."""


def draw_any(seed: int) -> Plan:
    """The world of ``seed``."""
    plan = draw(seed)
    if seed < FIRST:
        return plan
    dice = random.Random(f"{seed}/talk")
    if dice.random() < 0.3:
        plan = _with_proxies(dice, plan)
    if dice.random() < 0.3:  # much can only be told from everything else where little happens
        if dice.random() < 0.6:
            plan = _each(plan, make_plain)
        plan = plan.without(faults=(), closes=(), send_buffer=65_536, receive_buffer=65_536, piece=1460)
    for part in (_with_requests, _with_subscriptions, _with_only_the_newest, _with_elders, _by_websocket):
        if dice.random() < 0.4:
            plan = part(dice, plan)
    return plan


def _each(plan: Plan, change: Callable[[Tenant], Tenant]) -> Plan:
    return plan.without(tenants=tuple(map(change, plan.tenants)))


def _with_requests(dice: random.Random, plan: Plan) -> Plan:
    answering = Answering(dice.choice((0.0, 0.0, 0.02, 1.0)), dice.choice((0.0, 0.0, 0.2)),
                          dice.choice((0.0, 0.0, 0.2)))
    between = plan.proxies
    fronts = {tenant.name for tenant in plan.tenants if tenant.relays_to}
    askers = [tenant.name for tenant in plan.tenants if not between or {way.to for way in tenant.ways} & fronts]
    asks = []
    for _ in range(dice.choice((5, 20, 60))):
        who = dice.choice(askers)
        to = dice.choice(askers) if dice.random() < 0.15 and not between else None
        asks.append(Ask(dice.random() * plan.quiet_at * 0.95, who, dice.choice((1, 1, 1, 5, 30)),
                        dice.choice((0.5, 5.0, 20.0)), to if to != who else None))
    return _each(plan, lambda tenant: replace(tenant, answering=answering,
                                              taking=replace(tenant.taking, by_delivery=True))).without(
        asks=tuple(sorted(asks, key=lambda ask: ask.at)))


def _with_subscriptions(dice: random.Random, plan: Plan) -> Plan:
    names = [tenant.name for tenant in plan.tenants]
    wanting = {name: tuple(sorted({dice.choice(names).encode() + b"." for _ in range(dice.randint(1, 3))}))
               for name in names if dice.random() < 0.5 and name not in plan.proxies}

    def change(tenant: Tenant) -> Tenant:
        options = dict(tenant.options)
        if dice.random() < 0.5 and tenant.name not in plan.proxies:
            options |= {"send_mode": SendMode.PUBLISH, "delivery_guarantee": DeliveryGuarantee.AT_MOST_ONCE}
            options.pop("max_unacked", None)
            options.pop("max_resends", None)
        return replace(tenant, options=options, wants=wanting.get(tenant.name, ()))

    return _each(plan, change)


def _with_only_the_newest(dice: random.Random, plan: Plan) -> Plan:
    def change(tenant: Tenant) -> Tenant:
        if tenant.reliable or tenant.name in plan.proxies:
            return tenant
        options = dict(tenant.options)
        if dice.random() < 0.5:
            options["conflate"] = True
            options.pop("on_full", None)
            if dice.random() < 0.5:
                tenant = replace(tenant, taking=replace(tenant.taking, every=dice.choice((0.1, 1.0)), most=1))
        if dice.random() < 0.3:
            options["on_no_peer"] = OnNoPeer.DROP
        return replace(tenant, options=options)

    return _each(plan, change)


def _with_elders(dice: random.Random, plan: Plan) -> Plan:
    hosts = [tenant.host for tenant in plan.tenants if "tcp" in tenant.binds]
    faults = [*plan.faults]
    for _ in range(dice.randint(1, 4) if hosts else 0):
        at = dice.random() * plan.quiet_at * 0.5
        faults.append(Fault(at, at + (plan.quiet_at - at) * dice.random(), "elder", dice.choice(hosts),
                            amount=dice.random()))
    plan = _each(plan, lambda tenant: replace(tenant, options={
        name: value for name, value in tenant.options.items() if name != "max_connections"}))  # they may come besides
    return plan.without(faults=tuple(sorted(faults, key=lambda fault: fault.at)))


def _by_websocket(dice: random.Random, plan: Plan) -> Plan:
    whom = {tenant.name for tenant in plan.tenants if "tcp" in tenant.binds and dice.random() < 0.6}

    def change(tenant: Tenant) -> Tenant:
        ways = tuple(replace(way, kind="ws") if way.kind == "tcp" and way.to in whom else way for way in tenant.ways)
        binds = tuple("ws" if kind == "tcp" and tenant.name in whom else kind for kind in tenant.binds)
        return replace(tenant, ways=ways, binds=binds)

    return _each(plan, change).without(send_buffer=max(plan.send_buffer, 4096),
                                       receive_buffer=max(plan.receive_buffer, 4096))


def _with_proxies(dice: random.Random, plan: Plan) -> Plan:
    """Creators, one to three proxies, and workers; any of them may be killed."""
    names = iter(NAMES)
    proxies = [(next(names), next(names)) for _ in range(dice.choice((1, 1, 2, 3)))]
    creators = [next(names) for _ in range(dice.randint(1, 3))]
    workers = [next(names) for _ in range(dice.randint(1, 3))]
    hasty, reliable_world = dice.random() < 0.5, dice.random()
    tenants = []

    def options_of(**fixed: object) -> dict[str, object]:
        options = draw_options(dice, hasty, reliable_world)
        options.pop("max_resends", None)
        options.pop("on_full", None)
        if options["send_mode"] is SendMode.PUBLISH:
            options["send_mode"] = SendMode.ROUNDROBIN
        return {**options, **fixed}

    for front, back in proxies:
        reliable = DeliveryGuarantee.AT_LEAST_ONCE if dice.random() < 0.8 else DeliveryGuarantee.AT_MOST_ONCE
        refuses = {"on_full": OnFull.RAISE} if dice.random() < 0.1 else {}
        tenants.append(Tenant(front, front, options_of(), ("tcp",), relays_to=back))
        behind = options_of(delivery_guarantee=reliable, **refuses)
        if reliable is DeliveryGuarantee.AT_MOST_ONCE:
            behind.pop("max_unacked", None)
        elif dice.random() < 0.3:
            behind["max_unacked"] = dice.choice((1, 5))  # then much is kept by the proxy
        tenants.append(Tenant(back, front, behind, ("tcp",)))
    for name in creators:
        options = options_of()
        if options["delivery_guarantee"] is DeliveryGuarantee.AT_MOST_ONCE:
            options.pop("max_unacked", None)
        tenants.append(Tenant(name, name, options, (), tuple(Way("tcp", front) for front, _ in proxies)))
    for name in workers:
        options = options_of()
        taking = Taking()
        if dice.random() < 0.4:
            taking = Taking(every=dice.choice((0.1, 1.0)), most=dice.choice((1, 3)))
        if options["ack_mode"] is AckMode.MANUAL:
            taking = replace(taking, refuses=dice.choice((0.0, 0.1)), answers_late=dice.choice((0.0, 0.01, 1.0)))
        tenants.append(Tenant(name, name, options, (), tuple(Way("tcp", back) for _, back in proxies), taking))
    sends = tuple(replace(send, to=None) for send in draw_sends(
        dice, tuple(tenant for tenant in tenants if tenant.name in creators), plan.quiet_at))
    faults = [*draw_faults(dice, tuple(tenants), sends, plan.quiet_at)]
    for _ in range(dice.choice((0, 1, 3)) if faults and sends else 0):  # they die while much is on its way
        at = min(dice.choice(sends).at + dice.choice((0.0001, 0.003, 0.1)) * dice.random(), 0.95 * plan.quiet_at)
        faults.append(Fault(at, min(at + dice.choice((0.3, 2.0)), plan.quiet_at), "kill", dice.choice(proxies)[0]))
    return plan.without(tenants=tuple(tenants), sends=sends, closes=(),
                        faults=tuple(sorted(faults, key=lambda fault: fault.at)))
