"""At least once: message ids, what is to be sent again and when, and which arrivals are duplicates. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping, Set
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from .lane import Lane

__all__ = ["Arrivals", "Due", "Ledger"]


LONGEST_RESEND_DELAY: Final = 60.0
LONGEST_GROWTH: Final = 100
"""So many rounds let a delay grow; more would be too much for a float."""
LOOKS: Final = 16
"""How many times in ``resend_after`` it is noted how much has been sent."""


class Due(NamedTuple):
    """A message that has been unacknowledged for too long."""

    message_id: bytes
    give_up: bool
    """It has been sent again as often as it may."""


class Pending(Protocol):
    """What the ledger keeps for a message: its `Receipt`."""

    def _fail(self, reason: str) -> None:
        """The message is given up on."""


R = TypeVar("R", bound=Pending)


class _Resends:
    """Of one message that was sent again."""

    __slots__ = ("delay", "due_at", "refused_by", "rounds", "times")

    def __init__(self, delay: float) -> None:
        self.refused_by: set[bytes] = set()
        """The identities of those who have handed it back since its time last came."""
        self.times = 0
        self.rounds = 0
        """The same, but for those times when it went on to somebody else because it was handed back."""
        self.delay = delay
        """Seconds from the last time that it was handed to the kernel to the next one."""
        self.due_at: float | None = None
        """When that is; ``None`` while it has no connection."""


class Ledger(Generic[R]):
    """The sender's side: every message accepted and not yet acknowledged, with its receipt.

    Ids are a prefix, random for each socket, and a counter: unique, ordered, and cheap. What is given up on is told so
    before it leaves `outstanding`, for what is in neither state counts as acknowledged.
    """

    def __init__(self, prefix: bytes, resend_after: float, max_resends: int | None,
                 jitter: Callable[[], float], receipts: MutableMapping[bytes, R] | None = None) -> None:
        """``receipts`` are to be kept there."""
        self.outstanding: MutableMapping[bytes, R] = {} if receipts is None else receipts
        self.followers: dict[bytes, Callable[[bool], None]] = {}
        """Who is told, of some of them, whether it was acknowledged or given up on: by calls that take no lock."""
        self.resent = 0
        """How many times a message was sent again."""
        self._prefix = prefix
        self._count = 0
        self._resend_after = resend_after
        self._max_resends = max_resends
        self._jitter = jitter
        self._resends: dict[bytes, _Resends] = {}

    def new_id(self) -> bytes:
        self._count = count = self._count + 1
        return self._prefix + count.to_bytes(8, "big")

    def acknowledge(self, message_ids: list[bytes]) -> None:
        """These are acknowledged."""
        outstanding = self.outstanding
        for message_id in message_ids:
            outstanding.pop(message_id, None)
        if self._resends:
            for message_id in message_ids:
                self._resends.pop(message_id, None)
        if self.followers:
            for message_id in message_ids:
                self._tell_follower(message_id, True)

    def _tell_follower(self, message_id: bytes, acknowledged: bool) -> None:
        tell = self.followers.pop(message_id, None)
        if tell is not None:
            tell(acknowledged)

    def give_up(self, message_id: bytes, reason: str) -> None:
        """This one never will be."""
        receipt = self.outstanding.get(message_id)
        if receipt is not None:
            receipt._fail(reason)
            del self.outstanding[message_id]
        self._resends.pop(message_id, None)
        self._tell_follower(message_id, False)

    def give_up_all(self, reason: str) -> None:
        for receipt in tuple(self.outstanding.values()):
            receipt._fail(reason)
        self.outstanding.clear()
        self._resends.clear()
        for message_id in tuple(self.followers):
            self._tell_follower(message_id, False)

    def due(self, lane: Lane, now: float) -> list[Due]:
        """Look at a peer: which messages have to be sent again (or given up on) now. To be called regularly.

        A message is due ``resend_after`` after it was last handed to the kernel, whatever else goes on; each further
        time takes longer, by a factor of 1.5 to 2.5. When that was is known as well as the calls are frequent: what
        had been sent by the time of one look is that old at least.
        """
        log = lane.sent_log
        sent = lane.sent_messages
        if not lane.unacked:
            log.clear()
            return []
        if not log or (log[-1][1] != sent and now - log[-1][0] >= self._resend_after / LOOKS):
            log.append((now, sent))
        while len(log) > 1 and now - log[1][0] >= self._resend_after:
            log.popleft()
        at, long_ago = log[0]
        if now - at < self._resend_after:
            long_ago = 0
        due = []
        resends = self._resends
        for message_id, message in lane.unacked.items():
            number = message.number
            again = resends.get(message_id)
            if again is None:
                if number > long_ago:
                    break  # nor is any that was queued later
            elif number > sent or again.due_at is None:
                again.due_at = now + again.delay  # its time begins when the kernel has it
                continue
            elif again.due_at > now:
                continue
            due.append(Due(message_id, not self.may_resend(message_id, now)))
        return due

    def may_resend(self, message_id: bytes, now: float) -> bool:
        """Count one more time of sending ``message_id``; false if it was sent again as often as it may."""
        again = self._may_resend(message_id)
        if again is not None:
            self._begin_round(again, now)
        return again is not None

    def may_hand_on(self, message_id: bytes) -> bool:
        """The same, of one that was handed back: its time begins when it has been sent, and takes no longer for that.
        """
        again = self._may_resend(message_id)
        if again is not None:
            again.due_at = None
        return again is not None

    def is_spent(self, message_id: bytes) -> bool:
        """Whether it was sent again as often as it may."""
        again = self._resends.get(message_id)
        return self._max_resends is not None and (0 if again is None else again.times) >= self._max_resends

    def _may_resend(self, message_id: bytes) -> _Resends | None:
        if self.is_spent(message_id):
            return None
        again = self._resends.get(message_id)
        if again is None:
            again = self._resends[message_id] = _Resends(self._resend_after)
        again.times += 1
        self.resent += 1
        return again

    def _begin_round(self, again: _Resends, now: float) -> None:
        again.rounds += 1
        again.refused_by = set()
        growth = (1.5 + self._jitter()) ** min(again.rounds, LONGEST_GROWTH)
        again.delay = min(LONGEST_RESEND_DELAY, self._resend_after * growth)
        again.due_at = now + again.delay

    def refused(self, message_id: bytes, identity: bytes, now: float) -> Set[bytes]:
        """A peer has handed it back: all who have since its time last came, and are not to have it before that."""
        again = self._resends.get(message_id)
        if again is None:
            again = self._resends[message_id] = _Resends(self._resend_after)
        again.refused_by.add(identity)
        again.due_at = now + again.delay
        return again.refused_by

    def forgive(self, identity: bytes) -> None:
        """It does not count any more what this peer has handed back."""
        for again in self._resends.values():
            again.refused_by.discard(identity)

    def begin_anew(self, message_id: bytes, now: float) -> bool:
        """Whether the time has come of one that was handed back: from now on it does not count by whom."""
        again = self._resends[message_id]
        if not again.refused_by or (again.due_at is not None and again.due_at > now):
            return False
        self._begin_round(again, now)
        return True

    def taken_back(self, message_ids: Iterable[bytes]) -> None:
        """The connection has gone that had these: their time begins when another one has sent them."""
        if self._resends:
            for message_id in message_ids:
                again = self._resends.get(message_id)
                if again is not None:
                    again.due_at = None


class Sorted(NamedTuple):
    """What to do with at-least-once messages that arrived."""

    message_ids: list[bytes]
    """Those that are new,"""
    bodies: list[bytes]
    """with their payloads."""
    again: list[bytes]
    """Duplicates of acknowledged ones: acknowledge them again, for the first acknowledgement seems to be lost."""
    duplicates: int
    """How many were not new."""


class Arrivals:
    """The receiver's side: which message ids have been seen, of each sender.

    An id is *held* until it is acknowledged, and held for as long as that takes. Acknowledged ids are remembered in two
    generations, the ``remember`` newest of all senders at least. Ids count per sender: nobody can make another's
    message look old. What is remembered takes the same memory whether one sender sent it or thousands did.
    """

    def __init__(self, remember: int) -> None:
        self.duplicates = 0
        self._remember = remember
        self._held: dict[bytes, set[bytes]] = {}  # by sender
        self._recent: set[bytes] = set()  # of sender and id in one
        self._older: set[bytes] = set()

    def held(self, sender: bytes) -> frozenset[bytes]:
        """The ids of ``sender`` that are not acknowledged yet."""
        return frozenset(self._held.get(sender, ()))

    def sort(self, sender: bytes, message_ids: list[bytes], bodies: list[bytes]) -> Sorted:
        """Tell what is new in one run from ``sender``; the new ones are held from now on."""
        held = self._held.get(sender)
        if held is None:
            held = self._held[sender] = set()
        if held.isdisjoint(message_ids):
            keys = list(map(sender.__add__, message_ids))
            if self._recent.isdisjoint(keys) and self._older.isdisjoint(keys):
                before = len(held)
                held.update(message_ids)
                if len(held) - before == len(message_ids):
                    return Sorted(message_ids, bodies, [], 0)
                held.difference_update(message_ids)  # one came twice in this run: sort them one by one
        new_ids: list[bytes] = []
        new_bodies: list[bytes] = []
        again: list[bytes] = []
        for message_id, body in zip(message_ids, bodies):
            if message_id in held:
                continue
            key = sender + message_id
            if key in self._recent or key in self._older:
                again.append(message_id)
                continue
            held.add(message_id)
            new_ids.append(message_id)
            new_bodies.append(body)
        if not held:
            del self._held[sender]
        duplicates = len(bodies) - len(new_bodies)
        self.duplicates += duplicates
        return Sorted(new_ids, new_bodies, again, duplicates)

    def acknowledge(self, sender: bytes, message_ids: list[bytes]) -> list[bytes]:
        """The application has these: which of them are to be acknowledged (none twice)."""
        held = self._held.get(sender)
        if held is None:
            return []
        released = []
        for message_id in message_ids:
            if message_id in held:
                held.remove(message_id)
                released.append(message_id)
        if not held:
            del self._held[sender]
        if self._remember:
            self._recent.update(map(sender.__add__, released))
            if len(self._recent) >= self._remember:  # the younger generation becomes the older, which is forgotten
                self._older, self._recent = self._recent, set()
        return released

    def refuse(self, sender: bytes, message_id: bytes) -> bool:
        """Not acknowledged after all: when it is sent again it will be new. False if it was not held."""
        held = self._held.get(sender)
        if held is None or message_id not in held:
            return False
        held.remove(message_id)
        if not held:
            del self._held[sender]
        return True
