"""Waiting for sockets, being woken, and who closes the descriptors in the end."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest
from support.blocking import until_polling
from support.pairs import TIMEOUT, Background, until

from netmsg.deadline import Deadline
from netmsg.errors import ConnectionBrokenError
from netmsg.sockets import waiting
from netmsg.sockets.waiting import READ, WRITE, Occupancy, WakeUp, ready_sockets
from netmsg.waiting import ONE


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


# Waiting

def test_what_is_ready_is_told_and_nothing_else(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    assert ready_sockets({one.fileno(): READ | WRITE}, None, Deadline(TIMEOUT)) == [(one.fileno(), WRITE)]
    other.sendall(b"x")
    found = ready_sockets({one.fileno(): READ, other.fileno(): READ}, None, Deadline(TIMEOUT))
    assert found == [(one.fileno(), READ)]


@pytest.mark.parametrize("timeout", [0, 0.01, 0.12])
@pytest.mark.parametrize("where", ["the main thread", "another"])
def test_a_deadline_is_kept_however_it_is_cut_into_pieces(timeout: float, where: str,
                                                          ends: tuple[socket.socket, socket.socket]) -> None:
    def wait() -> None:
        deadline = Deadline(timeout)
        assert ready_sockets({ends[0].fileno(): READ}, None, deadline) is None
        assert deadline.expired

    wait() if where == "the main thread" else Background(wait).result()


def test_the_end_of_the_other_side_and_a_closed_descriptor(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    other.close()
    (found, events), = ready_sockets({one.fileno(): READ}, None, Deadline(TIMEOUT)) or []
    assert found == one.fileno() and events & READ
    descriptor = one.fileno()
    one.close()
    with pytest.raises(ConnectionBrokenError):
        ready_sockets({descriptor: READ}, None, Deadline(TIMEOUT))


def refuse() -> None:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("descriptors", ["enough", "none left"])
def test_whoever_waits_is_woken_and_so_is_whoever_comes_later(descriptors: str, monkeypatch: pytest.MonkeyPatch,
                                                              ends: tuple[socket.socket, socket.socket]) -> None:
    if descriptors == "none left":
        monkeypatch.setattr(waiting, "Signal", refuse)
    wake_up = WakeUp()
    threads = [Background(wake_up.wait, {end.fileno(): READ}, Deadline(TIMEOUT)) for end in (*ends, *ends)]
    wake_up.set()
    assert [thread.result() for thread in threads] == [[]] * 4
    assert wake_up.wait({ends[0].fileno(): READ}, Deadline(None)) == []
    wake_up.close()


@pytest.mark.parametrize("descriptors", ["enough", "none left"])
def test_whoever_waits_looks_again_when_something_is_left_to_others(
        descriptors: str, monkeypatch: pytest.MonkeyPatch, ends: tuple[socket.socket, socket.socket]) -> None:
    if descriptors == "none left":
        monkeypatch.setattr(waiting, "Signal", refuse)
    wake_up = WakeUp()
    left: list[object] = []
    for _ in range(3):
        threads = [Background(wake_up.ready, {ends[0].fileno(): READ}, Deadline(TIMEOUT), left) for _ in range(4)]
        until_polling(*threads)
        left += (object(),)
        for signal in wake_up.signals[:1]:
            os.write(signal.ends[-1], ONE)
        assert [thread.result() for thread in threads] == [[]] * 4
        assert wake_up.ready({ends[0].fileno(): READ}, Deadline(None), left) == []
        left.clear()
        assert wake_up.ready({ends[0].fileno(): READ}, Deadline(0), left) is None  # it is no end
    wake_up.close()


# Who closes

class Held:
    """An object with a descriptor."""

    def __init__(self) -> None:
        self.occupancy = Occupancy()
        self.ends = socket.socketpair()
        self.disposed = 0

    def wait(self) -> list[tuple[int, int]]:
        claim = object()
        try:
            self.occupancy.inside[claim] = None
            return self.occupancy.wake_up.wait({self.ends[0].fileno(): READ}, Deadline(TIMEOUT))
        finally:
            del self.occupancy.inside[claim]
            if self.occupancy.closing:
                self.occupancy.left(self.dispose)

    def dispose(self) -> None:
        self.disposed += 1
        for end in self.ends:
            end.close()

    def close(self) -> None:
        self.occupancy.close(self.dispose)


def test_the_last_to_leave_closes() -> None:
    held = Held()
    staying = object()
    held.occupancy.inside[staying] = None
    threads = [Background(held.wait) for _ in range(3)]
    until(lambda: len(held.occupancy.inside) == 4)
    held.close()
    assert [thread.result() for thread in threads] == [[]] * 3
    assert held.disposed == 0 and held.ends[0].fileno() >= 0 and not held.occupancy.over
    del held.occupancy.inside[staying]
    held.occupancy.left(held.dispose)
    assert held.disposed == 1 and held.ends[0].fileno() == -1 and held.occupancy.over


def test_closing_an_object_that_nobody_is_in_closes_at_once_and_again_does_no_harm() -> None:
    held = Held()
    descriptors = [end.fileno() for end in held.ends]
    held.close()
    held.close()
    for descriptor in descriptors:
        with pytest.raises(OSError):
            os.fstat(descriptor)


def test_closing_that_was_interrupted_is_finished_by_the_next() -> None:
    held = Held()
    dispose = held.dispose

    def interrupted() -> None:
        raise KeyboardInterrupt

    held.dispose = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        held.close()
    held.dispose = dispose  # type: ignore[method-assign]
    held.close()
    assert held.disposed == 1 and held.ends[0].fileno() == -1


def test_a_forked_child_closes_its_copies_whoever_was_inside() -> None:
    held = Held()
    held.occupancy.inside[object()] = None
    held.occupancy.forked(held.dispose)
    assert held.disposed == 1 and held.occupancy.closing and held.occupancy.over
