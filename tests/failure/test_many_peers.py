"""Very many peers: they cost no thread, and do not all come back at the same moment."""

from __future__ import annotations

import itertools
import os
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from support.pairs import TIMEOUT, until

from netmsg import IOThread, Retrying, SendMode, Søcket

CONNECTORS = 500
WATCHED = 60.0 if os.environ.get("NETMSG_SOAK") else 2.5
"""Seconds for which the server is away."""

SETTLED = 1.0
"""Seconds after which the first few attempts, close behind each other, are over."""


@contextmanager
def descriptors_for(count: int) -> Iterator[None]:
    """Skips the test if there are not as many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        pytest.skip(f"fewer than {count} descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def attempts(port: int) -> list[float]:
    """When somebody has dialled, while nobody is there but who hangs up: seconds from the first one on."""
    with socket.create_server(("127.0.0.1", port), backlog=2 * CONNECTORS) as listener:
        listener.settimeout(TIMEOUT)
        listener.accept()[0].close()
        begun = time.monotonic()
        came = [0.0]
        while came[-1] < WATCHED:
            listener.accept()[0].close()
            came.append(time.monotonic() - begun)
        return came


def fourth_delay(sock: Søcket) -> float:
    """The seconds for which it has decided to wait, after four attempts in vain."""
    delays = (event.delay for event in sock.events(timeout=TIMEOUT) if isinstance(event, Retrying))
    return next(itertools.islice(delays, 3, None))


@pytest.mark.timeout(WATCHED + 120)
def test_five_hundred_come_back_after_a_restart_spread_out_and_at_no_cost() -> None:
    with descriptors_for(3 * CONNECTORS), IOThread() as io, ExitStack() as stack:
        server = stack.enter_context(Søcket(linger=0)).bind(port=0)
        port = server.bound_port
        connectors = [stack.enter_context(Søcket(io_thread=io, linger=0)).connect(port=port) for _ in range(CONNECTORS)]
        server.wait_for_peers(CONNECTORS, timeout=40)
        threads, opened = threading.active_count(), descriptors()
        server.close()
        late = [when for when in attempts(port) if when > SETTLED]
        assert CONNECTORS / 4 < len(late) < 4 * CONNECTORS * WATCHED, "they try, and not all the time"
        delays = [fourth_delay(connector) for connector in connectors]
        tenths = Counter(int(10 * delay) for delay in delays if delay < 0.8)
        assert len(tenths) == 8 and max(tenths.values()) < CONNECTORS / 3, "spread out, and not all at once"
        again = stack.enter_context(Søcket(linger=0)).bind(port=port)
        again.wait_for_peers(CONNECTORS, timeout=60)
        until(lambda: threading.active_count() <= threads and descriptors() <= opened)
        assert all(connector.stats().dropped == {} for connector in connectors)


@pytest.mark.timeout(150)
def test_two_thousand_are_served_by_one_thread() -> None:
    count = 2000
    with descriptors_for(3 * count), IOThread() as io, Søcket(SendMode.PUBLISH, linger=0).bind(port=0) as hub:
        with ExitStack() as stack:
            peers = [stack.enter_context(Søcket(io_thread=io, linger=0)).connect(port=hub.bound_port)
                     for _ in range(count)]
            hub.wait_for_peers(count, timeout=60)
            assert sum(thread.name.startswith("netmsg-") for thread in threading.enumerate()) == 2
            hub.send(b"to all")
            assert [peer.recv(timeout=TIMEOUT) for peer in peers] == [b"to all"] * count
            for peer in peers:
                peer.send(b"from each")
            assert [hub.recv(timeout=TIMEOUT) for _ in peers] == [b"from each"] * count
