"""A time that is put off again and again, and seldom comes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from ..reactor.reactor import Reactor, Timer

__all__ = ["Alarm", "NEVER"]

NEVER: Final = math.inf


class Alarm:
    """Most waits end before their time is up, so there is one timer for all of them, which looks again when it fires.
    Any thread may `expect`, one at a time; then, unless ``timer`` fires before, the loop is to `arm` it."""

    __slots__ = ("at", "timer")

    def __init__(self) -> None:
        self.at = NEVER
        """When the time is up (``time.monotonic()``)."""
        self.timer: Timer | None = None

    def expect(self, seconds: float | None) -> None:
        """The time is up in so many seconds from now, or never."""
        self.at = NEVER if seconds is None else time.monotonic() + seconds

    def arm(self, io: Reactor, fire: Callable[[], None]) -> None:
        """Have ``fire`` called when the time is up, or before."""
        timer = self.timer
        if self.at == NEVER or timer is not None and timer.at <= self.at:
            return
        self.cancel()
        self.timer = io.call_later(max(0.0, self.at - time.monotonic()), fire)

    def fired(self, io: Reactor, fire: Callable[[], None]) -> bool:
        """Whether the time is up, now that ``fire`` has been called."""
        self.timer = None
        if self.at <= time.monotonic():
            return True
        self.arm(io, fire)
        return False

    def cancel(self) -> None:
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()
