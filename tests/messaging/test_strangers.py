"""Who has been accepted and has not said who it is: how many of them there may be, and who goes first."""

from __future__ import annotations

import threading

import pytest
from support.pairs import TIMEOUT, until
from support.wire_peer import DATA, dial, frame, hello

from netmsg import Søcket
from netmsg.messaging.strangers import MOST_STRANGERS, PATIENCE, SHARE, Strangers


class Caller:
    """A stranger."""

    def __init__(self, room: Room, answered: bool, unheard: bool) -> None:
        self.answered = answered
        self.unheard = unheard
        self.gone = False
        self._room = room

    def fileno(self) -> int:
        return id(self)

    def says_hello(self) -> None:
        """And it is still in the kernel."""
        self._room.speaking.add(self.fileno())

    def close(self, reason: str, error: BaseException | None) -> None:
        self.gone = True
        self._room.discard(self)


class Room(Strangers):
    """With callers that the test thinks up."""

    def __init__(self) -> None:
        self.speaking: set[int] = set()
        super().__init__(self.speaking.intersection)
        self.awaited = True

    def has_no_more(self, limit: int, now: float) -> bool:
        return self.is_full(limit, now, lambda: self.awaited)

    def come(self, *, answered: bool = False, unheard: bool = False) -> Caller:
        caller = Caller(self, answered, unheard)
        self.add(caller, 0.0)
        return caller


@pytest.fixture
def room() -> Room:
    return Room()


def test_there_is_room_below_the_limit(room: Room) -> None:
    room.come()
    assert not room.has_no_more(2, 100.0)
    assert len(room) == 1


def test_the_oldest_that_has_said_nothing_goes_first(room: Room) -> None:
    first, second = room.come(), room.come()
    assert not room.has_no_more(2, PATIENCE)
    assert first.gone and not second.gone


def test_nobody_goes_who_has_just_come(room: Room) -> None:
    caller = room.come()
    assert room.has_no_more(1, PATIENCE / 2)
    assert not caller.gone


def test_nobody_goes_while_nobody_else_wants_to_come(room: Room) -> None:
    caller = room.come()
    room.awaited = False
    assert room.has_no_more(1, 100.0) and not caller.gone
    room.awaited = True
    assert not room.has_no_more(1, 100.0) and caller.gone


def test_the_time_of_one_that_was_answered_begins_anew(room: Room) -> None:
    caller = room.come()
    caller.answered = True
    assert room.has_no_more(1, PATIENCE) and not caller.gone
    assert room.has_no_more(1, PATIENCE + PATIENCE / 2) and not caller.gone
    assert not room.has_no_more(1, PATIENCE + PATIENCE) and caller.gone


def test_one_that_was_answered_has_more_time_while_most_have_said_nothing(room: Room) -> None:
    far, silent = room.come(answered=True), room.come()
    assert not room.has_no_more(2, 100.0)
    assert silent.gone and not far.gone
    other = room.come()
    assert not room.has_no_more(2, 100.0 + 2 * PATIENCE)
    assert other.gone and not far.gone
    assert not room.has_no_more(1, 100.0 + 2 * PATIENCE) and far.gone


@pytest.mark.parametrize("where", ["in the kernel", "in the transport"])
def test_one_that_we_have_not_heard_yet_is_spared(room: Room, where: str) -> None:
    speaking, silent = room.come(unheard=where == "in the transport"), room.come()
    if where == "in the kernel":
        speaking.says_hello()
    assert not room.has_no_more(2, 100.0)
    assert silent.gone and not speaking.gone
    assert room.has_no_more(1, 100.0)


def test_a_part_of_them_goes_at_a_time(room: Room) -> None:
    for _ in range(MOST_STRANGERS):
        room.come()
    assert not room.has_no_more(10_000, 100.0)
    assert len(room) == MOST_STRANGERS - MOST_STRANGERS // SHARE


def test_where_there_is_no_room_at_all_nobody_who_goes_makes_any(room: Room) -> None:
    assert room.has_no_more(0, 100.0)


# A Søcket

def test_who_has_said_who_it_is_waits_for_the_verdict_and_makes_room_for_nobody() -> None:
    """A service that starts again, with more clients than there may be strangers, and slow to decide about each."""
    decided = threading.Event()
    with Søcket(authorize=lambda peer: decided.wait(TIMEOUT), handshake_timeout=60) as sock:
        sock.bind(port=0)
        clients = [dial(sock.bound_port) for _ in range(MOST_STRANGERS + 50)]
        for client in clients:
            client.send(hello(client.identity))
        with dial(sock.bound_port) as last:  # it is heard behind all of them
            last.send(hello(last.identity))
            decided.set()
            until(lambda: len(sock.peers()) == len(clients) + 1, 60)
        for client in clients:
            client.close()


def test_silent_strangers_do_not_keep_others_out_where_few_may_connect() -> None:
    with Søcket(max_connections=5, linger=0) as sock:
        sock.bind(port=0)
        silent = [dial(sock.bound_port) for _ in range(20)]
        with dial(sock.bound_port) as legitimate:
            legitimate.shake_hands()
        for peer in silent:
            peer.close()


def test_the_last_place_is_for_one_who_takes_its_time_while_nobody_else_wants_it() -> None:
    with Søcket(max_connections=1, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as slow:
            threading.Event().wait(2 * PATIENCE)
            slow.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)


def test_strangers_do_not_take_the_place_of_who_is_connected() -> None:
    with Søcket(max_connections=2, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as one, dial(sock.bound_port) as other:
            one.shake_hands()
            other.shake_hands()
            with dial(sock.bound_port) as waiting:
                waiting.send(hello(waiting.identity))
                one.close()
                until(lambda: sock.stats().connections == 3)
                assert {peer.identity for peer in sock.peers()} == {other.identity, waiting.identity}


def test_those_who_leave_messages_and_go_do_not_fill_the_memory() -> None:
    with Søcket(recv_hwm=6, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as resident:
            resident.shake_hands()
            for number in range(12):
                with dial(sock.bound_port) as peer:
                    peer.shake_hands(*[frame(DATA, b"%d" % number)] * 5)
                    until(lambda: sock.stats().received == 5 * number + 5)
                until(lambda: sock.stats().disconnections == number + 1)
            with dial(sock.bound_port) as waiting:
                waiting.send(hello(waiting.identity))
                for number in range(3):  # rounds of the loop, in which nobody is accepted
                    resident.send(frame(DATA, b"resident"))
                    until(lambda: sock.stats().received == 61 + number)
                assert sock.stats().connections == 13
                for number in range(12):
                    assert [sock.recv(timeout=TIMEOUT) for _ in range(5)] == [b"%d" % number] * 5
                until(lambda: sock.stats().connections == 14)


def test_another_address_lets_in_nobody_for_whom_there_is_no_room() -> None:
    with Søcket(max_connections=2, linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as one, dial(sock.bound_port) as other:
            one.shake_hands()
            other.shake_hands()
            until(lambda: len(sock.peers()) == 2)
            sock.bind(port=0)
            with dial(sock.bound_addresses[1][1]) as third:
                third.send(hello(third.identity))
                for _ in range(5):
                    one.send(frame(DATA, b"hello"))
                    assert sock.recv(timeout=TIMEOUT) == b"hello"
                    assert len(sock.peers()) == 2
                other.close()
                until(lambda: {peer.identity for peer in sock.peers()} == {one.identity, third.identity})
