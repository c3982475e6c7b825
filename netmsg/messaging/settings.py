"""The arguments of a Søcket, checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..checks import check_bool, check_callable, check_count, check_enum, check_range, check_seconds, check_timeout
from ..storage.files import PathLike
from .choices import AckMode, DeliveryGuarantee, OnDuplicate, OnFull, OnNoPeer, SendMode
from .snapshots import PeerInfo

__all__ = ["Settings", "checked", "default_policy"]

LONGEST_MESSAGE = 2**32 - 32
LARGEST_BUFFER = 2**31 - 1
"""That the kernel can be asked for."""


class Settings(NamedTuple):
    """How one Søcket is to behave: see `Søcket`."""

    send_mode: SendMode
    delivery_guarantee: DeliveryGuarantee
    reconnection_delay: Callable[[], float] | None
    send_hwm: int
    send_hwm_bytes: int
    recv_hwm: int
    recv_hwm_bytes: int
    on_full: OnFull
    max_message_size: int
    max_connections: int
    heartbeat_interval: float
    heartbeat_timeout: float
    handshake_timeout: float
    ack_mode: AckMode
    resend_after: float
    max_resends: int | None
    max_unacked: int | None
    dedupe: int
    on_duplicate: OnDuplicate
    authorize: Callable[[PeerInfo], bool] | None
    linger: float
    on_no_peer: OnNoPeer = OnNoPeer.KEEP
    conflate: bool = False
    send_buffer: int | None = None
    recv_buffer: int | None = None
    outbox: PathLike | None = None
    outbox_sync: str = "full"
    dedupe_path: PathLike | None = None

    @property
    def reliable(self) -> bool:
        """Whether it sends at least once."""
        return self.delivery_guarantee is DeliveryGuarantee.AT_LEAST_ONCE


def default_policy(send_mode: SendMode) -> OnFull:
    """What a full queue does where nothing is said of it."""
    return OnFull.DROP_OLDEST if send_mode is SendMode.PUBLISH else OnFull.BLOCK


def checked(settings: Settings) -> Settings:
    """``settings``, if they make sense. Raises ``TypeError``, ``ValueError``."""
    for name, kind in (("send_mode", SendMode), ("delivery_guarantee", DeliveryGuarantee), ("ack_mode", AckMode),
                       ("on_duplicate", OnDuplicate), ("on_full", OnFull), ("on_no_peer", OnNoPeer)):
        check_enum(name, getattr(settings, name), kind)
    if settings.reliable and settings.send_mode is SendMode.PUBLISH:
        raise ValueError("AT_LEAST_ONCE does not go with PUBLISH: whose acknowledgement would count?")
    if settings.reliable and settings.on_no_peer is OnNoPeer.DROP:
        raise ValueError("AT_LEAST_ONCE does not go with OnNoPeer.DROP: what is dropped arrives not even once")
    if settings.outbox is not None:
        if not settings.reliable:
            raise ValueError("an outbox is for AT_LEAST_ONCE: what is sent at most once is not kept")
        if settings.on_full is OnFull.DROP_OLDEST:
            raise ValueError("an outbox does not go with OnFull.DROP_OLDEST: what is stored is not dropped")
    if settings.outbox_sync not in ("full", "normal"):
        raise ValueError(f"outbox_sync must be 'full' or 'normal', not {settings.outbox_sync!r:.100}")
    if settings.dedupe_path is not None:
        if settings.ack_mode is AckMode.ON_ARRIVAL:
            raise ValueError("dedupe_path does not go with AckMode.ON_ARRIVAL: what is acknowledged before it is handed"
                             " over is noted too soon, or too late")
        check_count("dedupe", settings.dedupe, 1)
    check_bool("conflate", settings.conflate)
    if settings.reliable and settings.conflate:
        raise ValueError("AT_LEAST_ONCE does not go with conflate: what gives way to something newer never arrives")
    for name in ("send_hwm", "send_hwm_bytes", "recv_hwm", "recv_hwm_bytes", "max_message_size", "max_connections"):
        check_count(name, getattr(settings, name), 1)
    if settings.max_message_size > LONGEST_MESSAGE:
        raise ValueError("max_message_size: a frame cannot be longer than 4 GiB")
    check_count("dedupe", settings.dedupe, 0)
    for name, least in (("max_resends", 0), ("max_unacked", 1)):
        if getattr(settings, name) is not None:
            check_count(name, getattr(settings, name), least)
    for name in ("send_buffer", "recv_buffer"):
        if getattr(settings, name) is not None:
            check_range(name, getattr(settings, name), 1, LARGEST_BUFFER)
    for name in ("heartbeat_interval", "heartbeat_timeout", "handshake_timeout", "resend_after"):
        check_seconds(name, getattr(settings, name))
    if settings.heartbeat_timeout <= settings.heartbeat_interval:
        raise ValueError("heartbeat_timeout must be greater than heartbeat_interval")
    if settings.linger is None:
        raise TypeError("linger must be a number of seconds; math.inf means for ever")
    check_timeout(settings.linger)
    check_callable("reconnection_delay", settings.reconnection_delay)
    check_callable("authorize", settings.authorize)
    return settings
