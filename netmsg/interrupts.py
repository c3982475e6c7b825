"""Where an interrupt (Ctrl-C) can strike."""

from __future__ import annotations

from threading import get_ident, main_thread
from typing import Final

__all__ = ["SIGNAL_CHECK", "in_main_thread"]

MAIN_THREAD: Final = main_thread().ident
"""After a fork it may be another one, but nobody uses what the parent made then."""
SIGNAL_CHECK: Final = 0.05
"""Seconds that the main thread sleeps at a time. A signal that comes right before the system call, or that the kernel
hands to another thread, does not end the call; its handler runs when Python has been back. (``signal.set_wakeup_fd``
would tell at once, but there is one for the whole program, which is not ours to take.)"""


def in_main_thread() -> bool:
    """Whether the caller may be interrupted: signal handlers run in the main thread alone."""
    return get_ident() == MAIN_THREAD
