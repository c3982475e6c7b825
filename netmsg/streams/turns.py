"""One at a time in each direction of a stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from threading import get_ident
from typing import Final

from ..deadline import Deadline
from ..errors import ClosedError, LocalProtocolError
from ..waiting import Ticket, new_ticket, wait_by

__all__ = ["Claim", "Turn"]

PATIENCE: Final = 0.005
"""Seconds for which the first in the queue lets others go before it. To hand over after every call would cost two
threads that send all the time a switch for each."""

Claim = list[int]
"""A call that wants its turn: a list of its own, ``[get_ident()]``, compared by identity."""


class _Place:
    """In the queue: a `Ticket`, and of which thread."""

    __slots__ = ("acquire", "release", "thread")

    def __init__(self, thread: int) -> None:
        ticket = new_ticket()
        self.acquire = ticket.acquire
        self.release = ticket.release
        self.thread = thread


class Turn:
    """A lock that is waited for with a deadline and that no interrupt (Ctrl-C) can leave locked.

    ::

        claim = [get_ident()]
        try:
            turn.take(claim, deadline)
            ...
        finally:
            if turn.holder is claim:
                turn.holder = turn.heir
                turn.heir = None
            if turn.waiting:
                try:
                    turn.waiting[0].release()
                except (IndexError, RuntimeError):
                    pass  # it has left, or was woken already

    The holder is recorded inside of the ``try``. To let go is the first thing in ``finally``, and to wake the next is a
    single call into C right behind it, written out: a call of Python's would be a place for an interrupt to strike,
    and the next would sleep on beside a turn that is free. Whoever leaves, with the turn or without it, wakes the first
    in the queue, so that one is enough. `pass_on` is for those who need not be that strict.

    A turn that is free goes to whoever comes first, and mostly that is the thread that has just let go of it. So the
    first in the queue becomes the ``heir`` once it has had `PATIENCE`: it is handed the turn by whoever has it, and
    nobody comes between. An heir that is interrupted, or whose time is up, gives that up, and passes on what it was
    handed.

    A loop directly inside of such a ``try``, or of a ``with``, begins with ``while True:`` and does not end with an
    ``if``; or it is in a function of its own. CPython 3.12 to 3.14 compile some jumps back, above all those of ``while
    condition:``, so that no handler covers them: an interrupt that strikes there passes by ``except`` and ``finally``,
    and whatever they were to release stays taken. (``tests/test_loops.py`` looks at the compiled code.)
    """

    __slots__ = ("heir", "holder", "refusal", "waiting", "_wait_by")

    def __init__(self, wait_by: Callable[[Ticket, Deadline], bool] = wait_by) -> None:
        self._wait_by = wait_by
        self.holder: Claim | None = None
        self.heir: Claim | None = None
        """Who is to have it next: always the first of ``waiting``, and only while there is a holder."""
        self.waiting: deque[_Place] = deque()
        """Those who wait, in the order in which they came."""
        self.refusal: Callable[[], BaseException] | None = None

    def take(self, claim: Claim, deadline: Deadline, *, insist: bool = False,
             given_up: Collection[object] = ()) -> None:
        """Wait for the turn. Raises ``TimeoutError``, and unless it is to ``insist`` what `refuse` was told. Woken by
        whoever had it. `LocalProtocolError` where this thread has it, or waits for it, in a call that goes on only
        after this one; `ClosedError` once there is something in ``given_up``, and who put it there says so by
        `look_again`."""
        if self.holder is None:
            self.holder = claim
            return
        ticket = _Place(claim[0])
        patience = None
        if not insist and self.refusal is None and claim[0] in [place.thread for place in tuple(self.waiting)]:
            raise _waiting_for_itself()
        try:
            self.waiting.append(ticket)
            while True:
                late = deadline.expired
                impatient = patience is not None and patience.expired
                # No call from here to the end of the block, and so neither an interrupt nor another thread.
                if self.holder is None:
                    self.holder = claim
                if self.holder is claim:
                    break
                if impatient:
                    self.heir = claim
                if not insist:
                    if self.refusal is not None:
                        raise self.refusal()
                    if given_up:
                        raise ClosedError("the stream was closed meanwhile")
                    if self.holder[0] == claim[0]:
                        raise _waiting_for_itself()
                if late:
                    raise TimeoutError("another thread was at it all the time")
                if patience is None and self.waiting[0] is ticket:
                    patience = deadline.sooner(PATIENCE)
                self._wait_by(ticket, deadline if patience is None or impatient else patience)
            self.waiting.remove(ticket)
        except BaseException:
            # No call before nobody hands it over any more. Whoever called this lets go of it, and wakes the next.
            if self.heir is claim:
                self.heir = None
            try:
                self.waiting.remove(ticket)
            except ValueError:
                pass
            raise

    def refuse(self, refusal: Callable[[], BaseException]) -> None:
        """Have those who wait, now or later, raise ``refusal()``. Callable from a signal handler."""
        self.refusal = refusal
        self.look_again()

    def look_again(self) -> None:
        """Have all that wait now see whether they still are to."""
        for ticket in tuple(self.waiting):
            try:
                ticket.release()
            except RuntimeError:
                pass  # woken already

    def pass_on(self) -> None:
        """Wake the next."""
        if self.waiting:
            try:
                self.waiting[0].release()
            except (IndexError, RuntimeError):
                pass  # it has left, or was woken already

    @property
    def is_mine(self) -> bool:
        """Whether this thread has it, in a call that is being interrupted."""
        holder = self.holder
        return holder is not None and holder[0] == get_ident()

    @property
    def is_for_me(self) -> bool:
        """The same, or whether this thread waits for it."""
        return self.is_mine or get_ident() in [place.thread for place in tuple(self.waiting)]


def _waiting_for_itself() -> LocalProtocolError:
    return LocalProtocolError("a call was made from inside of another one of the same thread, as from a signal handler"
                              ", and would wait for it for ever")
