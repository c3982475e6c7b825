"""``authorize``, the user's function, asked about one newcomer after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..reactor.callbacks import Callbacks
from ..reactor.reactor import Reactor
from .life import Life
from .snapshots import PeerInfo

__all__ = ["Asking", "Newcomer"]


class Newcomer(Protocol):
    """Who asks to be let in."""

    def info(self) -> PeerInfo:
        """What is known of it."""

    def judged(self, verdict: bool, error: BaseException | None) -> None:
        """The answer; or what was raised instead."""


class Asking:
    """A queue in front of the thread of that function, which may take its time: who goes meanwhile is not asked about.
    Belongs to the network thread."""

    def __init__(self, authorize: Callable[[PeerInfo], bool], callbacks: Callbacks, life: Life, io: Reactor) -> None:
        self._authorize = authorize
        self._callbacks = callbacks
        self._io = io
        self._steps = io.scope(life.crash)
        self._queue: dict[Newcomer, None] = {}
        """Oldest first."""
        self._asking = False

    def add(self, newcomer: Newcomer) -> None:
        self._queue[newcomer] = None
        self._ask()

    def forget(self, newcomer: Newcomer) -> None:
        """It has gone."""
        self._queue.pop(newcomer, None)

    def _ask(self) -> None:
        if self._asking or not self._queue:
            return
        newcomer = next(iter(self._queue))
        del self._queue[newcomer]
        info = newcomer.info()
        self._asking = True

        def judge() -> bool:
            return bool(self._authorize(info))  # what it is taken for is the user's own code, too

        def judged(verdict: Any, error: BaseException | None) -> None:
            self._steps.call(self._answered)
            self._io.call(newcomer.judged, verdict, error)

        self._callbacks.run(judge, (), judged)

    def _answered(self) -> None:
        self._asking = False
        self._ask()
