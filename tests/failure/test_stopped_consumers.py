"""One consumer of three is stopped, as by Ctrl-Z: it costs no more than the marks, holds nobody up, and what it is not
sent is counted to the last message."""

from __future__ import annotations

import resource
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
from support.pairs import TIMEOUT, wait_for_event
from support.processes import Program

from netmsg import Disconnected, OnFull, PeerInfo, QueueFullError, SendTimeoutError, Søcket

MARK = 100
SIZE = 1000
MANY = 20_000
"""Of them there are more than may be kept."""

CONSUMER = """
    import sys
    from netmsg import Søcket
    with Søcket(linger=0).connect(port=int(sys.argv[1])) as sock:
        print("ready", sock.identity.hex(), flush=True)
        for message in sock:
            sock.send(message[:8])
"""


class Stage:
    """A Søcket, and three consumers in processes of their own, which answer each message with its first bytes."""

    def __init__(self, policy: OnFull, stack: ExitStack) -> None:
        self.sock = stack.enter_context(Søcket(send_hwm=MARK, on_full=policy, linger=0,
                                               heartbeat_interval=0.5, heartbeat_timeout=60))
        self.sock.bind(port=0)
        self.programs = [stack.enter_context(Program("-c", textwrap.dedent(CONSUMER), str(self.sock.bound_port)))
                         for _ in range(3)]
        self.names = [bytes.fromhex(program.wait_for(r"ready (\w+)")[1]) for program in self.programs]
        self.sock.wait_for_peers(3, timeout=TIMEOUT)

    def nine_of_ten_take_no_longer_than(self) -> float:
        """Seconds for a message to one of the two others and its answer."""
        took = []
        for number in range(300):
            begun = time.perf_counter()
            question = b"q%07d" % number
            self.sock.send(question + bytes(SIZE), self.names[1 + number % 2], timeout=TIMEOUT)
            while self.sock.recv(timeout=TIMEOUT) != question:
                pass
            took.append(time.perf_counter() - begun)
        return sorted(took)[270]

    @property
    def first(self) -> PeerInfo:
        """The one that is stopped."""
        return self.sock.stats().peers[self.names[0]]

    def flood(self) -> tuple[int, int]:
        """Send the first one more than there is room for, in the kernel as well: how much was sent, and how much of it
        accepted."""
        sent = accepted = in_vain = 0
        while in_vain < 10 or sent < MANY:
            there = self.first.sent
            for _ in range(MARK):
                with suppress(SendTimeoutError, QueueFullError):
                    self.sock.send(b"%08d" % sent + bytes(SIZE - 8), self.names[0], timeout=0)
                    accepted += 1
                sent += 1
            threading.Event().wait(0.002)  # in which the network thread may hand on what the kernel takes
            in_vain = in_vain + 1 if self.first.sent == there else 0
        return sent, accepted

    def answers(self, count: int) -> list[int]:
        """The numbers of what the first one was sent, and nothing besides."""
        found: list[int] = []
        while len(found) < count:
            found += map(int, self.sock.recv_many(1000, timeout=TIMEOUT))
        with pytest.raises(TimeoutError):
            self.sock.recv(timeout=0.2)
        return found


def resident() -> int:
    """Bytes of memory that this process holds."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


@contextmanager
def staged(policy: OnFull) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(policy, stack)


@pytest.mark.parametrize("policy", [OnFull.DROP_OLDEST, OnFull.DROP_NEWEST, OnFull.RAISE, OnFull.BLOCK])
def test_memory_and_the_others_latency_stay_as_they_were_and_each_drop_is_counted(policy: OnFull) -> None:
    with staged(policy) as stage:
        flood_who_is_stopped(stage)


def flood_who_is_stopped(stage: Stage) -> None:
    sock = stage.sock
    before = stage.nine_of_ten_take_no_longer_than()
    stage.programs[0].stop()
    held = resident()
    sent, accepted = stage.flood()
    assert resident() - held < MARK * SIZE + 8 * 2**20
    assert stage.first.queued <= MARK
    assert stage.nine_of_ten_take_no_longer_than() < 3 * before + 0.02
    dropped = sock.stats().dropped.get("send queue full", 0)
    assert (dropped > 0) == (accepted == sent)
    stage.programs[0].go_on()
    got = stage.answers(accepted - dropped)
    assert got == sorted(set(got)) and len(got) == accepted - dropped


def test_who_is_cut_off_takes_its_queue_along_and_that_is_counted() -> None:
    with staged(OnFull.DISCONNECT) as stage:
        sock = stage.sock
        before = stage.nine_of_ten_take_no_longer_than()
        gone_before = sock.stats().sent
        stage.programs[0].stop()
        accepted = 0
        while len(sock.peers()) == 3:
            with suppress(SendTimeoutError):
                sock.send(bytes(SIZE), stage.names[0], timeout=0)
                accepted += 1
            assert accepted < 1_000_000
        event = wait_for_event(sock, Disconnected)
        assert event.peer == stage.names[0] and "did not keep up" in event.reason
        assert sum(sock.stats().dropped.values()) == accepted - (sock.stats().sent - gone_before)
        assert stage.nine_of_ten_take_no_longer_than() < 3 * before + 0.02
