"""The packets that a client receives, as an iterator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol, TypeVar

from ..checks import check_timeout
from ..deadline import Deadline
from ..errors import EndOfStream

__all__ = ["ReceivedPackets"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Source(Protocol[R_co]):
    """A client."""

    def _wait_for_packet(self, deadline: Deadline) -> None:
        """Wait until `recv_packet` need not wait, unless another thread is faster. Raises ``TimeoutError``."""

    def _take_packet(self) -> R_co:
        """`recv_packet`, with ``BlockingIOError`` where it would wait."""

    def recv_packet(self, *, timeout: float | None = None) -> R_co:
        """The next packet."""


class ReceivedPackets(Iterator[R]):
    """Ends at the end of the stream, or once ``timeout`` seconds in all have been spent waiting (``None``: never).

    It may be asked again after it raised, which a generator may not. Where time counts, waiting, counting and taking
    are three steps, so that an interrupt loses no packet.
    """

    def __init__(self, source: Source[R], timeout: float | None) -> None:
        check_timeout(timeout)
        self._source = source
        self._left = timeout

    def __next__(self) -> R:
        if self._left is None:
            try:
                return self._source.recv_packet()
            except EndOfStream:
                raise StopIteration from None
        while True:
            self._wait()
            try:
                return self._source._take_packet()
            except EndOfStream:
                raise StopIteration from None
            except BlockingIOError:
                pass  # another thread has taken it, or it was not for us

    def _wait(self) -> None:
        started = time.monotonic()
        deadline = Deadline(self._left)
        try:
            self._source._wait_for_packet(deadline)
        except TimeoutError:
            if not deadline.expired:
                raise  # a signal handler raised it
            raise StopIteration from None
        except EndOfStream:
            raise StopIteration from None
        finally:
            assert self._left is not None
            self._left = max(0.0, self._left - (time.monotonic() - started))
