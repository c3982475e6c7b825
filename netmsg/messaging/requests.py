"""Requests that wait for their replies: whom they were given to, and what has become of them. Pure.

::

                 given to a peer                 its reply, or failure
    UNPLACED ────────────────────▶ PLACED ──────────────────────────────▶ SETTLED
        ▲                            │  │    the peer has gone with it       ▲
        └────────────────────────────┘  └────────────────────────────────────┘
          the peer has gone without

A request is at one peer at a time. One that has not been sent when its peer goes is to be given to another one, by the
thread that has asked; one that has been sent is lost with that peer, for nobody can tell whether it was served. What
somebody else than the peer asked says of it counts for nothing, nor what comes too late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..wire.messages import Message, Queued
from .lane import Lane

__all__ = ["Request", "Requests"]


class Request:
    """What one thread has asked and waits for."""

    __slots__ = ("correlation_id", "failure", "lane", "look", "lost", "message", "reply", "wake")

    def __init__(self, correlation_id: bytes, message: Message, wake: Callable[[], None]) -> None:
        self.correlation_id = correlation_id
        self.message = message
        self.wake = wake
        """Called whenever there is something new for it."""
        self.lane: Lane | None = None
        """Of the peer that it was given to; ``None`` while it is UNPLACED."""
        self.look = True
        """Whether it may have become possible to give it to somebody."""
        self.reply: bytes | None = None
        self.failure: str | None = None
        """Why the peer does not answer it."""
        self.lost = False

    @property
    def settled(self) -> bool:
        return self.reply is not None or self.failure is not None or self.lost


class Requests:
    """Those of one Søcket that are not over. Guarded by the lock of the router, as all that is called here is."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, Request] = {}
        self.unplaced: dict[Request, None] = {}
        self._placed: dict[bytes, dict[Request, None]] = {}
        """Those that are not settled, by the identity of the peer that has them."""

    def __len__(self) -> int:
        return len(self._waiting)

    # By those who have asked

    def add(self, request: Request) -> None:
        """It is to be given to a peer; may be repeated."""
        self._waiting[request.correlation_id] = request
        self.unplaced[request] = None

    def placed(self, request: Request) -> None:
        """It has been given to the peer whose lane is noted in it."""
        assert request.lane is not None
        self.unplaced.pop(request, None)
        self._placed.setdefault(request.lane.identity, {})[request] = None

    def _leaves(self, request: Request) -> None:
        """Its peer is not waited for any more; may be repeated."""
        if request.lane is not None:
            identity = request.lane.identity
            there = self._placed.get(identity, {})
            there.pop(request, None)
            if not there:
                self._placed.pop(identity, None)

    def over(self, request: Request) -> None:
        """Nobody waits for it any more; may be repeated."""
        self._waiting.pop(request.correlation_id, None)
        self.unplaced.pop(request, None)
        self._leaves(request)

    # These two take no lock: a copy of a dictionary is made in one piece.

    def look_again(self) -> None:
        """Peers have come, or gone, or there is room: those that are UNPLACED may go on."""
        for request in self.unplaced.copy():
            request.look = True
            request.wake()

    def wake_all(self) -> None:
        """The end."""
        for request in self._waiting.copy().values():
            request.wake()

    # What becomes of them

    def answered(self, identity: bytes, correlation_ids: list[bytes], replies: list[bytes]) -> int:
        """A peer has replied: how many of its replies nobody waits for."""
        unknown = 0
        for correlation_id, reply in zip(correlation_ids, replies):
            request = self._asked(identity, correlation_id)
            if request is None:
                unknown += 1
            else:
                self._leaves(request)
                request.reply = reply
                request.wake()
        return unknown

    def failed(self, identity: bytes, correlation_ids: list[bytes], reasons: list[bytes]) -> int:
        """The same with what it will not answer, for these ``reasons`` (UTF-8)."""
        unknown = 0
        for correlation_id, reason in zip(correlation_ids, reasons):
            request = self._asked(identity, correlation_id)
            if request is None:
                unknown += 1
            else:
                self._leaves(request)
                request.failure = reason.decode("utf-8", "replace")
                request.wake()
        return unknown

    def _asked(self, identity: bytes, correlation_id: bytes) -> Request | None:
        """The request that this peer may settle."""
        request = self._waiting.get(correlation_id)
        if request is None or request.settled or request.lane is None or request.lane.identity != identity:
            return None
        return request

    def returned(self, messages: Iterable[Queued]) -> None:
        """These have not been sent, and will not be by the peer they were given to."""
        for message in messages:
            assert isinstance(message, Message)
            request = self._waiting.get(message.message_id)
            if request is not None and not request.settled:
                self._leaves(request)
                request.lane = None
                request.look = True
                self.unplaced[request] = None
                request.wake()

    def moved(self, old: Lane, new: Lane) -> None:
        """The same peer is there by another connection, and can still answer what it was sent by the old one."""
        for request in self._placed.get(old.identity, ()):
            if request.lane is old:
                request.lane = new

    def lost(self, lane: Lane) -> None:
        """Its connection has ended, and all that had come by it is read."""
        for request in tuple(self._placed.get(lane.identity, ())):
            if request.lane is lane:
                self._leaves(request)
                request.lost = True
                request.wake()

    def awaited(self, identity: bytes) -> bool:
        """Whether somebody waits for a reply of that peer. Takes no lock, either."""
        return identity in self._placed
