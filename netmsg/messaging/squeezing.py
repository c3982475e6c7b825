"""A message in the place of the oldest one, where there is no room: `OnFull.DROP_OLDEST`. Pure.

One goes for one that comes, so that a queue which is longer than its mark, after a peer has gone, is not emptied for
it. At least once what a peer has been given already stays: the oldest one that has no peer goes.

What goes is noted in a list of the caller's own in the same instant, so that an interrupt behind it leaves nothing that
nobody has counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, Union

from ..uninterrupted import keep
from ..wire.messages import Kind, Queued, large_size
from .choices import SendMode
from .lane import Lane
from .routing import Router

__all__ = ["Drop", "Squeezed", "squeeze_in"]


Drop = tuple[Queued, Union[bytes, None]]
"""A message that went, and whose queue it was in."""


class Squeezed(NamedTuple):
    """What became of a message that took the place of the oldest one."""

    lanes: Iterable[Lane]
    """Lanes that have got something to send."""
    refused: bool
    """Whether it was not placed anywhere: then it is itself the one that was dropped."""


def squeeze_in(router: Router, message: Queued, identity: bytes | None, dropped: list[Drop]) -> Squeezed:
    """Place ``message``, for which there is no room, where the oldest of the same queue was, and append what went for
    it to ``dropped``. As a call of the router, under its lock."""
    if identity is None and router.mode is SendMode.PUBLISH and router.ring:
        return _into_all(router, message, dropped)
    if identity is None and (router.reliable or not router.ring or router.waiting):
        return _into_what_waits(router, message, dropped)
    if identity is not None and router.kind_of(message) is Kind.RELIABLE:
        return _into_parked(router, message, identity, dropped)
    lane = router.next_in_turn() if identity is None else router.find(identity)
    if router.reliable:
        return _refused(message, identity, dropped)  # a reply: what a peer has been given already stays
    if lane is None:
        return _refused(message, identity, dropped)
    _make_room_in(lane, router, message, dropped)
    lane.give(message)
    if identity is None:
        router.turn = router.turn + 1 if router.turn < len(router.ring) else 1
    return Squeezed((lane,), False)


def _refused(message: Queued, identity: bytes | None, dropped: list[Drop]) -> Squeezed:
    dropped.append((message, identity))
    return Squeezed((), True)


def _into_what_waits(router: Router, message: Queued, dropped: list[Drop]) -> Squeezed:
    def drop_oldest() -> bool:
        """Of what is kept for each peer that is away, where that is what stands at the mark; or of what waits for
        anybody."""
        longest = router.copies.longest_ones() if router.copies and not router.ring else []
        gone = [_drop(copies, None, dropped) for copies in longest]
        if gone:
            return True
        queue = router.homeless or router.waiting
        return bool(queue) and _drop(queue, None, dropped)

    if not _make_room(router, message, drop_oldest, lambda: router.unplaced_large, dropped):
        return _refused(message, None, dropped)
    lane = router.next_with_room() if router.reliable and not router.waiting else None
    if lane is not None:  # it was what nobody wanted that stood at the mark
        lane.give(message)
        return Squeezed((lane,), False)
    router.waiting.add(message)
    return Squeezed((), False)


def _into_parked(router: Router, message: Queued, identity: bytes, dropped: list[Drop]) -> Squeezed:
    parked = router.parked
    while not parked.has_room(identity):
        whose = parked.in_the_way(identity)
        if whose is None:
            return _refused(message, identity, dropped)
        dropped.append((parked.drop_oldest(whose), whose))  # where no interrupt can come
    parked.add(identity, message)
    return Squeezed((), False)


def _into_all(router: Router, message: Queued, dropped: list[Drop]) -> Squeezed:
    lanes = router.audience(message)
    for lane in lanes:
        if not router.has_room(lane):
            _make_room_in(lane, router, message, dropped)
    router.publish(message, lanes)
    return Squeezed(lanes, False)


def _make_room_in(lane: Lane, router: Router, message: Queued, dropped: list[Drop]) -> None:
    """Of what is being written a part may still be dropped; where not even that is, one message comes on top, which is
    the next to go: the newest one is not what is dropped."""
    with lane.lock:
        if not lane.can_drop:
            lane.let_go()
        _make_room(router, message, lambda: lane.can_drop and _drop(lane, lane.identity, dropped),
                   lambda: lane.large_bytes, dropped)


def _make_room(router: Router, message: Queued, drop: Callable[[], bool], large: Callable[[], int],
               dropped: list[Drop]) -> bool:
    """Drop the oldest; and while what is left is at the mark in bytes, more, until as much has gone as comes."""
    seen = len(dropped)
    wanted = large_size(message)
    there_is_room = False
    while drop():
        there_is_room = True
        wanted -= sum(large_size(gone) for gone, _ in dropped[seen:])
        seen = len(dropped)
        if wanted <= 0 or large() < router.limits.bytes:
            break
    return there_is_room


class Queue(Protocol):
    """Of which the oldest message can go."""

    def drop_oldest(self) -> Queued: ...


def _drop(queue: Queue, whose: bytes | None, dropped: list[Drop]) -> bool:
    def drop() -> Drop:
        return queue.drop_oldest(), whose

    keep(dropped, drop)
    return True
