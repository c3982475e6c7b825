"""Files that are sent or received to: what is known of them, and how they are waited for."""

from __future__ import annotations

import errno
import io
import os
import select
import stat
from collections.abc import Callable, Collection
from socket import SocketIO, socket
from typing import IO, Any, TypeVar

from ..deadline import Deadline
from ..sockets.waiting import READ, ready_sockets
from ..uninterrupted import keep
from .files import StreamFile, stream_file

__all__ = ["StreamTarget", "Target", "size_of", "take_held_by_reader", "waitable_descriptor"]

T = TypeVar("T")


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

    over: Collection[object] = ()
    """Something once it takes nothing any more, and so nothing is to be waited for."""

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

    def check(self) -> None:
        """Raises why it is `over`."""

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

    def settle(self, counts: list[Any]) -> None:
        """See to it that ``counts`` has all that is known of what an interrupted `write` has done."""

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
        self.over = stream_file.over
        self._deadline = deadline
        self._given_up = given_up
        self._held: IO[bytes] | None = None if file is stream_file else file

    def check(self) -> None:
        self._stream_file.check_open()

    def flushed(self) -> bool:
        if self._held is not None:
            self._stream_file.flush_within(self._deadline, self._given_up, self._held)
            self._held = None
        return True

    def position(self) -> int | None:
        return None  # what has gone is always known

    def write(self, chunk: bytes, counts: list[Any]) -> None:
        self._stream_file.check_writing()
        self._stream_file.send_some(chunk, counts, self._deadline, self._given_up)

    def settle(self, counts: list[Any]) -> None:
        self._stream_file.settle(counts)


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_TRUNC & ~os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY)


def take_held_by_reader(taken: list[Any], file: IO[bytes], descriptor: int, count: int | None) -> None:
    """Append to ``taken`` what a buffered reader over a pipe, a stream or the like has read ahead, up to ``count``
    bytes, without waiting for more; if it has anything."""
    other = stream_file(file)
    if other is not None:
        other.take_held(taken, file, count)
        return
    if descriptor < 0 or not isinstance(file, (io.BufferedReader, io.BufferedRandom)):
        return
    readable = ready_sockets({descriptor: READ}, None, Deadline(0))  # then nobody has to wait, whatever the reader does
    held = len(file.peek() if readable else _without_blocking(descriptor, file.peek))
    if count is not None:
        held = min(held, count)
    if held:
        keep(taken, file.read1, held)


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
