"""Warnings of what others can cause at will."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from ..locks import new_lock
from ..speaking import say_soon

__all__ = ["SparingLog"]

INTERVAL: Final = 60.0
"""Seconds."""


class SparingLog:
    """Logs the first warning of a kind, and from then on at most one in `INTERVAL`, which says how many were not shown;
    those are logged as DEBUG. From any thread."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._kinds: dict[str, tuple[float, int]] = {}  # when the next is due, and how many were not shown
        self._lock = new_lock()  # guards them; a leaf

    def warning(self, kind: str, message: str, *arguments: Any) -> None:
        """``kind`` is one of a few words of the program's, never of a peer's."""
        now = time.monotonic()
        with self._lock:
            due, hidden = self._kinds.get(kind, (now, 0))
            show = now >= due
            self._kinds[kind] = (now + INTERVAL, 0) if show else (due, hidden + 1)
        if not show:
            say_soon(self._log, logging.DEBUG, message, *arguments)
        elif hidden:
            say_soon(self._log, logging.WARNING, message + " (and %d more like it since the last warning)", *arguments,
                     hidden)
        else:
            say_soon(self._log, logging.WARNING, message, *arguments)
