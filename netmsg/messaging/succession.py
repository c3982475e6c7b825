"""Several connections of one peer, one after the other: a new one takes over, and what the peer has sent on the old one
comes first."""

from __future__ import annotations

import socket
from typing import Final, Protocol

from ..reactor.reactor import Scope, Timer, Worker
from .lane import Lane

__all__ = ["Connection", "Readable", "Succession"]


BRIEFLY: Final = 0.2


class Readable(Protocol):
    """The reading side of a connection."""

    def hold(self) -> None:
        """Do not read before `release`."""

    def release(self) -> None:
        """Read on."""


class Connection(Worker, Protocol):
    """One of them."""

    @property
    def paused(self) -> bool:
        """Whether it is not read, because its messages are not taken."""

    @property
    def broken(self) -> bool:
        """Whether nothing can be sent on it any more."""

    @property
    def blocked(self) -> bool:
        """Whether the kernel takes no more for it."""

    def does_not_end(self) -> None:
        """It was to be read to its end, which does not come."""


class Succession:
    """The place of one connection among them. On the loop."""

    __slots__ = ("_behind", "_followers", "_timer", "_io", "_socket", "_lane", "_reading", "_connection", "_patience",
                 "_briefly")

    def __init__(self, io: Scope, sock: socket.socket, lane: Lane, reading: Readable, connection: Connection,
                 patience: float) -> None:
        """For ``patience`` seconds one that ends is waited for."""
        self._io: Final = io
        self._socket: Final = sock
        self._lane: Final = lane
        self._reading: Final = reading
        self._connection: Final = connection
        self._patience: Final = patience
        self._behind: Succession | None = None  # the one to be read to its end before this one is read
        self._followers: list[Succession] = []  # those behind this one
        self._briefly = False
        self._timer: Timer | None = None

    @property
    def following(self) -> bool:
        """Whether it is not read yet, because the connection before it still is."""
        return self._behind is not None

    def follow(self, old: Succession, *, send: bool) -> None:
        """Messages of this connection count as later than all of ``old``, which is still being read; ``send``: those
        that we send may go out meanwhile."""
        before = self._behind
        if before is not None and before is not old and old._behind is None:
            old.follow(before, send=True)  # so does what comes there
        self._behind = old
        old._followers.append(self)
        self._lane.held = not send
        self._reading.hold()

    def _speak(self) -> None:
        """Send messages, even if it is not known whether the connection before this one has been read."""
        self._lane.held = False
        self._io.loop.work[self._connection] = None

    def _go_ahead(self, old: Succession) -> None:
        """``old`` has been read to its end."""
        if self._behind is not old:
            return  # it has come behind another one meanwhile
        self._behind = None
        self._speak()
        self._reading.release()

    def await_end(self, *, briefly: bool = False) -> None:
        """What comes is read to its end, within the marks; if it does not end, for as long as a dead peer is waited
        for. ``briefly``: no end is expected, and it is enough that what has come is read."""
        self._briefly = briefly
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._io.call_later(min(BRIEFLY, self._patience) if briefly else self._patience, self._not_over)

    def _not_over(self) -> None:
        connection = self._connection
        machine = self._io.loop.machine
        is_awaited = (connection.blocked and not self._briefly
                      and machine.acknowledged_within(self._socket, self._patience))
        is_full_of_it = connection.paused and (not connection.broken or machine.hung_up(self._socket))
        if is_awaited or is_full_of_it or self._behind is not None:
            # What has come is not lost because nobody takes it, and it comes to an end; but those behind this one need
            # not be silent for it, unless it is the other end that takes nothing: what is on its way there goes first.
            if not is_awaited:
                for follower in self._followers:
                    follower._speak()
            self.await_end(briefly=self._briefly)
        else:
            connection.does_not_end()

    def end(self) -> None:
        """It has been read to its end, or is not read any more: the turn of those behind it."""
        if self._timer is not None:
            self._timer.cancel()
        before, self._behind = self._behind, None
        followers, self._followers = self._followers, []
        for follower in followers:
            if before is not None and follower._behind is self:
                follower._behind = None
                follower.follow(before, send=not follower._lane.held)
            else:
                follower._go_ahead(self)
