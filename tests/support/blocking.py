"""Threads that have come to wait for the network."""

from __future__ import annotations

import threading

from .pairs import Background, until


def until_polling(*threads: Background) -> None:
    """Wait until every one of ``threads`` sleeps in ``poll``, as the kernel tells (Linux). Where it does not, a little
    while has to do: what follows is right either way, and only sees less."""
    until_polling_or_over(*threads)
    for thread in threads:
        assert thread.is_alive(), "it did not wait"


def until_polling_or_over(*threads: Background) -> None:
    """`until_polling`, of threads that need not wait."""
    for thread in threads:
        if _where(thread) is None:
            thread.join(0.05)
        else:
            until(lambda thread=thread: "poll" in (_where(thread) or "") or not thread.is_alive())  # type: ignore[misc]


def until_asleep(*threads: threading.Thread) -> None:
    """Wait until every one of ``threads`` has come to wait for something, be it a lock or the network: it sleeps (and
    does not only want a processor that others have), and has not run for a moment."""
    until_asleep_or_over(*threads)
    for thread in threads:
        assert thread.is_alive(), "it did not wait"


def until_asleep_or_over(*threads: threading.Thread) -> None:
    """`until_asleep`, of threads that need not wait."""
    for thread in threads:
        seen: list[str] = []

        def rests(thread: threading.Thread = thread, seen: list[str] = seen) -> bool:
            thread.join(0.02)
            seen.append(_switches(thread))
            return not thread.is_alive() or len(seen) > 1 and seen[-1] == seen[-2] and "State:\tR" not in seen[-1]

        until(rests)


def _switches(thread: threading.Thread) -> str:
    """Its state, and how often it has given the processor away, or was taken it from; always the same where that cannot
    be told."""
    try:
        with open(f"/proc/self/task/{thread.native_id}/status") as status:
            return "".join(line for line in status if "ctxt_switches" in line or line.startswith("State:"))
    except OSError:
        return ""


def _where(thread: threading.Thread) -> str | None:
    """The function of the kernel's that a thread sleeps in, ``""`` if it runs."""
    try:
        with open(f"/proc/self/task/{thread.native_id}/wchan") as wchan:
            name = wchan.read()
        with open(f"/proc/self/task/{thread.native_id}/stat") as stat:
            state = stat.read().rpartition(")")[2].split()[0]
    except OSError:
        return None
    if state != "S":
        return ""
    return None if name == "0" else name
