"""Connections of one peer, one after the other, of which nothing else is there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.channels import as_any
from support.lanes import lane
from support.stand_ins import Loop, ScriptedSocket

from netmsg.messaging.succession import BRIEFLY, Succession


class Connection:
    """One of them, and its reading side."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.lane = lane()
        self.sock = ScriptedSocket()
        self.paused = self.blocked = self.broken = False
        self.held = False
        self.given_up = False
        self.worked = 0
        self.place = Succession(loop.io, as_any(self.sock), self.lane, self, self, 15.0)

    def hold(self) -> None:
        self.held = True

    def release(self) -> None:
        self.held = False

    def does_not_end(self) -> None:
        self.given_up = True

    def bursting(self) -> bool:
        return False

    def on_work(self) -> None:
        self.worked += 1

    def _crashed(self, error: Exception) -> None:
        raise error


@pytest.fixture
def new() -> Callable[[], Connection]:
    loop = Loop()
    return lambda: Connection(loop)


@pytest.mark.parametrize("send", [True, False])
def test_who_follows_is_held_until_the_one_before_has_ended(new: Callable[[], Connection], send: bool) -> None:
    old, follower = new(), new()
    follower.place.follow(old.place, send=send)
    assert follower.held and follower.place.following and follower.lane.held is not send
    old.place.end()
    assert not follower.held and not follower.place.following and not follower.lane.held
    old.loop.settle()
    assert follower.worked == 1 and old.worked == 0


def test_all_who_follow_go_ahead(new: Callable[[], Connection]) -> None:
    old, *followers = new(), new(), new()
    for follower in followers:
        follower.place.follow(old.place, send=True)
    old.place.end()
    assert not any(follower.held for follower in followers)
    followers[0].hold()
    old.place.end()
    assert followers[0].held, "once"


def test_who_has_come_behind_another_meanwhile_waits_for_that(new: Callable[[], Connection]) -> None:
    first, second, follower = new(), new(), new()
    follower.place.follow(first.place, send=True)
    follower.place.follow(second.place, send=False)
    first.place.end()
    assert follower.held and follower.lane.held
    second.place.end()
    assert not follower.held


def test_an_end_is_waited_for(new: Callable[[], Connection]) -> None:
    one = new()
    one.place.await_end()
    one.loop.pass_time(14.9)
    assert not one.given_up
    one.loop.pass_time(0.2)
    assert one.given_up


def test_who_waits_anew_waits_for_all_of_the_time(new: Callable[[], Connection]) -> None:
    one = new()
    one.place.await_end()
    one.loop.pass_time(10.0)
    one.place.await_end()
    one.loop.pass_time(14.0)
    assert not one.given_up and len(one.loop.delays) == 1


def test_who_has_ended_is_not_waited_for(new: Callable[[], Connection]) -> None:
    one = new()
    one.place.await_end()
    one.place.end()
    assert one.loop.delays == []


@pytest.mark.parametrize("why", ["it waits itself", "nobody takes what has come", "its peer takes nothing"])
def test_who_cannot_come_to_its_end_is_waited_for_longer_and_its_followers_may_speak_if_it_may(
        new: Callable[[], Connection], why: str) -> None:
    older, old, follower = new(), new(), new()
    follower.place.follow(old.place, send=False)
    if why == "it waits itself":
        old.place.follow(older.place, send=True)
    elif why == "its peer takes nothing":
        old.blocked = True
    else:
        old.paused = True
    old.place.await_end()
    old.loop.pass_time(16.0)
    assert not old.given_up
    assert (follower.lane.held, follower.worked) == ((True, 0) if old.blocked else (False, 1))
    assert follower.held, "it is not read for all that"
    older.place.end()
    old.paused = old.blocked = False
    old.loop.pass_time(15.0)
    assert old.given_up


def test_whose_system_is_silent_too_is_given_up(new: Callable[[], Connection]) -> None:
    one = new()
    one.blocked = True
    one.sock.acknowledging = False
    one.place.await_end()
    one.loop.pass_time(15.1)
    assert one.given_up


def test_who_comes_between_is_read_behind_what_comes_before_both(new: Callable[[], Connection]) -> None:
    oldest, between, last = new(), new(), new()
    last.place.follow(oldest.place, send=True)
    last.place.follow(between.place, send=True)
    assert between.held and between.place.following
    oldest.place.end()
    assert not between.held and last.held
    between.place.end()
    assert not last.held


def test_who_was_behind_one_that_goes_is_behind_what_that_was(new: Callable[[], Connection]) -> None:
    oldest, between, last = new(), new(), new()
    between.place.follow(oldest.place, send=True)
    last.place.follow(between.place, send=False)
    between.place.end()
    assert last.held and last.lane.held
    oldest.place.end()
    assert not last.held and not last.lane.held


def test_of_one_that_is_replaced_only_what_has_come_is_awaited(new: Callable[[], Connection]) -> None:
    older, one = new(), new()
    one.place.follow(older.place, send=True)
    one.blocked = True
    one.place.await_end(briefly=True)
    one.loop.pass_time(10 * BRIEFLY)
    assert not one.given_up, "its turn has not come"
    older.place.end()
    one.paused = True
    one.loop.pass_time(10 * BRIEFLY)
    assert not one.given_up
    one.paused = False
    one.loop.pass_time(2 * BRIEFLY)
    assert one.given_up


@pytest.mark.parametrize("hung_up", [True, False])
def test_where_nothing_can_be_sent_and_nobody_takes_what_came_it_is_awaited_if_its_end_is_there(
        new: Callable[[], Connection], hung_up: bool) -> None:
    """One that has not ended may send without end."""
    one = new()
    one.paused = one.broken = True
    one.sock.hung_up = hung_up
    one.place.await_end()
    one.loop.pass_time(15.1)
    assert one.given_up is not hung_up
