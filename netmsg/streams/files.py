"""A file over a stream, so that what reads and writes files can use it."""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import weakref
from collections.abc import Callable, Collection
from socket import SocketIO, socket
from threading import get_ident
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

from ..checks import check_str
from ..deadline import Deadline
from ..errors import LocalProtocolError
from ..sockets.waiting import READ, ready_sockets
from ..uninterrupted import keep
from .turns import Turn

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from .byte_stream import ByteStream

__all__ = ["Readers", "StreamFile", "StreamTarget", "Target", "held_by_reader", "open_file", "size_of", "stream_file",
           "waitable_descriptor"]

T = TypeVar("T")

MODES: Final = {"r", "w", "rw", "rb", "wb", "rwb"}


class StreamFile(io.RawIOBase):
    """The unbuffered file. ``by_line``: hand over no more than the rest of a line, so that a buffer that cannot be
    looked into has nothing of the next line, which may have to go into a TLS handshake."""

    _buffer: weakref.ref[io.BufferedReader] | None = None
    _last = b""  # what was handed over last: whatever a buffer holds is of that, for it asks for more when it is empty

    def __init__(self, stream: ByteStream, turn: Turn | None, *, readable: bool, writable: bool, timeout: float | None,
                 by_line: bool) -> None:
        self._stream = stream
        self._turn = turn
        self._readable = readable
        self._writable = writable
        self._timeout = timeout
        self._by_line = by_line
        self._position = 0
        self._unsaid: tuple[bytes, list[int]] | None = None  # sent by a `write` that was interrupted, and how much
        self.handing_back: int | None = None
        """The thread that takes what a buffer holds, to which this behaves as at the end."""
        self.lent: tuple[int, Deadline, Collection[object]] | None = None
        """The thread that receives to this, and for how long it may: see `ByteStream._send_some`."""

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
                ahead = self._stream._ahead
                ahead.returned += chunks
                ahead.quick = None
                self._stream._link.look_again()
            view.release()  # the error would keep it, and the caller could not resize the buffer
            raise
        self._position += size
        if self._buffer is not None:
            self._last = chunk
        return size

    def _receive_to(self, chunks: list[bytes], max_bytes: int) -> None:
        """In turn with other readers, for whoever comes from a buffer has that locked: see `Readers.hand_back`."""
        turn = self._turn
        if turn is None:
            self._stream._receive_to(chunks, max_bytes, timeout=self._timeout, some=self._stream._some)
            return
        deadline = Deadline(self._timeout)
        claim = [get_ident()]
        try:
            self._stream._prepare_reading(deadline)  # nobody waits for the handshake who has this turn
            turn.take(claim, deadline)
            some = self._stream._line if self._by_line else self._stream._some
            self._stream._receive_to(chunks, max_bytes, timeout=deadline.remaining(), some=some)
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
        lent = self.lent
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
            before, counts = self._unsaid
            size = len(before)
            gone = sum(counts) == size and octets[:size] == before
            # No call from here to the return, and so no interrupt.
            self._unsaid = None
            if gone:
                return size
        size = len(octets)
        counts = []
        try:
            if lent is None:
                self._stream._send_counted(octets, counts, timeout=self._timeout)
            else:
                self.send_some(octets, counts, lent[1], lent[2])
        except BaseException:
            if counts:  # no call here: the sum of bytes and a buffer is a copy of it
                self._unsaid = b"" + (octets if lent is None else octets[:counts[0]]), counts
            raise
        return size if lent is None else counts[0]

    def send_some(self, octets: bytes | memoryview, counts: list[int], deadline: Deadline,
                  given_up: Collection[object]) -> None:
        """See `ByteStream._send_some`; within this file's own timeout, too."""
        self._stream._send_some(octets, counts, self._sooner(deadline), given_up)

    def receive_some(self, chunks: list[bytes], max_bytes: int, deadline: Deadline) -> None:
        """Past a buffer, whose bytes were taken before: see `ByteStream._receive_to`. Within this file's own timeout,
        too."""
        self._check("read", self._readable)
        self._stream._receive_to(chunks, max_bytes, timeout=self._sooner(deadline).remaining())
        if chunks:
            self._position += len(chunks[0])

    def held_by(self, reader: Any, count: int | None) -> bytes:
        """Take what a buffer over this has read ahead, up to ``count`` bytes."""
        self._check("read", self._readable)
        if reader is self:
            return b""
        try:
            self.handing_back = get_ident()
            held = len(reader.peek())
            taken: bytes = reader.read1(held if count is None else min(held, count)) if held else b""
            return taken
        finally:
            self.handing_back = None

    def leave(self) -> None:
        """Have who is in `receive_some` come out of it."""
        self._stream._leave()

    def look_again(self) -> None:
        """Have who is in `send_some` see whether that was given up."""
        self._stream._sending.look_again()
        self._stream._link.look_again()

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
                self._stream._give_back(self._last[-held:])
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


def waitable_descriptor(file: IO[bytes]) -> int:
    """What has to be waited for before ``file`` can be read or written: the descriptor of a pipe or the like; -1 where
    there is none, and where the file never has to be waited for, or is not known to be what its descriptor is."""
    descriptor = _descriptor(file)
    if descriptor < 0:
        return -1
    mode = os.fstat(descriptor).st_mode
    return descriptor if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode) else -1


def _descriptor(file: IO[bytes]) -> int:
    """What ``file`` stands for, byte by byte; -1 where it is not known to be what its descriptor is."""
    raw = getattr(file, "raw", file)
    if not isinstance(file, (io.FileIO, SocketIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom)):
        return -1
    if isinstance(raw, SocketIO):
        sock = getattr(raw, "_sock", None)
        # One under TLS holds more than its descriptor tells, and one with a timeout waits by itself.
        return raw.fileno() if type(sock) is socket and not sock.gettimeout() else -1
    return raw.fileno() if isinstance(raw, io.FileIO) else -1


class Target:
    """A file that is received to. One that has to be waited for is written to directly, and only as much as fits: its
    buffer would write what it holds at a moment of its own choice, and wait for whoever reads it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.descriptor = waitable_descriptor(file)
        self.file = file
        self._buffer: io.BufferedWriter | None = None
        self._terminal: io.FileIO | None = None
        if self.descriptor >= 0 and type(file) in (io.FileIO, SocketIO, io.BufferedWriter):
            if isinstance(file, io.BufferedWriter):
                self._buffer = file
                self.file = file.raw
            if os.isatty(self.descriptor):
                self._open_terminal()

    def _open_terminal(self) -> None:
        """Nobody knows how much a terminal takes, so it has to be written without blocking; not for the others who
        have it, and perhaps read it, and so under a descriptor of our own."""
        try:
            self._terminal = io.FileIO(os.ttyname(self.descriptor), "wb", opener=_open_without_blocking)
        except OSError as error:
            if error.errno is None:
                raise  # a signal handler raised it
            return  # not ours to open: most do take as much as a pipe does
        self.file = self._terminal

    def close(self) -> None:
        if self._terminal is not None:
            self._terminal.close()

    def flushed(self) -> bool:
        """Whether what its buffer held has been written, as far as that goes without waiting."""
        if self._buffer is not None:
            try:
                _without_blocking(self.descriptor, self._buffer.flush)
            except BlockingIOError:
                return False
            self._buffer = None
        return True

    def position(self) -> int | None:
        """Where the next byte goes, if the file knows."""
        try:
            return self.file.tell()
        except (AttributeError, OSError, ValueError):
            return None

    def write(self, chunk: bytes, counts: list[int | None]) -> None:
        """Append to ``counts`` what the file says it has taken."""
        keep(counts, self.file.write, chunk)

    def room(self, wanted: int) -> int:
        """How much of ``wanted`` bytes may be written to it, now that it takes some."""
        if self.descriptor < 0 or self._terminal is not None or not os.get_blocking(self.descriptor):
            return wanted
        return min(wanted, select.PIPE_BUF)

    def taken(self, answer: int | None, size: int) -> int:
        """How much of ``size`` bytes it has taken, by what ``write`` has returned. ``None`` is a raw file's word for
        nothing; others that are no more than alike to a file return it always, and take everything."""
        if answer is None:
            return 0 if isinstance(self.file, io.RawIOBase) else size
        return answer


class StreamTarget(Target):
    """A file over another stream, which is itself sent to: in turn, within the time of the call that receives, and
    until either is closed."""

    def __init__(self, file: Any, stream_file: StreamFile, deadline: Deadline,
                 given_up: Collection[object]) -> None:
        super().__init__(file)
        self._stream_file = stream_file
        self._deadline = deadline
        self._given_up = given_up
        self._held: IO[bytes] | None = None if file is stream_file else file

    def flushed(self) -> bool:
        if self._held is not None:
            try:
                self._stream_file.lent = get_ident(), self._deadline, self._given_up
                self._held.flush()
            finally:
                self._stream_file.lent = None
            self._held = None
        return True

    def position(self) -> int | None:
        return None  # what has gone is always known

    def write(self, chunk: bytes, counts: list[Any]) -> None:
        self._stream_file.check_writing()
        self._stream_file.send_some(chunk, counts, self._deadline, self._given_up)


def stream_file(file: Any) -> StreamFile | None:
    """What is below a file over a stream, such as `open_file` makes; ``None`` for any other file."""
    raw = getattr(file, "raw", file)
    plain = type(file) in (StreamFile, BytesFile, io.BufferedReader, io.BufferedWriter, io.BufferedRWPair)
    return raw if plain and isinstance(raw, StreamFile) else None


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_TRUNC & ~os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY)


def held_by_reader(file: IO[bytes], descriptor: int, count: int | None) -> bytes:
    """Take what a buffered reader over a pipe, a stream or the like has read ahead, up to ``count`` bytes, without
    waiting for more."""
    other = stream_file(file)
    if other is not None:
        return other.held_by(file, count)
    if descriptor < 0 or not isinstance(file, (io.BufferedReader, io.BufferedRandom)):
        return b""
    readable = ready_sockets({descriptor: READ}, None, Deadline(0))  # then nobody has to wait, whatever the reader does
    held = len(file.peek() if readable else _without_blocking(descriptor, file.peek))
    if count is not None:
        held = min(held, count)
    return file.read1(held) if held else b""


def _without_blocking(descriptor: int, work: Callable[[], T]) -> T:
    """Others may have the file too, and it is theirs again at once."""
    blocking = os.get_blocking(descriptor)
    try:
        if blocking:
            os.set_blocking(descriptor, False)
        return work()
    finally:
        if blocking:
            os.set_blocking(descriptor, True)


def size_of(file: IO[bytes]) -> int | None:
    """How long a file that can seek is, if that is known: in /proc and /dev they claim to be empty, or cannot tell.
    Moves to its end."""
    try:
        size = file.seek(0, os.SEEK_END)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None
    return size if size or _descriptor(file) < 0 else None


def open_file(stream: ByteStream, readers: Readers, mode: str, buffering: int, encoding: str | None,
              errors: str | None, newline: str | None, timeout: float | None) -> Any:
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
    raw = make(stream, readers.turn if buffering else None, readable="r" in kind, writable="w" in kind,
               timeout=timeout, by_line=by_line)
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
