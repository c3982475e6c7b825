"""What the connections of a packet server know of it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

from ..packets.codec import Decoder
from ..reactor.handshaking import PendingHandshakes
from ..reactor.reactor import Reactor

__all__ = ["Home", "TLSTerms", "Terms"]


@dataclass(frozen=True)
class Terms:
    """What holds for all of them."""

    io: Reactor
    encode: Callable[[Any], bytes]
    decoder: Callable[[], Decoder[Any]]
    decodes_in_steps: bool
    """Whether the decoder is a user's, which does not run on the loop if there are workers."""
    has_workers: bool
    tasks: Collection[Any]
    """Who else waits for a worker."""
    idle_timeout: float | None
    send_hwm_bytes: int
    send_timeout: float
    handshakes: PendingHandshakes


@dataclass(frozen=True)
class TLSTerms:
    """What holds for those that one listener accepts."""

    context: ssl.SSLContext | None
    autostart: bool
    standard_compatible: bool
    timeout: float | None


class Home(Protocol):
    """The server. What is not said to be the loop's may be called in any thread."""

    _stopping: bool
    """It comes to its end."""
    _finishing: bool
    """And the loop knows: nothing is read any more."""

    def _run_by_worker(self, task: Callable[[], None]) -> None:
        """Have a worker run ``task``. On the loop."""

    def _run_later(self, task: Callable[[], None]) -> None:
        """The same, behind all others. In a worker."""

    def _bad_packet(self) -> None:
        """Count one."""

    def _step_failed(self, service: Any, error: BaseException, *, expected: bool) -> None:
        """Tell of what has left a handler; ``expected`` is what was raised in it, and not caught."""

    def _handler_failed(self, address: Any, error: BaseException, *, expected: bool) -> None:
        """Count what should not have happened, and tell."""

    def _handshake_failed(self, address: Any, error: OSError) -> None:
        """Count it, and tell. On the loop."""

    def _given_up(self, kind: str, address: Any, why: str, *, usual: bool = False) -> None:
        """A connection is closed because of what the client does not do."""

    def _forget(self, service: Any) -> None:
        """A connection is gone. On the loop."""
