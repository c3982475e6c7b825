"""Where an interrupt (Ctrl-C) can strike."""

from __future__ import annotations

import os
import sys
from threading import get_ident, main_thread
from types import FrameType
from typing import Final

from .errors import NetmsgError
from .forking import forget_in_child

__all__ = ["LIBRARY", "SIGNAL_CHECK", "in_main_thread", "interrupts", "is_of_a_signal_handler"]

LIBRARY: Final = os.path.dirname(__file__)
SIGNAL_CHECK: Final = 0.05
"""Seconds that the main thread sleeps at a time. A signal that comes right before the system call, or that the kernel
hands to another thread, does not end the call; its handler runs when Python has been back. (``signal.set_wakeup_fd``
would tell at once, but there is one for the whole program, which is not ours to take.)"""


_main_thread = main_thread().ident


@forget_in_child
def _after_fork_in_child() -> None:
    """The thread that forked is the main one there."""
    global _main_thread
    _main_thread = get_ident()


def in_main_thread() -> bool:
    """Whether the caller may be interrupted: signal handlers run in the main thread alone."""
    return get_ident() == _main_thread


def interrupts(folder: str) -> bool:
    """Whether the caller was itself called by a signal handler, or a finalizer, that interrupted code of ``folder`` in
    this very thread: then waiting could be for a lock held further up this stack."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(LIBRARY):
        frame = frame.f_back
    while frame is not None and not frame.f_code.co_filename.startswith(folder):
        frame = frame.f_back
    return frame is not None


def is_of_a_signal_handler(error: Exception) -> bool:
    """Whether ``error`` is taken for what a signal handler has raised in the midst of something else, such as the
    ``TimeoutError`` of the usual alarm: errors of the system have an ``errno``. Ask at once, where it is caught."""
    return (isinstance(error, OSError) and error.errno is None and not isinstance(error, NetmsgError)
            and in_main_thread())
