"""Received bytes into envelopes: bounded, and resumable at any byte."""

from __future__ import annotations

import struct
from itertools import repeat
from typing import Final

from ..errors import RemoteProtocolError
from .dialect import RunDecoder
from .envelope import ACK, ACK_HEADER, DATA, HELLO, LAYOUTS, MESSAGE_ID_SIZE, Layout
from .messages import READ_SIZE, Run

__all__ = ["EnvelopeDecoder"]

LARGE_PIECE: Final = 1 << 20
"""How many at most while one large frame arrives."""
LARGE: Final = 65_536
"""A partial frame of at least this many bytes is gathered in pieces, and its bytes are asked for exactly."""
HEADER_SIZE: Final = 5
HANDSHAKE_BOUND: Final = 256
"""No frame before the end of the handshake is longer."""

RUNS_AT_ONCE: Final = 256
"""So many runs take a few milliseconds, however short they are: of the shortest envelopes two hundred times as many fit
into what is received at once."""

UNKNOWN: Final = Layout("", may_be_large=True)
"""A type that this version does not know, and skips."""
LONGEST_CONTROL: Final = max(1 + layout.id_size + layout.longest for layout in LAYOUTS.values())
WITH_IDS: Final = frozenset(kind for kind, layout in LAYOUTS.items()
                            if layout.id_size and (layout.may_be_large or layout.longest))
"""The types that have something behind an id."""

_unpack_header = struct.Struct("!IB").unpack_from
_unpack_length = struct.Struct("!I").unpack_from


class EnvelopeDecoder(RunDecoder):
    """Turns the bytes of one connection into runs of envelopes.

    Payloads are cut out of the received chunks by slicing, which copies each byte once; a large frame is gathered in
    pieces and joined at its end. What it holds grows with the bytes that arrive, never with what a header claims.

    After a violation of the protocol `error` is set: the runs returned before and with it are good, and there will be
    no more.
    """

    def __init__(self, max_message_size: int) -> None:
        self.error: RemoteProtocolError | None = None
        self.read_size = READ_SIZE
        """How many bytes to receive next. Exact while a large frame arrives, so that its end needs no copy."""
        self.envelopes = 0
        """Envelopes decoded so far that do not count as messages; with those, the measure of a peer's being alive."""
        self.stopped = False
        """Whether the last `decode` ended for want of room, or of time, with more to decode."""
        self._bound = max_message_size + 1
        self._buffer = b""
        self._position = 0
        self._pieces: list[bytes] | None = None
        self._kind = 0
        self._message_id = b""
        self._missing = 0

    def hold(self, chunk: bytes) -> None:
        """Add ``chunk`` without decoding anything yet."""
        self._buffer = self._buffer[self._position:] + chunk
        self._position = 0

    def take_one(self) -> bytes | None:
        """Take the first envelope if it is complete: for the handshake, where one decides the rest.

        Raises `RemoteProtocolError` for an empty one or one longer than 256 bytes.
        """
        buffer = self._buffer
        if len(buffer) < 4:
            return None
        (size,) = _unpack_length(buffer)
        if not 0 < size <= HANDSHAKE_BOUND:
            raise RemoteProtocolError(f"a frame of {size} bytes before the end of the handshake")
        if len(buffer) < 4 + size:
            return None
        self._position = 4 + size
        return buffer[4:4 + size]

    def only_message(self, chunk: bytes) -> bytes | None:
        """The payload of the DATA frame that ``chunk`` is, exactly, with nothing before it: what a conversation or a
        quiet line consists of. For anything else ``None``, and ``chunk`` is still to be decoded."""
        if self._buffer or self._pieces is not None or len(chunk) <= HEADER_SIZE:
            return None
        size, kind = _unpack_header(chunk)
        if kind != DATA or size != len(chunk) - 4 or size > self._bound or self.error is not None:
            return None
        return chunk[5:]

    def discard(self) -> None:
        """Let go of what has been received and not decoded: there will be no more. A connection that is over may be
        kept alive for a while, by cycles of references or by whoever looks at it."""
        self._buffer = b""
        self._position = 0
        self._pieces = None
        self.stopped = False

    @property
    def idle(self) -> bool:
        """Whether the next byte begins a frame."""
        return not self._buffer and self._pieces is None and self.error is None

    @property
    def buffered(self) -> int:
        """How many received bytes wait to be decoded."""
        return len(self._buffer) - self._position

    def decode(self, chunk: bytes, room: int) -> list[Run]:
        """Add ``chunk`` and decode what is complete, but at most ``room`` messages, and for a few milliseconds; the
        rest is kept for later."""
        runs: list[Run] = []
        if self.error is not None:
            return runs
        position = 0
        if self._pieces is not None:
            whole = self._gather(chunk, room, runs)
            if whole is None:
                return runs
            chunk = whole
            room -= LAYOUTS.get(runs[-1].kind, UNKNOWN).counts
        elif not chunk:
            chunk, position = self._buffer, self._position
        elif self._buffer:
            chunk = self._buffer[self._position:] + chunk
        end = len(chunk)
        last = end - HEADER_SIZE
        bound = self._bound
        unpack = _unpack_header
        left = RUNS_AT_ONCE
        while position <= last and room > 0 and left > 0:
            left -= 1
            size, kind = unpack(chunk, position)
            before = position
            if kind == DATA:
                payloads: list[bytes] = []
                append = payloads.append
                for _ in repeat(None, room):
                    size, kind = unpack(chunk, position)
                    after = position + 4 + size
                    if kind != DATA or after > end or not 0 < size <= bound:
                        break
                    append(chunk[position + 5:after])
                    position = after
                    if position > last:
                        break
                if payloads:
                    runs.append(Run(DATA, payloads))
                    room -= len(payloads)
                    continue
            elif kind in WITH_IDS:
                position = self._run_with_ids(kind, chunk, position, room, runs)
                if position > before:
                    if LAYOUTS[kind].counts:
                        room -= len(runs[-1].bodies)
                    continue
            elif kind == ACK and size == 1 + MESSAGE_ID_SIZE:
                position = self._run_of_acks(chunk, position, runs)
                if position > before:
                    continue
            position = self._any_envelope(chunk, position, size, kind, runs)
            if position == before:
                break
        self.stopped = (room <= 0 or left <= 0) and position < end
        self._keep(chunk, position, end)
        return runs

    def _gather(self, chunk: bytes, room: int, runs: list[Run]) -> bytes | None:
        """Go on with a large frame: what follows it once it is complete, ``None`` while it is not."""
        pieces = self._pieces
        assert pieces is not None
        self.stopped = False
        if len(chunk) < self._missing:
            pieces.append(chunk)
            self._missing -= len(chunk)
            self.read_size = min(self._missing, LARGE_PIECE)
            return None
        last_piece, rest = chunk[:self._missing], chunk[self._missing:]  # no rest, if `read_size` was asked for
        if room <= 0 and LAYOUTS.get(self._kind, UNKNOWN).counts:
            pieces.append(last_piece)
            self._missing = 0
            self._buffer += rest
            self.stopped = True
            return None
        runs.append(self._finish_large(last_piece))
        self.read_size = HEADER_SIZE
        return self._buffer + rest

    def _run_with_ids(self, kind_of_run: int, chunk: bytes, position: int, room: int, runs: list[Run]) -> int:
        """Append the envelopes of that type that begin at ``position``, if the first is whole; where they end."""
        message_ids: list[bytes] = []
        payloads: list[bytes] = []
        append_id, append = message_ids.append, payloads.append
        end = len(chunk)
        last = end - HEADER_SIZE
        most = self._limit(kind_of_run)
        unpack = _unpack_header
        for _ in repeat(None, room):
            size, kind = unpack(chunk, position)
            after = position + 4 + size
            if kind != kind_of_run or after > end or not MESSAGE_ID_SIZE < size <= most:
                break
            append_id(chunk[position + 5:position + 21])
            append(chunk[position + 21:after])
            position = after
            if position > last:
                break
        if payloads:
            runs.append(Run(kind_of_run, payloads, message_ids))
            if not LAYOUTS[kind_of_run].counts:
                self.envelopes += len(payloads)
        return position

    def _run_of_acks(self, chunk: bytes, position: int, runs: list[Run]) -> int:
        """The same for ACK envelopes."""
        start, last = position, len(chunk) - 21
        while position <= last and chunk.startswith(ACK_HEADER, position):
            position += 21
        if position > start:
            acknowledged = [chunk[at:at + 16] for at in range(start + 5, position, 21)]
            runs.append(Run(ACK, acknowledged))
            self.envelopes += len(acknowledged)
        return position

    def _any_envelope(self, chunk: bytes, position: int, size: int, kind: int, runs: list[Run]) -> int:
        """Append the envelope at ``position``, whatever it is, if it is whole and may be there; where it ends."""
        after = position + 4 + size
        if not self._plausible(size, kind) or after > len(chunk):
            return position
        body = chunk[position + 5:after]
        if runs and runs[-1].kind == kind:
            runs[-1].bodies.append(body)
        else:
            runs.append(Run(kind, [body]))
        self.envelopes += 1
        return after

    def _plausible(self, size: int, kind: int) -> bool:
        """Whether a frame may begin so; sets `error` if not."""
        layout = LAYOUTS.get(kind, UNKNOWN)
        if size == 0:
            problem = "an empty envelope"
        elif kind == HELLO:
            problem = "a second HELLO"
        elif size > self._limit(kind) and layout.may_be_large:
            problem = f"a frame of {size} bytes, more than the largest message allowed"
        elif not layout.id_size < size <= self._limit(kind):
            problem = f"{layout.name} of {size} bytes"
        else:
            return True
        self.error = RemoteProtocolError(problem)
        return False

    def _limit(self, kind: int) -> int:
        """How long an envelope of this type may be: a small limit on messages does not hinder control."""
        layout = LAYOUTS.get(kind, UNKNOWN)
        return layout.id_size + max(1 + layout.longest, self._bound if layout.may_be_large else 0)

    def _keep(self, chunk: bytes, position: int, end: int) -> None:
        """Keep what could not be decoded: leftovers as they are, the begin of a large frame as its first piece."""
        left = end - position
        if left == 0 or self.error is not None:
            self._buffer = b""
            self._position = 0
            return
        if left >= HEADER_SIZE:
            size, kind = _unpack_header(chunk, position)
            if size >= LARGE and left < 4 + size and self._plausible(size, kind):
                fixed = HEADER_SIZE + LAYOUTS.get(kind, UNKNOWN).id_size
                if left >= fixed:
                    self._begin_large(kind, chunk[position + HEADER_SIZE:position + fixed],
                                      chunk[position + fixed:], 4 + size - left)
                    return
                self.read_size = fixed - left
                self._buffer, self._position = chunk[position:], 0
                return
            self._plausible(size, kind)
            self.read_size = READ_SIZE
        elif left == 4:  # a length that no type makes right need not wait for the type
            (size,) = _unpack_length(chunk, position)
            if not 0 < size <= max(self._bound + MESSAGE_ID_SIZE, LONGEST_CONTROL):
                self._plausible(size, 0)
        self._buffer, self._position = chunk, position

    def _begin_large(self, kind: int, message_id: bytes, first: bytes, missing: int) -> None:
        self._kind = kind
        self._message_id = message_id
        self._pieces = [first] if first else []
        self._missing = missing
        self.read_size = min(missing, LARGE_PIECE)
        self._buffer = b""
        self._position = 0

    def _finish_large(self, last: bytes) -> Run:
        pieces = self._pieces
        assert pieces is not None
        if last:
            pieces.append(last)
        payload = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._pieces = None
        if not LAYOUTS.get(self._kind, UNKNOWN).counts:
            self.envelopes += 1
        return Run(self._kind, [payload], [self._message_id] if self._kind in WITH_IDS else None)
