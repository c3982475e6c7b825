"""Less and less of a world that breaks a promise, for as long as it still does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from .plan import Plan

__all__ = ["shrink"]

T = TypeVar("T")
PLAIN: Final = {"latency": 0.0005, "jitter": 0.0, "piece": 1460, "whole": True, "send_buffer": 65_536,
                "receive_buffer": 65_536}
"""What a network is like where nothing is said of it."""


def shrink(plan: Plan, fails: Callable[[Plan], bool], seconds: float = 30.0) -> Plan:
    """The least plan that was found within that time and ``fails`` all the same."""
    until = time.monotonic() + seconds
    while True:
        for less in _steps(plan):
            if time.monotonic() > until:
                return plan
            if fails(less):
                plan = less
                break
        else:
            return plan


def _steps(plan: Plan) -> Iterator[Plan]:
    """Plans that are a little less, the boldest first."""
    for part in ("faults", "closes", "asks", "sends"):
        for fewer in _fewer(getattr(plan, part)):
            yield plan.without(**{part: fewer})
    for tenant in plan.tenants:
        if len(plan.tenants) > 2:
            yield _without_tenant(plan, tenant.name)
    for ask in plan.asks:
        if ask.count > 1:
            yield _with_other(plan, "asks", ask, replace(ask, count=ask.count // 2))
    for send in plan.sends:
        if send.count > 1:
            yield _with_other(plan, "sends", send, replace(send, count=send.count // 2))
        if send.size > 1:
            yield _with_other(plan, "sends", send, replace(send, size=0))
    for name, value in PLAIN.items():
        if getattr(plan, name) != value:
            yield plan.without(**{name: value})
    for tenant in plan.tenants:
        for option in tenant.options:
            if option not in ("send_mode", "delivery_guarantee", "ack_mode", "heartbeat_interval", "heartbeat_timeout",
                              "resend_after"):
                less = {name: value for name, value in tenant.options.items() if name != option}
                yield _with_other(plan, "tenants", tenant, replace(tenant, options=less))
        for way in tenant.ways if len(tenant.ways) > 1 else ():
            ways = tuple(other for other in tenant.ways if other is not way)
            yield _with_other(plan, "tenants", tenant, replace(tenant, ways=ways))
        if tenant.admits is not None:
            yield _with_other(plan, "tenants", tenant, replace(tenant, admits=None))
        if tenant.waits is not None:
            yield _with_other(plan, "tenants", tenant, replace(tenant, waits=None))


def _fewer(parts: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """Without a half, a quarter, and so on, down to one of them."""
    size = len(parts) // 2 or len(parts)
    while size:
        for begin in range(0, len(parts), size):
            yield (*parts[:begin], *parts[begin + size:])
        if size == 1:
            return
        size //= 2


def _with_other(plan: Plan, part: str, old: Any, new: Any) -> Plan:
    return plan.without(**{part: tuple(new if one is old else one for one in getattr(plan, part))})


def _without_tenant(plan: Plan, name: str) -> Plan:
    tenants = tuple(replace(tenant, ways=tuple(way for way in tenant.ways if way.to != name))
                    for tenant in plan.tenants if tenant.name != name)
    hosts = {tenant.host for tenant in tenants}
    return plan.without(
        tenants=tenants,
        sends=tuple(send for send in plan.sends if name not in (send.who, send.to)),
        asks=tuple(ask for ask in plan.asks if name not in (ask.who, ask.to)),
        faults=tuple(fault for fault in plan.faults
                     if fault.host in hosts and (not fault.other or fault.other in hosts)),
        closes=tuple(close for close in plan.closes if close.who != name))
