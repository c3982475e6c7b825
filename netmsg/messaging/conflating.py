"""Only the newest message for each peer: what has not gone yet gives way to what comes. Pure.

What a write holds has begun to go and stays; so at most one message is on its way to a peer, and one waits. What comes
back from a peer that has gone gives way too, where something newer has been sent. Requests, replies and what is sent at
least once are no news: they stay, and take nobody's place.

As in `netmsg.messaging.squeezing`, what goes is noted in a list of the caller's own in the same instant.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..uninterrupted import keep
from ..wire.messages import Kind, Message, Queued, frame_of, large_size, message_id_of
from .choices import SendMode
from .lane import Lane
from .routing import Placed, Router
from .squeezing import Drop

__all__ = ["conflate", "place_newest"]

NEWS: Final = frozenset({Kind.PLAIN, Kind.ADDRESSED, Kind.PUBLISHED})


def place_newest(router: Router, queued: Queued, identity: bytes | None, news_id: bytes,
                 dropped: list[Drop]) -> tuple[Placed, Iterable[Lane]]:
    """Queue a message where it belongs, in the place of what waits there: what became of it, and the lanes it went to.
    Its id is how it is known later to be older than another. As a call of the router, under its lock."""
    message = Message(router.kind_of(queued), frame_of(queued), large_size(queued), news_id, identity)
    if identity is None:
        router.newest = news_id
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
    newest; and nothing that is older than what has been sent."""
    _leave_newest(router, dropped)
    for lane in lanes:
        with lane.lock:
            _thin_out(router, lane, dropped)


def _thin_out(router: Router, lane: Lane, dropped: list[Drop]) -> None:
    """Under the lock of the lane."""
    news = [index for index, message in enumerate(lane.queue) if router.kind_of(message) in NEWS]
    lane.newest = max([lane.newest, *[message_id_of(lane.queue[index]) for index in news]])
    for index in reversed(news):  # from behind, for the others keep their places
        if index >= lane.held_messages and message_id_of(lane.queue[index]) < lane.newest:
            keep(dropped, _take_out, lane, index)


def _leave_newest(router: Router, dropped: list[Drop]) -> None:
    waiting = router.waiting
    while waiting and (len(waiting) > 1 or message_id_of(waiting[0]) < router.newest):
        keep(dropped, _drop_oldest, router)


def _take_out(lane: Lane, index: int) -> Drop:
    return lane.take_out(index), lane.identity


def _drop_oldest(router: Router) -> Drop:
    return router.waiting.drop_oldest(), None
