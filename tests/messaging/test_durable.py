"""What is sent with an outbox, over real connections and a real file: it outlives who has sent it."""

from __future__ import annotations

import errno
import itertools
import os
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, until, until_waiting, wait_for_event
from support.wire_peer import ACK, DATA_REQ, NACK, capabilities, dial, frame

from netmsg import (
    AckMode, ClosedError, DeliveryGuarantee, ForkedError, OnFull, QueueFullError, Receipt, SendMode, SendTimeoutError,
    Søcket, Undelivered, UndeliveredError,
)
from netmsg.storage.outbox import Change, OutboxFile, StoredMessages
from netmsg.storage.seen import SeenFile

RELIABLE = DeliveryGuarantee.AT_LEAST_ONCE
A, B = b"a" * 16, b"b" * 16

Durable = Callable[..., "Søcket[Receipt]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox"


@pytest.fixture
def durable(path: Path) -> Iterator[Durable]:
    """A Søcket with that outbox, bound to a free port."""
    made: list[Søcket[Receipt]] = []

    def make(**options: Any) -> Søcket[Receipt]:
        options = {"linger": 0, "outbox_sync": "normal", **options}
        sock: Any = Søcket(SendMode.ROUNDROBIN, RELIABLE, outbox=path, **options)
        made.append(sock)
        sock.bind(port=0)
        return made[-1]

    yield make
    for sock in made:
        sock.close()


def numbered(*numbers: int) -> list[bytes]:
    return [b"%d" % number for number in numbers]


def stored_in(sock: Søcket[Any]) -> dict[Any, tuple[int, int]]:
    """How many messages, and bytes, its file has, by addressee."""
    storing = sock._engine.sender.storing
    assert storing is not None
    return storing._file.counts()


def receive(sock: Søcket[Any], count: int) -> list[bytes]:
    got: list[bytes] = []
    while len(got) < count:
        got += sock.recv_many(count - len(got), timeout=TIMEOUT)
    return got


def stored(path: Path) -> list[bytes]:
    file = StoredMessages(path)
    try:
        return [message.payload for message in file]
    finally:
        file.close()


def receiver(sender: Søcket[Any], identity: bytes | None = None, **options: Any) -> Søcket[Any]:
    return Søcket(identity=identity, **{"linger": 0, **options}).connect(port=sender.bound_port)


# Over a restart

def test_what_was_not_acknowledged_is_sent_by_the_next_one_under_the_same_identity_and_ids(
        durable: Durable, path: Path) -> None:
    first = durable()
    ids = [first.send(b"0").message_id, *(receipt.message_id for receipt in first.send_many(numbered(1, 2, 3)))]
    identity = first.identity
    assert first.close() == 0, "they are not given up"
    second = durable()
    assert second.identity == identity and second.stats().unacked == second.stats().queued == 4
    with dial(second.bound_port) as peer:
        peer.shake_hands(capabilities())
        got = [peer.read_kind(DATA_REQ)[1] for _ in range(4)]
        assert got == [message_id + payload for message_id, payload in zip(ids, numbered(0, 1, 2, 3))]
        peer.send(*(frame(ACK, message_id) for message_id in ids))
        until(lambda: second.stats().unacked == 0)
    second.close()
    assert stored(path) == []


def test_new_messages_come_behind_the_old_ones_and_in_order(durable: Durable) -> None:
    first = durable()
    first.send_many(numbered(*range(3000)))
    first.close()
    second = durable()
    second.send_many(numbered(*range(3000, 4000)))
    with receiver(second) as taker:
        second.send_many(numbered(*range(4000, 5000)))
        assert receive(taker, 5000) == numbered(*range(5000))
        until(lambda: second.stats().unacked == 0)


def test_nothing_comes_twice_that_was_acknowledged(durable: Durable, path: Path) -> None:
    first = durable()
    with receiver(first) as taker:
        receipts = first.send_many(numbered(*range(100)))
        assert receive(taker, 100) == numbered(*range(100))
        for receipt in receipts:
            receipt.wait(timeout=TIMEOUT)
    first.close()
    assert stored(path) == []


def test_duplicates_are_known_over_a_restart_of_the_sender(durable: Durable, path: Path) -> None:
    first = durable()
    port = first.bound_port
    with Søcket(linger=0, ack_mode=AckMode.MANUAL).connect(port=port) as taker:
        first.send_many(numbered(0, 1, 2))
        deliveries = [taker.recv_delivery(timeout=TIMEOUT) for _ in range(3)]
        first.close()
        deliveries[0].ack()
        second = Søcket(delivery_guarantee=RELIABLE, outbox=path, linger=0).bind(port=port)
        try:
            for delivery in deliveries[1:]:
                delivery.ack()
            until(lambda: second.stats().unacked == 0)
            with pytest.raises(TimeoutError):
                taker.recv_delivery(timeout=0.1)
        finally:
            second.close()


# The file

def test_it_is_committed_before_send_returns_and_send_many_is_one_commit(durable: Durable, path: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    write = OutboxFile.write

    def watched(self: OutboxFile, changes: Sequence[Change]) -> None:
        write(self, changes)
        writes.append(sum(len(change.new) for change in changes))

    monkeypatch.setattr(OutboxFile, "write", watched)
    sock = durable()
    sock.send(b"0")
    assert writes == [1]
    sock.send_many(numbered(*range(1, 1001)))
    assert writes == [1, 1000]


def test_one_socket_at_a_time_and_only_under_its_identity(durable: Durable, path: Path) -> None:
    first = durable(identity=A)
    with pytest.raises(OSError, match="open already"):
        durable()
    first.close()
    with pytest.raises(ValueError, match="identity"):
        durable(identity=B)
    assert durable().identity == A


@pytest.mark.parametrize("options", [
    {"delivery_guarantee": DeliveryGuarantee.AT_MOST_ONCE}, {"on_full": OnFull.DROP_OLDEST}, {"outbox_sync": "never"},
    {"send_mode": SendMode.PUBLISH}])
def test_what_does_not_go_with_an_outbox(options: dict[str, Any], path: Path) -> None:
    with pytest.raises(ValueError):
        Søcket(**{"delivery_guarantee": RELIABLE, "outbox": path, **options})
    assert not path.exists()


def test_a_file_that_is_something_else_is_left_as_it_is(path: Path) -> None:
    path.write_bytes(b"a letter to my mother" * 100)
    with pytest.raises(OSError, match="outbox"):
        Søcket(delivery_guarantee=RELIABLE, outbox=path)
    assert path.read_bytes() == b"a letter to my mother" * 100


def test_what_cannot_be_written_is_not_kept_and_what_can_is(durable: Durable, path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: OutboxFile, changes: Sequence[Change]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "outbox")

    sock = durable(send_hwm=3)
    sock.send(b"0")
    with monkeypatch.context() as patch:
        patch.setattr(OutboxFile, "write", full)
        for call in (lambda: sock.send(b"lost"), lambda: sock.send_many(numbered(7, 8))):
            with pytest.raises(OSError, match="No space") as caught:
                call()
            assert caught.value.errno == errno.ENOSPC
    assert sock.stats().unacked == 1
    sock.send_many(numbered(1, 2))
    with receiver(sock) as taker:
        assert receive(taker, 3) == numbered(0, 1, 2)


def test_while_it_is_being_written_it_is_not_known(durable: Durable, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, write = threading.Event(), OutboxFile.write

    def slow(self: OutboxFile, changes: Sequence[Change]) -> None:
        assert go_on.wait(TIMEOUT)
        write(self, changes)

    monkeypatch.setattr(OutboxFile, "write", slow)
    sock = durable()
    with receiver(sock) as taker:
        try:
            with pytest.raises(SendTimeoutError, match="not known"):
                sock.send(b"perhaps", timeout=0.05)
        finally:
            go_on.set()
        assert taker.recv(timeout=TIMEOUT) == b"perhaps"


# The marks

def test_the_mark_is_of_the_file_over_a_restart_too(durable: Durable) -> None:
    for _ in range(2):
        sock = durable(send_hwm=5, on_full=OnFull.RAISE)
        try:
            with pytest.raises(QueueFullError) as caught:
                sock.send_many(numbered(*range(9)))
            assert caught.value.sent in (0, 5)
            sock.send(b"to somebody", A)
        finally:
            sock.close()
        assert sock.stats().unacked == 6 if caught.value.sent else 7


def test_who_waits_for_room_gets_it_when_something_is_acknowledged(durable: Durable) -> None:
    sock = durable(send_hwm=2)
    sock.send_many(numbered(0, 1))
    with pytest.raises(SendTimeoutError):
        sock.send(b"no", timeout=0.05)
    sending = Background(sock.send_many, numbered(*range(2, 50)))
    with receiver(sock) as taker:
        assert receive(taker, 50) == numbered(*range(50))
        assert len(sending.result()) == 48


def test_the_mark_in_bytes(durable: Durable) -> None:
    sock = durable(send_hwm_bytes=1000, on_full=OnFull.RAISE)
    sock.send(bytes(600))
    sock.send(bytes(600))
    with pytest.raises(QueueFullError):
        sock.send(b"")
    sock.send(bytes(2000), A)
    with pytest.raises(QueueFullError):
        sock.send(b"", A)


def test_the_mark_in_bytes_is_passed_by_no_more_than_a_message_though_many_were_ready_before(durable: Durable) -> None:
    sock = durable(send_hwm_bytes=1000)
    ready, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[bytes]:
        for _ in range(9):
            yield bytes(100)
        ready.set()
        assert go_on.wait(TIMEOUT)
        for _ in range(9):
            yield bytes(100)

    sending = Background(sock.send_many, slow(), timeout=0.5)
    assert ready.wait(TIMEOUT)
    sock.send(bytes(950))  # where the nine were to go
    go_on.set()
    with pytest.raises(SendTimeoutError):
        sending.result()
    assert sum(size for _, size in stored_in(sock).values()) <= 1000 + 100


def test_the_newest_may_be_dropped(durable: Durable) -> None:
    sock = durable(send_hwm=1, on_full=OnFull.DROP_NEWEST)
    kept, dropped = sock.send(b"0"), sock.send(b"1")
    assert dropped.failed and not kept.failed and sock.stats().unacked == 1
    with receiver(sock) as taker:
        assert taker.recv(timeout=TIMEOUT) == b"0"
        kept.wait(timeout=TIMEOUT)


def test_of_many_those_in_front_of_one_that_is_refused_are_stored(durable: Durable, path: Path) -> None:
    sock = durable()
    with pytest.raises(TypeError):
        sock.send_many([b"0", b"1", 2, b"3"])  # type: ignore[list-item]
    with pytest.raises(ArithmeticError):
        sock.send_many(itertools.chain([b"2"], (bytes(1 // 0) for _ in "x")))
    assert sock.send_many([]) == []
    sock.close()
    assert stored(path) == numbered(0, 1, 2)


def test_of_many_as_many_are_stored_as_there_is_room_for(durable: Durable) -> None:
    sock = durable(send_hwm=10)

    def messages() -> Iterator[bytes]:
        for number in range(6):
            sock.send(b"in between %d" % number)
            yield b"%d" % number

    with pytest.raises(SendTimeoutError) as caught:
        sock.send_many(messages(), timeout=0.5)
    assert caught.value.sent + 6 == 10 == sock.stats().unacked


def test_messages_that_are_slow_in_coming_do_not_wait_for_each_other(durable: Durable) -> None:
    sock, second = durable(), threading.Event()

    def messages() -> Iterator[bytes]:
        yield b"0"
        second.wait(0.3)
        yield b"1"
        assert second.wait(TIMEOUT), "the first ones are not there yet"
        yield b"2"

    with receiver(sock) as taker:
        sending = Background(sock.send_many, messages(), timeout=0.2)
        assert receive(taker, 2) == numbered(0, 1)
        second.set()
        assert receive(taker, 1) == numbered(2) and len(sending.result()) == 3


def test_without_time_it_is_stored_all_the_same(durable: Durable) -> None:
    sock = durable(send_hwm=1)
    assert not sock.send(b"0", timeout=0).failed
    with pytest.raises(SendTimeoutError, match="no room"):
        sock.send(b"1", timeout=0)


def test_who_gives_up_waiting_for_the_disk_keeps_nobody_waiting(durable: Durable,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who have waited together are woken one after the other."""
    writes, go_on, write = threading.Event(), threading.Event(), OutboxFile.write

    def slow(self: OutboxFile, changes: Sequence[Change]) -> None:
        writes.set()
        assert go_on.wait(TIMEOUT)
        write(self, changes)

    sock = durable()
    monkeypatch.setattr(OutboxFile, "write", slow)
    first = Background(sock.send, b"first")
    assert writes.wait(TIMEOUT)
    patient = [Background(sock.send, b"0"), Background(sock.send, b"1")]
    for call in patient:
        until_waiting(call)
    with pytest.raises(SendTimeoutError):
        sock.send(b"from the main thread", timeout=0.05)
    with pytest.raises(SendTimeoutError):
        Background(sock.send, b"in between", timeout=0.05).result()
    patient += [Background(sock.send, b"2"), Background(sock.send, b"3")]
    for call in patient:
        until_waiting(call)
    go_on.set()
    for call in [first, *patient]:
        assert not call.result().failed
    until(lambda: sock.stats().unacked == 7)


def test_many_threads_that_have_little_time_keep_nobody_waiting_and_lose_nothing(durable: Durable, path: Path) -> None:
    sock = durable(send_hwm=10_000)
    stored_for_sure: set[bytes] = set()
    perhaps: set[bytes] = set()

    def send(number: int) -> None:
        chance = random.Random(number)
        for index in range(200):
            message = b"%d %d" % (number, index)
            try:
                sock.send(message, timeout=chance.choice((None, 1e-5, 1e-4, 1e-3)))
            except SendTimeoutError:
                perhaps.add(message)
            else:
                stored_for_sure.add(message)

    for call in [Background(send, number) for number in range(16)]:
        call.result()
    sock.close()
    there = stored(path)
    assert perhaps and len(there) == len(set(there)) and stored_for_sure <= set(there) <= stored_for_sure | perhaps


def test_who_waits_for_room_gets_it_though_half_of_the_mark_is_with_a_slow_peer(durable: Durable) -> None:
    sock = durable(send_hwm=10, max_unacked=6)
    with receiver(sock, ack_mode=AckMode.MANUAL) as lazy:
        sock.wait_for_peers(1, timeout=TIMEOUT)
        sock.send_many(numbered(*range(6)))
        until(lambda: sock.stats().peers[lazy.identity].unacked == 6)
        sock.send_many(numbered(*range(6, 10)))
        sending = Background(sock.send, b"last")
        with receiver(sock) as busy:
            assert receive(busy, 5) == [*numbered(*range(6, 10)), b"last"]
            sending.result()


def test_who_waits_for_room_gets_it_when_another_one_cannot_be_stored(durable: Durable,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, write = threading.Event(), OutboxFile.write

    def fails(self: OutboxFile, changes: Sequence[Change]) -> None:
        if any(message.payload == b"bad" for change in changes for message in change.new):
            assert go_on.wait(TIMEOUT)
            raise OSError(errno.EIO, "it is broken", "outbox")
        write(self, changes)

    monkeypatch.setattr(OutboxFile, "write", fails)
    sock = durable(send_hwm=1)
    bad = Background(sock.send, b"bad")
    until(lambda: sock.stats().unacked == 1)
    good = Background(sock.send, b"good")
    until(lambda: sock._engine.sender._room._senders.waiting)
    go_on.set()
    with pytest.raises(OSError, match="it is broken"):
        bad.result()
    assert not good.result().failed


def test_what_cannot_be_taken_out_is_when_that_is_possible_and_not_sent_again(
        durable: Durable, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, broken, taken_out = OutboxFile.write, threading.Event(), [0]

    def takes_nothing_out(self: OutboxFile, changes: Sequence[Change]) -> None:
        if broken.is_set() and any(change.gone for change in changes):
            raise OSError(errno.EIO, "it is broken", "outbox")
        write(self, changes)
        taken_out[0] += sum(len(change.gone) for change in changes)

    monkeypatch.setattr(OutboxFile, "write", takes_nothing_out)
    sock = durable()
    broken.set()
    with receiver(sock, A) as taker:
        sock.send_many(numbered(0, 1, 2), A)
        assert receive(taker, 3) == numbered(0, 1, 2)
        until(lambda: sock.stats().unacked == 0)
    until(lambda: not sock.peers())
    sock.send_many(numbered(3, 4), A)
    with receiver(sock, A, dedupe=0) as again:
        assert receive(again, 2) == numbered(3, 4)
        until(lambda: sock.stats().unacked == 0)
        assert sock.stats().queued == 0
        broken.clear()
        sock.send(b"last", A)
        assert receive(again, 1) == [b"last"]
        until(lambda: sock.stats().unacked == 0)
    until(lambda: taken_out[0] == 6)
    sock.close()
    assert stored(path) == []


# Memory

def test_what_nobody_is_there_for_waits_in_the_file_alone(durable: Durable) -> None:
    sock = durable(send_hwm_bytes=1 << 30)
    tracemalloc.start()
    try:
        for _ in range(40):
            sock.send_many([os.urandom(100_000) for _ in range(10)])
            sock.send(os.urandom(100_000), A)
        assert tracemalloc.get_traced_memory()[0] < 4_000_000
    finally:
        tracemalloc.stop()
    assert sock.stats().queued == 440
    with receiver(sock) as taker, receiver(sock, A) as addressed:
        got = 0
        while got < 440:
            for one in (taker, addressed):
                try:
                    got += len(one.recv_many(100, timeout=0.05))
                except TimeoutError:
                    pass
    until(lambda: sock.stats().unacked == 0)


def test_a_million_need_not_be_loaded_for_the_first_to_go(durable: Durable) -> None:
    sock = durable(send_hwm=200_000, max_unacked=10)
    sock.send_many(itertools.repeat(b"x" * 100, 100_000))
    tracemalloc.start()
    try:
        with receiver(sock, ack_mode=AckMode.MANUAL) as taker:
            for _ in range(3000):
                taker.recv_delivery(timeout=TIMEOUT).ack()
            assert tracemalloc.get_traced_memory()[0] < 4_000_000
    finally:
        tracemalloc.stop()


def test_receipts_that_nobody_keeps_cost_nothing_and_those_that_are_kept_are_told(durable: Durable) -> None:
    sock = durable()
    sock.send_many(numbered(*range(100)))
    kept = sock.send(b"kept")
    assert len(sock._engine.sender.ledger.outstanding) == 1
    assert not kept.acked and not kept.failed
    with receiver(sock) as taker:
        receive(taker, 101)
        kept.wait(timeout=TIMEOUT)
    assert kept.acked


# To one peer

def test_what_is_for_one_waits_for_that_one(durable: Durable) -> None:
    sock = durable()
    for number in range(30):
        sock.send(b"%d" % number, (A, B, None)[number % 3])
    with receiver(sock, B) as b:
        assert sorted(map(int, receive(b, 20))) == [number for number in range(30) if number % 3]
        with pytest.raises(TimeoutError):
            b.recv(timeout=0.05)
    with receiver(sock, A) as a:
        assert receive(a, 10) == numbered(*range(0, 30, 3))
        until(lambda: sock.stats().unacked == 0)


def test_what_one_has_not_acknowledged_when_it_goes_it_gets_when_it_comes_again(durable: Durable) -> None:
    sock = durable()
    with receiver(sock, A, ack_mode=AckMode.MANUAL) as taker:
        sock.send_many(numbered(*range(50)), A)
        for _ in range(10):
            taker.recv_delivery(timeout=TIMEOUT).ack()
        until(lambda: sock.stats().unacked == 40)
    until(lambda: not sock.peers())
    assert sock.stats().queued == 40 and not sock._engine.sender.router.parked.count, "memory has them no more"
    sock.send_many(numbered(*range(50, 60)), A)
    with receiver(sock, A) as again:
        assert receive(again, 50) == numbered(*range(10, 60))
        until(lambda: sock.stats().unacked == 0)


def test_what_one_of_two_has_not_acknowledged_goes_to_the_other(durable: Durable) -> None:
    sock = durable()
    with receiver(sock, ack_mode=AckMode.MANUAL) as lazy, receiver(sock) as busy:
        sock.wait_for_peers(2, timeout=TIMEOUT)
        sock.send_many(numbered(*range(100)))
        assert len(receive(busy, 50)) == 50
        lazy.close()
        assert len(receive(busy, 50)) == 50
        until(lambda: sock.stats().unacked == 0)


# What peers do

def test_what_is_given_up_on_leaves_the_file(durable: Durable, path: Path) -> None:
    sock = durable(resend_after=0.05, max_resends=1)
    with dial(sock.bound_port) as peer:
        peer.shake_hands(capabilities())
        receipt = sock.send(b"in vain")
        assert wait_for_event(sock, Undelivered).message_id == receipt.message_id
        with pytest.raises(UndeliveredError):
            receipt.wait(timeout=TIMEOUT)
        assert sock.stats().unacked == 0
    sock.close()
    assert stored(path) == []


def test_what_is_handed_back_and_given_up_on_leaves_the_file_too(durable: Durable, path: Path) -> None:
    sock = durable(max_resends=0)
    with dial(sock.bound_port) as peer:
        peer.shake_hands(capabilities(features=2))
        receipt = sock.send(b"unwanted")
        peer.read_kind(DATA_REQ)
        peer.send(frame(NACK, receipt.message_id))
        with pytest.raises(UndeliveredError):
            receipt.wait(timeout=TIMEOUT)
    sock.close()
    assert stored(path) == []


def test_those_who_refuse_everything_do_not_have_it_loaded_without_end(durable: Durable) -> None:
    sock = durable(send_hwm=5000, max_unacked=10, resend_after=600.0)
    sock.send_many(numbered(*range(5000)))
    with receiver(sock, ack_mode=AckMode.MANUAL) as refuser:
        refused = 0
        with suppress(TimeoutError):
            while True:
                refuser.recv_delivery(timeout=0.5).nack()
                refused += 1
        assert 1000 <= refused <= 2000 and len(sock._engine.sender.router.homeless) == refused
    with receiver(sock) as taker:
        assert sorted(map(int, receive(taker, 5000))) == [*range(5000)]


def test_many_threads_each_in_its_order(durable: Durable) -> None:
    sock = durable(send_hwm=100)
    with receiver(sock) as taker:
        calls = [Background(lambda thread=thread: [sock.send(b"%d %d" % (thread, index)) for index in range(60)])
                 for thread in range(8)]
        by_thread: dict[int, list[int]] = {}
        for message in receive(taker, 480):
            thread, index = map(int, message.split())
            by_thread.setdefault(thread, []).append(index)
        assert by_thread == {thread: [*range(60)] for thread in range(8)}
        for call in calls:
            assert len(call.result()) == 60


# The end

def test_at_the_end_receipts_tell_that_it_is_kept(durable: Durable) -> None:
    sock = durable()
    receipt = sock.send(b"0")
    waiting = Background(receipt.wait)
    sock.close()
    with pytest.raises(UndeliveredError, match="outbox"):
        waiting.result()
    with pytest.raises(ClosedError):
        sock.send(b"1")
    with pytest.raises(ClosedError):
        sock.send_many([b"1"])


def test_closing_waits_for_what_is_in_the_file(durable: Durable, path: Path) -> None:
    sock = durable(linger=TIMEOUT)
    sock.send_many(numbered(*range(3000)))
    with receiver(sock) as taker:
        closing = Background(sock.close)
        assert receive(taker, 3000) == numbered(*range(3000))
        assert closing.result() == 0
    assert stored(path) == []


def test_the_file_is_free_where_there_can_be_no_thread_for_another_one(path: Path, tmp_path: Path,
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    begun, start = [0], threading.Thread.start

    def one_starts(self: threading.Thread) -> None:
        if self.name.startswith("netmsg-outbox-"):
            begun[0] += 1
            if begun[0] > 1:
                raise RuntimeError("can't start new thread")
        start(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", one_starts)
        with pytest.raises(RuntimeError):
            Søcket(SendMode.ROUNDROBIN, RELIABLE, outbox=path, dedupe_path=tmp_path / "seen")
    assert begun[0] == 2
    until(lambda: not any(thread.name.startswith("netmsg-outbox-") for thread in threading.enumerate()))
    for file in (lambda: OutboxFile(path)), (lambda: SeenFile(tmp_path / "seen", 9)):
        file().close()


def test_the_file_is_free_when_close_returns(durable: Durable, path: Path) -> None:
    for number in range(10):
        sock = durable()
        sock.send(b"%d" % number)
        sock.close()
    assert stored(path) == numbered(*range(10))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes can be forked")
def test_a_forked_child_leaves_it_alone(durable: Durable, path: Path) -> None:
    sock = durable()
    sock.send(b"0")
    child = os.fork()
    if child == 0:
        try:
            sock.send(b"of a child")
        except ForkedError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    sock.send(b"1")
    sock.close()
    assert stored(path) == numbered(0, 1)
