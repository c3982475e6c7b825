"""From a stream to a file, and from a file to a stream."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from typing import IO, Any

from ..deadline import Deadline, Overtime
from ..errors import EndOfStream, IncompleteReadError, SendTimeoutError
from ..sockets.waiting import READ, WRITE
from ..uninterrupted import keep
from .connection import closed_meanwhile
from .files import StreamFile, stream_file
from .receiving import CHUNK, Receiving
from .sending import Sending
from .targets import StreamTarget, Target, size_of, take_held_by_reader, waitable_descriptor

__all__ = ["ByKernel", "receive_file", "send_file"]

ByKernel = Callable[[Deadline, IO[bytes], int, int, list[int]], None]
"""Sends as much of a file as the kernel copies: (deadline, file, offset, count, counts), and appends to ``counts`` how
much has gone each time."""


# Receiving

def receive_file(receiving: Receiving, deadline: Deadline, file: IO[bytes], count: int | None) -> int:
    """See `ByteStream.receive_file`."""
    received = [0]
    other = stream_file(file)
    if other is not None:
        elsewhere = receiving.connection.elsewhere
        target: Target = StreamTarget(file, other, deadline, elsewhere.given_up)
        elsewhere.wait(other.look_again, other.until_closed, receiving, deadline, _to_file, receiving, target, count,
                       received)
        return received[0]
    target = Target(file)
    try:
        receiving.take(deadline, _to_file, receiving, target, count, received)
    finally:
        target.close()
    return received[0]


def _to_file(deadline: Deadline, receiving: Receiving, target: Target, count: int | None,
             received: list[int]) -> tuple[int, int]:
    """All of it in one turn: what comes meanwhile is the file's."""
    connection = receiving.connection
    overtime = Overtime(deadline)
    while count is None or received[0] < count:
        wanted = CHUNK if count is None else min(CHUNK, count - received[0])
        try:
            written = _some_to_file(deadline, receiving, target, wanted)
        except SendTimeoutError:  # of the stream that the file is over
            if not deadline.expired:
                raise
            raise connection.too_late(deadline) from None
        if not written:
            if count is None:
                break
            raise _too_early(received[0], count)
        received[0] += written
        if received[0] != count:
            if connection.closed:
                raise closed_meanwhile()
            if overtime.is_over(written):
                raise TimeoutError(f"{received[0]} bytes were received in time")
    return 0, 0


def _too_early(received: int, count: int) -> EOFError:
    if not received:
        return EndOfStream("the peer has finished sending")
    error = IncompleteReadError(b"", count)
    error.args = (f"the stream ended after {received} of {count} bytes",)
    return error


def _some_to_file(deadline: Deadline, receiving: Receiving, target: Target, max_bytes: int) -> int:
    """Write some, and only then take it out of the read-ahead, as much as was written: 0 at the end."""
    ahead = receiving.ahead
    while True:
        if target.over:
            target.check()
        size, _ = receiving.some(deadline, max_bytes, or_nothing=True)
        if size or receiving.ended:
            break
    while size:
        if target.descriptor >= 0:
            receiving.connection.wait_for_file(target.descriptor, WRITE, deadline)
        if not target.flushed():
            continue
        chunk = ahead.data[ahead.position:ahead.position + target.room(size)]
        counts: list[int | None] = []
        receiving.writing = _Writing(target, len(chunk), counts)
        try:
            target.write(chunk, counts)
        except BlockingIOError as error:
            counts += (getattr(error, "characters_written", 0),)
        except BaseException:
            receiving.conclude_file()  # now, as long as its position tells: it is the caller's again
            raise
        written = receiving.conclude_file()
        if written:
            return written
        if target.descriptor < 0:
            raise BlockingIOError(errno.EAGAIN, "the file takes nothing now, and cannot be waited for")
    return 0


class _Writing:
    """So many bytes on their way to a file, which says how many it takes, in ``counts``. Where an interrupt keeps it
    from saying it, its position does."""

    def __init__(self, target: Target, size: int, counts: list[int | None]) -> None:
        self._target = target
        self._before = target.position()
        self._size = size
        self._counts = counts

    def taken(self) -> int:
        if not self._counts:
            self._target.settle(self._counts)
        if self._counts:
            return self._target.taken(self._counts[0], self._size)
        after = self._target.position()
        return 0 if self._before is None or after is None else min(max(after - self._before, 0), self._size)


# Sending

def send_file(sending: Sending, deadline: Deadline, file: IO[bytes], offset: int, count: int | None,
              by_kernel: ByKernel) -> int:
    """See `ByteStream.send_file`."""
    other = stream_file(file)
    if other is not None:
        sent: int = sending.connection.elsewhere.wait(other.leave, sending.in_turn, deadline, _send_file, sending, file,
                                                      offset, count, by_kernel)
        return sent
    return sending.in_turn(deadline, _send_file, sending, file, offset, count, by_kernel)


def _send_file(deadline: Deadline, sending: Sending, file: IO[bytes], offset: int, count: int | None,
               by_kernel: ByKernel) -> int:
    sending.check()
    size = None
    expected = count
    seekable = file.seekable()
    if seekable:
        size = size_of(file)
        if size is not None:
            if count is not None and offset + count > size:
                raise ValueError(f"the file has {size} bytes, too few for {count} from {offset} on")
            expected = max(0, size - offset) if count is None else count
        file.seek(offset)
    elif offset:
        raise ValueError("offset needs a file that can seek")
    counts: list[int] = []
    sending.under_way = counts, math.inf if expected is None else expected  # see `Sending.send_all`
    sent = 0
    if expected and size is not None:
        by_kernel(deadline, file, offset, expected, counts)
        sent = sum(counts)
        if sent:
            file.seek(offset + sent)
    if expected is None or sent < expected:
        taken: list[Any] = []
        if not seekable:
            sending.wait(deadline, counts)  # what is read could not be put back
            sending.taken = taken
        sent = _send_what_is_read(deadline, sending, file, sent, expected, counts, taken)
    if expected is not None and sent < expected:
        if count is not None or size_of(file) != size:
            raise EOFError(f"the file ended after {sent} of {expected} bytes")
        file.seek(offset + sent)  # it claims as much as ever, as files in /sys do, and there was no more
    sending.under_way = None
    return sent


def _send_what_is_read(deadline: Deadline, sending: Sending, file: IO[bytes], sent: int, count: int | None,
                       counts: list[int], taken: list[Any]) -> int:
    """Send what follows, up to ``count`` bytes altogether or to the end of the file: how many it were. What is read is
    in ``taken`` until it has gone."""
    descriptor = waitable_descriptor(file)
    other = stream_file(file)
    take_held_by_reader(taken, file, descriptor, None if count is None else count - sent)
    source: Any = file if descriptor < 0 else getattr(file, "raw", file)
    overtime = Overtime(deadline)
    while count is None or sent < count:
        wanted = CHUNK if count is None else min(CHUNK, count - sent)
        if not taken:
            if other is not None:
                _take_from_stream(deadline, sending, other, wanted, counts, taken)
            else:
                if descriptor >= 0:
                    _wait_for_file(deadline, sending, descriptor, counts)
                keep(taken, source.read, wanted)
        piece = taken[0]
        if piece is None:
            if descriptor < 0:
                raise BlockingIOError(errno.EAGAIN, "the file has nothing now, and cannot be waited for")
            del taken[0]
            continue
        if not piece:
            del taken[0]
            break
        sending.send_pieces(deadline, piece, len(piece), counts)
        del taken[0]
        sent += len(piece)
        if sent != count and overtime.is_over(len(piece)):
            raise sending.too_late(counts)
    return sent


def _wait_for_file(deadline: Deadline, sending: Sending, descriptor: int, counts: list[int]) -> None:
    try:
        sending.connection.wait_for_file(descriptor, READ, deadline)
    except TimeoutError:
        if not deadline.expired:
            raise
        raise _file_too_late(counts) from None


def _take_from_stream(deadline: Deadline, sending: Sending, other: StreamFile, max_bytes: int, counts: list[int],
                      taken: list[Any]) -> None:
    try:
        while not taken:
            if sending.connection.closed:
                raise closed_meanwhile()
            other.receive_some(taken, max_bytes, deadline)
    except TimeoutError:
        if not deadline.expired:
            raise
        raise _file_too_late(counts) from None


def _file_too_late(counts: list[int]) -> SendTimeoutError:
    done = sum(counts)
    return SendTimeoutError(f"the file had no more than {done} bytes in time", bytes_sent=done)
