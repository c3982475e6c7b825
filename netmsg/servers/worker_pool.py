"""Threads that come and go with the work."""

from __future__ import annotations

import itertools
import logging
import threading
from _thread import LockType, allocate_lock
from collections import deque
from collections.abc import Callable
from typing import Final

from ..deadline import Deadline
from ..locks import new_lock

__all__ = ["WorkerPool"]

log = logging.getLogger("netmsg.servers")

IDLE: Final = 1.0
"""Seconds after which a worker without work goes away."""

PATIENCE: Final = 0.001
"""Seconds."""

_numbers = itertools.count(1)


class WorkerPool:
    """Runs tasks in up to ``max_workers`` threads (``netmsg-worker-N-M``), in the order in which they come.

    The worker that has been idle for the shortest time is woken first, so that those beyond need stay idle and go.
    A task must not raise.

    A ``patient`` pool expects short tasks: it lets one worker take them all, and wakes another only when there are
    still some after `PATIENCE`, because that one has to wait for something. Workers that run at the same time would
    only take the interpreter lock from each other, at every system call.
    """

    def __init__(self, max_workers: int, *, patient: bool) -> None:
        self.number = next(_numbers)
        self.tasks: deque[Callable[[], None]] = deque()
        """What waits for a worker."""
        self._max_workers = max_workers
        self._patient = patient
        self._threads: set[threading.Thread] = set()
        self._idle: list[LockType] = []  # what the idle ones wait by, the longest idle first
        self._closed = False
        self._draining = False  # one has been woken, and the tasks were never all taken since
        self._saturated = False  # all are at work, and nobody is left to be woken
        self._taken = allocate_lock()  # held, until all tasks have been taken
        self._lock = new_lock()  # guards all of these; a leaf
        self._warned = False
        self._thread_numbers = itertools.count(1)

    def put(self, task: Callable[[], None]) -> None:
        """Add a task, to be run after the next `dispatch`."""
        self.tasks.append(task)

    def dispatch(self) -> bool:
        """See to it that there are workers for the tasks. Whether to be called again soon, for more of them.

        A patient pool blocks until all have been taken, or for `PATIENCE`.
        """
        if not self._patient:
            with self._lock:
                self._wake(len(self.tasks))
            return False
        while self.tasks:
            with self._lock:
                if self._saturated:
                    return False
                self._taken.acquire(False)
                if not self._draining:
                    self._draining = self._wake(1)
            if not self._taken.acquire(timeout=PATIENCE):
                with self._lock:
                    self._draining = self._wake(1)
                    self._saturated = (bool(self.tasks) and not self._draining and not self._idle
                                       and len(self._threads) >= self._max_workers)
                    return bool(self.tasks) and not self._saturated
        return False

    def _wake(self, wanted: int) -> bool:
        """Have up to ``wanted`` more workers at work, under the lock. Whether there is one more at least."""
        wanted = min(wanted, len(self.tasks))
        before = wanted
        while wanted and self._idle:
            self._idle.pop().release()
            wanted -= 1
        while wanted and len(self._threads) < self._max_workers and not self._closed and self._start():
            wanted -= 1
        return wanted < before

    def _start(self) -> bool:
        thread = threading.Thread(target=self._work, name=f"netmsg-worker-{self.number}-{next(self._thread_numbers)}",
                                  daemon=True)
        self._threads.add(thread)  # before it begins, so that it knows itself
        try:
            thread.start()
        except RuntimeError as error:
            self._threads.discard(thread)
            if not self._warned:
                self._warned = True
                log.warning("there cannot be more worker threads than %d: %s", len(self._threads), error)
            return False
        return True

    def _work(self) -> None:
        """Ends when there is nothing to do and either the pool is closed or nothing comes for a while."""
        tasks = self.tasks
        while True:
            try:
                task = tasks.popleft()
            except IndexError:
                if not self._wait():
                    return
            else:
                if not tasks and self._taken.locked():
                    self._tell()
                task()
                del task  # and what it belongs to, while there is nothing to do

    def _tell(self) -> None:
        """All have been taken."""
        with self._lock:
            if not self.tasks and self._taken.locked():
                self._draining = False
                self._taken.release()

    def _wait(self) -> bool:
        """Woken by `dispatch` and `close`."""
        ticket = allocate_lock()
        ticket.acquire()
        with self._lock:
            if self.tasks:
                return True
            if not self._closed:
                self._idle.append(ticket)
            self._draining = self._saturated = False
            if self._taken.locked():
                self._taken.release()
        if not self._closed and ticket.acquire(timeout=IDLE):
            return True
        with self._lock:
            if ticket in self._idle:
                self._idle.remove(ticket)
            if self.tasks:
                return True
            self._draining = self._saturated = False
            self._threads.discard(threading.current_thread())
            return False

    @property
    def workers(self) -> int:
        """How many threads there are."""
        return len(self._threads)

    @property
    def is_current(self) -> bool:
        """Whether the caller is a worker of this pool."""
        return threading.current_thread() in self._threads

    def close(self) -> None:
        """Have every worker end once there are no more tasks. Never blocks."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().release()

    def join(self, deadline: Deadline) -> None:
        """Wait for the workers of a closed pool to end."""
        for thread in tuple(self._threads):
            if thread is not threading.current_thread():
                thread.join(deadline.remaining())
