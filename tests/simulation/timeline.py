"""Virtual time: what happens when, one thing after the other. Nothing waits, and hours go by in a second."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

__all__ = ["Died", "Timeline"]

Action = Callable[[], object]


class Died(BaseException):
    """A program has ended in the midst of what it did: the rest of that does not happen."""


class Timeline:
    """What is going to happen. What is due at the same moment happens in the order in which it was asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = itertools.count()
        self._actions: list[tuple[float, int, Action]] = []

    def __bool__(self) -> bool:
        """Whether anything is going to happen."""
        return bool(self._actions)

    def after(self, delay: float, action: Action) -> None:
        """Have ``action()`` called in so many seconds."""
        heapq.heappush(self._actions, (self.now + delay, next(self._numbers), action))

    def at(self, when: float, action: Action) -> None:
        heapq.heappush(self._actions, (max(when, self.now), next(self._numbers), action))

    def stop(self) -> None:
        """Nothing more happens."""
        self._actions.clear()

    def run(self, until: float, enough: Callable[[], bool] | None = None) -> bool:
        """Let everything happen up to a moment; or until there was ``enough``, asked after each: whether there was."""
        actions = self._actions
        while actions and actions[0][0] <= until:
            self.now, _, action = heapq.heappop(actions)
            try:
                action()
            except Died:
                pass
            if enough is not None and enough():
                return True
        self.now = until
        return enough is not None and enough()
