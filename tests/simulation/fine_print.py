"""More promises: what the contract says of single settings and of what a Søcket tells of itself. As in `promises`, each
raises `BrokenPromise`. Most of them look only at worlds in which that one thing can be told from everything else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from netmsg import OnFull

from .plan import NAMES
from .program import identity_of, name_of
from .promises import promise, why

if TYPE_CHECKING:
    from .journal import Sent
    from .program import User
    from .world import World

__all__ = ["AFTER_CLOSING", "ALL_ALONG", "AT_REST"]

WHEN_FULL: Final = {
    OnFull.BLOCK: ({"SendTimeoutError"}, False),
    OnFull.RAISE: ({"QueueFullError"}, False),
    OnFull.DROP_OLDEST: (set(), True),
    OnFull.DROP_NEWEST: (set(), True),
    OnFull.DISCONNECT: ({"SendTimeoutError"}, True),
}
"""What `send` raises where it need not wait for long, and whether it may drop."""
QUEUE_FULL: Final = "send queue full"
AT_CLOSE: Final = "given up at close"
SETTLING: Final = 20.0
"""Seconds after which nothing is to be seen of a fault any more."""

LONGEST_STAY: Final = 30.0
"""Seconds for which an intruder is let stay, at the most: two timeouts of heartbeats."""


def _is_calm(world: World, since: float = 0.0, until: float = float("inf")) -> bool:
    """Whether nothing goes wrong meanwhile, and nobody ends."""
    return not any(fault.at < until and fault.until + SETTLING > since for fault in world.plan.faults) \
        and not any(since - SETTLING < close.at < until for close in world.plan.closes)


def _is_roomy(world: World) -> bool:
    """Whether nobody ever meets a mark, and what comes is taken at once."""
    return world.plan.send_buffer >= 4_096 and world.plan.receive_buffer >= 4_096 and world.plan.piece > 100 \
        and all(tenant.is_plain for tenant in world.plan.tenants)


def _policy(user: User) -> OnFull:
    chosen: OnFull | None = user.tenant.option("on_full")
    return chosen or (OnFull.DROP_OLDEST if user.tenant.publishes else OnFull.BLOCK)


def _open(world: World) -> Iterator[User]:
    for user in world.users:
        if user.closing_since is None:
            yield user


# All along

def only_the_invited_are_there(world: World) -> None:
    """``authorize`` lets in whom it likes, and ``max_connections`` no more than that."""
    for user in _open(world):
        peers = user.socket.peers()
        promise("only the invited are there", len(peers) <= user.tenant.option("max_connections"), "%s has %d peers",
                user.name, len(peers))
        if user.tenant.admits is not None:
            for peer in peers:
                name = name_of(peer.identity)
                promise("only the invited are there", name in NAMES, "%s has let in %r", user.name, name)


# At rest

def a_full_queue_does_what_was_chosen(world: World) -> None:
    """``on_full``: wait, raise, drop, or disconnect."""
    for user in _open(world):
        raised, drops = WHEN_FULL[_policy(user)]
        for sent in world.journal.by_life.get((user.name, user.life), ()):
            if user.durable and sent.refused in ("OSError", "under way"):
                continue  # the disk was full
            promise("a full queue does what was chosen", sent.refused in {"", *raised}, "%s was refused: %s, with %s",
                    sent, sent.refused, _policy(user))
        lost = user.socket.stats().dropped.get(QUEUE_FULL, 0)
        promise("a full queue does what was chosen", drops or not lost, "%s has dropped %d, with %s", user.name, lost,
                _policy(user))


def who_goes_was_chosen(world: World) -> None:
    """DROP_OLDEST makes room for what comes, and DROP_NEWEST keeps what waits."""
    for user in _open(world):
        policy = _policy(user)
        for sent in world.journal.by_life.get((user.name, user.life), ()):
            if sent.receipt is not None and sent.receipt.failed and "queue was full" in why(sent.receipt):
                promise("who goes was chosen", sent.turned_away or policy is not OnFull.DROP_NEWEST,
                        "%s was dropped after it had been queued, with %s", sent, policy)
                promise("who goes was chosen", not sent.turned_away or policy is not OnFull.DROP_OLDEST,
                        "%s was dropped, and nothing older, with %s", sent, policy)


def events_tell_everything(world: World) -> None:
    """Who comes and goes, what is dropped and what is given up is an event, and counted in ``stats``."""
    for user in _open(world):
        user.listen()
        stats, heard = user.socket.stats(), user.heard
        there = heard["Connected"] - heard["Disconnected"]
        promise("events tell everything", there == len(user.socket.peers()),
                "%s has heard of %d that are there, and there are %d", user.name, there, len(user.socket.peers()))
        told, counted = (heard["Connected"], heard["Disconnected"]), (stats.connections, stats.disconnections)
        promise("events tell everything", told == counted, "%s has heard of %s that came and went, and counts %s",
                user.name, told, counted)
        promise("events tell everything", user.heard_dropped == {
            cause: count for cause, count in stats.dropped.items() if count}, "%s has heard of drops %s, and counts %s",
            user.name, dict(user.heard_dropped), stats.dropped)
        promise("events tell everything", heard["Undelivered"] == stats.undelivered,
                "%s has heard of %d given up, and counts %d", user.name, heard["Undelivered"], stats.undelivered)


NEWCOMERS: Final = 200
"""So many unacknowledged messages a peer is given who has not said yet how many he holds; then the next one has all."""


def everybody_has_his_turn(world: World) -> None:
    """Round-robin: among those who are there, in a stable order, each one gets the next message."""
    if not (_is_calm(world) and _is_roomy(world)) or world.plan.proxies or world.plan.asks:
        return  # a request takes a turn, and behind a proxy it is its turns that count
    for (name, _), sends in world.journal.by_life.items():
        if world.plan.tenant(name).publishes or (world.plan.tenant(name).reliable and len(sends) > NEWCOMERS):
            continue
        run: list[Sent] = []
        for sent in sends:
            if sent.to is not None or len(sent.there) < 2 or len(sent.deliveries) != 1 \
                    or (run and run[-1].there != sent.there):
                run = []
                continue
            run = [*run, sent][-len(sent.there):]
            whom = [one.deliveries[0].to for one in run]
            promise("everybody has his turn", len(set(whom)) == len(whom), "%s went to %s, of %s",
                    [str(one) for one in run], whom, [identity.rstrip(b".").decode() for identity in sent.there])


def what_is_published_comes_to_all(world: World) -> None:
    """Once, to everybody who is there."""
    if not _is_calm(world) or world.plan.proxies:
        return
    for user in _open(world):
        stats = user.socket.stats()
        if not user.tenant.publishes or stats.dropped or stats.disconnections:
            continue
        for sent in world.journal.by_life.get((user.name, user.life), ()):
            if sent.to is None and not sent.refused:
                whom = {identity_of(delivered.to) for delivered in sent.deliveries}
                wanting = {identity for identity in sent.there if _wants(world, identity, sent)}
                promise("what is published comes to all", whom.issuperset(wanting), "%s came to %s, of %s", sent,
                        whom, wanting)


def _wants(world: World, identity: bytes, sent: Sent) -> bool:
    """Whether whoever has that identity is to get it."""
    name = name_of(identity)
    if name not in world.plan.names:
        return False  # an intruder
    tenant = world.plan.tenant(name)
    return not tenant.option("conflate") and (not tenant.wants or sent.label.startswith(tenant.wants))


def nothing_is_sent_again_for_nothing(world: World) -> None:
    """Before ``resend_after`` there is no need to."""
    plan = world.plan
    slow = (plan.latency + plan.jitter) * 4 + max(
        [tenant.taking.answers_late for tenant in plan.tenants], default=0.0)
    if not (_is_calm(world) and _is_roomy(world)) or plan.proxies or any(
            tenant.taking.refuses or tenant.admits is not None for tenant in plan.tenants):
        return  # who takes his time to let somebody in reads nothing meanwhile
    for user in _open(world):
        stats = user.socket.stats()
        if slow < user.tenant.option("resend_after") and not stats.disconnections:
            promise("nothing is sent again for nothing", not stats.resent, "%s has sent %d again", user.name,
                    stats.resent)


def nobody_is_at_the_door(world: World) -> None:
    """Whoever does not come to the end of a handshake within ``handshake_timeout``, or is silent for longer than
    ``heartbeat_timeout``, is gone."""
    for intruder in world.intruders:
        promise("nobody is at the door", intruder.stayed < LONGEST_STAY,
                "an intruder, with %s, has been there for %.1f s", intruder.speech, intruder.stayed)


# After closing

def close_tells_what_it_gave_up(world: World) -> None:
    """It returns how many messages those were, and their receipts say so."""
    if world.plan.asks:
        return  # requests and replies are among it
    for user in world.users:
        if not user.closed or user.closing_since is None or user.stands_between or user.tenant.option("conflate"):
            continue
        given_up = user.socket.close()
        accepted = [sent for sent in world.journal.by_life.get((user.name, user.life), ()) if not sent.refused]
        if not user.reliable:
            stats = user.socket.stats()
            if not user.tenant.publishes:
                count = len(accepted) + user.replied
                left = count - stats.sent - sum(stats.dropped.values()) + stats.dropped.get(AT_CLOSE, 0)
                promise("close tells what it gave up", given_up == left == stats.dropped.get(AT_CLOSE, 0),
                        "%s: %d, and it was %d: %s", user.name, given_up, left, stats.dropped)
            continue
        receipts = [sent.receipt for sent in accepted if sent.receipt is not None]
        promise("close tells what it gave up", all(one.acked or one.failed for one in receipts),
                "%s has receipts that wait for ever", user.name)
        if user.durable:
            promise("close tells what it gave up", not given_up, "%s gave up %d, and has an outbox", user.name,
                    given_up)
            continue
        if user.tenant.option("max_resends") is not None:
            continue  # of those that fail meanwhile some are given up for that
        failed = sum(one.failed for one in receipts) - user.failed_before_closing
        promise("close tells what it gave up", failed == given_up, "%s: %d, and of its receipts %d have failed",
                user.name, given_up, failed)


def close_waits_for_what_is_on_its_way(world: World) -> None:
    """As long as it may linger, if somebody is there who takes it."""
    if any(tenant.wants or tenant.option("conflate") for tenant in world.plan.tenants):
        return
    for close in world.plan.closes:
        if close.linger < 2.0 or not _is_roomy(world) or world.plan.latency > 0.01 or world.plan.jitter > 0.01:
            continue
        others = [other for other in world.plan.closes if other is not close]
        if others or any(fault.at < close.at + close.linger and fault.until + SETTLING > close.at
                         for fault in world.plan.faults):
            continue
        for sent in world.journal.sent.values():
            if sent.sender == close.who and close.at - 1.0 < sent.at <= close.at and sent.there and not sent.refused \
                    and (sent.to is None or identity_of(sent.to) in sent.there):
                promise("close waits for what is on its way", sent.deliveries and (
                    sent.receipt is None or sent.receipt.acked), "%s has not come, or is not acknowledged", sent)


ALL_ALONG: Final = (only_the_invited_are_there,)
AT_REST: Final = (
    a_full_queue_does_what_was_chosen, who_goes_was_chosen, events_tell_everything,
    everybody_has_his_turn, what_is_published_comes_to_all, nothing_is_sent_again_for_nothing)
AFTER_CLOSING: Final = (close_tells_what_it_gave_up, close_waits_for_what_is_on_its_way)
