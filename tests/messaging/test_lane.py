"""One peer's way out: nothing lost, repeated or spliced, wherever a write is cut off."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.lanes import joined, lane, send_all, take
from support.wire_peer import ACK
from support.wire_peer import frame as encoded

from netmsg.wire.envelope import data_frame, payload_of, reliable_frame
from netmsg.wire.messages import Frame, Kind, Queued, frame_size

LARGE = 20
CONTROL = encoded(ACK, bytes(16))

sizes = st.one_of(st.integers(0, 12), st.integers(LARGE, 40))


@cache
def message(number: int, size: int = 0) -> Queued:
    """One that is unlike any other; a large one from 20 bytes on."""
    return data_frame(b"%06d" % number + bytes(size), LARGE)


def messages(sizes: list[int]) -> list[Queued]:
    return [message(number, size) for number, size in enumerate(sizes)]


# Writing


def test_an_empty_lane_has_nothing_to_write() -> None:
    out = lane()
    assert out.empty
    assert out.begin_write() is None


@given(st.lists(sizes, max_size=20))
def test_frames_are_written_in_order(lengths: list[int]) -> None:
    frames = messages(lengths)
    out = lane()
    out.queue += frames
    assert send_all(out) == b"".join(map(joined, frames))
    assert out.empty
    assert out.sent_messages == len(frames)
    assert out.sent_bytes == sum(map(frame_size, frames))


@given(st.lists(sizes, min_size=1, max_size=8), st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_a_write_goes_on_where_the_last_call_left_off(lengths: list[int], counts: list[int]) -> None:
    frames = messages(lengths)
    out = lane()
    out.queue += frames
    expected = b"".join(map(joined, frames))
    sent = b""
    for count in counts:
        write = out.begin_write()
        assert write is not None
        sent += take(write, count)
        assert sent == expected[:len(sent)]
        assert write.done == (sent == expected)
        if write.done:
            assert write.remaining() == []
            break
        assert out.begin_write() is write


def test_frames_stay_at_the_head_of_the_queue_until_the_write_has_ended() -> None:
    first, second, late = messages([0, 30, 0])
    out = lane()
    out.queue += [first, second]
    write = out.begin_write()
    assert write is not None
    take(write, 20)
    out.queue.append(late)
    assert out.queue == [first, second, late]
    take(write)
    assert write.done
    assert out.queue == [first, second, late]
    out.end_write(write)
    assert out.queue == [late]
    assert out.writing is None


def test_the_queue_is_always_the_same_list() -> None:
    out = lane()
    queue = out.queue
    queue.append(message(1))
    send_all(out)
    out.take_back()
    assert out.queue is queue


def test_an_unfinished_write_keeps_the_lane_from_being_empty() -> None:
    out = lane()
    out.add_control(CONTROL)
    write = out.begin_write()
    assert write is not None
    take(write)
    assert not out.empty
    out.end_write(write)
    assert out.empty


def test_a_call_that_took_nothing_changes_nothing() -> None:
    out = lane()
    out.queue.append(message(1))
    write = out.begin_write()
    assert write is not None
    take(write, 0)
    assert not write.done
    assert b"".join(write.remaining()) == joined(message(1))


def test_control_frames_go_out_before_messages() -> None:
    out = lane()
    out.queue += messages([0, 30])
    out.add_control(CONTROL)
    assert send_all(out) == CONTROL + b"".join(map(joined, messages([0, 30])))
    assert out.empty
    assert out.sent_messages == 2


def test_control_frames_added_during_a_write_go_out_with_the_next() -> None:
    late = encoded(ACK, bytes(range(16)))
    out = lane()
    out.add_control(CONTROL)
    write = out.begin_write()
    assert write is not None
    out.add_control(late)
    assert take(write) == CONTROL
    out.end_write(write)
    assert out.control == [late]
    assert send_all(out) == late


def test_control_bytes_are_those_of_the_control_frames_still_queued() -> None:
    out = lane()
    for _ in range(3):
        out.add_control(CONTROL)
        write = out.begin_write()
        assert write is not None
        out.add_control(CONTROL)
        take(write)
        out.end_write(write)
        assert out.control_bytes == sum(map(len, out.control))
    send_all(out)
    assert out.control_bytes == 0


def test_one_write_holds_at_most_512_small_frames() -> None:
    out = lane()
    out.queue += [message(number) for number in range(1200)]
    held = []
    while (write := out.begin_write()) is not None:
        held.append(write.messages)
        take(write)
        out.end_write(write)
    assert held == [512, 512, 176]


def test_one_write_of_large_frames_is_bounded_in_bytes_and_in_buffers() -> None:
    out = lane()
    out.queue += [data_frame(bytes(300_000)) for _ in range(10)]
    write = out.begin_write()
    assert write is not None and write.messages == 4
    out = lane()
    out.queue += [message(number, LARGE) for number in range(500)]
    write = out.begin_write()
    assert write is not None and len(write.buffers) <= 64


def test_large_payloads_are_written_uncopied() -> None:
    payload = bytes(10_000)
    out = lane()
    out.queue += [message(1), data_frame(payload), message(2)]
    write = out.begin_write()
    assert write is not None
    assert any(buffer is payload for buffer in write.buffers)


def test_bytes_of_large_frames_are_no_longer_counted_once_written() -> None:
    frames = messages([0, 30, 0, 40])
    out = lane()
    out.queue += frames
    out.large_bytes = frame_size(frames[1]) + frame_size(frames[3])
    write = out.begin_write()
    assert write is not None
    take(write)
    assert out.large_bytes == frame_size(frames[1]) + frame_size(frames[3])
    out.end_write(write)
    assert out.large_bytes == 0


# Letting go


@pytest.mark.parametrize("controls", [0, 2])
@pytest.mark.parametrize("uncounted", [0, 25])
@given(lengths=st.lists(sizes, min_size=1, max_size=6))
def test_a_write_lets_go_of_what_it_has_not_begun_at_every_byte(controls: int, uncounted: int,
                                                                lengths: list[int]) -> None:
    frames = messages(lengths)
    whole = CONTROL * controls + b"".join(map(joined, frames))
    ends = [sum(map(frame_size, frames[:count])) for count in range(len(frames) + 1)]
    for handed_over in range(len(whole)):
        out = lane()
        out.uncounted = uncounted
        for _ in range(controls):
            out.add_control(CONTROL)
        for one in frames:
            out.give(one)
        write = out.begin_write()
        assert write is not None
        sent = take(write, handed_over) if handed_over else b""
        out.let_go()
        begun = handed_over - controls * len(CONTROL) + uncounted
        kept = sum(end < begun for end in ends[:-1])
        assert out.held_messages == kept and out.can_drop == (kept < len(frames))
        while out.can_drop:
            out.drop_oldest()
        assert sent + send_all(out) == whole[:controls * len(CONTROL) + ends[kept]]
        assert out.empty and out.large_bytes == 0 and out.sent_messages == kept


def test_without_a_write_there_is_nothing_to_let_go_of() -> None:
    out = lane()
    out.queue += messages([1, 2])
    out.let_go()
    assert len(out.queue) == 2 and out.writing is None


# Taking back


@pytest.mark.parametrize("controls", [0, 1, 3])
@given(lengths=st.lists(sizes, min_size=1, max_size=6), late=st.lists(sizes, max_size=2))
def test_what_was_not_handed_over_whole_is_taken_back_at_every_byte(controls: int, lengths: list[int],
                                                                    late: list[int]) -> None:
    frames = messages(lengths)
    later = [message(100 + number, size) for number, size in enumerate(late)]
    ends = [controls * len(CONTROL) + sum(map(frame_size, frames[:count + 1])) for count in range(len(frames))]
    for handed_over in range(ends[-1] + 1):
        out = lane()
        for _ in range(controls):
            out.add_control(CONTROL)
        out.queue += frames
        write = out.begin_write()
        assert write is not None
        take(write, handed_over // 2)
        take(write, handed_over - handed_over // 2)
        out.queue += later
        whole = sum(end <= handed_over for end in ends)
        assert out.take_back() == frames[whole:] + later
        assert out.empty
        assert out.sent_messages == whole
        assert out.control_bytes == 0 and out.large_bytes == 0


def test_taking_back_without_a_write_returns_the_whole_queue() -> None:
    out = lane()
    out.queue += messages([0, 30])
    out.add_control(CONTROL)
    assert out.take_back() == messages([0, 30])
    assert out.empty


def test_taking_back_again_finds_only_what_was_added_since() -> None:
    out = lane()
    out.queue += messages([0, 30])
    write = out.begin_write()
    assert write is not None
    take(write, 3)
    assert out.take_back() == messages([0, 30])
    assert out.take_back() == []
    out.queue.append(message(9))
    assert out.take_back() == [message(9)]


def test_frames_of_an_ended_write_are_not_taken_back() -> None:
    out = lane()
    out.queue += messages([0] * 600)
    write = out.begin_write()
    assert write is not None
    take(write)
    out.end_write(write)
    assert out.take_back() == messages([0] * 600)[512:]


# Dropping


def test_the_oldest_frame_is_dropped() -> None:
    out = lane()
    out.queue += messages([0, 30])
    assert out.drop_oldest() == message(0)
    assert out.drop_oldest() == message(1, 30)
    assert not out.can_drop


def test_dropping_a_large_frame_makes_room_in_bytes() -> None:
    out = lane()
    out.queue += messages([0, 30])
    out.large_bytes = frame_size(message(1, 30))
    out.drop_oldest()
    assert out.large_bytes == frame_size(message(1, 30))
    out.drop_oldest()
    assert out.large_bytes == 0


@given(st.lists(sizes, min_size=1, max_size=5), st.integers(0, 60), st.lists(sizes, max_size=4))
def test_dropping_never_touches_a_write_in_progress(lengths: list[int], taken: int, late: list[int]) -> None:
    frames = messages(lengths)
    later = [message(100 + number, size) for number, size in enumerate(late)]
    out = lane()
    out.queue += frames
    write = out.begin_write()
    assert write is not None
    sent = take(write, taken)
    out.queue += later
    assert [out.drop_oldest() for _ in later] == later
    assert not out.can_drop
    assert sent + take(write) == b"".join(map(joined, frames))
    out.end_write(write)
    assert out.empty


# While another connection of the same peer is read first, or has taken over


def test_while_held_control_frames_alone_go_out() -> None:
    out = lane()
    out.held = True
    out.queue.append(message(0))
    assert out.idle and out.begin_write() is None
    out.add_control(CONTROL)
    assert not out.idle
    assert send_all(out) == CONTROL
    out.held = False
    assert not out.idle
    assert send_all(out) == joined(message(0))


def test_while_finishing_the_write_in_progress_goes_on_and_no_other_begins() -> None:
    out = lane()
    out.queue += messages([0, 1])
    write = out.begin_write()
    assert write is not None
    sent = take(write, 3)
    out.queue.append(message(2, 30))
    out.finishing = True
    assert out.take_back() == [message(2, 30)]
    assert not out.idle
    sent += send_all(out)
    assert sent == joined(message(0, 0)) + joined(message(1, 1)) and out.idle
    out.queue.append(message(3))
    assert out.begin_write() is None
    assert out.take_back() == [message(3)]


# All of it together


steps = st.one_of(
    st.tuples(st.just("append"), sizes),
    st.tuples(st.just("control"), st.just(0)),
    st.tuples(st.just("write"), st.integers(0, 80)),
    st.tuples(st.just("drop"), st.just(0)),
)


@given(st.lists(steps, max_size=40))
def test_every_frame_is_sent_whole_once_or_dropped_or_taken_back(plan: list[tuple[str, int]]) -> None:
    out = lane()
    appended: list[Queued] = []
    dropped: list[Queued] = []
    wire = b""
    for step, value in plan:
        if step == "append":
            appended.append(message(len(appended), value))
            out.queue.append(appended[-1])
        elif step == "control":
            out.add_control(CONTROL)
        elif step == "write":
            write = out.begin_write()
            if write is not None:
                wire += take(write, value)
                if write.done:
                    out.end_write(write)
        elif out.can_drop:
            dropped.append(out.drop_oldest())
    given_back = out.take_back()
    remaining = list(appended)
    while wire:
        if CONTROL.startswith(wire[:len(CONTROL)]):
            wire = wire[len(CONTROL):]
            continue
        while remaining[0] in dropped:
            remaining.pop(0)
        expected = joined(remaining[0])
        assert expected.startswith(wire[:len(expected)])
        if len(wire) < len(expected):
            break
        wire = wire[len(expected):]
        remaining.pop(0)
    assert out.sent_messages == len(appended) - len(remaining) - sum(frame not in remaining for frame in dropped)
    assert given_back == [frame for frame in remaining if frame not in dropped]


# What else there is in a queue, and another dialect


def mixed(sizes: list[int]) -> list[Queued]:
    """Messages of all kinds."""
    made: list[Queued] = []
    for number, size in enumerate(sizes):
        payload = b"%06d" % number + bytes(size)
        made.append((data_frame(payload, LARGE), reliable_frame(b"%016d" % number, payload, LARGE),
                     data_frame(payload, LARGE, Kind.ADDRESSED, b"somebody"))[number % 3])
    return made


def in_brackets(message: Queued) -> Frame:
    """As in another dialect, in which the lengths are others."""
    payload = payload_of(message)
    return (b"[[", payload) if len(payload) > LARGE + 6 else b"[" + payload + b"]"


@given(st.lists(sizes, max_size=20))
def test_messages_of_all_kinds_are_written_in_order(lengths: list[int]) -> None:
    sent = mixed(lengths)
    out = lane()
    out.queue += sent
    assert send_all(out) == b"".join(map(joined, sent))
    assert out.empty and out.sent_messages == len(sent)


@pytest.mark.parametrize("controls", [0, 2])
@given(lengths=st.lists(sizes, min_size=1, max_size=12), cut=st.integers(0, 600))
def test_messages_are_encoded_as_they_are_written_and_given_back_as_they_were(controls: int, lengths: list[int],
                                                                              cut: int) -> None:
    sent = mixed(lengths)
    encoded_ones = [frame if isinstance(frame, bytes) else b"".join(frame) for frame in map(in_brackets, sent)]
    out = lane()
    out.encode = in_brackets
    for _ in range(controls):
        out.add_control(CONTROL)
    out.queue += sent
    expected = CONTROL * controls + b"".join(encoded_ones)
    wire = b""
    while cut > len(wire) and (write := out.begin_write()) is not None:
        wire += take(write, cut - len(wire))
        if write.done:
            out.end_write(write)
    assert wire == expected[:cut]
    assert out.taken_bytes == len(wire)
    given_back = out.take_back()
    whole, left = len(CONTROL) * controls, list(encoded_ones)
    while left and whole + len(left[0]) <= len(wire):
        whole += len(left.pop(0))
    assert given_back == sent[len(sent) - len(left):]
    assert out.sent_messages == len(sent) - len(left)


def test_what_an_encoded_message_counts_for_is_what_it_was_counted_for() -> None:
    out = lane()
    out.encode = in_brackets
    large = data_frame(bytes(500), LARGE)
    out.queue += [large, message(1)]
    out.large_bytes += frame_size(large)
    assert send_all(out) == b"[[" + bytes(500) + b"[000001]"
    assert out.large_bytes == 0
