"""The life of a server, of whatever kind."""

from __future__ import annotations

import logging
import warnings
import weakref
from typing import Any, Final, Self

from ..aside import aside
from ..deadline import Deadline
from ..errors import ClosedError, ForkedError
from ..forking import close_in_child, current_process
from ..reactor.reactor import Reactor, Timer, on_a_loop
from ..speaking import say, say_soon
from ..waiting import Waiters
from .sparing_log import SparingLog
from .stats import ServerStats
from .worker_pool import LOOK, WorkerPool

__all__ = ["Server"]

log = logging.getLogger("netmsg.servers")

AGAIN: Final = 0.1
"""Seconds until a thread is asked for again, where there was none to be had."""
GRACE: Final = 2.0
"""Seconds that threads get to end in, once they have nothing to do any more."""
MOMENT: Final = 0.1
"""Seconds that they get when the time is up: those whose connection was closed have heard so by then."""


class Server:
    """A server is new, then serving from `start` on, then stopping from `shutdown` on, then over.

    ======================  ==========================================================================
    thread                  does
    ======================  ==========================================================================
    any                     `start`, `shutdown` and what a server's user may call
    ``netmsg-io-N``         all that is named ``_on_…`` or marked "on the loop"
    ``netmsg-worker-N-M``   the handlers
    ======================  ==========================================================================
    """

    def __init__(self, max_workers: int, io: Reactor, *, patient: bool = False) -> None:
        self._io = io
        self._pool = WorkerPool(max_workers, patient=patient, stand_in=weakref.WeakMethod(self._stand_in_soon))
        self._started = False
        self._begun = False
        self._stopping = False
        self._accepting = True
        self._over = False
        self._process = current_process()
        self._changed = Waiters()
        """Who waits for the end of the server."""
        self._cut_timer: Timer | None = None
        self._noticed = False
        self._asking_again = False  # for a thread
        self._looking_at_blocked = False
        self._finishing = False  # nothing new is taken on: whatever ends now may have been the last
        self._handler_errors = 0
        self._log = SparingLog(log)
        close_in_child(self)

    # What differs

    def _open(self) -> None:
        """Begin to serve. On the loop."""
        raise NotImplementedError

    def _close_listeners(self) -> None:
        """Take on nothing new. On the loop, or before `start`."""
        raise NotImplementedError

    def _finish_idle(self) -> None:
        """Close what is idle, and have the rest close when it is. On the loop."""
        raise NotImplementedError

    def _idle(self) -> bool:
        """Whether nothing is left to be done. On the loop."""
        raise NotImplementedError

    def _cut(self) -> None:
        """Close everything there is. On the loop."""
        raise NotImplementedError

    def _abandon(self) -> None:
        """In a forked child: close this process's copies of the descriptors, and nothing else."""
        raise NotImplementedError

    @property
    def addresses(self) -> list[Any]:
        """(host, port), or path, of each socket; also after the end."""
        raise NotImplementedError

    @property
    def port(self) -> int:
        """The TCP or UDP port of the first listener or socket that has one."""
        for address in self.addresses:
            if isinstance(address, tuple):
                return int(address[1])
        raise AttributeError("a UNIX socket has no port")

    def stats(self) -> ServerStats:
        """A snapshot of the counters."""
        raise NotImplementedError

    # For users

    def start(self) -> None:
        """Begin to serve, in the background. Does nothing the second time; `ClosedError` after `shutdown`."""
        self._check()
        if not self._started:
            aside(self._start)

    def _start(self) -> None:
        if self._started:
            return
        self._io.attach(self)
        self._started = True
        self._io.call(self._begin)

    def serve_forever(self) -> None:
        """Serve until `shutdown`, called by another thread, a handler or a signal handler. Started if it is not yet.

        An exception, such as Ctrl-C, shuts the server down as `shutdown` does by default.
        """
        try:
            self.start()
            self._changed.wait(lambda: self._over, Deadline(None))
        except BaseException:
            self.shutdown()
            raise
        self._join(Deadline(GRACE))

    def stop_accepting(self) -> None:
        """Take on nothing new, for good; what is connected goes on, until `shutdown`. The listening sockets are closed:
        others may bind their addresses. Idempotent; never waits, and may be called in a handler or a signal handler."""
        if self._process is not current_process():
            return
        self._accepting = False
        if self._started:
            self._io.call(self._close_listeners)
        else:
            self._close_listeners()

    def shutdown(self, *, timeout: float | None = 5.0, wait: bool = True) -> None:
        """Stop: accept nothing new, close idle connections at once, let handlers finish for ``timeout`` seconds
        (``None``: however long it takes), and then close what is left: their next call raises `ClosedError`.
        A `PacketServer` handles the packets that it has received by then, and reads no more.

        With ``wait=False`` it returns at once, whatever is left goes on in the background, and it may be called in a
        signal handler. It does not wait in a handler either. Idempotent: another call with less time cuts it short.
        """
        deadline = Deadline(timeout)
        if self._process is not current_process():
            return
        self._stopping = True
        if not self._started:
            self._close_listeners()
            self._ended()
            return
        self._io.call(self._stop, deadline)
        if not wait or on_a_loop() or self._pool.is_current:
            return
        # Once it is over, at the latest at the deadline, the threads end.
        if not self._changed.wait(lambda: self._over, deadline):
            self._changed.wait(lambda: self._over, Deadline(GRACE))
        self._join(Deadline(MOMENT) if deadline.expired else deadline.sooner(GRACE))

    def close(self) -> None:
        """Stop at once: every connection is cut, and what is blocked in a handler raises `ClosedError`. Idempotent,
        from any thread, handler or signal handler; does not wait for handlers to return."""
        self.shutdown(timeout=0, wait=False)

    @property
    def closed(self) -> bool:
        """Whether `shutdown` or `close` was called."""
        return self._stopping

    def fileno(self) -> int:
        """The descriptor of the first listening socket; -1 once closed."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        state = "over" if self._over else "stopping" if self._stopping else "serving" if self._started else "new"
        return f"<{type(self).__name__} on {self.addresses!r} {state}>"

    def __del__(self) -> None:
        if getattr(self, "_stopping", True) or self._started or self._process is not current_process():
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        self._close_listeners()

    # For its own

    def _check_process(self) -> None:
        """Raises `ForkedError`."""
        if self._process is not current_process():
            raise ForkedError("this server belongs to the parent process")

    def _check(self) -> None:
        self._check_process()
        if self._stopping:
            raise ClosedError("the server is closed")

    def _tell_of(self, text: str, address: Any, error: BaseException) -> None:
        """A handler has failed. A worker waits until that is said: it could fail faster than the log is written. The
        loop does not."""
        (say_soon if on_a_loop() else say)(log, logging.ERROR, text, address, exc_info=error)

    def _run_by_worker(self, task: Any) -> None:
        """Have a worker run ``task`` soon. On the loop: the workers are woken once it has nothing else to do."""
        self._pool.put(task)
        if not self._noticed:
            self._noticed = True
            self._io.before_sleep(self._dispatch)

    def _dispatch(self) -> None:
        self._noticed = False
        if self._pool.dispatch():
            self._noticed = True
            self._io.call(self._dispatch)
        elif self._pool.short_of_threads and self._pool.tasks and not self._asking_again:
            self._asking_again = True
            self._io.call_later(AGAIN, self._ask_again)

    def _ask_again(self) -> None:
        self._asking_again = False
        if not self._over:
            self._dispatch()

    def _stand_in_soon(self) -> None:
        """A worker waits: there is room for another one, or there are too many that do. In any thread."""
        self._io.call(self._stand_in)

    def _stand_in(self) -> None:
        self._dispatch()
        if not self._looking_at_blocked:
            self._look_at_blocked()

    def _look_at_blocked(self) -> None:
        self._looking_at_blocked = not self._over and self._pool.give_up_deaf()
        if self._looking_at_blocked:
            self._io.call_later(LOOK, self._look_at_blocked)

    def _begin(self) -> None:
        if self._over:  # by a shutdown() during start()
            self._io.detach(self)
        elif not self._stopping and self._accepting and not self._begun:
            self._begun = True  # an interrupted start() may have been called again
            self._open()

    def _stop(self, deadline: Deadline) -> None:
        if self._over:
            return
        self._close_listeners()
        self._finishing = True
        self._finish_idle()
        remaining = deadline.remaining()
        if remaining is not None and not self._over:
            timer = self._cut_timer
            if timer is None or timer.at > self._io.now + remaining:
                if timer is not None:
                    timer.cancel()
                self._cut_timer = self._io.call_later(remaining, self._cut_short)
        self._settle()

    def _settle(self) -> None:
        """Something has ended: perhaps it was the last. On the loop."""
        if self._finishing and not self._over and self._idle():
            self._ended()

    def _cut_short(self) -> None:
        if not self._over:
            self._cut()
            self._ended()

    def _ended(self) -> None:
        if self._over:
            return
        self._over = True
        if self._cut_timer is not None:
            self._cut_timer.cancel()
        self._pool.close()
        if self._started:
            self._io.detach(self)
        self._changed.notify_all()

    def _join(self, deadline: Deadline) -> None:
        self._pool.join(deadline)
        self._io.join(deadline.remaining())

    def _io_closing(self, deadline: Deadline) -> None:
        self._stopping = True
        self._stop(deadline)

    def _io_failed(self, cause: BaseException | None) -> None:
        self._stopping = True
        self._close_listeners()
        self._cut_short()

    def _crashed(self, error: Exception) -> None:
        self._stopping = True
        self._io_failed(error)

    def _forked(self) -> None:
        """In a forked child."""
        self._abandon()


def claim(sources: tuple[Any, ...], kind: Any) -> None:
    """Take over listeners or sockets, which belong to one server. ``ValueError``, ``TypeError`` or `ClosedError`, and
    none of them is taken, if one cannot be."""
    if not sources:
        raise ValueError(f"a server needs a {kind.__name__}")
    for number, source in enumerate(sources):
        if not isinstance(source, kind):
            raise TypeError(f"a {kind.__name__} is needed, not {type(source).__name__}")
        if source.closed:
            raise ClosedError(f"{source!r} is closed")
        if source in _claimed or source in sources[:number]:
            raise ValueError(f"{source!r} belongs to a server already")
    for source in sources:
        _claimed.add(source)


_claimed: weakref.WeakSet[Any] = weakref.WeakSet()
