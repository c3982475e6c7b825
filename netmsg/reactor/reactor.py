"""The selector thread that does all network work of its users.

===============================================  ======================  =============================================
of a `Reactor`, and of any `Scope` on it         may be called by        and waits
===============================================  ======================  =============================================
`call`, `wake`; adding to `work`, looking at it  any thread, in signal   never, and takes no lock
and at `asleep`; `closed`, `is_current`          handlers too
`scope`                                          any thread              never
`attach`                                         any thread; the main    for the thread to begin
                                                 one by `netmsg.aside`
`close`                                          any thread, in signal   for the users and the thread; on a network
                                                 handlers too            thread, and in the middle of a call, never
`join`                                           any thread              for the thread; on a network thread never
`watch`, `call_later`, `Timer.cancel`, `now`,    ``netmsg-io-N`` alone:  never
`afterwards`, `close_afterwards`, `detach`,      "on the loop"
`before_sleep`, `handshake_steps`; taking from
`work`
`forked`                                         that of a forked child  never
===============================================  ======================  =============================================

On ``netmsg-io-N`` nothing runs that waits for anything but the selector: no name resolution, no log, and no code of
users but handlers that were asked to run there.

How a user's thread and this one meet without a lock: the loop alone writes `asleep`. It sets it, looks at its queues
again, selects, and clears it. A producer puts its item into a queue first and looks at `asleep` second, at every item.
Whichever comes second sees the other, so no item waits for the next one; and a producer that an interrupt stops
between the two leaves nothing wrong behind.

Whom a step belongs to: what was asked for in a `Scope` belongs to that, and an exception in it closes that one thing.
What was asked of the reactor itself belongs to the object that it is, or whose method it is, and whose ``_crashed`` is
called. What belongs to nobody ends the thread, and fails all of its users.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import weakref
from typing import Any, Final, Protocol

from ..deadline import Deadline
from ..errors import ClosedError, ForkedError
from ..forking import forget_in_child
from ..interrupts import LIBRARY, in_main_thread, interrupts
from ..locks import new_lock
from ..speaking import say_soon
from .machine import MACHINE, Joinable, Machine
from .polling import READ, WRITE
from .scopes import Agenda, Scope, Timer, Watcher, Worker, crash_of

__all__ = ["READ", "Reactor", "Scope", "Timer", "User", "WRITE", "Watcher", "Worker", "on_a_loop"]

log = logging.getLogger("netmsg.reactor")

PACE: Final = 0.001
"""Seconds between two looks at a worker whose producer is writing by itself."""

LONGEST: Final = 1e6
"""Seconds that can be waited for at a time: the system counts milliseconds in 32 bits."""

HANDSHAKE_STEPS: Final = 16
"""TLS handshake steps in one round: each costs some 2 ms, and the others wait."""

_numbers = itertools.count(1)


class User(Protocol):
    """A Søcket or a server that lives on a `Reactor`."""

    def _io_failed(self, cause: BaseException | None) -> None:
        """The thread ends (``None``: it was closed) and nothing of its user goes on. On the loop."""

    def _io_closing(self, deadline: Deadline) -> None:
        """`Reactor.close` was called: begin to close, and be done by ``deadline``. On the loop."""


class Reactor(Agenda):
    """The thread (``netmsg-io-N``) behind an `IOThread`, or of one Søcket or server alone. It starts with its first
    user. Tests drive one by hand, without a thread: `open`, `round`, on a machine of their own."""

    def __init__(self, machine: Machine = MACHINE) -> None:
        super().__init__(machine)
        self._opened = False
        self._paced = False
        self._users: dict[User, None] = {}
        self._lock = new_lock()  # guards the start, `_users` and `_closed`; a leaf, never held while waiting
        self._thread: Joinable | None = None
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
                    self.open()
                    thread = self.machine.start_thread(self._run, f"netmsg-io-{self.number}")
                except BaseException:
                    self._release()
                    raise
                self._thread = thread
            self._users[user] = None
            if self._closed:  # meanwhile: `close` takes no lock
                self._users.pop(user, None)
                self.send_wake_up()
                raise ClosedError("the IOThread is closed")

    def open(self) -> None:
        """Have what a `round` needs."""
        self.poller = self.machine.new_poller()
        self.send_wake_up = self.poller.wake
        self._opened = True

    def detach(self, user: User) -> None:
        """Let a user go; a private thread ends with it. On the loop."""
        with self._lock:
            self._users.pop(user, None)
            if self._private and not self._users:
                self._closed = True

    def wake(self) -> None:
        """Have the loop look at `work`, to which something has just been added."""
        if self.asleep:
            self.send_wake_up()

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

    def _close_users(self, deadline: Deadline) -> None:
        for user in tuple(self._users):
            try:
                user._io_closing(deadline)
            except Exception as error:  # the others are to close as well
                say_soon(log, logging.ERROR, "closing a user of the network thread failed", exc_info=error)
                self._give_up(user, error)
        remaining = deadline.remaining()
        if remaining is not None and self._users:
            self.call_later(remaining, self._give_all_up, None)

    def _give_all_up(self, cause: BaseException | None) -> None:
        for user in tuple(self._users):
            self._give_up(user, cause)

    def _give_up(self, user: User, cause: BaseException | None) -> None:
        try:
            user._io_failed(cause)
        except Exception as error:  # the others are to hear of it as well
            say_soon(log, logging.ERROR, "ending a user of the network thread failed", exc_info=error)
            with self._lock:
                self._users.pop(user, None)

    def _run(self) -> None:
        # Allocating and freeing 16 MiB once raises glibc's mmap threshold: otherwise every read of 256 KiB maps and
        # unmaps its buffer, at five times the cost of the read.
        bytearray(16 << 20)
        self.ident = threading.get_ident()
        _loops.add(self.ident)
        try:
            while not self.is_over:
                self.round()
        except BaseException as error:
            say_soon(log, logging.ERROR, "the network thread failed", exc_info=error)
            with self._lock:
                self._closed = True
            self._give_all_up(error)
        finally:
            try:
                self.end()
            finally:
                _loops.discard(self.ident)
                self.ident = None

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to do, ever."""
        return self._closed and not self._users and not self.calls

    def round(self) -> None:
        """Wait for something to do, and do what there is."""
        self.go_on(self.poller.poll(self.settle()))

    def settle(self) -> float | None:
        """Before waiting: how many seconds to wait at most, ``None`` for ever. From here on others wake this thread
        if there is something to do."""
        if self.notices:
            for notify in self.notices:
                try:
                    notify()
                except Exception as error:
                    self._crash(self, notify, error)
            self.notices.clear()
        self.polling = True
        timeout: float | None
        if self.work:
            timeout = PACE if self._paced else 0.0
        else:
            self.asleep = True
            timeout = None if not self.timers else min(max(0.0, self.timers[0][0] - self.clock()), LONGEST)
        if self.calls or (self.asleep and self.work):
            timeout = 0.0
        return timeout

    def go_on(self, ready: list[tuple[Any, int]]) -> None:
        """After waiting: do what there is."""
        self.asleep = self.polling = False
        self.now = self.clock()
        self.handshake_steps = HANDSHAKE_STEPS
        if self.calls:
            self._make_calls()  # first: what the network brings now may be the answer to what they say
        for what, events in ready:
            if what is None:
                self.poller.forget_wake_ups()
                continue
            watcher, scope = what
            try:
                watcher._on_event(events)
            except Exception as error:
                self._crash(scope, watcher, error)
        if self.timers and self.timers[0][0] <= self.now:
            self._run_timers()
        if self.work:
            self._do_work()
        while self.last_calls:
            function, scope = self.last_calls.popleft()
            try:
                function()
            except Exception as error:
                self._crash(scope, function, error)
        if self.to_close:
            self._close_what_is_over()

    def _make_calls(self) -> None:
        calls = self.calls
        for _ in range(len(calls)):
            function, arguments, scope = calls.popleft()
            try:
                function(*arguments)
            except Exception as error:
                self._crash(scope, function, error)

    def _do_work(self) -> None:
        paced = False
        for worker in tuple(self.work):
            try:
                if worker.bursting():
                    paced = True
                    continue
                self.work.pop(worker, None)  # before the look, so that what is added during it brings it back
                worker.on_work()
            except Exception as error:
                self.work.pop(worker, None)
                self._crash(self, worker, error)
        self._paced = paced

    def _run_timers(self) -> None:
        timers = self.timers
        while timers and timers[0][0] <= self.now:
            timer = heapq.heappop(timers)[2]
            function, arguments, scope = timer.function, timer.arguments, timer.scope
            if function is None:
                self.cancelled[0] -= 1
                continue
            timer.is_over()  # too late to cancel it; and whoever keeps it is not to keep what it was about
            try:
                function(*arguments)
            except Exception as error:
                self._crash(scope or self, function, error)

    def _close_what_is_over(self) -> None:
        to_close, self.to_close = self.to_close, []
        for close, scope in to_close:
            try:
                close()
            except OSError as error:
                say_soon(log, logging.WARNING, "closing a descriptor failed: %s", error)
            except Exception as error:
                self._crash(scope, close, error)

    def _crash(self, scope: Scope, step: Any, error: Exception) -> None:
        """``step``, which was asked for in ``scope``, has raised."""
        say_soon(log, logging.ERROR, "a step of the network thread failed; closing what it belonged to", exc_info=error)
        crashed = scope.on_crash or crash_of(step)
        if crashed is None:
            raise error
        try:
            crashed(error)
        except Exception as another:  # which is no fault of the others on this thread
            say_soon(log, logging.ERROR, "closing what had failed failed, too", exc_info=another)

    def end(self) -> None:
        """Let go of everything: it `is_over`."""
        try:
            self._close_what_is_over()
        finally:
            self._release()

    def _release(self) -> None:
        if self._opened:
            self._opened = False
            self.poller.close()
        self.timers.clear()  # they keep alive what they were for

    def forked(self) -> None:
        """In a forked child: the parent's thread goes on with the parent's descriptors, of which nothing is touched.

        Unregistering from the shared epoll would unregister the parent's; a wake-up would wake the parent.
        """
        self._forked = True
        self._closed = True
        self.polling = self.asleep = False  # nobody is to be woken
        self.calls.clear()


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
