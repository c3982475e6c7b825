"""Happy eyeballs (RFC 8305): try the addresses of a host side by side, a little apart, and keep the first to answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .addresses import Address

__all__ = ["ATTEMPT_DELAY", "Race", "interleave"]

ATTEMPT_DELAY: Final = 0.25
"""Seconds that an attempt has to itself."""


def interleave(addresses: Sequence[Address]) -> list[Address]:
    """Alternate between the families, beginning with that of the first address; the order within each is kept."""
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    queues = list(families.values())
    return [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]


class Race:
    """Which address to try when. Pure: handed ``now``, in seconds.

    An attempt starts ``delay`` seconds after the one before, or at once when that failed.
    """

    def __init__(self, addresses: Sequence[Address], delay: float = ATTEMPT_DELAY) -> None:
        self.failures: list[tuple[Address, OSError]] = []
        self._waiting = interleave(addresses)
        self._delay = delay
        self._running = 0
        self.next_at: float | None = 0.0 if self._waiting else None
        """When to ask `start` again; ``None`` when all have been started."""

    def start(self, now: float) -> Address | None:
        """The address to try now, if it is time for one."""
        if self.next_at is None or now < self.next_at:
            return None
        self._running += 1
        address = self._waiting.pop(0)
        self.next_at = now + self._delay if self._waiting else None
        return address

    def failed(self, address: Address, error: OSError, now: float) -> None:
        """An attempt came to nothing: the next may start at once."""
        self._running -= 1
        self.failures.append((address, error))
        if self._waiting:
            self.next_at = now

    @property
    def lost(self) -> bool:
        """Whether every address has been tried in vain."""
        return not self._running and not self._waiting
