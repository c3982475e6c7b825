"""At least once: message ids, what is to be sent again and when, and which arrivals are duplicates. Pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, Generic, NamedTuple, TypeVar

from ..wire.envelope import Frame
from .lane import Lane

__all__ = ["AckMode", "Arrivals", "DeliveryGuarantee", "Due", "Ledger"]

R = TypeVar("R")


class DeliveryGuarantee(Enum):
    """What a send promises."""

    AT_MOST_ONCE = "at most once"
    """The message arrives once or, if a connection breaks at the wrong moment, not at all."""
    AT_LEAST_ONCE = "at least once"
    """The message is sent again until it is acknowledged."""


class AckMode(Enum):
    """When a received at-least-once message is acknowledged: ``ON_RECV`` (``recv`` hands it over), ``MANUAL``
    (`Delivery.ack`), or ``ON_ARRIVAL`` (it is queued)."""

    ON_RECV = "on recv"
    """When ``recv`` hands it over."""
    MANUAL = "manual"
    """When the application calls `Delivery.ack`."""
    ON_ARRIVAL = "on arrival"
    """When it is queued for ``recv``."""


LONGEST_RESEND_DELAY: Final = 60.0


class Due(NamedTuple):
    """A message that has been unacknowledged for too long."""

    message_id: bytes
    frame: Frame
    give_up: bool
    """It has been sent again as often as it may."""


class Ledger(Generic[R]):
    """The sender's side: every message accepted and not yet acknowledged, with its receipt.

    Ids are a prefix, random for each socket, and a counter: unique, ordered, and cheap.
    """

    def __init__(self, prefix: bytes, resend_after: float, max_resends: int | None,
                 jitter: Callable[[], float]) -> None:
        self.outstanding: dict[bytes, R] = {}
        self.resent = 0
        """How many times a message was sent again."""
        self._prefix = prefix
        self._count = 0
        self._resend_after = resend_after
        self._max_resends = max_resends
        self._jitter = jitter
        self._resends: dict[bytes, int] = {}
        self._oldest: dict[Lane, bytes] = {}

    def new_id(self) -> bytes:
        self._count = count = self._count + 1
        return self._prefix + count.to_bytes(8, "big")

    def settle(self, message_ids: list[bytes]) -> None:
        """These are acknowledged."""
        outstanding = self.outstanding
        for message_id in message_ids:
            outstanding.pop(message_id, None)
        if self._resends:
            for message_id in message_ids:
                self._resends.pop(message_id, None)

    def give_up(self, message_id: bytes) -> R | None:
        """This one never will be: its receipt."""
        self._resends.pop(message_id, None)
        return self.outstanding.pop(message_id, None)

    def due(self, lane: Lane, now: float) -> Due | None:
        """Look at a peer: whether its oldest message has to be sent again (or given up on) now.

        One clock a peer: it runs while one and the same message is the oldest unacknowledged, and starts anew with
        every other, so a message that the peer refused is sent again however many newer ones are acknowledged. The
        delay doubles, with jitter, for as long as that message stays.
        """
        oldest = next(iter(lane.unacked), None)
        if oldest is None or lane.queue:
            # Nothing is in flight, or the peer is not taking what it was sent: more of the same would not help.
            self._oldest.pop(lane, None)
            return None
        if self._oldest.get(lane) != oldest:
            self._oldest[lane] = oldest
            lane.acked_at = now
            lane.resend_delay = self._resend_after
            return None
        if now - lane.acked_at < lane.resend_delay:
            return None
        lane.acked_at = now
        lane.resend_delay = min(LONGEST_RESEND_DELAY, lane.resend_delay * (1.5 + self._jitter()))
        return Due(oldest, lane.unacked[oldest], not self.may_resend(oldest))

    def may_resend(self, message_id: bytes) -> bool:
        """Count one more time of sending ``message_id``; false if it was sent again as often as it may."""
        times = self._resends.get(message_id, 0)
        if self._max_resends is not None and times >= self._max_resends:
            return False
        self._resends[message_id] = times + 1
        self.resent += 1
        return True

    def forget(self, lane: Lane) -> None:
        """The peer has gone."""
        self._oldest.pop(lane, None)


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


class _Seen:
    """The message ids of one sender."""

    __slots__ = ("held", "older", "recent")

    def __init__(self) -> None:
        self.held: set[bytes] = set()
        self.recent: set[bytes] = set()
        self.older: set[bytes] = set()


class Arrivals:
    """The receiver's side: which message ids have been seen, of each sender.

    An id is *held* until it is acknowledged, and held for as long as that takes. Acknowledged ids are remembered in two
    generations, the ``remember`` newest of all senders at least. Ids count per sender: nobody can make another's
    message look old.
    """

    def __init__(self, remember: int) -> None:
        self.duplicates = 0
        self._remember = remember
        self._remembered = 0  # in the younger generation
        self._senders: dict[bytes, _Seen] = {}

    def held(self, sender: bytes) -> frozenset[bytes]:
        """The ids of ``sender`` that are not acknowledged yet."""
        seen = self._senders.get(sender)
        return frozenset(seen.held) if seen is not None else frozenset()

    def sort(self, sender: bytes, message_ids: list[bytes], bodies: list[bytes]) -> Sorted:
        """Tell what is new in one run from ``sender``; the new ones are held from now on."""
        seen = self._senders.get(sender)
        if seen is None:
            seen = self._senders[sender] = _Seen()
        held = seen.held
        if held.isdisjoint(message_ids) and seen.recent.isdisjoint(message_ids) and seen.older.isdisjoint(message_ids):
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
            if message_id in seen.recent or message_id in seen.older:
                again.append(message_id)
                continue
            held.add(message_id)
            new_ids.append(message_id)
            new_bodies.append(body)
        duplicates = len(bodies) - len(new_bodies)
        self.duplicates += duplicates
        return Sorted(new_ids, new_bodies, again, duplicates)

    def acknowledge(self, sender: bytes, message_ids: list[bytes]) -> list[bytes]:
        """The application has these: which of them are to be acknowledged (none twice)."""
        seen = self._senders.get(sender)
        if seen is None:
            return []
        held = seen.held
        released = []
        for message_id in message_ids:
            if message_id in held:
                held.remove(message_id)
                released.append(message_id)
        if self._remember:
            seen.recent.update(released)
            self._remembered += len(released)
            if self._remembered >= self._remember:
                self._begin_generation()
        elif not held:
            del self._senders[sender]
        return released

    def _begin_generation(self) -> None:
        """The younger generation becomes the older, which is forgotten, and with it the senders of nothing else."""
        self._remembered = 0
        for sender, seen in tuple(self._senders.items()):
            seen.older, seen.recent = seen.recent, set()
            if not seen.older and not seen.held:
                del self._senders[sender]

    def refuse(self, sender: bytes, message_id: bytes) -> bool:
        """Not acknowledged after all: when it is sent again it will be new. False if it was not held."""
        seen = self._senders.get(sender)
        if seen is None or message_id not in seen.held:
            return False
        seen.held.remove(message_id)
        if not (seen.held or seen.recent or seen.older):
            del self._senders[sender]
        return True
