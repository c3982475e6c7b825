"""Promises about requests, subscriptions, only the newest, and peers of the dialect of 2019. As in `promises`, each
raises `BrokenPromise`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .program import name_of
from .promises import promise

if TYPE_CHECKING:
    from .world import World

__all__ = ["AT_REST"]

RAISED: Final = {"TimeoutError", "ClosedError", "ConnectionBrokenError", "RequestFailedError", "UnknownPeerError",
                 "LocalProtocolError"}


def each_gets_its_own_answer(world: World) -> None:
    """A reply is that to this very request; and otherwise it is told why there is none."""
    for asked in world.journal.asked.values():
        if isinstance(asked.outcome, bytes):
            promise("each gets its own answer", asked.outcome == b"re:" + asked.label, "%s was answered %r", asked,
                    asked.outcome)
            promise("each gets its own answer", asked.served, "%s was answered, and nobody got it", asked)
        elif asked.outcome is not None:
            promise("each gets its own answer", asked.outcome in RAISED, "%s raised %s", asked, asked.outcome)


def who_may_answer_does(world: World) -> None:
    """Where nothing goes wrong, and whoever is asked answers in time, a request is answered."""
    plan = world.plan
    if world.faults or plan.closes or any(
            tenant.answering.silent or tenant.answering.fails or not tenant.is_plain or tenant.admits is not None
            for tenant in plan.tenants) or plan.jitter + plan.latency > 0.01 or plan.receive_buffer < 4096:
        return
    for asked in world.journal.asked.values():
        if asked.to is None and asked.patience >= 5.0 and world.user(asked.asker).socket.peers():
            promise("who may answer does", isinstance(asked.outcome, bytes), "%s: %s", asked, asked.outcome)


def a_request_is_served_once(world: World) -> None:
    """It is sent at most once, whatever becomes of who has it."""
    for asked in world.journal.asked.values():
        promise("a request is served once", len(asked.served) <= 1, "%s was served by %s", asked, asked.served)


def nothing_is_remembered_of_requests(world: World) -> None:
    """When they are over."""
    for user in world.users:
        if user.closing_since is None and not user.asking:
            left = 0 if user.stands_between else len(user.socket._engine.sender.requesting._requests)
            promise("nothing is remembered of requests", not left, "%s still has %d", user.name, left)


def nothing_comes_unwanted(world: World) -> None:
    """Who has subscribed to a part of what is sent at most once is not handed the rest."""
    if world.plan.proxies:
        return  # what they send at least once always comes
    for sent in world.journal.sent.values():
        for delivered in sent.deliveries:
            wants = world.plan.tenant(delivered.to).wants
            promise("nothing comes unwanted", sent.reliable or not wants or sent.label.startswith(wants),
                    "%s came to %s, who wants %s", sent, delivered.to, wants)


def the_newest_comes(world: World) -> None:
    """Whatever is dropped where only the newest is kept, it is not the newest."""
    if world.faults or world.plan.closes or world.plan.proxies:
        return
    for user in world.users:
        accepted = [sent for sent in world.journal.by_life.get((user.name, user.life), ())
                    if not sent.refused]
        if not user.tenant.option("conflate") or not accepted or len(accepted[-1].there) != 1 or accepted[-1].to:
            continue  # one that is sent by identity takes their place, too
        newest = accepted[-1]
        wants = world.plan.tenant(name_of(newest.there[0])).wants
        promise("the newest comes", newest.deliveries or wants and not newest.label.startswith(wants),
                "%s has not come, and is the newest", newest)


def the_old_are_understood(world: World) -> None:
    """What a peer of the dialect of 2019 sends comes once, and in order, whoever else comes and goes."""
    calm = not world.plan.closes and all(fault.kind == "elder" for fault in world.faults)
    for elder in world.elders:
        got = [label for label in elder.sends if world.journal.from_elders.get(label)]
        for label in got:
            promise("the old are understood", len(world.journal.from_elders[label]) == 1 or world.plan.proxies,
                    "%s came %d times", label, len(world.journal.from_elders[label]))
        if calm and elder.greeted and elder.has_said_all and _takes_everything(world, elder.whom):
            promise("the old are understood", got == elder.sends, "of %d messages %d have come", len(elder.sends),
                    len(got))


def _takes_everything(world: World, name: str) -> bool:
    """Whether whoever it is takes all that comes, as soon as it comes, from everybody."""
    if name not in world.plan.names or name in world.plan.proxies:
        return False
    tenant = world.plan.tenant(name)
    return tenant.is_plain and tenant.admits is None and not tenant.wants and not tenant.option("conflate") \
        and "max_connections" not in tenant.options


AT_REST: Final = (each_gets_its_own_answer, who_may_answer_does, a_request_is_served_once,
                  nothing_is_remembered_of_requests, nothing_comes_unwanted, the_newest_comes, the_old_are_understood)
