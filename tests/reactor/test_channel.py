"""One connection on the loop, with a transport and a user of the test's own."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from support.channels import READ, WRITE, Loop, Outlet, Script, Socket, User, as_any
from support.forking import fork

from netmsg import ConnectionBrokenError, TLSHandshakeError
from netmsg.reactor import channel as module
from netmsg.reactor.channel import BROKEN, CLOSED, ENDED, LEAVING, OPEN, SHAKING, TRANSITIONS, Channel, State


class Checked(Channel):
    """Goes from one state to another as the table says."""

    @property
    def state(self) -> Any:
        return self._state

    @state.setter
    def state(self, state: Any) -> None:
        before = getattr(self, "_state", None)
        assert before is None or state in TRANSITIONS[before]
        self._state = state


class Pair:
    """A channel, and all that it has to do with."""

    def __init__(self, *incoming: bytes | OSError, opened: bool = True, **options: Any) -> None:
        self.loop = Loop()
        self.sock = Socket()
        self.transport = Script(*incoming, **options)
        self.outlet = Outlet()
        self.user = User()
        self.channel = Checked(as_any(self.loop), as_any(self.sock), self.transport, as_any(self.outlet), self.user)
        if opened:
            self.channel.open(None)
            self.channel.watch()
            self.user.told.clear()

    @property
    def told(self) -> list[Any]:
        told, self.user.told = self.user.told, []
        return told

    @property
    def events(self) -> int:
        return self.loop.events(self.sock)


# Receiving

def test_what_comes_is_told_a_piece_at_each_event() -> None:
    pair = Pair(b"one", b"two")
    assert pair.events == READ
    assert pair.loop.tell(pair.sock, READ)
    assert pair.told == [b"one"]
    pair.loop.tell(pair.sock, READ)
    assert pair.told == [b"two"]
    pair.loop.tell(pair.sock, READ)
    assert pair.told == ["nothing"] and pair.events == READ


def test_a_user_that_wants_more_at_once_gets_it_up_to_a_bound() -> None:
    pair = Pair(*[b"x"] * 100)
    pair.user.again = lambda: True
    pair.loop.tell(pair.sock, READ)
    assert pair.told == [b"x"] * module.READS_A_ROUND


def test_a_user_that_wants_more_at_once_may_change_its_mind() -> None:
    pair = Pair(*[b"x"] * 10)

    def stop() -> bool:
        pair.channel.reading = len(pair.user.told) < 3
        return True

    pair.user.again = stop
    pair.loop.tell(pair.sock, READ)
    assert pair.told == [b"x"] * 3


def test_it_says_how_much_at_a_time() -> None:
    pair = Pair(b"hello")
    pair.channel.read_size = 2
    for _ in range(3):
        pair.loop.tell(pair.sock, READ)
    assert pair.told == [b"he", b"ll", b"o"]


def test_the_end_is_told_once_and_is_no_longer_watched_for() -> None:
    pair = Pair(b"last", b"")
    for _ in range(2):
        pair.loop.tell(pair.sock, READ)
    assert pair.told == [b"last", ("ended", None)]
    assert pair.channel.state is ENDED and pair.events == 0
    pair.channel.receive()
    assert pair.told == []


def test_an_error_is_told_in_the_terms_of_the_library() -> None:
    reset = ConnectionResetError(104, "Connection reset by peer")
    pair = Pair(reset)
    pair.loop.tell(pair.sock, READ)
    (kind, error), = pair.told
    assert kind == "ended" and type(error) is ConnectionBrokenError
    assert error.errno == 104 and error.__cause__ is reset
    assert pair.channel.state is BROKEN and pair.events == 0


def test_what_somebody_else_has_received_is_taken_in() -> None:
    pair = Pair()
    pair.channel.take_in(b"message")
    assert pair.told == [b"message"] and pair.channel.state is OPEN and pair.transport.sizes == []


@pytest.mark.parametrize("got, state", [(b"", ENDED), (ConnectionResetError(104, "reset"), BROKEN)])
def test_an_end_that_somebody_else_has_met_is_the_end(got: bytes | OSError, state: State) -> None:
    pair = Pair(b"later")
    pair.channel.take_in(got)
    assert pair.channel.state is state and pair.events == 0
    (kind, error), = pair.told
    assert kind == "ended" and type(error) is (ConnectionBrokenError if got else type(None))
    pair.channel.take_in(b"")
    assert pair.told == []


def test_a_closed_connection_takes_nothing_in() -> None:
    pair = Pair()
    pair.channel.close()
    pair.channel.take_in(ConnectionResetError())
    pair.channel.take_in(b"message")
    assert pair.told == [] and pair.channel.state is CLOSED


# Not receiving

def test_to_want_nothing_costs_nothing_until_something_comes() -> None:
    pair = Pair(b"later")
    pair.channel.reading = False
    assert pair.events == READ and not pair.channel.paused
    pair.loop.tell(pair.sock, READ)
    assert pair.told == [] and pair.events == 0 and pair.channel.paused
    pair.channel.reading, pair.channel.paused = True, False
    pair.channel.watch()
    pair.loop.tell(pair.sock, READ)
    assert pair.told == [b"later"]


def test_nothing_is_received_while_something_is_unread() -> None:
    pair = Pair(b"second")
    pair.channel.unread.append(b"first")
    pair.loop.tell(pair.sock, READ)
    assert pair.told == [] and pair.channel.paused
    pair.channel.unread.clear()
    pair.channel.paused = False
    pair.channel.watch()
    pair.loop.tell(pair.sock, READ)
    assert pair.told == [b"second"]


def test_who_takes_it_just_when_reading_is_paused_need_not_say_so() -> None:
    """Another thread, which has looked whether it was, too early."""
    pair = Pair(b"second")
    pair.channel.unread.append(b"first")
    watch = pair.loop.watch

    def take(*arguments: Any) -> None:
        pair.channel.unread.clear()
        watch(*arguments)

    setattr(pair.loop, "watch", take)
    pair.loop.tell(pair.sock, READ)
    assert pair.events == READ and not pair.channel.paused


# What no selector tells of

def test_what_the_transport_holds_is_received_in_the_next_round() -> None:
    pair = Pair(b"one", b"two", b"three")
    pair.transport.readable = True
    wanted, handler = pair.loop.watched[pair.sock]
    handler._on_event(wanted)
    assert pair.told == [b"one"]  # the others have their turn
    assert len(pair.loop.calls) == 1
    pair.loop.calls.popleft()[0]()
    assert pair.told == [b"two"] and len(pair.loop.calls) == 1
    pair.transport.readable = False
    pair.loop.run()
    assert pair.told == [b"three"] and not pair.channel.more


def test_and_so_it_is_when_nothing_came_of_what_there_is() -> None:
    pair = Pair()
    pair.transport.readable = True
    _, handler = pair.loop.watched[pair.sock]
    handler._on_event(READ)
    assert pair.channel.more and len(pair.loop.calls) == 1


def test_however_many_ask_it_is_received_once_a_round() -> None:
    pair = Pair(*[b"x"] * 10)
    pair.transport.readable = True
    _, handler = pair.loop.watched[pair.sock]
    handler._on_event(READ)
    for _ in range(5):
        pair.channel.go_on()
    assert pair.told == [b"x"] and len(pair.loop.calls) == 1


def test_nobody_hears_of_it_who_does_not_want_to() -> None:
    pair = Pair(b"one", b"two")
    pair.transport.readable = True
    pair.user.again = lambda: pair.channel.unread.append(b"one")
    pair.loop.tell(pair.sock, READ)
    assert pair.told == [b"one"] and pair.channel.more and not pair.loop.calls
    pair.channel.unread.clear()
    pair.channel.go_on()
    assert pair.told == [b"two"]


# Sending

def test_room_is_watched_for_while_something_is_blocked() -> None:
    pair = Pair()
    pair.outlet.blocked = True
    pair.channel.watch()
    assert pair.events == pair.channel.watched == READ | WRITE
    pair.loop.tell(pair.sock, WRITE)
    assert pair.told == ["room"]
    pair.outlet.blocked = False
    pair.channel.watch()
    assert pair.events == READ


def test_and_while_the_transport_has_something_of_its_own() -> None:
    pair = Pair(b"x")
    pair.transport.unsent = True
    pair.loop.tell(pair.sock, READ)  # by which it has come to be so
    assert pair.events == READ | WRITE
    pair.channel.flush()
    pair.channel.watch()
    assert pair.events == READ


@pytest.mark.parametrize("how", ["failed", "broken"])
def test_but_not_once_nothing_can_be_sent(how: str) -> None:
    pair = Pair(*([ConnectionResetError()] if how == "broken" else []))
    pair.outlet.blocked = True
    if how == "failed":
        pair.outlet.failure = BrokenPipeError()
        pair.channel.watch()
        assert pair.events == READ  # what was sent before is still there to be read
    else:
        pair.loop.tell(pair.sock, READ)
        assert pair.events == 0


def test_a_transport_that_cannot_send_its_own_leaves_it_to_reading_to_tell() -> None:
    pair = Pair()
    pair.transport.unsent, pair.transport.broken = True, BrokenPipeError()
    pair.channel.flush()
    assert pair.told == []


# The handshake

def test_without_a_handshake_it_is_open_at_once() -> None:
    pair = Pair(opened=False)
    assert pair.channel.shaking
    pair.channel.open(None)
    assert pair.told == [("shaken", None)] and pair.channel.state is OPEN


def test_during_the_handshake_the_user_hears_of_nothing() -> None:
    pair = Pair(opened=False, handshake=[BlockingIOError(), None])
    pair.channel.open(10.0)
    pair.channel.watch()
    assert pair.told == [] and pair.channel.shaking
    assert pair.loop.watched[pair.sock][1] is not pair.channel
    pair.loop.tell(pair.sock, READ)
    assert pair.told == [("shaken", None)] and pair.channel.state is OPEN
    assert pair.loop.pending == []


def test_a_handshake_that_fails_or_takes_too_long_is_told_of() -> None:
    refused = TLSHandshakeError("no")
    pair = Pair(opened=False, handshake=[refused])
    pair.channel.open(10.0)
    assert pair.told == [("shaken", refused)]
    pair = Pair(opened=False, handshake=[BlockingIOError(), None])
    pair.channel.open(10.0)
    pair.loop.advance(10.0)
    (kind, error), = pair.told
    assert kind == "shaken" and "in time" in str(error)


def test_whoever_takes_part_in_a_handshake_is_seen_to_move() -> None:
    pair = Pair(opened=False, handshake=[BlockingIOError(), BlockingIOError(), None])
    assert pair.channel.handshake_moves == 0
    pair.channel.open(10.0)
    before = pair.channel.handshake_moves
    pair.loop.tell(pair.sock, READ)
    assert pair.channel.handshake_moves > before
    pair.loop.tell(pair.sock, READ)
    assert pair.channel.handshake_moves == 0 and not pair.channel.shaking


def test_what_the_handshake_has_left_in_the_transport_is_known() -> None:
    pair = Pair(opened=False, handshake=[None])
    pair.transport.readable = True
    pair.channel.open(None)
    assert pair.channel.more


@pytest.mark.parametrize("fails", [True, False])
def test_the_upgrade_takes_the_place_of_what_was_before_if_it_succeeds(fails: bool) -> None:
    pair = Pair()
    other = Script(handshake=[BlockingIOError(), TLSHandshakeError("no") if fails else None])
    pair.channel.upgrade(other, 1.0)
    assert pair.channel.state is SHAKING and pair.channel.transport is pair.transport
    pair.loop.tell(pair.sock, READ)
    (kind, error), = pair.told
    assert kind == "shaken" and (error is not None) is fails
    assert pair.channel.transport is (pair.transport if fails else other)
    assert pair.channel.state is OPEN


def test_a_handshake_that_is_not_wanted_any_more_leaves_everything_as_it_was() -> None:
    pair = Pair(b"x")
    pair.channel.upgrade(Script(handshake=[BlockingIOError()]), 1.0)
    pair.channel.cancel_handshake()
    pair.channel.cancel_handshake()
    pair.channel.watch()
    pair.loop.tell(pair.sock, READ)
    assert pair.told == [b"x"] and pair.loop.pending == []


@pytest.mark.parametrize("speaks_first", [True, False])
def test_who_is_to_speak_first_does_so_however_many_others_shake_hands(speaks_first: bool) -> None:
    pair = Pair(opened=False, handshake=[BlockingIOError(), None])
    pair.loop.handshake_steps = 0  # in this round
    pair.channel.open(10.0, speaks_first=speaks_first)
    assert len(pair.loop.calls) == speaks_first and len(pair.transport.steps) == 2
    pair.loop.handshake_steps = 1
    pair.loop.run()
    assert len(pair.transport.steps) == 2 - speaks_first


# The end

def test_half_closed_it_goes_on_receiving() -> None:
    pair = Pair(b"x")
    pair.transport.unsent = True
    pair.channel.end_sending()
    assert pair.transport.ended and pair.events == READ | WRITE
    pair.loop.tell(pair.sock, READ)
    assert pair.told == [b"x"]
    pair.transport.broken = BrokenPipeError()
    with pytest.raises(BrokenPipeError):
        pair.channel.end_sending()


def test_leaving_drops_what_comes_and_ends_when_the_other_end_has_everything() -> None:
    pair = Pair(b"still here", b"and here")
    pair.loop.machine.missing = 100
    pair.channel.leave(30.0, answered=True)
    assert pair.transport.ended and pair.channel.state is LEAVING and pair.events == READ
    pair.loop.tell(pair.sock, READ)
    assert pair.told == [] and len(pair.transport.incoming) == 1
    pair.loop.machine.missing = 0
    pair.loop.advance(0.5)
    assert pair.told == [("left", False)]


def test_the_goodbye_of_the_transport_goes_when_there_is_room() -> None:
    pair = Pair()
    pair.loop.machine.missing = 100
    pair.transport.unsent = True
    pair.channel.leave(30.0, answered=True)
    assert pair.events == READ | WRITE
    pair.loop.tell(pair.sock, WRITE)
    assert not pair.transport.unsent and pair.events == READ and pair.told == []


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_that_is_so_if_the_other_end_has_ended(when: str) -> None:
    pair = Pair(b"")
    pair.transport.unsent = True
    if when == "before":
        pair.loop.tell(pair.sock, READ)
    pair.channel.leave(30.0, answered=True)
    pair.loop.tell(pair.sock, READ)
    assert pair.events == WRITE, "it would be told of the end again and again"
    pair.loop.advance(10.0)
    assert ("left", False) not in pair.told
    pair.loop.tell(pair.sock, WRITE)
    assert not pair.transport.unsent and pair.told[-1:] == [("left", False)]


def test_a_goodbye_that_cannot_go_is_not_waited_for() -> None:
    pair = Pair()
    pair.loop.machine.missing = 100
    pair.transport.unsent = True
    pair.channel.leave(30.0, answered=True)
    pair.transport.broken = BrokenPipeError()
    pair.loop.tell(pair.sock, WRITE)
    assert pair.told == [("left", False)]


def test_where_sending_waits_for_what_is_to_come_it_does_not_wait_for_room() -> None:
    pair = Pair(b"x")
    pair.outlet.blocked = pair.transport.stalled = True
    pair.channel.watch()
    assert pair.events == READ, "of room the selector would tell again and again"
    pair.loop.tell(pair.sock, READ)
    assert pair.told == [b"x", "room"]


def test_who_has_ended_before_is_not_waited_for() -> None:
    pair = Pair(b"")
    pair.loop.tell(pair.sock, READ)
    pair.channel.leave(30.0, answered=True)
    assert pair.told == [("ended", None), ("left", False)]


def test_nor_is_who_has_gone() -> None:
    pair = Pair()
    pair.transport.broken = BrokenPipeError()
    pair.channel.leave(30.0, answered=True)
    assert pair.told == [("left", False)]


def test_closing_is_the_end_of_everything() -> None:
    pair = Pair(b"x")
    pair.loop.machine.missing = 100
    pair.channel.leave(30.0, answered=True)
    pair.channel.close()
    pair.channel.close()
    assert pair.channel.closed and pair.events == 0 and pair.loop.pending == []
    assert not pair.sock.closed  # an event of this round is not to meet a reused descriptor
    pair.loop.run()
    assert pair.sock.closed
    pair.channel.watch()
    pair.channel.receive()
    pair.channel._crashed(ValueError())
    assert pair.told == [] and pair.channel.state is CLOSED


def test_the_handshake_ends_with_it() -> None:
    pair = Pair(opened=False, handshake=[BlockingIOError()])
    pair.channel.open(10.0)
    pair.channel.close()
    assert pair.told == [] and pair.events == 0 and pair.loop.pending == []


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("reset", [True, False])
def test_a_part_is_not_to_look_like_all(left: bool, reset: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    resets: list[Any] = []
    monkeypatch.setattr(module, "reset_on_close", resets.append)
    pair = Pair()
    pair.outlet.left = left
    pair.channel.close(reset=reset)
    pair.loop.run()
    assert len(resets) == left + reset


def test_what_was_received_before_it_was_closed_is_the_last() -> None:
    pair = Pair(b"one", b"two")

    def close() -> bool:
        pair.channel.close()
        return True

    pair.user.again = close
    pair.loop.tell(pair.sock, READ)
    assert pair.told == [b"one"]


def test_an_event_of_before_the_change_is_not_told() -> None:
    pair = Pair(b"x")
    _, handler = pair.loop.watched[pair.sock]
    pair.channel.close()
    handler._on_event(READ | WRITE)
    assert pair.told == []


def test_a_step_that_fails_is_the_users_business() -> None:
    pair = Pair()
    error = ValueError()
    pair.channel._crashed(error)
    assert pair.told == [("crashed", error)]


def test_a_forked_child_keeps_no_copy_of_what_is_just_being_closed() -> None:
    one, other = socket.socketpair()
    with one, other:
        loop = Loop()
        channel = Channel(as_any(loop), one, Script(), as_any(Outlet()), User())
        channel.open(None)
        channel.close()
        child = fork()
        if not child:
            os._exit(one.fileno() != -1)
        assert os.waitpid(child, 0)[1] == 0
        assert one.fileno() != -1
        loop.run()
        assert one.fileno() == -1


def test_in_a_forked_child_the_copy_is_closed_and_nothing_else() -> None:
    pair = Pair()
    pair.channel.abandon()
    assert pair.sock.closed and pair.events == READ


def test_a_state_that_cannot_follow_is_refused() -> None:
    pair = Pair()
    pair.channel.close()
    with pytest.raises(AssertionError, match="from closed to shaking"):
        pair.channel.upgrade(Script(handshake=[None]), None)
