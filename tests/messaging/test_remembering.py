"""A receiver that is started again knows what it has had."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, until
from support.servers import said
from support.wire_peer import ACK, DATA_REQ, WirePeer, dial, frame

from netmsg import AckMode, ClosedError, DeliveryGuarantee, SendMode, Søcket
from netmsg.messaging import remembering
from netmsg.storage.seen import SeenFile

RELIABLE = DeliveryGuarantee.AT_LEAST_ONCE
SENDER = b"s" * 16

Receiving = Callable[..., "Søcket[Any]"]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiving]:
    """A Søcket with that memory, bound to a free port."""
    made: list[Søcket[Any]] = []

    def make(**options: Any) -> Søcket[Any]:
        made.append(Søcket(**{"dedupe_path": tmp_path / "seen", "linger": 0, **options}))
        return made[-1].bind(port=0)

    yield make
    for sock in made:
        sock.close()


def message(number: int) -> bytes:
    return frame(DATA_REQ, message_id(number) + b"%d" % number)


def message_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def acks(peer: WirePeer, count: int) -> list[int]:
    return [int.from_bytes(peer.read_kind(ACK)[1], "big") for _ in range(count)]


def no_more(sock: Søcket[Any]) -> bool:
    try:
        sock.recv_delivery(timeout=0.1)
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize("mode", [AckMode.ON_RECV, AckMode.MANUAL])
def test_what_was_handed_over_does_not_come_again_after_a_restart_and_is_acknowledged(
        receiver: Receiving, mode: AckMode) -> None:
    first = receiver(ack_mode=mode)
    with dial(first.bound_port, SENDER) as peer:
        peer.shake_hands(*map(message, range(6)))
        for number in range(3):
            delivery = first.recv_delivery(timeout=TIMEOUT)
            assert delivery.data == b"%d" % number
            if mode is AckMode.MANUAL:
                delivery.ack()
        assert acks(peer, 3) == [0, 1, 2]
        first.close()
    second = receiver(ack_mode=mode)
    with dial(second.bound_port, SENDER) as peer:
        peer.shake_hands(*map(message, range(6)))
        assert acks(peer, 3) == [0, 1, 2], "at once, for its first acknowledgement seems to be lost"
        assert [second.recv_delivery(timeout=TIMEOUT).data for _ in range(3)] == [b"3", b"4", b"5"]
        assert no_more(second) and second.stats().duplicates == 3
    with dial(second.bound_port, b"t" * 16) as other:
        other.shake_hands(message(0))
        assert second.recv_delivery(timeout=TIMEOUT).data == b"0", "ids count for each sender"


def test_it_is_noted_before_it_is_acknowledged(receiver: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    may_write, write = threading.Event(), SeenFile.write

    def slow(self: SeenFile, changes: Sequence[Sequence[bytes]]) -> None:
        assert may_write.wait(TIMEOUT)
        write(self, changes)

    monkeypatch.setattr(SeenFile, "write", slow)
    sock = receiver(ack_mode=AckMode.MANUAL)
    with dial(sock.bound_port, SENDER) as peer:
        peer.shake_hands(message(0), message(0))
        acknowledging = Background(sock.recv_delivery(timeout=TIMEOUT).ack)
        peer.send(message(0))
        assert no_more(sock), "it is being noted"
        peer.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            acks(peer, 1)
        assert acknowledging.is_alive()
        may_write.set()
        acknowledging.result()
        peer.sock.settimeout(TIMEOUT)
        assert acks(peer, 1) == [0]


def test_what_cannot_be_noted_is_not_acknowledged_and_may_be_tried_again(
        receiver: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: SeenFile, changes: Sequence[Sequence[bytes]]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "seen")

    sock = receiver(ack_mode=AckMode.MANUAL)
    with dial(sock.bound_port, SENDER) as peer:
        peer.shake_hands(message(0))
        delivery = sock.recv_delivery(timeout=TIMEOUT)
        with monkeypatch.context() as patch:
            patch.setattr(SeenFile, "write", full)
            with pytest.raises(OSError, match="No space"):
                delivery.ack()
            with pytest.raises(OSError, match="No space"):
                delivery.ack()
        peer.send(message(0))
        assert no_more(sock), "it is still held"
        delivery.ack()
        delivery.ack()
        assert acks(peer, 1) == [0]


def test_who_says_it_again_waits_for_the_same(receiver: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def fails_slowly(self: SeenFile, changes: Sequence[Sequence[bytes]]) -> None:
        begun.set()
        assert go_on.wait(TIMEOUT)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "seen")

    sock = receiver(ack_mode=AckMode.MANUAL)
    with dial(sock.bound_port, SENDER) as peer:
        peer.shake_hands(message(0))
        delivery = sock.recv_delivery(timeout=TIMEOUT)
        with monkeypatch.context() as patch:
            patch.setattr(SeenFile, "write", fails_slowly)
            first = Background(delivery.ack)
            assert begun.wait(TIMEOUT)
            second = Background(delivery.ack)
            second.join(0.2)
            assert second.is_alive()
            go_on.set()
            for call in (first, second):
                with pytest.raises(OSError, match="No space"):
                    call.result()
        delivery.ack()
        assert acks(peer, 1) == [0]


def test_what_was_taken_is_noted_as_soon_as_that_is_possible(receiver: Receiving, monkeypatch: pytest.MonkeyPatch,
                                                             caplog: pytest.LogCaptureFixture) -> None:
    """And that it is not is said once, however many there are and however often it is tried."""
    monkeypatch.setattr(remembering, "AGAIN", 0.05)
    tries, write = [0], SeenFile.write

    def full_at_first(self: SeenFile, changes: Sequence[Sequence[bytes]]) -> None:
        tries[0] += 1
        if tries[0] < 40:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "seen")
        write(self, changes)

    monkeypatch.setattr(SeenFile, "write", full_at_first)
    sock = receiver()
    with dial(sock.bound_port, SENDER) as peer:
        peer.shake_hands()
        for number in range(20):
            peer.send(message(number))
            assert sock.recv(timeout=TIMEOUT) == b"%d" % number
        assert sorted(acks(peer, 20)) == [*range(20)]
    assert [record.getMessage() for record in said(caplog) if "cannot be noted" in record.getMessage()] == [
        "messages cannot be noted as handed over, and are not acknowledged: [Errno 28] No space left on device: 'seen'"]


def test_workers_live_on_when_nothing_can_be_noted_and_it_is_acknowledged_later(
        receiver: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "AGAIN", 0.05)
    works, write = threading.Event(), SeenFile.write

    def full_at_first(self: SeenFile, changes: Sequence[Sequence[bytes]]) -> None:
        if not works.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "seen")
        write(self, changes)

    monkeypatch.setattr(SeenFile, "write", full_at_first)
    handled: list[bytes] = []
    sock = receiver(ack_mode=AckMode.MANUAL)
    server = Background(sock.serve_requests, handled.append, max_workers=1)
    with dial(sock.bound_port, SENDER) as peer:
        peer.shake_hands(*(message(number) for number in range(5)))
        until(lambda: handled == [b"%d" % number for number in range(5)])
        works.set()
        assert sorted(acks(peer, 5)) == [*range(5)]
    sock.close()
    server.result()


def test_who_closes_acknowledges_what_has_been_taken(receiver: Receiving) -> None:
    sock = receiver(linger=TIMEOUT)
    with dial(sock.bound_port, SENDER) as peer:
        peer.shake_hands(*map(message, range(100)))
        taken: list[bytes] = []
        while len(taken) < 60:
            taken += sock.recv_many(60 - len(taken), timeout=TIMEOUT)
        closing = Background(sock.close)
        assert acks(peer, 60) == [*range(60)]
        peer.wait_for_end()
        peer.close()
        closing.result()


def test_of_so_many_the_newest_are_remembered(receiver: Receiving) -> None:
    first = receiver(dedupe=10)
    with dial(first.bound_port, SENDER) as peer:
        peer.shake_hands(*map(message, range(30)))
        for _ in range(30):
            first.recv(timeout=TIMEOUT)
        acks(peer, 30)
        first.close()
    second = receiver(dedupe=10)
    with dial(second.bound_port, SENDER) as peer:
        peer.shake_hands(*map(message, range(30)))
        got = [int(second.recv(timeout=TIMEOUT)) for _ in range(20)]
        assert got == [*range(20)] and no_more(second)


def test_the_mark_holds_while_they_are_looked_for(receiver: Receiving) -> None:
    sock = receiver(recv_hwm=10)
    with Søcket(delivery_guarantee=RELIABLE, linger=0).connect(port=sock.bound_port) as sender:
        sender.send_many([b"%d" % number for number in range(500)])
        until(lambda: sock.stats().received >= 10)
        assert sock.stats().received <= 20
        assert [int(sock.recv(timeout=TIMEOUT)) for _ in range(500)] == [*range(500)]
        until(lambda: sender.stats().unacked == 0)


def test_duplicates_make_room_again(receiver: Receiving) -> None:
    sock = receiver(recv_hwm=5)
    with dial(sock.bound_port, SENDER) as peer:
        peer.shake_hands(*map(message, range(3)))
        for _ in range(3):
            sock.recv(timeout=TIMEOUT)
        acks(peer, 3)
        peer.send(*(message(number) for _ in range(50) for number in range(3)), message(7))
        assert sock.recv(timeout=TIMEOUT) == b"7"


def test_a_memory_that_cannot_be_read_loses_nothing(receiver: Receiving, monkeypatch: pytest.MonkeyPatch,
                                                    caplog: pytest.LogCaptureFixture) -> None:
    def broken(self: SeenFile, messages: Sequence[bytes]) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "seen")

    monkeypatch.setattr(remembering, "AGAIN", 0.05)
    sock = receiver(recv_hwm=1)
    with Søcket(SendMode.ROUNDROBIN, RELIABLE, linger=0, resend_after=0.1).connect(port=sock.bound_port) as sender:
        with monkeypatch.context() as patch:
            patch.setattr(SeenFile, "known", broken)
            receipt: Any = sender.send(b"0")
            assert no_more(sock)
        assert sock.recv(timeout=TIMEOUT) == b"0"
        receipt.wait(timeout=TIMEOUT)
    assert "cannot be read" in said(caplog)[0].getMessage()


def test_a_memory_that_cannot_be_read_for_a_moment_keeps_the_order(receiver: Receiving,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembering, "AGAIN", 0.05)
    looks, known = [0], SeenFile.known

    def broken_once(self: SeenFile, messages: Sequence[bytes]) -> Any:
        looks[0] += 1
        if looks[0] == 3:
            raise OSError(errno.EIO, os.strerror(errno.EIO), "seen")
        return known(self, messages)

    monkeypatch.setattr(SeenFile, "known", broken_once)
    sock = receiver()
    with dial(sock.bound_port, SENDER) as peer:
        peer.shake_hands()
        for number in range(8):
            peer.send(message(number))
            until(lambda: looks[0] > min(number, 2))
        assert [sock.recv(timeout=TIMEOUT) for _ in range(8)] == [b"%d" % number for number in range(8)]


@pytest.mark.parametrize("options", [{"ack_mode": AckMode.ON_ARRIVAL}, {"dedupe": 0}])
def test_what_does_not_go_with_it(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        Søcket(dedupe_path=tmp_path / "seen", **options)


def test_the_files_of_both_halves_may_be_there_and_neither_stays_open(tmp_path: Path) -> None:
    for _ in range(3):
        with Søcket(delivery_guarantee=RELIABLE, outbox=tmp_path / "outbox", dedupe_path=tmp_path / "seen",
                    linger=0) as sock:
            sock.send(b"x")
    (tmp_path / "seen").write_bytes(b"something else" * 100)
    with pytest.raises(OSError):
        Søcket(delivery_guarantee=RELIABLE, outbox=tmp_path / "outbox", dedupe_path=tmp_path / "seen")
    with Søcket(delivery_guarantee=RELIABLE, outbox=tmp_path / "outbox", linger=0) as sock:
        assert sock.stats().unacked == 3


def test_once_it_is_closed_nothing_more_is_noted(receiver: Receiving) -> None:
    sock = receiver(ack_mode=AckMode.MANUAL)
    with dial(sock.bound_port, SENDER) as peer:
        peer.shake_hands(message(0))
        delivery = sock.recv_delivery(timeout=TIMEOUT)
        sock.close()
        with pytest.raises(ClosedError):
            delivery.ack()
