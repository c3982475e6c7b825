"""Where a message goes: to the next peer with room, to every peer, to one by identity, or to wait. Pure.

The owner serialises the calls (the Søcket's ``route`` lock), with one exception that has its own rules: a sender may
append to the queue of a lane it found in `Router.ring` without asking, if it looks at the lane's ``dead`` afterwards
and calls `give_back` when it is set. Whoever comes second, that sender or the `leave` of the peer, finds the message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Final, NamedTuple

from ..wire.envelope import LARGE_FRAME
from ..wire.messages import Kind, Queued, large_size, message_id_of
from .choices import SendMode
from .kept import Kept, Limits, Parked
from .lane import Lane

__all__ = ["Departure", "Placed", "Router", "Squeezed"]

_RELIABLE: Final = Kind.RELIABLE  # looking it up in its class would be slow


class Placed(Enum):
    """What became of a message."""

    QUEUED = "queued"
    WAITING = "waiting"
    FULL = "full"
    ABSENT = "absent"


class Squeezed(NamedTuple):
    """What became of a message that took the place of the oldest one."""

    lanes: Iterable[Lane]
    """Lanes that have got something to send."""
    dropped: list[tuple[Queued, bytes | None]]
    """Messages that went for it, and whose queue they were in; where nothing could go, the message itself."""
    refused: bool
    """Whether it was not placed anywhere."""


class Departure(NamedTuple):
    """What the departure of a peer did."""

    dead: list[Queued]
    """Messages that went with it."""
    ready: list[Lane]
    """Lanes that have got something to send."""


class Router:
    """The peers of one Søcket, and the messages that have none yet.

    ``reliable`` (at least once): what is given to a lane is kept in its ``unacked``, a lane is full when its window
    is, and messages beyond all windows wait here; otherwise a lane is full when its queue is.
    """

    def __init__(self, mode: SendMode, limits: Limits, *, reliable: bool = False) -> None:
        self.ring: tuple[Lane, ...] = ()
        """The peers, in the order they came: an immutable snapshot, replaced at every change."""
        self.turn = 0
        self.waiting = Kept()
        """Messages for any peer, oldest first: for none has come, or every window is full."""
        self.parked = Parked(limits)
        self.copies: dict[object, Kept] = {}
        """Published messages for peers that we dial and that went away, by what is dialled, oldest first."""
        self._mode = mode
        self._limits = limits
        self._reliable = reliable
        self._by_identity: dict[bytes, Lane] = {}
        self._came = 0
        self.large = min(LARGE_FRAME, max(1, limits.bytes // limits.messages))
        """From this many bytes of payload on a message has to be kept in two, and is counted in bytes: any smaller one
        reaches the mark in messages first."""
        self.bare = Kind.PUBLISHED if mode is SendMode.PUBLISH else Kind.PLAIN
        """What a message is of which nothing else is said."""

    def kind_of(self, message: Queued) -> Kind:
        return self.bare if isinstance(message, bytes) else message.kind

    # Peers

    def find(self, identity: bytes) -> Lane | None:
        return self._by_identity.get(identity)

    def join(self, lane: Lane) -> None:
        """A peer has come: it gets what has been waiting for it and for anybody."""
        lane.dead = False
        self._came += 1
        lane.came = self._came
        self._by_identity[lane.identity] = lane
        for message in self._take_copies(lane.dialled, lane):
            self._give(lane, message)
        self._fill(lane)
        self._note_backlog(lane, len(lane.queue), lane.large_bytes)
        self.ring += (lane,)

    def succeed(self, old: Lane, new: Lane, *, finish: bool) -> None:
        """Another connection to the same peer takes the place of ``old``, with all that is still to be sent or to be
        acknowledged, within its window or not: nothing is lost by it or goes to the others, and the order is kept.
        ``finish``: ``old`` goes on with what it is writing."""
        old.finishing = finish
        old.dead = True
        with old.lock:
            messages = old.take_back()
        if self._reliable:
            messages = self._take_unacked(old)
        new.dead = False
        new.came = old.came
        self._by_identity[new.identity] = new
        self.ring = tuple(new if lane is old else lane for lane in self.ring)
        copies = self._take_copies(new.dialled, new)
        for message in copies:
            self._give(new, message)
        for message in messages:
            self._give(new, message)
        if self._reliable:
            self.refill(new)
        left = max(0, old.backlog - old.sent_messages)
        self._note_backlog(new, left + len(copies), (old.backlog_bytes if left else 0) + _size_of_large(copies))

    def bring(self, lane: Lane, endpoint: object) -> list[Lane]:
        """What is kept for an endpoint goes to the peer to which it has turned out to lead: the lane, if it got any."""
        copies = self._take_copies(endpoint, lane) if self._by_identity.get(lane.identity) is lane else []
        if not copies:
            return []
        self._inherit(lane, copies)
        left = max(0, lane.backlog - lane.sent_messages)
        self._note_backlog(lane, left + len(copies), (lane.backlog_bytes if left else 0) + _size_of_large(copies))
        return [lane]

    def _take_copies(self, endpoint: object, lane: Lane) -> list[Queued]:
        """For a lane; but not for one whose peer was there when they were published, and has had them."""
        kept = self.copies.get(endpoint)
        if not kept or kept.before >= lane.came:
            return []
        return list(self.copies.pop(endpoint))

    @staticmethod
    def _note_backlog(lane: Lane, messages: int, large_bytes: int) -> None:
        """So much of what is in its queue was kept before its peer could take any of it."""
        lane.backlog = lane.sent_messages + messages
        lane.backlog_bytes = large_bytes

    def leave(self, lane: Lane) -> Departure:
        """A peer has gone: what it was not sent goes to the others, before anything newer, or waits."""
        lane.dead = True
        if lane in self.ring:
            index = self.ring.index(lane)
            self.ring = self.ring[:index] + self.ring[index + 1:]
            if index < self.turn:
                self.turn -= 1
        if self._by_identity.get(lane.identity) is lane:
            del self._by_identity[lane.identity]
        return self.give_back(lane)

    def give_back(self, lane: Lane) -> Departure:
        """Take back what is in the queue of a dead lane. May be called any number of times."""
        with lane.lock:
            messages = lane.take_back()
        heir = self._by_identity.get(lane.identity)
        if heir is not None and heir is not lane and not self._reliable:
            self._inherit(heir, messages)
            return Departure([], [heir] if messages else [])
        if self._reliable:
            messages = self._take_unacked(lane)
        dead: list[Queued] = []
        anybodys: list[Queued] = []
        addressed: list[Queued] = []
        for message in messages:
            kind = self.kind_of(message)
            if kind is Kind.PLAIN:
                anybodys.append(message)
            elif kind is Kind.RELIABLE:
                (anybodys if message.addressee is None else addressed).append(message)  # type: ignore[union-attr]
            elif kind is not Kind.PUBLISHED or not self._keep_copy(lane, message):
                dead.append(message)
        self.parked.put_back(lane.identity, addressed)
        self.waiting.put_back(anybodys)
        return Departure(dead, self.distribute())

    def _keep_copy(self, lane: Lane, message: Queued) -> bool:
        """Of a message published, for a peer that we are going to dial again."""
        if lane.dialled is None:
            return False
        copies = self.copies.setdefault(lane.dialled, Kept())
        copies.before = self._came
        if copies.is_full(self._limits):  # there may be more than the marks allow: see `_is_catching_up`
            return False
        copies.add(message)
        return True

    @staticmethod
    def _take_unacked(lane: Lane) -> list[Queued]:
        """All that a lane has to be acknowledged; its queue holds nothing else, except copies being sent again."""
        messages: list[Queued] = [*lane.unacked.values()]
        lane.unacked.clear()
        lane.unacked_large = 0
        return messages

    def _inherit(self, heir: Lane, messages: list[Queued]) -> None:
        """The peer is there, by another connection: what is left of the old one goes out there, and first, unless
        newer messages are on their way already."""
        with heir.lock:
            if heir.held and (heir.writing is None or not heir.writing.messages):
                heir.queue[:0] = messages
                heir.large_bytes += _size_of_large(messages)
                return
        for message in messages:
            self._give(heir, message)

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
        if self._mode is SendMode.PUBLISH and self.ring:
            if any(not self.has_room(lane) for lane in self.ring):
                return Placed.FULL, ()
            return self.publish(message, self.ring)
        if self.ring and not self.waiting:
            lane = self.next_with_room()
            if lane is not None:
                self._give(lane, message)
                return Placed.QUEUED, (lane,)
            if not self._reliable:
                return Placed.FULL, ()
        if not self.waiting_has_room():
            return Placed.FULL, ()
        self.waiting.add(message)
        return Placed.WAITING, ()

    def publish(self, message: Queued, lanes: Sequence[Lane]) -> tuple[Placed, Sequence[Lane]]:
        """A copy to each of ``lanes``; to all of them also where an interrupt comes in between."""
        large = large_size(message)
        try:
            for lane in lanes:
                lane.large_bytes += large
                lane.queue.append(message)
        except BaseException:
            self.publish_to_rest(message, lanes, lane)
            raise
        return Placed.QUEUED, lanes

    def publish_to_rest(self, message: Queued, lanes: Sequence[Lane], last: Lane) -> None:
        """After an interrupt, which comes after an append and not before it, to ``last``: to those behind."""
        self.publish(message, lanes[lanes.index(last) + 1:])

    def _place_by_identity(self, message: Queued, identity: bytes) -> tuple[Placed, Iterable[Lane]]:
        lane = self._by_identity.get(identity)
        parked = self.parked.of(identity)
        if lane is not None and not parked and self.has_room(lane):
            self._give(lane, message)
            return Placed.QUEUED, (lane,)
        if not self._reliable:
            return (Placed.ABSENT if lane is None else Placed.FULL), ()
        if not self.parked.has_room(identity):
            return Placed.FULL, ()
        self.parked.add(identity, message)
        return Placed.WAITING, ()

    def squeeze_in(self, message: Queued, identity: bytes | None = None) -> Squeezed:
        """Place ``message``, for which there is no room, where the oldest of the same queue was: one for one, so that a
        queue which is longer than its mark, after a peer has gone, is not emptied for it."""
        if identity is None and self._mode is SendMode.PUBLISH and self.ring:
            return self._squeeze_into_all(message)
        if identity is None and (self._reliable or not self.ring or self.waiting):
            dropped = self._make_room_for(message, self._drop_unplaced, self._unplaced_large)
            if dropped:
                self.waiting.add(message)
        elif self._reliable:
            assert identity is not None
            return self._squeeze_into_parked(message, identity)
        else:
            lane = self._by_identity.get(identity) if identity is not None else self.next_in_turn()
            dropped = self._drop_from(lane, message)
            if lane is not None and dropped:
                self._give(lane, message)
                if identity is None:
                    self.turn = self.turn + 1 if self.turn < len(self.ring) else 1
                return Squeezed((lane,), [(oldest, lane.identity) for oldest in dropped], False)
        if not dropped:
            return Squeezed((), [(message, identity)], True)
        return Squeezed((), [(oldest, identity) for oldest in dropped], False)

    def _squeeze_into_parked(self, message: Queued, identity: bytes) -> Squeezed:
        dropped: list[tuple[Queued, bytes | None]] = []
        while not self.parked.has_room(identity):
            whose = self.parked.in_the_way(identity)
            if whose is None:
                return Squeezed((), [(message, identity)], True)
            dropped.append((self.parked.drop_oldest(whose), whose))
        self.parked.add(identity, message)
        return Squeezed((), dropped, False)

    def _squeeze_into_all(self, message: Queued) -> Squeezed:
        lanes = []
        dropped: list[tuple[Queued, bytes | None]] = []
        for lane in self.ring:
            if not self.has_room(lane):
                gone = self._drop_from(lane, message)
                dropped += [(oldest, lane.identity) for oldest in gone or [message]]
                if not gone:
                    continue  # all of its queue is being written
            lanes.append(lane)
        self.publish(message, lanes)
        return Squeezed(lanes, dropped, not lanes)

    def _make_room_for(self, message: Queued, drop: Callable[[], list[Queued]],
                       large: Callable[[], int]) -> list[Queued]:
        """Drop the oldest; and while what is left is at the mark in bytes, more, until as much has gone as comes."""
        dropped = drop()
        wanted = large_size(message) - sum(map(large_size, dropped))
        while dropped and wanted > 0 and large() >= self._limits.bytes:
            more = drop()
            if not more:
                break
            dropped += more
            wanted -= sum(map(large_size, more))
        return dropped

    def _drop_from(self, lane: Lane | None, message: Queued) -> list[Queued]:
        if lane is None:
            return []
        with lane.lock:
            return self._make_room_for(message, lambda: [f for f in (lane.drop_oldest(),) if f is not None],
                                       lambda: lane.large_bytes)

    def _drop_unplaced(self) -> list[Queued]:
        """The oldest message that is kept for each peer that is away, where that is what stands at the mark; or the
        oldest that waits for anybody."""
        longest = 0 if self.ring else max(map(len, self.copies.values()), default=0)
        if longest:
            return [copies.drop_oldest() for copies in self.copies.values() if len(copies) == longest]
        return [self.waiting.drop_oldest()] if self.waiting else []

    def _unplaced_large(self) -> int:
        large = self.waiting.large
        if not self.ring:
            large += max((copies.large for copies in self._all_copies()), default=0)
        return large

    def _all_copies(self) -> tuple[Kept, ...]:
        """For those who look from other threads too: peers come and go meanwhile."""
        return tuple(self.copies.values())

    def full_lanes(self, identity: bytes | None = None) -> list[Lane]:
        """The peers that stand in the way of a message to ``identity``, or to anybody."""
        if identity is not None:
            lane = self._by_identity.get(identity)
            return [lane] if lane is not None and not self.has_room(lane) else []
        if self._mode is SendMode.PUBLISH:
            return [lane for lane in self.ring if not self.has_room(lane)]
        return list(self.ring)

    def lanes_behind(self) -> list[Lane]:
        """Those of the full ones that have had the chance to take what fills them."""
        return [lane for lane in self.full_lanes() if not self._is_catching_up(lane)]

    def others(self, lanes: set[Lane]) -> list[Lane]:
        """The peers that are not among ``lanes``."""
        return [lane for lane in self.ring if lane not in lanes]

    def acknowledged(self, lane: Lane, message_ids: list[bytes]) -> tuple[list[bytes], list[Lane]]:
        """The peer has acknowledged: which of ``message_ids`` were its to acknowledge, and the lanes with new work."""
        known = []
        release = lane.unacked.pop
        for message_id in message_ids:
            message = release(message_id, None)
            if message is not None:
                known.append(message_id)
                lane.unacked_large -= message.large
        lane.acknowledged += len(known)
        return known, self.refill(lane)

    def refill(self, lane: Lane) -> list[Lane]:
        """The window of ``lane`` has opened: give it what has been waiting."""
        if lane.dead or not (self.waiting or self.parked.count):
            return []
        before = lane.given  # and not the length of its queue, which others shorten meanwhile
        self._fill(lane)
        return [lane] if lane.given > before else []

    def send_again(self, lane: Lane, message_id: bytes) -> None:
        """Queue an unacknowledged message once more."""
        message = lane.unacked[message_id]
        queue = lane.queue
        # No call but the last: see `_give`.
        lane.large_bytes += message.large
        lane.given = message.number = lane.given + 1
        queue.append(message)

    def forget(self, lane: Lane, message_id: bytes) -> Queued | None:
        """Stop expecting an acknowledgement: the message given up on."""
        message = lane.unacked.pop(message_id, None)
        if message is not None:
            lane.unacked_large -= message.large
        return message

    def take_all(self) -> list[Queued]:
        """Every message that has no peer, at the end."""
        messages = [*self.waiting, *self.parked.take_all()]
        for copies in self.copies.values():
            messages.extend(copies)
        self.waiting = Kept()
        self.copies.clear()
        return messages

    # Room

    def has_room(self, lane: Lane) -> bool:
        if self._reliable:
            return len(lane.unacked) < lane.window and lane.unacked_large < self._limits.bytes
        return len(lane.queue) < self._limits.messages and lane.large_bytes < self._limits.bytes

    def _is_catching_up(self, lane: Lane) -> bool:
        """Whether it would have room but for what was kept for it before it came."""
        left = lane.backlog - lane.sent_messages
        return (left > 0 and len(lane.queue) - left < self._limits.messages
                and lane.large_bytes - lane.backlog_bytes < self._limits.bytes)

    def waiting_has_room(self) -> bool:
        waiting = len(self.waiting)
        if not self.ring:
            # A peer that we dial is going to get what waits for it behind the copies that are kept for it.
            waiting += max(map(len, self._all_copies()), default=0)
        return waiting < self._limits.messages and self._unplaced_large() < self._limits.bytes

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

    @property
    def unplaced(self) -> int:
        """How many messages have no peer."""
        return len(self.waiting) + self.parked.count + sum(map(len, self._all_copies()))

    # How messages move

    def _give(self, lane: Lane, message: Queued) -> None:
        queue = lane.queue
        if isinstance(message, bytes):
            queue.append(message)
            return
        # From here to the append no call, so that an interrupt finds all of it done or nothing, and because the writer
        # subtracts from `large_bytes` under another lock.
        large = message.large
        lane.large_bytes += large
        if message.kind is _RELIABLE:
            lane.unacked_large += large
            lane.given = message.number = lane.given + 1
            lane.unacked[message.message_id] = message
        queue.append(message)

    def _move(self, kept: Kept, lane: Lane, parked: Parked | None = None) -> None:
        """Give a lane the oldest of what is kept, in ``parked`` or elsewhere."""
        message = kept[0]
        large = large_size(message)
        reliable = None if isinstance(message, bytes) or message.kind is not _RELIABLE else message
        queue = lane.queue
        # From here to the append no call: see `_give`, and `netmsg.messaging.kept`.
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
        while waiting and (not self._reliable or self.has_room(lane)):
            self._move(waiting, lane)


def _size_of_large(messages: list[Queued]) -> int:
    return sum(map(large_size, messages))


def _is_older(one: Queued, other: Queued) -> bool:
    """Of two at-least-once messages, whose ids are in the order of sending."""
    return message_id_of(one) < message_id_of(other)
