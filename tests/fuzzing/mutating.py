"""Inputs made of those of a corpus: the same ones from the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["Mutator"]

LONGEST: Final = 6000
MOST_CHANGES: Final = 4
WIDTHS: Final = (1, 1, 2, 4, 4, 8)
"""Of numbers, in bytes."""


class Mutator:
    """Takes one input of the corpus, and changes it a few times."""

    def __init__(self, corpus: Sequence[bytes], seed: str) -> None:
        self._corpus = corpus
        self._draw = random.Random(seed)
        self._changes: tuple[Callable[[bytes], bytes], ...] = (
            self._flip, self._cut, self._shorten, self._insert, self._duplicate, self._splice, self._limit,
            self._off_by_little, self._length)

    def next(self) -> bytes:
        draw = self._draw
        data = draw.choice(self._corpus)
        for _ in range(draw.randint(1, MOST_CHANGES)):
            data = draw.choice(self._changes)(data)
        if draw.random() < 0.3:  # cut otherwise
            data = data[:1] + draw.randbytes(1) + data[2:]
        return data[:LONGEST]

    def _place(self, data: bytes) -> int:
        """Most of what parsers decide by stands at the beginning."""
        return self._draw.randint(0, min(len(data), 64) if self._draw.random() < 0.5 else len(data))

    def _stretch(self, data: bytes) -> tuple[int, int]:
        begin = self._place(data)
        return begin, min(len(data), begin + self._draw.choice((1, 2, 4, 16, 64, 512)))

    def _flip(self, data: bytes) -> bytes:
        at = self._place(data)
        return data[:at] + bytes(byte ^ 1 << self._draw.randrange(8) for byte in data[at:at + 1]) + data[at + 1:]

    def _cut(self, data: bytes) -> bytes:
        begin, end = self._stretch(data)
        return data[:begin] + data[end:]

    def _shorten(self, data: bytes) -> bytes:
        return data[:self._place(data)]

    def _insert(self, data: bytes) -> bytes:
        at = self._place(data)
        return data[:at] + self._draw.randbytes(self._draw.choice((1, 1, 2, 4, 16))) + data[at:]

    def _duplicate(self, data: bytes) -> bytes:
        begin, end = self._stretch(data)
        return data[:end] + data[begin:end] * self._draw.choice((1, 1, 2, 20)) + data[end:]

    def _splice(self, data: bytes) -> bytes:
        other = self._draw.choice(self._corpus)
        return data[:self._place(data)] + other[self._place(other):]

    def _limit(self, data: bytes) -> bytes:
        """A number where those of its width end."""
        width = self._draw.choice(WIDTHS)
        bits = 8 * width
        number = self._draw.choice((0, 1, (1 << bits - 1) - 1, 1 << bits - 1, (1 << bits) - 1))
        return self._number(data, number, width)

    def _off_by_little(self, data: bytes) -> bytes:
        at = self._place(data)
        width = self._draw.choice(WIDTHS)
        number = int.from_bytes(data[at:at + width], "big") + self._draw.choice((-2, -1, 1, 2))
        return data[:at] + (number % (1 << 8 * width)).to_bytes(width, "big") + data[at + width:]

    def _length(self, data: bytes) -> bytes:
        """A number that is nearly how much follows."""
        width = self._draw.choice(WIDTHS)
        return self._number(data, len(data) + self._draw.randint(-24, 2), width, less_place=True)

    def _number(self, data: bytes, number: int, width: int, less_place: bool = False) -> bytes:
        at = self._place(data)
        number -= at if less_place else 0
        return data[:at] + (number % (1 << 8 * width)).to_bytes(width, "big") + data[at + width:]
