"""A link and a transport that do what they are told to, one thing after the other: for the parts of a stream, without
sockets, threads and waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Union

from netmsg import TLSInfo
from netmsg.deadline import Deadline
from netmsg.streams.inside import Inside
from netmsg.transports.plain import Buffer, Transport
from netmsg.waiting import Ticket

SOME_TLS: TLSInfo = tuple.__new__(TLSInfo, (None,) * 6)
"""For a transport that says it is one under TLS."""

Happening = Union[int, BaseException, Callable[[], int]]
"""What a wait comes to: the events that are possible now, an error, or what a function says."""


def after(call: Callable[..., object], *arguments: object, events: int = 0) -> Callable[[], int]:
    """As a `Happening`: ``call(*arguments)``, by another thread or a signal handler, and then ``events`` are
    possible."""
    def happen() -> int:
        call(*arguments)
        return events

    return happen


class ScriptedTransport:
    """Receives what is in ``incoming``, and nothing behind it; takes as much at a time as ``room`` says, and everything
    behind that."""

    def __init__(self) -> None:
        self.handshaking = False
        self.answered = False
        self.calls_back = False
        self.tls: TLSInfo | None = None
        self.readable = False
        self.unsent = False
        self.finishing = False
        self.stalled = False
        self.begun = False
        self.unreported: list[int] = []
        self.receive_into: Callable[[memoryview], int] | None = None
        self.incoming: deque[bytes | BaseException] = deque()
        self.room: deque[int | BaseException] = deque()
        self.shakes: deque[BaseException | None] = deque()
        self.flushes: deque[BaseException | None] = deque()
        self.ends: deque[BaseException | None] = deque()
        self.sent: list[bytes] = []
        self.has_ended = False

    def handshake(self) -> None:
        _do(self.shakes)
        self.handshaking = False

    def receive(self, max_bytes: int, /) -> bytes:
        if not self.incoming:
            raise BlockingIOError
        piece = self.incoming.popleft()
        if isinstance(piece, BaseException):
            raise piece
        if len(piece) > max_bytes:
            self.incoming.appendleft(piece[max_bytes:])
        return piece[:max_bytes]

    def send_one(self, buffer: Buffer, /) -> int:
        size = self.room.popleft() if self.room else len(buffer)
        if isinstance(size, BaseException):
            raise size
        piece = bytes(memoryview(buffer)[:size])
        self.sent.append(piece)
        return len(piece)

    def send_many(self, buffers: list[Buffer], /) -> int:
        return self.send_one(buffers[0])

    def report(self, counts: list[int], /) -> None:
        counts += self.unreported
        self.unreported = []

    def flush(self) -> None:
        _do(self.flushes)
        self.unsent = False

    def end_sending(self) -> None:
        _do(self.ends)
        self.has_ended = True


def _do(steps: deque[BaseException | None]) -> None:
    step = steps.popleft() if steps else None
    if step is not None:
        raise step


class ScriptedLink:
    """Waits come to what is in ``happenings``; one that nothing is there for is over at once, if it has a deadline that
    has expired, and is no part of the script otherwise."""

    def __init__(self) -> None:
        self.script = ScriptedTransport()
        self.transport: Transport = self.script
        self.moved = False
        self.blocked: Callable[[], AbstractContextManager[object]] = nullcontext
        self.happenings: deque[Happening] = deque()
        self.over = False
        self.waits: list[int] = []
        """For which events has been waited."""
        self.unless: Collection[object] = ()
        """What the last wait was to look at."""
        self.calls: list[str] = []
        """What else has been asked for."""

    def wait(self, events: int, deadline: Deadline, unless: Collection[object] = ()) -> int:
        self.waits.append(events)
        self.unless = unless
        return self._wait(deadline, unless)

    def _wait(self, deadline: Deadline, unless: Collection[object] = ()) -> int:
        if unless:
            return 0
        if not self.happenings:
            assert deadline.expired, "it waits for what does not happen"
            raise TimeoutError("timed out")
        happening = self.happenings.popleft()
        if isinstance(happening, BaseException):
            raise happening
        return happening() if callable(happening) else happening

    def wait_for_file(self, descriptor: int, events: int, deadline: Deadline) -> bool:
        return bool(self.wait(events, deadline))

    def wait_by(self, ticket: Ticket, deadline: Deadline) -> bool:
        assert deadline.expired, "it waits for another call, and there is none"
        return False

    def linger(self, events: int, deadline: Deadline) -> None:
        self.waits.append(events)
        self._wait(deadline)

    def settled(self) -> bool:
        self.calls.append("settled")
        return True

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name not in ("wake", "look_again", "hurry", "go_under_tls", "close", "reset", "forked"):
            raise AttributeError(name)
        return lambda: self.calls.append(name)


def scripted() -> tuple[Inside, ScriptedLink, ScriptedTransport]:
    """The parts of a stream, and what they stand on."""
    link: Any = ScriptedLink()
    return Inside(link), link, link.script
