"""The other end of a link, as those wait for it who send."""

from __future__ import annotations

import time
from collections.abc import Callable, Sized
from contextlib import AbstractContextManager
from typing import Final, TypeVar

from ..deadline import Deadline
from ..standing_in import Awaited, standing_in, this_thread
from ..waiting import Ticket, wait_by

__all__ = ["BRIEFLY", "OtherEnd", "OthersWaitError"]

BRIEFLY: Final = 0.005
"""Seconds that whoever sends, or closes, waits for the other end before it counts as blocked."""

T = TypeVar("T")
W = TypeVar("W")


class OthersWaitError(TimeoutError):
    """Raised in the sends of workers that are given up for others."""

    def __init__(self) -> None:
        super().__init__("the other end took nothing, and too many workers waited")


class OtherEnd:
    """What the links of streams have in common that are sent to by workers of servers: see `netmsg.standing_in`.

    When too many workers wait, and this has taken nothing for long, those that wait here are given up: their sends end
    as if their time were up. That is all, for the stream may be anybody's; other threads go on waiting. Who made the
    stream may have something else done, by `awaited`.
    """

    def __init__(self) -> None:
        self.moved = True
        """Set by the stream when bytes have come or gone."""
        self.awaited: Awaited | None = None
        """For whom those who send wait, if not for this. For whoever made the stream."""
        self._moved_at = 0.0
        self._others_wait: list[bool] = []  # of the workers that wait now: something once they are given up
        self._in_line: dict[object, Ticket] = {}  # by what those wait that wait for their turn
        self._lingering = False

    def blocked(self) -> AbstractContextManager[object]:
        """What surrounds a wait of whoever sends, or closes, once it is no brief one."""
        return standing_in(self.awaited or self)

    def silent_since(self) -> float:
        """When the stream was last seen to have moved bytes (``time.monotonic()``). The clock is only read here, and so
        not for each of them; a wait that ends because its time is up is no end of the silence."""
        if self.moved:
            self.moved = False
            self._moved_at = time.monotonic()
        return self._moved_at

    def wait_to_send(self, wait: Callable[[W, Deadline, Sized], T | None], room: W, deadline: Deadline,
                     unless: Sized) -> T:
        """``wait(room, deadline, unless)``, which returns ``None`` once its time is up. By a worker, after
        `BRIEFLY`."""
        if deadline.expired:
            raise TimeoutError("timed out")
        others_wait = self._others_wait
        with self.blocked():
            found = wait(room, deadline, _Both(unless, others_wait))
        if others_wait and not found:
            raise OthersWaitError
        if found is None:
            raise TimeoutError("timed out")
        return found

    def wait_by(self, ticket: Ticket, deadline: Deadline) -> bool:
        """See `Link.wait_by`."""
        if this_thread.pool is None:
            return wait_by(ticket, deadline)
        if wait_by(ticket, deadline.sooner(BRIEFLY)):
            return True
        if deadline.expired:
            return False
        others_wait = self._others_wait
        claim = object()
        self._in_line[claim] = ticket
        try:
            with self.blocked():  # who waits for one that waits for the other end waits for that, too
                woken = bool(others_wait) or wait_by(ticket, deadline)
        finally:
            del self._in_line[claim]
        if others_wait:
            raise OthersWaitError
        return woken

    # As an `Awaited`

    _awaited = True

    def _silent_since(self) -> float:
        return self.silent_since()

    def _give_up_for_others(self) -> None:
        others_wait, self._others_wait = self._others_wait, []
        others_wait += (True,)
        for ticket in self._in_line.copy().values():
            try:
                ticket.release()
            except RuntimeError:
                pass  # woken already
        self.look_again()
        if self._lingering:
            self.hurry()

    def look_again(self) -> None:
        """See `Link.look_again`."""
        raise NotImplementedError

    def hurry(self) -> None:
        """See `Link.hurry`."""
        raise NotImplementedError


class _Both:
    """There is something in it once there is in one of two."""

    __slots__ = ("_one", "_other")

    def __init__(self, one: Sized, other: Sized) -> None:
        self._one = one
        self._other = other

    def __len__(self) -> int:
        return len(self._one) + len(self._other)
