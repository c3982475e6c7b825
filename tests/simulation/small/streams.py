"""Two real streams, face to face over a connection that is none, and their users, who call one member after the other.
One seed decides what they call, and how the connection cuts up, delays and breaks what they send."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, NamedTuple

from support.channels import as_any
from support.strikes import Strike, Struck

from netmsg import (
    ByteStream, ConnectionBrokenError, DelimiterNotFoundError, EndOfStream, IncompleteReadError, LocalProtocolError,
    SendTimeoutError,
)

from ..promises import promise
from .secured import under_tls
from .wires import WireLink, WireSocket, connect

__all__ = ["RECEIVES", "SENDS", "Operation", "StreamWorld"]

TEXT: Final = (b"eeeeeeeeennnnnnnnnirstahdulcgmobwfkzpvjyxqEENIRSTAHDULC\n\n\n\n\n\n\n\n" * 5)[:256]
"""What each byte of chance becomes: ASCII, in which delimiters occur."""
DELIMITERS: Final = (b"\n", b"en", b"\n\n")
SIZES: Final = (1, 1, 3, 10, 10, 60, 60, 400, 3000, 20_000)
LARGE: Final = 100_000
"""More than TLS encrypts ahead, and than one receive asks for."""
LIMITS: Final = (1, 10, 100, 65_536)
TRIES: Final = 50
"""Receives that end in vain, in a row, when nothing is in the way any more."""


@dataclass(frozen=True)
class Operation:
    """One call of a user's. ``patient``: without a timeout, if what it waits for is under way; otherwise it has no
    time."""

    end: int
    kind: str
    size: int = 1
    delimiter: bytes = b"\n"
    limit: int = 65_536
    patient: bool = False

    def __str__(self) -> str:
        return f"{self.kind} of {self.size} at end {self.end}"


# How to receive. Each adds to a buffer what the user has got.

Call = Callable[[ByteStream, Operation, float | None, bytearray], None]
Enough = Callable[[Operation, bytes], bool]


def _receive(stream: ByteStream, what: Operation, timeout: float | None, got: bytearray) -> None:
    got += stream.receive(what.size, timeout=timeout)


def _receive_into(stream: ByteStream, what: Operation, timeout: float | None, got: bytearray) -> None:
    buffer = bytearray(what.size)
    got += buffer[:stream.receive_into(buffer, timeout=timeout)]


def _receive_chunk(stream: ByteStream, what: Operation, timeout: float | None, got: bytearray) -> None:
    got += next(stream.receive_chunks(what.size, timeout=timeout), b"")


def _read(stream: ByteStream, what: Operation, timeout: float | None, got: bytearray) -> None:
    got += stream.makefile("rb", buffering=0, timeout=timeout).read(what.size)


def _read_line(stream: ByteStream, what: Operation, timeout: float | None, got: bytearray) -> None:
    with stream.makefile("rb", timeout=timeout) as file:
        got += file.readline()


def _receive_exactly(stream: ByteStream, what: Operation, timeout: float | None, got: bytearray) -> None:
    got += stream.receive_exactly(what.size, timeout=timeout)


def _receive_file(stream: ByteStream, what: Operation, timeout: float | None, got: bytearray) -> None:
    file = io.BytesIO()
    try:
        stream.receive_file(file, what.size, timeout=timeout)
    finally:
        got += file.getvalue()


def _receive_until(stream: ByteStream, what: Operation, timeout: float | None, got: bytearray) -> None:
    for _ in range(1 + what.size % 12):  # often enough for it to split what has come
        got += stream.receive_until(what.delimiter, what.limit, timeout=timeout) + what.delimiter


def _receive_item(stream: ByteStream, what: Operation, timeout: float | None, got: bytearray) -> None:
    for item in stream.receive_delimited_chunks(what.delimiter, what.limit, timeout=timeout):
        got += item + what.delimiter
        return


def _some(what: Operation, rest: bytes) -> bool:
    return bool(rest)


def _all(what: Operation, rest: bytes) -> bool:
    return len(rest) >= what.size


def _a_line(what: Operation, rest: bytes) -> bool:
    return b"\n" in rest


def _items(what: Operation, rest: bytes) -> bool:
    parts = rest.split(what.delimiter)
    count = 1 + what.size % 12 if what.kind == "receive_until" else 1
    return len(parts) > count or any(len(part) >= what.limit + len(what.delimiter) for part in parts[:count])


class Receive(NamedTuple):
    call: Call
    enough: Enough
    """Whether it returns, or raises, without anything more being sent."""
    interruptible: bool = True
    """Whether an interrupt loses nothing."""


RECEIVES: Final = {
    "receive": Receive(_receive, _some),
    "receive_into": Receive(_receive_into, _some),
    "receive_chunks": Receive(_receive_chunk, _some),
    "read": Receive(_read, _some),
    "readline": Receive(_read_line, _a_line, interruptible=False),
    "receive_exactly": Receive(_receive_exactly, _all),
    "receive_file": Receive(_receive_file, _all),
    "receive_until": Receive(_receive_until, _items),
    "receive_delimited_chunks": Receive(_receive_item, _items),
}


# How to send

def _send_all(stream: ByteStream, data: bytes, timeout: float | None) -> None:
    stream.send_all(data, timeout=timeout)


def _send_file(stream: ByteStream, data: bytes, timeout: float | None) -> None:
    stream.send_file(io.BytesIO(data), timeout=timeout)


def _write(stream: ByteStream, data: bytes, timeout: float | None) -> None:
    stream.makefile("wb", buffering=0, timeout=timeout).write(data)


def _write_buffered(stream: ByteStream, data: bytes, timeout: float | None) -> None:
    """A user who is interrupted flushes again."""
    file = stream.makefile("wb", buffering=1 << 20, timeout=timeout)
    try:
        file.write(data)
        try:
            file.flush()
        except Struck:
            file.flush()
    finally:
        file.raw.close()  # or it would try once more when it goes


SENDS: Final[dict[str, Callable[[ByteStream, bytes, float | None], None]]] = {
    "send_all": _send_all, "send_file": _send_file, "write": _write, "flush": _write_buffered}


@dataclass
class Sent:
    """What a user has wanted to send."""

    data: bytes
    whole: bool
    """Whether the call has returned: the rest may have gone, or a part, or nothing."""
    least: int = 0
    """So much of it has, as far as was told."""


class End:
    """One of the two."""

    def __init__(self, sock: WireSocket, link: WireLink, dice: random.Random) -> None:
        self.sock = sock
        self.stream = ByteStream(as_any(link))
        self.got = bytearray()
        self.sent: list[Sent] = []
        self.refused = False
        """Whether sending has been refused, since an earlier one was cut."""
        self.ending = False
        """Whether `send_eof` was called."""
        self.finished = False
        """Whether that has returned."""
        self.secured = link.transport.tls is not None
        self._dice = dice

    def text(self, size: int) -> bytes:
        return self._dice.randbytes(size).translate(TEXT)

    @property
    def doubtful(self) -> bool:
        """Whether a send may have been cut."""
        return any(not sent.whole for sent in self.sent)


class StreamWorld:
    """``name`` is its seed; ``secured``: under TLS, of this version."""

    def __init__(self, name: str, secured: str | None = None, script: list[Operation] | None = None) -> None:
        self._name = name
        self._secured = secured
        self.script = script if script is not None else [*draw(random.Random(name), bool(secured))]
        """What is going to happen."""

    def run(self, strikes: Mapping[int, Strike] = {}) -> None:
        """Raises `BrokenPromise`. ``strikes``: in which of its operations."""
        ends = self._begin()
        try:
            for number, what in enumerate(self.script):
                self._perform(ends, what, strikes.get(number) or nullcontext())
            self._finish(ends)
        finally:
            for end in ends:
                end.stream.abort()

    def _begin(self) -> tuple[End, End]:
        dice = random.Random(f"{self._name}/wires")
        socks = connect(dice)
        links = under_tls(socks, self._secured) if self._secured else [WireLink(sock) for sock in socks]
        one, other = [End(sock, link, random.Random(f"{self._name}/{number}"))
                      for number, (sock, link) in enumerate(zip(socks, links))]
        return one, other

    def _perform(self, ends: tuple[End, End], what: Operation, strike: AbstractContextManager[object]) -> None:
        end, other = ends[what.end], ends[1 - what.end]
        if what.kind in RECEIVES:
            self._receive(end, other, what, strike)
        elif what.kind in SENDS:
            self._send(end, what, strike)
        elif what.kind == "send_eof":
            self._send_eof(end, what, strike)
        else:
            end.sock.be_reset()
            other.sock.be_reset()

    # Receiving

    def _receive(self, end: End, other: End, what: Operation, strike: AbstractContextManager[object]) -> None:
        how = RECEIVES[what.kind]
        rest, over = _to_come(end, other)
        patient = (what.patient or not how.interruptible) and (over or how.enough(what, rest))
        if not (patient or how.interruptible):
            return
        got = bytearray()
        try:
            with strike if how.interruptible else nullcontext():
                how.call(end.stream, what, None if patient else 0, got)
            _check_taken(what, got, _may_be_over(end, other), rest)
        except Struck:
            pass
        except DelimiterNotFoundError:
            unread = rest[len(got):].split(what.delimiter)[0]
            promise("errors are the documented ones", not rest or len(unread) > what.limit,
                    "%s has not found what is %d bytes away", what, len(unread))
        except TimeoutError as error:
            promise("errors are the documented ones", type(error) is TimeoutError, "%s has raised %r", what, error)
            promise("a wait ends", not patient, "%s has timed out", what)
        except (EndOfStream, IncompleteReadError) as error:
            partial = getattr(error, "partial", b"")
            promise("an end is one", _may_be_over(end, other, got + partial), "%s has raised %r", what, error)
            if over and not end.sock.is_reset and what.kind != "receive_file":
                promise("an end is one", rest[len(got):] == partial, "%s has raised %r, and there is %r", what, error,
                        rest)
        except ConnectionBrokenError as error:
            promise("errors are the documented ones", end.sock.is_reset or end.secured and end.sock.incoming.ended,
                    "%s has raised %r", what, error)
        end.got += got

    # Sending

    def _send(self, end: End, what: Operation, strike: AbstractContextManager[object]) -> None:
        data = end.text(what.size)
        before = len(end.sock.outgoing.taken)
        buffered = what.kind == "flush"
        try:
            with strike:
                SENDS[what.kind](end.stream, data, None if what.patient or buffered else 0)
            promise("a cut send is the last", not end.refused, "%s goes on", what)
            promise("errors are the documented ones", not end.ending, "%s, behind the end", what)
            end.sent.append(Sent(data, True))
        except Struck:
            end.sent.append(Sent(data, False))
        except SendTimeoutError as error:
            promise("a wait ends", not (what.patient or buffered), "%s has timed out", what)
            promise("a cut send is the last", not end.refused, "%s goes on", what)
            gone = len(end.sock.outgoing.taken) - before
            promise("a timeout tells how much has gone", end.secured or gone == error.bytes_sent,
                    "%s has sent %d bytes, and says %d", what, gone, error.bytes_sent)
            end.sent.append(Sent(data, False, error.bytes_sent))
            end.refused = end.refused or bool(error.bytes_sent)
        except ConnectionBrokenError as error:
            promise("errors are the documented ones", end.sock.is_reset or end.doubtful or buffered,
                    "%s has raised %r", what, error)
            if buffered:
                end.sent.append(Sent(data, False))  # the first of two calls may have been cut
            elif not end.secured:
                promise("a cut send is the last", end.sock.is_reset or len(end.sock.outgoing.taken) == before,
                        "%s was refused, and sent something", what)
            if end.sock.is_reset:
                end.sent.append(Sent(data, False))
            end.refused = True
        except LocalProtocolError as error:
            promise("errors are the documented ones", end.ending, "%s has raised %r", what, error)

    def _send_eof(self, end: End, what: Operation, strike: AbstractContextManager[object]) -> None:
        end.ending = True
        try:
            with strike:
                end.stream.send_eof(timeout=None if what.patient else 0)
            promise("a cut send is the last", not end.refused, "%s says that this was all", what)
            end.finished = True
        except Struck:
            self._send_eof(end, what, nullcontext())
        except SendTimeoutError:
            promise("a wait ends", not what.patient, "%s has timed out", what)
        except ConnectionBrokenError as error:
            promise("errors are the documented ones", end.sock.is_reset or end.doubtful, "%s has raised %r", what,
                    error)
            end.refused = True

    # The end

    def _finish(self, ends: tuple[End, End]) -> None:
        """Nothing is in the way any more: what was sent arrives."""
        for number, end in enumerate(ends):
            end.sock.outgoing.go_easy()
            if not end.refused:
                self._send_eof(end, Operation(number, "send_eof", patient=True), nullcontext())
            if end.refused:
                end.sock.outgoing.ended = True  # as its program does
        for end, other in (ends, ends[::-1]):
            clean = _drain(end)
            promise("an end is one", not (clean and _is_cut_off(end)), "a reset was taken for an end")
            promise("an end is one", clean or end.sock.is_reset or end.secured and not other.finished,
                    "what was finished is taken for broken")
            promise("an end is one", not (clean and end.secured and not other.finished),
                    "under TLS an end without a goodbye was taken for one with it")
            promise("nothing is lost, doubled or reordered", _matches(other.sent, bytes(end.got), end.sock.is_reset),
                    "%d bytes were sent, by %s, and %d received", sum(len(sent.data) for sent in other.sent),
                    [(len(sent.data), sent.whole) for sent in other.sent], len(end.got))


def _to_come(end: End, other: End) -> tuple[bytes, bool]:
    """What was sent for certain and not received yet, and whether nothing comes behind it."""
    if end.sock.is_reset:
        return b"", True
    if not end.secured:
        return bytes(end.sock.incoming.taken[len(end.got):]), end.sock.incoming.ended
    if other.doubtful:
        return b"", False
    return b"".join(sent.data for sent in other.sent)[len(end.got):], other.finished


def _may_be_over(end: End, other: End, rest: bytes | bytearray = b"") -> bool:
    """Whether there may be an end, behind all that was sent; ``rest``: what has just come, and is the last of it."""
    return not _is_cut_off(end, rest) and (other.ending if end.secured else end.sock.incoming.ended)


def _is_cut_off(end: End, rest: bytes | bytearray = b"") -> bool:
    """Whether there was a reset, before the end of all that was sent had been received."""
    return end.sock.is_reset and not (end.sock.incoming.ended and end.got + rest == end.sock.incoming.taken)


def _check_taken(what: Operation, got: bytearray, over: bool, rest: bytes) -> None:
    """That it is as much as was asked for."""
    if what.kind in ("receive_exactly", "receive_file"):
        fits = len(got) == what.size
    elif what.kind in ("receive_until", "receive_delimited_chunks"):
        items = got.split(what.delimiter)
        fits = bool(got or over) and not items[-1] and all(len(item) <= what.limit for item in items)
        fits = fits or what.delimiter == b"\n\n"  # three in a row can be cut in two ways
    elif what.kind == "readline":
        fits = got.endswith(b"\n") or over and got == rest
    else:
        fits = len(got) <= what.size and bool(got or over)
    promise("calls return what was asked for", fits, "%s has returned %r", what, got[:100])


def _drain(end: End) -> bool:
    """Receive to the end, which stays one: whether it is a clean one."""
    end.sock.incoming.go_easy()
    tries = 0
    ends: list[bool] = []
    while len(ends) < 2:
        try:
            piece = end.stream.receive(timeout=0)
        except TimeoutError:
            tries += 1
            promise("everything arrives", tries < TRIES, "an end waits in vain, after %d bytes", len(end.got))
            continue
        except ConnectionBrokenError:
            ends.append(False)
            continue
        tries = 0
        promise("an end is one", not (ends and piece), "%r comes behind the end", piece[:100])
        if piece:
            end.got += piece
        else:
            ends.append(True)
    promise("an end is one", ends[0] == ends[1], "the end is another one, asked again")
    return ends[0]


def _matches(sent: list[Sent], got: bytes, broken: bool) -> bool:
    """Whether ``got`` is what was sent: of what may have been cut all or nothing, or of the last one a part."""
    places = {0}
    for number, one in enumerate(sent):
        after = set()
        for place in places:
            left = len(got) - place
            is_last = not any(later.whole for later in sent[number + 1:])
            if got.startswith(one.data, place):
                after.add(place + len(one.data))
            if not one.whole and not one.least:
                after.add(place)
            if left < len(one.data) and one.data.startswith(got[place:]):
                if broken or not one.whole and is_last and left >= one.least:
                    return True
        places = after
    return len(got) in places or broken and not got


# Worlds by chance

def draw(dice: random.Random, secured: bool) -> Iterator[Operation]:
    receives, sends = [*RECEIVES], [*SENDS]
    hurried = dice.choice((0.1, 0.5, 0.9))
    large = dice.random() < 0.1
    for _ in range(dice.choice((4, 8, 16, 30))):
        kind = dice.choice(dice.choice((receives, sends)))
        chance = dice.random()
        if chance < 0.03:
            kind = "send_eof"
        elif chance < 0.07 and not secured:
            kind = "reset"
        size = LARGE if large and dice.random() < 0.2 else dice.choice(SIZES)
        yield Operation(int(dice.random() < 0.3) ^ (kind in sends), kind, size, dice.choice(DELIMITERS),
                        dice.choice(LIMITS), dice.random() >= hurried)
