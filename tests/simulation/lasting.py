"""Worlds in which what is sent outlives who has sent it, and what a receiver knows outlives that: with outboxes,
memories, disks that are full, and more deaths. Drawn, as the others are, from the seed alone."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

from netmsg import AckMode, DeliveryGuarantee, OnFull, SendMode

from .plan import Fault, Plan, Tenant
from .talk import draw_any as draw_talk

__all__ = ["FIRST", "draw_any"]

FIRST: Final = 200_000
"""The first seed of such worlds: see `netmsg.simulation.talk`."""


def draw_any(seed: int) -> Plan:
    """The world of ``seed``."""
    if seed < FIRST:
        return draw_talk(seed)
    dice = random.Random(f"{seed}/lasting")
    plan = draw_talk(seed % 50_000 if dice.random() < 0.7 else 100_000 + seed % 50_000)
    plan = plan.without(seed=seed, tenants=tuple(
        tenant if tenant.name in plan.proxies else _lasting(dice, tenant) for tenant in plan.tenants))
    return plan.without(faults=_more_deaths(dice, plan))


def _lasting(dice: random.Random, tenant: Tenant) -> Tenant:
    options = dict(tenant.options)
    if not tenant.publishes and "conflate" not in options and dice.random() < 0.7:
        options |= {"delivery_guarantee": DeliveryGuarantee.AT_LEAST_ONCE, "send_mode": SendMode.ROUNDROBIN,
                    "outbox": True}
        options.pop("on_no_peer", None)
        if dice.random() < 0.3:
            options["outbox_sync"] = "normal"
        if options.get("on_full") is OnFull.DROP_OLDEST:
            options["on_full"] = OnFull.BLOCK
    if dice.random() < 0.5 and options["ack_mode"] is not AckMode.ON_ARRIVAL:
        options["dedupe_path"] = True
    return replace(tenant, options=options)


def _more_deaths(dice: random.Random, plan: Plan) -> tuple[Fault, ...]:
    """While something is being written, above all."""
    faults = [*plan.faults]
    for _ in range(dice.choice((0, 1, 2, 4)) if plan.sends else 0):
        send = dice.choice(plan.sends)
        host = plan.tenant(send.who).host if dice.random() < 0.7 else dice.choice(plan.hosts())
        at = min(send.at + 0.05 * dice.random(), 0.95 * plan.quiet_at)
        kind = dice.choice(("kill", "kill", "power", "full"))
        faults.append(Fault(at, min(at + dice.choice((0.05, 0.5, 5.0)), plan.quiet_at), kind, host))
    return tuple(sorted(faults, key=lambda fault: fault.at))
