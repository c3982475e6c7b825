"""What the clients of a packet server know of it, without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Home"]


class Home:
    """The server: it notes what it is told, and what is for its workers."""

    def __init__(self) -> None:
        self._stopping = False
        self._finishing = False
        self.tasks: list[Callable[[], None]] = []
        self.told: list[Any] = []

    def _run_by_worker(self, task: Callable[[], None]) -> None:
        self.tasks.append(task)

    _run_later = _run_by_worker

    def _bad_packet(self) -> None:
        self.told.append("bad packet")

    def _step_failed(self, service: Any, error: BaseException, *, expected: bool) -> None:
        self.told.append((type(error), expected))

    def _handler_failed(self, address: Any, error: BaseException, *, expected: bool) -> None:
        self.told.append("handler failed")

    def _handshake_failed(self, address: Any, error: OSError) -> None:
        self.told.append("handshake failed")

    def _given_up(self, kind: str, address: Any, why: str, *, usual: bool = False) -> None:
        self.told.append(kind)

    def _forget(self, service: Any) -> None:
        self.told.append("gone")
