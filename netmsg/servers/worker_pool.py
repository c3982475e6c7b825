"""Threads that come and go with the work."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from _thread import LockType, allocate_lock
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from ..deadline import Deadline
from ..locks import new_lock
from ..speaking import say, say_soon
from ..standing_in import Awaited, this_thread

__all__ = ["LOOK", "WorkerPool"]

log = logging.getLogger("netmsg.servers")

IDLE: Final = 1.0
"""Seconds after which a worker without work goes away."""

PATIENCE: Final = 0.001
"""Seconds in which a worker of a patient pool is to have taken all tasks; then another one is woken."""

SPARE: Final = 64
"""Workers beyond ``max_workers`` that stand in for those that are blocked."""

DEAF: Final = 2.0
"""Seconds in which a client has to take something, while more wait for clients than others can stand in for. Of one
that reads 16 KiB each 0.4 s, into a small buffer, the kernel tells nothing for up to 1.2 s."""

LOOK: Final = 0.05
"""Seconds between two looks at whether one does, while that is so."""

_numbers = itertools.count(1)


class WorkerPool:
    """Runs tasks in up to ``max_workers`` threads (``netmsg-worker-N-M``), in the order in which they come.

    The worker that has been idle for the shortest time is woken first, so that those beyond need stay idle and go.
    A task must not raise.

    A ``patient`` pool expects short tasks: it lets one worker take them all, and wakes another only when there are
    still some after `PATIENCE`, because that one has to wait for something. Workers that run at the same time would
    only take the interpreter lock from each other, at every system call.

    A worker that waits in a send (see `netmsg.standing_in`) does not count: another may run in its place, up to `SPARE`
    of them. Once it goes on there is one too many, who steps back after the task that it has.

    ``stand_in()()`` is called, in any thread, when one has begun to wait: there may be room for one more, and so
    `dispatch` is to be called, or too many may wait, and so `give_up_deaf` is.
    """

    def __init__(self, max_workers: int, *, patient: bool,
                 stand_in: Callable[[], Callable[[], None] | None] = lambda: None) -> None:
        self.number = next(_numbers)
        self.tasks: deque[Callable[[], None]] = deque()
        """What waits for a worker."""
        self._max_workers = max_workers
        self.spare = SPARE
        self._patient = patient
        self._threads: set[threading.Thread] = set()
        self._idle: list[LockType] = []  # what the idle ones wait by, the longest idle first
        self._stand_in = stand_in
        self._blocked: dict[object, Awaited] = {}  # whom the blocked ones wait for, the longest blocked first
        self._crowded = False  # perhaps more are at work than may be
        self._closed = False
        self._draining = False  # one has been woken, and the tasks were never all taken since
        self._saturated = False  # all are at work, and nobody is left to be woken
        self._taken = allocate_lock()  # held, until all tasks have been taken
        self.short_of_threads = False
        """Whether the last `dispatch` could not start one: it is to be called again before long."""
        self._lock = new_lock()  # guards the changes of all of these but `tasks`; a leaf
        self._warned = False
        self._thread_numbers = itertools.count(1)

    def put(self, task: Callable[[], None]) -> None:
        """Add a task, to be run after the next `dispatch`."""
        self.tasks.append(task)

    def dispatch(self) -> bool:
        """See to it that there are workers for the tasks. Whether to be called again soon, for more of them.

        A patient pool blocks until all have been taken, or for `PATIENCE`.
        """
        self.short_of_threads = False
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
                if self.short_of_threads:
                    return False
            if not self._taken.acquire(timeout=PATIENCE):
                with self._lock:
                    self._draining = self._wake(1)
                    self._saturated = bool(self.tasks) and not self._draining and self._room() <= 0
                    return bool(self.tasks) and not (self._saturated or self.short_of_threads)
        return False

    def _wake(self, wanted: int) -> bool:
        """Have up to ``wanted`` more workers at work, under the lock. Whether there is one more at least."""
        assert self._lock.locked()
        wanted = max(0, min(wanted, len(self.tasks), self._room()))
        before = wanted
        while wanted and self._idle:
            self._idle.pop().release()
            wanted -= 1
        while wanted and not self._closed and self._start():
            wanted -= 1
        return wanted < before

    def _room(self) -> int:
        """How many more may be at work, under the lock; below 0 if there are too many."""
        assert self._lock.locked()
        return self._max_workers + self.stand_ins - (len(self._threads) - len(self._idle))

    def _start(self) -> bool:
        thread = threading.Thread(target=self._work, name=f"netmsg-worker-{self.number}-{next(self._thread_numbers)}",
                                  daemon=True)
        self._threads.add(thread)  # before it begins, so that it knows itself
        try:
            thread.start()
        except RuntimeError as error:
            self._threads.discard(thread)
            self.short_of_threads = True
            if not self._warned:
                self._warned = True
                say_soon(log, logging.WARNING, "there cannot be more worker threads than %d: %s", len(self._threads),
                         error)
            return False
        return True

    def _work(self) -> None:
        """Ends when there is nothing to do and either the pool is closed or nothing comes for a while."""
        this_thread.pool = self
        tasks = self.tasks
        while True:
            if self._crowded and not self._step_back():
                return
            try:
                task = tasks.popleft()
            except IndexError:
                if not self._wait():
                    return
            else:
                if not tasks and self._taken.locked():
                    self._all_taken()
                try:
                    task()
                except BaseException as error:  # it costs no worker
                    say(log, logging.ERROR, "a task of a worker failed", exc_info=error)
                del task  # and what it belongs to, while there is nothing to do

    def _all_taken(self) -> None:
        """Let `dispatch` go on."""
        with self._lock:
            if not self.tasks and self._taken.locked():
                self._draining = False
                self._taken.release()

    def _step_back(self) -> bool:
        """Fall idle if there are too many at work: they see to the tasks. Whether to go on."""
        with self._lock:
            self._crowded = self._room() < 0
        return self._wait(crowded=True) if self._crowded else True

    def _wait(self, *, crowded: bool = False) -> bool:
        """Woken by `dispatch` and `close`. Whether to go on."""
        ticket = allocate_lock()
        ticket.acquire()
        with self._lock:
            if self._room() >= 0 if crowded else self.tasks:
                return True
            if not self._closed:
                self._idle.append(ticket)
            if not self.tasks:
                self._draining = self._saturated = False
                if self._taken.locked():
                    self._taken.release()
        if not self._closed and ticket.acquire(timeout=IDLE):
            return True
        with self._lock:
            if ticket in self._idle:
                self._idle.remove(ticket)
            if self.tasks and self._room() >= 0:
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
        return this_thread.pool is self

    def block(self, client: Awaited) -> object:
        """The worker that calls this is about to wait for ``client``: until `unblock`, which wants what this returns,
        another may run in its place."""
        claim = object()
        with self._lock:
            self._blocked[claim] = client
            self._saturated = False
        stand_in = self._stand_in()
        if stand_in is not None:
            stand_in()
        return claim

    def give_up_deaf(self) -> bool:
        """If more wait than others can stand in for, give up the clients that have taken nothing for the longest, and
        for `DEAF` seconds. Whether to be called again after `LOOK`, for nobody else comes."""
        with self._lock:
            if len(self._blocked) <= self.spare:
                return False
            if self._room() > 0:  # as yet: a task that waits for no client may take it
                return True
            blocked = list(self._blocked.values())
        workers = Counter(client for client in blocked if client._awaited)  # the longest awaited first
        silent = {client: client._silent_since() for client in workers}  # of all: it is told from look to look
        too_many = workers.total() - self.spare
        for client in sorted(workers, key=silent.__getitem__):
            if too_many <= 0 or silent[client] > time.monotonic() - DEAF:
                break
            client._give_up_for_others()
            too_many -= workers[client]
        return True

    @property
    def stand_ins(self) -> int:
        """How many may be at work beyond ``max_workers``."""
        return min(len(self._blocked), self.spare)

    def unblock(self, claim: object) -> None:
        """It goes on."""
        with self._lock:
            del self._blocked[claim]
            self._crowded = self._room() < 0

    def close(self) -> None:
        """Have every worker end once there are no more tasks; those that are left get workers. Never blocks."""
        with self._lock:
            self._wake(len(self.tasks))
            self._closed = True
            while True:
                if not self._idle:
                    break
                self._idle.pop().release()

    def join(self, deadline: Deadline) -> None:
        """Wait for the workers of a closed pool to end."""
        for thread in tuple(self._threads):
            if thread is not threading.current_thread():
                thread.join(deadline.remaining())
