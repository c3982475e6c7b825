"""A file over a stream, so that what reads and writes files can use it."""

from __future__ import annotations

import functools
import io
import weakref
from collections.abc import Callable, Collection
from threading import get_ident
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from ..checks import check_str
from ..deadline import Deadline
from ..errors import LocalProtocolError
from ..uninterrupted import keep
from .receiving import Receiving
from .sending import Sending
from .turns import Turn

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["Readers", "StreamFile", "open_file", "stream_file"]

MODES: Final = {"r", "w", "rw", "rb", "wb", "rwb"}


class Stream(Protocol):
    """The face of the stream, which is open as long as somebody has that."""

    def fileno(self) -> int:
        """The descriptor."""

    def send_all(self, data: ReadableBuffer, /, *, timeout: float | None = None) -> None:
        """Send all of it."""


class StreamFile(io.RawIOBase):
    """The unbuffered file. ``by_line``: hand over no more than the rest of a line, so that a buffer that cannot be
    looked into has nothing of the next line, which may have to go into a TLS handshake."""

    _buffer: weakref.ref[io.BufferedReader] | None = None
    _last = b""  # what was handed over last: whatever a buffer holds is of that, for it asks for more when it is empty

    def __init__(self, stream: Stream, receiving: Receiving, sending: Sending, turn: Turn | None, *, readable: bool,
                 writable: bool, timeout: float | None, by_line: bool) -> None:
        self._stream = stream
        self._receiving = receiving
        self._sending = sending
        self._turn = turn
        self._readable = readable
        self._writable = writable
        self._timeout = timeout
        self._by_line = by_line
        self._position = 0
        # Sent by a `write` that was interrupted, how much of it, and whether a part is as good as all.
        self._unsaid: tuple[bytes, list[int], bool] | None = None
        self.handing_back: int | None = None
        """The thread that takes what a buffer holds, to which this behaves as at the end."""
        self._lent: tuple[int, Deadline, Collection[object]] | None = None  # see `flush_within`

    def readable(self) -> bool:
        return self._readable

    def writable(self) -> bool:
        return self._writable

    def fileno(self) -> int:
        return self._stream.fileno()

    def tell(self) -> int:
        """How many bytes have been read."""
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        self._check("read", self._readable)
        view = memoryview(buffer).cast("B")
        if not len(view) or self.handing_back == get_ident():
            return 0
        self._last = b""
        chunks: list[bytes] = []
        try:
            self._receive_to(chunks, len(view))
            chunk = chunks[0]
            size = len(chunk)
            # No call from here on, and so no interrupt.
            view[:size] = chunk
        except BaseException:
            if chunks and chunks[0]:  # nor is there one here
                ahead = self._receiving.ahead
                ahead.returned += chunks
                ahead.quick = None
                self._receiving.connection.link.look_again()
            view.release()  # the error would keep it, and the caller could not resize the buffer
            raise
        self._position += size
        if self._buffer is not None:
            self._last = chunk
        return size

    def _receive_to(self, chunks: list[bytes], max_bytes: int) -> None:
        """In turn with other readers, for whoever comes from a buffer has that locked: see `Readers.hand_back`."""
        turn = self._turn
        receiving = self._receiving
        if turn is None:
            receiving.receive_to(chunks, max_bytes, timeout=self._timeout, or_nothing=False)
            return
        deadline = Deadline(self._timeout)
        claim = [get_ident()]
        try:
            receiving.shake_hands_first(deadline)  # nobody waits for the handshake who has this turn
            turn.take(claim, deadline)
            receiving.receive_to(chunks, max_bytes, timeout=deadline.remaining(), or_nothing=False,
                                 by_line=self._by_line)
        finally:
            if turn.holder is claim:
                turn.holder = turn.heir
                turn.heir = None
            if turn.waiting:
                try:
                    turn.waiting[0].release()
                except (IndexError, RuntimeError):
                    pass  # it has left, or was woken already

    def write(self, data: ReadableBuffer) -> int | None:
        self.check_writing()
        lent = self._lent
        if lent is not None and lent[0] != get_ident():
            lent = None
        if self._turn is None and lent is None:
            self._stream.send_all(data, timeout=self._timeout)
            return memoryview(data).nbytes
        octets = memoryview(data)
        octets = octets.cast("B") if octets.c_contiguous else memoryview(octets.tobytes())
        return self._write_from_buffer(octets, lent)

    def _write_from_buffer(self, octets: memoryview, lent: tuple[int, Deadline, Collection[object]] | None) -> int:
        """A buffer whose call was interrupted comes again, with the same bytes in front: if they have gone, they are
        not sent again."""
        if self._unsaid is not None:
            before, counts, partly = self._unsaid
            if partly:
                self.settle(counts)
            size = sum(counts)
            gone = 0 < size and (partly or size == len(before)) and octets[:size] == before[:size]
            # No call from here to the return, and so no interrupt.
            self._unsaid = None
            if gone:
                return size
        size = len(octets)
        counts = []
        try:
            if lent is None:
                self._sending.send_counted(octets, counts, timeout=self._timeout)
            else:
                self.send_some(octets, counts, lent[1], lent[2])
        except BaseException:
            if counts or lent is not None:  # no call here: the sum of bytes and a buffer is a copy of it
                self._unsaid = b"" + octets, counts, lent is not None
            raise
        return size if lent is None else counts[0]

    def send_some(self, octets: bytes | memoryview, counts: list[int], deadline: Deadline,
                  given_up: Collection[object]) -> None:
        """See `Sending.send_some`; within this file's own timeout, too."""
        self._sending.send_some(octets, counts, self._sooner(deadline), given_up)

    def settle(self, counts: list[int]) -> None:
        """See `Sending.settle`."""
        self._sending.settle(counts)

    def flush_within(self, deadline: Deadline, given_up: Collection[object], buffer: IO[bytes]) -> None:
        """``buffer.flush()``, which writes to this, and what it writes as `send_some` does. Other threads that write
        meanwhile do so as ever."""
        try:
            self._lent = get_ident(), deadline, given_up
            buffer.flush()
        finally:
            self._lent = None

    def receive_some(self, chunks: list[bytes], max_bytes: int, deadline: Deadline) -> None:
        """Past a buffer, whose bytes were taken before: see `Receiving.receive_to`. Within this file's own timeout,
        too."""
        self._check("read", self._readable)
        self._receiving.receive_to(chunks, max_bytes, timeout=self._sooner(deadline).remaining())
        if chunks:
            self._position += len(chunks[0])

    def take_held(self, taken: list[Any], reader: Any, count: int | None) -> None:
        """Append to ``taken`` what a buffer over this has read ahead, up to ``count`` bytes; if it has anything."""
        self._check("read", self._readable)
        if reader is self:
            return
        try:
            self.handing_back = get_ident()
            held = len(reader.peek())
            if count is not None:
                held = min(held, count)
            if held:
                keep(taken, reader.read1, held)
        finally:
            self.handing_back = None

    def until_closed(self, source: Receiving, deadline: Deadline, prepare: Callable[..., tuple[int, int]],
                     *arguments: Any) -> None:
        """``source.take(deadline, prepare, *arguments)``, which writes to this: `ClosedError`, too, once the stream of
        this is closed, if ``prepare`` sees whether it is `over` whenever it is woken."""
        self._sending.connection.elsewhere.wait(source.look_again, functools.partial(source.take, given_up=self.over),
                                                deadline, prepare, *arguments)

    @property
    def over(self) -> Collection[object]:
        """Something once the stream is closed."""
        return self._sending.connection.elsewhere.given_up

    def check_open(self) -> None:
        """Raises what the stream of this does once it is closed."""
        connection = self._sending.connection
        try:
            connection.check()
        except BaseException as error:
            connection.failed(error)
            raise

    def leave(self) -> None:
        """Have who is in `receive_some` come out of it."""
        self._receiving.leave()

    def look_again(self) -> None:
        """Have who is in `send_some` see whether that was given up."""
        self._sending.look_again()

    def _sooner(self, deadline: Deadline) -> Deadline:
        return deadline if self._timeout is None else deadline.sooner(self._timeout)

    def check_writing(self) -> None:
        self._check("write", self._writable)
        if self.handing_back == get_ident():
            raise LocalProtocolError("the file has more to write than its buffer holds: flush it before start_tls()")

    def _check(self, what: str, possible: bool) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if not possible:
            raise io.UnsupportedOperation(what)


class BytesFile(StreamFile):
    """The one below a buffered reader of bytes. Whoever closes it, as the reader does when it goes away, gives back
    what that holds. (A class of its own: the others may be collected at any time, and no code runs for them then.)"""

    def buffered_by(self, buffer: io.BufferedReader) -> None:
        self._buffer = weakref.ref(buffer)

    def close(self) -> None:
        buffer = self._buffer() if self._buffer is not None and not self.closed else None
        if buffer is not None:
            try:
                held = self._position - buffer.tell()
            except ValueError:
                held = 0  # detached
            if held:
                self._receiving.give_back(self._last[-held:])
            self._buffer = None
        super().close()


class Readers:
    """The readers over one stream, and what they hold of it. They are the user's, who may make one for each request:
    those of bytes give it back when they go, and with those of lines what they had of one is gone."""

    def __init__(self) -> None:
        self.turn = Turn()
        """Of who receives through one of them. Taken before the stream's own."""
        self._open: list[tuple[weakref.ref[StreamFile], weakref.ref[Any]]] = []
        self._taken: list[bytes | str] = []

    def add(self, raw: StreamFile, file: Any) -> None:
        if isinstance(raw, BytesFile):
            raw.buffered_by(file)
        self._open = [pair for pair in self._open if pair[1]() is not None]
        self._open.append((weakref.ref(raw), weakref.ref(file)))

    def hand_back(self, returned: list[bytes]) -> None:
        """Put in front of ``returned`` what they have read ahead: what they still have to give when nothing more
        comes. For whoever has the `turn`.

        Another thread may be in the middle of a read: it has the buffer locked, and wants the turn, now or later. It is
        refused, or the two would wait for each other.
        """
        readers = [(raw(), file()) for raw, file in self._open]
        try:
            self.turn.refuse(_upgrading)
            for raw, file in readers:
                self._take_from(raw, file)
        finally:
            self.turn.refusal = None
        taken = [held if isinstance(held, bytes) else held.encode("utf-8", "surrogateescape") for held in self._taken]
        if any(taken):
            # No call between the one and the other, and so no interrupt.
            returned[0:0] = taken
            self._taken = []

    def _take_from(self, raw: StreamFile | None, file: Any) -> None:
        if raw is None or file is None:
            return  # it is gone
        try:
            raw.handing_back = get_ident()
            keep(self._taken, file.read, -1)
        except UnicodeError:
            self._taken.append("\0")  # it holds something, and no text
        except ValueError:
            pass  # closed, or detached: it holds nothing
        finally:
            raw.handing_back = None


def _upgrading() -> LocalProtocolError:
    return LocalProtocolError("the file was read while start_tls() was called")


def stream_file(file: Any) -> StreamFile | None:
    """What is below a file over a stream, such as `open_file` makes; ``None`` for any other file."""
    raw = getattr(file, "raw", file)
    plain = type(file) in (StreamFile, BytesFile, io.BufferedReader, io.BufferedWriter, io.BufferedRWPair)
    return raw if plain and isinstance(raw, StreamFile) else None


def open_file(stream: Stream, receiving: Receiving, sending: Sending, readers: Readers, mode: str, buffering: int,
              encoding: str | None, errors: str | None, newline: str | None, timeout: float | None) -> Any:
    """See `ByteStream.makefile`."""
    check_str("mode", mode)
    kind = "".join(letter for letter in "rwb" if letter in mode)
    if kind not in MODES or len(kind) != len(mode):
        raise ValueError(f"mode must be made of r, w and b, not {mode!r}")
    binary = "b" in kind
    if binary and (encoding is not None or errors is not None or newline is not None):
        raise ValueError("a binary file has no encoding, errors or newline")
    if buffering == 0 and not binary:
        raise ValueError("a text file is always buffered")
    both = kind.startswith("rw")
    by_line = buffering != 0 and (both or not binary)
    make = StreamFile if by_line or buffering == 0 or "r" not in kind else BytesFile
    raw = make(stream, receiving, sending, readers.turn if buffering else None, readable="r" in kind,
               writable="w" in kind, timeout=timeout, by_line=by_line)
    if buffering == 0:
        return raw
    size = io.DEFAULT_BUFFER_SIZE if buffering in (-1, 1) else buffering
    file: Any
    if both:
        file = io.BufferedRWPair(raw, raw, size)
        file.raw = raw  # as the others have it: see `stream_file`
    elif "r" in kind:
        file = io.BufferedReader(raw, size)
    else:
        file = io.BufferedWriter(raw, size)
    if not binary:
        file = io.TextIOWrapper(file, encoding or "utf-8", errors, newline, line_buffering=buffering == 1)
    if "r" in kind:
        readers.add(raw, file)
    return file
