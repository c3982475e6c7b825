"""Receipts: what an at-least-once send returns."""

from __future__ import annotations

from typing import Protocol

from ..deadline import Deadline
from ..errors import UndeliveredError

__all__ = ["Keeper", "Receipt"]


class Keeper(Protocol):
    """Who keeps the message until it is acknowledged: the sending half."""

    def is_outstanding(self, message_id: bytes) -> bool:
        """Whether it is neither acknowledged nor given up on."""

    def wait_for_receipt(self, receipt: Receipt, deadline: Deadline) -> bool:
        """Wait until that is decided; false at the deadline."""

    def trouble(self) -> str:
        """What is wrong with the endpoints, for the text of an error."""


class Receipt:
    """The proof, to come, that one message was delivered. May be kept or thrown away, and used from any thread."""

    __slots__ = ("_failed", "_keeper", "message_id")

    def __init__(self, keeper: Keeper, message_id: bytes) -> None:
        self._keeper = keeper
        self._failed = ""
        self.message_id = message_id
        """16 bytes, the same on every resend."""

    @property
    def acked(self) -> bool:
        """Whether the receiver has acknowledged the message."""
        # In this order: who gives it up says so before it is outstanding no more.
        return not self._keeper.is_outstanding(self.message_id) and not self._failed

    @property
    def failed(self) -> bool:
        """Whether the message was given up on: dropped, resent too often, or unacknowledged at close."""
        return bool(self._failed)

    def wait(self, *, timeout: float | None = None) -> None:
        """Block until the message is acknowledged.

        ``timeout`` in seconds. Raises ``TimeoutError`` when it runs out (the message is still on its way, and the error
        says what is wrong with the endpoints), and `UndeliveredError` when the message is given up on, at
        `Søcket.close` for example.
        """
        deadline = Deadline(timeout)
        if not self._keeper.wait_for_receipt(self, deadline):
            raise TimeoutError(f"message {self.message_id.hex()} was not acknowledged within {timeout:g} s"
                               f"{self._keeper.trouble()}")
        if self._failed:
            raise UndeliveredError(self._failed)

    @property
    def _settled(self) -> bool:
        """For the engine: whether it is decided."""
        return bool(self._failed) or not self._keeper.is_outstanding(self.message_id)

    def _fail(self, reason: str) -> None:
        """For the engine: the message is given up on."""
        self._failed = reason

    def __repr__(self) -> str:
        state = "failed" if self._failed else "acked" if self.acked else "outstanding"
        return f"<Receipt {self.message_id.hex()} {state}>"
