"""The dialect of ``aiomsg==2019.12.1``: no types, and what a frame is has to be told by its content.

A frame is a big-endian ``u32`` length and a body of that many bytes. The first one of each end is its bare identity,
and neither waits for the other's. Then a body is, in this order:

==================================  ===============================================
body                                is
==================================  ===============================================
empty                               the end of the connection
``aiomsg-heartbeat``                a heartbeat
id (16 bytes), ``00 REQ 00``, more  a message, to be acknowledged
id (16 bytes), ``00 REP 00``        the acknowledgement of that one
anything else                       a message
==================================  ===============================================

A message sent at most once that would be taken for something else (an empty one, above all) is sent as one to be
acknowledged, and nobody waits for the acknowledgement.

An end that has dialled speaks version 1 first. Here its HELLO is taken for an identity, of 18 bytes, and serves as one.

Source: the package itself (``aiomsg/msgproto.py``, ``header.py``, and ``Connection`` in ``__init__.py``).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable
from typing import Final

from ..errors import RemoteProtocolError
from .dialect import Dialect, RunDecoder
from .envelope import IDENTITY_SIZE, LARGE_FRAME, MESSAGE_ID_SIZE, payload_of
from .messages import (
    ACKNOWLEDGEMENTS, MESSAGES, READ_SIZE, RELIABLE_MESSAGES, Capabilities, Frame, Kind, Message, Queued, Run,
)

__all__ = ["Legacy", "LegacyDecoder"]

HEARTBEAT: Final = b"aiomsg-heartbeat"
REQUEST: Final = b"\0REQ\0"
REPLY: Final = b"\0REP\0"
HEADER_SIZE: Final = MESSAGE_ID_SIZE + len(REQUEST)
PREFIX_SIZE: Final = 4
LARGE: Final = 65_536
"""A partial frame of at least this many bytes is gathered in pieces, and its bytes are asked for exactly."""
LARGE_PIECE: Final = 1 << 20
"""How many at most at a time."""
CONTROL_AT_ONCE: Final = 2048
"""So many frames that are no messages take a few milliseconds."""

_pack_length = struct.Struct("!I").pack
_unpack_length = struct.Struct("!I").unpack_from


def _frame(body: bytes) -> bytes:
    return _pack_length(len(body)) + body


class LegacyDecoder(RunDecoder):
    """What it holds grows with the bytes that arrive, never with what a length claims."""

    def __init__(self, max_message_size: int) -> None:
        self._bound = max_message_size + HEADER_SIZE
        self._buffer = b""
        self._pieces: list[bytes] | None = None
        self._missing = 0

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    def hold(self, chunk: bytes) -> None:
        self._buffer += chunk

    def take_identity(self) -> bytes | None:
        """The first frame, by which this dialect has been told."""
        end = PREFIX_SIZE + IDENTITY_SIZE
        if len(self._buffer) < end:
            return None
        identity, self._buffer = self._buffer[PREFIX_SIZE:end], self._buffer[end:]
        return identity

    def discard(self) -> None:
        self._buffer = b""
        self._pieces = None
        self.stopped = False

    def decode(self, chunk: bytes, room: int) -> list[Run]:
        runs: list[Run] = []
        if self.error is not None:
            return runs
        if self._pieces is not None:
            self.stopped = False
            chunk = self._gather(chunk)
            if self._missing:
                return runs
            if room <= 0:
                self._buffer += chunk
                self.stopped = True
                return runs
            room -= self._sort(b"".join(self._pieces), runs)
            self._pieces = None
            self.read_size = READ_SIZE
        chunk = self._buffer + chunk
        position, end = 0, len(chunk)
        last = self.envelopes + CONTROL_AT_ONCE
        while end - position >= PREFIX_SIZE and room > 0 and self.envelopes < last and self.error is None:
            (size,) = _unpack_length(chunk, position)
            after = position + PREFIX_SIZE + size
            if after > end or not self._is_plausible(size, self._bound):
                break
            room -= self._sort(chunk[position + PREFIX_SIZE:after], runs)
            position = after
        self.stopped = (room <= 0 or self.envelopes >= last) and position < end
        self._keep(chunk[position:])
        return runs

    def _is_plausible(self, size: int, bound: int) -> bool:
        """Whether a frame, or what is no request, may be so long; sets `error` if not."""
        if not size:
            self.error = RemoteProtocolError("an empty frame")
        elif size > bound:
            self.error = RemoteProtocolError(f"a frame of {size} bytes, more than the largest message allowed")
        return self.error is None

    def _sort(self, body: bytes, runs: list[Run]) -> int:
        """Append what ``body`` is: how many messages that are to be received."""
        header = body[MESSAGE_ID_SIZE:HEADER_SIZE]
        message_id = body[:MESSAGE_ID_SIZE]
        if header == REQUEST:
            self._append(RELIABLE_MESSAGES, body[HEADER_SIZE:], message_id, runs)
            return 1
        if body != HEARTBEAT and not (header == REPLY and len(body) == HEADER_SIZE):
            if self._is_plausible(len(body), self._bound - HEADER_SIZE):
                self._append(MESSAGES, body, None, runs)
            return 1
        if body != HEARTBEAT:
            self._append(ACKNOWLEDGEMENTS, message_id, None, runs)
        self.envelopes += 1
        return 0

    @staticmethod
    def _append(kind: int, body: bytes, message_id: bytes | None, runs: list[Run]) -> None:
        if not runs or runs[-1].kind != kind:
            runs.append(Run(kind, [], None if message_id is None else []))
        run = runs[-1]
        run.bodies.append(body)
        if run.message_ids is not None and message_id is not None:
            run.message_ids.append(message_id)

    # What cannot be decoded yet

    def _gather(self, chunk: bytes) -> bytes:
        """Go on with a large frame: what is behind it."""
        assert self._pieces is not None
        piece, rest = chunk[:self._missing], chunk[self._missing:]
        if piece:
            self._pieces.append(piece)
            self._missing -= len(piece)
        self.read_size = min(self._missing, LARGE_PIECE) or READ_SIZE
        return rest

    def _keep(self, rest: bytes) -> None:
        self._buffer = rest
        if self.error is None and len(rest) >= PREFIX_SIZE:
            (size,) = _unpack_length(rest)
            missing = PREFIX_SIZE + size - len(rest)
            if self._is_plausible(size, self._bound) and size >= LARGE and missing > 0:
                self._pieces = [rest[PREFIX_SIZE:]]
                self._missing = missing
                self.read_size = min(missing, LARGE_PIECE)
                self._buffer = b""
        if self.error is not None:
            self._buffer = b""


class Legacy(Dialect):
    """It is told by the other end's first frame."""

    name = "legacy"
    heartbeat = _frame(HEARTBEAT)

    def __init__(self, max_message_size: int) -> None:
        self.decoder: LegacyDecoder = LegacyDecoder(max_message_size)

    def opening(self, identity: bytes) -> bytes:
        return _frame(identity)

    def greet(self) -> bytes | None:
        return self.decoder.take_identity()

    def welcome(self, identity: bytes, capabilities: Capabilities, *, opened: bool) -> bytes:
        return b"" if opened else _frame(identity)

    def acknowledgements(self, message_ids: Iterable[bytes]) -> bytes:
        return b"".join(_frame(message_id + REPLY) for message_id in message_ids)

    def encoder(self) -> Callable[[Queued], Frame]:
        return _Encoder()


class _Encoder:
    """Of one connection."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def __call__(self, queued: Queued) -> Frame:
        payload = payload_of(queued)
        if isinstance(queued, Message) and queued.kind is Kind.RELIABLE:
            head = queued.message_id + REQUEST
        elif _is_mistakable(payload):
            head = next(self._numbers).to_bytes(MESSAGE_ID_SIZE, "big") + REQUEST
        else:
            head = b""
        prefix = _pack_length(len(head) + len(payload)) + head
        return (prefix, payload) if len(payload) >= LARGE_FRAME else prefix + payload


def _is_mistakable(payload: bytes) -> bool:
    """Whether it would be taken for something else than a message."""
    return not payload or payload == HEARTBEAT or payload[MESSAGE_ID_SIZE:HEADER_SIZE] in (REQUEST, REPLY)
