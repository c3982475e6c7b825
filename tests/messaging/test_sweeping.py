"""The regular look at all peers: who is sent a heartbeat, who has been silent for too long, what is sent again."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.loops import Loop
from support.servers import said
from support.settings import settings

from netmsg.messaging.connections import Connections
from netmsg.messaging.life import Life
from netmsg.messaging.sweeping import LOOK_AT_MOST_EVERY, LOOK_EVERY, Sweep
from netmsg.wire.session import Liveness

INTERVAL = 5.0
TIMEOUT = 15.0


class Peer:
    """A connection: what it has sent and received so far, and what was done with it."""

    def __init__(self, yard: Yard, name: str) -> None:
        self.name = name
        self.liveness = Liveness(INTERVAL, TIMEOUT, yard.loop.now)
        self.session = SimpleNamespace(decoder=SimpleNamespace(envelopes=0))
        self.lane = SimpleNamespace(sent_bytes=0)
        self.received_messages = 0
        self.received_bytes = 0
        self.paused = False
        self.following = False
        self.stuck = False
        self.at_look: Callable[[], None] = lambda: None
        """What is found when it is read at last."""
        self.heartbeats = 0
        self.looks = 0
        self.looks_for_room = 0
        self.reasons: list[str] = []
        self.crash: Exception | None = None
        self._yard = yard

    def hears(self, size: int = 10) -> None:
        """A message is received."""
        self.received_messages += 1
        self.received_bytes += size

    def says(self) -> None:
        self.lane.sent_bytes += 10

    def read_now(self) -> None:
        self.looks += 1
        self.at_look()

    def look_for_room(self) -> None:
        self.looks_for_room += 1

    def heartbeat(self) -> None:
        self.heartbeats += 1
        self.says()

    def close(self, reason: str, error: BaseException | None) -> None:
        self.reasons.append(reason)
        self._yard.connections.open.pop(self, None)

    def _crashed(self, error: Exception) -> None:
        self.crash = error
        self.close("crashed", error)


class Sender:
    """What is to send again."""

    def __init__(self, reliable: bool) -> None:
        self.reliable = reliable
        self.resent: list[str] = []

    def resend(self, peer: Peer, now: float) -> None:
        self.resent.append(peer.name)


class Yard:
    """The sweep, with all that it needs."""

    def __init__(self, *, reliable: bool = False, **changes: Any) -> None:
        self.loop = Loop()
        self.life = Life()
        self.connections: Any = Connections()
        self.sender: Any = Sender(reliable)
        self.sweep = Sweep(settings(heartbeat_interval=INTERVAL, heartbeat_timeout=TIMEOUT, **changes),
                           self.life, self.loop, self.connections, self.sender)  # type: ignore[arg-type]

    def let_in(self, name: str = "peer") -> Peer:
        peer = Peer(self, name)
        self.connections.open[peer] = None
        self.sweep.begin()
        return peer

    def wait(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Let time go on, with ``meanwhile`` once a second."""
        for _ in range(round(seconds)):
            meanwhile()
            self.loop.wait(1.0)


@pytest.fixture
def yard() -> Yard:
    return Yard()


# How often


def test_it_looks_as_long_as_there_are_peers(yard: Yard) -> None:
    assert not yard.loop.timers
    peer = yard.let_in()
    yard.wait(3)
    assert len(yard.loop.timers) == 1
    peer.close("gone", None)
    yard.wait(3)
    assert not yard.loop.timers
    other = yard.let_in()
    yard.wait(TIMEOUT + 2)
    assert other.reasons


def test_one_sweep_is_enough_for_all(yard: Yard) -> None:
    for number in range(5):
        yard.let_in(str(number))
    assert len(yard.loop.timers) == 1


def test_it_looks_at_nobody_after_the_end(yard: Yard) -> None:
    peer = yard.let_in()
    yard.life.begin_closing()
    yard.wait(INTERVAL)
    assert peer.heartbeats == 1, "closing may take a while"
    yard.life.end()
    yard.wait(2 * TIMEOUT)
    assert peer.heartbeats == 1 and not peer.reasons and not yard.loop.timers


@pytest.mark.parametrize("changes, every", [
    ({}, INTERVAL / 8),
    ({"resend_after": 0.8}, 0.1),
    ({"resend_after": 60.0}, INTERVAL / 8),
    ({"resend_after": 0.001}, LOOK_AT_MOST_EVERY),
])
def test_it_looks_often_enough_for_the_shortest_time_there_is(changes: dict[str, Any], every: float) -> None:
    yard = Yard(**changes)
    yard.let_in()
    assert yard.loop.timers[0].at - yard.loop.now == pytest.approx(every)
    assert every <= LOOK_EVERY


# Heartbeats


def test_who_is_sent_nothing_is_sent_a_heartbeat_each_interval(yard: Yard) -> None:
    peer = yard.let_in()
    yard.wait(10 * INTERVAL, peer.hears)
    assert 9 <= peer.heartbeats <= 10


def test_it_is_never_silent_for_longer_than_the_interval_and_a_look(yard: Yard) -> None:
    """What has been sent is noticed a look later."""
    peer = yard.let_in()
    last, longest, seen = yard.loop.now, 0.0, 0
    while yard.loop.now < last + 100 and seen < 10:
        peer.hears()
        yard.loop.run_timer()
        if peer.heartbeats > seen:
            longest = max(longest, yard.loop.now - last)
            last, seen = yard.loop.now, peer.heartbeats
    assert seen == 10 and longest <= INTERVAL * (1 + 1 / 8)


def test_who_is_sent_anything_needs_no_heartbeat(yard: Yard) -> None:
    peer = yard.let_in()

    def talk() -> None:
        peer.hears()
        peer.says()

    yard.wait(10 * INTERVAL, talk)
    assert not peer.heartbeats


# Silence


def test_who_says_nothing_for_too_long_is_closed(yard: Yard) -> None:
    peer = yard.let_in()
    yard.wait(TIMEOUT - 1)
    assert not peer.reasons
    yard.wait(2)
    assert peer.reasons == ["nothing heard for 15 s"]


@pytest.mark.parametrize("sign", ["a message", "an envelope", "a piece of one"])
def test_any_sign_of_life_will_do(yard: Yard, sign: str) -> None:
    peer = yard.let_in()

    def show() -> None:
        if sign == "a message":
            peer.received_messages += 1
        elif sign == "an envelope":
            peer.session.decoder.envelopes += 1
        else:
            peer.received_bytes += 2

    yard.wait(10 * TIMEOUT, show)
    assert not peer.reasons


def test_before_the_end_what_is_there_is_read(yard: Yard) -> None:
    """This end may be behind with reading."""
    peer = yard.let_in()
    peer.at_look = peer.hears
    yard.wait(TIMEOUT + 2)
    assert peer.looks == 1 and not peer.reasons
    peer.at_look = lambda: None
    yard.wait(TIMEOUT + 2)
    assert peer.looks == 2 and len(peer.reasons) == 1


def test_who_is_found_to_have_hung_up_is_closed_once(yard: Yard) -> None:
    peer = yard.let_in()
    peer.at_look = lambda: peer.close("closed by the peer", None)
    yard.wait(TIMEOUT + 2)
    assert peer.reasons == ["closed by the peer"]


@pytest.mark.parametrize("why", ["paused", "following"])
def test_who_is_not_listened_to_is_not_silent(yard: Yard, why: str) -> None:
    peer = yard.let_in()
    setattr(peer, why, True)
    yard.wait(10 * TIMEOUT)
    assert not peer.reasons and peer.looks_for_room > 10 * TIMEOUT
    setattr(peer, why, False)
    yard.wait(TIMEOUT - 1)
    assert not peer.reasons, "its time begins when it is listened to again"
    yard.wait(2)
    assert peer.reasons


def test_who_is_listened_to_is_not_asked_about_room(yard: Yard) -> None:
    peer = yard.let_in()
    yard.wait(3)
    assert not peer.looks_for_room


def test_after_a_pause_of_its_own_everybody_has_one_more_interval(yard: Yard) -> None:
    """The process was stopped, or the machine slept: nobody was listened to meanwhile."""
    silent, speaking = yard.let_in("silent"), yard.let_in("speaking")
    yard.wait(2)
    yard.loop.now += 1000
    yard.loop.run_timer()
    assert not silent.reasons and not silent.looks
    yard.wait(INTERVAL - 1, speaking.hears)
    assert not silent.reasons
    yard.wait(2, speaking.hears)
    assert silent.reasons and not speaking.reasons


def test_the_time_without_any_peer_was_no_pause(yard: Yard) -> None:
    yard.let_in("first").close("gone", None)
    yard.wait(1000)
    silent = yard.let_in("second")
    silent.liveness.last_heard -= TIMEOUT
    yard.loop.run_timer()
    assert silent.reasons


def test_being_a_little_late_each_time_excuses_nobody(yard: Yard) -> None:
    silent = yard.let_in()
    begin = yard.loop.now
    while not silent.reasons and yard.loop.now < begin + 2 * TIMEOUT:
        yard.loop.now += INTERVAL / 2
        yard.loop.run_timer()
    assert silent.reasons and yard.loop.now <= begin + TIMEOUT + INTERVAL


# What is left to send


def test_what_a_sender_could_not_say_is_noticed(yard: Yard) -> None:
    stuck, other = yard.let_in("stuck"), yard.let_in("other")
    stuck.stuck = True
    yard.wait(1)
    assert list(yard.loop.work) == [stuck] and other not in yard.loop.work


def test_what_is_reliable_is_sent_again() -> None:
    yard = Yard(reliable=True)
    yard.let_in("one")
    yard.let_in("other")
    yard.loop.run_timer()
    assert sorted(yard.sender.resent) == ["one", "other"]


def test_what_is_not_reliable_is_never_sent_again(yard: Yard) -> None:
    yard.let_in()
    yard.wait(10)
    assert not yard.sender.resent


def test_who_is_silent_is_neither_spoken_to_nor_sent_anything_again() -> None:
    yard = Yard(reliable=True)
    silent = yard.let_in()
    silent.at_look = silent.hears  # it lives, but this look was for that
    while not silent.looks:
        yard.sender.resent.clear()
        heartbeats = silent.heartbeats
        yard.loop.run_timer()
    assert not yard.sender.resent and silent.heartbeats == heartbeats


# What goes wrong


def test_one_that_cannot_be_looked_at_is_closed_and_the_others_are_looked_at(
        yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise error

    error = ArithmeticError("on looking for room")
    peers = [yard.let_in(str(number)) for number in range(3)]
    broken = peers[1]
    broken.paused = True
    broken.look_for_room = fail  # type: ignore[method-assign]
    yard.wait(INTERVAL + 1)
    assert broken.crash is error
    assert [record.exc_info[1] for record in said(caplog) if record.exc_info] == [error]
    assert all(peer.heartbeats == 1 and peer.crash is None for peer in peers if peer is not broken)


def test_a_step_of_its_own_that_fails_is_the_whole_søckets(yard: Yard) -> None:
    crashes: list[BaseException] = []
    yard.life.on_crash = crashes.append
    yard.let_in()
    yard.connections.open = 5
    yard.loop.run_timer()
    assert [type(error) for error in crashes] == [TypeError]
