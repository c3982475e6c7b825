"""Routers and messages for the tests of where a message goes."""

from __future__ import annotations

from functools import cache

from netmsg.messaging.choices import SendMode
from netmsg.messaging.kept import Limits
from netmsg.messaging.lane import Lane
from netmsg.messaging.routing import Placed, Router
from netmsg.wire.envelope import data_frame, reliable_frame
from netmsg.wire.messages import Queued

from .lanes import lane

MANY = Limits(1000, 1 << 30)


def message(number: int) -> Queued:
    return data_frame(b"%d" % number)


def messages(*numbers: int) -> list[Queued]:
    return [message(number) for number in numbers]


def message_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


@cache
def reliable_message(number: int, size: int = 0, large: int = 1000) -> Queued:
    """An at-least-once message; kept in two, and counted in bytes, from ``large`` bytes of payload on."""
    return reliable_frame(message_id(number), bytes(size), large)


def reliable_messages(*numbers: int) -> list[Queued]:
    return [reliable_message(number) for number in numbers]


def roundrobin(limits: Limits = MANY, *, keeps: bool = True) -> Router:
    return Router(SendMode.ROUNDROBIN, limits, keeps=keeps)


def reliable(limits: Limits = MANY) -> Router:
    return Router(SendMode.ROUNDROBIN, limits, reliable=True)


def publisher(limits: Limits = MANY, *, keeps: bool = True) -> Router:
    return Router(SendMode.PUBLISH, limits, keeps=keeps)


def joining(router: Router, *identities: bytes, window: int = 1000) -> list[Lane]:
    lanes = [lane(identity, window=window) for identity in identities]
    for joined_lane in lanes:
        router.join(joined_lane)
    return lanes


def has_acknowledged(router: Router, acknowledging: Lane, message_ids: list[bytes]) -> tuple[list[bytes], list[Lane]]:
    """Which of them were its to acknowledge, and who has got what waited for that."""
    return acknowledging.acknowledge(message_ids), router.refill(acknowledging)


def place(router: Router, *frames: Queued, identity: bytes | None = None) -> list[Placed]:
    return [router.place(frame, identity)[0] for frame in frames]
