"""Where the steps of one client run: in a worker, or on the loop if there are no workers."""

from __future__ import annotations

import time
from threading import get_ident
from typing import Protocol

from ..reactor.channel import Channel
from .alarm import NEVER, Alarm
from .backpressure import Backpressure
from .packet_home import Home, Terms
from .send_queue import SendQueue
from .steps import FINISHED, OVER, RESTING, STEPPING, Steps

__all__ = ["StepRunner"]


class Service(Protocol):
    """What sees to everything else, on the loop."""

    def look(self) -> None:
        """Something has changed."""

    def _finish(self) -> None:
        """A step has come to its end, and the server comes to its own."""

    def _crashed(self, error: Exception) -> None:
        """A step has failed: close."""


class StepRunner:
    """Runs the `Steps` of one client, one step at a time, each in one thread."""

    __slots__ = ("alarm", "corked", "thread", "_service", "_home", "_terms", "_steps", "_channel", "_queue",
                 "_backpressure")

    def __init__(self, service: Service, home: Home, terms: Terms, steps: Steps, channel: Channel, queue: SendQueue,
                 backpressure: Backpressure) -> None:
        self.alarm = Alarm()
        """Rings for a handler, or a server, that has waited for a packet for long enough."""
        self.corked = False
        """Whether what the loop sends goes all at once, in the end of a step of its."""
        self.thread: int | None = None
        """Which one is in a step."""
        self._service: Service | None = service
        self._home = home
        self._terms = terms
        self._steps = steps
        self._channel = channel
        self._queue = queue
        self._backpressure = backpressure

    def schedule(self) -> None:
        """Have a step. On the loop."""
        steps = self._steps
        if steps.state is RESTING:
            steps.state = STEPPING
        if self._terms.has_workers:
            self._home._run_by_worker(self._step)
            return
        self.corked = True
        self._step()
        self.corked = False
        queue = self._queue
        if queue.buffers:
            with queue.lock:
                queue.go_on()
            if (queue.blocked or queue.failure is not None) and self._service is not None:
                self._terms.io.call(self._service.look)

    def _step(self) -> None:
        service, home, terms = self._service, self._home, self._terms
        steps, channel, alarm = self._steps, self._channel, self.alarm
        if service is None:
            return  # it was cut before it could begin
        self.thread = get_ident()
        if steps.run(time.monotonic if self.corked else None):
            self._give_way()
            return
        handler = steps.handler
        if handler.finished or home._stopping and not steps.has_received:
            steps.closed = True
        if steps.driven and (handler.timeout is not None or terms.idle_timeout is not None or alarm.at != NEVER):
            self.expect_packet()
        timer = alarm.timer
        self.thread = None
        if steps.state is not OVER:
            steps.state = FINISHED if handler.finished else RESTING  # and from here on it is the loop's
        if home._stopping:
            terms.io.call(service._finish)
        elif (steps.closed or channel.paused or channel.more or steps.packets or steps.unread
                or steps.ending is not None or steps.upgrading
                or self._queue.size >= terms.send_hwm_bytes and self._backpressure.behind
                or alarm.at != NEVER and (timer is None or timer.at > alarm.at)):
            terms.io.call(service.look)

    def _give_way(self) -> None:
        """Go on behind the others."""
        if self._steps.driven:
            self.expect_packet()  # what has come need not be a whole packet
        self.thread = None
        if self.corked:
            self._terms.io.call(self.schedule)
        else:
            self._home._run_later(self._step)

    def expect_packet(self) -> None:
        """Have the time begin in which the handler wants a packet."""
        wait = self._steps.handler.timeout
        self.alarm.expect(self._terms.idle_timeout if wait is None else wait)

    def end(self) -> None:
        """Nothing is left of the client. On the loop."""
        self._service = None

    def _crashed(self, error: Exception) -> None:
        if self._service is not None:
            self._service._crashed(error)
