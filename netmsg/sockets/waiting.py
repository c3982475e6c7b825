"""Waiting for sockets with a deadline, and with a way to be woken."""

from __future__ import annotations

import select
from typing import Final

from ..deadline import Deadline
from ..errors import ConnectionBrokenError
from ..waiting import Signal

__all__ = ["READ", "WRITE", "wait_for_sockets"]

READ: Final = 1
WRITE: Final = 2


def wait_for_sockets(wanted: dict[int, int], signal: Signal | None,
                     deadline: Deadline) -> list[tuple[int, int]]:
    """Wait for readiness: ``wanted`` and the result have descriptors and events. Empty once ``signal`` is set.

    Raises ``TimeoutError``, `ConnectionBrokenError` for a descriptor that somebody else closed.
    """
    poll = select.poll()
    if signal is not None:
        poll.register(signal, select.POLLIN)
    for descriptor, events in wanted.items():
        mask = (select.POLLIN if events & READ else 0) | (select.POLLOUT if events & WRITE else 0)
        poll.register(descriptor, mask)
    remaining = deadline.remaining()
    ready = poll.poll(None if remaining is None else remaining * 1000)
    if not ready:
        raise TimeoutError("timed out")
    found = []
    for descriptor, happened in ready:
        if signal is not None and descriptor == signal.fileno():
            return []
        if happened & select.POLLNVAL:
            raise ConnectionBrokenError("the descriptor was closed by somebody else")
        events = READ if happened & ~select.POLLOUT else 0
        found.append((descriptor, events | WRITE if happened & ~select.POLLIN else events))
    return found
