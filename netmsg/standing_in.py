"""Who works while a worker of a server waits in a send: another one, in its place.

Whatever sends, at whatever level, says so by `standing_in`, and has not to know what a worker is. The pool of a server
tells each of its threads to which it belongs, in `this_thread`, and has not to know who sends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from .forking import forget_in_child

__all__ = ["Awaited", "standing_in", "this_thread"]


class Awaited(Protocol):
    """Another end that workers wait for."""

    @property
    def _awaited(self) -> bool:
        """Whether it still is: it is not over, nor given up."""

    def _silent_since(self) -> float:
        """Since when nothing that it is waited for was seen to move (``time.monotonic()``)."""

    def _give_up_for_others(self) -> None:
        """Too many workers wait, and this has taken nothing for the longest: have those that wait for it go on. Does
        not block."""


class Pool(Protocol):
    """Whose worker a thread is."""

    def block(self, awaited: Awaited) -> Any:
        """The caller is about to wait: until `unblock`, which wants what this returns, another may run in its place."""

    def unblock(self, claim: Any) -> None:
        """It goes on."""


class _Thread(threading.local):
    pool: Pool | None = None
    """Of the worker that this thread is. To look costs no call."""
    is_stood_in_for = False
    """Whether it waits, and another one works."""


this_thread = _Thread()


@contextmanager
def standing_in(awaited: Awaited) -> Iterator[None]:
    """While the caller waits for ``awaited``, whosever that is, another worker takes its place, if it is one. No more
    than one does: a wait that is part of another one counts as that."""
    pool = this_thread.pool
    if pool is None or this_thread.is_stood_in_for:
        yield
        return
    this_thread.is_stood_in_for = True
    try:
        claim = pool.block(awaited)
        try:
            yield
        finally:
            pool.unblock(claim)
    finally:
        this_thread.is_stood_in_for = False


@forget_in_child
def _forget() -> None:
    """A worker that forks is none in the child, where the others are not."""
    this_thread.pool = None
