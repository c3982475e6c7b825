"""Patience with a client of the test's own, by a clock of its own."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from support.channels import Loop, Script, Socket, as_any
from support.pairs import TIMEOUT, Background
from support.servers import eventually

from netmsg import SendTimeoutError
from netmsg.deadline import Deadline
from netmsg.servers import backpressure as module
from netmsg.servers import patience
from netmsg.servers.backpressure import BRIEFLY, FAR_ABOVE, Backpressure
from netmsg.servers.send_queue import SendQueue

MARK = 100


class Client:
    """Whom the others wait for: takes as much as the script has room for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, send_timeout: float = 8.0) -> None:
        self.loop = Loop()
        self.script = Script(room=0)
        self.queue = SendQueue(self.script)
        self.missing = 0
        self.closed = False
        self.has_the_turn = False
        self.heard_of = 0
        self.told: list[Any] = []
        monkeypatch.setattr(patience, "time", self.loop)
        monkeypatch.setattr(module, "time", self.loop)
        monkeypatch.setattr(module, "unacknowledged", lambda sock: self.missing)
        terms = SimpleNamespace(io=self.loop, send_hwm_bytes=MARK, send_timeout=send_timeout)
        self.channel: Any = SimpleNamespace(socket=Socket(), handshake_moves=0)
        self.pressure = Backpressure(self, as_any(terms), self.queue, as_any(self.channel))

    def look(self) -> None:
        self.told.append("look")

    def gave_way(self) -> None:
        self.told.append("gave way")

    def heard(self) -> object:
        return self.heard_of

    def broke(self) -> None:
        self.told.append("broke")

    def give_up(self, kind: str, why: str) -> None:
        self.told.append(kind)
        self.closed = True

    def _crashed(self, error: Exception) -> None:
        self.told.append(error)

    def has_room(self, size: int | None) -> None:
        """For so many bytes more, of which the loop hears."""
        self.script.room = size
        self.queue.flush()
        self.pressure.look()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    return Client(monkeypatch)


def on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "on_a_loop", lambda: True)


def test_who_has_less_than_the_mark_to_take_is_not_behind(client: Client) -> None:
    client.queue.put(bytes(MARK - 1))
    assert not client.pressure.behind
    client.queue.put(b"x")
    assert client.pressure.behind


# Patience

def test_who_takes_nothing_is_given_up_once(client: Client) -> None:
    client.queue.put(bytes(MARK))
    client.pressure.be_patient()
    client.loop.advance(7.9)
    assert client.told == []
    client.loop.advance(0.2)
    assert client.told == ["slow"]
    client.pressure.be_patient()
    client.pressure.close_slow()
    client.loop.advance(100.0)
    assert client.told == ["slow"] and client.loop.pending == []


@pytest.mark.parametrize("how", ["taken", "acknowledged", "shaken hands"])
def test_who_takes_a_little_now_and_then_is_not(client: Client, how: str) -> None:
    client.queue.put(bytes(1000))
    client.missing = 1000
    client.pressure.be_patient()
    for _ in range(20):
        client.loop.advance(7.0)
        if how == "taken":
            client.has_room(1)
        elif how == "acknowledged":
            client.missing -= 1
        else:
            client.channel.handshake_moves += 1
    assert client.told == []
    client.loop.advance(12.0)
    assert client.told == ["slow"]


def test_there_is_no_end_of_patience_where_the_server_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(monkeypatch, math.inf)
    client.queue.put(bytes(MARK))
    client.pressure.be_patient()
    client.loop.advance(1e9)
    assert client.told == []


def test_who_has_caught_up_has_all_its_time_again(client: Client) -> None:
    client.queue.put(bytes(MARK))
    client.pressure.be_patient()
    client.loop.advance(7.0)
    client.has_room(None)
    assert client.loop.pending == []
    client.loop.advance(100.0)
    assert client.told == []


def test_who_is_leaving_has_to_take_everything(client: Client) -> None:
    client.queue.put(bytes(50))
    client.pressure.leave()
    client.pressure.look()  # below the mark
    client.loop.advance(9.0)
    assert client.told == ["slow"]


def test_who_can_be_sent_nothing_any_more_is_heard_as_long_as_there_is_something(client: Client) -> None:
    client.script.broken = BrokenPipeError()
    client.queue.put(b"x")
    client.pressure.look()
    for _ in range(5):
        client.loop.advance(7.0)
        client.heard_of += 1
        client.pressure.look()
    assert client.told == []
    client.loop.advance(11.0)
    assert client.told == ["broke"]


def test_when_the_socket_is_closed_nobody_is_patient_any_more(client: Client) -> None:
    client.queue.put(bytes(MARK))
    client.pressure.be_patient()
    client.pressure.cancel()
    client.pressure.be_patient()
    client.pressure.close_slow()
    assert client.told == [] and client.loop.pending == []
    client.pressure.end()
    client.pressure._crashed(ValueError())
    assert client.told == [] and not client.pressure._awaited


def test_a_step_that_fails_is_the_clients_business(client: Client) -> None:
    error = ValueError()
    client.pressure._crashed(error)
    assert client.told == [error]


# On a loop nobody waits

def test_on_a_loop_what_the_clients_own_step_sends_passes_the_mark(client: Client,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_loop(monkeypatch)
    client.has_the_turn = True
    client.queue.put(bytes(FAR_ABOVE * MARK))
    client.pressure.wait_for_room(None, explicit=False)
    assert client.loop.pending  # and from now on it has to take something


def test_but_what_others_send_is_bounded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_loop(monkeypatch)
    client.queue.put(bytes(FAR_ABOVE * MARK - 1))
    client.pressure.wait_for_room(None, explicit=False)
    client.queue.put(b"x")
    with pytest.raises(SendTimeoutError):
        client.pressure.wait_for_room(None, explicit=False)
    assert client.told == ["slow"]


def test_and_who_has_room_by_now_stays(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_loop(monkeypatch)
    client.queue.put(bytes(FAR_ABOVE * MARK))
    client.script.room = None
    client.pressure.wait_for_room(None, explicit=False)
    assert client.told == [] and client.queue.size == 0


def test_on_another_loop_the_clients_own_is_told_to_be_patient(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_loop(monkeypatch)
    client.loop.is_current = False
    client.queue.put(bytes(MARK))
    client.pressure.wait_for_room(None, explicit=False)
    assert not client.loop.pending
    client.loop.run()
    assert client.loop.pending


def test_and_need_not_be_if_the_client_has_caught_up(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_loop(monkeypatch)
    client.loop.is_current = False
    client.queue.put(bytes(MARK))
    client.pressure.wait_for_room(None, explicit=False)
    client.has_room(None)
    client.loop.run()
    assert not client.loop.pending


def test_an_explicit_timeout_only_raises(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_loop(monkeypatch)
    client.queue.put(bytes(MARK))
    with pytest.raises(SendTimeoutError):
        client.pressure.wait_for_room(TIMEOUT, explicit=True)
    assert client.told == []


# Waiting

def waits(client: Client) -> None:
    waiters = client.pressure._waiting()
    eventually(lambda: waiters.waiting)


def test_who_waits_goes_on_when_there_is_room(client: Client) -> None:
    client.queue.put(bytes(MARK))
    sender = Background(lambda: client.pressure.wait_for_room(TIMEOUT, explicit=True))
    waits(client)
    client.has_room(1)
    sender.result()


def test_and_when_it_is_closed_or_cannot_be_sent_anything(client: Client) -> None:
    client.queue.put(bytes(MARK))
    sender = Background(lambda: client.pressure.wait_for_room(None, explicit=True))
    waits(client)
    client.closed = True
    client.pressure.tell()
    sender.result()


@pytest.mark.parametrize("explicit", [True, False])
def test_in_vain_only_for_its_time_and_then_the_client_goes_unless_that_was_its_own(
        explicit: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(monkeypatch, 0.02)
    client.queue.put(bytes(MARK))
    with pytest.raises(SendTimeoutError, match="100 bytes"):
        client.pressure.wait_for_room(0.02 if explicit else None, explicit=explicit)
    assert client.told == ([] if explicit else ["slow"])


def test_the_clients_own_packets_wait_for_those_who_have_waited_for_room(client: Client) -> None:
    assert not client.pressure.gives_way()
    done: list[int] = []
    sender = Background(lambda: client.pressure.wait(lambda: done, Deadline(TIMEOUT)))
    waits(client)
    assert client.pressure.gives_way() and client.pressure.gives_way()
    client.loop.advance(BRIEFLY)
    assert client.told == ["gave way"] and client.loop.pending == []
    done.append(1)
    client.pressure.tell()
    sender.result()


# What the workers ask

def test_it_has_been_silent_since_anything_was_seen_to_move(client: Client) -> None:
    client.queue.put(bytes(1000))
    begin = client.pressure._silent_since()
    client.loop.advance(5.0)
    assert client.pressure._silent_since() == begin
    client.has_room(1)
    assert client.pressure._silent_since() == client.loop.now
    assert client.pressure._awaited


def test_whoever_goes_for_others_is_awaited_no_more(client: Client) -> None:
    client.pressure._give_up_for_others()
    client.pressure._give_up_for_others()
    assert client.told == ["blocked"] and not client.pressure._awaited
