"""Steps that an interrupt (Ctrl-C) must not cut."""

from __future__ import annotations

from _thread import start_new_thread
from collections.abc import Callable

from .deadline import Deadline
from .interrupts import in_main_thread
from .waiting import Waiters

__all__ = ["aside"]


def aside(step: Callable[[], None]) -> None:
    """Call ``step()`` where no interrupt can come, and wait for it; raises what it raises.

    From the main thread it is called in another one. An interrupt ends the waiting and not the step, which is done
    either wholly or not at all. Above all for starting threads: ``Thread.start`` waits in a ``Condition`` for the new
    one, so that who is interrupted in there does not know whether it runs.
    """
    if not in_main_thread():
        step()
        return
    outcome: list[BaseException | None] = []
    waiters = Waiters()

    def take() -> None:
        try:
            step()
        except BaseException as error:
            outcome.append(error)
        else:
            outcome.append(None)
        waiters.notify_all()

    start_new_thread(take, ())
    waiters.wait(lambda: outcome, Deadline(None))
    error = outcome.pop()
    if error is not None:
        try:
            raise error
        finally:
            del error  # or it would keep itself alive, by this frame
