"""Room in the queues of a Søcket that sends: who waits for it, and when they are woken."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from ..deadline import Deadline
from ..errors import LocalProtocolError, SendTimeoutError
from ..reactor.reactor import Reactor
from ..waiting import Waiters
from ..wire.messages import Features
from . import exiting
from .choices import SendMode
from .drafts import Draft
from .events import EventQueue, Full
from .expecting import Expecting
from .life import Life
from .requests import Requests
from .routing import Router

if TYPE_CHECKING:
    from .peers import Peer

__all__ = ["QUEUE_IS_FULL", "Room"]

QUEUE_IS_FULL: Final = "the send queue is at its high-water mark"


class Room:
    """Waiting is for any thread; so is telling that there is room."""

    def __init__(self, life: Life, io: Reactor, events: EventQueue, router: Router, expecting: Expecting,
                 requests: Requests, trouble: Callable[[], str]) -> None:
        self.asked: set[object] = set()
        """Whoever is to hear of room: while nobody is, which is looked at after every write, `made` need not be called.
        A sender that waits is in here before it looks for room, and this object after it has told of none."""
        self._life = life
        self._io = io
        self._events = events
        self._router = router
        self._expecting = expecting
        self._requests = requests
        self._trouble = trouble
        self._publishing = router.mode is SendMode.PUBLISH
        self._senders = Waiters()
        self._addressing_senders = Waiters()
        self._listeners: set[Callable[[], None]] = set()

    def lacking(self, identity: bytes | None) -> None:
        """There is none: tell the program, once until there has been some."""
        if self not in self.asked:
            self._events.add(Full(None, identity, QUEUE_IS_FULL))
            self.asked.add(self)

    def wait(self, draft: Draft, deadline: Deadline) -> None:
        """Block until there may be room. Raises `SendTimeoutError` at the deadline.

        Woken by room, a peer's coming or going, and close.
        """
        if self._io.is_current:
            raise LocalProtocolError("a send that would block, on the network thread itself")
        waiters = self._senders if draft.identity is None else self._addressing_senders
        expecting, asking = self._expecting, object()
        try:
            expecting.acknowledgements += 1
            self.asked.add(asking)
            if draft.is_answer:
                assert draft.identity is not None
                expecting.room_for_replies[asking] = (draft.identity,)
            if (draft.is_answer or self._router.reliable) and not deadline.expired:
                expecting.read_on()
            if not waiters.wait(lambda: self._life.over or self.is_there(draft), deadline):
                raise self.too_late("no room in the send queue in time", draft.identity)
        finally:
            expecting.acknowledgements -= 1  # first, for this makes no call
            expecting.room_for_replies.pop(asking, None)
            self.asked.discard(asking)
        if self._life.closing:
            exiting.stay_blocked()

    def wait_for_answers(self, identities: Collection[bytes], ready: Callable[[], object], deadline: Deadline) -> None:
        """Block until there may be room for a reply to one of these, or ``ready()``, or until the deadline. Woken by
        the same."""
        expecting, asking = self._expecting, object()
        drafts = [Draft(b"", identity, b"") for identity in identities]
        try:
            self.asked.add(asking)
            expecting.room_for_replies[asking] = frozenset(identities)
            expecting.read_on()
            self._addressing_senders.wait(lambda: ready() or any(map(self.is_there, drafts)), deadline)
        finally:
            expecting.room_for_replies.pop(asking, None)
            self.asked.discard(asking)

    def listen(self, tell: Callable[[], None]) -> None:
        """Have ``tell()`` called whenever there may be room for a reply, until `unlisten`; by whoever has made it, and
        it may take no lock."""
        self._listeners.add(tell)
        self.asked.add(tell)

    def unlisten(self, tell: Callable[[], None]) -> None:
        self._listeners.discard(tell)
        self.asked.discard(tell)

    def too_late(self, what: str, identity: bytes | None) -> SendTimeoutError:
        """Time is up: the error says what for, and what is wrong with those whom the message would have gone to."""
        connected = len(self._router.ring)
        whom = f"{connected} peer{'' if connected == 1 else 's'} connected" if identity is None else (
            f"peer {identity.hex()} {'connected' if self._router.find(identity) else 'not connected'}")
        return SendTimeoutError(f"{what} ({whom}){self._trouble()}")

    def is_there(self, draft: Draft) -> bool:
        """Whether there is any for it."""
        router, identity = self._router, draft.identity
        if router.stored is not None and not draft.is_answer:
            return router.stored.has_room(identity)
        if identity is None:
            return self._is_there_for_anybody(draft)
        once = not router.reliable or draft.is_answer
        lane = router.find(identity)
        if lane is not None and router.has_room(lane, once=once):
            return True
        return lane is None if once else router.parked.has_room(identity)

    def _is_there_for_anybody(self, draft: Draft | None = None) -> bool:
        router = self._router
        ring = router.ring
        if ring and self._publishing:
            return all(map(router.has_room, ring if draft is None else router.topics.audience(draft.data, ring)))
        if ring and not router.waiting and any(map(router.has_room, ring)) and (
                not router.homeless.messages or router.waiting_has_room()):
            return True
        return (router.reliable or not ring or bool(router.waiting)) and router.waiting_has_room()

    def made(self, peer: Peer) -> None:
        """The queue of ``peer`` has become shorter: wake the senders if it is worth it."""
        if self._requests.unplaced and Features.REQUESTS in peer.lane.features:
            self._requests.look_again()
        router = self._router
        if self._listeners and router.has_room(peer.lane, once=True):
            for tell in self._listeners.copy():
                tell()
        if self._addressing_senders.waiting and (router.has_room(peer.lane) or router.has_room(peer.lane, once=True)
                                                 or (router.reliable and router.parked.has_room(peer.identity))
                                                 or router.stored is not None):
            self._addressing_senders.notify_all()
        if (self._senders.waiting or self in self.asked) and self._roomy():
            self.asked.discard(self)
            self._senders.notify_all()

    def _roomy(self) -> bool:
        """Whether a queue that was full is down to half: waking for every single message would be slow."""
        router = self._router
        if router.stored is not None:
            return router.stored.is_roomy
        half = router.limits.messages // 2
        ring = router.ring
        if router.reliable or not ring:
            return len(router.waiting) <= half and self._is_there_for_anybody()
        if router.topics:
            return True  # whose room it is that they wait for differs: they may look for themselves
        if not self._is_there_for_anybody():
            return False
        lengths = [len(lane.queue) for lane in ring]
        return (max if self._publishing else min)(lengths) <= half

    def wake_all(self) -> None:
        """Peers have come or gone, or the Søcket closes: whoever waits has to look again. Takes no lock."""
        self._senders.notify_all()
        self._addressing_senders.notify_all()
