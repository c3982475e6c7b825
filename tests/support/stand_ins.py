"""What the parts of a Søcket stand on, for tests of one part alone: a loop driven by hand, a clock that stands still, a
socket whose every answer is scripted, and waiting that is over at once."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from netmsg.deadline import Deadline
from netmsg.messaging.choices import AckMode, DeliveryGuarantee, OnDuplicate, OnFull, SendMode
from netmsg.messaging.settings import Settings
from netmsg.reactor.polling import READ, WRITE

from .loops import by_hand
from .machines import HandMachine

SETTINGS = Settings(
    send_mode=SendMode.ROUNDROBIN, delivery_guarantee=DeliveryGuarantee.AT_MOST_ONCE, reconnection_delay=None,
    send_hwm=10, send_hwm_bytes=1 << 20, recv_hwm=1000, recv_hwm_bytes=1 << 20, on_full=OnFull.BLOCK,
    max_message_size=1 << 20, max_connections=100, heartbeat_interval=5.0, heartbeat_timeout=15.0,
    handshake_timeout=10.0, ack_mode=AckMode.ON_RECV, resend_after=5.0, max_resends=None, max_unacked=None,
    dedupe=100, on_duplicate=OnDuplicate.PROBE, authorize=None, linger=5.0)


def settings(**changes: Any) -> Settings:
    return SETTINGS._replace(**changes)


class Loop:
    """A reactor driven by hand."""

    def __init__(self) -> None:
        self.io, self.poller, self.clock = by_hand()
        self.machine = cast(HandMachine, self.io.machine)

    def settle(self) -> None:
        """Do all that there is to do, while no time passes."""
        io = self.io
        for _ in range(1000):
            if not (io.calls or io.work or io.last_calls or io.to_close or io.notices):
                return
            self.turn()
        raise AssertionError("it never comes to rest")

    def turn(self) -> None:
        """One round, which waits for nothing."""
        self.io.call(nothing)
        self.io.round()

    def pass_time(self, seconds: float) -> None:
        """Let the clock go on, and do what falls due on the way."""
        until = self.clock.now + seconds
        self.settle()
        while self.io.timers and self.io.timers[0][0] <= until:
            self.io.round()
            self.settle()
        self.clock.now = until

    def happens(self, sock: ScriptedSocket, events: int) -> None:
        """Something happens to a socket; and all that comes of it."""
        self.poller.happens(sock, events)
        self.turn()
        self.settle()

    def watched(self, sock: ScriptedSocket) -> int:
        """What it is watched for."""
        events: int = self.poller.watched.get(sock, (None, 0))[1]
        return events

    @property
    def delays(self) -> list[float]:
        """Seconds until each of the timers that are set."""
        now = self.clock.now
        return sorted(round(timer.at - now, 6) for _, _, timer in self.io.timers if timer.function is not None)


def nothing() -> None:
    pass


class ScriptedSocket:
    """A connected non-blocking socket of which the test decides what comes, and how much goes."""

    def __init__(self, family: socket.AddressFamily = socket.AF_UNIX) -> None:
        self.family = family
        self.coming: deque[bytes | OSError] = deque()
        """What `recv` is to return or to raise; the end, ``b""``, stays."""
        self.sent = b""
        self.room = 1 << 62
        """Bytes that it takes yet."""
        self.broken: OSError | None = None
        """What sending raises."""
        self.hung_up = False
        self.acknowledging = True
        """These two a `HandMachine` tells of it."""
        self.options: list[tuple[int, ...]] = []
        self.half_closed = False
        self.closed = False

    def recv(self, size: int) -> bytes:
        if not self.coming:
            raise BlockingIOError
        chunk = self.coming[0]
        if isinstance(chunk, OSError):
            raise self.coming.popleft()  # type: ignore[misc]
        if len(chunk) > size:
            self.coming[0] = chunk[size:]
            return chunk[:size]
        if chunk:
            self.coming.popleft()
        return chunk

    recv_into = None

    def send(self, buffer: bytes | memoryview) -> int:
        return self.sendmsg([buffer])

    def sendmsg(self, buffers: list[bytes | memoryview]) -> int:
        assert not self.half_closed and not self.closed
        if self.broken is not None:
            raise self.broken
        if not self.room:
            raise BlockingIOError
        taken = b"".join(buffers)[:self.room]
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def take_sent(self) -> bytes:
        """What has been sent since the last look."""
        sent, self.sent = self.sent, b""
        return sent

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        if self.broken is not None:
            raise self.broken
        self.half_closed = True

    def setsockopt(self, *option: int) -> None:
        if self.broken is not None:
            raise self.broken
        self.options.append(option)

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 7000

    def getpeername(self) -> tuple[str, int]:
        if self.broken is not None:
            raise self.broken
        return "192.0.2.1", 7001

    def fileno(self) -> int:
        return -1 if self.closed else 7

    def close(self) -> None:
        self.closed = True


class HandWaiters:
    """`Waiters` on which nobody ever waits: instead `meanwhile` happens, once, and if that does not do, time is up.

    Whoever's condition has come true without their being woken would have slept on, and fails.
    """

    meanwhile: Callable[[], None] = staticmethod(nothing)
    in_vain = 0
    """How often time was up, of all of them."""

    def __init__(self) -> None:
        self.waiting: deque[object] = deque()
        self.woken = 0

    def wait(self, ready: Callable[[], object], deadline: Deadline, special: object = None) -> bool:
        if ready():
            return True
        before = self.woken
        self.waiting.append(deadline)
        try:
            happen, HandWaiters.meanwhile = HandWaiters.meanwhile, staticmethod(nothing)
            happen()
            assert not ready() or self.woken > before, "nobody wakes who waits for this"
            HandWaiters.in_vain += not ready()
            return bool(ready())
        finally:
            self.waiting.pop()

    def notify(self) -> None:
        self.woken += 1

    notify_all = notify


def events_of(events: int) -> str:
    """In words."""
    return {0: "", READ: "read", WRITE: "write", READ | WRITE: "both"}[events]
