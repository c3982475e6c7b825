"""What all servers have in common, without a network: how it ends when the network thread does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.loops import Loop

from netmsg import ClosedError
from netmsg.deadline import Deadline
from netmsg.servers.server import Server


class Thread(Loop):
    """In place of the network thread, with its users."""

    def __init__(self) -> None:
        super().__init__()
        self.users: list[Any] = []
        self.attach = self.users.append
        self.detach = self.users.remove

    def join(self, timeout: float | None) -> None:
        assert self.users == []


class Recorded(Server):
    """A server of nothing, with what it was told to do. It is never idle."""

    def __init__(self, io: Any) -> None:
        super().__init__(0, io)
        self.did: list[str] = []

    def _open(self) -> None:
        self.did.append("open")

    def _close_listeners(self) -> None:
        self.did.append("close listeners")

    def _finish_idle(self) -> None:
        self.did.append("finish idle")

    def _idle(self) -> bool:
        return False

    def _cut(self) -> None:
        self.did.append("cut")


@pytest.fixture
def io() -> Thread:
    return Thread()


@pytest.fixture
def server(io: Thread) -> Recorded:
    server = Recorded(io)
    server.start()
    io.run()
    assert (server.did, io.users) == (["open"], [server])
    server.did.clear()
    return server


@pytest.mark.parametrize("end", [lambda server: server._io_failed(None), lambda server: server._io_failed(OSError()),
                                 lambda server: server._crashed(ValueError())],
                         ids=["closed", "failed", "a step failed"])
def test_a_server_is_over_when_nothing_of_it_goes_on(server: Recorded, io: Thread,
                                                     end: Callable[[Server], None]) -> None:
    end(server)
    assert (server.did, io.users) == (["close listeners", "cut"], [])
    assert server.closed
    with pytest.raises(ClosedError):
        server.start()
    server.shutdown(timeout=None)  # nothing is left to be waited for


def test_it_ends_once(server: Recorded, io: Thread) -> None:
    server._io_failed(None)
    server._io_failed(None)
    server.shutdown(timeout=None)
    io.run()
    assert server.did.count("cut") == 1


def test_a_network_thread_that_is_closed_leaves_it_the_time_that_there_is(server: Recorded, io: Thread) -> None:
    server._io_closing(Deadline(20))
    assert server.closed
    assert server.did == ["close listeners", "finish idle"]
    io.wait(19)
    assert io.users == [server]
    io.wait(1.1)
    assert (server.did[2:], io.users) == (["cut"], [])
