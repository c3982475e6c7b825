"""The life of a Søcket, from open to closed. Pure.

::

    OPEN ──────▶ CLOSING ──────▶ CLOSED
                    │
                    └──────────▶ FAILED     from any of these, in a forked child and in its children: FORKED
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from ..errors import ClosedError, ForkedError

__all__ = ["Life", "State"]


class State(Enum):
    """Where a Søcket stands in its life."""

    OPEN = "open"
    CLOSING = "closing"
    """Nobody sends or receives any more, and what was sent is still on its way."""
    CLOSED = "closed"
    FAILED = "failed"
    """Closed by an error of netmsg's own."""
    FORKED = "forked"
    """In a child: all of it is the parent's."""


TRANSITIONS: Final = {
    State.OPEN: {State.CLOSING, State.FORKED},
    State.CLOSING: {State.CLOSED, State.FAILED, State.FORKED},
    State.CLOSED: {State.FORKED},
    State.FAILED: {State.FORKED},
    State.FORKED: {State.FORKED},
}


class Life:
    """One state; `begin_closing` may be called by any thread and by a signal handler in the midst of anything, the rest
    belongs to the network thread."""

    __slots__ = ("closing", "failure", "on_crash", "over", "state")

    def __init__(self) -> None:
        self.state = State.OPEN
        self.closing = False
        """Whether `close` has been called. This and `over` are looked at for every message: attributes."""
        self.over = False
        """Whether nobody need wait for anything any more."""
        self.failure: BaseException | None = None
        self.on_crash: Callable[[BaseException], None] = self._unhandled
        """What is done about `crash`."""

    def crash(self, error: BaseException) -> None:
        """A step has failed that belongs to no connection."""
        self.on_crash(error)

    def _go(self, state: State) -> None:
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"a Søcket cannot go from {self.state.value} to {state.value}")
        self.state = state

    def begin_closing(self) -> None:
        """Nobody sends or receives from here on. Idempotent."""
        # No call: a signal handler may have come between any two of these lines, and done the same.
        self.closing = True
        self.over = True
        if self.state is State.OPEN:
            self.state = State.CLOSING

    def end(self) -> bool:
        """All is let go of, now or before: whether it is now."""
        if self.state is not State.CLOSING:
            return False
        self._go(State.CLOSED if self.failure is None else State.FAILED)
        return True

    def fork(self) -> None:
        """This is a forked child, or one of its children."""
        self._go(State.FORKED)
        self.over = True

    @property
    def closed(self) -> bool:
        """Whether all has been let go of."""
        return self.state is State.CLOSED or self.state is State.FAILED

    @property
    def forked(self) -> bool:
        return self.state is State.FORKED

    def check_process(self) -> None:
        """Raises `ForkedError`."""
        if self.state is State.FORKED:
            raise ForkedError("this Søcket belongs to the parent process")

    def check_open(self) -> None:
        """Raises `ForkedError`, `ClosedError`."""
        self.check_process()
        if self.closing:
            raise ClosedError("the Søcket is closed") from self.failure

    @staticmethod
    def _unhandled(error: BaseException) -> None:
        raise error
