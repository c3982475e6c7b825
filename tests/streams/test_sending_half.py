"""The half of a stream that sends, over a link that does what it is told to."""

from __future__ import annotations

import errno

import pytest
from support.interrupts import Alarm, Interrupted
from support.scripted import SOME_TLS, after, scripted

from netmsg import ClosedError, ConnectionBrokenError, LocalProtocolError, SendTimeoutError
from netmsg.deadline import Deadline
from netmsg.sockets.waiting import READ, WRITE
from netmsg.streams.connection import FOREVER, closed_meanwhile
from netmsg.streams.sending import SOME


def reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "reset")


def test_all_of_it_however_little_goes_at_a_time() -> None:
    inside, link, transport = scripted()
    transport.room += (3, BlockingIOError(), 2)
    link.happenings.append(WRITE)
    inside.sending.in_turn(FOREVER, inside.sending.send_all, b"abcdefgh")
    assert transport.sent == [b"abc", b"de", b"fgh"]
    assert link.waits == [WRITE]
    assert link.moved


def test_how_much_has_gone_is_counted_each_time() -> None:
    inside, _, transport = scripted()
    transport.room += (3, 2)
    counts: list[int] = []
    inside.sending.send_counted(memoryview(b"abcdefgh"), counts, timeout=None)
    assert counts == [3, 2, 3]


def test_nothing_at_all_is_sent_without_a_word() -> None:
    inside, _, transport = scripted()
    inside.sending.in_turn(FOREVER, inside.sending.send_all, b"")
    assert transport.sent == []
    assert not inside.sending.has_sent


def test_a_timeout_part_way_says_how_far_it_came_and_nothing_more_is_sent() -> None:
    inside, _, transport = scripted()
    sending = inside.sending
    transport.room += (3, BlockingIOError())
    with pytest.raises(SendTimeoutError) as caught:
        sending.in_turn(Deadline(0), sending.send_all, b"abcdefgh")
    assert caught.value.bytes_sent == 3
    assert inside.has_raised(caught.value)
    for _ in range(2):
        with pytest.raises(ConnectionBrokenError, match="after 3 of 8 bytes"):
            sending.in_turn(FOREVER, sending.send_all, b"more")
    assert transport.sent == [b"abc"]


def test_a_timeout_before_anything_has_gone_spoils_nothing() -> None:
    inside, _, transport = scripted()
    sending = inside.sending
    transport.room.append(BlockingIOError())
    with pytest.raises(SendTimeoutError) as caught:
        sending.in_turn(Deadline(0), sending.send_all, b"abc")
    assert caught.value.bytes_sent == 0
    sending.in_turn(FOREVER, sending.send_all, b"abc")
    assert transport.sent == [b"abc"]


@pytest.mark.parametrize(("gone", "spoilt"), [(0, False), (3, True), (8, False)])
def test_an_interrupt_spoils_it_only_where_a_part_has_gone(gone: int, spoilt: bool) -> None:
    inside, link, transport = scripted()
    sending = inside.sending
    if gone == 8:
        sending.under_way = [5, 3], 8  # it came right behind the last piece
    else:
        transport.room += (gone, BlockingIOError()) if gone else (BlockingIOError(),)
        link.happenings.append(Interrupted())
        with pytest.raises(Interrupted):
            sending.in_turn(FOREVER, sending.send_all, b"abcdefgh")
    assert sending.turn.holder is None
    if spoilt:
        with pytest.raises(ConnectionBrokenError, match="cut short after 3 of 8"):
            sending.in_turn(FOREVER, sending.send_all, b"more")
    else:
        sending.in_turn(FOREVER, sending.send_all, b"more")
        assert transport.sent[-1] == b"more"


def test_what_the_transport_has_begun_is_a_part_too() -> None:
    inside, link, transport = scripted()
    sending = inside.sending
    transport.room.append(BlockingIOError())
    transport.begun = True
    link.happenings.append(Interrupted())
    with pytest.raises(Interrupted):
        sending.in_turn(FOREVER, sending.send_all, b"abc")
    with pytest.raises(ConnectionBrokenError, match="cut short"):
        sending.check()


def test_an_error_is_kept_and_told_to_who_receives() -> None:
    inside, _, transport = scripted()
    sending = inside.sending
    error = reset()
    transport.room.append(error)
    told = []
    for _ in range(2):
        with pytest.raises(ConnectionBrokenError) as caught:
            sending.in_turn(FOREVER, sending.send_all, b"abc")
        assert caught.value.__cause__ is error
        told.append(caught.value)
    assert told[0] is not told[1]
    assert inside.connection.lost is error


def test_that_nobody_receives_any_more_is_nothing_to_who_receives() -> None:
    inside, _, transport = scripted()
    transport.room.append(BrokenPipeError(errno.EPIPE, "gone"))
    with pytest.raises(ConnectionBrokenError):
        inside.sending.in_turn(FOREVER, inside.sending.send_all, b"abc")
    assert inside.connection.lost is None


def test_what_a_signal_handler_raises_is_no_error_of_the_network() -> None:
    inside, _, transport = scripted()
    sending = inside.sending
    transport.room.append(Alarm())
    with pytest.raises(Alarm):
        sending.in_turn(FOREVER, sending.send_all, b"abc")
    sending.in_turn(FOREVER, sending.send_all, b"abc")


def test_as_much_as_goes_at_once_and_no_part_of_that_is_cut_short() -> None:
    inside, link, transport = scripted()
    sending = inside.sending
    transport.room += (BlockingIOError(), 3)
    link.happenings.append(WRITE)
    counts: list[int] = []
    sending.send_some(b"abcdefgh", counts, FOREVER, [])
    assert counts == [3]
    sending.check()


def test_who_gives_it_up_has_it_come_out_and_cuts_nothing_short() -> None:
    inside, link, transport = scripted()
    sending = inside.sending
    transport.room.append(BlockingIOError())
    given_up: list[bool] = []
    link.happenings.append(after(given_up.append, True))
    with pytest.raises(ClosedError):
        sending.send_some(b"abc", [], FOREVER, given_up)
    assert link.unless is given_up
    sending.in_turn(FOREVER, sending.send_all, b"abc")


@pytest.mark.parametrize("error", [Interrupted(), TimeoutError("timed out")])
def test_what_the_transport_has_taken_of_what_need_not_go_is_known_and_no_part(error: BaseException) -> None:
    inside, link, transport = scripted()
    sending = inside.sending
    transport.room.append(BlockingIOError())
    transport.unreported = [2]
    link.happenings.append(error)
    counts: list[int] = []
    with pytest.raises(type(error)):
        sending.send_some(b"abcdef", counts, FOREVER, [])
    assert counts == [2]
    sending.in_turn(FOREVER, sending.send_all, b"cdef")


def test_nor_is_it_if_finding_out_is_interrupted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, link, transport = scripted()
    sending = inside.sending
    transport.room.append(BlockingIOError())
    transport.unreported = [2]
    link.happenings.append(Interrupted())
    counts: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(transport, "report", interrupted)
        with pytest.raises(Interrupted):
            sending.send_some(b"abcdef", counts, FOREVER, [])
    assert counts == []
    sending.settle([])
    assert counts == []
    sending.settle(counts)
    assert counts == [2]
    sending.settle(counts)
    assert counts == [2] and sending.turn.holder is None


def test_nor_has_that_to_wait_for_who_closes() -> None:
    inside, _, transport = scripted()
    sending = inside.sending
    counts: list[int] = []
    sending.under_way = counts, SOME
    transport.unreported = [2]
    sending.turn.holder = [-1]
    sending.turn.refuse(closed_meanwhile)
    sending.settle(counts)
    assert counts == [2]


def interrupted(*_: object) -> None:
    raise Interrupted


def test_under_tls_it_is_seen_first_whether_something_can_go_if_there_is_no_time_for_ever() -> None:
    inside, link, transport = scripted()
    sending = inside.sending
    transport.tls = SOME_TLS
    with pytest.raises(SendTimeoutError):
        sending.in_turn(Deadline(0), sending.send_all, b"abc")
    assert transport.sent == [] and link.waits == [WRITE]
    sending.in_turn(FOREVER, sending.send_all, b"abc")


def test_what_the_transport_could_not_send_is_an_error_of_who_waits_for_room() -> None:
    inside, link, transport = scripted()
    sending = inside.sending
    error = reset()
    transport.unsent = True
    transport.room.append(BlockingIOError())
    transport.flushes.append(error)
    link.happenings.append(WRITE)
    with pytest.raises(ConnectionBrokenError) as caught:
        sending.in_turn(FOREVER, sending.send_all, b"abc")
    assert caught.value.__cause__ is error
    assert sending.error is error and inside.connection.lost is error


def test_who_can_send_only_after_receiving_has_it_in_the_read_ahead() -> None:
    inside, _, transport = scripted()
    sending, receiving = inside.sending, inside.receiving
    transport.room.append(BlockingIOError())
    transport.stalled = True
    transport.incoming.append(b"heard")
    sending.in_turn(FOREVER, sending.send_all, b"abc")
    assert transport.sent == [b"abc"]
    assert receiving.take(FOREVER, receiving.some, 10) == b"heard"


def test_an_end_where_something_has_to_be_received_is_a_break() -> None:
    inside, _, transport = scripted()
    sending = inside.sending
    transport.room.append(BlockingIOError())
    transport.stalled = True
    transport.incoming.append(b"")
    for _ in range(2):
        with pytest.raises(ConnectionBrokenError, match="in the middle of a TLS handshake"):
            sending.in_turn(FOREVER, sending.send_all, b"abc")


def test_eof_is_said_once_and_nothing_is_sent_behind_it() -> None:
    inside, link, transport = scripted()
    sending = inside.sending
    transport.unsent = True
    link.happenings.append(WRITE)
    sending.in_turn(FOREVER, sending.send_eof)
    assert link.waits == [WRITE] and not transport.unsent
    transport.ends.append(AssertionError("once is enough"))
    sending.in_turn(FOREVER, sending.send_eof)
    with pytest.raises(LocalProtocolError):
        sending.in_turn(FOREVER, sending.send_all, b"abc")


def test_eof_that_was_interrupted_is_said_again_and_may_have_been_said() -> None:
    inside, _, transport = scripted()
    sending = inside.sending
    transport.ends += (Interrupted(), OSError(errno.ENOTCONN, "not connected"))
    with pytest.raises(Interrupted):
        sending.in_turn(FOREVER, sending.send_eof)
    assert not sending.has_sent_eof
    sending.in_turn(FOREVER, sending.send_eof)
    assert sending.has_sent_eof


def test_no_eof_makes_a_whole_of_a_part() -> None:
    inside, _, transport = scripted()
    sending = inside.sending
    sending.under_way = [3], 8
    with pytest.raises(ConnectionBrokenError, match="cut short"):
        sending.in_turn(FOREVER, sending.send_eof)
    assert not transport.has_ended


def test_closed_while_it_waits() -> None:
    inside, link, transport = scripted()
    transport.room.append(BlockingIOError())
    link.happenings.append(after(inside.closing.close, 0))
    with pytest.raises(ClosedError):
        inside.sending.in_turn(FOREVER, inside.sending.send_all, b"abc")
    assert link.calls[-1] == "close"


def test_the_handshake_comes_first_and_its_timeout_is_that_of_a_send() -> None:
    inside, _, transport = scripted()
    transport.handshaking = True
    transport.shakes.append(BlockingIOError())
    with pytest.raises(SendTimeoutError) as caught:
        inside.sending.in_turn(Deadline(0), inside.sending.send_all, b"abc")
    assert caught.value.bytes_sent == 0
    assert inside.has_raised(caught.value)
    assert transport.sent == []
    inside.sending.in_turn(FOREVER, inside.sending.send_all, b"abc")
    assert transport.sent == [b"abc"]


def test_who_has_the_turn_is_told() -> None:
    inside, link, transport = scripted()
    seen: list[int | None] = []
    transport.room.append(BlockingIOError())
    link.happenings.append(after(lambda: seen.append(inside.sender), events=READ))
    inside.sending.in_turn(FOREVER, inside.sending.send_all, b"abc")
    assert seen[0] is not None
    assert inside.sender is None and inside.receiver is None
