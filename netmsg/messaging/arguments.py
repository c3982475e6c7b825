"""The arguments of a `Søcket`: their types, for type checkers, and the checks."""

from __future__ import annotations

import math
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypedDict

from ..sockets.addresses import unix_path
from ..tls.contexts import check_server_context
from ..wire.envelope import IDENTITY_SIZE
from .choices import AckMode, OnDuplicate, OnFull
from .snapshots import PeerInfo

if TYPE_CHECKING:
    from ..reactor.io_thread import IOThread

__all__ = [
    "DEFAULT_PORT",
    "Options",
    "check_bind",
    "check_count",
    "check_enum",
    "check_identity",
    "check_not_yet",
    "check_seconds",
    "check_unix_path",
]


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


class _DefaultPort(int):
    """The port that is meant by saying none, so that it can be told from the same number said."""


DEFAULT_PORT: Final[int] = _DefaultPort(25000)


def check_enum(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be one of {kind.__name__}, not {value!r}")


def check_count(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def check_seconds(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be more than 0 seconds, not {value}")


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


def check_unix_path(path: str | bytes | os.PathLike[str]) -> str:
    """``path`` as ``str``. Raises ``NotImplementedError`` where there are no UNIX sockets."""
    if not hasattr(socket, "AF_UNIX"):
        raise NotImplementedError("this platform has no UNIX sockets")
    return unix_path(path)


def check_not_yet(name: str, value: Any) -> None:
    """An argument that is part of the interface, and comes with a later version."""
    if value is not None:
        raise NotImplementedError(f"{name} is not there yet")
