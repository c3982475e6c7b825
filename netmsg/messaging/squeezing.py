"""A message in the place of the oldest one, where there is no room: `OnFull.DROP_OLDEST`. Pure.

One goes for one that comes, so that a queue which is longer than its mark, after a peer has gone, is not emptied for
it. At least once what a peer has been given already stays: the oldest one that has no peer goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..wire.messages import Queued, large_size
from .choices import SendMode
from .lane import Lane
from .routing import Router

__all__ = ["Squeezed", "squeeze_in"]


class Squeezed(NamedTuple):
    """What became of a message that took the place of the oldest one."""

    lanes: Iterable[Lane]
    """Lanes that have got something to send."""
    dropped: list[tuple[Queued, bytes | None]]
    """Messages that went for it, and whose queue they were in; where nothing could go, the message itself."""
    refused: bool
    """Whether it was not placed anywhere."""


def squeeze_in(router: Router, message: Queued, identity: bytes | None = None) -> Squeezed:
    """Place ``message``, for which there is no room, where the oldest of the same queue was. As a call of the router,
    under its lock."""
    if identity is None and router.mode is SendMode.PUBLISH and router.ring:
        return _into_all(router, message)
    if identity is None and (router.reliable or not router.ring or router.waiting):
        return _into_what_waits(router, message)
    if identity is not None and router.reliable:
        return _into_parked(router, message, identity)
    lane = router.next_in_turn() if identity is None else router.find(identity)
    dropped = _drop_from(router, lane, message)
    if lane is None or not dropped:
        return Squeezed((), [(message, identity)], True)
    lane.give(message)
    if identity is None:
        router.turn = router.turn + 1 if router.turn < len(router.ring) else 1
    return Squeezed((lane,), [(oldest, lane.identity) for oldest in dropped], False)


def _into_what_waits(router: Router, message: Queued) -> Squeezed:
    def drop_oldest() -> list[Queued]:
        """Of what is kept for each peer that is away, where that is what stands at the mark; or of what waits for
        anybody."""
        copies = router.copies.drop_oldest() if router.copies and not router.ring else []
        return copies or ([router.waiting.drop_oldest()] if router.waiting else [])

    dropped = _make_room(router, message, drop_oldest, lambda: router.unplaced_large)
    if not dropped:
        return Squeezed((), [(message, None)], True)
    router.waiting.add(message)
    return Squeezed((), [(oldest, None) for oldest in dropped], False)


def _into_parked(router: Router, message: Queued, identity: bytes) -> Squeezed:
    parked = router.parked
    dropped: list[tuple[Queued, bytes | None]] = []
    while not parked.has_room(identity):
        whose = parked.in_the_way(identity)
        if whose is None:
            return Squeezed((), [(message, identity)], True)
        dropped.append((parked.drop_oldest(whose), whose))
    parked.add(identity, message)
    return Squeezed((), dropped, False)


def _into_all(router: Router, message: Queued) -> Squeezed:
    lanes = []
    dropped: list[tuple[Queued, bytes | None]] = []
    for lane in router.ring:
        if not router.has_room(lane):
            gone = _drop_from(router, lane, message)
            dropped += [(oldest, lane.identity) for oldest in gone or [message]]
            if not gone:
                continue  # all of its queue is being written
        lanes.append(lane)
    router.publish(message, lanes)
    return Squeezed(lanes, dropped, not lanes)


def _drop_from(router: Router, lane: Lane | None, message: Queued) -> list[Queued]:
    if lane is None:
        return []
    with lane.lock:
        return _make_room(router, message, lambda: [oldest for oldest in (lane.drop_oldest(),) if oldest is not None],
                          lambda: lane.large_bytes)


def _make_room(router: Router, message: Queued, drop: Callable[[], list[Queued]],
               large: Callable[[], int]) -> list[Queued]:
    """Drop the oldest; and while what is left is at the mark in bytes, more, until as much has gone as comes."""
    dropped = drop()
    wanted = large_size(message) - sum(map(large_size, dropped))
    while dropped and wanted > 0 and large() >= router.limits.bytes:
        more = drop()
        if not more:
            break
        dropped += more
        wanted -= sum(map(large_size, more))
    return dropped
