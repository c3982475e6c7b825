"""The end of a stream: `close`, `abort`, and what is left to be done of them by the last to leave."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident

from ..deadline import Deadline
from ..errors import NetmsgError
from ..forking import current_process
from ..sockets.waiting import READ, WRITE
from .connection import FOREVER, Connection, closed_meanwhile, nothing
from .other_end import BRIEFLY
from .receiving import CHUNK, Receiving
from .sending import Sending

__all__ = ["Closing"]


class Closing:
    """`close` marks, wakes all, and waits until they have left; then it says goodbye, and closes the descriptor. Where
    it cannot wait, because it was called by one of them, or interrupted one, the last to leave does the rest."""

    def __init__(self, connection: Connection, receiving: Receiving, sending: Sending) -> None:
        self._connection = connection
        self._link = connection.link
        self._receiving = receiving
        self._sending = sending
        self._turns = connection.shaking, sending.turn, receiving.turn
        self._to_wake = True
        self._linger = FOREVER
        self.at_close: Callable[[], None] = nothing
        """Called, perhaps several times, right before the descriptor is closed."""
        self.aborted = False
        """Whether nobody waits any more for what was sent to arrive."""
        self.disposed = False
        """Whether the descriptor is closed, and nothing is left to be done."""
        connection.finish = self._finish

    def close(self, timeout: float | None) -> None:
        """See `ByteStream.close`."""
        deadline = Deadline(timeout)
        again = self._connection.closed
        if not again:
            self._linger = deadline
            self._mark()
        elif self.disposed:
            self._pass_on()
            return
        # Whoever calls again, perhaps because this was interrupted, does what is left to be done.
        try:
            self._wake()
            shaking, sending, receiving = self._turns
            if again or shaking.is_for_me or sending.is_for_me or receiving.is_for_me:
                self._close_by_last()  # the call that this one interrupts, or is made from, or that closes, finishes it
            else:
                self._finish()
        except BaseException:
            if not self._to_wake:  # otherwise nobody may close what another `close` is still to wake
                self._connection.closed_by_last = True
            raise

    def abort(self) -> None:
        """See `ByteStream.abort`."""
        if self._connection.process is current_process() and not self.disposed:
            self.aborted = True
            if self._connection.closed:
                self._link.hurry()  # who is lingering need not
            else:
                self._link.reset()
        self.close(0)

    def cut(self) -> None:
        """`close` without waiting for anybody, nor for what was sent to arrive: the last call inside closes the
        descriptor. For event loops."""
        if self.disposed:
            return
        if self._connection.closed:
            self._link.hurry()  # who is lingering need not
        self.aborted = True
        self._mark()
        self._wake()
        self._close_by_last()

    def _mark(self) -> None:
        connection = self._connection
        connection.cause = self._receiving.error
        connection.closed = True
        self._receiving.ahead.items = []  # what can be taken without a look at anything

    def _wake(self) -> None:
        """Once, and again only if that was interrupted: the link may be gone afterwards."""
        if self._to_wake:
            self._to_wake = False
            try:
                for turn in self._turns:
                    turn.refuse(closed_meanwhile)
                self._link.wake()
                self._connection.elsewhere.give_up()
            except BaseException:
                self._to_wake = True
                raise

    def _close_by_last(self) -> None:
        """Have the last call inside close the descriptor, or do it now if there is none."""
        self._connection.closed_by_last = True
        shaking, sending, receiving = self._turns
        if shaking.holder is sending.holder is receiving.holder is None:
            self._finish()

    def _finish(self) -> None:
        """The rest of `close`, once nobody is inside any more."""
        shaking, sending, receiving = self._turns
        if self.disposed or shaking.is_mine or sending.is_mine or receiving.is_mine:
            return
        claim = [get_ident()]
        # They have been woken, and leave at once, unless one is busy with something else than this stream.
        leaving = Deadline(max(0.2, min(self._linger.remaining() or 0.0, 10.0)))
        try:
            for turn in self._turns:
                turn.take(claim, leaving, insist=True)
            if not self.disposed:
                if not (self.aborted or self._say_goodbye(self._linger.sooner(BRIEFLY)) or self._linger.expired):
                    with self._link.blocked():
                        self._say_goodbye(self._linger)
                self.dispose()
        except BaseException as error:
            self._connection.closed_by_last = True
            if shaking.holder is sending.holder is receiving.holder is claim:
                self.dispose()  # who interrupts the lingering has lingered enough
                raise
            if not (isinstance(error, TimeoutError) and leaving.expired):
                raise
            self._link.hurry()
        finally:
            # No call before all three are free.
            if shaking.holder is claim:
                shaking.holder = shaking.heir
                shaking.heir = None
            if sending.holder is claim:
                sending.holder = sending.heir
                sending.heir = None
            if receiving.holder is claim:
                receiving.holder = receiving.heir
                receiving.heir = None
            self._pass_on()
        if not self.disposed:
            self._close_by_last()  # whoever was inside may have left before there was anything to be done

    def _pass_on(self) -> None:
        """Wake those who wait for a turn, who find the stream closed."""
        for turn in self._turns:
            turn.pass_on()

    def _say_goodbye(self, deadline: Deadline) -> bool:
        """Half-close, and wait until the other end has everything: closing with bytes unread is a reset, which can
        destroy what the other end has not read yet. False once ``deadline`` has expired, and then it may go on."""
        transport = self._connection.transport
        sending, receiving = self._sending, self._receiving
        try:
            sending.conclude()
            if not transport.handshaking and sending.error is None and not sending.has_sent_eof:
                transport.end_sending()
                sending.has_sent_eof = True
            while True:
                if not transport.unsent or (sending.error is not None and not transport.handshaking):
                    break
                self._link.linger(WRITE, deadline)
                transport.flush()
            if transport.handshaking or receiving.error is not None:
                return True
            # After a send that was cut short there is no goodbye: the other end is to notice.
            settled = (transport.tls is None or not sending.has_sent or sending.error is not None
                       or not self._connection.standard_compatible)
            while not receiving.ended:
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

    def dispose(self) -> None:
        """Close the descriptor: nobody is inside any more."""
        if not self.disposed:
            if self._connection.process is current_process():
                self.at_close()
                self._link.close()
            else:
                self._link.forked()
            # Nobody is told to do anything any more; those who could be make a circle with this.
            self._connection.shake_hands = self._connection.finish = nothing
            self.disposed = True  # last, so that whoever comes after an interrupt does it again

    def _forked(self) -> None:
        """In a forked child: close this process's copy of the descriptor, and say nothing to anybody."""
        self._mark()
        self.dispose()
