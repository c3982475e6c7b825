"""WebSocket's frames: a stream of bytes as the payloads of binary messages, whose boundaries mean nothing.

What comes before them is in `netmsg.wire.websocket_opening`. Source: RFC 6455, sections 5 to 8.

A frame is a header and its payload::

    FIN RSV RSV RSV opcode(4)   MASK length(7)   length, of 16 or 64 bits   masking key, of 32   payload
                                                 (if the 7 are 126 or 127)  (from clients)

What the other end may not do fails the connection, with a Close frame that says why, and with `WebSocket.error`:

====  ==================================================================================================
1002  a reserved bit or opcode; a frame that is not masked from a client, or is from a server; a length in
      more bytes than it needs; a control frame in fragments, or of more than 125 bytes; a continuation of
      nothing, or a new message amid another one; a status code in a Close frame that nobody may send
1003  text
1007  a reason in a Close frame that is not UTF-8
====  ==================================================================================================
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from enum import Enum, IntEnum
from typing import Final, Union

from ..errors import ConnectionBrokenError, LocalProtocolError, RemoteProtocolError

__all__ = ["CloseCode", "LONGEST_CONTROL_PAYLOAD", "LONGEST_HEADER", "Opcode", "Side", "WebSocket", "masked"]

Buffer = Union[bytes, memoryview]

LONGEST_CONTROL_PAYLOAD: Final = 125
LONGEST_HEADER: Final = 14
FIN: Final = 0x80
RSV: Final = 0x70
CONTROL: Final = 0x08
"""The bit that the opcodes of control frames have."""
MASK: Final = 0x80
MASKING_KEY_SIZE: Final = 4
TWO_BYTES_FOLLOW: Final = 126
EIGHT_BYTES_FOLLOW: Final = 127
LARGE: Final = 4096
"""From this size on one byte in four at a time is faster to mask than one big integer."""

_EVERY_BYTE: Final = bytes(range(256))
_two_bytes: Final = struct.Struct("!H")
_eight_bytes: Final = struct.Struct("!Q")


class Side(Enum):
    """Which end of the connection; a client masks what it sends, and a server must not."""

    CLIENT = "client"
    SERVER = "server"


class Opcode(IntEnum):
    """Section 11.8."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(IntEnum):
    """Those of section 7.4.1 that are sent from here."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    INTERNAL_ERROR = 1011


_OPCODES: Final = frozenset(Opcode)
_REGISTERED: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})
"""The codes below 3000 that may be sent: section 7.4.1, and what has been registered with IANA since."""


def _may_be_sent(code: int) -> bool:
    return code in _REGISTERED or 3000 <= code < 5000


def masked(payload: Buffer, key: bytes) -> bytes:
    """``payload`` masked, or unmasked, which is the same (section 5.3)."""
    size = len(payload)
    if size < LARGE:
        repeated = key * (size // MASKING_KEY_SIZE) + key[:size % MASKING_KEY_SIZE]
        return (int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")
    result = bytearray(size)
    for at in range(MASKING_KEY_SIZE):
        table = masked(_EVERY_BYTE, key[at:at + 1] * MASKING_KEY_SIZE)
        result[at::MASKING_KEY_SIZE] = bytes(payload[at::MASKING_KEY_SIZE]).translate(table)
    return bytes(result)


class _Violation(Exception):
    def __init__(self, code: CloseCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class WebSocket:
    """One end of a connection, once it is open (section 4.1): bytes in, payload and answers out.

    What it holds does not grow: no more than the beginning of one frame that says nothing yet, and the latest answer.
    """

    def __init__(self, side: Side, random: Callable[[int], bytes] = os.urandom) -> None:
        """``random(size)`` returns so many bytes that nobody can foresee, for the masking keys (section 10.3)."""
        self.ended = False
        """Whether the other end's Close frame has come: nothing does any more."""
        self.error: ConnectionBrokenError | RemoteProtocolError | None = None
        """That it has gone without one, or what it has done that it may not: nothing of it is heard any more."""
        self.close_code: int | None = None
        """What its Close frame says, if it does."""
        self.close_reason = ""
        self.closing = False
        """Whether we have sent a Close frame, or one is among the answers: nothing goes behind it."""
        self._random = random
        self._we_mask = side is Side.CLIENT
        self._they_mask = side is Side.SERVER
        self._buffer = b""  # the beginning of a frame: its header, or a control frame that is not complete
        self._missing = 0  # of the payload of a data frame
        self._key: bytes | None = None  # that of the next byte of it first
        self._in_message = False  # another fragment has to follow
        self._pong: bytes | None = None
        self._close: bytes | None = None

    def copy(self) -> WebSocket:
        """Another one in the same state, for who may be interrupted while it changes."""
        other = WebSocket.__new__(WebSocket)
        other.__dict__.update(self.__dict__)
        return other

    # What comes

    def receive(self, chunk: bytes) -> bytes:
        """The payload that is in ``chunk``, whatever frames it is a piece of. Then there may be `has_answers`; the
        connection may have `ended`, or there is an `error`, either of them behind this payload."""
        if self.ended or self.error is not None:
            return b""
        data = self._buffer + chunk
        payloads: list[bytes] = []
        position, end = 0, len(data)
        try:
            while position < end and not self.ended:
                if self._missing:
                    payloads.append(self._payload(data[position:position + self._missing]))
                    position += len(payloads[-1])
                    continue
                size = self._frame(data, position)
                if not size:
                    break
                position += size
            self._buffer = b"" if self.ended else data[position:]
        except _Violation as violation:
            self._buffer = b""
            self.error = RemoteProtocolError(f"a WebSocket peer broke the rules: {violation}")
            self._queue_close(violation.code, "")
        return payloads[0] if len(payloads) == 1 else b"".join(payloads)

    def end_of_stream(self) -> None:
        """Nothing comes any more from below (section 7.1.5, where it is the code 1006). Who has our Close frame may
        have thought that this was all there was to say."""
        if self.ended or self.error is not None:
            return
        if self.closing and not (self._buffer or self._missing or self._in_message):
            self.ended = True
        else:
            self.error = ConnectionBrokenError("the WebSocket connection ended without a Close frame")

    def _payload(self, piece: bytes) -> bytes:
        """The next piece of the payload of a data frame."""
        self._missing -= len(piece)
        key = self._key
        if key is None:
            return piece
        turn = len(piece) % MASKING_KEY_SIZE
        self._key = key[turn:] + key[:turn]
        return masked(piece, key)

    def _frame(self, data: bytes, position: int) -> int:
        """Look at the frame that begins at ``position``: the size of its header, or of all of it if it is a control
        frame; 0 if that has not come yet."""
        left = len(data) - position
        if left < 2:
            return 0
        first, second = data[position], data[position + 1]
        self._check(first, second)
        length = second & ~MASK
        size = 2
        if length == TWO_BYTES_FOLLOW:
            size += 2
            if left < size:
                return 0
            length, = _two_bytes.unpack_from(data, position + 2)
            shortest = TWO_BYTES_FOLLOW
        elif length == EIGHT_BYTES_FOLLOW:
            size += 8
            if left < size:
                return 0
            length, = _eight_bytes.unpack_from(data, position + 2)
            shortest = 1 << 16
        else:
            shortest = 0
        if not shortest <= length < 1 << 63:
            raise _Violation(CloseCode.PROTOCOL_ERROR, f"a length of {length}, in {size - 2} bytes")
        key = None
        if self._they_mask:
            size += MASKING_KEY_SIZE
            key = data[position + size - MASKING_KEY_SIZE:position + size]
        if left < size:
            return 0
        if not first & CONTROL:
            self._in_message = not first & FIN
            self._missing, self._key = length, key
            return size
        if left < size + length:
            return 0
        payload = data[position + size:position + size + length]
        self._control(first & ~FIN, payload if key is None else masked(payload, key))
        return size + length

    def _check(self, first: int, second: int) -> None:
        """The first two bytes of a frame, by which most of what is wrong with it can be told (sections 5.1 to 5.5)."""
        opcode = first & ~(FIN | RSV)
        problem = ""
        if first & RSV:
            problem = "a reserved bit, and no extension was negotiated"
        elif opcode not in _OPCODES:
            problem = f"the reserved opcode {opcode}"
        elif bool(second & MASK) is not self._they_mask:
            problem = "a frame that is not masked" if self._they_mask else "a frame that is masked"
        elif opcode & CONTROL:
            if not first & FIN:
                problem = "a control frame in fragments"
            elif second & ~MASK > LONGEST_CONTROL_PAYLOAD:
                problem = f"a control frame of more than {LONGEST_CONTROL_PAYLOAD} bytes"
        elif opcode == Opcode.CONTINUATION and not self._in_message:
            problem = "a continuation of no message"
        elif opcode != Opcode.CONTINUATION and self._in_message:
            problem = "a new message before the end of another one"
        elif opcode == Opcode.TEXT:
            raise _Violation(CloseCode.UNSUPPORTED_DATA, "text, and only binary messages are understood here")
        if problem:
            raise _Violation(CloseCode.PROTOCOL_ERROR, problem)

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.CLOSE:
            self._close_came(payload)
        elif opcode == Opcode.PING and not self.closing:
            self._pong = payload  # the latest stands for all of those before it (section 5.5.3)

    def _close_came(self, payload: bytes) -> None:
        """Section 5.5.1: it is answered with the same code, unless it is an answer itself."""
        if payload:
            if len(payload) < 2:
                raise _Violation(CloseCode.PROTOCOL_ERROR, "a status code of one byte in a Close frame")
            code, = _two_bytes.unpack_from(payload)
            if not _may_be_sent(code):
                raise _Violation(CloseCode.PROTOCOL_ERROR, f"the status code {code} in a Close frame")
            try:
                self.close_reason = payload[2:].decode("utf-8")
            except UnicodeDecodeError:
                raise _Violation(CloseCode.INVALID_DATA, "a reason that is not UTF-8 in a Close frame") from None
            self.close_code = code
        self.ended = True
        self._queue_close(self.close_code, "")

    # What goes

    @property
    def has_answers(self) -> bool:
        """Whether a control frame of our own is to be sent: at the next end of a frame that is being sent."""
        return self._pong is not None or self._close is not None

    def take_answers(self) -> bytes:
        """All of them. Behind a Close frame (`closing`) nothing may be sent any more."""
        answers = b""
        if self._pong is not None:
            answers += self._control_frame(Opcode.PONG, self._pong)
            self._pong = None
        if self._close is not None:
            answers += self._control_frame(Opcode.CLOSE, self._close)
            self._close = None
        return answers

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Begin the closing handshake (section 7.1.2): a Close frame is among the answers. What the other end has sent
        before it answers still comes. Once; later calls do nothing."""
        if not _may_be_sent(code):
            raise LocalProtocolError(f"the status code {code} may not be sent")
        if len(reason.encode("utf-8")) > LONGEST_CONTROL_PAYLOAD - 2:
            raise LocalProtocolError(f"a reason of more than {LONGEST_CONTROL_PAYLOAD - 2} bytes")
        self._queue_close(code, reason)

    def _queue_close(self, code: int | None, reason: str) -> None:
        if not self.closing:
            self.closing = True
            self._close = b"" if code is None else _two_bytes.pack(code) + reason.encode("utf-8")

    def encode(self, payload: Buffer) -> list[Buffer]:
        """``payload`` as one binary message of one frame, in buffers that follow each other; a server's is not
        copied."""
        if self.closing:
            raise LocalProtocolError("nothing may be sent behind a Close frame")
        header, key = self._header(Opcode.BINARY, len(payload))
        return [header, payload if key is None else masked(payload, key)]

    def ping(self, payload: bytes = b"") -> bytes:
        """A Ping frame, of at most `LONGEST_CONTROL_PAYLOAD` bytes."""
        if self.closing:
            raise LocalProtocolError("nothing may be sent behind a Close frame")
        return self._control_frame(Opcode.PING, payload)

    def _control_frame(self, opcode: Opcode, payload: bytes) -> bytes:
        if len(payload) > LONGEST_CONTROL_PAYLOAD:
            raise LocalProtocolError(f"a control frame of more than {LONGEST_CONTROL_PAYLOAD} bytes")
        header, key = self._header(opcode, len(payload))
        return header + (payload if key is None else masked(payload, key))

    def _header(self, opcode: Opcode, length: int) -> tuple[bytes, bytes | None]:
        """With its masking key, if there is one, which is a fresh one for each frame."""
        mask = MASK if self._we_mask else 0
        if length < TWO_BYTES_FOLLOW:
            header = bytes((FIN | opcode, mask | length))
        elif length < 1 << 16:
            header = bytes((FIN | opcode, mask | TWO_BYTES_FOLLOW)) + _two_bytes.pack(length)
        else:
            header = bytes((FIN | opcode, mask | EIGHT_BYTES_FOLLOW)) + _eight_bytes.pack(length)
        if not self._we_mask:
            return header, None
        key = self._random(MASKING_KEY_SIZE)
        return header + key, key
