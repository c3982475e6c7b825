"""What is to be sent, with a transport that takes as much as the test lets it."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pairs import TIMEOUT

from netmsg.servers.send_queue import SendQueue


class Scripted:
    """Takes as many bytes at a time as the script says; 0 for "would block", and everything behind its end."""

    def __init__(self, script: list[int | OSError]) -> None:
        self.script = script
        self.sent = b""

    def send_one(self, buffer: Any) -> int:
        step = self.script.pop(0) if self.script else len(buffer)
        if isinstance(step, OSError):
            raise step
        if not step:
            raise BlockingIOError
        taken = bytes(buffer[:step])
        self.sent += taken
        return len(taken)


def queue_of(script: list[int | OSError]) -> tuple[SendQueue, Scripted]:
    transport = Scripted(script)
    return SendQueue(transport), transport  # type: ignore[arg-type]


def test_what_goes_at_once_does_not_wait() -> None:
    queue, transport = queue_of([])
    queue.put(b"hello")
    assert transport.sent == b"hello"
    assert not queue.buffers and queue.size == 0 and not queue.blocked and queue.packets == 1


def test_the_rest_waits_in_order() -> None:
    queue, transport = queue_of([2, 0])
    queue.put(b"hello")
    queue.put(b" world")
    assert transport.sent == b"he"
    assert queue.blocked and queue.size == 9
    queue.flush()
    assert transport.sent == b"hello world"
    assert not queue.blocked and queue.size == 0


@given(packets=st.lists(st.binary(min_size=1, max_size=20), max_size=10),
       script=st.lists(st.integers(0, 30), max_size=30))
def test_nothing_is_lost_doubled_or_reordered(packets: list[bytes], script: list[int]) -> None:
    queue, transport = queue_of(list(script))
    for packet in packets:
        queue.put(packet)
        assert transport.sent + b"".join(bytes(buffer) for buffer in queue.buffers) == b"".join(
            packets[:queue.packets])
        assert queue.size == sum(map(len, queue.buffers))
    while queue.buffers:
        queue.flush()
    assert transport.sent == b"".join(packets)
    assert queue.size == 0


def test_small_ones_are_joined_and_large_ones_are_not() -> None:
    queue, transport = queue_of([0])
    large = bytes(100_000)
    for packet in (b"a", b"b", large, b"c", b"d"):
        queue.put(packet)
    sizes: list[int] = []
    send = transport.send_one

    def noted(buffer: Any) -> int:
        sizes.append(len(buffer))
        return send(buffer)

    queue.transport.send_one = noted  # type: ignore[method-assign]
    queue.flush()
    assert sizes == [2, 100_000, 2]
    assert transport.sent == b"ab" + large + b"cd"


def test_what_is_put_aside_goes_with_what_is_put_next_or_in_the_end() -> None:
    queue, transport = queue_of([])
    queue.put_aside(b"a")
    queue.put_aside(b"b")
    assert transport.sent == b"" and queue.size == queue.packets == 2
    queue.put(b"c")
    assert transport.sent == b"abc" and queue.size == 0 and queue.packets == 3
    queue.put_aside(b"d")
    queue.flush()
    assert transport.sent == b"abcd"


def test_what_is_put_aside_is_bounded() -> None:
    queue, transport = queue_of([])
    for _ in range(1000):
        queue.put_aside(b"x")
        assert queue.size < 100
    sent = len(transport.sent)
    queue.put_aside(bytes(10_000))
    assert len(transport.sent) == 1000 + 10_000 > sent
    transport.script = [0]
    queue.put(b"y")
    queue.put_aside(bytes(10_000))  # behind what waits, and nothing is tried
    assert queue.size == 10_001
    queue.flush()
    assert len(transport.sent) == 21_001


def test_nothing_is_taken_after_the_end_which_is_behind_everything() -> None:
    queue, transport = queue_of([2, 0, 0])
    assert queue.put(b"hello")
    assert not queue.end()
    assert queue.put(b" world")
    queue.flush()
    assert not queue.end()
    queue.flush()
    assert queue.end() and queue.ended
    assert not queue.put(b"late")
    assert transport.sent == b"hello world" and queue.size == 0 and queue.packets == 2


def test_what_is_dropped_is_gone_and_nothing_is_taken_any_more() -> None:
    queue, transport = queue_of([2, 0])
    queue.put(b"hello")
    with queue.lock:
        queue.drop()
    assert not queue.put(b"late")
    queue.flush()
    assert transport.sent == b"he"
    assert queue.size == 0 and not queue.buffers and not queue.waits


def test_a_failure_is_kept_and_nothing_follows() -> None:
    error = BrokenPipeError()
    queue, transport = queue_of([1, error])
    queue.put(b"hello")
    queue.put(b"more")
    queue.flush()
    assert queue.failure is error
    assert transport.sent == b"h"


@pytest.mark.parametrize("script", [[], [0], [2, 0]])
def test_what_is_put_after_an_upgrade_waits_for_the_other_transport(script: list[int | OSError]) -> None:
    queue, clear = queue_of(script)
    queue.put(b"in the clear")
    queue.hold()
    queue.put(b"secret")
    while queue.in_the_clear:
        queue.flush()
    assert clear.sent == b"in the clear"
    encrypted = Scripted([])
    queue.release(encrypted)  # type: ignore[arg-type]
    queue.put(b" too")
    assert clear.sent == b"in the clear"
    assert encrypted.sent == b"secret too"
    assert queue.size == 0


def test_what_is_just_being_sent_does_not_wait() -> None:
    """It may all go, and then nothing would ever tell that it has not waited."""
    queue, transport = queue_of([])
    seen: list[bool] = []
    send = transport.send_one

    def noted(buffer: Any) -> int:
        seen.append(queue.waits)
        return send(buffer)

    queue.transport.send_one = noted  # type: ignore[method-assign]
    queue.put(bytes(100_000))
    assert seen == [False]
    assert not queue.waits
    transport.script = [0]
    queue.put(b"hello")
    assert queue.waits
    queue.flush()
    assert not queue.waits and queue.size == 0


def test_a_long_one_goes_in_several_turns() -> None:
    queue, transport = queue_of([300_000] * 30)
    queue.put(bytes(9_000_000))
    turns = 0
    while queue.size:
        assert queue.blocked and queue.waits
        before = len(transport.sent)
        queue.flush()
        assert len(transport.sent) - before <= 2**20 + 300_000
        turns += 1
    assert turns >= 6
    assert not queue.blocked


def test_nothing_waits_for_who_cannot_be_sent_anything() -> None:
    queue, _ = queue_of([0, BrokenPipeError()])
    queue.put(b"hello")
    assert queue.waits
    queue.flush()
    assert queue.size == 5 and not queue.waits


def test_what_the_loop_puts_aside_while_another_thread_sends_is_counted_and_in_order() -> None:
    queue, transport = queue_of([])
    count = 20_000
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        sender = threading.Thread(target=lambda: [queue.put(b"b%06d." % n) for n in range(count)])
        sender.start()
        for n in range(count):
            queue.put_aside(b"a%06d." % n)
        sender.join(TIMEOUT)
        assert not sender.is_alive()
    finally:
        sys.setswitchinterval(interval)
    with queue.lock:
        queue.go_on()
    assert (queue.size, queue.packets, queue.buffers) == (0, 2 * count, [])
    sent = transport.sent.split(b".")
    for name in (b"a", b"b"):
        assert [packet for packet in sent if packet.startswith(name)] == [name + b"%06d" % n for n in range(count)]
