"""TLS handshakes under way: how many, and which are given up."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from netmsg.reactor import handshaking
from netmsg.reactor.handshaking import PendingHandshakes


class Stub:
    """In the place of a handshake."""

    def __init__(self, pending: PendingHandshakes) -> None:
        self.pending = pending
        self.given_up = False
        self.ours, self.theirs = socket.socketpair()

    def fileno(self) -> int:
        return self.ours.fileno()

    def give_up(self) -> None:
        self.given_up = True
        self.pending.discard(self)  # type: ignore[arg-type]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Stub]]:
    monkeypatch.setattr(handshaking, "MOST_PENDING", 3)
    pending: Any = PendingHandshakes()
    stubs: list[Stub] = []

    def make() -> Stub:
        stub = Stub(pending)
        stubs.append(stub)
        pending.add(stub)
        return stub

    yield make
    for stub in stubs:
        stub.ours.close()
        stub.theirs.close()


def given_up(stubs: list[Stub]) -> list[int]:
    return [number for number, stub in enumerate(stubs) if stub.given_up]


def test_the_oldest_goes_when_there_are_too_many(begin: Callable[[], Stub]) -> None:
    stubs = [begin() for _ in range(3)]
    assert given_up(stubs) == []
    stubs += [begin() for _ in range(2)]
    assert given_up(stubs) == [0, 1]


def test_who_waits_for_this_end_is_spared(begin: Callable[[], Stub]) -> None:
    stubs = []
    for number in range(6):
        stubs.append(begin())
        if number in (0, 1, 2, 4):
            stubs[-1].theirs.send(b"hello")
    # The fourth had three before it that were spared; the newest itself never goes.
    assert given_up(stubs) == [3]
    stubs += [begin(), begin()]
    assert given_up(stubs) == [3, 5, 6]


def test_but_not_twice_as_many(begin: Callable[[], Stub]) -> None:
    stubs = []
    for _ in range(10):
        stubs.append(begin())
        stubs[-1].theirs.send(b"hello")
    assert given_up(stubs) == [0, 1, 2, 3]


def test_who_has_ended_does_not_count(begin: Callable[[], Stub]) -> None:
    stubs = []
    for _ in range(10):
        stubs.append(begin())
        stubs[-1].pending.discard(stubs[-1])  # type: ignore[arg-type]
    assert given_up(stubs) == []
