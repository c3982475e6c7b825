"""What a Søcket receives, as an iterator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ..errors import ClosedError

__all__ = ["UntilClosed"]

T = TypeVar("T")


class UntilClosed(Iterator[T], Generic[T]):
    """Calls until the Søcket is closed. Unlike a generator it can go on after an interrupt, and after an error."""

    def __init__(self, take: Callable[[], T]) -> None:
        self._take = take

    def __next__(self) -> T:
        try:
            return self._take()
        except ClosedError:
            raise StopIteration from None
