"""The half of a stream that receives, over a link that does what it is told to."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from support.interrupts import Alarm, Interrupted
from support.scripted import after, scripted

from netmsg import (
    ClosedError, ConnectionBrokenError, DelimiterNotFoundError, EndOfStream, IncompleteReadError, LocalProtocolError,
)
from netmsg.deadline import Deadline
from netmsg.sockets.waiting import READ, WRITE
from netmsg.streams.connection import FOREVER, IdleTimeoutError
from netmsg.streams.read_ahead import ReadAhead


def reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "reset")


def test_some_is_what_has_come_and_the_rest_of_it_stays() -> None:
    inside, link, transport = scripted()
    receiving = inside.receiving
    transport.incoming += (b"abc", b"def")
    assert receiving.take(FOREVER, receiving.some, 2) == b"ab"
    assert receiving.take(FOREVER, receiving.some, 2) == b"c"
    assert receiving.take(FOREVER, receiving.some, 9) == b"def"
    assert link.waits == []


def test_it_is_tried_first_and_waited_for_second() -> None:
    inside, link, transport = scripted()
    receiving = inside.receiving
    link.happenings.append(after(transport.incoming.append, b"late", events=READ))
    assert receiving.take(FOREVER, receiving.some, 10) == b"late"
    assert link.waits == [READ]
    assert link.moved


def test_a_timeout_loses_nothing() -> None:
    inside, _, transport = scripted()
    receiving = inside.receiving
    transport.incoming.append(b"half")
    with pytest.raises(TimeoutError):
        receiving.take(Deadline(0), receiving.exactly, 8)
    transport.incoming.append(b" and half")
    assert receiving.take(FOREVER, receiving.exactly, 8) == b"half and"
    assert receiving.take(FOREVER, receiving.some, 100) == b" half"


def test_an_idle_timeout_is_told_from_others() -> None:
    inside, _, _ = scripted()
    receiving = inside.receiving
    with pytest.raises(TimeoutError) as timed_out:
        receiving.take(inside.connection.deadline(0), receiving.some, 1)
    assert not isinstance(timed_out.value, IdleTimeoutError)
    inside.time_out_when_idle(0)
    with pytest.raises(IdleTimeoutError) as idle:
        receiving.take(inside.connection.deadline(None), receiving.some, 1)
    assert inside.has_raised(idle.value)
    assert not inside.has_raised(timed_out.value)


def test_until_a_delimiter_that_comes_in_two_pieces() -> None:
    inside, _, transport = scripted()
    receiving = inside.receiving
    transport.incoming += (b"line\r", b"\nnext")
    assert receiving.take(FOREVER, receiving.until, b"\r\n", 10) == b"line"
    with pytest.raises(DelimiterNotFoundError):
        receiving.take(FOREVER, receiving.until, b"\r\n", 1)
    assert receiving.take(FOREVER, receiving.some, 10) == b"next"


def test_an_end_is_one_for_ever_and_what_came_before_it_stays() -> None:
    inside, _, transport = scripted()
    receiving = inside.receiving
    transport.incoming += (b"abc", b"")
    with pytest.raises(IncompleteReadError) as caught:
        receiving.take(FOREVER, receiving.exactly, 4)
    assert caught.value.partial == b"abc"
    assert receiving.take(FOREVER, receiving.exactly, 3) == b"abc"
    for _ in range(2):
        with pytest.raises(EndOfStream):
            receiving.take(FOREVER, receiving.exactly, 1)
        assert receiving.take(FOREVER, receiving.some, 1) == b""


def test_an_error_is_told_behind_what_came_before_it_and_each_time_as_another_one() -> None:
    inside, _, transport = scripted()
    receiving = inside.receiving
    error = reset()
    transport.incoming += (b"abc", error)
    assert receiving.take(FOREVER, receiving.some, 10) == b"abc"
    told = []
    for _ in range(2):
        with pytest.raises(ConnectionBrokenError) as caught:
            receiving.take(FOREVER, receiving.some, 10)
        assert caught.value.__cause__ is error
        told.append(caught.value)
    assert receiving.error is error
    assert told[0] is not told[1]


def test_what_a_signal_handler_raises_is_no_error_of_the_network() -> None:
    inside, _, transport = scripted()
    receiving = inside.receiving
    transport.incoming += (Alarm(), b"on")
    with pytest.raises(Alarm):
        receiving.take(FOREVER, receiving.some, 10)
    assert receiving.error is None
    assert receiving.take(FOREVER, receiving.some, 10) == b"on"


def test_an_end_behind_a_loss_that_a_send_was_told_of_is_a_break() -> None:
    inside, _, transport = scripted()
    transport.room.append(reset())
    with pytest.raises(ConnectionBrokenError):
        inside.sending.in_turn(FOREVER, inside.sending.send_all, b"x")
    transport.incoming += (b"abc", b"")
    receiving = inside.receiving
    assert receiving.take(FOREVER, receiving.some, 10) == b"abc"
    with pytest.raises(ConnectionBrokenError):
        receiving.take(FOREVER, receiving.some, 10)
    assert receiving.error is inside.connection.lost
    assert not receiving.ended


def test_into_a_buffer_past_the_read_ahead_and_only_if_nothing_is_in_it() -> None:
    inside, _, transport = scripted()
    receiving = inside.receiving

    def receive_into(view: memoryview) -> int:
        view[:3] = b"new"
        return 3

    transport.receive_into = receive_into
    transport.incoming.append(b"a\nhead")
    assert receiving.take(FOREVER, receiving.until, b"\n", 1) == b"a"
    buffer = bytearray(10)
    assert receiving.receive_into(FOREVER, memoryview(buffer)) == 4
    assert buffer[:4] == b"head"
    assert receiving.receive_into(FOREVER, memoryview(buffer)) == 3
    assert buffer[:4] == b"newd"


def test_what_is_given_back_comes_next_and_wakes_who_waits() -> None:
    inside, link, transport = scripted()
    receiving = inside.receiving
    transport.incoming.append(b"abc")
    assert receiving.take(FOREVER, receiving.exactly, 2) == b"ab"
    receiving.give_back(b"ab")
    assert link.calls == ["look_again"]
    assert receiving.take(FOREVER, receiving.exactly, 3) == b"abc"


@pytest.mark.parametrize("there", [b"new", b""])
def test_what_is_given_back_while_one_waits_comes_before_what_comes_into_a_buffer(there: bytes) -> None:
    inside, link, transport = scripted()
    receiving = inside.receiving
    has_come = False

    def receive_into(view: memoryview) -> int:
        if not has_come:
            raise BlockingIOError
        view[:len(there)] = there
        return len(there)

    def given_back() -> int:
        nonlocal has_come
        has_come = True
        receiving.give_back(b"old")
        return READ

    transport.receive_into = receive_into
    transport.incoming.append(there)
    link.happenings.append(given_back)
    buffer = bytearray(10)
    assert receiving.receive_into(FOREVER, memoryview(buffer)) == 3
    assert buffer[:3] == b"old"
    assert receiving.receive_into(FOREVER, memoryview(buffer)) == len(there)
    assert buffer[:len(there)] == there


@pytest.mark.parametrize("there", [b"new", b""])
def test_what_is_given_back_while_one_receives_comes_before_it(there: bytes) -> None:
    inside, _, transport = scripted()
    receiving = inside.receiving

    def receive_into(view: memoryview) -> int:
        receiving.ahead.returned += (b"old",)  # as another thread does in that moment
        view[:len(there)] = there
        return len(there)

    transport.receive_into = receive_into
    if not there:
        transport.incoming.append(b"")  # an end comes as often as it is asked for
    buffer = bytearray(10)
    assert receiving.receive_into(FOREVER, memoryview(buffer)) == 3
    assert buffer[:3] == b"old"
    assert receiving.take(FOREVER, receiving.some, 10) == there


def test_what_is_given_back_while_items_are_split_is_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, _, transport = scripted()
    receiving = inside.receiving
    ahead = receiving.ahead
    delimiter = b"\n"
    transport.incoming.append(b"".join(b"%d\n" % number for number in range(40)))
    split = ReadAhead.split

    def split_meanwhile(ahead: ReadAhead, *arguments: Any) -> None:
        split(ahead, *arguments)
        if ahead.items:
            receiving.give_back(b"first\n")  # as another thread does in that moment

    monkeypatch.setattr(ReadAhead, "split", split_meanwhile)
    taken = []
    while not ahead.items:
        taken.append(receiving.take(FOREVER, receiving.until, delimiter, 10))
    assert ahead.quick is None
    assert receiving.take(FOREVER, receiving.until, delimiter, 10) == b"first"
    assert receiving.take(FOREVER, receiving.until, delimiter, 10) == b"%d" % len(taken)


def test_who_may_have_nothing_comes_out_when_something_is_left_elsewhere() -> None:
    inside, link, _ = scripted()
    receiving = inside.receiving
    chunks: list[bytes] = []
    receiving.leave()
    receiving.receive_to(chunks)
    assert chunks == []
    link.happenings.append(after(receiving.leave))
    receiving.receive_to(chunks)
    assert chunks == []
    assert link.waits == [READ]
    assert link.unless is receiving.ahead.returned


def test_who_may_not_waits_on() -> None:
    inside, link, transport = scripted()
    receiving = inside.receiving
    chunks: list[bytes] = []
    receiving.leave()
    link.happenings += (after(receiving.leave), after(transport.incoming.append, b"abc", events=READ))
    receiving.receive_to(chunks, or_nothing=False)
    assert chunks == [b"abc"]


def test_a_line_at_most() -> None:
    inside, _, transport = scripted()
    transport.incoming += (b"one\ntwo", b"")
    chunks: list[bytes] = []
    for _ in range(3):
        inside.receiving.receive_to(chunks, or_nothing=False, by_line=True)
    assert chunks == [b"one\n", b"two", b""]


def test_an_interrupt_behind_the_taking_gives_it_back() -> None:
    inside, _, transport = scripted()
    receiving, connection = inside.receiving, inside.connection
    transport.incoming.append(b"line\nrest")

    def interrupt() -> None:
        raise Interrupted

    finish = connection.finish
    connection.closed_by_last, connection.finish = True, interrupt
    buffer = bytearray(2)
    for call in (lambda: receiving.take(FOREVER, receiving.until, b"\n", 10),
                 lambda: receiving.receive_into(FOREVER, memoryview(buffer))):
        with pytest.raises(Interrupted):
            call()
    connection.closed_by_last, connection.finish = False, finish
    assert receiving.turn.holder is None
    assert receiving.take(FOREVER, receiving.exactly, 9) == b"line\nrest"


def test_the_handshake_comes_first() -> None:
    inside, _, transport = scripted()
    receiving = inside.receiving
    order: list[str] = []
    transport.handshaking = True
    inside.connection.shake_hands = lambda deadline: order.append("shaken")

    def prepare(deadline: Deadline) -> tuple[int, int]:
        order.append("received")
        return 0, 0

    receiving.take(FOREVER, prepare)
    assert order == ["shaken", "received"]


def test_what_a_file_has_taken_is_found_out_before_anything_is_received() -> None:
    class Writing:
        def taken(self) -> int:
            return 3

    inside, _, transport = scripted()
    receiving = inside.receiving
    transport.incoming.append(b"abcdef")
    receiving.take(FOREVER, lambda deadline: (0 * receiving.some(deadline, 10)[0], 0))
    receiving.writing = Writing()
    assert receiving.take(FOREVER, receiving.some, 10) == b"def"
    assert receiving.writing is None


def test_a_call_from_inside_of_another_one_is_refused() -> None:
    inside, link, _ = scripted()
    receiving = inside.receiving

    def handle_signal() -> int:
        with pytest.raises(LocalProtocolError):
            receiving.take(FOREVER, receiving.some, 1)
        raise Interrupted

    link.happenings.append(handle_signal)
    with pytest.raises(Interrupted):
        receiving.take(FOREVER, receiving.some, 1)
    assert receiving.turn.holder is None


def test_closed_while_it_waits() -> None:
    inside, link, _ = scripted()
    receiving = inside.receiving

    def close() -> None:
        inside.closing.close(0)
        assert link.calls == ["wake"]  # it is inside itself

    link.happenings.append(after(close))
    with pytest.raises(ClosedError):
        receiving.take(FOREVER, receiving.some, 1)
    assert link.calls[-1] == "close"
    with pytest.raises(ClosedError):
        inside.connection.deadline(None)


def test_who_waits_sends_what_the_transport_has_to_send_and_a_failure_of_that_is_not_its_own() -> None:
    inside, link, transport = scripted()
    receiving = inside.receiving
    transport.unsent = True
    transport.flushes.append(reset())
    link.happenings += (WRITE, after(transport.incoming.append, b"abc", events=READ))
    assert receiving.take(FOREVER, receiving.some, 10) == b"abc"
    assert link.waits == [READ | WRITE, READ]
    assert inside.connection.lost is None and inside.sending.error is None


def test_what_another_stream_has_raised_is_not_its_failure() -> None:
    one, other = scripted()[0], scripted()[0]

    def receive_there(deadline: Deadline) -> Any:
        other.receiving.take(deadline, other.receiving.some, 1)

    with pytest.raises(TimeoutError) as caught:
        one.receiving.take(Deadline(0), receive_there)
    assert other.has_raised(caught.value)
    assert not one.has_raised(caught.value)
