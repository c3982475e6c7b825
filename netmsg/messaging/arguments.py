"""The arguments of a `Søcket`: their types, for type checkers, and the checks of what only a Søcket has."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypedDict, Union

from ..tls.contexts import check_server_context
from ..wire.envelope import IDENTITY_SIZE
from .choices import AckMode, OnDuplicate, OnFull, OnNoPeer
from .snapshots import PeerInfo
from .urls import Place, parse_url

if TYPE_CHECKING:
    from ..reactor.io_thread import IOThread

__all__ = [
    "Buffer",
    "DEFAULT_PORT",
    "Options",
    "check_bind",
    "check_identity",
    "message_of",
    "place_of",
]

Buffer = Union[bytes, bytearray, memoryview]


class Options(TypedDict, total=False):
    """The keyword arguments of `Søcket`, for the overloads that tell the two kinds of Søcket apart."""

    send_hwm: int
    send_hwm_bytes: int
    recv_hwm: int
    recv_hwm_bytes: int
    on_full: OnFull | None
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
    outbox: str | os.PathLike[str] | None
    on_duplicate: OnDuplicate
    authorize: Callable[[PeerInfo], bool] | None
    linger: float
    io_thread: IOThread | None
    on_no_peer: OnNoPeer
    conflate: bool
    send_buffer: int | None
    recv_buffer: int | None


class _DefaultPort(int):
    """The port that is meant by saying none, so that it can be told from the same number said."""


DEFAULT_PORT: Final[int] = _DefaultPort(25000)


def check_identity(identity: bytes) -> bytes:
    if not isinstance(identity, bytes):
        raise TypeError(f"an identity must be bytes, not {type(identity).__name__}")
    if len(identity) != IDENTITY_SIZE:
        raise ValueError(f"an identity is {IDENTITY_SIZE} bytes, not {len(identity)}")
    return identity


def check_bind(context: ssl.SSLContext | None, websocket_origins: Sequence[str]) -> None:
    """What is given to `bind`, apart from the address."""
    check_server_context(context)
    if websocket_origins:
        raise NotImplementedError("websocket_origins: WebSocket is not there yet")


def place_of(hostname: Any, port: int) -> Place | None:
    """What ``hostname`` says if it is a URL, beside which there may be no port."""
    if hostname is None:
        return None
    if not isinstance(hostname, str):
        raise TypeError(f"hostname must be a str or None, not {type(hostname).__name__}")
    place = parse_url(hostname)
    if place is not None and port is not DEFAULT_PORT:
        raise ValueError(f"{hostname!r} is a URL, which says where already: leave out port {port!r}")
    return place


def message_of(data: Buffer, longest: int) -> bytes:
    """``data`` as ``bytes``: those are kept as they are, anything that may change is copied."""
    if type(data) is not bytes:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            try:
                data = memoryview(data)
            except TypeError:
                raise TypeError(f"a message must be bytes-like, not {type(data).__name__}") from None
        data = bytes(data)
    if len(data) > longest:
        raise ValueError(f"a message of {len(data)} bytes is longer than max_message_size ({longest})")
    return data
