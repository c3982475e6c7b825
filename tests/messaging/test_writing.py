"""The writing side of a connection by itself: what its lane holds, over a transport that takes what it is told to."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from support.channels import Script, as_any
from support.wire_peer import DATA, frame

from netmsg.messaging import writing as module
from netmsg.messaging.lane import Lane
from netmsg.messaging.writing import UNBOUNDED, Writing


class Calls:
    """In the place of the loop."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def call(self, function: Any, *arguments: Any) -> None:
        self.made.append(function)


class TLS(Script):
    """What says so by its type, in the place of `TLSTransport`."""

    taken = 0

    def unreported(self) -> int:
        return self.taken


class Scene:
    def __init__(self, transport: Script | None = None) -> None:
        self.calls = Calls()
        self.transport = transport or Script()
        lock: Any = threading.Lock()
        self.lane = Lane(b"", lock)
        self.writing = Writing(as_any(self.calls), lock, self.lane, self.transport, self.on_work)

    def on_work(self) -> None:
        """What the loop is to call."""

    def queue(self, *payloads: bytes) -> None:
        self.lane.queue += [frame(DATA, payload) for payload in payloads]

    def write(self, times: int = UNBOUNDED) -> None:
        with self.writing.lock:
            self.writing.write(times)

    @property
    def state(self) -> tuple[bool, bool]:
        return self.writing.stopped, self.writing.blocked


@pytest.fixture
def tls(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(module, "TLSTransport", TLS)
    return Scene(TLS())


def test_all_that_there_is_goes_in_order() -> None:
    scene = Scene()
    scene.queue(b"1", b"2")
    scene.lane.add_control(b"first")
    scene.write()
    assert scene.transport.sent == b"first" + frame(DATA, b"1") + frame(DATA, b"2")
    assert scene.lane.empty and scene.state == (False, False)


def test_as_often_as_is_asked_for() -> None:
    scene = Scene()
    scene.queue(*[b"x"] * 1500)
    scene.write(2)
    assert len(scene.lane.queue) == 1500 - 2 * 512


def test_where_the_kernel_takes_no_more_it_waits_for_room_and_goes_on_from_there() -> None:
    scene = Scene(Script(room=8))
    scene.queue(b"message", b"another")
    scene.write()
    assert scene.state == (True, True) and scene.lane.sent_messages == 0
    scene.transport.room = None
    scene.write()
    assert scene.transport.sent == frame(DATA, b"message") + frame(DATA, b"another")
    assert scene.state == (False, False) and scene.lane.sent_messages == 2


def test_under_tls_it_waits_for_no_room(tls: Scene) -> None:
    """That is the transport's own business, or it waits for what comes."""
    tls.transport.room = 0
    tls.queue(b"message")
    tls.write()
    assert tls.state == (True, False)


def test_an_error_is_kept_and_nothing_is_written_any_more() -> None:
    scene = Scene()
    scene.transport.broken = error = BrokenPipeError("broken")
    scene.queue(b"message")
    scene.write()
    assert scene.writing.failure is error and error.__traceback__ is None
    scene.transport.broken = None
    scene.write()
    assert scene.transport.sent == b"" and len(scene.lane.queue) == 1


def test_a_sender_writes_by_itself_and_is_seen_to() -> None:
    scene = Scene()
    scene.queue(b"now")
    scene.writing.write_burst()
    assert scene.transport.sent == frame(DATA, b"now") and scene.calls.made == []
    assert scene.writing.bursting() and not scene.writing.bursting()


def test_a_sender_waits_for_nobody() -> None:
    scene = Scene()
    scene.queue(b"now")
    with scene.writing.lock:
        scene.writing.write_burst()
    assert scene.transport.sent == b"" and not scene.writing.bursting() and scene.calls.made == []


@pytest.mark.parametrize("broken", [None, BrokenPipeError()], ids=["blocked", "broken"])
def test_what_a_sender_cannot_write_is_left_to_the_loop(broken: OSError | None) -> None:
    scene = Scene(Script(room=0))
    scene.transport.broken = broken
    scene.queue(b"now")
    scene.writing.write_burst()
    assert scene.calls.made == [scene.on_work]


def test_a_sender_does_not_try_where_nobody_can() -> None:
    scene = Scene(Script(room=0))
    scene.queue(b"now")
    scene.write()
    scene.transport.room = None
    scene.writing.write_burst()
    assert scene.transport.sent == b"" and scene.calls.made == []


@pytest.mark.parametrize("end", [Writing.end, Writing.abandon])
def test_at_the_end_nothing_is_written_any_more(end: Any) -> None:
    scene = Scene()
    end(scene.writing)
    scene.queue(b"late")
    scene.writing.write_burst()
    assert scene.transport.sent == b"" and len(scene.lane.queue) == 1


def test_a_forked_child_takes_no_lock() -> None:
    scene = Scene()
    with scene.writing.lock:
        scene.writing.abandon()


@pytest.mark.parametrize("writing", [True, False])
def test_what_tls_has_taken_and_not_told_of_counts_at_the_end(tls: Scene, writing: bool) -> None:
    if writing:
        tls.queue(b"1", b"2")
        tls.transport.room = 0
        tls.write()
    as_any(tls.transport).taken = len(frame(DATA, b"1"))
    tls.writing.end()
    with tls.lane.lock:
        assert tls.lane.take_back() == ([frame(DATA, b"2")] if writing else [])
    assert tls.lane.sent_messages == writing


def test_an_end_in_the_middle_of_a_frame_needs_no_reset() -> None:
    scene = Scene(Script(room=3))
    scene.queue(b"message")
    scene.write()
    with scene.writing.lock:
        assert not scene.writing.drop()
