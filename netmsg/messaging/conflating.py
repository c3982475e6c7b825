"""Only the newest message for each peer: what has not gone yet gives way to what comes. Pure.

What a write holds has begun to go and stays; so at most one message is on its way to a peer, and one waits. Requests,
replies and what is sent at least once are no news: they stay, and take nobody's place.

As in `netmsg.messaging.squeezing`, what goes is noted in a list of the caller's own in the same instant.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..uninterrupted import keep
from ..wire.messages import Kind, Queued
from .choices import SendMode
from .lane import Lane
from .routing import Placed, Router
from .squeezing import Drop

__all__ = ["conflate", "place_newest"]

NEWS: Final = frozenset({Kind.PLAIN, Kind.ADDRESSED, Kind.PUBLISHED})


def place_newest(router: Router, message: Queued, identity: bytes | None,
                 dropped: list[Drop]) -> tuple[Placed, Iterable[Lane]]:
    """Queue ``message`` where it belongs, in the place of what waits there: what became of it, and the lanes it went
    to. As a call of the router, under its lock."""
    if identity is None and not router.ring and router.keeps:
        router.waiting.add(message)
        _leave_newest(router, dropped)
        return Placed.WAITING, ()
    lanes: tuple[Lane, ...] = router.ring
    if identity is None and router.mode is SendMode.PUBLISH and lanes:
        lanes = tuple(router.audience(message))
        router.publish(message, lanes)
    else:
        lane = router.next_in_turn() if identity is None else router.find(identity)
        if lane is None:
            return Placed.ABSENT, ()
        if identity is None:
            router.turn = router.turn + 1 if router.turn < len(router.ring) else 1
        lane.give(message)
        lanes = lane,
    conflate(router, lanes, dropped)
    return Placed.QUEUED, lanes


def conflate(router: Router, lanes: Iterable[Lane], dropped: list[Drop]) -> None:
    """Where several messages have come together, in these queues or among those that wait for a peer, leave the
    newest."""
    _leave_newest(router, dropped)
    for lane in lanes:
        with lane.lock:
            for index in reversed(_news(router, lane)[:-1]):  # from behind, for the others keep their places
                keep(dropped, _take_out, lane, index)


def _news(router: Router, lane: Lane) -> list[int]:
    """Where in its queue there is some that no write holds."""
    return [index for index in range(lane.held_messages, len(lane.queue))
            if router.kind_of(lane.queue[index]) in NEWS]


def _leave_newest(router: Router, dropped: list[Drop]) -> None:
    while len(router.waiting) > 1:
        keep(dropped, _drop_oldest, router)


def _take_out(lane: Lane, index: int) -> Drop:
    return lane.take_out(index), lane.identity


def _drop_oldest(router: Router) -> Drop:
    return router.waiting.drop_oldest(), None
