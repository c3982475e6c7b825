"""Where an interrupt (Ctrl-C) can strike."""

from __future__ import annotations

from threading import get_ident, main_thread
from typing import Final

__all__ = ["in_main_thread"]

MAIN_THREAD: Final = main_thread().ident
"""After a fork it may be another one, but nobody uses what the parent made then."""


def in_main_thread() -> bool:
    """Whether the caller may be interrupted: signal handlers run in the main thread alone."""
    return get_ident() == MAIN_THREAD
