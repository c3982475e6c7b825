"""Waiting for sockets with a deadline, and with a way to be woken; and who closes their descriptors."""

from __future__ import annotations

import select
from collections.abc import Callable, Sized
from typing import Final

from ..deadline import Deadline
from ..errors import ConnectionBrokenError
from ..interrupts import SIGNAL_CHECK, in_main_thread
from ..uninterrupted import undivided
from ..waiting import Signal

__all__ = ["READ", "WRITE", "Occupancy", "WakeUp", "ready_sockets"]

READ: Final = 1
WRITE: Final = 2

LONGEST: Final = 1e6
"""Seconds that can be waited for at a time: the system counts milliseconds in 32 bits."""
SLICE: Final = 0.05
"""Seconds between two looks, when there is no descriptor left by which to be woken."""


def ready_sockets(wanted: dict[int, int], signal: Signal | None,
                  deadline: Deadline) -> list[tuple[int, int]] | None:
    """Wait for readiness: ``wanted`` and the result have descriptors and events. Empty once ``signal`` is set, ``None``
    once ``deadline`` has expired: who goes on then must not catch ``TimeoutError`` instead, which a signal handler may
    have raised (the usual alarm).

    Raises `ConnectionBrokenError` for a descriptor that somebody else closed.
    """
    poll = select.poll()
    if signal is not None:
        poll.register(signal, select.POLLIN)
    for descriptor, events in wanted.items():
        mask = (select.POLLIN if events & READ else 0) | (select.POLLOUT if events & WRITE else 0)
        poll.register(descriptor, mask)
    longest = SIGNAL_CHECK if in_main_thread() else LONGEST
    while True:
        remaining = deadline.remaining()
        ready = poll.poll((longest if remaining is None else min(remaining, longest)) * 1000)
        if ready:
            break
        if remaining is not None and remaining <= longest:
            return None
    found = []
    for descriptor, happened in ready:
        if signal is not None and descriptor == signal.fileno():
            return []
        if happened & select.POLLNVAL:
            raise ConnectionBrokenError("the descriptor was closed by somebody else")
        events = READ if happened & ~select.POLLOUT else 0
        found.append((descriptor, events | WRITE if happened & ~select.POLLIN else events))
    return found


class WakeUp:
    """What wakes the threads that wait for the sockets of one object, once and for all.

    It costs a descriptor only once somebody has to wait. When there is none left, that one looks every now and then.

    Those who are to look at something again, such as a list in which others leave what they may take, are woken by one
    call into C, which an interrupted thread can make before another interrupt strikes::

        unless += (something,)
        try:
            for signal in wake_up.signals[:1]:
                os.write(signal.ends[-1], ONE)
        except BlockingIOError:
            pass  # it is set

    A signal that is set stays so, and whoever finds it puts it away: all that wait by it wake. It is collected in other
    threads than the main one, which would lose the interrupts that strike in ``__del__``; and not before another has
    been put away, for until it is woken the main one holds it as well.
    """

    __slots__ = ("signals", "_used", "_woken")

    def __init__(self) -> None:
        self.signals: list[Signal] = []
        """All wait by the first: two who come at once may make one each."""
        self._used: list[Signal] = []
        self._woken = False

    def wait(self, wanted: dict[int, int], deadline: Deadline,
             unless: Sized = ()) -> list[tuple[int, int]]:
        """`ready`, with ``TimeoutError`` once ``deadline`` has expired."""
        found = self.ready(wanted, deadline, unless)
        if found is None:
            raise TimeoutError("timed out")
        return found

    def ready(self, wanted: dict[int, int], deadline: Deadline,
              unless: Sized = ()) -> list[tuple[int, int]] | None:
        """`ready_sockets`; empty, too, once there is something in ``unless`` and who put it there says so."""
        signals = self.signals
        if not signals:
            try:
                signals.append(Signal())
            except OSError as error:
                if error.errno is None:
                    raise  # a signal handler raised it
                return self._wait_in_slices(wanted, deadline, unless)
        for signal in signals[:1]:  # the signal first, and then what it tells of
            if self._woken or unless:  # perhaps before there was a signal to set
                return []
            found = ready_sockets(wanted, signal, deadline)
            if found == [] and not self._woken:
                self._put_away(signal)
                self._collect()
            return found
        return []  # another thread has put it away

    @undivided
    def _put_away(self, signal: Signal) -> None:
        """It was set, and whoever waits from now on does so by another; unless somebody else has been faster."""
        signals = self.signals
        if signals and signals[0] is signal:
            self._used += (signal,)
            del signals[0]

    def _wait_in_slices(self, wanted: dict[int, int], deadline: Deadline,
                        unless: Sized) -> list[tuple[int, int]] | None:
        while not self._woken and not unless:
            found = ready_sockets(wanted, None, deadline.sooner(SLICE))
            if found is not None or deadline.expired:
                return found
        return []

    def set(self) -> None:
        """Wake all that wait, now or later. Callable from a signal handler."""
        self._woken = True
        for signal in self.signals[:1]:
            signal.set()

    def nudge(self) -> None:
        """Wake all that wait now, so that they look at their ``unless`` again. Who puts something there does so before;
        and does not call this while nobody waits: a signal for each time would pile up in the main thread.
        """
        for signal in self.signals[:1]:
            signal.set()
        self._collect()

    def _collect(self) -> None:
        if not in_main_thread():
            del self._used[:-1]

    def close(self) -> None:
        """When nobody can be waiting any more."""
        for signal in (*self.signals, *self._used):
            signal.close()


class Occupancy:
    """Who is inside an object that has descriptors: the last to leave once it was closed gives them back, so that
    nobody meets a stranger's under their numbers.

    ::

        claim = object()
        try:
            occupancy.inside[claim] = None
            ...
        finally:
            del occupancy.inside[claim]
            if occupancy.closing:
                occupancy.left(dispose)

    Nothing is called before the claim goes, and so no interrupt (Ctrl-C) can leave it there. Should one strike in
    ``left``, the next call of `close` does the rest: ``dispose`` may be called several times.
    """

    __slots__ = ("inside", "closing", "over", "wake_up")

    def __init__(self) -> None:
        self.inside: dict[object, None] = {}
        self.closing = False
        """Whether `close` was called."""
        self.over = False
        """Whether somebody was the last, and nobody may use the descriptors any more."""
        self.wake_up = WakeUp()

    def close(self, dispose: Callable[[], None]) -> None:
        """Wake all that wait inside, now or later, and have the last of them dispose. Callable from a signal
        handler."""
        claim = object()
        try:
            self.inside[claim] = None  # nobody is the last as long as the signal is used here
            self.closing = True
            if not self.over:
                self.wake_up.set()
        finally:
            del self.inside[claim]
            self.left(dispose)

    def left(self, dispose: Callable[[], None]) -> None:
        """Somebody has left after `close`."""
        if not self.inside:
            self.over = True
            dispose()
            self.wake_up.close()

    def forked(self, dispose: Callable[[], None]) -> None:
        """In a forked child, where nobody is inside."""
        self.inside.clear()
        self.closing = True
        self.left(dispose)
