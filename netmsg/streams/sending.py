"""The half of a stream that sends: its turn, what is known to have gone, and its error."""

from __future__ import annotations

import errno
import math
import select
import time
from collections.abc import Callable, Collection
from threading import get_ident
from typing import Any, Final, TypeVar

from ..deadline import Deadline, Overtime
from ..errors import (
    TOLD_ONCE, ClosedError, ConnectionBrokenError, LocalProtocolError, NetmsgError, SendTimeoutError, identity,
)
from ..sockets.waiting import WRITE
from .connection import FOREVER, Connection, closed_meanwhile
from .other_end import OthersWaitError
from .receiving import CHUNK, LARGE_CHUNK, Receiving
from .turns import Turn

__all__ = ["SOME", "Sending"]

RENEGOTIATING: Final = 0.01
"""Seconds for which whoever sends waits for its turn to receive, and receives, before it tries again to send: nothing
tells that another thread has received what it waits for."""

SOME: Final = 0
"""The size of a send that is never cut short: see `Sending.send_some`."""

T = TypeVar("T")


class Sending:
    """What a send is about to do is on record before, and whoever comes next finds out from the record how far it came:
    see `under_way`."""

    def __init__(self, connection: Connection, turn: Turn, receiving: Receiving) -> None:
        self.connection = connection
        self.turn = turn
        self.error: OSError | None = None
        """Kept, and raised is another one each time: see `Connection.broken`."""
        self.under_way: tuple[list[int], float] | None = None
        """How much has gone each time of a send that has not come to its end, or was interrupted, and of how much."""
        self.taken: list[Any] = []
        """What such a send has taken out of a file for good, and has to go next: like a part that has gone, it is
        missing in whatever may be sent later."""
        self.has_sent = False
        self.finished = False
        """Whether `send_eof` was called."""
        self.has_sent_eof = False
        self._receiving = receiving

    # In turn

    def in_turn(self, deadline: Deadline, work: Callable[..., T], *arguments: Any,
                given_up: Collection[object] = ()) -> T:
        """`Connection.in_turn`, after the handshake, and with the error of a send for a timeout."""
        connection = self.connection
        turn = self.turn
        claim = [get_ident()]
        try:
            if connection.transport.handshaking:
                connection.shake_hands(deadline)
            try:
                if turn.holder is None:
                    turn.holder = claim
                else:
                    turn.take(claim, deadline, given_up=given_up)
                if connection.closed:
                    connection.check()
                result = work(deadline, *arguments)
                connection.link.moved = True
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
                if connection.closed_by_last:
                    connection.finish()
        except BaseException as error:
            if (isinstance(error, TimeoutError) and not isinstance(error, SendTimeoutError)
                    and (deadline.expired or isinstance(error, OthersWaitError))):
                late = SendTimeoutError(str(error))
                connection.failure = identity(late)
                try:
                    raise late from None
                finally:
                    del late  # or the error would keep itself alive, by this frame, and this stream
            connection.failed(error)
            raise

    def send_counted(self, octets: memoryview, counts: list[int], *, timeout: float | None) -> None:
        """`send_all` in turn, which appends to ``counts`` how much has gone each time."""
        self.in_turn(self.connection.deadline(timeout), self.send_all, octets, counts)

    def send_some(self, octets: bytes | memoryview, counts: list[int], deadline: Deadline,
                  given_up: Collection[object]) -> None:
        """Send as much as goes at once, as soon as some does, and append to ``counts`` how much: no less than that, and
        so nothing is cut short. `ClosedError` once there is something in ``given_up``, and `look_again` was called."""
        self.in_turn(self.connection.deadline(deadline.remaining()), self._send_what_goes, octets, counts, given_up,
                     given_up=given_up)

    def settle(self, counts: list[int]) -> None:
        """Have ``counts``, of a `send_some` that was interrupted, say what has gone. Whoever has had the turn since has
        seen to that first, and so this hardly waits."""
        if self.under_way is None or self.under_way[0] is not counts:
            return
        turn = self.turn
        claim = [get_ident()]
        try:
            turn.take(claim, FOREVER)
            self.conclude()
        except ClosedError:  # by somebody who has the turn: nothing is sent any more
            self._report(counts)
        finally:
            if turn.holder is claim:
                turn.holder = turn.heir
                turn.heir = None
            if turn.waiting:
                try:
                    turn.waiting[0].release()
                except (IndexError, RuntimeError):
                    pass
            if self.connection.closed_by_last:
                self.connection.finish()

    def look_again(self) -> None:
        """Have who is in `send_some` see whether that was given up."""
        self.turn.look_again()
        self.connection.link.look_again()

    # By whoever has the turn

    def check(self) -> None:
        """Raises what there is against sending."""
        if self.under_way is not None:
            self.conclude()
        if self.finished:
            raise LocalProtocolError("sending after send_eof()")
        if self.error is not None:
            raise self.connection.broken(self.error)

    def conclude(self) -> None:
        """Find out what a send that has not come to its end has done. If that is a part, nothing more may be sent: the
        other end would take it for the rest."""
        if self.under_way is not None:
            counts, size = self.under_way
            if size == SOME:
                self._report(counts)
            done = sum(counts)
            begun = done or self.connection.transport.begun or any(self.taken)
            if begun and done < size and self.error is None:
                of = "" if size == math.inf else f" of {size}"
                self.error = ConnectionBrokenError(f"an earlier send was cut short after {done}{of} bytes")
            self.under_way = None
            self.taken = []

    def _report(self, counts: list[int]) -> None:
        if self.error is None:  # what was on its way has gone down with the connection, as far as anybody knows
            self.connection.transport.report(counts)

    def send_all(self, deadline: Deadline, octets: bytes | memoryview, counts: list[int] | None = None) -> None:
        if self.finished or self.error is not None or self.under_way is not None:
            self.check()
        size = len(octets)
        if size:
            if counts is None:
                counts = []
            # On record before anything goes, and off it once everything has, so that whatever comes between cannot
            # leave a part that nobody knows of.
            self.under_way = counts, size
            self.send_pieces(deadline, octets, size, counts)
            self.under_way = None

    def _send_what_goes(self, deadline: Deadline, octets: bytes | memoryview, counts: list[int],
                        given_up: Collection[object]) -> None:
        self.check()
        if self.connection.transport.tls is not None:
            octets = octets[:select.PIPE_BUF]  # so little goes as a whole when there is room
            self.wait(deadline, counts, given_up)
        self.under_way = counts, SOME  # see `send_all`
        try:
            self.send_pieces(deadline, octets, 1, counts, given_up)
        except BaseException:
            self.conclude()  # if this is interrupted, too, whoever comes next does it: see `settle`
            raise
        self.under_way = None

    def send_pieces(self, deadline: Deadline, octets: bytes | memoryview, size: int, counts: list[int],
                    given_up: Collection[object] = ()) -> None:
        """Send ``octets``, of which there are ``size`` or more, until that many have gone, and append to ``counts`` how
        much has gone each time."""
        transport = self.connection.transport
        self.has_sent = True
        if deadline is not FOREVER and transport.tls is not None:
            self.wait(deadline, counts)  # what is encrypted has to go, so first see that something can
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
                        raise self.too_late(counts) from None
                    again = True
                    if transport.stalled:
                        self._receive_to_send(deadline, counts)
                    else:
                        self.wait(deadline, counts, given_up)
                    continue
                except OSError as error:
                    if error.errno in TOLD_ONCE:
                        self.connection.lost = error  # before any call
                    if error.errno is None and not isinstance(error, NetmsgError):
                        raise  # not of the network: a signal handler raised it
                    raise self.failed(error)
                done += counts[-1]
                if done >= size:
                    break
                if deadline is not FOREVER:
                    overtime = overtime or Overtime(deadline)
                    if overtime.is_over(counts[-1]):
                        raise self.too_late(counts)
                again = False
                rest = memoryview(octets)[done:]
        finally:
            if type(rest) is memoryview and rest is not octets:
                rest.release()  # an error would keep it, and the caller could not resize what it is of

    def wait(self, deadline: Deadline, counts: list[int], given_up: Collection[object] = ()) -> None:
        """For room."""
        try:
            self.connection.wait(WRITE, deadline, given_up, self.failed)
        except OthersWaitError as error:
            done = sum(counts)
            raise SendTimeoutError(f"{error}; {done} bytes were sent before", bytes_sent=done) from None
        except TimeoutError:
            if not deadline.expired:
                raise  # a signal handler raised it
            raise self.too_late(counts) from None
        if given_up:
            raise closed_meanwhile()

    def _receive_to_send(self, deadline: Deadline, counts: list[int]) -> None:
        """TLS renegotiates, and can send once it has heard from the other end. Another thread may be about to receive
        that; if none is, have it in the read-ahead, with what came before it, but not without limit."""
        step = deadline.sooner(RENEGOTIATING)
        try:
            if not self.connection.in_turn(self._receiving.turn, step, self._read_ahead):
                time.sleep(step.remaining() or 0.0)
        except TimeoutError:
            if not step.expired:
                raise  # a signal handler raised it
            if deadline.expired:
                raise self.too_late(counts) from None

    def _read_ahead(self, deadline: Deadline) -> bool:
        """Receive once; false where there is much already."""
        if len(self._receiving.ahead) >= LARGE_CHUNK:
            return False
        if not self._receiving.fill(deadline, CHUNK):
            raise self.failed(ConnectionBrokenError("the peer has finished in the middle of a TLS handshake"))
        return True

    def send_eof(self, deadline: Deadline) -> None:
        self.conclude()
        if self.error is not None:
            raise self.connection.broken(self.error)
        transport = self.connection.transport
        if not self.has_sent_eof:
            again = self.finished  # the call before this one was interrupted, perhaps after it had done it
            self.finished = True
            try:
                transport.end_sending()
            except OSError as error:
                if error.errno in TOLD_ONCE:
                    self.connection.lost = error
                if error.errno is None and not isinstance(error, NetmsgError):
                    raise  # not of the network: a signal handler raised it
                if not (again and error.errno == errno.ENOTCONN):
                    raise self.failed(error)
            self.has_sent_eof = True
        while transport.unsent:
            self.connection.wait(WRITE, deadline, (), self.failed)

    # Errors

    def too_late(self, counts: list[int]) -> SendTimeoutError:
        done = sum(counts)
        return SendTimeoutError(f"no more than {done} bytes were sent in time", bytes_sent=done)

    def failed(self, error: OSError) -> OSError:
        """What to raise for an error of the network, which is kept."""
        self.error = error
        return self.connection.broken(error)
