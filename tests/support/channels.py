"""The network thread's loop without a thread, a selector and a clock that goes by itself; and the ends of connections
for it."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from netmsg.reactor.reactor import READ, WRITE, Timer

from .machines import HandMachine

__all__ = ["READ", "WRITE", "Loop", "Outlet", "Script", "Socket", "User", "as_any"]


def as_any(fake: object) -> Any:
    """For who expects the real thing."""
    return fake


class Loop:
    """In the place of a `Reactor`, and of the module ``time``."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.clock = self.monotonic
        self.machine = HandMachine(self.clock)
        self.watched: dict[Any, tuple[int, Any]] = {}
        self.calls: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self.to_close: list[Callable[[], None]] = []
        self.loop = self
        self.handshake_steps = 1000
        self.is_current = True
        self.ident = threading.get_ident()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def monotonic(self) -> float:
        return self.now

    # What a reactor does

    def watch(self, sock: Any, events: int, handler: Any) -> None:
        if events:
            self.watched[sock] = events, handler
        else:
            self.watched.pop(sock, None)

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.calls.append((function, arguments))

    def call_later(self, delay: float, function: Callable[..., Any], *arguments: Any) -> Timer:
        timer = Timer(self.now + delay, function, arguments, [0])
        heapq.heappush(self._timers, (timer.at, next(self._numbers), timer))
        return timer

    def close_afterwards(self, close: Callable[[], None]) -> None:
        self.to_close.append(close)

    # What the test lets happen

    def events(self, sock: Any) -> int:
        return self.watched.get(sock, (0, None))[0]

    def tell(self, sock: Any, events: int) -> bool:
        """Have the selector tell of what is watched of ``events``. Whether that was any."""
        wanted, handler = self.watched.get(sock, (0, None))
        if wanted & events:
            handler._on_event(wanted & events)
        self.run()
        return bool(wanted & events)

    def run(self) -> None:
        """Make all calls, and what they bring about, and then close what was to be closed."""
        while self.calls:
            function, arguments = self.calls.popleft()
            function(*arguments)
        while self.to_close:
            self.to_close.pop(0)()

    @property
    def pending(self) -> list[float]:
        """In how many seconds a timer fires."""
        return sorted(at - self.now for at, _, timer in self._timers if timer.function is not None)

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            at, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, at)
            function, arguments = timer.function, timer.arguments
            timer.function = None
            if function is not None:
                function(*arguments)
                self.run()
        self.now = until


class Socket:
    """One that a `Script` goes through."""

    family = -1
    """Of no kind that has options."""

    def __init__(self, script: Script | None = None) -> None:
        self.closed = False
        self.recv_into = None
        if script is not None:
            self.recv = script.receive
            self.send = self.sendmsg = script.send_one
            self.shutdown = lambda how: script.end_sending()

    def fileno(self) -> int:
        return -1 if self.closed else 7

    def getsockname(self) -> str:
        return "here"

    def close(self) -> None:
        self.closed = True


class Script:
    """A transport that receives what it is told to, and takes what it is told to. ``incoming``: bytes, ``b""`` for the
    end, errors; behind them it would block. ``room``: how many bytes it takes before it blocks; ``None`` for all."""

    calls_back = False
    answered = False
    receive_into: Callable[[memoryview], int] | None = None
    finishing = stalled = begun = False

    def __init__(self, *incoming: bytes | OSError, room: int | None = None, handshake: list[Any] | None = None) -> None:
        self.incoming: deque[bytes | OSError] = deque(incoming)
        self.room = room
        self.sent = b""
        self.ended = False
        self.broken: OSError | None = None
        """What sending fails with."""
        self.readable = False
        self.unsent = False
        self.tls: Any = None
        self.steps = handshake or []
        """What each step of the handshake raises, or ``None`` for its end."""
        self.handshaking = bool(self.steps)
        self.sizes: list[int] = []
        """What was asked for."""

    def report(self, counts: list[int], /) -> None:
        """There are none."""

    def handshake(self) -> None:
        step = self.steps.pop(0)
        if step is not None:
            raise step
        self.handshaking = False

    def receive(self, max_bytes: int, /) -> bytes:
        self.sizes.append(max_bytes)
        if not self.incoming:
            raise BlockingIOError
        chunk = self.incoming.popleft()
        if isinstance(chunk, OSError):
            raise chunk
        if len(chunk) > max_bytes:
            self.incoming.appendleft(chunk[max_bytes:])
        return chunk[:max_bytes]

    def send_one(self, buffer: Any, /) -> int:
        if self.broken is not None:
            raise self.broken
        size = len(buffer) if self.room is None else min(self.room, len(buffer))
        if not size:
            raise BlockingIOError
        if self.room is not None:
            self.room -= size
        self.sent += bytes(buffer[:size])
        return size

    def send_many(self, buffers: list[Any], /) -> int:
        return self.send_one(b"".join(buffers))

    def feed(self, data: bytes) -> None:
        self.incoming.append(data)

    def flush(self) -> None:
        if self.broken is not None:
            raise self.broken
        self.unsent = False

    def end_sending(self) -> None:
        if self.broken is not None:
            raise self.broken
        self.ended = True


class Outlet:
    """What is to be sent: nothing."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.blocked = False
        self.failure: OSError | None = None
        self.left = False
        """Whether something is left when the socket is closed."""

    def drop(self) -> bool:
        assert self.lock.locked()
        return self.left


class User:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.again: Callable[[], bool | None] = lambda: None
        """What `received` returns."""

    def shaken(self, error: OSError | None) -> None:
        self.told.append(("shaken", error))

    def received(self, chunk: bytes) -> bool | None:
        self.told.append(chunk)
        return self.again()

    def nothing_came(self) -> None:
        self.told.append("nothing")

    def ended(self, error: OSError | None) -> None:
        self.told.append(("ended", error))

    def has_room(self) -> None:
        self.told.append("room")

    def left(self, *, given_up: bool) -> None:
        self.told.append(("left", given_up))

    def _crashed(self, error: Exception) -> None:
        self.told.append(("crashed", error))
