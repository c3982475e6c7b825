"""The half of a stream that receives: its turn, its read-ahead, and its error."""

from __future__ import annotations

from collections.abc import Callable, Collection
from threading import get_ident
from typing import Any, Final, Protocol, TypeVar

from ..deadline import Deadline, Overtime
from ..errors import ConnectionBrokenError, DelimiterNotFoundError, EndOfStream, IncompleteReadError, TLSHandshakeError
from ..sockets.waiting import READ
from .connection import FOREVER, Connection, nothing
from .read_ahead import ReadAhead
from .turns import Turn

__all__ = ["CHUNK", "LARGE_CHUNK", "Receiving"]

CHUNK: Final = 65_536
LARGE_CHUNK: Final = 1 << 20
TELLING: Final = 0.2
"""Seconds that whoever has received an end waits for who is in a send over a connection that is over."""

T = TypeVar("T")


class Writing(Protocol):
    """Bytes on their way to a file."""

    def taken(self) -> int:
        """How many of them it has taken."""


class Receiving:
    """What a call receives goes to the read-ahead first, and is taken out of it last, by plain assignments: a timeout
    or an interrupt anywhere in between loses nothing.

    Whatever takes bytes out does so within `take`, by one of those who prepare them: `some`, `exactly`, `until`. Those
    who take them themselves, and have `take` take nothing, write them elsewhere in the very same instant: `into`,
    `some_to`, and a file's.
    """

    def __init__(self, connection: Connection, senders: Turn) -> None:
        self.connection = connection
        self.turn = Turn()
        self.ahead = ReadAhead()
        self.ended = False
        """Whether the other end has finished, and this was received, behind all that is in `ahead`."""
        self.error: OSError | None = None
        """Kept, and raised is another one each time: see `Connection.broken`."""
        self.writing: Writing | None = None
        """What was about to be written to a file, from the front of `ahead`: see `conclude_file`."""
        self._senders = senders

    # In turn

    def take(self, deadline: Deadline, prepare: Callable[..., tuple[int, int]], *arguments: Any,
             given_up: Collection[object] = ()) -> bytes:
        """Take bytes out of the read-ahead. ``prepare(deadline, *arguments)`` sees to it that they are together at its
        front, and returns how many to take, and how many to drop behind them. Who still waits for the turn gets
        `ClosedError` once there is something in ``given_up``, and `look_again` was called."""
        connection = self.connection
        turn = self.turn
        ahead = self.ahead
        claim = [get_ident()]
        try:
            if connection.transport.handshaking:
                connection.shake_hands(deadline)
            if turn.holder is None:
                turn.holder = claim
            else:
                turn.take(claim, deadline, given_up=given_up)
            if connection.closed:
                connection.check()
            if self.writing is not None:
                self.conclude_file()
            size, dropped = prepare(deadline, *arguments)
            # No call from here to the end of the block, and so no interrupt.
            data = ahead.data
            start = ahead.position
            end = start + size
            taken = data[start:end]
            ahead.position = end + dropped
            ahead.quick = None if ahead.returned else ahead.delimiter
            turn.holder = turn.heir
            turn.heir = None
        except BaseException as error:
            if turn.holder is claim:
                turn.holder = turn.heir
                turn.heir = None
            if turn.waiting:
                try:
                    turn.waiting[0].release()
                except (IndexError, RuntimeError):
                    pass
            connection.failed(error)
            if connection.closed_by_last:
                connection.finish()
            raise
        if turn.waiting or connection.closed_by_last:
            try:
                if turn.waiting:
                    try:
                        turn.waiting[0].release()
                    except (IndexError, RuntimeError):
                        pass
                if connection.closed_by_last:
                    connection.finish()
            except BaseException:
                if end + dropped > start:
                    ahead.returned += (data[start:end + dropped],)
                    ahead.quick = None
                    connection.link.look_again()
                raise
        return taken

    def receive_to(self, chunks: list[bytes], max_bytes: int = CHUNK, *, timeout: float | None = None,
                   or_nothing: bool = True, by_line: bool = False) -> None:
        """Append to ``chunks`` what `ByteStream.receive` would return, at the same instant in which it is taken: an
        interrupt cannot come between. ``or_nothing``: see `some`. ``by_line``: no further than the end of a line
        (``b"\\n"`` included)."""
        self.take(self.connection.deadline(timeout), self.some_to, max_bytes, chunks, or_nothing, by_line)

    def receive_into(self, deadline: Deadline, view: memoryview) -> int:
        """Receive to the beginning of ``view``: how many bytes; 0 at the end."""
        counts: list[int] = []
        try:
            self.take(deadline, self.into, view, counts)
        except BaseException:
            if counts and counts[0]:
                # No call here, and so no further interrupt: the sum of bytes and a buffer is a copy of it.
                ahead = self.ahead
                ahead.returned += (b"" + view[:counts[0]],)
                ahead.quick = None
                self.connection.link.look_again()
            raise
        return counts[0]

    # Without its turn

    def shake_hands_first(self, deadline: Deadline) -> None:
        """Have the first handshake behind us. For who takes other turns before this one's."""
        connection = self.connection
        connection.check()
        if connection.transport.handshaking:
            connection.shake_hands(deadline)

    def give_back(self, data: bytes) -> None:
        """To be received again, next. From any thread."""
        ahead = self.ahead
        # No call between the one and the other, and so no interrupt.
        ahead.returned += (data,)
        ahead.quick = None
        self.connection.link.look_again()

    def leave(self) -> None:
        """Have another thread that is in `receive_to` come out of it: there is something for it elsewhere."""
        self.give_back(b"")

    def look_again(self) -> None:
        """Have another thread that is in `take` see whether that was given up, or what it waits for may be less."""
        self.turn.look_again()
        self.leave()

    # By whoever has the turn

    def conclude_file(self) -> int:
        """Take out of the read-ahead what the file has taken that it was written to: how much."""
        assert self.writing is not None
        written = self.writing.taken()
        # No call from here on, and so no interrupt.
        self.ahead.position += written
        self.writing = None
        return written

    def some_there(self, max_bytes: int) -> int:
        """How many have been received already, up to ``max_bytes``."""
        ahead = self.ahead
        if ahead.items or ahead.joining or ahead.returned:
            ahead.settle()
        ahead.streak = 0
        ahead.searched()
        return min(ahead.front(), max_bytes)

    def some(self, deadline: Deadline, max_bytes: int, or_nothing: bool = False) -> tuple[int, int]:
        """One byte at least, but at the end. With ``or_nothing`` there may be none once somebody has given something
        back, if it is but nothing: see `leave`."""
        ahead = self.ahead
        enough = or_nothing and bool(ahead.returned)
        if ahead.items or ahead.joining or ahead.returned:
            ahead.settle()
        ahead.streak = 0
        left = ahead.front()
        while not left and not enough and self.fill(deadline, max_bytes):
            enough = or_nothing
            left = ahead.front()
        ahead.searched()
        return min(left, max_bytes), 0

    def some_to(self, deadline: Deadline, max_bytes: int, chunks: list[bytes], or_nothing: bool,
                by_line: bool) -> tuple[int, int]:
        ahead = self.ahead
        size, _ = self.some(deadline, max_bytes, or_nothing)
        end = ahead.position + size
        if by_line:
            end = ahead.data.find(b"\n", ahead.position, end) + 1 or end
        # No call from here on, and so no interrupt.
        if size or self.ended:
            chunks += (ahead.data[ahead.position:end],)
        ahead.position = end
        return 0, 0

    def into(self, deadline: Deadline, view: memoryview, counts: list[int]) -> tuple[int, int]:
        """Past the read-ahead if there is nothing in it, and the transport can."""
        ahead = self.ahead
        if ahead.items or ahead.joining or ahead.returned:
            ahead.settle()
        ahead.streak = 0
        receive_into = self.connection.transport.receive_into
        if (receive_into is not None and not ahead.more and ahead.position >= len(ahead.data) and not self.ended
                and self.error is None):
            self._receive_once(deadline, counts, receive_into, view)
            if counts and ahead.returned:  # given back meanwhile, and to be read before what has come now
                # No call until that is behind it, and so no interrupt: the sum of bytes and a buffer is a copy of it.
                ahead.more += (b"" + view[:counts[0]],)
                del counts[:]
            elif counts:
                if not counts[0]:
                    self._check_end()
                    self.ended = True
                return 0, 0
        size, _ = self.some(deadline, len(view))
        end = ahead.position + size
        # No call from here on, and so no interrupt.
        view[:size] = ahead.data[ahead.position:end]
        counts += (size,)
        ahead.position = end
        return 0, 0

    def exactly(self, deadline: Deadline, nbytes: int) -> tuple[int, int]:
        ahead = self.ahead
        if ahead.items or ahead.joining or ahead.returned:
            ahead.settle()
        ahead.streak = 0
        there = len(ahead)
        overtime = None
        while there < nbytes:
            if not self.fill(deadline, min(nbytes - there, LARGE_CHUNK)):
                raise self._too_early(nbytes)
            size = len(ahead) - there
            there += size
            if there < nbytes and deadline is not FOREVER:
                overtime = overtime or Overtime(deadline)
                if overtime.is_over(size):
                    raise self.connection.too_late(deadline)
        ahead.front()
        ahead.gather(nbytes)
        ahead.searched()
        return nbytes, 0

    def until(self, deadline: Deadline, delimiter: bytes, max_bytes: int) -> tuple[int, int]:
        ahead = self.ahead
        if ahead.items or ahead.joining or ahead.returned:
            ahead.settle_for(delimiter)
        overtime = None
        while (at := ahead.find(delimiter)) < 0:
            if ahead.scanned >= max_bytes + len(delimiter):
                raise DelimiterNotFoundError(max_bytes)
            if overtime is not None and ahead.more and overtime.is_over(len(ahead.more[-1])):
                raise self.connection.too_late(deadline)
            if not self.fill(deadline, CHUNK):
                raise self._too_early(None)
            if deadline is not FOREVER:
                overtime = overtime or Overtime(deadline)
        if at > max_bytes:
            raise DelimiterNotFoundError(max_bytes)
        ahead.front()
        ahead.gather(at + len(delimiter))
        ahead.searched()
        ahead.split(delimiter, at, max_bytes)
        return at, len(delimiter)

    def _too_early(self, expected: int | None) -> EOFError:
        partial = self.ahead.peek_all()
        if partial:
            return IncompleteReadError(partial, expected)
        return EndOfStream("the peer has finished sending")

    def fill(self, deadline: Deadline, max_bytes: int) -> bool:
        """Receive once, into the read-ahead; false at the end of the stream."""
        ahead = self.ahead
        more = ahead.more
        if not more or more[-1]:
            if self.ended:
                return False
            if self.error is not None:
                raise self.connection.broken(self.error)
            self._receive_once(deadline, more, self.connection.transport.receive, max_bytes)
            if ahead.returned:
                ahead.settle()
                return True
        if more[-1]:
            return True
        self._check_end()
        del more[-1]
        self.ended = True
        return False

    def _receive_once(self, deadline: Deadline, results: list[T], receive: Callable[..., T], argument: Any) -> None:
        """Append what ``receive(argument)`` returns, once it need not wait; nothing, perhaps, where something has been
        given back meanwhile."""
        connection = self.connection
        ahead = self.ahead
        again = False
        while True:
            if ahead.returned:
                return
            try:
                results.extend(map(receive, (argument,)))  # one call into C: what was received is kept
                connection.link.moved = True
                return
            except BlockingIOError:
                pass
            except (ConnectionBrokenError, TLSHandshakeError) as error:
                self.error = error  # before any call, for it may be told only once
                raise connection.broken(error)
            except OSError as error:
                if error.errno is None:
                    raise  # not of the network: a signal handler raised it
                self.error = error  # the same
                raise connection.broken(error)
            if again and deadline.expired:  # something comes all the time, and nothing of it is for the caller
                raise connection.too_late(deadline)
            ahead.forget_taken()
            connection.wait(READ, deadline, ahead.returned)
            again = True

    def _check_end(self) -> None:
        """Receiving sees an end, also where a send was told that the connection is lost, or is being told just now."""
        connection, senders = self.connection, self._senders
        if connection.lost is None and senders.holder is not None and not senders.is_mine and connection.link.over:
            telling = Deadline(TELLING)
            try:
                connection.in_turn(senders, telling, nothing)
            except TimeoutError:
                if not telling.expired:
                    raise  # a signal handler raised it
        if connection.lost is not None:
            self.error = connection.lost
            raise connection.broken(connection.lost)
