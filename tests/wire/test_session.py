"""The life of one connection, and the signs of it."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.envelopes import PLENTY, Envelope, flatten, pieces
from support.wire_peer import capabilities, frame, hello

from netmsg.errors import RemoteProtocolError
from netmsg.wire.envelope import CAPABILITIES, DATA
from netmsg.wire.messages import Capabilities
from netmsg.wire.session import TRANSITIONS, Liveness, Session, State
from netmsg.wire.version_1 import Version1

OURS = b"our own identity"
THEIRS = b"peer's identity!"
CAPABLE = Capabilities(5.0, 10_000)


def session(*, dialled: bool, identity: bytes = OURS) -> Session:
    return Session(identity, CAPABLE, Version1(1000), dialled=dialled)


def in_state(state: State) -> Session:
    made = session(dialled=True)
    if state in (State.GREETED, State.OPEN, State.CLOSING):
        made.greet(hello(THEIRS))
    if state in (State.OPEN, State.CLOSING):
        made.welcome()
    if state is State.CLOSING:
        made.goodbye()
    if state is State.CLOSED:
        made.closed()
    return made


# Opening


def test_the_end_that_dialled_has_said_hello_and_does_not_again() -> None:
    dialler = session(dialled=True)
    dialler.greet(hello(THEIRS))
    assert dialler.welcome() == capabilities(5000, 10_000)


def test_the_end_that_accepted_says_hello_when_it_lets_the_other_in() -> None:
    acceptor = session(dialled=False)
    acceptor.greet(hello(THEIRS))
    assert acceptor.welcome() == hello(OURS) + capabilities(5000, 10_000)


@given(st.lists(st.integers(0, 40), max_size=6), st.lists(st.integers(0, 40), max_size=6))
def test_two_sessions_open_however_their_bytes_are_cut(one: list[int], other: list[int]) -> None:
    dialler, acceptor = session(dialled=True), session(dialled=False, identity=THEIRS)
    greeted = [acceptor.greet(chunk) for chunk in pieces(hello(OURS), one)]
    assert greeted[-1] and acceptor.peer_identity == OURS
    greeted = [dialler.greet(chunk) for chunk in pieces(acceptor.welcome(), other)]
    assert greeted[-1] and dialler.peer_identity == THEIRS
    dialler.welcome()
    assert dialler.state is acceptor.state is State.OPEN
    assert flatten(dialler.decoder.decode(b"", PLENTY)) == [Envelope(CAPABILITIES, capabilities()[5:])]


@pytest.mark.parametrize("dialled", [True, False])
def test_a_hello_is_complete_with_its_last_byte(dialled: bool) -> None:
    whole = hello(THEIRS)
    listening = session(dialled=dialled)
    for at in range(len(whole) - 1):
        assert not listening.greet(whole[at:at + 1])
        assert listening.state is State.OPENING
    assert listening.greet(whole[-1:])
    assert listening.state is State.GREETED
    assert listening.peer_identity == THEIRS


@given(st.integers(0, 40), st.integers(0, 40))
def test_messages_right_behind_hello_wait_until_they_are_asked_for(first: int, second: int) -> None:
    acceptor = session(dialled=False)
    for chunk in pieces(hello(THEIRS) + frame(DATA, b"hasty") + frame(DATA, b"more"), [first, second]):
        acceptor.greet(chunk)
    assert acceptor.state is State.GREETED
    acceptor.welcome()
    found = flatten(acceptor.decoder.decode(frame(DATA, b"later"), PLENTY))
    assert found == [Envelope(DATA, b"hasty"), Envelope(DATA, b"more"), Envelope(DATA, b"later")]


def test_another_version_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="version 2"):
        session(dialled=False).greet(hello(THEIRS, version=2))


@given(st.lists(st.binary(max_size=12), max_size=8), st.integers(0, 22))
def test_whatever_is_said_first_only_a_hello_is_understood(chunks: list[bytes], begin: int) -> None:
    chunks = [hello(THEIRS)[:begin], *chunks]
    said = b"".join(chunks)
    listening = session(dialled=False)
    try:
        greeted = [listening.greet(chunk) for chunk in chunks][-1]
    except RemoteProtocolError:
        assert not hello(THEIRS).startswith(said)
        assert listening.state is State.OPENING
    else:
        assert greeted == (said[:6] == hello(THEIRS)[:6] and len(said) >= 22)


def test_a_second_hello_is_an_error() -> None:
    acceptor = session(dialled=False)
    acceptor.greet(hello(THEIRS) + frame(DATA, b"good") + hello(THEIRS))
    acceptor.welcome()
    assert flatten(acceptor.decoder.decode(b"", PLENTY)) == [Envelope(DATA, b"good")]
    assert isinstance(acceptor.decoder.error, RemoteProtocolError)


# Transitions


STEPS: list[tuple[Callable[[Session], object], State]] = [
    (Session.welcome, State.OPEN),
    (Session.goodbye, State.CLOSING),
]


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize(("step", "target"), STEPS, ids=["welcome", "goodbye"])
def test_only_the_transitions_of_the_table_are_made(state: State, step: Callable[[Session], object],
                                                    target: State) -> None:
    made = in_state(state)
    assert made.state is state
    if target in TRANSITIONS[state]:
        step(made)
        assert made.state is target
    else:
        with pytest.raises(AssertionError, match=f"from {state.value} to {target.value}"):
            step(made)
        assert made.state is state


@pytest.mark.parametrize("state", State)
def test_a_session_may_be_closed_in_any_state_and_more_than_once(state: State) -> None:
    made = in_state(state)
    made.closed()
    made.closed()
    assert made.state is State.CLOSED


def test_transitions_end_in_closed() -> None:
    assert set(TRANSITIONS) == set(State)
    assert TRANSITIONS[State.CLOSED] == set()
    assert all(State.CLOSED in targets for state, targets in TRANSITIONS.items() if state is not State.CLOSED)


# Liveness


def test_a_silent_peer_is_dead_at_the_timeout() -> None:
    liveness = Liveness(5.0, 15.0, 100.0)
    assert not liveness.dead(114.9)
    assert liveness.dead(115.0)


def test_every_envelope_and_message_is_a_sign_of_life() -> None:
    liveness = Liveness(5.0, 15.0, 100.0)
    liveness.heard(110.0, 1, 5)
    assert not liveness.dead(124.9)
    liveness.heard(124.0, 2, 10)
    assert not liveness.dead(138.9)
    assert liveness.dead(139.0)


def test_looking_again_at_what_was_heard_before_is_no_sign_of_life() -> None:
    liveness = Liveness(5.0, 15.0, 100.0)
    liveness.heard(105.0, 1, 5)
    for now in range(106, 120):
        liveness.heard(float(now), 1, 5)
    assert liveness.dead(120.0)
    assert liveness.last_heard == 105.0


def test_a_large_frame_that_keeps_arriving_is_alive() -> None:
    liveness = Liveness(5.0, 15.0, 0.0)
    for second in range(1, 100):
        liveness.heard(float(second), 0, second * 1000)
        assert not liveness.dead(float(second))


def test_a_byte_a_second_is_alive() -> None:
    liveness = Liveness(5.0, 15.0, 0.0)
    for second in range(5, 100, 5):
        liveness.heard(float(second), 0, second)
        assert not liveness.dead(float(second))


def test_a_frame_that_trickles_below_a_byte_a_second_is_dead() -> None:
    liveness = Liveness(5.0, 15.0, 0.0)
    for second in range(2, 15, 2):
        liveness.heard(float(second), 0, second // 2)
        assert not liveness.dead(float(second))
    assert liveness.dead(15.0)


@pytest.mark.parametrize(("announced", "timeout"), [(5.0, 15.0), (6.0, 15.0), (12.0, 30.0), (1000.0, 60.0)])
def test_a_peer_is_not_dead_for_being_as_silent_as_it_announced(announced: float, timeout: float) -> None:
    liveness = Liveness(5.0, 15.0, 0.0)
    liveness.announced(announced)
    assert not liveness.dead(timeout - 0.1)
    assert liveness.dead(timeout)


def test_after_a_stall_of_our_own_one_more_interval_is_granted() -> None:
    liveness = Liveness(5.0, 15.0, 0.0)
    liveness.excuse(60.0)
    assert not liveness.dead(64.9)
    assert liveness.dead(65.0)


def test_an_excuse_never_shortens_the_time_that_is_left() -> None:
    liveness = Liveness(5.0, 15.0, 100.0)
    liveness.excuse(101.0)
    assert liveness.last_heard == 100.0
    assert not liveness.dead(114.9)


def test_an_interval_longer_than_the_timeout_excuses_no_further_than_now() -> None:
    liveness = Liveness(20.0, 15.0, 0.0)
    liveness.excuse(60.0)
    assert liveness.last_heard == 60.0


def test_a_heartbeat_is_due_an_interval_after_the_last_bytes_sent() -> None:
    liveness = Liveness(5.0, 15.0, 100.0)
    assert not liveness.heartbeat_due(104.9)
    assert liveness.heartbeat_due(105.0)
    liveness.said(104.0, 10)
    assert not liveness.heartbeat_due(108.9)
    assert liveness.heartbeat_due(109.0)


def test_looking_again_at_what_was_sent_before_does_not_put_the_heartbeat_off() -> None:
    liveness = Liveness(5.0, 15.0, 100.0)
    liveness.said(101.0, 10)
    liveness.said(105.0, 10)
    assert liveness.heartbeat_due(106.0)


def test_a_heartbeat_is_sent_early_rather_than_at_a_later_look() -> None:
    liveness = Liveness(5.0, 15.0, 100.0)
    assert not liveness.heartbeat_due(103.9, margin=1.0)
    assert liveness.heartbeat_due(104.0, margin=1.0)


# The end


@pytest.mark.parametrize("arrived", [frame(DATA, bytes(500)), frame(DATA, bytes(500))[:300],
                                     struct.pack("!IB", 900_001, DATA) + bytes(100_000)])
def test_a_session_that_is_over_keeps_nothing_of_what_was_received(arrived: bytes) -> None:
    ended = Session(OURS, CAPABLE, Version1(1_000_000), dialled=False)
    ended.greet(hello(THEIRS))
    ended.welcome()
    tracemalloc.start()
    try:
        ended.decoder.decode(arrived + bytes(0), 0)
        ended.closed()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 5000
    assert ended.decoder.buffered == 0 and ended.decoder.idle and not ended.decoder.stopped
