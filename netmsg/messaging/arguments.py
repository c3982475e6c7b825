"""The arguments of a `Søcket`: their types, for type checkers, and the checks of what only a Søcket has."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypedDict, Union

from ..checks import check_str
from ..deadline import Deadline
from ..storage.files import PathLike
from ..tls.contexts import check_server_context
from ..wire.envelope import IDENTITY_SIZE, LONGEST_PREFIX
from ..wire.websocket_opening import ANY_ORIGIN, ClientOpening
from .carriers import Carrier
from .choices import AckMode, OnDuplicate, OnFull, OnNoPeer
from .snapshots import PeerInfo
from .urls import Place, parse_url

if TYPE_CHECKING:
    from ..reactor.io_thread import IOThread

__all__ = [
    "Buffer",
    "DEFAULT_PORT",
    "Options",
    "carrier_of_bind",
    "carrier_of_connect",
    "check_identity",
    "message_of",
    "place_of",
    "prefix_of",
    "taken_from",
]

GATHERED_WITHIN: Final = 0.05
"""Seconds for which those that come wait for others, to be stored with them."""

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
    outbox: PathLike | None
    on_duplicate: OnDuplicate
    authorize: Callable[[PeerInfo], bool] | None
    linger: float
    io_thread: IOThread | None
    on_no_peer: OnNoPeer
    conflate: bool
    send_buffer: int | None
    recv_buffer: int | None
    outbox_sync: str
    dedupe_path: PathLike | None


class _DefaultPort(int):
    """The port that is meant by saying none, so that it can be told from the same number said."""


DEFAULT_PORT: Final[int] = _DefaultPort(25000)


def check_identity(identity: bytes) -> bytes:
    if not isinstance(identity, bytes):
        raise TypeError(f"an identity must be bytes, not {type(identity).__name__}")
    if len(identity) != IDENTITY_SIZE:
        raise ValueError(f"an identity is {IDENTITY_SIZE} bytes, not {len(identity)}")
    return identity


def prefix_of(prefix: Buffer) -> bytes:
    """What messages are to begin with."""
    its_bytes = _bytes_of("prefix", prefix)
    if len(its_bytes) > LONGEST_PREFIX:
        raise ValueError(f"prefix: of {len(its_bytes)} bytes, and {LONGEST_PREFIX} are possible")
    return its_bytes


def carrier_of_bind(context: ssl.SSLContext | None, websocket_origins: Iterable[str], path: str = "") -> Carrier:
    """What is given to `bind`, apart from the address; ``path``: that of a ``ws://``, by which programs may come whose
    pages are not named."""
    check_server_context(context)
    if isinstance(websocket_origins, str):
        raise TypeError("websocket_origins must be a sequence of origins, such as ['https://example.org'], not one str")
    origins = frozenset(websocket_origins)
    for origin in origins:
        check_origin(origin)
    return Carrier(context, origins=origins if origins or path else None, path=path)


def check_origin(origin: str) -> None:
    """As a browser names the origin of a page, or ``"*"`` for all of them."""
    check_str("websocket_origins", origin)
    if origin in (ANY_ORIGIN, "null"):
        return
    if re.fullmatch(r"http://.*:80|https://.*:443", origin):
        raise ValueError(f"websocket_origins: {origin!r} names the scheme's own port, which no browser does; leave it "
                         "out")
    if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9+.-]*://[!-)+-.0-~]+", origin):
        raise ValueError(f"websocket_origins: {origin!r} is no origin; write one as https://example.org or "
                         "http://localhost:8000, with no path, or '*' alone for any")


def carrier_of_connect(context: ssl.SSLContext | None, server_hostname: str | None, place: Place | None,
                       headers: Mapping[str, str] | None) -> Carrier:
    """What is given to `connect`, apart from the address. Raises ``ValueError`` for headers that cannot be sent, or
    where there is no WebSocket to send them."""
    if place is None or not place.resource:
        if headers is not None:
            raise ValueError("websocket_headers are for ws:// and wss:// alone")
        return Carrier(context, server_hostname)
    opening = partial(ClientOpening, place.host, place.port, place.resource, None if headers is None else dict(headers),
                      secure=place.tls)
    opening()  # whether it can be made
    return Carrier(context, server_hostname, opening=opening)


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
        data = _bytes_of("a message", data)
    if len(data) > longest:
        raise ValueError(f"a message of {len(data)} bytes is longer than max_message_size ({longest})")
    return data


def taken_from(messages: Iterator[bytes], count: int, size: int) -> tuple[list[bytes], BaseException | None]:
    """The next ones: no more than so many, no more when they have so many bytes together, and no more than come within
    `GATHERED_WITHIN`; but one at least, if there is one. And what was raised instead of the next one, if anything was.
    """
    some: list[bytes] = []
    deadline = Deadline(GATHERED_WITHIN)
    try:
        for data in messages:
            some.append(data)
            size -= len(data)
            if len(some) >= count or size <= 0 or deadline.expired:
                break
            del data  # not an "if" at the end: see `netmsg.streams.turns.Turn`
    except BaseException as error:
        return some, error
    return some, None


def _bytes_of(what: str, data: Buffer) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        try:
            data = memoryview(data)
        except TypeError:
            raise TypeError(f"{what} must be bytes-like, not {type(data).__name__}") from None
    return bytes(data)
