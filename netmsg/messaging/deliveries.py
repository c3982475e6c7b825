"""What `Søcket.recv_delivery` returns."""

from __future__ import annotations

from typing import Protocol

from .credit import Credit
from .inbox import Batch

__all__ = ["Delivery", "Settler"]


class Settler(Protocol):
    """The receiving half, as a delivery sees it."""

    def settle(self, delivery: Delivery, accept: bool) -> None:
        """Acknowledge or refuse it. From any thread; raises `ClosedError`, `ForkedError`."""


class Delivery:
    """One received message, and the means to answer for it."""

    __slots__ = ("_credit", "_message_id", "_settled", "_settler", "data", "identity", "is_request")

    def __init__(self, settler: Settler, batch: Batch, data: bytes, message_id: bytes | None) -> None:
        self.data = data
        self.identity = batch.identity
        """The sender's."""
        self.is_request = False
        """Whether the sender waits for a `reply`."""
        self._settler = settler
        self._credit: Credit | None = batch.credit
        self._message_id = message_id
        self._settled = False  # set by the network thread: who is interrupted on the way there can say it again

    def ack(self) -> None:
        """Acknowledge it: the sender need not keep it any longer. At once, idempotent, from any thread.

        Nothing to do for a message that was sent at most once, or unless acknowledgement is ``AckMode.MANUAL``.
        Raises `ClosedError`.
        """
        self._settler.settle(self, True)

    def nack(self) -> None:
        """Refuse it: when the sender sends it again it will be delivered again. At once, idempotent, from any thread.

        Raises `ClosedError`.
        """
        self._settler.settle(self, False)

    def reply(self, data: bytes) -> None:
        """Answer a request."""
        raise NotImplementedError("request/reply is not there yet")

    def __repr__(self) -> str:
        return f"<Delivery of {len(self.data)} bytes from {self.identity.hex()}>"
