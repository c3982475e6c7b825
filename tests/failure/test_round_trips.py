"""What an answer takes that nothing holds up: no time that is worth mentioning, however it travels.

It is the quickest of some that is looked at, for a busy machine may hold up any, and a fault of this kind holds up all.
"""

from __future__ import annotations

import os
import resource
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background

from netmsg import Søcket, connect_tcp, create_tcp_server

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
SIZE = 200_000


def quickest(ask: Callable[[], None]) -> float:
    """Of twenty, in seconds."""
    took = []
    for _ in range(20):
        begun = time.perf_counter()
        ask()
        took.append(time.perf_counter() - begun)
    return min(took)


def messages(contexts: Contexts | None) -> float:
    """For a message of `SIZE` there and back again."""
    binder: dict[str, Any] = {"ssl_context": contexts[0]} if contexts else {}
    connector: dict[str, Any] = {"ssl_context": contexts[1]} if contexts else {}
    with Søcket(linger=0).bind("localhost", 0, **binder) as a, Søcket(linger=0) as b:
        b.connect("localhost", a.bound_port, **connector)
        b.wait_for_peers(timeout=TIMEOUT)
        echoing = Background(lambda: [a.send(message) for message in a.messages()])

        def ask() -> None:
            b.send(bytes(SIZE))
            assert len(b.recv(timeout=TIMEOUT)) == SIZE

        took = quickest(ask)
        a.close()
        echoing.result()
        return took


def bytes_of_a_stream(contexts: Contexts | None) -> float:
    """The same over streams. The answer is waited for before the question is sent, which is when a lock may be held."""
    listening: dict[str, Any] = {"ssl_context": contexts[0]} if contexts else {}
    connecting: dict[str, Any] = {"ssl_context": contexts[1], "server_hostname": "localhost"} if contexts else {}

    def echo() -> None:
        with listener.accept(timeout=TIMEOUT) as stream:
            for chunk in stream:
                stream.send_all(chunk, timeout=TIMEOUT)

    with create_tcp_server(**listening) as listener:
        echoing = Background(echo)
        with connect_tcp("localhost", listener.port, timeout=TIMEOUT, **connecting) as stream:
            def ask() -> None:
                answer = Background(stream.receive_exactly, SIZE, timeout=TIMEOUT)
                stream.send_all(bytes(SIZE), timeout=TIMEOUT)
                assert len(answer.result()) == SIZE

            took = quickest(ask)
        echoing.result()
        return took


TRAVELS = [messages, bytes_of_a_stream]


@pytest.mark.parametrize("travel", TRAVELS, ids=lambda function: str(function.__name__))
def test_descriptors_above_1024_make_no_difference(travel: Callable[[Contexts | None], float]) -> None:
    """To ``select`` they would."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1400:
        pytest.skip("fewer than 1400 descriptors are allowed here")
    hoard = [os.dup(0) for _ in range(1100)]
    try:
        assert hoard[-1] > 1024, "and so are those that are opened now"
        assert travel(None) < 0.1
    finally:
        for descriptor in hoard:
            os.close(descriptor)


@pytest.mark.parametrize("travel", TRAVELS, ids=lambda function: str(function.__name__))
def test_an_echo_under_tls_takes_no_more_than_some_times_as_long(
        travel: Callable[[Contexts | None], float], tls_contexts: Contexts) -> None:
    """With a lock that is held while waiting it was sixteen times as long, of 3 ms."""
    assert travel(tls_contexts) < 10 * travel(None) + 0.005
