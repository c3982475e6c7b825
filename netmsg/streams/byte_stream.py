"""A blocking stream of bytes, over TCP, UNIX sockets or memory, in the clear or under TLS.

Two threads may be inside at a time, one in each direction; each direction is a `Turn`. What a call receives goes to
the `ReadAhead` first and is taken out of it last, by plain assignments right before the return, so that a timeout or
an interrupt anywhere in between loses nothing. Everything that waits does so in `Link.wait`, which `close` wakes.

An interrupt (Ctrl-C) strikes at the return of a call into C, at the beginning of a function and at the end of a loop's
round, and also while another exception is on its way. So nothing that has to be known afterwards is noted after a call:
what a send, or the writing of a file, is about to do is on record before, and whoever comes next finds out from the
record how far it came (`_settle_sending`, `_settle_file`); an error that the kernel tells only once is kept by the
first statement that gets hold of it.

===============  =================================================================================
turn             what belongs to whoever has it
===============  =================================================================================
``_shaking``     the handshake; taken before the others, and alone until it is over
``_sending``     `Transport.send_one`, half-closing
``_readers``     (its ``turn``) reading through a `makefile`, which has its buffer locked meanwhile
``_receiving``   `Transport.receive`, the read-ahead
===============  =================================================================================

In that order. The descriptor is closed by the last to leave once `close` was called, so that nobody ever meets a
stranger's.
"""

from __future__ import annotations

import errno
import math
import select
import ssl
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from threading import get_ident
from typing import IO, TYPE_CHECKING, Any, Final, Self, TypeVar

from ..checks import check_delimiter, check_size, check_timeout
from ..deadline import Deadline, Overtime
from ..errors import (
    TOLD_ONCE, ClosedError, ConnectionBrokenError, DelimiterNotFoundError, EndOfStream, ForkedError,
    IncompleteReadError, LocalProtocolError, NetmsgError, RemoteProtocolError, SendTimeoutError, TLSHandshakeError,
    as_broken, bare, identity, is_identified,
)
from ..forking import close_in_child, current_process
from ..sockets.proxy import SocketProxy
from ..tls import TLSInfo, verified_hostname
from ..tls.contexts import check_server_context, client_context
from ..transports.encrypted import TLSTransport
from ..transports.plain import Transport
from .files import (
    Readers, StreamFile, StreamTarget, Target, held_by_reader, open_file, size_of, stream_file, waitable_descriptor,
)
from ..sockets.waiting import READ, WRITE
from .links import BRIEFLY, Link
from .read_ahead import ReadAhead
from .turns import Turn

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["ByteStream", "IdleTimeoutError", "check_size", "closed_meanwhile"]

CHUNK: Final = 65_536
LARGE_CHUNK: Final = 1 << 20
RENEGOTIATING: Final = 0.01
"""Seconds for which whoever sends waits for its turn to receive, and receives, before it tries again to send: nothing
tells that another thread has received what it waits for."""
TELLING: Final = 0.2
"""Seconds that whoever has received an end waits for who is in a send over a connection that is over."""
FOREVER: Final = Deadline(None)
NUMBERS: Final = (float, int)
"""Those that are compared without a call of Python's."""

T = TypeVar("T")


class IdleTimeoutError(TimeoutError):
    """`ByteStream._idle_timeout` ran out, and not a timeout that somebody gave."""


class _IdleDeadline(Deadline):
    __slots__ = ()


class ByteStream:
    """Bytes both ways, in order, as they are.

    May be used from any thread: one may send while another receives, calls in the same direction take turns. Every
    ``timeout`` is in seconds, ``None`` for ever, 0 for one try without blocking; it covers the whole call, the TLS
    handshake that the first use of an accepted stream performs included, and running out raises ``TimeoutError``. A
    receive that times out or is interrupted loses nothing.

    Every member raises `ClosedError` once closed, also while it is blocked, `ConnectionBrokenError` after a reset or
    a truncation, and `ForkedError` in a forked child. What a signal handler or a finalizer calls while its own thread
    is in a call in the same direction raises `LocalProtocolError`. A context manager; ``for chunk in stream`` is
    `receive_chunks`.
    """

    _idle_timeout: float | None = None
    """For the calls that are given no ``timeout``. For whoever makes the stream."""

    def __init__(self, link: Link) -> None:
        self._process = current_process()
        self._link = link
        self._transport: Transport = link.transport
        self._shaking = Turn(link.wait_by)
        self._sending = Turn(link.wait_by)
        self._receiving = Turn()
        self._ahead = ReadAhead()
        self._ended = False
        # These are kept, and raised is another one each time: see `_broken`.
        self._receive_error: OSError | None = None
        self._send_error: OSError | None = None
        self._lost: OSError | None = None  # learnt by a send: receiving would see an end
        self._unsendable = False  # what the transport itself has to send
        self._sending_now: tuple[list[int], float] | None = None  # how much of how much has gone
        self._writing_now: tuple[Target, int | None, int, list[int | None]] | None = None  # see `_some_to_file`
        self._finished_sending = False
        self._has_sent_eof = False
        self._has_sent = False
        self.closed = False
        """Whether `close` or `abort` was called."""
        self._to_wake = True
        self._given_up: list[bool] = []
        """Something once it is closed, for calls of this stream that wait for a file over another."""
        self._elsewhere: list[Callable[[], None]] = []
        """What wakes them."""
        self._aborted = False
        self._closed_by_last = False
        self._linger = FOREVER
        self._failure: object = None
        """The `identity` of the last exception that one of the calls has raised. For whoever made the stream."""
        self._ssl_context: ssl.SSLContext | bool | None = None
        self._server_side: bool | None = None
        self._server_hostname: str | None = None
        self._standard_compatible = True
        self._handshake_deadline = FOREVER
        self._readers = Readers()
        self._at_close: Callable[[], None] = _nothing
        close_in_child(self)
        self._disposed = False  # last: one that was interrupted before is nothing yet

    # State

    def fileno(self) -> int:
        """The descriptor; -1 once closed, and where there is none."""
        return -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        return self.receive_chunks()

    def __del__(self) -> None:
        if getattr(self, "_disposed", True) or self._process is not current_process():
            return
        if not self.closed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        self._dispose()

    def _check(self) -> None:
        if self._process is not current_process():
            raise ForkedError("this stream belongs to the parent process")
        if self.closed:
            raise ClosedError("the stream is closed") from self._receive_error

    def _deadline(self, timeout: float | None) -> Deadline:
        """Every member begins here. Raises ``ValueError``, `ClosedError`, `ForkedError`."""
        if timeout is not None:
            deadline = Deadline(timeout)
        elif self._idle_timeout is not None:
            deadline = _IdleDeadline(self._idle_timeout)
        else:
            deadline = FOREVER
        self._check()
        return deadline

    # Waiting

    def _wait(self, events: int, deadline: Deadline, unless: Collection[object] = ()) -> None:
        """Wait until it is worth trying again, or something is in ``unless``; meanwhile send what the transport itself
        has to send."""
        transport = self._transport
        if events & READ and transport.readable:  # no event tells of what is inside already
            if self.closed:
                raise closed_meanwhile()
            if deadline.expired:
                raise self._too_late(deadline)
            return
        try:
            # What cannot be sent any more is not waited for: that it cannot would be told again and again.
            flushing = transport.unsent and not self._unsendable
            happened = self._link.wait(events | WRITE if flushing else events, deadline, unless)
        except TimeoutError:
            if isinstance(deadline, _IdleDeadline) and deadline.expired:
                raise self._too_late(deadline) from None
            raise
        except ConnectionBrokenError:
            if self.closed:
                raise closed_meanwhile() from None
            raise
        if self.closed:
            raise closed_meanwhile()
        if happened & WRITE and transport.unsent:
            try:
                transport.flush()
            except BlockingIOError:
                pass
            except OSError as error:
                self._unsendable = True
                if events & WRITE:
                    if error.errno in TOLD_ONCE:
                        self._lost = error
                    if not transport.handshaking:
                        self._send_error = error
                    raise self._broken(error)

    def _too_late(self, deadline: Deadline) -> TimeoutError:
        """What to raise when ``deadline`` has expired."""
        if isinstance(deadline, _IdleDeadline):
            return IdleTimeoutError(f"nothing happened for {self._idle_timeout:g} s")
        return TimeoutError("timed out")

    def _broken(self, error: OSError) -> OSError:
        """What to raise for an error of the network: another one each time, for the one that is kept must not keep
        alive what was alive where it was raised."""
        if self.closed:
            return closed_meanwhile()
        return as_broken(bare(error))

    def _failed(self, error: BaseException) -> None:
        """It is what this stream raises, unless it comes from another one, which a file is over: that has seen it
        first."""
        if not is_identified(error):
            self._failure = identity(error)

    def _in_turn(self, turn: Turn, deadline: Deadline, work: Callable[..., T], *arguments: Any) -> T:
        """``work(deadline, *arguments)``, when it is its turn. Not for what takes received bytes: see `_take`."""
        claim = [get_ident()]
        try:
            try:
                turn.take(claim, deadline)
                self._check()
                return work(deadline, *arguments)
            finally:
                if turn.holder is claim:
                    turn.holder = turn.heir
                    turn.heir = None
                if turn.waiting:
                    try:
                        turn.waiting[0].release()
                    except (IndexError, RuntimeError):
                        pass  # it has left, or was woken already
                if self._closed_by_last:
                    self._finish()
        except BaseException as error:
            self._failed(error)
            raise

    # Receiving

    def _take(self, deadline: Deadline, prepare: Callable[..., tuple[int, int]], *arguments: Any) -> bytes:
        """Take bytes out of the read-ahead. ``prepare(deadline, *arguments)`` sees to it that they are together at its
        front, and returns how many to take, and how many to drop behind them."""
        turn = self._receiving
        ahead = self._ahead
        claim = [get_ident()]
        try:
            if self._transport.handshaking:
                self._shake_hands(deadline)
            if turn.holder is None:
                turn.holder = claim
            else:
                turn.take(claim, deadline)
            if self.closed:
                self._check()
            if self._writing_now is not None:
                self._settle_file()
            size, dropped = prepare(deadline, *arguments)
            # No call from here to the end of the block, and so no interrupt.
            data = ahead.data
            start = ahead.position
            end = start + size
            taken = data[start:end]
            ahead.position = end + dropped
            ahead.quick = ahead.delimiter
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
            self._failed(error)
            if self._closed_by_last:
                self._finish()
            raise
        if turn.waiting or self._closed_by_last:
            try:
                if turn.waiting:
                    try:
                        turn.waiting[0].release()
                    except (IndexError, RuntimeError):
                        pass
                if self._closed_by_last:
                    self._finish()
            except BaseException:
                if end + dropped > start:
                    ahead.returned += (data[start:end + dropped],)
                    ahead.quick = None
                    self._link.look_again()
                raise
        return taken

    def _fill(self, deadline: Deadline, max_bytes: int) -> bool:
        """Receive once, into the read-ahead; false at the end of the stream."""
        ahead = self._ahead
        more = ahead.more
        if not more or more[-1]:
            if self._ended:
                return False
            if self._receive_error is not None:
                raise self._broken(self._receive_error)
            self._receive_once(deadline, more, self._transport.receive, max_bytes)
            if ahead.returned:
                ahead.settle()
                return True
        if more[-1]:
            return True
        self._check_end()
        del more[-1]
        self._ended = True
        return False

    def _front(self, deadline: Deadline, max_bytes: int) -> int:
        """How many bytes can be taken from the front of the read-ahead: at least one, or 0 at the end."""
        left = self._ahead.front()
        while not left and self._fill(deadline, max_bytes):
            left = self._ahead.front()
        return left

    def _check_end(self) -> None:
        """Receiving sees an end, also where a send was told that the connection is lost, or is being told just now."""
        if self._lost is None and self._sending.holder is not None and not self._sending.is_mine and self._link.over:
            telling = Deadline(TELLING)
            try:
                self._in_turn(self._sending, telling, _nothing)
            except TimeoutError:
                if not telling.expired:
                    raise  # a signal handler raised it
        if self._lost is not None:
            self._receive_error = self._lost
            raise self._broken(self._lost)

    def _receive_once(self, deadline: Deadline, results: list[T], receive: Callable[..., T], argument: Any) -> None:
        """Append what ``receive(argument)`` returns, once it need not wait; nothing, perhaps, where something has been
        given back meanwhile."""
        ahead = self._ahead
        again = False
        while True:
            try:
                results.extend(map(receive, (argument,)))  # one call into C: what was received is kept
                self._link.moved = True
                return
            except BlockingIOError:
                pass
            except (ConnectionBrokenError, TLSHandshakeError) as error:
                self._receive_error = error  # before any call, for it may be told only once
                raise self._broken(error)
            except OSError as error:
                if error.errno is None:
                    raise  # not of the network: a signal handler raised it
                self._receive_error = error  # the same
                raise self._broken(error)
            if again and deadline.expired:  # something comes all the time, and nothing of it is for the caller
                raise self._too_late(deadline)
            ahead.forget_taken()
            if ahead.returned:
                return
            self._wait(READ, deadline, ahead.returned)
            again = True

    def _some(self, deadline: Deadline, max_bytes: int) -> tuple[int, int]:
        ahead = self._ahead
        if ahead.items or ahead.joining or ahead.returned:
            ahead.settle()
        ahead.streak = 0
        left = ahead.front()
        while not left and self._fill(deadline, max_bytes):
            left = ahead.front()
        ahead.searched()
        return min(left, max_bytes), 0

    def _some_or_nothing(self, deadline: Deadline, max_bytes: int) -> tuple[int, int]:
        """The same, but nothing once who builds on the stream has left something for others: see `_leave`."""
        ahead = self._ahead
        left_for_others = bool(ahead.returned)
        if ahead.items or ahead.joining or left_for_others:
            ahead.settle()
        ahead.streak = 0
        left = ahead.front()
        if not left and not left_for_others and self._fill(deadline, max_bytes):
            left = ahead.front()
        ahead.searched()
        return min(left, max_bytes), 0

    def _exactly(self, deadline: Deadline, nbytes: int) -> tuple[int, int]:
        ahead = self._ahead
        if ahead.items or ahead.joining or ahead.returned:
            ahead.settle()
        ahead.streak = 0
        there = len(ahead)
        overtime = None
        while there < nbytes:
            if not self._fill(deadline, min(nbytes - there, LARGE_CHUNK)):
                raise self._too_early(nbytes)
            size = len(ahead) - there
            there += size
            if there < nbytes and deadline is not FOREVER:
                overtime = overtime or Overtime(deadline)
                if overtime.is_over(size):
                    raise self._too_late(deadline)
        ahead.front()
        ahead.gather(nbytes)
        ahead.searched()
        return nbytes, 0

    def _until(self, deadline: Deadline, delimiter: bytes, max_bytes: int) -> tuple[int, int]:
        ahead = self._ahead
        if ahead.items or ahead.joining or ahead.returned:
            ahead.settle_for(delimiter)
        overtime = None
        while (at := ahead.find(delimiter)) < 0:
            if ahead.scanned >= max_bytes + len(delimiter):
                raise DelimiterNotFoundError(max_bytes)
            if overtime is not None and ahead.more and overtime.is_over(len(ahead.more[-1])):
                raise self._too_late(deadline)
            if not self._fill(deadline, CHUNK):
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
        partial = self._ahead.peek_all()
        if partial:
            return IncompleteReadError(partial, expected)
        return EndOfStream("the peer has finished sending")

    def receive(self, max_bytes: int = CHUNK, *, timeout: float | None = None) -> bytes:
        """Some bytes, at least one and at most ``max_bytes``, as soon as there are any; ``b""`` at the end."""
        deadline = self._deadline(timeout)
        check_size("max_bytes", max_bytes)
        return self._take(deadline, self._some, max_bytes)

    def _receive_to(self, chunks: list[bytes], max_bytes: int = CHUNK, *, timeout: float | None = None,
                    some: Callable[[Deadline, int], tuple[int, int]] | None = None) -> None:
        """Append to ``chunks`` what `receive` would return, at the same instant in which it is taken: an interrupt
        cannot come between. Nothing, perhaps, after `_leave`, unless ``some`` is `_some` or `_line`. For whoever builds
        on streams."""
        self._take(self._deadline(timeout), self._some_to, some or self._some_or_nothing, max_bytes, chunks)

    def _some_to(self, deadline: Deadline, some: Callable[[Deadline, int], tuple[int, int]], max_bytes: int,
                 chunks: list[bytes]) -> tuple[int, int]:
        ahead = self._ahead
        size, _ = some(deadline, max_bytes)
        end = ahead.position + size
        # No call from here on, and so no interrupt.
        if size or self._ended:
            chunks += (ahead.data[ahead.position:end],)
        ahead.position = end
        return 0, 0

    def _leave(self) -> None:
        """Have another thread that is in `_receive_to` come out of it: there is something for it elsewhere."""
        self._give_back(b"")

    def receive_into(self, buffer: WriteableBuffer, *, timeout: float | None = None) -> int:
        """Receive into a writable ``buffer``: how many bytes have been written to its beginning; 0 at the end."""
        deadline = self._deadline(timeout)
        view = memoryview(buffer).cast("B")
        if view.readonly:
            raise TypeError("receive_into() needs a writable buffer")
        if not len(view):
            raise ValueError("the buffer is empty")
        counts: list[int] = []
        try:
            self._take(deadline, self._into, view, counts)
        except BaseException:
            if counts and counts[0]:
                # No call here, and so no further interrupt: the sum of bytes and a buffer is a copy of it.
                ahead = self._ahead
                ahead.returned += (b"" + view[:counts[0]],)
                ahead.quick = None
                self._link.look_again()
            view.release()  # the error would keep it, and the caller could not resize the buffer
            raise
        return counts[0]

    def _into(self, deadline: Deadline, view: memoryview, counts: list[int]) -> tuple[int, int]:
        """Past the read-ahead if there is nothing in it, and the transport can."""
        ahead = self._ahead
        if ahead.items or ahead.joining or ahead.returned:
            ahead.settle()
        ahead.streak = 0
        receive_into = self._transport.receive_into
        if (receive_into is not None and not ahead.more and ahead.position >= len(ahead.data) and not self._ended
                and self._receive_error is None):
            self._receive_once(deadline, counts, receive_into, view)
            if counts:
                if not counts[0]:
                    self._check_end()
                    self._ended = True
                return 0, 0
        size, _ = self._some(deadline, len(view))
        end = ahead.position + size
        # No call from here on, and so no interrupt.
        view[:size] = ahead.data[ahead.position:end]
        counts += (size,)
        ahead.position = end
        return 0, 0

    def receive_exactly(self, nbytes: int, *, timeout: float | None = None) -> bytes:
        """``nbytes`` bytes. If the peer finishes before, `EndOfStream`, or `IncompleteReadError` when some came."""
        deadline = self._deadline(timeout)
        check_size("nbytes", nbytes, least=0)
        return self._take(deadline, self._exactly, nbytes)

    def receive_until(self, delimiter: bytes, max_bytes: int = CHUNK, *, timeout: float | None = None) -> bytes:
        """What comes before ``delimiter``, which is taken too and left out.

        At most ``max_bytes`` without it: `DelimiterNotFoundError` if more come, which can then still be read. If the
        peer finishes before, `EndOfStream`, or `IncompleteReadError` when some came.
        """
        # The short way. There is no call in it, and so no other thread and no interrupt: see `ReadAhead.split`.
        ahead = self._ahead
        items = ahead.items
        if (items and delimiter is ahead.quick and ahead.longest <= max_bytes and not self.closed
                and (timeout is None or timeout.__class__ in NUMBERS and timeout >= 0)):
            item = items[-1]
            del items[-1]
            return item
        deadline = self._deadline(timeout)
        check_size("max_bytes", max_bytes)
        return self._take(deadline, self._until, check_delimiter(delimiter), max_bytes)

    def receive_chunks(self, max_bytes: int = CHUNK, *, timeout: float | None = None) -> Iterator[bytes]:
        """Iterate over what comes, until the end; ``timeout`` is for each item, and the iterator may be asked again
        after it raised."""
        check_timeout(timeout)
        check_size("max_bytes", max_bytes)
        return _Items(lambda: self.receive(max_bytes, timeout=timeout), end_on_empty=True)

    def receive_delimited_chunks(self, delimiter: bytes, max_bytes: int = CHUNK, *,
                                 timeout: float | None = None) -> Iterator[bytes]:
        """Iterate over what `receive_until` returns, until the end; `IncompleteReadError` if that comes in the middle
        of an item. ``timeout`` is for each item, and the iterator may be asked again after it raised."""
        check_timeout(timeout)
        check_size("max_bytes", max_bytes)
        delimiter = check_delimiter(delimiter)
        return _Items(lambda: self.receive_until(delimiter, max_bytes, timeout=timeout), end_on_empty=False)

    def _line(self, deadline: Deadline, max_bytes: int) -> tuple[int, int]:
        """Like `_some`, but no further than the end of a line (``b"\\n"`` included)."""
        size, _ = self._some(deadline, max_bytes)
        start = self._ahead.position
        end = self._ahead.data.find(b"\n", start, start + size)
        return size if end < 0 else end - start + 1, 0

    def _give_back(self, data: bytes) -> None:
        """To be received again, next. From any thread."""
        ahead = self._ahead
        # No call between the one and the other, and so no interrupt.
        ahead.returned += (data,)
        ahead.quick = None
        self._link.look_again()

    def makefile(self, mode: str = "rb", *, buffering: int = -1, encoding: str | None = None,
                 errors: str | None = None, newline: str | None = None, timeout: float | None = None) -> Any:
        """A file over the stream, for what works on files (``csv``, ``json``, ``pickle``, ``for line in file``).

        As ``open()`` has it, text being UTF-8 by default. ``timeout`` is for each read and write; what a buffered
        reader had of a line, or of the bytes that it was asked for, when a timeout struck is lost. Closing the file
        leaves the stream open; a buffered reader of bytes then gives back to the stream what it has read ahead, and
        until then, or until `start_tls`, keeps it. Other readers have one line of it at most, which goes with them.
        After an interrupt (Ctrl-C) in a buffered writer ``flush`` sends the rest of what it holds, or refuses; but
        whether what was just being written to it is among that, text above all, only Python's own buffers know.
        """
        check_timeout(timeout)
        self._check()
        return open_file(self, self._readers, mode, buffering, encoding, errors, newline, timeout)

    def receive_file(self, file: IO[bytes], count: int | None = None, *, timeout: float | None = None) -> int:
        """Write what comes to ``file``: exactly ``count`` bytes, or all to the end of the stream; how many it were.

        A pipe, a terminal or another socket is waited for until it takes some, within ``timeout`` and until `close`;
        what a buffered writer over one holds is written first, and of what comes it holds nothing back. So is a file
        that ``socket.makefile("wb")`` makes, of a socket without a timeout of its own; and one that `makefile` makes,
        of any stream, whose own timeout and `close` end the call as well. Any other file, such as one over an
        ``ssl.SSLSocket``, is written to as it is.

        Raises `EndOfStream` or `IncompleteReadError` (whose ``partial`` is empty, for the bytes are in the file) if
        the stream ends before ``count``.
        """
        deadline = self._deadline(timeout)
        if count is not None:
            check_size("count", count, least=0)
        received = [0]
        other = stream_file(file)
        if other is not None:
            target: Target = StreamTarget(file, other, deadline, self._given_up)
            self._wakeable(other.look_again, self._take, deadline, self._to_file, target, count, received)
            return received[0]
        target = Target(file)
        try:
            self._take(deadline, self._to_file, target, count, received)
        finally:
            target.close()
        return received[0]

    def _wakeable(self, wake: Callable[[], None], work: Callable[..., T], *arguments: Any) -> T:
        """``work(*arguments)``, which waits in another stream: `close` calls ``wake``."""
        try:
            self._elsewhere += (wake,)
            return work(*arguments)
        finally:
            self._elsewhere.remove(wake)

    def _to_file(self, deadline: Deadline, target: Target, count: int | None, received: list[int]) -> tuple[int, int]:
        """All of it in one turn: what comes meanwhile is the file's."""
        ahead = self._ahead
        if ahead.items or ahead.joining or ahead.returned:
            ahead.settle()
        ahead.streak = 0
        ahead.searched()
        overtime = Overtime(deadline)
        while count is None or received[0] < count:
            wanted = CHUNK if count is None else min(CHUNK, count - received[0])
            try:
                written = self._some_to_file(deadline, target, wanted)
            except SendTimeoutError:  # of the stream that the file is over
                if not deadline.expired:
                    raise
                raise self._too_late(deadline) from None
            if not written:
                if count is None:
                    break
                raise self._too_early_for_file(received[0], count)
            received[0] += written
            if received[0] != count:
                if self.closed:
                    raise closed_meanwhile()
                if overtime.is_over(written):
                    raise TimeoutError(f"{received[0]} bytes were received in time")
        return 0, 0

    def _too_early_for_file(self, received: int, count: int) -> EOFError:
        if not received:
            return EndOfStream("the peer has finished sending")
        error = IncompleteReadError(b"", count)
        error.args = (f"the stream ended after {received} of {count} bytes",)
        return error

    def _some_to_file(self, deadline: Deadline, target: Target, max_bytes: int) -> int:
        """Write some, and only then take it out of the read-ahead, as much as was written: 0 at the end."""
        ahead = self._ahead
        size = min(self._front(deadline, max_bytes), max_bytes)
        while size:
            if target.descriptor >= 0:
                self._wait_for_file(target.descriptor, WRITE, deadline)
            if not target.flushed():
                continue
            chunk = ahead.data[ahead.position:ahead.position + target.room(size)]
            counts: list[int | None] = []
            self._writing_now = target, target.position(), len(chunk), counts
            try:
                target.write(chunk, counts)
            except BlockingIOError as error:
                counts += (getattr(error, "characters_written", 0),)
            except BaseException:
                self._settle_file()  # now, as long as its position tells: it is the caller's again
                raise
            written = self._settle_file()
            if written:
                return written
            if target.descriptor < 0:
                raise BlockingIOError(errno.EAGAIN, "the file takes nothing now, and cannot be waited for")
        return 0

    def _settle_file(self) -> int:
        """Take out of the read-ahead what `_some_to_file` has written: how much. Where an interrupt kept the file from
        saying it, its position does."""
        assert self._writing_now is not None
        target, before, size, counts = self._writing_now
        if counts:
            written = target.taken(counts[0], size)
        else:
            after = target.position()
            written = 0 if before is None or after is None else min(max(after - before, 0), size)
        # No call from here on, and so no interrupt.
        self._ahead.position += written
        self._writing_now = None
        return written

    def _wait_for_file(self, descriptor: int, events: int, deadline: Deadline) -> None:
        while not self._link.wait_for_file(descriptor, events, deadline):
            if self.closed:
                raise closed_meanwhile()
        if self.closed:
            raise closed_meanwhile()

    # Sending

    def send_all(self, data: ReadableBuffer, *, timeout: float | None = None) -> None:
        """Send all of a bytes-like object; it may be changed again afterwards.

        A timeout raises `SendTimeoutError`, whose ``bytes_sent`` says how far it came. If that is part-way, or an
        interrupt comes part-way, the stream refuses to send anything more (`ConnectionBrokenError`), for the other end
        would take it for the rest. After `send_eof`: `LocalProtocolError`.
        """
        deadline = self._deadline(timeout)
        octets = data if type(data) is bytes else memoryview(data)
        if type(octets) is memoryview:
            octets = octets.cast("B") if octets.c_contiguous else octets.tobytes()
        try:
            self._send_in_turn(deadline, self._send_all, octets)
        finally:
            if type(octets) is memoryview:
                octets.release()  # the caller may want to resize what it is of

    def _send_in_turn(self, deadline: Deadline, work: Callable[..., T], *arguments: Any,
                      given_up: Collection[object] = ()) -> T:
        """`_in_turn`, after the handshake, and with the error of a send for a timeout."""
        turn = self._sending
        claim = [get_ident()]
        try:
            if self._transport.handshaking:
                self._shake_hands(deadline)
            try:
                if turn.holder is None:
                    turn.holder = claim
                else:
                    turn.take(claim, deadline, given_up=given_up)
                if self.closed:
                    self._check()
                result = work(deadline, *arguments)
                self._link.moved = True
                return result
            finally:
                if turn.holder is claim:
                    turn.holder = turn.heir
                    turn.heir = None
                if turn.waiting:
                    try:
                        turn.waiting[0].release()
                    except (IndexError, RuntimeError):
                        pass
                if self._closed_by_last:
                    self._finish()
        except BaseException as error:
            if isinstance(error, TimeoutError) and not isinstance(error, SendTimeoutError) and deadline.expired:
                late = SendTimeoutError(str(error))
                self._failure = identity(late)
                try:
                    raise late from None
                finally:
                    del late  # or the error would keep itself alive, by this frame, and this stream
            self._failed(error)
            raise

    def _check_sending(self) -> None:
        if self._sending_now is not None:
            self._settle_sending()
        if self._finished_sending:
            raise LocalProtocolError("sending after send_eof()")
        if self._send_error is not None:
            raise self._broken(self._send_error)

    def _settle_sending(self) -> None:
        """Find out what a send that has not come to its end has done. If that is a part, nothing more may be sent: the
        other end would take it for the rest."""
        if self._sending_now is not None:
            counts, size = self._sending_now
            done = sum(counts)
            if (done or self._transport.begun) and done < size and self._send_error is None:
                of = "" if size == math.inf else f" of {size}"
                self._send_error = ConnectionBrokenError(f"an earlier send was cut short after {done}{of} bytes")
            self._sending_now = None

    def _send_counted(self, octets: memoryview, counts: list[int], *, timeout: float | None) -> None:
        """`send_all`, which appends to ``counts`` how much has gone each time. For the files over this."""
        self._send_in_turn(self._deadline(timeout), self._send_all, octets, counts)

    def _send_some(self, octets: bytes | memoryview, counts: list[int], deadline: Deadline,
                   given_up: Collection[object]) -> None:
        """Send as much as goes at once, as soon as some does, and append to ``counts`` how much: no less than that, and
        so nothing is cut short. `ClosedError` once there is something in ``given_up``. For the files over this."""
        self._send_in_turn(self._deadline(deadline.remaining()), self._send_what_goes, octets, counts, given_up,
                           given_up=given_up)

    def _send_what_goes(self, deadline: Deadline, octets: bytes | memoryview, counts: list[int],
                        given_up: Collection[object]) -> None:
        self._check_sending()
        if self._transport.tls is not None:
            octets = octets[:select.PIPE_BUF]  # so little goes as a whole when there is room
            self._wait_to_send(deadline, counts, given_up)
        self._sending_now = counts, 1  # see `_send_all`
        self._send_pieces(deadline, octets, 1, counts, given_up)
        self._sending_now = None

    def _send_all(self, deadline: Deadline, octets: bytes | memoryview, counts: list[int] | None = None) -> None:
        if self._finished_sending or self._send_error is not None or self._sending_now is not None:
            self._check_sending()
        size = len(octets)
        if size:
            if counts is None:
                counts = []
            # On record before anything goes, and off it once everything has, so that whatever comes between cannot
            # leave a part that nobody knows of.
            self._sending_now = counts, size
            self._send_pieces(deadline, octets, size, counts)
            self._sending_now = None

    def _send_pieces(self, deadline: Deadline, octets: bytes | memoryview, size: int, counts: list[int],
                     given_up: Collection[object] = ()) -> None:
        """Send ``octets``, of which there are ``size`` or more, until that many have gone, and append to ``counts`` how
        much has gone each time."""
        transport = self._transport
        self._has_sent = True
        if deadline is not FOREVER and transport.tls is not None:
            self._wait_to_send(deadline, counts)  # what is encrypted has to go, so first see that something can
        done = 0
        rest = octets
        overtime = None
        again = False
        try:
            while True:
                try:
                    counts.extend(map(transport.send_one, (rest,)))  # one call into C: what has gone is counted
                except BlockingIOError:
                    if again and deadline.expired:  # there is room all the time, and nothing goes
                        raise self._sent_too_late(counts) from None
                    again = True
                    if transport.stalled:
                        self._receive_to_send(deadline, counts)
                    else:
                        self._wait_to_send(deadline, counts, given_up)
                    continue
                except OSError as error:
                    if error.errno in TOLD_ONCE:
                        self._lost = error  # before any call
                    if error.errno is None and not isinstance(error, NetmsgError):
                        raise  # not of the network: a signal handler raised it
                    raise self._send_failed(error)
                done += counts[-1]
                if done >= size:
                    break
                if deadline is not FOREVER:
                    overtime = overtime or Overtime(deadline)
                    if overtime.is_over(counts[-1]):
                        raise self._sent_too_late(counts)
                again = False
                rest = memoryview(octets)[done:]
        finally:
            if type(rest) is memoryview and rest is not octets:
                rest.release()  # an error would keep it, and the caller could not resize what it is of

    def _wait_to_send(self, deadline: Deadline, counts: list[int], given_up: Collection[object] = ()) -> None:
        try:
            self._wait(WRITE, deadline, given_up)
        except TimeoutError:
            if not deadline.expired:
                raise  # a signal handler raised it
            raise self._sent_too_late(counts) from None
        if given_up:
            raise closed_meanwhile()

    def _receive_to_send(self, deadline: Deadline, counts: list[int]) -> None:
        """TLS renegotiates, and can send once it has heard from the other end. Another thread may be about to receive
        that; if none is, have it in the read-ahead, with what came before it, but not without limit."""
        step = deadline.sooner(RENEGOTIATING)
        try:
            if not self._in_turn(self._receiving, step, self._read_ahead):
                time.sleep(step.remaining() or 0.0)
        except TimeoutError:
            if not step.expired:
                raise  # a signal handler raised it
            if deadline.expired:
                raise self._sent_too_late(counts) from None

    def _read_ahead(self, deadline: Deadline) -> bool:
        """Receive once; false where there is much already."""
        if len(self._ahead) >= LARGE_CHUNK:
            return False
        if not self._fill(deadline, CHUNK):
            raise self._send_failed(ConnectionBrokenError("the peer has finished in the middle of a TLS handshake"))
        return True

    def _sent_too_late(self, counts: list[int]) -> SendTimeoutError:
        done = sum(counts)
        return SendTimeoutError(f"no more than {done} bytes were sent in time", bytes_sent=done)

    def _send_failed(self, error: OSError) -> OSError:
        """What to raise for an error of the network."""
        self._send_error = error
        return self._broken(error)

    def send_file(self, file: IO[bytes], offset: int = 0, count: int | None = None, *,
                  timeout: float | None = None) -> int:
        """Send exactly ``count`` bytes of ``file`` from ``offset`` on, or all to its end: how many it were.

        The kernel copies where it can (``os.sendfile``). ``ValueError`` if the file is known to be too short, and
        then nothing is sent; ``EOFError`` if it turns out to be, or has become shorter. Timeouts are those of
        `send_all`. Of a file that cannot seek, such as a pipe, nothing behind ``count`` is taken, and nothing at all
        before the other end takes something. One that `makefile` makes is waited for as a pipe is, and its own timeout
        and `close` end the call as well.
        """
        deadline = self._deadline(timeout)
        check_size("offset", offset, least=0)
        if count is not None:
            check_size("count", count, least=0)
        other = stream_file(file)
        if other is not None:
            sent: int = self._wakeable(other.leave, self._send_in_turn, deadline, self._send_file, file, offset, count)
            return sent
        return self._send_in_turn(deadline, self._send_file, file, offset, count)

    def _send_file(self, deadline: Deadline, file: IO[bytes], offset: int, count: int | None) -> int:
        self._check_sending()
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
        self._sending_now = counts, math.inf if expected is None else expected  # see `_send_all`
        sent = 0
        if expected and size is not None:
            self._send_by_kernel(deadline, file, offset, expected, counts)
            sent = sum(counts)
            if sent:
                file.seek(offset + sent)
        if expected is None or sent < expected:
            if not seekable:
                self._wait_to_send(deadline, counts)  # what is read could not be put back
            sent = self._send_what_is_read(deadline, file, sent, expected, counts)
        if expected is not None and sent < expected:
            if count is not None or size_of(file) != size:
                raise EOFError(f"the file ended after {sent} of {expected} bytes")
            file.seek(offset + sent)  # it claims as much as ever, as files in /sys do, and there was no more
        self._sending_now = None
        return sent

    def _send_what_is_read(self, deadline: Deadline, file: IO[bytes], sent: int, count: int | None,
                           counts: list[int]) -> int:
        """Send what follows, up to ``count`` bytes altogether or to the end of the file: how many it were."""
        descriptor = waitable_descriptor(file)
        other = stream_file(file)
        held = held_by_reader(file, descriptor, None if count is None else count - sent)
        source = file if descriptor < 0 else getattr(file, "raw", file)
        overtime = Overtime(deadline)
        while count is None or sent < count:
            wanted = CHUNK if count is None else min(CHUNK, count - sent)
            if held:
                piece, held = held[:wanted], held[wanted:]
            elif other is not None:
                piece = self._some_of_stream(other, deadline, wanted, counts)
            else:
                if descriptor >= 0:
                    self._wait_for_file_to_send(descriptor, deadline, counts)
                piece = source.read(wanted)
            if piece is None:
                if descriptor < 0:
                    raise BlockingIOError(errno.EAGAIN, "the file has nothing now, and cannot be waited for")
                continue
            if not piece:
                break
            self._send_pieces(deadline, piece, len(piece), counts)
            sent += len(piece)
            if sent != count and overtime.is_over(len(piece)):
                raise self._sent_too_late(counts)
        return sent

    def _wait_for_file_to_send(self, descriptor: int, deadline: Deadline, counts: list[int]) -> None:
        try:
            self._wait_for_file(descriptor, READ, deadline)
        except TimeoutError:
            if not deadline.expired:
                raise
            raise self._file_too_late(counts) from None

    def _some_of_stream(self, other: StreamFile, deadline: Deadline, max_bytes: int, counts: list[int]) -> bytes:
        chunks: list[bytes] = []
        try:
            while not chunks:
                if self.closed:
                    raise closed_meanwhile()
                other.receive_some(chunks, max_bytes, deadline)
        except TimeoutError:
            if not deadline.expired:
                raise
            raise self._file_too_late(counts) from None
        return chunks[0]

    def _file_too_late(self, counts: list[int]) -> SendTimeoutError:
        done = sum(counts)
        return SendTimeoutError(f"the file had no more than {done} bytes in time", bytes_sent=done)

    def _send_by_kernel(self, deadline: Deadline, file: IO[bytes], offset: int, count: int, counts: list[int]) -> None:
        """As much as ``os.sendfile`` can: appends to ``counts`` how much has gone each time."""

    def send_eof(self, *, timeout: float | None = None) -> None:
        """Tell the peer that nothing more will be sent; receiving goes on. Idempotent."""
        deadline = self._deadline(timeout)
        self._send_in_turn(deadline, self._send_eof)

    def _send_eof(self, deadline: Deadline) -> None:
        self._settle_sending()
        if self._send_error is not None:
            raise self._broken(self._send_error)
        transport = self._transport
        if not self._has_sent_eof:
            again = self._finished_sending  # the call before this one was interrupted, perhaps after it had done it
            self._finished_sending = True
            try:
                transport.end_sending()
            except OSError as error:
                if error.errno in TOLD_ONCE:
                    self._lost = error
                if error.errno is None and not isinstance(error, NetmsgError):
                    raise  # not of the network: a signal handler raised it
                if not (again and error.errno == errno.ENOTCONN):
                    raise self._send_failed(error)
            self._has_sent_eof = True
        while transport.unsent:
            self._wait(WRITE, deadline)

    # TLS

    @property
    def tls(self) -> TLSInfo | None:
        """What TLS agreed on, of the innermost TLS if there are several; ``None`` in the clear.

        `LocalProtocolError` before the handshake, so that a check on it fails closed.
        """
        if self._transport.handshaking:
            raise LocalProtocolError("the TLS handshake has not happened yet: see do_handshake()")
        return self._transport.tls

    def do_handshake(self, *, timeout: float | None = None) -> TLSInfo:
        """Perform the TLS handshake if that has not happened yet. Raises `TLSHandshakeError`."""
        deadline = self._deadline(timeout)
        if self._transport.handshaking:
            self._shake_hands(deadline)
        info = self._transport.tls
        if info is None:
            raise LocalProtocolError("this stream is in the clear: see start_tls()")
        return info

    def start_tls(self, ssl_context: ssl.SSLContext | bool | None = None, *, server_side: bool | None = None,
                  server_hostname: str | None = None, tls_standard_compatible: bool = True,
                  timeout: float | None = None) -> None:
        """Go on under TLS, after both ends agreed to.

        ``ssl_context`` defaults to the one that the stream was made with; ``server_side`` is known from how the stream
        was made, and required where it is not; ``server_hostname`` defaults to the host that was connected to.
        ``tls_standard_compatible=False``, here or where the stream was made, takes an end without TLS's goodbye for a
        clean one, and has `close` wait for none. On a TLS stream: TLS inside of TLS.

        Plaintext that has been received already and not been taken is an injection on the client
        (`RemoteProtocolError`), and goes into the handshake on the server. A failed upgrade closes the stream. Raises
        `TLSHandshakeError`. Another thread that is in the middle of reading a `makefile` gets `LocalProtocolError`.
        """
        deadline = self._deadline(timeout)
        context: ssl.SSLContext | bool | None = self._ssl_context if ssl_context is None else ssl_context
        server_side = self._server_side if server_side is None else server_side
        if server_side is None:
            raise ValueError("server_side is required: which end this is cannot be told from how the stream was made")
        if context is None:
            raise ValueError("ssl_context is required: the stream was made without one")
        if server_side:
            if server_hostname is not None:
                raise ValueError("server_hostname is for the client's side")
            if not isinstance(context, ssl.SSLContext):
                raise TypeError("on the server's side ssl_context must be an ssl.SSLContext")
            check_server_context(context)
        else:
            context, server_hostname = client_context(
                context, self._server_hostname if server_hostname is None else server_hostname)
        if self._transport.handshaking:
            self._shake_hands(deadline)
        self._in_turn(self._shaking, deadline, self._start_tls, context, server_side, server_hostname,
                      tls_standard_compatible)

    def _start_tls(self, deadline: Deadline, *arguments: Any) -> None:
        self._in_turn(self._sending, deadline, self._start_tls_alone, *arguments)

    def _start_tls_alone(self, deadline: Deadline, *arguments: Any) -> None:
        self._check_sending()
        self._in_turn(self._readers.turn, deadline, self._start_tls_unread, *arguments)

    def _start_tls_unread(self, deadline: Deadline, *arguments: Any) -> None:
        self._in_turn(self._receiving, deadline, self._upgrade, *arguments)

    def _upgrade(self, deadline: Deadline, context: ssl.SSLContext, server_side: bool,
                 server_hostname: str | None, standard_compatible: bool) -> None:
        if self._receive_error is not None:
            raise self._broken(self._receive_error)
        if self._writing_now is not None:
            self._settle_file()
        ahead = self._ahead
        self._readers.hand_back(ahead.returned)
        early = ahead.peek_all()
        if early and not server_side:
            self.abort()
            raise RemoteProtocolError(f"the peer sent {len(early)} bytes in the clear behind what asked for TLS: they "
                                      "may have been injected")
        standard_compatible = standard_compatible and self._standard_compatible
        transport = TLSTransport(self._below_tls(), context, server_side=server_side, server_hostname=server_hostname,
                                 standard_compatible=standard_compatible)
        if early:
            transport.feed(early)
            ahead.clear()
        self._standard_compatible = standard_compatible
        self._ended = False
        self._transport = transport
        self._do_handshake(deadline)

    def _below_tls(self) -> Transport:
        """What TLS is to be put over."""
        return self._transport

    def _expect_tls(self, context: ssl.SSLContext | None, *, server_side: bool, server_hostname: str | None = None,
                    standard_compatible: bool = True) -> None:
        """What `_begin_tls` and `start_tls` are to use. For whoever makes the stream."""
        self._ssl_context = context
        self._server_side = server_side
        self._server_hostname = server_hostname
        self._standard_compatible = standard_compatible

    def _begin_tls(self, handshake_timeout: float | None) -> None:
        """TLS from the first byte on, with the handshake at the first use. For whoever makes the stream."""
        context = self._ssl_context
        assert isinstance(context, ssl.SSLContext) and self._server_side is not None
        self._transport = TLSTransport(self._below_tls(), context, server_side=self._server_side,
                                       server_hostname=verified_hostname(context, self._server_hostname)
                                       if not self._server_side else None,
                                       standard_compatible=self._standard_compatible)
        self._handshake_deadline = Deadline(handshake_timeout)

    def _handshake_over(self) -> None:
        """Somebody else has performed the handshake, on the transport. For whoever made the stream."""
        self._handshake_deadline = FOREVER

    def _when_closed(self, function: Callable[[], None]) -> None:
        """Call ``function``, perhaps several times, right before the descriptor is closed. For whoever makes the
        stream."""
        self._at_close = function

    def _prepare_reading(self, deadline: Deadline) -> None:
        """Have the first handshake behind us. For the files over this."""
        self._check()
        if self._transport.handshaking:
            self._shake_hands(deadline)

    def _shake_hands(self, deadline: Deadline) -> None:
        self._in_turn(self._shaking, deadline, self._do_handshake)

    def _do_handshake(self, deadline: Deadline) -> None:
        transport = self._transport
        upgrading = self._sending.is_mine
        shaken = again = False
        while transport.handshaking or (shaken and transport.finishing):
            try:
                if shaken:
                    self._wait(WRITE, deadline)  # without the rest of it the other end cannot finish
                    continue
                try:
                    transport.handshake()
                    shaken = True
                except BlockingIOError:
                    self._wait_for_handshake(deadline, again)
                    again = True
            except BaseException as error:
                if isinstance(error, OSError) and (error.errno is not None or isinstance(error, NetmsgError)):
                    raise self._handshake_failed(error)
                elif upgrading and (transport.handshaking or isinstance(error, TimeoutError)):
                    self._abandon()  # it is neither in the clear nor under TLS
                raise
        self._handshake_deadline = FOREVER

    def _handshake_failed(self, error: OSError) -> OSError:
        """Keep it, and close: what to raise."""
        if self.closed:
            return closed_meanwhile()
        if isinstance(error, ClosedError):
            return error
        if not isinstance(error, TLSHandshakeError):
            cause = error
            error = TLSHandshakeError(f"the connection broke during the TLS handshake: {cause}")
            error.__cause__ = cause
        self._receive_error = self._send_error = error
        failed = self._broken(error)
        self._abandon()
        return failed

    def _wait_for_handshake(self, deadline: Deadline, again: bool) -> None:
        """Within the caller's time, and the handshake's own, even if something comes all the time."""
        limit = self._handshake_deadline.remaining()
        remaining = deadline.remaining()
        if limit is None or (remaining is not None and remaining <= limit):
            if again and remaining == 0:
                raise self._too_late(deadline)
            self._wait(READ, deadline)
            return
        try:
            if again and limit == 0:
                raise TimeoutError("timed out")
            self._wait(READ, self._handshake_deadline)
        except TimeoutError as error:
            if not self._handshake_deadline.expired:
                raise  # a signal handler raised it
            raise TLSHandshakeError("the TLS handshake was not finished in time") from error

    def _abandon(self) -> None:
        """The stream is of no use any more: close it, but for the alert that is on its way."""
        self.close(timeout=0)

    @property
    def local_address(self) -> Any:
        """(host, port), or the path of a UNIX socket; ``None`` in memory."""
        return None

    @property
    def remote_address(self) -> Any:
        """The other end's."""
        return None

    @property
    def socket(self) -> SocketProxy:
        """The socket's options and addresses. `LocalProtocolError` in memory."""
        raise LocalProtocolError("there is no socket under this stream")

    # The end

    def close(self, *, timeout: float | None = 1.0) -> None:
        """Close, and see to it that what was sent is not lost: over TLS say goodbye, and wait up to ``timeout`` seconds
        for the other end to have it all; returns at once where nothing can be lost.

        Idempotent, from any thread, callback or signal handler. Whoever is blocked in a call gets `ClosedError`.
        """
        deadline = Deadline(timeout)
        again = self.closed
        if not again:
            self._linger = deadline
            self.closed = True
            self._ahead.items = []
        elif self._disposed:
            self._pass_on()
            return
        # Whoever calls again, perhaps because this was interrupted, does what is left to be done.
        try:
            self._wake()
            if again or self._shaking.is_for_me or self._sending.is_for_me or self._receiving.is_for_me:
                self._close_by_last()  # the call that this one interrupts, or is made from, or that closes, finishes it
            else:
                self._finish()
        except BaseException:
            if not self._to_wake:  # otherwise nobody may close what another `close` is still to wake
                self._closed_by_last = True
            raise

    def _wake(self) -> None:
        """Once, and again only if that was interrupted: the link may be gone afterwards."""
        if self._to_wake:
            self._to_wake = False
            try:
                for turn in (self._shaking, self._sending, self._receiving):
                    turn.refuse(closed_meanwhile)
                self._link.wake()
                self._given_up += (True,)
                for wake in tuple(self._elsewhere):
                    wake()
            except BaseException:
                self._to_wake = True
                raise

    def _close_by_last(self) -> None:
        """Have the last call inside close the descriptor, or do it now if there is none."""
        self._closed_by_last = True
        if self._shaking.holder is self._sending.holder is self._receiving.holder is None:
            self._finish()

    def abort(self) -> None:
        """Close at once, dropping everything: the other end may see a reset."""
        if self._process is current_process() and not self._disposed:
            self._aborted = True
            if self.closed:
                self._link.hurry()  # who is lingering need not
            else:
                self._link.reset()
        self.close(timeout=0)

    def _cut(self) -> None:
        """`close` without waiting for anybody, nor for what was sent to arrive: the last call inside closes the
        descriptor. For event loops."""
        if self._disposed:
            return
        if self.closed:
            self._link.hurry()  # who is lingering need not
        self._aborted = self.closed = True
        self._ahead.items = []
        self._wake()
        self._close_by_last()

    def _finish(self) -> None:
        """The rest of `close`, once nobody is inside any more."""
        if self._disposed or self._shaking.is_mine or self._sending.is_mine or self._receiving.is_mine:
            return
        claim = [get_ident()]
        turns = (self._shaking, self._sending, self._receiving)
        # They have been woken, and leave at once, unless one is busy with something else than this stream.
        leaving = Deadline(max(0.2, min(self._linger.remaining() or 0.0, 10.0)))
        try:
            for turn in turns:
                turn.take(claim, leaving, insist=True)
            if not self._disposed:
                if not (self._aborted or self._say_goodbye(self._linger.sooner(BRIEFLY)) or self._linger.expired):
                    with self._link.blocked():
                        self._say_goodbye(self._linger)
                self._dispose()
        except BaseException as error:
            self._closed_by_last = True
            if self._shaking.holder is self._sending.holder is self._receiving.holder is claim:
                self._dispose()  # who interrupts the lingering has lingered enough
                raise
            if not (isinstance(error, TimeoutError) and leaving.expired):
                raise
            self._link.hurry()
        finally:
            # No call before all three are free.
            if self._shaking.holder is claim:
                self._shaking.holder = self._shaking.heir
                self._shaking.heir = None
            if self._sending.holder is claim:
                self._sending.holder = self._sending.heir
                self._sending.heir = None
            if self._receiving.holder is claim:
                self._receiving.holder = self._receiving.heir
                self._receiving.heir = None
            self._pass_on()
        if not self._disposed:
            self._close_by_last()  # whoever was inside may have left before there was anything to be done

    def _pass_on(self) -> None:
        """Wake those who wait for a turn, who find the stream closed."""
        for turn in (self._shaking, self._sending, self._receiving):
            turn.pass_on()

    def _say_goodbye(self, deadline: Deadline) -> bool:
        """Half-close, and wait until the other end has everything: closing with bytes unread is a reset, which can
        destroy what the other end has not read yet. False once ``deadline`` has expired, and then it may go on."""
        transport = self._transport
        try:
            self._settle_sending()
            if not transport.handshaking and self._send_error is None and not self._has_sent_eof:
                transport.end_sending()
                self._has_sent_eof = True
            while True:
                if not transport.unsent or (self._send_error is not None and not transport.handshaking):
                    break
                self._link.linger(WRITE, deadline)
                transport.flush()
            if transport.handshaking or self._receive_error is not None:
                return True
            # After a send that was cut short there is no goodbye: the other end is to notice.
            settled = (transport.tls is None or not self._has_sent or self._send_error is not None
                       or not self._standard_compatible)
            while not self._ended:
                if deadline.expired:
                    return False
                try:
                    if not transport.receive(CHUNK):
                        return True
                    self._link.moved = True
                except BlockingIOError:
                    if settled and self._link.settled():
                        return True
                    self._link.linger(READ, deadline)
        except OSError as error:
            if error.errno is None and not isinstance(error, NetmsgError):
                if not deadline.expired:
                    raise  # not of the network: a signal handler raised it
                return False
        return True

    def _forked(self) -> None:
        """In a forked child: close this process's copy of the descriptor, and say nothing to anybody."""
        self.closed = True
        self._ahead.items = []
        self._dispose()

    def _dispose(self) -> None:
        if not self._disposed:
            if self._process is current_process():
                self._at_close()
                self._link.close()
            else:
                self._link.forked()
            self._disposed = True  # last, so that whoever comes after an interrupt does it again


class _Items(Iterator[bytes]):
    """An iterator that may be asked again after it raised, which a generator may not."""

    def __init__(self, receive: Callable[[], bytes], *, end_on_empty: bool) -> None:
        self._receive = receive
        self._end_on_empty = end_on_empty

    def __next__(self) -> bytes:
        try:
            item = self._receive()
        except EndOfStream:
            raise StopIteration from None
        if not item and self._end_on_empty:
            raise StopIteration
        return item


def _nothing(*_: object) -> None:
    """By default."""


def closed_meanwhile() -> ClosedError:
    return ClosedError("the stream was closed meanwhile")
