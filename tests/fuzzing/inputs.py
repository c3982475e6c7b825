"""What the bytes of an input mean: one of choices, one that says where the rest is cut, and the rest."""

from __future__ import annotations

import random
from typing import Final

from support.envelopes import pieces

__all__ = ["BY_BYTES", "Input", "WHOLE", "written"]

WHOLE: Final = 0
BY_BYTES: Final = 1
"""Ways to cut; any other one is the seed of some cuts."""
MOST_BY_BYTES: Final = 300
"""What is cut into single bytes is that at most, and what follows comes in one piece."""
BEGINNING: Final = 40
"""Of the other cuts, half are within so many bytes, where most headers are."""


class Input:
    def __init__(self, data: bytes) -> None:
        self.choice = data[0] if data else 0
        self._cut = data[1] if len(data) > 1 else WHOLE
        self.data = data[2:]

    def pieces(self) -> list[bytes]:
        size = len(self.data)
        if self._cut == WHOLE:
            return [self.data]
        if self._cut == BY_BYTES:
            return pieces(self.data, range(1, min(size, MOST_BY_BYTES)))
        draw = random.Random(self._cut)
        return pieces(self.data, [draw.randint(0, min(size, BEGINNING) if number % 2 else size)
                                  for number in range(1 + self._cut % 8)])


def written(data: bytes, choice: int = 0, cut: int = WHOLE) -> bytes:
    """An input, for the corpus."""
    return bytes((choice, cut)) + data
