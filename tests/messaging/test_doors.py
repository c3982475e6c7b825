"""Who is let through the door at all: when the listeners rest, and when they go on."""

from __future__ import annotations

from typing import Any

from support.loops import Loop

from netmsg.messaging.connections import Connections
from netmsg.messaging.doors import LOOK_AGAIN, Doors
from netmsg.messaging.life import Life
from netmsg.messaging.places import Places
from netmsg.messaging.strangers import MOST_STRANGERS, PATIENCE


class Acceptor:
    """A listener, of which the test says whether anybody waits in its backlog."""

    def __init__(self, is_awaited: bool = False) -> None:
        self.is_awaited = is_awaited
        self.paused = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Caller:
    """Somebody who has been accepted."""

    identity = b""
    answered = False
    unheard = False
    received_bytes = 0

    def __init__(self, house: House) -> None:
        self.reason = ""
        self._house = house

    def fileno(self) -> int:
        return id(self)

    def close(self, reason: str, error: BaseException | None) -> None:
        self.reason = reason
        self._house.leave(self)


class House:
    """The doors, and what a population does with them."""

    def __init__(self, max_connections: int) -> None:
        self.loop = Loop()
        self.life = Life()
        self.connections: Any = Connections()
        self.places: Any = Places()
        self.doors: Any = Doors(max_connections, self.life, self.loop,  # type: ignore[arg-type]
                                self.connections, self.places)

    def listen(self, *acceptors: Acceptor) -> None:
        self.places.acceptors.extend(acceptors)

    def come(self) -> Caller:
        """Be accepted."""
        caller = Caller(self)
        self.doors.came(caller)
        self.connections.handshaking[caller] = None
        self.doors.regulate()
        return caller

    def introduce(self, caller: Caller) -> None:
        """Say who it is, and be let in."""
        self.doors.introduced(caller)
        self.connections.count_in(caller)
        self.doors.regulate()

    def dial(self) -> None:
        """Somebody comes whom this end has dialled: no stranger."""
        self.connections.handshaking[Caller(self)] = None
        self.doors.regulate()

    def leave(self, caller: Caller) -> None:
        self.doors.introduced(caller)
        self.connections.open.pop(caller, None)
        self.connections.handshaking.pop(caller, None)
        self.doors.regulate()


def test_where_there_is_room_all_listeners_accept() -> None:
    here, one, other = House(2), Acceptor(), Acceptor()
    here.listen(one, other)
    here.come()
    assert not one.paused and not other.paused
    assert not here.doors.regulate()


def test_at_the_limit_all_listeners_rest_until_somebody_leaves() -> None:
    here, one, other = House(2), Acceptor(), Acceptor()
    here.listen(one, other)
    callers = [here.come(), here.come()]
    assert one.paused and other.paused and here.doors.regulate()
    for caller in callers:
        here.introduce(caller)
    assert one.paused and other.paused
    here.leave(callers[0])
    assert not one.paused and not other.paused and not here.doors.regulate()


def test_who_has_been_dialled_counts_as_well() -> None:
    here, acceptor = House(2), Acceptor()
    here.listen(acceptor)
    here.dial()
    assert not acceptor.paused
    here.dial()
    assert acceptor.paused


def test_those_that_are_only_read_to_their_end_count_as_well() -> None:
    here, acceptor = House(2), Acceptor()
    here.listen(acceptor)
    retired = here.come()
    here.introduce(retired)
    here.connections.retired[b"a"] = retired
    here.come()
    assert acceptor.paused


def test_more_than_so_many_strangers_have_to_wait_whatever_the_limit() -> None:
    here, acceptor = House(10_000), Acceptor()
    here.listen(acceptor)
    for _ in range(MOST_STRANGERS - 1):
        here.come()
    assert not acceptor.paused
    last = here.come()
    assert acceptor.paused
    here.introduce(last)
    assert not acceptor.paused, "it is a stranger no more, and there is room for thousands"


def test_a_silent_stranger_makes_room_for_one_who_waits_outside() -> None:
    here, quiet, busy = House(1), Acceptor(), Acceptor(is_awaited=True)
    here.listen(quiet, busy)
    silent = here.come()
    assert busy.paused and not silent.reason, "it has only just come"
    here.loop.wait(PATIENCE + LOOK_AGAIN)
    assert silent.reason.startswith("evicted")
    assert not busy.paused and not quiet.paused


def test_while_nobody_waits_outside_a_stranger_may_take_its_time() -> None:
    here, acceptor = House(1), Acceptor()
    here.listen(acceptor)
    silent = here.come()
    here.loop.wait(100 * PATIENCE)
    assert not silent.reason and acceptor.paused
    acceptor.is_awaited = True
    here.loop.wait(LOOK_AGAIN)
    assert silent.reason and not acceptor.paused


def test_who_is_let_in_is_never_turned_out_for_another() -> None:
    here, acceptor = House(1), Acceptor(is_awaited=True)
    here.listen(acceptor)
    inside = here.come()
    here.introduce(inside)
    here.loop.wait(100 * PATIENCE)
    assert not inside.reason and acceptor.paused


def test_it_looks_again_by_itself_only_while_there_are_strangers_and_no_room() -> None:
    here = House(2)
    here.listen(Acceptor())
    first, second = here.come(), here.come()
    for _ in range(10):
        here.doors.regulate()
    assert len(here.loop.timers) == 1, "one look is enough for all"
    here.introduce(first)
    here.introduce(second)
    here.loop.run_timer()
    assert not here.loop.timers, "nobody is here any more who might have to go"
    here.leave(first)
    here.come()
    assert len(here.loop.timers) == 1


def test_after_the_end_it_looks_no_more() -> None:
    here, acceptor = House(1), Acceptor(is_awaited=True)
    here.listen(acceptor)
    silent = here.come()
    here.life.begin_closing()
    here.loop.run_timer()
    assert here.loop.timers, "closing may take a while"
    here.life.end()
    here.loop.wait(100 * PATIENCE)
    assert not here.loop.timers and not silent.reason


def test_a_flood_of_what_those_have_left_who_have_gone_keeps_everybody_out() -> None:
    here, acceptor = House(10), Acceptor()
    here.listen(acceptor)
    here.doors.flooded(True)
    assert acceptor.paused and here.doors.regulate()
    here.leave(here.come())
    assert acceptor.paused, "it does not help that one goes"
    here.doors.flooded(False)
    assert not acceptor.paused and not here.doors.regulate()


def test_when_the_flood_is_over_the_limit_holds_as_before() -> None:
    here, acceptor = House(1), Acceptor()
    here.listen(acceptor)
    here.doors.flooded(True)
    here.come()
    here.doors.flooded(False)
    assert acceptor.paused


def test_without_a_listener_nothing_happens() -> None:
    here = House(1)
    here.dial()
    here.dial()
    assert here.doors.regulate() and not here.loop.timers


def test_a_step_of_its_own_that_fails_is_the_whole_søckets() -> None:
    here = House(1)
    crashes: list[BaseException] = []
    here.life.on_crash = crashes.append
    here.come()
    here.places.acceptors = 5
    here.loop.run_timer()
    assert [type(error) for error in crashes] == [TypeError]
