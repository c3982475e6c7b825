"""Requests that a function answers."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from support.interrupts import Interrupted, handling
from support.pairs import TIMEOUT, Background, connected, until
from support.servers import said
from support.wire_peer import WirePeer, dial, frame

from netmsg import (
    AckMode, ClosedError, ConnectionBrokenError, Delivery, DeliveryGuarantee, OnFull, RequestFailedError, Søcket,
)
from netmsg.messaging import answering
from netmsg.messaging.serving import Serving
from netmsg.wire.envelope import FAILURE, REPLY, REQUEST

RELIABLE = DeliveryGuarantee.AT_LEAST_ONCE


def left_in(sock: Søcket) -> list[Delivery]:
    left: list[Delivery] = []
    with suppress(TimeoutError):
        while True:
            left.append(sock.recv_delivery(timeout=0))
    return left


def threads_of_servers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("netmsg-serve-")]


@contextmanager
def serving(sock: Søcket, handler: Callable[[bytes], Any], **options: Any) -> Iterator[Background]:
    server = Background(sock.serve_requests, handler, **options)
    try:
        yield server
    finally:
        sock.close(linger=0)
        server.result()


@pytest.fixture(autouse=True)
def _all_threads_end() -> Iterator[None]:
    yield
    until(lambda: not threads_of_servers())


@pytest.mark.parametrize("answers", [{}, {"delivery_guarantee": RELIABLE}, {"ack_mode": AckMode.MANUAL}])
def test_requests_are_answered_with_what_the_handler_returns(answers: dict[str, Any]) -> None:
    with connected(answers, {}) as (a, b), serving(a, bytes.upper):
        assert [b.request(b"x%d" % number) for number in range(100)] == [b"X%d" % number for number in range(100)]
    with connected(answers, {}) as (a, b), serving(a, bytearray):
        assert b.request(b"anything like bytes") == b"anything like bytes"


def test_no_thread_is_begun_where_an_interrupt_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    begun_by: list[threading.Thread] = []

    class Watched(threading.Thread):
        def start(self) -> None:
            begun_by.append(threading.current_thread())
            super().start()

    with Søcket() as sock:
        monkeypatch.setattr(threading, "Thread", Watched)
        with pytest.raises(TimeoutError):
            sock.serve_requests(bytes.upper, timeout=0.01)
    assert begun_by and threading.main_thread() not in begun_by


def test_it_returns_when_the_socket_is_closed() -> None:
    with Søcket() as sock, serving(sock, bytes.upper) as server:
        until(threads_of_servers)
        sock.close()
        assert server.result() is None
    with pytest.raises(ClosedError):
        sock.serve_requests(bytes.upper)


def test_it_returns_when_the_socket_is_closed_though_its_handlers_run_on() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def handle(data: bytes) -> bytes:
        begun.set()
        go_on.wait(TIMEOUT)
        return data

    with connected({}, {}) as (a, b):
        with serving(a, handle, max_workers=1) as server:
            asked = Background(b.request, b"?", timeout=TIMEOUT)
            try:
                assert begun.wait(TIMEOUT)
                a.close(linger=0)
                assert server.result() is None
            finally:
                go_on.set()
            with pytest.raises(ConnectionBrokenError):
                asked.result()


def test_a_handler_may_close_the_socket() -> None:
    with connected({}, {}) as (a, b), serving(a, lambda data: a.close(linger=0) or b"") as server:
        asked = Background(b.request, b"close", timeout=TIMEOUT)
        server.result()
        with pytest.raises(Exception, match="ended before|has ended"):
            asked.result()


def test_as_many_run_at_a_time_as_there_may_be_workers_and_no_more_threads_than_needed() -> None:
    running, most, lock, go_on = 0, 0, threading.Lock(), threading.Event()

    def handle(data: bytes) -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        assert go_on.wait(TIMEOUT)
        with lock:
            running -= 1
        return data

    with connected({}, {}) as (a, b), serving(a, handle, max_workers=3):
        until(threads_of_servers)
        assert len(threads_of_servers()) == 1
        asked = [Background(b.request, b"%d" % number, timeout=TIMEOUT) for number in range(10)]
        until(lambda: running == 3 and a.stats().received == 10)
        assert len(threads_of_servers()) == 3
        go_on.set()
        assert [one.result() for one in asked] == [b"%d" % number for number in range(10)]
        assert most == 3


def test_a_handler_that_raises_is_logged_and_its_type_told_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    def handle(data: bytes) -> bytes:
        if data == b"exit":
            raise SystemExit("a secret")
        if data == b"closed":
            raise ClosedError("something of the handler's own is closed")
        if data == b"wrong":
            return "no bytes"  # type: ignore[return-value]
        if data == b"nothing":
            return None  # type: ignore[return-value]
        if data == b"much":
            return bytes(101)
        raise KeyError("a secret")

    with connected({"max_message_size": 100}, {}) as (a, b), serving(a, handle):
        for data, reason in ((b"x", "KeyError"), (b"exit", "SystemExit"), (b"closed", "ClosedError"),
                             (b"wrong", "TypeError"),
                             (b"nothing", "TypeError"), (b"much", "ValueError"), (b"x", "KeyError")):
            with caplog.at_level(logging.ERROR, logger="netmsg.messaging"), pytest.raises(RequestFailedError) as raised:
                b.request(data)
            assert raised.value.reason == reason
        until(lambda: len(caplog.records) == 7)
        assert all("the handler of a request" in record.getMessage() for record in caplog.records)
        assert "a secret" in caplog.text and b.identity.hex() in caplog.text


def test_messages_are_handed_to_it_too() -> None:
    handled: list[bytes] = []

    def handle(data: bytes) -> bytes:
        handled.append(data)
        return b"an answer that nobody gets"

    with connected({}, {}) as (a, b), serving(a, handle, max_workers=1):
        b.send(b"one")
        assert b.request(b"two") == b"an answer that nobody gets"
        b.send(b"three")
        until(lambda: len(handled) == 3)
        assert handled == [b"one", b"two", b"three"] and b.stats().received == 1


def test_by_hand_messages_are_acknowledged_when_the_handler_has_returned(caplog: pytest.LogCaptureFixture) -> None:
    go_on, tries = threading.Event(), 0

    def handle(data: bytes) -> None:
        nonlocal tries
        assert go_on.wait(TIMEOUT)
        tries += 1
        if tries == 1:
            raise OSError("not yet")

    with (connected({"ack_mode": AckMode.MANUAL}, {"delivery_guarantee": RELIABLE, "resend_after": 0.1}) as (a, b),
          serving(a, handle)):
        receipt = b.send(b"job")
        assert receipt is not None
        until(lambda: a.stats().received)
        assert not receipt.acked
        go_on.set()
        receipt.wait(timeout=TIMEOUT)
        assert tries == 2


def test_it_serves_up_to_a_time_and_what_runs_then_is_still_answered() -> None:
    runs, go_on = threading.Event(), threading.Event()

    def handle(data: bytes) -> bytes:
        runs.set()
        assert go_on.wait(TIMEOUT)
        return b"late"

    with connected({}, {}) as (a, b):
        asked = Background(b.request, b"x", timeout=TIMEOUT)
        with pytest.raises(TimeoutError, match="not closed within 0.2 s"):
            a.serve_requests(handle, timeout=0.2)
        assert runs.is_set() and not a.closed
        go_on.set()
        assert asked.result() == b"late"
        until(lambda: not threads_of_servers())
        b.send(b"to be taken by somebody else")
        assert a.recv(timeout=TIMEOUT) == b"to be taken by somebody else"


def test_an_interrupt_ends_it_and_nothing_else() -> None:
    with connected({}, {}) as (a, b):
        main = threading.get_ident()

        def interrupt() -> None:
            assert b.request(b"x", timeout=TIMEOUT) == b"X"
            signal.pthread_kill(main, signal.SIGUSR1)  # not Ctrl-C, which is ignored where tests run in the background

        interrupting = Background(interrupt)
        began = time.monotonic()
        with handling(), pytest.raises(Interrupted):
            a.serve_requests(bytes.upper, timeout=TIMEOUT)
        interrupting.result()
        assert time.monotonic() - began < TIMEOUT
        until(lambda: not threads_of_servers())
        b.send(b"y")
        assert a.recv(timeout=TIMEOUT) == b"y"


def test_several_may_serve_at_a_time() -> None:
    with connected({}, {}) as (a, b), serving(a, bytes.upper), serving(a, bytes.upper):
        asked = [Background(b.request, b"x%d" % number, timeout=TIMEOUT) for number in range(50)]
        assert [one.result() for one in asked] == [b"X%d" % number for number in range(50)]


def test_one_that_has_gone_is_no_trouble() -> None:
    runs, go_on = threading.Event(), threading.Event()

    def handle(data: bytes) -> bytes:
        runs.set()
        assert go_on.wait(TIMEOUT)
        return data

    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with serving(sock, handle):
            with dial(sock.bound_port) as peer:
                peer.shake_hands(frame(REQUEST, bytes(16) + b"x"))
                assert runs.wait(TIMEOUT)
            until(lambda: not sock.peers())
            go_on.set()
            until(lambda: sock.stats().dropped == {"peer not connected": 1})
            with dial(sock.bound_port) as peer:
                peer.shake_hands(frame(REQUEST, bytes(16) + b"y"))
                assert peer.read_kind(REPLY)[1] == bytes(16) + b"y"


@pytest.mark.parametrize(("arguments", "options", "error"), [
    ((None,), {}, TypeError), (("name",), {}, TypeError), ((bytes.upper,), {"max_workers": 0}, ValueError),
    ((bytes.upper,), {"max_workers": "8"}, TypeError), ((bytes.upper,), {"timeout": -1}, ValueError),
])
def test_arguments_are_checked(arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception]) -> None:
    with Søcket() as sock, pytest.raises(error):
        sock.serve_requests(*arguments, **options)


def test_what_has_not_been_taken_when_it_is_over_is_left_to_others() -> None:
    runs, go_on = threading.Event(), threading.Event()

    def handle(data: bytes) -> None:
        runs.set()
        assert go_on.wait(TIMEOUT)

    with connected({}, {}) as (a, b):
        b.send_many([b"%d" % number for number in range(20)])
        until(lambda: a.stats().received == 20)
        with pytest.raises(TimeoutError):
            a.serve_requests(handle, max_workers=2, timeout=0.2)
        go_on.set()
        until(lambda: not threads_of_servers())
        left: list[bytes] = []
        while len(left) < 18:
            left += a.recv_many(100, timeout=TIMEOUT)
        assert left == [b"%d" % number for number in range(2, 20)]


def test_an_asker_that_takes_no_replies_does_not_keep_the_workers_from_others(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(answering, "PATIENCE", 0.05)
    large = bytes(1_000_000)
    handled: list[bytes] = []

    def handle(data: bytes) -> bytes:
        handled.append(data)
        return large if data == b"much" else data

    with Søcket(linger=0, send_hwm=2) as sock, Søcket(linger=0) as asker:
        sock.bind(port=0)
        with (serving(sock, handle, max_workers=2),
              dial(sock.bound_port) as deaf):
            deaf.shake_hands(*(frame(REQUEST, bytes((number,)) * 16 + b"much") for number in range(60)))
            until(lambda: sock.stats().received == 60)
            asker.connect(port=sock.bound_port)
            assert asker.request(b"x", timeout=TIMEOUT) == b"x"
            until(lambda: "no room for the reply" in sock.stats().dropped)
            assert "failed" not in caplog.text, "no handler has"
            until(lambda: sock.stats().dropped["no room for the reply"] + sock.stats().sent + sock.stats().queued == 61)
            before = handled.count(b"much"), sock.stats().dropped["no room for the reply"]
            deaf.send(*(frame(REQUEST, bytes((100 + number,)) * 16 + b"much") for number in range(20)))
            until(lambda: sock.stats().dropped["no room for the reply"] >= before[1] + 20)
            assert handled.count(b"much") == before[0], "nor is it asked for what nobody can get"


def test_as_many_such_askers_as_there_are_workers_keep_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "PATIENCE", 3600.0)
    large = bytes(1_000_000)
    with Søcket(linger=0, send_hwm=2) as sock, Søcket(linger=0) as asker, ExitStack() as stack:
        sock.bind(port=0)
        for _ in range(12):
            deaf = stack.enter_context(dial(sock.bound_port))
            deaf.shake_hands(*(frame(REQUEST, bytes((asked,)) * 16 + b"much") for asked in range(20)))
        until(lambda: sock.stats().received == 240)
        stack.enter_context(serving(sock, lambda data: large if data == b"much" else data, max_workers=2))
        asker.connect(port=sock.bound_port)
        assert asker.request(b"x", timeout=TIMEOUT) == b"x"
        assert not sock.stats().dropped
        sock.close()


def test_what_one_asks_who_takes_his_replies_slowly_waits_and_is_answered_in_the_end(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "LONG", 4_000_000)
    monkeypatch.setattr(answering, "PATIENCE", 3600.0)
    large, handled = bytes(1_000_000), []

    def handle(data: bytes) -> bytes:
        handled.append(data)
        return data + large

    with Søcket(linger=0, send_hwm=2) as sock, Søcket(linger=0) as asker:
        sock.bind(port=0)
        with serving(sock, handle, max_workers=2), dial(sock.bound_port) as slow:
            slow.shake_hands(*(frame(REQUEST, bytes((number,)) * 16 + bytes((number,))) for number in range(100)))
            until(lambda: sock.stats().received == 100)
            asker.connect(port=sock.bound_port)
            assert asker.request(b"xx", timeout=TIMEOUT)[:2] == b"xx", "others need not wait"
            assert len(handled) < 50, "nor is he asked for more than there is room for"
            got = sorted(slow.read_kind(REPLY)[1][0] for _ in range(100))
            assert got == list(range(100)) and not sock.stats().dropped
            until(lambda: not any("answers" in thread.name for thread in threads_of_servers()))


def test_what_is_held_when_it_is_over_is_left_to_others_and_what_stands_in_line_goes_out(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "LONG", 2_000_000)
    large = bytes(1_000_000)
    handled: list[int] = []

    def handle(data: bytes) -> bytes:
        handled.append(data[0])
        return data + large

    with Søcket(linger=0, send_hwm=2) as sock, dial(sock.bind(port=0).bound_port) as slow:
        slow.shake_hands(*(frame(REQUEST, bytes((number,)) * 16 + bytes((number,))) for number in range(40)))
        until(lambda: sock.stats().received == 40)
        with pytest.raises(TimeoutError):
            sock.serve_requests(handle, max_workers=2, timeout=0.5)
        left = [delivery.data[0] for delivery in left_in(sock)]
        assert len(left) > 10 and sorted(left + handled) == list(range(40))
        got = sorted(slow.read_kind(REPLY)[1][0] for _ in handled)
        assert got == sorted(handled) and not sock.stats().dropped


@pytest.mark.untraced
def test_an_interrupt_while_it_ends_loses_nothing_that_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the main thread, whose every line is one too many once."""
    monkeypatch.setattr(answering, "LONG", 100_000)
    large = bytes(300_000)

    def handle(data: bytes) -> bytes:
        return data[:1] + large

    def interrupt(frame: Any, event: str, argument: Any) -> Any:
        if event == "line" and frame.f_code.co_name in ("let_go", "_put_behind"):
            raise Interrupted
        return interrupt

    with Søcket(linger=0, send_hwm=1, send_buffer=16_384) as sock, dial(sock.bind(port=0).bound_port) as slow:
        slow.shake_hands(*(frame(REQUEST, bytes((number,)) * 16 + bytes((number,))) for number in range(60)))
        until(lambda: sock.stats().received == 60)
        before = sys.gettrace()
        sys.settrace(interrupt)
        try:
            with pytest.raises(TimeoutError):
                sock.serve_requests(handle, max_workers=2, timeout=0.5)
        finally:
            sys.settrace(before)
        assert len(left_in(sock)) > 20


def read_twelve(peer: WirePeer) -> list[int]:
    """Whose replies they are; and then it leaves."""
    got = sorted(peer.read_kind(REPLY)[1][0] for _ in range(12))
    peer.sock.shutdown(socket.SHUT_RDWR)
    return got


@pytest.mark.parametrize("linger", [0, TIMEOUT])
def test_replies_that_stand_in_line_when_it_is_closed_are_sent_while_that_lingers_or_counted(
        linger: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "PATIENCE", 3600.0)
    large, handled = bytes(300_000), [0]

    def handle(data: bytes) -> bytes:
        handled[0] += 1
        return large

    with Søcket(linger=0, send_hwm=1, send_buffer=16_384) as sock, dial(sock.bind(port=0).bound_port) as slow:
        with serving(sock, handle, max_workers=1):
            slow.shake_hands(*(frame(REQUEST, bytes((number,)) * 16 + b"?") for number in range(12)))
            until(lambda: handled[0] == 12)
            got = Background(read_twelve, slow) if linger else None
            sent, given_up = sock.stats().sent, sock.close(linger=linger)
            if got is None:
                assert given_up >= 12 - sent - 2 and sock.stats().dropped == {"given up at close": given_up}
            else:
                assert got.result() == list(range(12)) and given_up == 0 and not sock.stats().dropped


def test_what_was_asked_counts_for_a_reply_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "LONG", 2_000_000)
    monkeypatch.setattr(answering, "PATIENCE", 3600.0)
    large, handled = bytes(200_000), [0]

    def handle(data: bytes) -> bytes:
        handled[0] += len(data) > 1000
        return data[:20_000]

    with (Søcket(linger=0, send_hwm=1, send_buffer=16_384) as sock, Søcket(linger=0) as asker,
          dial(sock.bind(port=0).bound_port) as slow, serving(sock, handle, max_workers=1)):
        slow.shake_hands()
        slow.send(*(frame(REQUEST, bytes((number,)) * 16 + large) for number in range(200)))
        until(lambda: sock.stats().received == 200)
        asker.connect(port=sock.bound_port)
        before = -1
        while handled[0] != before:
            before = handled[0]
            assert asker.request(b"x" * 100, timeout=TIMEOUT) == b"x" * 100
            time.sleep(0.2)
        assert 0 < handled[0] < 60 and not sock.stats().dropped


def test_what_stands_in_line_is_remembered_by_who_serves_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "LONG", 2_000_000)
    monkeypatch.setattr(answering, "PATIENCE", 3600.0)
    handled = [0]

    def handle(data: bytes) -> bytes:
        handled[0] += 1
        return bytes(200_000)

    with (Søcket(linger=0, send_hwm=1, send_buffer=16_384) as sock, dial(sock.bind(port=0).bound_port) as slow):
        slow.shake_hands(*(frame(REQUEST, bytes((number,)) * 16 + b"?") for number in range(200)))
        until(lambda: sock.stats().received == 200)
        for _ in range(10):
            with pytest.raises(TimeoutError):
                sock.serve_requests(handle, max_workers=1, timeout=0.1)
        assert 0 < handled[0] < 60, "each call begins with as many again"
        assert len(threads_of_servers()) <= 2
        sock.close()


def test_who_takes_a_long_time_for_one_reply_is_not_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "PATIENCE", 0.5)
    large = bytes(2_000_000)
    with Søcket(linger=0, send_hwm=1, send_buffer=200_000) as sock, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
        connection.connect(("127.0.0.1", sock.bind(port=0).bound_port))
        slow = WirePeer(connection)
        with serving(sock, lambda data: large, max_workers=1):
            slow.shake_hands(*(frame(REQUEST, bytes((number,)) * 16 + b"?") for number in range(3)))
            taken, begun = len(slow.buffer), time.monotonic()
            while taken < 3 * len(large):
                piece = connection.recv(20_000)
                assert piece
                taken += len(piece)
                time.sleep(max(0.0, begun + taken / 2_000_000 - time.monotonic()))  # a reply a second
            assert not sock.stats().dropped


def test_a_reply_that_stands_in_line_is_not_tried_while_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trial costs: with hundreds of lines their asker's room is looked at, and nothing else."""
    monkeypatch.setattr(answering, "PATIENCE", 0.4)
    trials = [0]

    class Counting(Delivery):
        def reply(self, data: Any, *, timeout: Any = ...) -> None:
            trials[0] += timeout == 0
            super().reply(data, timeout=timeout)

    monkeypatch.setattr("netmsg.messaging.receiving.Delivery", Counting)
    with (Søcket(linger=0, send_hwm=1, send_buffer=16_384) as sock, dial(sock.bind(port=0).bound_port) as deaf,
          serving(sock, lambda data: bytes(500_000))):
        deaf.shake_hands(*(frame(REQUEST, bytes((number,)) * 16 + b"?") for number in range(5)))
        until(lambda: sock.stats().dropped.get("no room for the reply", 0) >= 3)
        assert 0 < trials[0] < 10


def test_what_is_replied_behind_somebody_who_waits_comes_in_its_turn() -> None:
    """To one who takes his time."""
    large = bytes(500_000)
    with Søcket(linger=0, send_hwm=2) as sock:
        sock.bind(port=0)
        with serving(sock, lambda data: data + large, max_workers=4), dial(sock.bound_port) as slow:
            slow.shake_hands(*(frame(REQUEST, bytes((number,)) * 16 + bytes((number,))) for number in range(40)))
            until(lambda: sock.stats().queued >= 2)
            got = sorted(slow.read_kind(REPLY)[1][0] for _ in range(40))
            assert got == list(range(40)) and not sock.stats().dropped


def test_an_answer_that_fails_ends_no_worker(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    reply = Delivery.reply

    def fail_once(self: Delivery, data: Any, **options: Any) -> None:
        monkeypatch.setattr(Delivery, "reply", reply)
        raise MemoryError

    monkeypatch.setattr(Delivery, "reply", fail_once)
    with connected() as (a, b), serving(a, bytes.upper, max_workers=1):
        with pytest.raises(TimeoutError):
            b.request(b"x", timeout=0.2)
        assert b.request(b"y", timeout=TIMEOUT) == b"Y"
    assert "cannot be answered" in said(caplog)[0].getMessage()


def test_huge_replies_reach_an_asker_who_takes_them() -> None:
    """A line of them is full with the first."""
    huge = bytes(17_000_000)
    with Søcket(linger=0, send_hwm_bytes=20_000_000) as sock, Søcket(linger=0) as asker, \
            serving(sock, lambda data: data + huge, max_workers=4):
        asker.connect(port=sock.bind(port=0).bound_port)
        asked = [Background(asker.request, b"%02d" % number, timeout=3 * TIMEOUT) for number in range(12)]
        assert [one.result(3 * TIMEOUT)[:2] for one in asked] == [b"%02d" % number for number in range(12)]


def test_why_there_is_no_reply_waits_for_room_too() -> None:
    large = bytes(500_000)

    def handle(data: bytes) -> bytes:
        if data[0] % 2:
            raise ArithmeticError
        return data + large

    with Søcket(linger=0, send_hwm=2) as sock:
        sock.bind(port=0)
        with serving(sock, handle, max_workers=4), dial(sock.bound_port) as slow:
            slow.shake_hands(*(frame(REQUEST, bytes((number,)) * 16 + bytes((number,))) for number in range(40)))
            until(lambda: sock.stats().queued >= 2)
            got = sorted(slow.read_kind(REPLY, FAILURE)[1][0] for _ in range(40))
            assert got == list(range(40)) and not sock.stats().dropped


def test_a_reply_is_what_the_handler_returned_whatever_becomes_of_its_buffer() -> None:
    buffer = bytearray(500_000)

    def handle(data: bytes) -> bytearray:
        buffer[0] = data[0]
        return buffer

    with Søcket(linger=0, send_hwm=2) as sock:
        sock.bind(port=0)
        with serving(sock, handle, max_workers=1), dial(sock.bound_port) as slow:
            slow.shake_hands(*(frame(REQUEST, bytes((number,)) * 16 + bytes((number,))) for number in range(20)))
            until(lambda: sock.stats().queued >= 2)
            for _ in range(20):
                _, body = slow.read_kind(REPLY)
                assert body[0] == body[16]


def test_an_asker_that_takes_no_replies_is_disconnected_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "PATIENCE", 0.05)
    large = bytes(1_000_000)
    with Søcket(linger=0, send_hwm=2, on_full=OnFull.DISCONNECT, heartbeat_interval=0.1,
                heartbeat_timeout=60.0) as sock:
        sock.bind(port=0)
        with serving(sock, lambda data: large, max_workers=2), dial(sock.bound_port) as deaf:
            deaf.shake_hands(*(frame(REQUEST, bytes((number,)) * 16 + b"much") for number in range(60)))
            number = 60
            while sock.stats().disconnections == 0:
                with suppress(OSError):
                    deaf.send(frame(REQUEST, number.to_bytes(16, "big") + b"much"))
                number += 1
                assert number < 2000
                time.sleep(0.01)


def test_two_that_ask_each_other_and_have_no_room_come_through() -> None:
    marks = {"recv_hwm": 1, "send_hwm": 1}
    with (connected(marks, marks) as (a, b), serving(a, bytes.upper, max_workers=2),
          serving(b, bytes.upper, max_workers=2)):
        asked = [Background(one.request, b"x%d" % number, timeout=TIMEOUT) for number in range(30) for one in (a, b)]
        assert [one.result() for one in asked] == [b"X%d" % number for number in range(30) for _ in range(2)]


def test_an_interrupt_at_its_end_ends_it_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stop, strikes = Serving._stop, [KeyboardInterrupt()]

    def struck(self: Serving) -> None:
        if strikes:
            raise strikes.pop()
        stop(self)

    monkeypatch.setattr(Serving, "_stop", struck)
    with Søcket() as sock:
        with pytest.raises(KeyboardInterrupt):
            sock.serve_requests(bytes.upper, timeout=0.05)
        until(lambda: not threads_of_servers())
