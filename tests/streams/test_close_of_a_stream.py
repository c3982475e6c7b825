"""Closing a stream while somebody is inside: the descriptor goes with the last to leave."""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import time
from contextlib import ExitStack
from threading import Event, get_ident
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, until

from netmsg import ClosedError, SocketStream, waiting
from netmsg.deadline import Deadline
from netmsg.streams.turns import Claim, Turn


class Slow(io.RawIOBase):
    """Keeps whoever writes to it."""

    def __init__(self) -> None:
        self.begun, self.may_go = Event(), Event()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.begun.set()
        assert self.may_go.wait(TIMEOUT)
        return len(data)


def test_who_leaves_just_when_close_has_waited_long_enough_leaves_no_descriptor(
        monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = socket.socketpair()
    with other, SocketStream.from_socket(one) as stream:
        descriptor = stream.fileno()
        other.sendall(b"x")
        file = Slow()
        receiving = Background(stream.receive_file, file)
        assert file.begun.wait(TIMEOUT)
        take = Turn.take

        def taking(turn: Turn, claim: Claim, deadline: Deadline, *, insist: bool = False) -> None:
            try:
                take(turn, claim, deadline, insist=insist)
            except TimeoutError:
                file.may_go.set()
                with pytest.raises(ClosedError):
                    receiving.result()
                raise

        monkeypatch.setattr(Turn, "take", taking)
        stream.close(timeout=0)
        with pytest.raises(OSError):
            os.fstat(descriptor)


class Paused:
    """The module ``os``, of which ``write`` takes its time in one thread."""

    def __init__(self) -> None:
        self.about_to, self.may_go_on = Event(), Event()
        self.who: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, descriptor: int, data: bytes) -> int:
        if get_ident() == self.who:
            self.about_to.set()
            assert self.may_go_on.wait(TIMEOUT)
        return os.write(descriptor, data)


@pytest.mark.parametrize("second", ["close", "abort"])
def test_who_wakes_the_others_writes_to_no_strangers_descriptor(monkeypatch: pytest.MonkeyPatch, second: str) -> None:
    one, other = socket.socketpair()
    stream = SocketStream.from_socket(one)
    with pytest.raises(TimeoutError):
        stream.receive(timeout=0.001)  # somebody has waited, and so there is something to wake by
    paused = Paused()
    monkeypatch.setattr(waiting, "os", paused)

    def close_slowly() -> None:
        paused.who = get_ident()
        stream.close()

    first = Background(close_slowly)
    assert paused.about_to.wait(TIMEOUT)
    getattr(stream, second)()
    with ExitStack() as strangers:
        ends = [strangers.enter_context(end) for _ in range(5) for end in socket.socketpair()]
        paused.may_go_on.set()
        first.result()
        for end in ends:
            end.setblocking(False)
            with pytest.raises(BlockingIOError):
                end.recv(100)
    assert other.recv(1) == b""
    other.close()


def test_close_in_a_signal_handler_does_not_wait_behind_the_call_that_it_interrupts() -> None:
    one, other = socket.socketpair()
    with other, SocketStream.from_socket(one) as stream:
        other.sendall(b"x")
        file = Slow()
        receiving = Background(stream.receive_file, file)
        assert file.begun.wait(TIMEOUT)
        seconds = []

        def close(*_: Any) -> None:
            began = time.monotonic()
            stream.close(timeout=60)
            seconds.append(time.monotonic() - began)
            file.may_go.set()

        main = get_ident()

        def strike() -> None:
            until(lambda: waits(main))
            signal.pthread_kill(main, signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, close)
        try:
            striking = Background(strike)
            with pytest.raises(ClosedError):
                stream.receive()
            striking.result()
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert seconds[0] < 5  # it would have been 10
        with pytest.raises(ClosedError):
            receiving.result()


def waits(thread: int) -> bool:
    frame = sys._current_frames().get(thread)
    return frame is not None and os.path.basename(frame.f_code.co_filename) == "waiting.py"
