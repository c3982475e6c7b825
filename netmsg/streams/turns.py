"""One at a time in each direction of a stream."""

from __future__ import annotations

from threading import get_ident

from ..deadline import Deadline
from ..waiting import Waiters

__all__ = ["Claim", "Turn"]


Claim = list[int]
"""A call that wants its turn: a list of its own, ``[get_ident()]``, compared by identity."""


class Turn:
    """A lock that is waited for with a deadline and that no interrupt (Ctrl-C) can leave locked.

    ::

        claim = [get_ident()]
        try:
            turn.take(claim, deadline)
            ...
        finally:
            if turn.holder is claim:
                turn.holder = None
            if turn.waiting:
                try:
                    turn.waiting[0].release()
                except RuntimeError:
                    pass  # woken already

    The holder is recorded inside of the ``try``. To let go is the first thing in ``finally``, and to wake the next is a
    single call into C right behind it, written out: a call of Python's would be a place for an interrupt to strike,
    and the next would sleep on beside a turn that is free. Who is woken and does not take it wakes the next in turn
    (`Waiters`), so that one is enough. `pass_on` is for those who need not be that strict.

    A loop directly inside of such a ``try``, or of a ``with``, begins with ``while True:`` and does not end with an
    ``if``; or it is in a function of its own. CPython 3.12 to 3.14 compile some jumps back, above all those of ``while
    condition:``, so that no handler covers them: an interrupt that strikes there passes by ``except`` and ``finally``,
    and whatever they were to release stays taken. (``tests/test_loops.py`` looks at the compiled code.)
    """

    __slots__ = ("holder", "waiters", "waiting")

    def __init__(self) -> None:
        self.holder: Claim | None = None
        self.waiters = Waiters()
        self.waiting = self.waiters.waiting

    def take(self, claim: Claim, deadline: Deadline) -> None:
        """Wait for the turn. Raises ``TimeoutError``. Woken by whoever had it."""
        if self.holder is None:
            self.holder = claim
            return

        def mine() -> bool:
            if self.holder is None:
                self.holder = claim
            return self.holder is claim

        if not self.waiters.wait(mine, deadline):
            raise TimeoutError("another thread was at it all the time")

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
