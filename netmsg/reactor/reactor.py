"""The selector thread that does all network work of its users.

==================  =====================================================  ==========================================
thread              may                                                    never
==================  =====================================================  ==========================================
user's              put work into `Reactor.work`, `call`, `wake`           touch the selector or the timers
``netmsg-io-N``     everything else here                                   run user code, resolve names, block on
                                                                           anything but the selector
==================  =====================================================  ==========================================

How a user's thread and this one meet without a lock: the loop alone writes `asleep`. It sets it, looks at its queues
again, selects, and clears it. A producer puts its item into a queue first and looks at `asleep` second, at every item.
Whichever comes second sees the other, so no item waits for the next one; and a producer that an interrupt stops
between the two leaves nothing wrong behind.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import os
import select
import selectors
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from ..deadline import Deadline
from ..errors import ClosedError, ForkedError
from ..forking import forget_in_child
from ..interrupts import LIBRARY, in_main_thread, interrupts
from ..locks import new_lock
from ..speaking import say_soon

__all__ = ["Handler", "READ", "Reactor", "Timer", "User", "WRITE", "Worker", "on_a_loop"]

log = logging.getLogger("netmsg.reactor")

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE

EPOLLIN: Final = getattr(select, "EPOLLIN", 0)
EPOLLOUT: Final = getattr(select, "EPOLLOUT", 0)

PACE: Final = 0.001
"""Seconds between two looks at a worker whose producer is writing by itself."""

LONGEST: Final = 1e6
"""Seconds that can be waited for at a time: the system counts milliseconds in 32 bits."""

MOST_CANCELLED: Final = 1000
"""Timers that were cancelled and are kept until their time comes, if they are not more than the others."""

HANDSHAKE_STEPS: Final = 16
"""TLS handshake steps in one round: each costs some 2 ms, and the others wait."""

_numbers = itertools.count(1)


class Handler(Protocol):
    """What a descriptor's readiness is told to."""

    def _on_event(self, events: int) -> None:
        """Called with READ, WRITE or both."""

    def _crashed(self, error: Exception) -> None:
        """A method of this object raised on the loop: close what it stands for."""


class HasFileno(Protocol):
    """A socket, or an object that stands for one."""

    def fileno(self) -> int:
        """Its descriptor."""


class Worker(Protocol):
    """What may be put into `Reactor.work`."""

    def bursting(self) -> bool:
        """Whether its producer has been writing by itself since the last look: if so, look again in `PACE`."""

    def on_work(self) -> None:
        """Do what there is to do."""

    def _crashed(self, error: Exception) -> None:
        """See `Handler._crashed`."""


class User(Protocol):
    """A Søcket or a server that lives on a `Reactor`."""

    def _io_failed(self, cause: BaseException | None) -> None:
        """The thread ends (``None``: it was closed) and nothing of its user goes on. On the loop."""

    def _io_closing(self, deadline: Deadline) -> None:
        """`Reactor.close` was called: begin to close, and be done by ``deadline``. On the loop."""


class Timer:
    """One call at one time, until cancelled."""

    __slots__ = ("at", "function", "arguments", "_cancelled")

    def __init__(self, at: float, function: Callable[..., None], arguments: tuple[Any, ...],
                 cancelled: list[int]) -> None:
        self.at = at
        self._cancelled = cancelled
        self.function: Callable[..., None] | None = function
        self.arguments = arguments

    def cancel(self) -> None:
        if self.function is not None:
            self.function = None
            self.arguments = ()
            self._cancelled[0] += 1


class Reactor:
    """The thread (``netmsg-io-N``) behind an `IOThread`, or of one Søcket or server alone. It starts with its first
    user."""

    def __init__(self) -> None:
        self.work: set[Worker] = set()
        self.asleep = False
        self.handshake_steps = 0
        self.now = time.monotonic()
        """When the current round began."""
        self.notices: list[Callable[[], None]] = []
        """Wake-ups of waiting threads, kept until this thread is about to sleep: woken any earlier they would only
        wait for the interpreter lock, and be woken a second time."""
        self._polling = False
        self._paced = False
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._timer_numbers = itertools.count()
        self._cancelled = [0]  # how many of them are
        self._afterwards: deque[Callable[[], None]] = deque()
        self._graves: list[Callable[[], None]] = []
        self._users: set[User] = set()
        self._lock = new_lock()  # guards the start, `_users` and `_closed`; a leaf, never held while waiting
        self._selector: Any = None
        self._epoll: Any = None
        self._wake_receiver: Any = None
        self._wake_sender: Any = None
        self._handlers: dict[int, tuple[Handler | None, int]] = {}
        self._thread: threading.Thread | None = None
        self.ident: int | None = None
        """The thread's."""
        self._closed = False
        self._private = False
        self._forked = False
        self.number = next(_numbers)
        _all_threads.add(self)

    @classmethod
    def private(cls) -> Reactor:
        """One that ends with its only user."""
        io = cls()
        io._private = True
        return io

    # From any thread

    @property
    def closed(self) -> bool:
        return self._closed

    def attach(self, user: User) -> None:
        """Take on a user, and start the thread with the first. Raises `ClosedError`, `ForkedError`."""
        if self._forked:
            raise ForkedError("this IOThread belongs to the parent process")
        with self._lock:
            if self._closed:
                raise ClosedError("the IOThread is closed")
            if self._thread is None:
                try:
                    self._open()
                    thread = threading.Thread(target=self._run, name=f"netmsg-io-{self.number}", daemon=True)
                    thread.start()
                except BaseException:
                    self._release()
                    raise
                self._thread = thread
            self._users.add(user)
            if self._closed:  # meanwhile: `close` takes no lock
                self._users.discard(user)
                self._send_wake_up()
                raise ClosedError("the IOThread is closed")

    def _open(self) -> None:
        self._selector = selectors.DefaultSelector()
        if hasattr(select, "epoll") and isinstance(self._selector, selectors.EpollSelector):
            # The same epoll through a descriptor of its own: what the selector does for each event takes as long as
            # many handlers.
            self._epoll = select.epoll.fromfd(os.dup(self._selector.fileno()))
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
        self._selector.register(self._wake_receiver, READ, None)
        self._handlers[self._wake_receiver.fileno()] = None, READ

    def detach(self, user: User) -> None:
        """Let a user go; a private thread ends with it. On the loop."""
        with self._lock:
            self._users.discard(user)
            if self._private and not self._users:
                self._closed = True

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Have the loop call ``function(*arguments)`` soon. Takes no lock: safe in a signal handler."""
        self._calls.append((function, arguments))
        if self._polling:
            self._send_wake_up()

    def wake(self) -> None:
        """Have the loop look at `work`, to which something has just been added."""
        if self.asleep:
            self._send_wake_up()

    def _send_wake_up(self) -> None:
        try:
            self._wake_sender.send(b"\0")
        except BlockingIOError:
            pass  # it has more wake-ups than it can read already
        except OSError:
            pass  # it has ended

    @property
    def is_current(self) -> bool:
        """Whether the caller is this thread."""
        return threading.get_ident() == self.ident

    def close(self, *, timeout: float | None = 5.0) -> None:
        """Close every user, giving them ``timeout`` seconds together, and end the thread. Idempotent.

        From a network thread it only begins to, and from a signal handler that has come in the middle of a call.
        """
        deadline = Deadline(timeout)
        if self._forked:
            return
        self._closed = True  # without the lock, which a signal handler may have interrupted in `attach`
        thread = self._thread
        if thread is None:
            return
        self.call(self._close_users, deadline)
        if not on_a_loop() and not (in_main_thread() and interrupts(LIBRARY)):
            remaining = deadline.remaining()
            thread.join(None if remaining is None else remaining + 1.0)

    def join(self, timeout: float | None) -> None:
        """Wait until the thread has ended, if it is to."""
        thread = self._thread
        if thread is not None and self._closed and not on_a_loop():
            thread.join(timeout)

    # On the loop

    def watch(self, sock: HasFileno, events: int, handler: Handler) -> None:
        """Tell ``handler`` of these events of ``sock`` from now on; 0 for none.

        A mask of 0 is never left registered: epoll reports errors and hang-ups regardless, and would spin.
        """
        known = sock in self._selector.get_map()
        if events:
            key = self._selector.modify(sock, events, handler) if known \
                else self._selector.register(sock, events, handler)
            self._handlers[key.fd] = handler, events
        elif known:
            del self._handlers[self._selector.unregister(sock).fd]

    def afterwards(self, function: Callable[[], None]) -> None:
        """Call ``function`` when all events of this round have been told."""
        self._afterwards.append(function)

    def bury(self, close: Callable[[], None]) -> None:
        """Call ``close`` once this round's events are dealt with, so that none of them meets a reused descriptor."""
        self._graves.append(close)

    def call_later(self, delay: float, function: Callable[..., None], *arguments: Any) -> Timer:
        timer = Timer(time.monotonic() + delay, function, arguments, self._cancelled)
        timers = self._timers
        if timer.at < math.inf:
            heapq.heappush(timers, (timer.at, next(self._timer_numbers), timer))
        if self._cancelled[0] > max(MOST_CANCELLED, len(timers) // 2):
            timers[:] = [entry for entry in timers if entry[2].function is not None]
            heapq.heapify(timers)
            self._cancelled[0] = 0
        return timer

    def _close_users(self, deadline: Deadline) -> None:
        for user in tuple(self._users):
            try:
                user._io_closing(deadline)
            except Exception as error:  # the others are to close as well
                say_soon(log, logging.ERROR, "closing a user of the network thread failed", exc_info=error)
                user._io_failed(error)
        remaining = deadline.remaining()
        if remaining is not None and self._users:
            self.call_later(remaining, self._abandon_users)

    def _abandon_users(self) -> None:
        for user in tuple(self._users):
            user._io_failed(None)

    def _run(self) -> None:
        # Allocating and freeing 16 MiB once raises glibc's mmap threshold: otherwise every read of 256 KiB maps and
        # unmaps its buffer, at five times the cost of the read.
        bytearray(16 << 20)
        self.ident = threading.get_ident()
        _loops.add(self.ident)
        try:
            while not (self._closed and not self._users and not self._calls):
                self._round()
        except BaseException as error:
            say_soon(log, logging.ERROR, "the network thread failed", exc_info=error)
            with self._lock:
                self._closed = True
            for user in tuple(self._users):
                user._io_failed(error)
        finally:
            self._dig()
            self._release()
            _loops.discard(self.ident)
            self.ident = None

    def _round(self) -> None:
        if self.notices:
            for notify in self.notices:
                notify()
            self.notices.clear()
        self._polling = True
        timeout: float | None
        if self.work:
            timeout = PACE if self._paced else 0.0
        else:
            self.asleep = True
            timeout = None if not self._timers else min(max(0.0, self._timers[0][0] - time.monotonic()), LONGEST)
        if self._calls or (self.asleep and self.work):
            timeout = 0.0
        ready = self._poll(timeout)
        self.asleep = self._polling = False
        self.now = time.monotonic()
        self.handshake_steps = HANDSHAKE_STEPS
        if self._calls:
            self._make_calls()  # first: what the network brings now may be the answer to what they say
        for handler, events in ready:
            if handler is None:
                self._drain_wake_ups()
                continue
            try:
                handler._on_event(events)
            except Exception as error:
                self._crash(handler, error)
        if self._timers and self._timers[0][0] <= self.now:
            self._run_timers()
        if self.work:
            self._do_work()
        while self._afterwards:
            function = self._afterwards.popleft()
            try:
                function()
            except Exception as error:
                self._crash(getattr(function, "__self__", None), error)
        if self._graves:
            self._dig()

    def _poll(self, timeout: float | None) -> list[tuple[Handler | None, int]]:
        """Who is to be told of which events."""
        if self._epoll is None:
            return [(key.data, events) for key, events in self._selector.select(timeout)]
        handlers = self._handlers
        if timeout is not None:
            timeout = math.ceil(timeout * 1e3) * 1e-3  # or it would look again and again in the last millisecond
        ready = []
        for descriptor, happened in self._epoll.poll(timeout):
            handler, wanted = handlers[descriptor]
            # Errors and hang-ups are told of as whatever was asked for.
            ready.append((handler, (READ if happened & ~EPOLLOUT else 0) & wanted
                          | (WRITE if happened & ~EPOLLIN else 0) & wanted))
        return ready

    def _make_calls(self) -> None:
        calls = self._calls
        for _ in range(len(calls)):
            function, arguments = calls.popleft()
            try:
                function(*arguments)
            except Exception as error:
                self._crash(getattr(function, "__self__", None), error)

    def _do_work(self) -> None:
        paced = False
        for worker in tuple(self.work):
            try:
                if worker.bursting():
                    paced = True
                    continue
                self.work.discard(worker)  # before the look, so that what is added during it brings it back
                worker.on_work()
            except Exception as error:
                self.work.discard(worker)
                self._crash(worker, error)
        self._paced = paced

    def _run_timers(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= self.now:
            timer = heapq.heappop(timers)[2]
            function, arguments = timer.function, timer.arguments
            if function is None:
                self._cancelled[0] -= 1
                continue
            timer.function = None  # it is too late to cancel it
            try:
                function(*arguments)
            except Exception as error:
                self._crash(getattr(function, "__self__", None), error)

    def _dig(self) -> None:
        graves, self._graves = self._graves, []
        for close in graves:
            try:
                close()
            except OSError as error:
                say_soon(log, logging.WARNING, "closing a descriptor failed: %s", error)

    def _crash(self, owner: Any, error: Exception) -> None:
        say_soon(log, logging.ERROR, "a step of the network thread failed; closing what it belonged to", exc_info=error)
        crashed = getattr(owner, "_crashed", None)
        if crashed is None:
            raise error
        crashed(error)

    def _drain_wake_ups(self) -> None:
        try:
            self._wake_receiver.recv(4096)
        except BlockingIOError:
            pass

    def _release(self) -> None:
        for resource in (self._epoll, self._selector, self._wake_receiver, self._wake_sender):
            if resource is not None:
                resource.close()
        self._handlers.clear()
        self._timers.clear()  # they keep alive what they were for

    def forked(self) -> None:
        """In a forked child: the parent's thread goes on with the parent's descriptors, of which nothing is touched.

        Unregistering from the shared epoll would unregister the parent's; a wake-up would wake the parent.
        """
        self._forked = True
        self._closed = True
        self._polling = self.asleep = False  # nobody is to be woken
        self._calls.clear()


def on_a_loop() -> bool:
    """Whether the caller is the thread of any reactor: it has others to see to, and is not to wait for anything."""
    return threading.get_ident() in _loops


_loops: set[int] = set()
_all_threads: weakref.WeakSet[Reactor] = weakref.WeakSet()


@forget_in_child
def _after_fork_in_child() -> None:
    _loops.clear()
    for io in tuple(_all_threads):
        io.forked()
