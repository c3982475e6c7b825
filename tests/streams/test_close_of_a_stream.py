"""Closing a stream while somebody is inside: the descriptor goes with the last to leave."""

from __future__ import annotations

import io
import os
import socket
from threading import Event
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background

from netmsg import ClosedError, SocketStream
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
