"""What is only worth something while it is new: `conflate`, `OnNoPeer.DROP`, and the kernel's buffers."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, connected, until, wait_for_event
from support.wire_peer import DATA, dial

from netmsg import Connected, Dropped, OnNoPeer, SendMode, Søcket

SMALL = 4096
LARGE = 32_768
"""Bytes of a message that no small buffer holds."""


def test_a_slow_subscriber_gets_the_newest_and_not_everything() -> None:
    with connected({"send_mode": SendMode.PUBLISH, "conflate": True, "send_buffer": SMALL},
                   {"conflate": True, "recv_buffer": SMALL}) as (news, slow):
        for number in range(2000):
            news.send(b"%d" % number)
        until(lambda: news.stats().queued == 0 and slow.stats().received == news.stats().sent)
        assert slow.recv(timeout=TIMEOUT) == b"1999"
        with pytest.raises(TimeoutError):
            slow.recv(timeout=0)
        dropped = news.stats().dropped.get("conflated", 0) + slow.stats().dropped.get("conflated", 0)
        assert dropped == 1999


def test_nothing_is_lost_to_who_keeps_up() -> None:
    with connected({"conflate": True}, {"conflate": True}) as (a, b):
        for number in range(300):
            a.send(b"%d" % number)
            assert b.recv(timeout=TIMEOUT) == b"%d" % number
        assert a.stats().dropped == b.stats().dropped == {}


@pytest.mark.parametrize("mode", SendMode)
def test_the_newest_waits_for_the_first_who_comes(mode: SendMode) -> None:
    with Søcket(mode, conflate=True, linger=0) as news, Søcket(linger=0) as late:
        news.send_many([b"1", b"2", b"3"])
        late.connect(port=news.bind(port=0).bound_port)
        assert late.recv(timeout=TIMEOUT) == b"3"
        assert news.stats().dropped == {"conflated": 2}
        assert wait_for_event(news, Dropped).reason == "conflated"


def test_requests_pass_where_the_newest_alone_is_kept() -> None:
    with connected({"conflate": True}, {"conflate": True}) as (a, b):
        a.send(b"news")
        until(lambda: b.stats().received == 1)
        asking = Background(a.request, b"what", timeout=TIMEOUT)
        assert b.recv_delivery(timeout=TIMEOUT).data == b"news"
        b.recv_delivery(timeout=TIMEOUT).reply(b"that")
        assert asking.result() == b"that"


@pytest.mark.parametrize("mode", SendMode)
def test_what_is_sent_while_nobody_is_there_is_dropped_counted_and_told(mode: SendMode,
                                                                        caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "netmsg"), \
            Søcket(mode, on_no_peer=OnNoPeer.DROP, linger=0) as news, Søcket(linger=0) as late:
        news.bind(port=0)
        news.send_many([b"1", b"2", b"3"])
        assert news.stats().dropped == {"no peer": 3} and news.stats().queued == 0
        assert wait_for_event(news, Dropped).reason == "no peer"
        late.connect(port=news.bound_port)
        news.wait_for_peers(timeout=TIMEOUT)
        news.send(b"4")
        assert late.recv(timeout=TIMEOUT) == b"4"
        assert "dropped" not in caplog.text, "it is as it was asked for"


@pytest.mark.parametrize("options", [{"send_buffer": SMALL}, {}], ids=["small", "as the kernel likes"])
def test_what_the_kernel_does_not_hold_waits_where_it_is_counted(options: dict[str, Any]) -> None:
    """A peer that reads nothing: with a small buffer most of it waits in the queue, where it can still be dropped."""
    with Søcket(linger=0, **options) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            wait_for_event(sock, Connected)
            sock.send_many([bytes(LARGE)] * 20)
            until(lambda: sock.stats().sent + sock.stats().queued == 20)
            if options:
                assert sock.stats().queued >= 15
            for _ in range(20):
                assert len(peer.read_kind(DATA)[1]) == LARGE


@pytest.mark.parametrize("who", ["binds", "connects"])
def test_a_small_receive_buffer_stops_who_sends(who: str) -> None:
    options: dict[str, Any] = {"recv_buffer": SMALL, "recv_hwm": 1}
    sends: dict[str, Any] = {"send_buffer": SMALL}
    binder, connector = (options, sends) if who == "binds" else (sends, options)
    with connected(binder, connector) as (a, b):
        reads, writes = (a, b) if who == "binds" else (b, a)
        writes.send_many([bytes(LARGE)] * 6)
        until(lambda: reads.stats().received >= 1)
        assert writes.stats().queued >= 3
        for _ in range(6):
            assert len(reads.recv(timeout=TIMEOUT)) == LARGE
