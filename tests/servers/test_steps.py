"""What a handler hears next, and what ends it: no socket, no thread, no clock."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netmsg import (
    ClosedError, ConnectionBrokenError, Decoder, EndOfStream, IncompleteReadError, LineCodec, PacketDecodeError,
    RemoteProtocolError,
)
from netmsg.errors import identity
from netmsg.servers.handlers import FunctionHandler, GeneratorHandler
from netmsg.servers.steps import FINISHED, NEW, OVER, RESTING, STEPPING, TRANSITIONS, TURN, Next, Steps

MARK = 1000


class Checked(Steps):
    """Goes from one state to another as the table says."""

    @property
    def state(self) -> Any:
        return self._state

    @state.setter
    def state(self, state: Any) -> None:
        before = getattr(self, "_state", None)
        assert before is None or state in TRANSITIONS[before]
        self._state = state


class Case:
    """The steps of one handler, and all that they have to do with."""

    def __init__(self, *, conversation: Any = None, handler: Any = None, decoder: Decoder[Any] | None = None,
                 tasks: Any = ()) -> None:
        self.heard: list[Any] = []
        self.told: list[Any] = []
        self.size = 0
        self.waits = True
        self.failure: OSError | None = None
        self.unread: list[bytes] = []
        self.steps = Checked(decoder or LineCodec().decoder(), self, self.unread, self, MARK, tasks)
        if conversation is not None:
            self.steps.handler = GeneratorHandler(conversation, self)
        else:
            self.steps.handler = FunctionHandler(handler or (lambda client, packet: client.heard.append(packet)), self)

    # The backlog

    def lost(self) -> OSError | None:
        return self.failure

    # The client

    def bad_packet(self) -> None:
        self.told.append("bad packet")

    def too_silent(self) -> None:
        self.told.append("too silent")

    def failed(self, error: BaseException, *, expected: bool) -> None:
        self.told.append((type(error), expected))

    def decoder_failed(self, error: PacketDecodeError) -> None:
        self.told.append("decoder failed")

    # The network

    def begun(self) -> Case:
        if self.steps.handler.hears_errors:
            self.step()
        else:
            self.steps.rest()
        return self

    def step(self, clock: Any = None) -> bool:
        """One, as a runner has it."""
        steps = self.steps
        if steps.state is RESTING:
            steps.state = STEPPING
        again = steps.run(clock)
        if steps.handler.finished:
            steps.closed = True
        if not again and steps.state is not OVER:
            steps.state = FINISHED if steps.handler.finished else RESTING
        return again

    def comes(self, chunk: bytes) -> None:
        """Received while there is no step."""
        self.steps.decode(chunk)

    def next(self, *, finishing: bool = False) -> Next:
        return self.steps.next(finishing=finishing)


def listen(case: Any) -> Generator[Any, Any, None]:
    """A conversation that hears everything, for ever."""
    wait = None
    while True:
        try:
            packet = yield wait
            case.heard.append(packet)
            wait = float(packet) if packet.isdigit() else None
        except EOFError as error:
            case.heard.append(error)
            return
        except ClosedError as error:
            case.heard.append(error)
            return
        except ConnectionError as error:
            case.heard.append(error)
            return
        except (PacketDecodeError, TimeoutError) as error:
            case.heard.append(error)


# What is next

def test_nothing_is_before_it_has_begun_nor_while_there_is_a_step() -> None:
    case = Case()
    assert case.steps.state is NEW and case.next() is Next.NOTHING
    case.begun()
    assert case.next() is Next.LISTEN
    case.steps.state = STEPPING
    assert case.next() is Next.NOTHING


def test_packets_are_before_what_is_unread_and_that_is_before_the_end() -> None:
    case = Case().begun()
    case.comes(b"one\n")
    case.unread.append(b"two\n")
    case.steps.ending = EndOfStream()
    assert case.next() is Next.STEP
    case.step()
    assert case.heard == ["one", "two"]  # a step goes on to its end
    assert case.steps.state is FINISHED and case.next() is Next.END


def test_what_is_unread_is_decoded_first_while_there_is_no_step() -> None:
    case = Case().begun()
    case.unread.append(b"one\n")
    assert case.next() is Next.DECODE


def test_the_end_of_what_was_received_is_an_end() -> None:
    case = Case().begun()
    case.comes(b"")
    assert case.next() is Next.END
    assert Case().begun().next(finishing=True) is Next.END


def test_closing_is_one_whatever_there_is() -> None:
    case = Case().begun()
    case.comes(b"one\n")
    case.unread.append(b"two\n")
    case.steps.closed = True
    assert case.next() is Next.END
    case.step()
    assert case.heard == []


def test_packets_are_handled_even_when_the_server_reads_no_more() -> None:
    case = Case().begun()
    case.comes(b"one\n")
    assert case.next(finishing=True) is Next.STEP
    assert case.steps.has_received


def test_above_the_mark_packets_wait_for_the_client() -> None:
    case = Case().begun()
    case.comes(b"one\n")
    case.size = MARK
    assert case.next() is Next.CATCH_UP
    case.step()
    assert case.heard == [] and case.steps.packets
    case.waits = False  # it is just being sent, and may all go
    assert case.next() is Next.STEP


def test_after_it_has_asked_for_tls_nothing_that_comes_is_for_the_handler() -> None:
    case = Case().begun()
    case.steps.upgrading = True
    case.unread.append(b"a ClientHello\n")
    assert case.next() is Next.LISTEN and not case.steps.has_received
    case.step()
    assert case.heard == [] and case.unread


def test_there_is_nothing_to_be_done_when_it_is_over() -> None:
    case = Case().begun()
    case.steps.finish()
    assert case.next() is Next.END
    case.steps.end()
    assert case.steps.state is OVER and case.next() is Next.NOTHING
    case.step()
    assert case.heard == [] and case.steps.state is OVER


# Steps

def test_a_function_hears_packets_and_nothing_else() -> None:
    case = Case().begun()
    case.comes(b"one\ntwo\n")
    case.step()
    case.comes(b"")
    case.step()
    assert case.heard == ["one", "two"] and case.told == []
    assert case.steps.state is FINISHED and case.steps.received == 2


def test_a_conversation_hears_what_recv_packet_would_raise() -> None:
    case = Case(conversation=listen).begun()
    case.comes(b"one\n\xff\n")
    case.step()
    case.comes(b"half")
    case.comes(b"")
    case.step()
    assert [type(one) for one in case.heard] == [str, PacketDecodeError, IncompleteReadError]
    assert case.told == ["bad packet"] and case.steps.state is FINISHED


@pytest.mark.parametrize("conversation", [None, listen])
def test_the_time_is_up_only_where_there_is_nothing_else(conversation: Any) -> None:
    case = Case(conversation=conversation).begun()
    case.steps.late = True
    case.comes(b"just in time\n")
    case.step()
    assert case.heard == ["just in time"] and not case.steps.late
    case.steps.late = True
    case.step()
    if conversation is None:
        assert case.told == ["too silent"] and case.steps.state is FINISHED
    else:
        assert isinstance(case.heard[1], TimeoutError) and case.steps.state is RESTING


def test_a_broken_connection_is_heard_of_after_what_came_before() -> None:
    case = Case(conversation=listen).begun()
    case.comes(b"one\n")
    case.steps.ending = ConnectionBrokenError(104, "reset")
    case.step()
    assert case.heard[0] == "one" and isinstance(case.heard[1], ConnectionBrokenError)
    assert case.heard[1] is not case.steps.ending  # which is kept, and would keep all that it has passed


def test_an_end_that_is_a_reset_is_known_from_sending() -> None:
    case = Case(conversation=listen).begun()
    case.failure = ConnectionResetError(104, "Connection reset by peer")
    case.comes(b"")
    case.step()
    assert type(case.heard[0]) is ConnectionBrokenError and case.heard[0].errno == 104


def test_a_decoder_that_fails_is_told_of_and_is_the_end() -> None:
    class Bad(Decoder[str]):
        def feed(self, data: bytes) -> list[str | PacketDecodeError]:
            raise ZeroDivisionError

    case = Case(conversation=listen, decoder=Bad()).begun()
    case.comes(b"x")
    assert case.told == ["decoder failed"] and case.steps.decoder_has_failed
    case.step()
    assert [type(one) for one in case.heard] == [PacketDecodeError, RemoteProtocolError]


def test_bad_packets_in_masses_are_decoded_as_they_are_handled() -> None:
    case = Case(conversation=listen).begun()
    case.comes(b"\xff\n" * 200 + b"good\n")
    assert len(case.steps.packets) < 200
    case.step()
    assert case.told == ["bad packet"] * 200 and case.heard[-1] == "good"


def test_whoever_closes_before_it_has_begun_is_told_nothing() -> None:
    case = Case(conversation=listen)
    case.steps.closed = True
    case.step()
    assert case.heard == [] and not case.steps.driven and case.steps.state is FINISHED


def test_a_conversation_hears_of_closing() -> None:
    case = Case(conversation=listen).begun()
    assert case.steps.driven and case.steps.wants_the_end
    case.comes(b"not handled\n")
    case.steps.closed = True
    case.step()
    assert [type(one) for one in case.heard] == [ClosedError] and not case.steps.wants_the_end


def test_what_a_handler_raises_is_told_and_whether_it_was_the_connections_own() -> None:
    own = ClosedError("told by a call")

    def fail(client: Any, packet: str) -> None:
        raise own if packet == "own" else ValueError(packet)

    for packet, told in (("own", (ClosedError, True)), ("other", (ValueError, False))):
        case = Case(handler=fail).begun()
        case.steps.raised = identity(own)
        case.comes(packet.encode() + b"\nnot handled\n")
        case.step()
        assert case.told == [told] and case.steps.state is FINISHED


def test_a_bad_packet_that_a_function_does_not_hear_of_is_its_end() -> None:
    case = Case().begun()
    case.comes(b"\xff\ngood\n")
    case.step()
    assert case.told == ["bad packet", (PacketDecodeError, True)] and case.heard == []


def test_after_the_end_nothing_is_kept() -> None:
    case = Case().begun()
    case.comes(b"one\n")
    case.unread.append(b"two\n")
    case.steps.finish()
    case.steps.end()
    assert not case.steps.packets and not case.unread and case.steps.closed


def test_a_state_that_cannot_follow_is_refused() -> None:
    steps = Case().begun().steps
    with pytest.raises(AssertionError, match="resting cannot be resting"):
        steps.rest()


# Turns

def test_it_gives_way_to_others_after_each_packet_while_there_are_some() -> None:
    tasks = ["somebody"]
    case = Case(tasks=tasks).begun()
    case.comes(b"one\ntwo\nthree\n")
    assert case.step() and case.heard == ["one"]
    assert case.steps.state is STEPPING and case.next() is Next.NOTHING
    tasks.clear()
    assert not case.step() and case.heard == ["one", "two", "three"]


def test_and_before_what_has_come_meanwhile() -> None:
    case = Case(tasks=["somebody"]).begun()
    case.comes(b"one\n")
    case.unread.append(b"two\n")
    assert case.step() and case.heard == ["one"] and case.unread


def test_the_last_packet_is_no_reason_to_give_way() -> None:
    case = Case(tasks=["somebody"]).begun()
    case.comes(b"one\n")
    assert not case.step()


def test_a_step_on_the_loop_gives_way_when_it_has_taken_its_time() -> None:
    times = iter([0.5, 0.5 + TURN / 2, 0.5 + TURN, 1.0])
    case = Case().begun()
    case.comes(b"1\n2\n3\n4\n5\n")
    assert case.step(clock=times.__next__)
    assert case.heard == ["1", "2", "3"]
    assert not case.step(clock=lambda: 1.0)
    assert case.heard == ["1", "2", "3", "4", "5"]


def test_who_takes_long_to_decode_gives_way_too() -> None:
    tasks = ["somebody"]

    class Slow(Decoder[str]):
        def feed(self, data: bytes) -> list[str | PacketDecodeError]:
            case.unread[:] = [b"more"] if len(tasks) else []
            return []

    case = Case(decoder=Slow(), tasks=tasks).begun()
    case.unread.append(b"x")
    assert case.step() and case.unread == [b"more"]
    tasks.clear()
    assert not case.step() and not case.unread


# Whatever happens

@pytest.mark.parametrize("conversation", [None, listen])
@given(events=st.lists(st.sampled_from(["chunk", "read ahead", "end", "break", "late", "mark", "room", "close", "step",
                                        "finish"]), max_size=30), data=st.data())
def test_everything_that_was_received_is_heard_once_and_in_order_up_to_the_end(
        conversation: Any, events: list[str], data: st.DataObject) -> None:
    case = Case(conversation=conversation).begun()
    steps = case.steps
    sent = 0
    finishing = False

    def look() -> None:
        for _ in range(100):
            match case.next(finishing=finishing):
                case Next.STEP:
                    case.step()
                case Next.DECODE:
                    case.comes(case.unread.pop())
                case Next.END if steps.wants_the_end:
                    steps.closed = steps.closed or steps.ending is None
                    case.step()
                case Next.END:
                    steps.finish()
                    steps.end()
                case _:
                    return
        raise AssertionError("there is always something to be done")

    for event in events:
        match event:
            case "chunk" if steps.state is RESTING and not steps.packets and steps.ending is None and not case.unread:
                sent += 1
                case.comes(b"x%d\n" % sent)
            case "read ahead" if not case.unread and steps.ending is None and not steps.closed:
                sent += 1
                case.unread.append(b"x%d\n" % sent)
            case "end" if steps.state is RESTING and not case.unread and not steps.packets:
                case.comes(b"")
            case "break":
                steps.ending = steps.ending or ConnectionBrokenError()
            case "late":
                steps.late = True
            case "mark":
                case.size = MARK
            case "room":
                case.size = 0
            case "close":
                steps.closed = True
            case "step" if not steps.busy and steps.state is not OVER and not steps.handler.finished:
                case.step()
            case "finish":
                finishing = True
        if data.draw(st.booleans()):
            look()
    case.size = 0
    finishing = True
    look()
    assert steps.state is OVER
    packets = [one for one in case.heard if isinstance(one, str)]
    assert packets == [f"x{number}" for number in range(1, len(packets) + 1)]
    if "close" not in events and "late" not in events:
        assert len(packets) == sent
    assert [type(one) for one in case.told] in ([], [str])
