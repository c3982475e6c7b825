"""What the handler of one client is to hear next, and what ends it. Pure: no socket, no thread, no clock.

A *step* is the handler with what there is for it. There is one at a time, in a worker or on the loop; what comes while
it runs is received once and not decoded: after a ``start_tls`` it is not to be taken for packets, and a client that
floods is to fill the kernel's buffers and not ours.

::

    NEW ─────▶ STEPPING ◀────▶ RESTING      a step is the business of the thread that has it, until it is over;
     │            │               │         everything else is the loop's
     └────────────┴───────┬───────┘
                          ▼
                      FINISHED ──▶ OVER
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum
from typing import Any, Final, Protocol

from ..errors import ClosedError, PacketDecodeError, again, as_broken, identity
from ..packets.codec import Decoder
from ..packets.receiving import ending, has_failed, is_in_the_middle, loss, undecoded
from .handlers import FunctionHandler, Handler

__all__ = ["Next", "State", "Steps", "TRANSITIONS"]

TURN: Final = 0.01
"""Seconds of a step on the loop, after the first packet, before all others have their turn. More than the interpreter's
switch interval: a thread that waits for the interpreter lock begins to count anew whenever it is let go of, and would
hardly ever get it."""
NO_HANDLER: Final[Handler] = FunctionHandler(lambda client, packet: None, "nobody")
"""That of those who have none any more."""
NO_HANDLER.finished = True


class State(Enum):
    NEW = "new"
    """It has not begun, and what is received waits: TLS is not established yet, or its first step has not begun."""
    RESTING = "resting"
    """It waits for a packet, for time, or for its client to catch up."""
    STEPPING = "stepping"
    """It is in a step, or about to be."""
    FINISHED = "finished"
    """It has come to its end."""
    OVER = "over"
    """And so has the connection, of which nobody is told any more."""


NEW, RESTING, STEPPING, FINISHED, OVER = State

TRANSITIONS: Final = {
    NEW: {RESTING, STEPPING, FINISHED},
    RESTING: {STEPPING, FINISHED},
    STEPPING: {STEPPING, RESTING, FINISHED},
    FINISHED: {FINISHED, OVER},
    OVER: set(),
}


class Next(Enum):
    """What there is to be done when something has changed."""

    NOTHING = "nothing"
    """Others see to it: a step that is under way, at its end."""
    STEP = "step"
    """Have a step."""
    CATCH_UP = "catch up"
    """The same, once the client has received more."""
    DECODE = "decode"
    """Take what was read ahead."""
    END = "end"
    """Tell the handler of the end, if it wants to know, and then let what was sent arrive."""
    LISTEN = "listen"
    """Receive."""


class Backlog(Protocol):
    """What waits to be sent to the client."""

    size: int

    @property
    def waits(self) -> bool:
        """Whether ``size`` is what waits for the client."""

    def lost(self) -> OSError | None:
        """What sending has failed with."""


class Client(Protocol):
    """Whose steps they are, in the thread that has the step."""

    def bad_packet(self) -> None:
        """The handler is about to hear of one."""

    def too_silent(self) -> None:
        """The handler has come to its end since there was no packet in time."""

    def failed(self, error: BaseException, *, expected: bool) -> None:
        """``error`` has left the handler; ``expected`` is what was raised in it by its own connection."""

    def decoder_failed(self, error: PacketDecodeError) -> None:
        """The decoder has raised what it should not have."""


class Nobody:
    """In the place of a client that is over, and is not to be kept alive."""

    def bad_packet(self) -> None:
        """Nobody counts."""

    too_silent = bad_packet

    def failed(self, error: BaseException, *, expected: bool) -> None:
        """Nobody is told."""

    def decoder_failed(self, error: PacketDecodeError) -> None:
        """Nobody is told."""


class Steps:
    """Those of one client. ``unread`` is what is received while nothing can be made of it, ``tasks`` who else waits for
    a worker; above ``mark`` bytes of ``backlog`` packets wait for the client, which costs no worker."""

    __slots__ = ("state", "closed", "upgrading", "late", "packets", "unread", "ending", "handler", "received", "driven",
                 "raised", "_decoder", "_client", "_backlog", "_mark", "_tasks")

    def __init__(self, decoder: Decoder[Any], client: Client, unread: list[bytes], backlog: Backlog, mark: int,
                 tasks: Collection[Any]) -> None:
        self.state = NEW
        self.closed = False
        """Whether the connection was closed by this side, or is over; any thread may say so."""
        self.upgrading = False
        """Whether what comes is not for the handler: it has asked for TLS."""
        self.late = False
        """Whether the time is up in which the handler wanted a packet."""
        self.packets: list[Any] = []
        """For the handler, the next one last."""
        self.unread = unread
        self.ending: Exception | None = None
        """What comes after all that was received."""
        self.handler: Handler = NO_HANDLER
        self.received = 0
        """How many packets the handler has been handed."""
        self.driven = False
        """Whether the last step has told the handler anything."""
        self.raised: object = None
        """The `identity` of what a call of the client's has raised last: the handler may have other connections."""
        self._decoder = decoder
        self._client: Client = client
        self._backlog = backlog
        self._mark = mark
        self._tasks = tasks

    # What there is

    @property
    def busy(self) -> bool:
        """Whether a step is under way, or none may be."""
        return self.state is STEPPING or self.state is NEW

    @property
    def behind(self) -> bool:
        """Whether more waits for the client than is to."""
        return self._backlog.size >= self._mark and self._backlog.waits

    @property
    def has_received(self) -> bool:
        """Whether there is something for another step, perhaps once the client has caught up."""
        return bool(self.packets) or bool(self.unread) and not self.upgrading

    @property
    def is_in_the_middle(self) -> bool:
        """Whether something has come that the handler has not had."""
        return bool(self.packets) or is_in_the_middle(self._decoder)

    @property
    def decoder_has_failed(self) -> bool:
        """Whether it has raised what it should not have, which has been told."""
        return has_failed(self._decoder)

    def next(self, *, finishing: bool) -> Next:
        """What is to be done; ``finishing``: the server reads nothing any more. On the loop."""
        if self.busy or self.state is OVER:
            return Next.NOTHING
        if self.closed:
            return Next.END
        if self.packets:  # left by a step that was ahead of the client
            return Next.CATCH_UP if self.behind else Next.STEP
        if self.unread and not self.upgrading:
            return Next.DECODE
        if self.ending is not None or finishing:
            return Next.END
        return Next.LISTEN

    # From one state to another, on the loop, but for the end of a step: see `netmsg.servers.step_runner`

    def _go(self, state: State) -> None:
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"a handler that is {self.state.value} cannot be {state.value}")
        self.state = state

    def rest(self) -> None:
        """Begin without a step."""
        self._go(RESTING)

    def finish(self) -> None:
        """The handler is not told anything any more."""
        self.handler.finished = True
        self.closed = True
        self._go(FINISHED)

    def end(self) -> None:
        """Nothing is left of the connection, to which the handler and the client refer: that is not to wait for a
        garbage collection."""
        self.state = OVER
        self.handler = NO_HANDLER
        self._client = Nobody()
        self.packets = []
        self.unread.clear()

    @property
    def wants_the_end(self) -> bool:
        """Whether the handler is to be told of it."""
        return self.handler.hears_errors and not self.handler.finished

    # Steps, by the thread that has them

    def run(self, clock: Callable[[], float] | None) -> bool:
        """Tell the handler one thing after the other, until there is nothing more for it. Whether it is to go on behind
        the others instead, one packet each, since there may always be another one: the loop reads meanwhile. A step on
        the loop, where it does not, has a ``clock``, and goes on behind all that there is to be done."""
        handler = self.handler
        tasks, unread, backlog, mark = self._tasks, self.unread, self._backlog, self._mark
        self.driven = False
        until = 0.0
        given: Any = None
        try:
            if self.state is NEW:
                self._begin()
            while not handler.finished:
                packets = self.packets
                if packets and not self.closed:
                    if backlog.size >= mark and backlog.waits:
                        break
                    given = packets.pop()
                    self.driven = True
                    self.late = False
                    if isinstance(given, PacketDecodeError):
                        self._client.bad_packet()
                        handler.error(given)
                    else:
                        self.received += 1
                        handler.packet(given)
                    if not packets and (not tasks or not unread):
                        continue
                    if clock is not None:
                        now = clock()
                        until = until or now + TURN
                        if now < until:
                            continue
                    elif not tasks:
                        continue
                    return True
                if self.closed:
                    given = ClosedError("the connection was closed")
                elif self._decoder._left:
                    self.decode(b"")
                    continue
                elif unread and not self.upgrading:
                    self.decode(unread.pop())
                    if tasks and unread and not self.packets:
                        return True  # who takes long to decode, and had no packet
                    continue
                elif self.ending is not None:
                    given = again(self.ending)
                elif self.late:
                    self.late = False
                    given = TimeoutError("no packet in time")
                else:
                    break
                self._tell(given)
        except BaseException as error:
            handler.finished = True
            self._client.failed(error, expected=error is given or identity(error) is self.raised)
        given = None
        return False

    def _begin(self) -> None:
        self.state = STEPPING  # first: the loop closes, and then looks whether it has begun
        if self.closed:
            self.handler.finished = True
        else:
            self.driven = True
            self.handler.begin()

    def _tell(self, error: Exception) -> None:
        """The handler: in the place of a packet."""
        self.driven = True
        is_late = isinstance(error, TimeoutError)
        try:
            self.handler.error(error)
        finally:
            del error  # or it would keep itself alive, by this frame
        if self.handler.finished and is_late:
            self._client.too_silent()

    def decode(self, chunk: bytes) -> None:
        """What was received becomes packets, or the end. In a step, or on the loop while there is none."""
        decoder = self._decoder
        if chunk or decoder._left:
            try:  # as in `netmsg.packets.receiving.decoded`, without a call: one a packet is worth it
                packets = decoder._feed_some(chunk)
            except BaseException as error:  # ``sys.exit()`` in a user's decoder is no more than a fault of that
                packets = [undecoded(decoder, chunk, error)]
            packets.reverse()
            self.packets = packets
            if decoder._lost is not None:
                self.ending = loss(decoder)
                if has_failed(decoder) and self.packets:
                    self._client.decoder_failed(self.packets[0])
            return
        failure = self._backlog.lost()
        if failure is None:
            self.ending = ending(decoder)
        else:  # of a reset that a send was told of receiving sees an end
            self.ending = as_broken(failure)
