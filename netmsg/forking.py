"""Which process this is, without a system call; and what a forked child has to let go of.

A child has copies of all descriptors: of a listening socket, for one, which would go on taking connections that nobody
accepts after the parent has closed its own. And it has all that modules keep about threads, which are the parent's.

Everything that has to let go is registered here, for the order matters. First the process is another, by which objects
tell that they are the parent's. Then the modules forget, each after those that it imports: which thread is the main
one, the lock of the log, and the network threads, whom nobody may wake any more, for a wake-up would reach the
parent's. Last come the objects, which rely on all of this, and not on each other.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Process", "close_in_child", "current_process", "forget_in_child"]

log = logging.getLogger("netmsg.forking")


class Process:
    """Stands for one process; a forked child makes another."""


class Held(Protocol):
    """An object that holds descriptors. It compares by identity."""

    def _forked(self) -> None:
        """In a forked child: close this process's copies, and touch nothing that is the parent's too. Perhaps others
        that it holds have been called already, and perhaps not."""


_current = Process()
_held: weakref.WeakSet[Any] = weakref.WeakSet()
_forgetting: list[Callable[[], None]] = []


def current_process() -> Process:
    """Compare by identity with one kept earlier: they differ in a forked child."""
    return _current


def close_in_child(held: Held) -> None:
    """Have ``held._forked()`` called in every child that is forked while ``held`` is alive, after all modules have
    forgotten."""
    _held.add(held)


def forget_in_child(function: Callable[[], None]) -> Callable[[], None]:
    """A decorator for functions of modules that have something to forget in a forked child."""
    _forgetting.append(function)
    return function


def _after_fork_in_child() -> None:
    global _current
    _current = Process()
    for call in (*_forgetting, *(held._forked for held in tuple(_held))):
        try:
            call()
        except BaseException:  # the others have to let go all the same; Python would only print what gets out of here
            log.warning("a forked child could not let go of everything", exc_info=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
