"""`IOThread.close` in a signal handler that has come in the middle of a call which holds a lock."""

from __future__ import annotations

import sys
from types import FrameType

from support.pairs import TIMEOUT, Background

from netmsg import ClosedError, DeliveryGuarantee, IOThread, Søcket
from netmsg.messaging.routing import Router


def test_it_waits_for_nothing_that_it_has_interrupted() -> None:
    io = IOThread()
    closed = []

    def interrupt(frame: FrameType, event: str, argument: object) -> None:
        if frame.f_code is Router.place.__code__:
            sys.setprofile(None)
            io.close(timeout=None)
            closed.append(io.closed)

    with Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, io_thread=io, linger=0) as sock:
        sock.bind(port=0)
        sys.setprofile(interrupt)
        try:
            sock.send(b"message", timeout=TIMEOUT)
        except ClosedError:
            pass
        finally:
            sys.setprofile(None)
        assert closed == [True]
    Background(io.close, timeout=TIMEOUT).result()
