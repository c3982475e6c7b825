"""What one identity has sent and nobody has taken yet, against the receive marks. Pure.

The marks belong to an identity and not to a connection: who connects again does not get a second allowance. Two
counters that only grow, each with one writer, so that neither side has to wait for the other: the network thread counts
what arrives, the takers, under the inbox's lock, what they take.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Credit"]

PAST_MARK: Final = 10_000
"""Messages that may be read beyond the mark while acknowledgements are waited for, which stand behind them: as many as
a peer with the default send mark has queued."""


class Credit:
    """The receive marks of one identity, and how much of them is used."""

    __slots__ = ("arrived", "arrived_bytes", "hwm", "hwm_bytes", "identity", "newest", "taken", "taken_bytes", "waits")

    def __init__(self, identity: bytes, hwm: int, hwm_bytes: int) -> None:
        self.identity = identity
        self.hwm = hwm
        self.hwm_bytes = hwm_bytes
        self.arrived = 0
        """Messages delivered to the inbox; less those that were answered for by hand. The network thread's."""
        self.arrived_bytes = 0
        self.taken = 0
        """Of those, what has been taken. The takers', under the inbox's lock."""
        self.taken_bytes = 0
        self.newest: object = None
        """The batch with its newest message, where only that is kept. The network thread's."""
        self.waits = False
        """Whether the network thread wants to hear of what is taken. Set by it, before it looks at the rest."""

    @property
    def pending(self) -> int:
        """Messages that nobody has taken yet."""
        return self.arrived - self.taken

    @property
    def pending_bytes(self) -> int:
        return self.arrived_bytes - self.taken_bytes

    def room(self, *, past_mark: bool = False) -> int:
        """How many more messages may be received now; ``past_mark``: as many again, for what stands behind them."""
        room = self.hwm - self.arrived + self.taken
        pending_bytes = self.arrived_bytes - self.taken_bytes
        if past_mark:
            return room + self.hwm + PAST_MARK if pending_bytes < 2 * self.hwm_bytes else 0
        return room if pending_bytes < self.hwm_bytes else 0
