"""The invariants: what the contract promises, as checks of a `World`. Each raises `BrokenPromise`, which names it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from netmsg import AckMode, OnDuplicate, OnFull, Receipt, UndeliveredError
from netmsg.messaging.population import PROBE_MARGIN

from .journal import Sent
from .program import identity_of

if TYPE_CHECKING:
    from .plan import Tenant
    from .program import Program, User
    from .world import World

__all__ = ["AT_REST", "AT_THE_END", "BrokenPromise", "idling_costs_nothing", "is_settled", "marks_hold",
           "nobody_changes_places", "nobody_spins", "nothing_is_under_way"]

LOSSY: Final = {OnFull.DROP_OLDEST, OnFull.DROP_NEWEST, OnFull.DISCONNECT}
MOST_ROUNDS: Final = 10_000
"""In a quarter of a second: with pauses of 20 µs between them it is busy all the time."""
HANDSHAKE: Final = 8000
"""Bytes of TLS in both directions."""


class BrokenPromise(AssertionError):
    """A world in which something did not hold that always holds. ``name``: what."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


def promise(name: str, holds: object, text: str, *arguments: object) -> None:
    if not holds:
        raise BrokenPromise(name, text % arguments if arguments else text)


# All along

def marks_hold(world: World) -> None:
    """High-water marks bound memory: what waits to be sent, for each peer and for those to come, and what was received
    and not taken, for each identity."""
    for user in world.users:
        if user.closing_since is None:
            _marks_of(world, user)


def _marks_of(world: World, user: User) -> None:
    tenant = user.tenant
    stats = user.socket.stats()
    peers = max(1, stats.connections)
    mark = tenant.option("recv_hwm")
    # What a connection has brought that then ended is delivered past the mark: nothing received is dropped.
    # And who waits for a reply reads past the mark: it stands behind messages.
    asks = any(ask.who == user.name for ask in world.plan.asks)
    promise("marks hold", user.waiting <= mark * peers or stats.disconnections or asks,
            "%s holds %d messages received and not taken, at a mark of %d and %d peers", user.name, user.waiting, mark,
            peers)
    mark = tenant.option("send_hwm")
    most = (mark + 1) * (len(world.plan.tenants) + len(world.intruders) + 1)
    queued = stats.queued + (stats.unacked if user.reliable else 0)
    promise("marks hold", queued <= 2 * most, "%s holds %d messages to be sent, at a mark of %d", user.name, queued,
            mark)
    if user.reliable and tenant.option("max_unacked") and not world.faults and not world.plan.closes:
        for peer in user.socket.peers():
            promise("marks hold", peer.unacked <= tenant.option("max_unacked"),
                    "%s has %d messages unacknowledged at %s", user.name, peer.unacked, peer.identity)


# At rest: nothing has gone wrong for a while

def is_settled(world: World) -> bool:
    """Whether everybody is connected and has been sent everything."""
    if any(user.closing_since is not None and not user.closed for user in world.users):
        return False  # who lingers may still have much to say
    if any(listener.waiting for program in world.programs.values() for listener in program.host.listeners.values()):
        return False  # whoever that is
    try:
        nothing_is_under_way(world)
        everybody_is_connected(world)
        everything_has_arrived(world)
    except BrokenPromise:
        return False
    return True


def _pairs(world: World) -> Iterator[tuple[User, User]]:
    """Who is to be connected with whom: who dials is first."""
    there = {user.name: user for user in _staying(world)}
    for user in there.values():
        for way in user.tenant.ways:
            if way.to in there and way.to != user.name:
                yield user, there[way.to]


def everybody_is_connected(world: World) -> None:
    """A Søcket connects, and reconnects, for its life: when nothing is in the way any more, both ends know of each
    other."""
    peers = {user.name: {peer.identity for peer in user.socket.peers()} for user in _staying(world)}
    for one, other in _pairs(world):
        promise("everybody is connected", identity_of(other.name) in peers[one.name], "%s does not know %s", one.name,
                other.name)
        promise("everybody is connected", identity_of(one.name) in peers[other.name], "%s does not know %s", other.name,
                one.name)


def _strangers(world: World) -> bool:
    """Whether there were peers of whom the plan knows nothing, to whom messages may have gone."""
    return bool(world.elders) or any(intruder.admitted for intruder in world.intruders)


def partners(world: World, user: User) -> set[str]:
    """With whom it is to be connected, as far as they are there."""
    return {other.name if one is user else one.name for one, other in _pairs(world) if user in (one, other)}


def everything_has_arrived(world: World) -> None:
    """What `send` has accepted is not kept for ever while there is somebody who takes it; and what has come is
    delivered."""
    for user in _staying(world):
        promise("everything arrives", not user.asking, "%s still waits for replies to %s", user.name, user.asking[:3])
        promise("everything arrives", not user.waiting, "%s has %d messages that nobody was handed", user.name,
                user.waiting)
        there = partners(world, user)
        if not there:
            continue
        stats = user.socket.stats()
        kept_for_others = False
        for sent in _sent_by(world, user):
            is_for_another = sent.to is not None and sent.to not in there
            kept_for_others = kept_for_others or is_for_another
            if sent.receipt is not None and not (sent.receipt.acked or sent.receipt.failed):
                promise("everything arrives", is_for_another, "%s is still not acknowledged", sent)
        if user.durable:
            kept_for_others = any(sent.to is not None and sent.to not in there and sent.sender == user.name
                                  for sent in world.journal.sent.values())
        if not kept_for_others and _keeps_nothing_for_the_dead(world, user):
            promise("everything arrives", not stats.queued, "%s still queues %d messages", user.name, stats.queued)


def nothing_is_under_way(world: World) -> None:
    """And nothing is left in the network, but for a heartbeat now and then."""
    under_way = world.network.under_way
    promise("everything arrives", not under_way, "%d bytes are still under way, or not read", under_way)


def _keeps_nothing_for_the_dead(world: World, user: User) -> bool:
    """Publications are kept for the endpoints that it dials, closed ones too."""
    there = {one.name for one in _staying(world)}
    return not user.tenant.publishes or all(way.to in there for way in user.tenant.ways)


def _sent_by(world: World, user: User) -> list[Sent]:
    """What this life of its has accepted."""
    return [sent for sent in world.journal.by_life.get((user.name, user.life), ()) if not sent.refused]


def nothing_fails_inside(world: World) -> None:
    """No step of the network thread raises. (That a disk is full is told as an error, too.)"""
    errors = [error for error in world.errors if "it is full" not in error]
    promise("nothing fails inside", not errors, "%s", "; ".join(errors[:2]))


def nothing_comes_from_nowhere(world: World) -> None:
    """What is delivered was sent, whole, by the one whom it is said to be from."""
    if _strangers(world):
        return
    promise("nothing comes from nowhere", not world.journal.strays, "%s", world.journal.strays[:3])
    between = {*map(identity_of, world.plan.proxies)}
    for sent in world.journal.sent.values():
        for delivered in sent.deliveries:
            promise("nothing comes from nowhere", delivered.sender in {identity_of(sent.sender), b"", *between},
                    "%s is said to be from %r", sent, delivered.sender)
            promise("nothing comes from nowhere", sent.to is None or sent.to == delivered.to,
                    "%s was for %s, and %s got it", sent, sent.to, delivered.to)
            known = sent.refused not in ("", "under way")  # which who dies as it is stored is never told
            promise("nothing comes from nowhere", not known, "%s was refused (%s), and delivered to %s", sent,
                    sent.refused, delivered.to)


def at_most_once(world: World) -> None:
    """Nothing that was sent at most once comes twice: to nobody, nor, if it was published, to the same one."""
    several = len(world.plan.proxies) > 2
    if world.plan.proxies and not _is_undisturbed(world):
        return  # those that send at least once may make two of it
    for sent in world.journal.sent.values():
        if sent.reliable or several and world.plan.tenant(sent.sender).publishes:
            continue  # what is published to several proxies comes by each
        whom = [delivered.to for delivered in sent.deliveries]
        published = world.plan.tenant(sent.sender).publishes and sent.to is None
        promise("at most once", len(set(whom)) == len(whom) and (published or len(whom) <= 1), "%s came to %s", sent,
                whom)


def _is_undisturbed(world: World) -> bool:
    """Whether nothing goes wrong, and nobody ends."""
    return not world.faults and not world.plan.closes


def ids_once_a_receiver(world: World) -> None:
    """A message that is sent again is not delivered again to who has it, unless it was refused."""
    if world.plan.proxies and not _is_undisturbed(world):
        return  # by another proxy it comes under another id
    for sent in world.journal.sent.values():
        if not sent.reliable:
            continue
        counts: dict[tuple[str, int], int] = {}
        for delivered in sent.deliveries:
            key = delivered.to, delivered.life
            counts[key] = counts.get(key, 0) + 1
        for key, count in counts.items():
            promise("ids once a receiver", count <= 1, "%s came %d times to %s", sent, count, key)


def in_order(world: World) -> None:
    """Two ends that have nobody else exchange messages in order, whatever becomes of their connections; and so do all
    whose connections last, or of whom one sends only the newest. What is sent by identity may overtake what waits for
    anybody."""
    if len(world.plan.proxies) > 2 or any(tenant.taking.refuses for tenant in world.plan.tenants):
        return  # one may be faster than another; and what one refuses another one gets later
    if any(world.plan.tenant(name).option("on_full") is OnFull.RAISE for name in world.plan.proxies):
        return  # and what a proxy's back refuses goes back, and comes again
    calm = _is_undisturbed(world)
    alone = len(world.plan.tenants) == 2 and not _strangers(world)
    for (name, life), got in world.journal.order.items():
        last: dict[str, Sent] = {}
        for sent in got:
            user = world.user(sent.sender)
            newest_only = user.tenant.option("conflate") and not world.plan.proxies
            if sent.to is not None or not (calm or alone or newest_only):
                continue
            if not (alone or newest_only) and user.socket.stats().disconnections:
                continue  # what another one was given and has left comes later than what came after it
            before = last.get(sent.sender)
            promise("in order", before is None or (before.life, before.number) < (sent.life, sent.number),
                    "%s got %s after %s", name, sent, before)
            last[sent.sender] = sent


def nothing_reliable_is_lost(world: World) -> None:
    """What was sent at least once is delivered, while anybody lives who has it, if there is somebody to take it."""
    for sent, receipt in _receipts(world):
        if receipt.failed:
            reason = why(receipt)
            tenant = world.plan.tenant(sent.sender)
            promise("nothing reliable is lost", "queue was full" in reason and tenant.option("on_full") in LOSSY
                    or "resends" in reason and tenant.option("max_resends") is not None,
                    "%s was given up: %s", sent, reason)
        elif partners(world, world.user(sent.sender)) and sent.to is None:
            promise("nothing reliable is lost", sent.deliveries or lost_behind(world, sent),
                    "%s was accepted, and nobody got it", sent)


def lost_behind(world: World, sent: Sent) -> bool:
    """Whether somebody has acknowledged it on arrival, and ended before its user had it; or an intruder has."""
    if _strangers(world):
        return True
    backs = {tenant.relays_to for tenant in world.plan.tenants if tenant.relays_to}
    takers = [tenant for tenant in world.plan.tenants if not backs or {way.to for way in tenant.ways} & backs]
    hasty = {tenant.name for tenant in takers if tenant.option("ack_mode") is AckMode.ON_ARRIVAL}
    once = {tenant.relays_to for tenant in world.plan.tenants
            if tenant.relays_to and not world.plan.tenant(tenant.relays_to).reliable}
    chooses = any(tenant.wants or tenant.option("conflate") or tenant.taking.refuses for tenant in world.plan.tenants)
    return bool(hasty | once) and bool(world.past or world.plan.closes) or bool(once) and (
        chooses or bool(world.plan.faults))  # it was on its way, where it is sent at most once


def receipts_are_true(world: World) -> None:
    """A receipt is acknowledged once the other end's user has the message, and not before."""
    alive = {(user.name, user.life) for user in _staying(world)}
    for sent, receipt in _receipts(world):
        if receipt.acked:
            promise("receipts are true", sent.deliveries or lost_behind(world, sent),
                    "%s is acknowledged, and nobody got it", sent)
        elif any((delivered.to, delivered.life) in alive for delivered in sent.deliveries):
            promise("receipts are true", receipt.failed, "%s was delivered, and is not acknowledged", sent)


def _staying(world: World) -> list[User]:
    """Those that run and are not closing."""
    return [user for user in world.users if user.closing_since is None]


def _receipts(world: World) -> Iterator[tuple[Sent, Receipt]]:
    """What those have sent at least once."""
    for user in _staying(world):
        for sent in _sent_by(world, user):
            if sent.receipt is not None:
                yield sent, sent.receipt


def why(receipt: Receipt) -> str:
    """It was given up on."""
    try:
        receipt.wait(timeout=0)
    except UndeliveredError as error:
        return str(error)
    raise AssertionError("it was not")


def everything_is_accounted_for(world: World) -> None:
    """What `send` has accepted was handed to the network, waits, or was dropped and counted, and is only one of
    them."""
    if world.plan.asks:
        return  # requests and replies are counted too, and nobody knows how many those are
    for user in _staying(world):
        if user.stands_between or user.tenant.option("conflate"):
            continue  # which sends what others have sent, or counts what it has received and not delivered as well
        stats = user.socket.stats()
        accepted = _sent_by(world, user)
        dropped = sum(stats.dropped.values())
        if user.durable:
            pass  # what earlier lives have left counts as well
        elif user.reliable:
            failed = sum(sent.receipt.failed for sent in accepted if sent.receipt is not None)
            acked = sum(sent.receipt.acked for sent in accepted if sent.receipt is not None)
            promise("everything is accounted for", len(accepted) == failed + acked + stats.unacked,
                    "%s: of %d messages %d are acknowledged, %d given up, %d outstanding", user.name, len(accepted),
                    acked, failed, stats.unacked)
        elif not user.tenant.publishes:
            count = len(accepted) + user.replied
            promise("everything is accounted for", count == stats.sent + stats.queued + dropped,
                    "%s: of %d messages %d are sent, %d wait, %d were dropped %s", user.name, count, stats.sent,
                    stats.queued, dropped, stats.dropped)
    if world.faults or world.plan.closes or any(tenant.option("on_full") is OnFull.DISCONNECT
                                                for tenant in world.plan.tenants):
        return  # who is disconnected may have been sent what he never got
    if any(tenant.wants or tenant.option("conflate") for tenant in world.plan.tenants) or any(
            user.stands_between and user.socket.stats().dropped for user in world.users):
        return  # not all of it is to be delivered
    sent_to_anybody = {tenant.name for tenant in world.plan.tenants if not tenant.publishes}
    for sent in world.journal.sent.values():
        user = world.user(sent.sender)
        if not sent.refused and sent.sender in sent_to_anybody and not user.socket.stats().dropped \
                and partners(world, user) and (sent.to is None or sent.to in partners(world, user)):
            if sent.receipt is not None and sent.receipt.failed:
                continue  # whether it might be given up, `nothing_reliable_is_lost` looks at
            count = len(sent.deliveries)
            promise("everything is accounted for",
                    count == 1 or (sent.reliable and (count or lost_behind(world, sent))),
                    "%s was delivered %d times, in a world without faults", sent, count)


def nobody_spins(world: World) -> None:
    """Whatever happens, a network thread waits for something now and then."""
    rounds = world.rounds()
    for program, count in rounds.items():
        spent = count - world.rounds_seen.get(program, 0)
        promise("idling costs nothing", spent < MOST_ROUNDS, "%s ran %d rounds in no time", program.host.name, spent)
    world.rounds_seen = rounds


def idling_costs_nothing(world: World, rounds: dict[Program, int], seconds: float) -> None:
    """While nothing happens the network thread sleeps, but for heartbeats and the regular look at all peers."""
    strangers = 2 * len(world.intruders)  # each time that one had is passed over when it is due, long after he has gone
    for program, count in rounds.items():
        _idling_costs_nothing(program, count - strangers, seconds, _redials(world))


def _redials(world: World) -> float:
    """How many rounds in a second they may cost, at either end: of two ways to the same Søcket one is dialled again,
    for ever, and it may be by TLS, in small pieces."""
    ways = sum(len(tenant.ways) for tenant in world.plan.tenants if has_two_ways(tenant))
    return ways * (12.0 + HANDSHAKE / world.plan.piece) / 0.5


def _idling_costs_nothing(program: Program, rounds: int, seconds: float, redials: float) -> None:
    looks = sum(1.0 / max(0.001, min(1.0, user.tenant.option("heartbeat_interval") / 8,
                                     user.tenant.option("heartbeat_timeout") / 8,
                                     user.tenant.option("resend_after") / 8)) for user in program.users)
    peers = sum(len(user.socket.peers()) for user in program.users if user.closing_since is None)
    beats = sum(4.0 / user.tenant.option("heartbeat_interval") for user in program.users) * (1 + peers)
    dials = sum(12.0 / (0.02 if user.tenant.waits is not None else 0.5) * len(user.tenant.ways)
                for user in program.users)  # what is closed is dialled again, as often as the user likes
    most = (2 * looks + beats * 4 + dials + redials + 20.0) * seconds
    promise("idling costs nothing", rounds <= most, "%s ran %d rounds in %d idle seconds, and %d would do",
            program.host.name, rounds, seconds, most)


def has_two_ways(tenant: Tenant) -> bool:
    ways = [way.to for way in tenant.ways]
    return len(set(ways)) < len(ways)


def _give_up_while_probed(world: World) -> int:
    """Endpoints of a pair that dial each other whose handshake runs out while the other end still probes the connection
    that there is: only by chance are they there when that has shown itself, and told that they dial in vain."""
    ways = {(tenant.name, way.to) for tenant in world.plan.tenants for way in tenant.ways}
    count = 0
    for name, to in ways:
        one, other = world.plan.tenant(name), world.plan.tenant(to)
        probe = min(one.option("heartbeat_interval"), other.option("heartbeat_timeout")) + PROBE_MARGIN
        count += ((to, name) in ways and other.option("on_duplicate") is OnDuplicate.PROBE
                  and one.option("handshake_timeout") < probe)
    return count


def nobody_changes_places(world: World, connections: int, seconds: float) -> None:
    """While nothing happens everybody keeps the connections that there are. (Of two ways to the same Søcket either is
    tried again, for ever: somebody else may have its address by now. By UNIX sockets nobody can be told by whom he is
    turned away.)"""
    if any(map(has_two_ways, world.plan.tenants)):
        return
    in_vain = _give_up_while_probed(world) * (1 + seconds)
    promise("idling costs nothing", connections <= in_vain, "%d connections were made in quiet", connections)


# The end

def close_ends_in_time(world: World) -> None:
    """Within its linger."""
    for user in world.users:
        promise("close ends in time", user.closed, "%s is not closed, %.3f s after it was to be, with a linger of %s",
                user.name, world.timeline.now - (user.closing_since or 0.0), user.linger)


def nothing_is_left_behind(world: World) -> None:
    """After `close` there is no timer, descriptor, queue or id left."""
    for program in world.programs.values():
        machine = program.machine
        reactor = machine.reactor
        host = program.host.name
        timers = [timer.function for _, _, timer in reactor.timers if timer.function is not None]
        promise("nothing is left behind", not timers, "%s has %d timers, such as %s", host, len(timers), timers[:1])
        promise("nothing is left behind", not machine.poller.watched, "%s watches %d descriptors", host,
                machine.poller.watched)
        promise("nothing is left behind", not machine.host.descriptors, "%s has %d descriptors", host,
                len(machine.host.descriptors))
        # Where nobody was ever bound nor connected there is no network thread, which would have heard of their losses.
        calls = 0 if machine.rounds else len(program.users)
        promise("nothing is left behind", not reactor.work and len(reactor.calls) <= calls,
                "%s has work left: %s", host, [*reactor.work, *reactor.calls])
        for user in program.users:
            stats = user.socket.stats()
            kept = not user.durable and (stats.queued or stats.unacked)
            promise("nothing is left behind", not (kept or user.socket.peers()),
                    "%s has %d messages queued, %d unacknowledged, and peers %s", user.name, stats.queued,
                    stats.unacked, user.socket.peers())


AT_REST: Final = (
    everybody_is_connected, everything_has_arrived, nothing_fails_inside, nothing_comes_from_nowhere, at_most_once,
    ids_once_a_receiver, in_order, nothing_reliable_is_lost, receipts_are_true, everything_is_accounted_for)
AT_THE_END: Final = (close_ends_in_time, nothing_is_left_behind, nothing_fails_inside, at_most_once)
