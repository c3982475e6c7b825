"""Where a message goes: to the next peer with room, to every peer, to one by identity, or to wait. Pure.

The owner serialises the calls (the Søcket's ``route`` lock), with one exception that has its own rules: a sender may
append to the queue of a lane it found in `Router.ring` without asking, if it looks at the lane's ``dead`` afterwards
and calls `give_back` when it is set. Whoever comes second, that sender or the `leave` of the peer, finds the message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from enum import Enum
from typing import Final, NamedTuple

from ..wire.envelope import LARGE_FRAME, payload_of
from ..wire.messages import Features, Kind, Message, Queued, large_size, message_id_of
from .choices import SendMode
from .homeless import Homeless
from .kept import Copies, Kept, Limits, Parked
from .lane import WITHDRAWN, Lane, total_large
from .reservoir import Reservoir
from .topics import Topics

__all__ = ["Departure", "Placed", "Router"]

FEW: Final = 8
_RELIABLE: Final = Kind.RELIABLE  # looking it up in its class would be slow


class Placed(Enum):
    """What became of a message."""

    QUEUED = "queued"
    WAITING = "waiting"
    FULL = "full"
    ABSENT = "absent"


class Departure(NamedTuple):
    """What the departure of a peer did."""

    dead: list[Queued]
    """Messages that went with it."""
    ready: list[Lane]
    """Lanes that have got something to send."""
    requests: Sequence[Queued] = ()
    """Those that the peer has not been sent: see `netmsg.messaging.requests`."""


class Router:
    """The peers of one Søcket, and the messages that have none yet.

    ``reliable`` (at least once): what is given to a lane is kept in its ``unacked``, a lane is full when its window
    is, and messages beyond all windows wait here; otherwise a lane is full when its queue is. Requests and replies are
    sent at most once in any case. ``keeps``: what there is nobody for waits for the first who comes. ``stored``: of
    what is sent at least once the rest waits there, and nothing here for peers that are not there.
    """

    def __init__(self, mode: SendMode, limits: Limits, *, reliable: bool = False, keeps: bool = True,
                 stored: Reservoir | None = None) -> None:
        self.ring: tuple[Lane, ...] = ()
        """The peers, in the order they came: an immutable snapshot, replaced at every change."""
        self.turn = 0
        self._turn_to_answer = 0
        self.waiting = Kept()
        """Messages for any peer, oldest first: for none has come, or every window is full."""
        self.homeless = Homeless()
        """At-least-once messages that peers have handed back, and nobody else has had room for."""
        self.parked = Parked(limits)
        self.copies = Copies()
        self.stored = stored
        self.mode = mode
        self.limits = limits
        self.reliable = reliable
        self.keeps = keeps
        self.topics = Topics()
        self.newest = b""
        """Where only the newest message is kept: its id, to whomever of the peers it went."""
        self._by_identity: dict[bytes, Lane] = {}
        self._published = 0
        self._alone_since = 0  # how many had been published when the last peer went
        self._surely = 0  # so many small messages may be published before a peer's queue has to be looked at
        self.large = min(LARGE_FRAME, max(1, limits.bytes // limits.messages))
        """From this many bytes of payload on a message has to be kept in two, and is counted in bytes: any smaller one
        reaches the mark in messages first."""
        self.bare = Kind.PUBLISHED if mode is SendMode.PUBLISH else Kind.PLAIN
        """What a message is of which nothing else is said."""

    def kind_of(self, message: Queued) -> Kind:
        return self.bare if isinstance(message, bytes) else message.kind

    # Peers

    def find(self, identity: bytes) -> Lane | None:
        """The way to a peer that is connected."""
        return self._by_identity.get(identity)

    def join(self, lane: Lane) -> None:
        """A peer has come: it gets what has been waiting for it and for anybody."""
        lane.dead = False
        self.copies.comes(lane, self._published)
        if self.waiting:
            lane.queued_since = self._alone_since
        if self.mode is not SendMode.PUBLISH:
            lane.newest = self.newest  # which it may have been sent when it was there before
        self._by_identity[lane.identity] = lane
        for message in self.copies.take(lane.dialled, lane):
            lane.give(message)
        self._fill(lane)
        lane.note_backlog(len(lane.queue), lane.large_bytes)
        self.ring += (lane,)
        self._surely = 0

    def succeed(self, old: Lane, new: Lane, *, finish: bool) -> list[Queued]:
        """Another connection to the same peer takes the place of ``old``, with all that is still to be sent or to be
        acknowledged, within its window or not: nothing is lost by it or goes to the others, and the order is kept.
        ``finish``: ``old`` goes on with what it is writing. Returned are the requests that were not sent: those who
        have asked give them to somebody."""
        old.finishing = finish
        old.dead = True
        messages, requests = self.take_back(old)
        new.dead = False
        new.since, new.queued_since, new.visits = old.since, old.queued_since, old.visits
        new.features = old.features
        new.newest = old.newest
        self._by_identity[new.identity] = new
        self.ring = tuple(new if lane is old else lane for lane in self.ring)
        self._surely = 0
        self.topics.forget(old)  # it tells anew
        copies = self.copies.take(new.dialled, new)
        for message in (*copies, *messages):
            new.give(message)
        if self.reliable:
            self.refill(new)
        new.add_to_backlog(old, copies)
        return requests

    def bring(self, lane: Lane, endpoint: object) -> list[Lane]:
        """What is kept for an endpoint goes to the peer to which it has turned out to lead: the lane, if it got any."""
        copies = self.copies.take(endpoint, lane) if self._by_identity.get(lane.identity) is lane else []
        if not copies:
            return []
        self._inherit(lane, copies)
        lane.add_to_backlog(lane, copies)
        return [lane]

    def leave(self, lane: Lane) -> Departure:
        """A peer has gone: what it was not sent goes to the others, before anything newer, or waits."""
        self._surely = 0
        self.topics.forget(lane)
        lane.dead = True
        if lane in self.ring:
            index = self.ring.index(lane)
            self.ring = self.ring[:index] + self.ring[index + 1:]
            if index < self.turn:
                self.turn -= 1
        was_there = self._by_identity.get(lane.identity) is lane
        if was_there:
            del self._by_identity[lane.identity]
        departure = self.give_back(lane)
        if was_there:
            self.copies.goes(lane, self._published)
            if not self.ring:
                self._alone_since = self._published
        return departure

    def give_back(self, lane: Lane) -> Departure:
        """Take back what is in the queue of a dead lane. May be called any number of times."""
        messages, requests = self.take_back(lane)
        heir = self._by_identity.get(lane.identity)
        inherited: list[Queued] = []
        dead: list[Queued] = []
        anybodys: list[Queued] = []
        addressed: list[Queued] = []
        for message in messages:
            kind = self.kind_of(message)
            if kind is _RELIABLE:
                (anybodys if message.addressee is None else addressed).append(message)  # type: ignore[union-attr]
            elif heir is not None and heir is not lane:
                inherited.append(message)
            elif kind is Kind.PLAIN:
                anybodys.append(message)
            elif kind is not Kind.PUBLISHED or not self._keep_copy(lane, message):
                dead.append(message)
        self.parked.put_back(lane.identity, addressed)
        self.waiting.put_back(anybodys)
        ready = self.distribute()
        if not (self.keeps or self.ring):
            dead += self.waiting
            self.waiting = Kept()
        if heir is not None and inherited:
            self._inherit(heir, inherited)
            ready.append(heir)
        return Departure(dead, ready, requests)

    def take_back(self, lane: Lane) -> tuple[list[Queued], list[Queued]]:
        """What a lane was given and has not sent, or its peer not acknowledged; and the requests among it."""
        with lane.lock:
            queued = lane.take_back()
        messages: list[Queued] = []
        requests: list[Queued] = []
        for message in queued:
            kind = self.kind_of(message)
            if kind is Kind.REQUEST:
                requests.append(message)
            elif kind is not _RELIABLE and message is not WITHDRAWN:  # of the former `unacked` has all
                messages.append(message)
        if self.reliable:
            messages += lane.take_unacked()
        return messages, requests

    def _keep_copy(self, lane: Lane, message: Queued) -> bool:
        """Of a message published, for a peer that we are going to dial again."""
        return self.keeps and lane.dialled is not None and self.copies.keep(lane, message, self._published, self.limits)

    def _inherit(self, heir: Lane, messages: list[Queued]) -> None:
        """The peer is there, by another connection: what is left of the old one goes out there, and first, unless
        newer messages are on their way already."""
        self._surely = 0
        with heir.lock:
            if heir.held and (heir.writing is None or not heir.writing.messages):
                heir.queue[:0] = messages
                heir.large_bytes += total_large(messages)
                return
        for message in messages:
            heir.give(message)

    def distribute(self) -> list[Lane]:
        """Hand what waits for anybody to the peers with room: the lanes that got something."""
        ready: list[Lane] = []
        while self.waiting and self.ring:
            lane = self.next_with_room()
            if lane is None:
                break
            self._move(self.waiting, lane)
            if lane not in ready:
                ready.append(lane)
        return ready

    # Messages

    def place(self, message: Queued, identity: bytes | None = None) -> tuple[Placed, Iterable[Lane]]:
        """Queue ``message`` where it belongs: what became of it, and the lanes it went to."""
        if identity is not None:
            return self._place_by_identity(message, identity)
        ring = self.ring
        if self._surely > 0 and type(message) is bytes:
            self._surely -= 1
            self._published += 1
            try:
                for lane in ring:
                    lane.queue.append(message)
            except BaseException:
                self._publish_to_rest(message, ring, lane)
                raise
            return Placed.QUEUED, ring
        if self.mode is SendMode.PUBLISH and ring:
            lanes = self.audience(message)
            if not all(map(self.has_room, lanes)):
                return Placed.FULL, ()
            self.publish(message, lanes)
            if not self.topics:
                self._surely = self.limits.messages - max(len(lane.queue) for lane in ring)
            return Placed.QUEUED, lanes
        if ring and not self.waiting and (not self.homeless.messages or self.waiting_has_room()):
            next_one = self.next_with_room()
            if next_one is not None:
                next_one.give(message)
                return Placed.QUEUED, (next_one,)
            if not self.reliable:
                return Placed.FULL, ()
        if not (self.keeps or ring):
            return Placed.ABSENT, ()
        if not self.waiting_has_room():
            return Placed.FULL, ()
        self._published += 1
        self.waiting.add(message)
        return Placed.WAITING, ()

    def place_stored(self, message: Message) -> Lane | None:
        """Queue what is stored, and has been loaded because it is wanted: with somebody who has room, whose lane it is.
        If there is nobody any more, it waits."""
        identity = message.addressee
        if identity is None:
            lane = None if self.waiting else self.next_with_room()
        else:
            lane = self._by_identity.get(identity)
            if lane is not None and (self.parked.of(identity) or not self.has_room(lane)):
                lane = None
        if lane is not None:
            lane.give(message)
        elif identity is None:
            self.waiting.add(message)
        else:
            self.parked.add(identity, message)
        return lane

    def audience(self, message: Queued) -> Sequence[Lane]:
        """Who is there and is to get what is published."""
        return self.topics.audience(payload_of(message), self.ring) if self.topics else self.ring

    def subscribe(self, lane: Lane, prefixes: Iterable[bytes]) -> bool:
        """A peer wants what begins with one of these; false if it wants too much. Nothing to do where nothing is
        published, or that is sent by another connection of its."""
        if self.mode is not SendMode.PUBLISH or self._by_identity.get(lane.identity) is not lane:
            return True
        self._surely = 0
        return all([self.topics.subscribe(lane, prefix) for prefix in prefixes])

    def publish(self, message: Queued, lanes: Sequence[Lane]) -> None:
        """A copy to each of ``lanes``, room or not; to all of them also where an interrupt comes in between."""
        self._surely = 0
        self._published += 1
        large = large_size(message)
        try:
            for lane in lanes:
                lane.large_bytes += large
                lane.queue.append(message)
        except BaseException:
            self._publish_to_rest(message, lanes, lane)
            raise

    def _publish_to_rest(self, message: Queued, lanes: Sequence[Lane], last: Lane) -> None:
        """After an interrupt, which comes after an append and not before it, to ``last``: to those behind."""
        self.publish(message, lanes[lanes.index(last) + 1:])

    def _place_by_identity(self, message: Queued, identity: bytes) -> tuple[Placed, Iterable[Lane]]:
        self._surely = 0
        lane = self._by_identity.get(identity)
        once = self.kind_of(message) is not _RELIABLE
        if lane is not None and self.has_room(lane, once=once) and (once or not self.parked.of(identity)):
            lane.give(message)
            return Placed.QUEUED, (lane,)
        if once:
            return (Placed.ABSENT if lane is None else Placed.FULL), ()
        if not self.parked.has_room(identity):
            return Placed.FULL, ()
        self.parked.add(identity, message)
        return Placed.WAITING, ()

    def place_request(self, message: Message) -> Lane | None:
        """Queue a request where it can be answered: with its addressee, or with the next peer in turn; whose lane it
        is. ``None`` where nobody can, or has room."""
        self._surely = 0
        lane = self._next_to_answer() if message.addressee is None else self._by_identity.get(message.addressee)
        if lane is None or not self._takes_requests(lane):
            return None
        lane.give(message)
        return lane

    def _next_to_answer(self) -> Lane | None:
        ring = self.ring
        for number in range(len(ring)):
            index = (self._turn_to_answer + number) % len(ring)
            if self._takes_requests(ring[index]):
                self._turn_to_answer = index + 1
                return ring[index]
        return None

    def _takes_requests(self, lane: Lane) -> bool:
        return Features.REQUESTS in lane.features and self.has_room(lane, once=True)

    def full_lanes(self, identity: bytes | None = None, *, once: bool = False,
                   audience: Sequence[Lane] | None = None) -> list[Lane]:
        """The peers that stand in the way of a message to ``identity``, or to anybody; or to this ``audience``."""
        if identity is not None:
            lane = self._by_identity.get(identity)
            return [lane] if lane is not None and not self.has_room(lane, once=once) else []
        if self.mode is SendMode.PUBLISH:
            return [lane for lane in (self.ring if audience is None else audience) if not self.has_room(lane)]
        return list(self.ring)

    def lanes_behind(self, audience: Sequence[Lane] | None = None) -> list[Lane]:
        """Those of the full ones that have had the chance to take what fills them."""
        return [lane for lane in self.full_lanes(audience=audience) if not self._is_catching_up(lane)]

    def refill(self, lane: Lane) -> list[Lane]:
        """The window of ``lane`` has opened: give it what has been waiting."""
        if lane.dead or not (self.waiting or self.parked.count):
            return []
        before = lane.given  # and not the length of its queue, which others shorten meanwhile
        self._fill(lane)
        return [lane] if lane.given > before else []

    def take_from(self, lane: Lane, message_id: bytes) -> Message | None:
        """A peer hands a message back: which it is, if others may have it as well, and it is not about to be sent it
        again."""
        message = lane.unacked.get(message_id)
        if message is None or message.addressee is not None:
            return None
        with lane.lock:
            on_its_way = message.number > lane.sent_messages + lane.held_messages
        if on_its_way:
            return None
        lane.forget(message_id)
        return message

    def take_all(self) -> list[Queued]:
        """Every message that has no peer, at the end."""
        messages = [*self.waiting, *self.homeless.messages.values(), *self.parked.take_all(), *self.copies.take_all()]
        self.waiting = Kept()
        self.homeless = Homeless()
        return messages

    # Room

    def has_room(self, lane: Lane, *, once: bool = False) -> bool:
        """For one message more; ``once``: for one that is sent at most once, even so."""
        if self.reliable and not once:
            return len(lane.unacked) < lane.window and lane.unacked_large < self.limits.bytes
        return len(lane.queue) < self.limits.messages and lane.large_bytes < self.limits.bytes

    def _is_catching_up(self, lane: Lane) -> bool:
        """Whether it would have room but for what was kept for it before it came."""
        left = lane.backlog - lane.sent_messages
        return (left > 0 and len(lane.queue) - left < self.limits.messages
                and lane.large_bytes - lane.backlog_bytes < self.limits.bytes)

    def waiting_has_room(self) -> bool:
        waiting = len(self.waiting) + len(self.homeless)
        if self.copies and not self.ring:
            # A peer that we dial is going to get what waits for it behind the copies that are kept for it.
            waiting += self.copies.longest
        return waiting < self.limits.messages and self.unplaced_large < self.limits.bytes

    @property
    def unplaced_large(self) -> int:
        """How many bytes the large ones have of what waits for a peer, as far as one peer may get it."""
        large = self.waiting.large + self.homeless.large
        return large if self.ring or not self.copies else large + self.copies.largest

    def next_in_turn(self) -> Lane | None:
        if not self.ring:
            return None
        return self.ring[self.turn if self.turn < len(self.ring) else 0]

    def next_with_room(self) -> Lane | None:
        """The next peer in turn that has room; the turn moves on behind it."""
        ring = self.ring
        count = len(ring)
        index = self.turn
        for _ in range(count):
            if index >= count:
                index = 0
            lane = ring[index]
            index += 1
            if self.has_room(lane):
                self.turn = index
                return lane
        return None

    def next_but(self, identities: Set[bytes]) -> Lane | None:
        """The same among all but those. What it takes does not grow with the number of peers while all are busy."""
        if self.homeless.messages:
            others = self.homeless.refusers - identities
            if len(others) < FEW:
                lanes = [lane for lane in map(self._by_identity.get, others) if lane is not None]
                return min(filter(self.has_room, lanes), key=lambda lane: len(lane.unacked), default=None)
        ring = self.ring
        for number in range(len(ring)):
            index = (self.turn + number) % len(ring)
            lane = ring[index]
            if lane.identity not in identities and self.has_room(lane):
                self.turn = index + 1
                return lane
        return None

    @property
    def unplaced(self) -> int:
        """How many messages have no peer."""
        in_memory = len(self.waiting) + len(self.homeless) + self.parked.count + self.copies.count
        return in_memory if self.stored is None else in_memory + self.stored.beyond

    @property
    def waits_for_anybody(self) -> bool:
        """Whether anything waits that anybody may get."""
        return bool(self.waiting or self.homeless.messages
                    or (self.stored is not None and self.stored.stream(None).beyond))

    def waits_for(self, identity: bytes) -> bool:
        """Whether anything waits that a peer may get, but for copies of what was published."""
        return bool(self.waits_for_anybody or self.parked.of(identity)
                    or (self.stored is not None and self.stored.has_for(identity)))

    # How messages move

    def _move(self, kept: Kept, lane: Lane, parked: Parked | None = None) -> None:
        """Give a lane the oldest of what is kept, in ``parked`` or elsewhere."""
        message = kept[0]
        large = large_size(message)
        reliable = None if isinstance(message, bytes) or message.kind is not _RELIABLE else message
        queue = lane.queue
        # From here to the append no call: see `Lane.give`, and `netmsg.messaging.kept`.
        if parked is not None:
            parked.count -= 1
            parked.large -= large
        kept.large -= large
        del kept[0]
        lane.large_bytes += large
        if reliable is not None:
            lane.unacked_large += large
            lane.given = reliable.number = lane.given + 1
            lane.unacked[reliable.message_id] = reliable
        queue.append(message)

    def _fill(self, lane: Lane) -> None:
        """Give a lane what waits for it and what waits for anybody, in the order of sending: all of it at most once,
        within the window at least once."""
        waiting = self.waiting
        parked = self.parked.of(lane.identity)
        while parked and self.has_room(lane):
            if waiting and _is_older(waiting[0], parked[0]):
                self._move(waiting, lane)
            else:
                self._move(parked, lane, self.parked)
        self.parked.tidy(lane.identity)
        while waiting and (not self.reliable or self.has_room(lane)):
            self._move(waiting, lane)


def _is_older(one: Queued, other: Queued) -> bool:
    """Of two at-least-once messages, whose ids are in the order of sending."""
    return message_id_of(one) < message_id_of(other)
