"""What both halves of a stream stand on: the link, the transport over it, and how far it has come with them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from threading import get_ident
from typing import Any, Final, TypeVar

from ..deadline import Deadline
from ..errors import (
    TOLD_ONCE, ClosedError, ConnectionBrokenError, ForkedError, as_broken, bare, identity, is_identified,
)
from ..forking import current_process
from ..sockets.waiting import READ, WRITE
from ..transports.plain import Transport
from .links import Link
from .turns import Turn

__all__ = ["FOREVER", "Connection", "Elsewhere", "IdleTimeoutError", "closed_meanwhile", "nothing"]

FOREVER: Final = Deadline(None)

T = TypeVar("T")


class IdleTimeoutError(TimeoutError):
    """`Connection.idle_timeout` ran out, and not a timeout that somebody gave."""


class _IdleDeadline(Deadline):
    __slots__ = ()


class Connection:
    """The common ground of a stream's two halves.

    It knows neither of them. What is to be done before a call of theirs, and after the last one, takes the turns of
    both, and is told to it by those above: `shake_hands` and `finish`.
    """

    def __init__(self, link: Link) -> None:
        self.process = current_process()
        self.link = link
        self.transport: Transport = link.transport
        self.shaking = Turn(link.wait_by)
        """Of the handshake."""
        self.shake_hands: Callable[[Deadline], None] = nothing
        """What whoever finds ``transport.handshaking`` calls first."""
        self.closed = False
        """Whether `close` or `abort` was called."""
        self.closed_by_last = False
        """Whether who leaves last has to see to the rest of that: everybody who leaves calls `finish`."""
        self.finish: Callable[[], None] = nothing
        self.elsewhere = Elsewhere()
        self.cause: OSError | None = None
        """Why nothing could be received any more when it was closed."""
        self.lost: OSError | None = None
        """Learnt by a send: receiving would see an end."""
        self.failure: object = None
        """The `identity` of the last exception that one of the calls has raised."""
        self.idle_timeout: float | None = None
        """For the calls that are given no ``timeout``."""
        self.standard_compatible = True
        """Whether the end of TLS is its goodbye."""
        self._unsendable = False  # what the transport itself has to send

    def check(self) -> None:
        """Raises `ClosedError`, `ForkedError`."""
        if self.process is not current_process():
            raise ForkedError("this stream belongs to the parent process")
        if self.closed:
            raise ClosedError("the stream is closed") from self.cause

    def deadline(self, timeout: float | None) -> Deadline:
        """Every member begins here. Raises ``ValueError``, `ClosedError`, `ForkedError`."""
        if timeout is not None:
            deadline = Deadline(timeout)
        elif self.idle_timeout is not None:
            deadline = _IdleDeadline(self.idle_timeout)
        else:
            deadline = FOREVER
        if self.closed or self.process is not current_process():
            self.check()
        return deadline

    def in_turn(self, turn: Turn, deadline: Deadline, work: Callable[..., T], *arguments: Any) -> T:
        """``work(deadline, *arguments)``, when it is its turn. Not for what takes received bytes: see
        `Receiving.take`."""
        claim = [get_ident()]
        try:
            try:
                turn.take(claim, deadline)
                self.check()
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
                if self.closed_by_last:
                    self.finish()
        except BaseException as error:
            self.failed(error)
            raise

    # Waiting

    def wait(self, events: int, deadline: Deadline, unless: Collection[object] = (),
             send_failed: Callable[[OSError], OSError] | None = None) -> None:
        """Wait until it is worth trying again, or something is in ``unless``; meanwhile send what the transport itself
        has to send. If that fails it is for who waits for room: what ``send_failed`` makes of it, or `broken`."""
        transport = self.transport
        if events & READ and transport.readable:  # no event tells of what is inside already
            if self.closed:
                raise closed_meanwhile()
            if deadline.expired:
                raise self.too_late(deadline)
            return
        try:
            # What cannot be sent any more is not waited for: that it cannot would be told again and again.
            flushing = transport.unsent and not self._unsendable
            happened = self.link.wait(events | WRITE if flushing else events, deadline, unless)
        except TimeoutError:
            if isinstance(deadline, _IdleDeadline) and deadline.expired:
                raise self.too_late(deadline) from None
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
                        self.lost = error
                    raise (send_failed or self.broken)(error)

    def wait_for_file(self, descriptor: int, events: int, deadline: Deadline) -> None:
        """The same for a file that is sent or received to."""
        while not self.link.wait_for_file(descriptor, events, deadline):
            if self.closed:
                raise closed_meanwhile()
        if self.closed:
            raise closed_meanwhile()

    # Errors

    def too_late(self, deadline: Deadline) -> TimeoutError:
        """What to raise when ``deadline`` has expired."""
        if isinstance(deadline, _IdleDeadline):
            return IdleTimeoutError(f"nothing happened for {self.idle_timeout:g} s")
        return TimeoutError("timed out")

    def broken(self, error: OSError) -> OSError:
        """What to raise for an error of the network: another one each time, for the one that is kept must not keep
        alive what was alive where it was raised."""
        if self.closed:
            return closed_meanwhile()
        return as_broken(bare(error))

    def failed(self, error: BaseException) -> None:
        """It is what this stream raises, unless it comes from another one, which a file is over: that has seen it
        first."""
        if not is_identified(error):
            self.failure = identity(error)


class Elsewhere:
    """Calls of one stream that wait in another one, over which a file is that is sent or received to."""

    def __init__(self) -> None:
        self.given_up: list[bool] = []
        """Something once they are to wait no more."""
        self._wakers: list[Callable[[], None]] = []

    def wait(self, wake: Callable[[], None], work: Callable[..., T], *arguments: Any) -> T:
        """``work(*arguments)``, which waits there, and looks at `given_up` once ``wake`` was called."""
        try:
            self._wakers += (wake,)
            return work(*arguments)
        finally:
            self._wakers.remove(wake)

    def give_up(self) -> None:
        """Have all of them come out, now and later."""
        self.given_up += (True,)
        for wake in tuple(self._wakers):
            wake()


def nothing(*_: object) -> None:
    """By default."""


def closed_meanwhile() -> ClosedError:
    return ClosedError("the stream was closed meanwhile")
