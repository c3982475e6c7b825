"""One at a time in each direction of a stream."""

from __future__ import annotations

from threading import get_ident

from ..deadline import Deadline
from ..waiting import Waiters

__all__ = ["Claim", "Turn"]


Claim = list[int]
"""A call that wants its turn: a list of its own, ``[get_ident()]``, compared by identity."""


class Turn:
    """A lock that is waited for with a deadline and that an interrupt (Ctrl-C) cannot leave locked.

    ::

        claim = [get_ident()]
        try:
            turn.take(claim, deadline)
            ...
        finally:
            if turn.holder is claim:
                turn.holder = None
            turn.pass_on()

    The holder is recorded inside of the ``try``, and the first thing in ``finally``, without any call before it, is to
    let go.
    """

    __slots__ = ("holder", "waiters")

    def __init__(self) -> None:
        self.holder: Claim | None = None
        self.waiters = Waiters()

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
        if self.waiters.waiting:
            self.waiters.notify()

    @property
    def is_mine(self) -> bool:
        """Whether this thread has it, in a call that is being interrupted."""
        holder = self.holder
        return holder is not None and holder[0] == get_ident()
