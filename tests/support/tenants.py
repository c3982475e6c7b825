"""Users of the network thread."""

from __future__ import annotations

import threading

from netmsg.deadline import Deadline
from netmsg.reactor.reactor import Reactor


class Tenant:
    """Notes what it is told."""

    def __init__(self, io: Reactor) -> None:
        self.io = io
        self.failure: list[BaseException | None] = []
        self.ended = threading.Event()

    def _io_failed(self, cause: BaseException | None) -> None:
        self.failure.append(cause)
        self.io.detach(self)
        self.ended.set()

    def _io_closing(self, deadline: Deadline) -> None:
        self.io.detach(self)
        self.ended.set()
