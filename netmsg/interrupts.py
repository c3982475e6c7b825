"""Where an interrupt (Ctrl-C) can strike."""

from __future__ import annotations

from threading import get_ident, main_thread
from typing import Final

from .errors import NetmsgError
from .forking import forget_in_child

__all__ = ["SIGNAL_CHECK", "in_main_thread", "is_of_a_signal_handler"]

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


def is_of_a_signal_handler(error: Exception) -> bool:
    """Whether ``error`` is taken for what a signal handler has raised in the midst of something else, such as the
    ``TimeoutError`` of the usual alarm: errors of the system have an ``errno``. Ask at once, where it is caught."""
    return (isinstance(error, OSError) and error.errno is None and not isinstance(error, NetmsgError)
            and in_main_thread())
