"""Sending replies on behalf of those who must not be kept waiting by one asker for long."""

from __future__ import annotations

from typing import Final

from ..errors import SendTimeoutError
from .arguments import Buffer
from .deliveries import Delivery

__all__ = ["Replies"]

MOST_DEAF: Final = 10_000


class Replies:
    """Whoever does not take his replies is waited for once, and not again before he has taken some: otherwise he would
    keep all workers from the others. ``patience`` is in seconds. From any thread."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._deaf: set[bytes] = set()

    def send(self, delivery: Delivery, answer: Buffer | None) -> None:
        """`Delivery.reply`, and what that raises."""
        asker = delivery.identity
        try:
            delivery.reply(answer, timeout=0 if asker in self._deaf else self._patience)  # type: ignore[arg-type]
        except SendTimeoutError:
            if len(self._deaf) >= MOST_DEAF:
                self._deaf.clear()
            self._deaf.add(asker)
            raise
        self._deaf.discard(asker)
