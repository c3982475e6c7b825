"""TLS in the middle of a connection (STARTTLS)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ..reactor.channel import Channel
from ..reactor.handshaking import PendingHandshakes
from ..reactor.reactor import Reactor, Timer
from ..transports.encrypted import TLSTransport
from .send_queue import SendQueue
from .steps import Steps

__all__ = ["Upgrade"]


class Upgrade:
    """One client's, from when its handler asks for it: what was sent before goes in the clear, then comes the
    handshake, and what is sent from then on waits for its end. ``too_slow`` is called on the loop if that has not come
    within ``timeout`` seconds: the client may not even have taken what was to go before."""

    __slots__ = ("_channel", "_queue", "_steps", "_transport", "_at", "_too_slow", "_timer")

    def __init__(self, channel: Channel, queue: SendQueue, steps: Steps, transport: TLSTransport,
                 timeout: float | None, too_slow: Callable[[], None]) -> None:
        self._channel = channel
        self._queue = queue
        self._steps = steps
        self._transport = transport
        self._at = time.monotonic() + timeout if timeout is not None else math.inf
        self._too_slow = too_slow
        self._timer: Timer | None = None

    def begin(self) -> None:
        """In a step."""
        self._queue.hold()  # before anybody can begin the handshake
        self._steps.upgrading = True

    def is_over(self) -> bool:
        """Whether there is nothing to wait for any more. In any thread."""
        return not self._steps.upgrading or self._steps.closed or self._steps.ending is not None

    def look(self, io: Reactor, pending: PendingHandshakes) -> bool:
        """Begin the handshake if it is time: whether that was so. On the loop."""
        steps, queue, channel = self._steps, self._queue, self._channel
        left = max(0.0, self._at - time.monotonic())
        if self._timer is None and not self.is_over():
            self._timer = io.call_later(left, self._too_slow)
        wanted = queue.later or not steps.closed
        if channel.shaking:
            if not (wanted or steps.busy):
                channel.cancel_handshake()  # there is nothing to be sent under TLS; if there will be, it goes on
            return False
        if steps.ending is not None or not wanted or queue.in_the_clear:
            return False
        for chunk in steps.unread:
            self._transport.feed(chunk)  # a ClientHello that did not wait
        steps.unread.clear()
        channel.upgrade(self._transport, None if left == math.inf else left, pending)
        return True

    def cancel(self) -> None:
        """It is over, or has failed. On the loop."""
        if self._timer is not None:
            self._timer.cancel()
