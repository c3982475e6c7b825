"""Asking, and waiting for the reply: the half of request and reply that has the question."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from ..aside import aside
from ..deadline import Deadline
from ..errors import ConnectionBrokenError, LocalProtocolError, RequestFailedError, SendTimeoutError, UnknownPeerError
from ..reactor.reactor import Reactor
from ..waiting import Waiters
from ..wire.envelope import request_frame
from ..wire.messages import Features
from . import exiting
from .expecting import Expecting
from .lane import Lane
from .life import Life
from .requests import Request, Requests
from .room import Room
from .routing import Router

__all__ = ["Requesting"]

TOLD_WITHIN: Final = 1.0
"""Seconds in which a peer has said whether it answers requests: netmsg says so at once."""


class Requesting:
    """For any number of threads. ``route`` guards the router and the requests; ``kick`` is told whose queue has got
    something, ``new_id`` gives an id that no other message has."""

    def __init__(self, life: Life, io: Reactor, route: AbstractContextManager[Any], router: Router, requests: Requests,
                 expecting: Expecting, room: Room, kick: Callable[[Any], None], new_id: Callable[[], bytes],
                 trouble: Callable[[], str]) -> None:
        self._life = life
        self._io = io
        self._route = route
        self._router = router
        self._requests = requests
        self._expecting = expecting
        self._room = room
        self._kick = kick
        self._new_id = new_id
        self._trouble = trouble

    def request(self, data: bytes, identity: bytes | None, timeout: float | None) -> bytes:
        """See `Søcket.request`."""
        if self._io.is_current:
            raise LocalProtocolError("a request that would block, on the network thread itself")
        deadline = Deadline(timeout)
        waiters = Waiters()
        request = self.begin(data, identity, waiters.notify_all)
        try:  # whoever is interrupted in here has asked for nothing
            woken = True
            while True:  # with no "if" at its end: see `netmsg.streams.turns.Turn`
                if not woken and deadline.expired:
                    raise self._too_late(request, timeout)
                until = self.go_on(request, deadline)
                if self._life.over and request.reply is None:
                    break  # which may be why it is lost
                if request.settled:
                    return self.outcome(request)
                woken = waiters.wait(lambda: self._has_news(request), until)
        finally:
            try:
                self.end(request)
            except BaseException:  # interrupted: nothing is to be remembered of it all the same
                aside(lambda: self.end(request))
                raise
        exiting.check_open(self._life)
        raise AssertionError("over, and open")

    # Step by step, without waiting

    def begin(self, data: bytes, identity: bytes | None, wake: Callable[[], None]) -> Request:
        """A request, which nobody knows of before `go_on`, and nobody after `end`. ``wake()`` is called when `go_on` is
        to be."""
        with self._route:
            correlation_id = self._new_id()
        return Request(correlation_id, request_frame(correlation_id, data, self._router.large, identity), wake)

    def go_on(self, request: Request, deadline: Deadline) -> Deadline:
        """Give it to a peer, if it is with none and there is one: until when to wait for news.

        Raises `UnknownPeerError`, `LocalProtocolError`.
        """
        if request.lane is not None or request.settled:
            return deadline
        self._room.asked.add(request)  # before the look
        with self._route:
            self._requests.add(request)
            request.look = False
            lane = None if self._life.over else self._router.place_request(request.message)
            # No call between the two: an interrupt finds it queued and placed, or neither.
            request.lane = lane
            if lane is not None:
                self._requests.placed(request)
            else:
                deadline = self._sooner(request.message.addressee, deadline)
        if lane is not None:
            self._room.asked.discard(request)
            self._kick(lane.owner)
        self._expecting.read_on()
        return deadline

    def _sooner(self, identity: bytes | None, deadline: Deadline) -> Deadline:
        """Of one to a certain peer, which is not there, cannot answer, has no room, or has not said yet whether it
        can."""
        if identity is None or self._life.over:
            return deadline
        lane = self._router.find(identity)
        if lane is None:
            raise UnknownPeerError(f"peer {identity.hex()} is not connected")
        if Features.REQUESTS in lane.features:
            return deadline
        peer = lane.owner
        if peer.paused or peer.following:
            return deadline  # it may have said so, and is not read yet
        left = TOLD_WITHIN - peer.open_for
        if peer.has_been_heard or left <= 0:
            raise LocalProtocolError(f"peer {identity.hex()} does not answer requests: it is not of netmsg, or of an "
                                     "early version")
        return deadline.sooner(left)

    def _has_news(self, request: Request) -> bool:
        return request.settled or (request.lane is None and request.look) or self._life.over

    def outcome(self, request: Request) -> bytes:
        """What has become of one that is settled. Raises `RequestFailedError`, `ConnectionBrokenError`."""
        if request.reply is not None:
            return request.reply
        if request.failure is not None:
            raise RequestFailedError(request.failure)
        assert request.lane is not None
        raise ConnectionBrokenError(f"the connection to peer {request.lane.identity.hex()} has ended before it replied")

    def _too_late(self, request: Request, timeout: float | None) -> TimeoutError:
        lane = request.lane
        within = f"within {timeout:g} s"
        if lane is not None:
            return TimeoutError(f"no reply from peer {lane.identity.hex()} {within}")
        identity = request.message.addressee
        ring = self._router.ring
        there = None if identity is None else self._router.find(identity)
        if identity is not None and there is not None and Features.REQUESTS not in there.features:
            what = f"peer {identity.hex()} has not said {within} whether it answers requests"
        elif identity is not None:
            what = f"no room in the send queue of peer {identity.hex()} {within}"
        elif not any(Features.REQUESTS in lane.features for lane in ring):
            what = f"no peer that answers requests {within} ({len(ring)} peers connected)"
        else:
            what = f"no peer with room in its send queue {within}"
        return SendTimeoutError(what + self._trouble())

    def end(self, request: Request) -> None:
        """Nobody waits for it any more. What has not been sent of it is not sent."""
        self._room.asked.discard(request)
        with self._route:
            lane: Lane | None = request.lane
            self._requests.over(request)
            if lane is not None and not request.settled:
                with lane.lock:
                    lane.withdraw(request.message, leave_gap=self._router.reliable)
        if lane is not None and self._room.asked and not request.settled:
            self._room.made(lane.owner)  # a request less
