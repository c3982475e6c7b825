"""One direction of a proxy, step by step: no thread, no network, no clock."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from netmsg import ClosedError, ConnectionBrokenError, Delivery, QueueFullError, RequestFailedError, SendTimeoutError
from netmsg.deadline import Deadline
from netmsg.messaging import relaying as relaying_module
from netmsg.messaging.credit import Credit
from netmsg.messaging.inbox import Batch
from netmsg.messaging.relaying import Questions, Relay

NOW = Deadline(0)
SENDER = b"sender".ljust(16, b".")
ID = b"id".ljust(16, b".")


class Answers:
    """Where the replies of the deliveries go."""

    max_message_size = 1000

    def __init__(self) -> None:
        self.given: list[tuple[bytes, bool]] = []
        self.error: Exception | None = None

    def settle(self, delivery: Delivery, accept: bool) -> None:
        raise AssertionError("a relay settles at the source")

    def answer(self, delivery: Delivery, data: bytes, *, fails: bool, timeout: float | None) -> None:
        if self.error is not None:
            raise self.error
        self.given.append((data, fails))


class Front:
    """A source of what the test puts in."""

    def __init__(self) -> None:
        self.answers = Answers()
        self.coming: list[Delivery] = []
        self.ended = False
        self.settled: list[tuple[bytes, bool]] = []
        self.lost: list[tuple[bytes, str]] = []
        self.gone: set[bytes] = set()
        self.listeners: list[Callable[[], None]] = []
        self.taken = 0

    def _come(self, data: bytes, message_id: bytes | None, correlation_id: bytes | None, sender: bytes) -> None:
        self.coming.append(Delivery(self.answers, Batch(Credit(sender, 9, 9), ()), data, message_id, correlation_id))

    def message(self, data: bytes) -> None:
        self._come(data, None, None, SENDER)

    def kept(self, data: bytes) -> None:
        self._come(data, ID, None, SENDER)

    def request(self, data: bytes, asker: bytes = SENDER) -> None:
        self._come(data, None, ID, asker)

    # As a source

    def take(self, deadline: Deadline) -> Delivery | None:
        if self.coming:
            return self.coming.pop(0)
        if self.ended:
            return None
        raise TimeoutError

    def settle(self, delivery: Delivery, accept: bool) -> None:
        self.settled.append((delivery.data, accept))

    def lose(self, delivery: Delivery, reason: str) -> None:
        self.lost.append((delivery.data, reason))

    def is_there(self, identity: bytes) -> bool:
        return identity not in self.gone

    def has_room(self, identity: bytes) -> bool:
        return self.answers.error is None

    def taken_by(self, identity: bytes) -> int:
        return self.taken

    def listen(self, tell: Callable[[], None]) -> None:
        self.listeners.append(tell)

    def unlisten(self, tell: Callable[[], None]) -> None:
        self.listeners = [one for one in self.listeners if one != tell]


class Asked:
    """A request, as the test lets it go on."""

    def __init__(self, data: bytes, wake: Callable[[], None]) -> None:
        self.data = data
        self.wake = wake
        self.outcome: bytes | Exception | None = None
        self.lane: object | None = "somebody's"

    def settle(self, outcome: bytes | Exception) -> None:
        self.outcome = outcome
        self.wake()


class Back:
    """A sink that notes what it is given."""

    max_message_size = 20

    def __init__(self) -> None:
        self.given: list[bytes] = []
        self.error: Exception | None = None
        self.reliable = False
        self.followers: list[Callable[[bool], None]] = []
        self.asked: list[Asked] = []
        self.has_room = True

    def give(self, data: bytes, deadline: Deadline) -> Any:
        if self.error is not None:
            raise self.error
        self.given.append(data)
        return object() if self.reliable else None

    def follow(self, receipt: Any, tell: Callable[[bool], None]) -> None:
        self.followers.append(tell)

    def ask(self, data: bytes, wake: Callable[[], None]) -> Any:
        self.asked.append(Asked(data, wake))
        self.asked[-1].lane = "somebody's" if self.has_room else None
        return self.asked[-1]

    def go_on(self, request: Any) -> bytes | None:
        if isinstance(request.outcome, Exception):
            raise request.outcome
        return request.outcome  # type: ignore[no-any-return]

    def end(self, request: Any) -> None:
        self.asked.remove(request)


class Scene:
    def __init__(self) -> None:
        self.front, self.back = Front(), Back()
        self.woken = 0
        self.questions = Questions(self.front, self.back, self._wake)
        self.relay = Relay(self.front, self.back, self.questions)

    def _wake(self) -> None:
        self.woken += 1

    def ask(self, data: bytes, asker: bytes = SENDER) -> None:
        """A request comes, and is asked."""
        self.front.request(data, asker)
        assert self.relay.step(NOW)
        self.questions.go_on()


@pytest.fixture
def scene() -> Scene:
    return Scene()


# Messages


def test_what_the_sink_has_accepted_is_acknowledged(scene: Scene) -> None:
    scene.front.kept(b"1")
    assert scene.relay.step(NOW)
    assert scene.back.given == [b"1"] and scene.front.settled == [(b"1", True)]


def test_of_a_sink_that_sends_at_least_once_the_acknowledgement_is_waited_for(scene: Scene) -> None:
    scene.back.reliable = True
    for data in (b"1", b"2", b"3"):
        scene.front.kept(data)
        assert scene.relay.step(NOW)
    assert scene.front.settled == []
    scene.back.followers[2](True)
    scene.back.followers[0](False)
    assert scene.front.settled == [(b"3", True), (b"1", False)]  # whatever their order, and what is given up goes back


def test_at_the_end_of_the_source_there_are_no_more_steps(scene: Scene) -> None:
    scene.front.ended = True
    assert not scene.relay.step(NOW)


def test_what_finds_no_room_stays_in_hand_and_is_the_next_to_go(scene: Scene) -> None:
    scene.front.kept(b"1")
    scene.front.kept(b"2")
    scene.back.error = SendTimeoutError("no room")
    for _ in range(2):
        with pytest.raises(SendTimeoutError):
            scene.relay.step(NOW)
    assert scene.front.settled == [] and len(scene.front.coming) == 1
    scene.back.error = None
    assert scene.relay.step(NOW) and scene.relay.step(NOW)
    assert scene.back.given == [b"1", b"2"]


def test_what_is_in_hand_at_the_end_goes_back_or_is_counted(scene: Scene) -> None:
    scene.back.error = ClosedError("closed")
    scene.front.kept(b"kept")
    with pytest.raises(ClosedError):
        scene.relay.step(NOW)
    scene.relay.end()
    scene.front.message(b"once")
    with pytest.raises(ClosedError):
        scene.relay.step(NOW)
    scene.relay.end()
    scene.relay.end()
    assert scene.front.settled == [(b"kept", False)]
    assert scene.front.lost == [(b"once", "not passed on: the proxy has ended")]


@pytest.mark.parametrize("error", [None, QueueFullError("full")], ids=["too long", "refused"])
def test_what_the_sink_will_not_have_goes_back_or_is_counted(scene: Scene, error: Exception | None) -> None:
    scene.back.error = error
    size = 21 if error is None else 3
    scene.front.kept(b"k" * size)
    scene.front.message(b"m" * size)
    assert scene.relay.step(NOW) and scene.relay.step(NOW)
    assert scene.back.given == []
    assert scene.front.settled == [(b"k" * size, False)] and scene.front.lost == [(b"m" * size, "not passed on")]


# Requests


def test_a_reply_goes_to_the_one_who_has_asked_and_nothing_is_remembered(scene: Scene) -> None:
    scene.ask(b"what?")
    asked = scene.back.asked[0]
    assert asked.data == b"what?" and scene.questions.any
    before = scene.woken
    asked.settle(b"that")
    assert scene.woken == before + 1
    scene.questions.go_on()
    assert scene.front.answers.given == [(b"that", False)]
    assert scene.back.asked == [] and not scene.questions.any
    asked.wake()  # late, and for nothing
    scene.questions.go_on()
    assert scene.front.answers.given == [(b"that", False)]


@pytest.mark.parametrize(("error", "reason"), [
    (RequestFailedError("not today"), b"not today"),
    (ConnectionBrokenError("it has gone"), b"it has gone"),
])
def test_why_there_is_no_reply_is_handed_on_too(scene: Scene, error: Exception, reason: bytes) -> None:
    scene.ask(b"what?")
    scene.back.asked[0].settle(error)
    scene.questions.go_on()
    assert scene.front.answers.given == [(reason, True)] and not scene.questions.any and scene.back.asked == []


def test_a_request_that_is_too_long_is_answered_with_why(scene: Scene) -> None:
    scene.ask(b"?" * 21)
    assert scene.back.asked == []
    assert scene.front.answers.given == [(b"a request of 21 bytes, and the proxy passes on 20", True)]


def test_a_reply_for_which_there_is_no_room_is_tried_again_and_others_do_not_wait(scene: Scene) -> None:
    scene.ask(b"1", b"a" * 16)
    scene.ask(b"2", b"a" * 16)
    scene.front.answers.error = SendTimeoutError("no room")
    scene.back.asked[0].settle(b"one")
    scene.questions.go_on()
    scene.questions.look()
    scene.front.answers.error = None
    scene.ask(b"3", b"b" * 16)
    for asked in tuple(scene.back.asked):
        asked.settle(b"two" if asked.data == b"2" else b"three")
    scene.questions.go_on()
    assert scene.front.answers.given == [(b"three", False)]  # the second one stays behind the first
    scene.questions.look()
    assert scene.front.answers.given == [(b"three", False), (b"one", False), (b"two", False)]
    assert scene.front.lost == [] and not scene.questions.any


def test_what_waits_for_room_is_said_as_soon_as_there_is_some(scene: Scene) -> None:
    scene.front.answers.error = SendTimeoutError("no room")
    for number in range(3):
        scene.ask(b"%d" % number, b"%d" % (number % 2) * 16)
        scene.back.asked[-1].settle(b"reply to %d" % number)
        scene.questions.go_on()
    assert scene.front.answers.given == [] and not scene.questions.news
    (tell,) = scene.front.listeners
    scene.front.answers.error = None
    tell()
    assert scene.questions.news
    scene.questions.go_on()
    assert sorted(data for data, _ in scene.front.answers.given) == [b"reply to 0", b"reply to 1", b"reply to 2"]
    assert scene.front.listeners == [] and not scene.questions.any and not scene.questions.news


def test_who_takes_none_of_his_replies_loses_them(scene: Scene) -> None:
    for number in range(3):
        scene.ask(b"%d" % number)
    scene.front.answers.error = SendTimeoutError("no room")
    for asked in tuple(scene.back.asked):
        asked.settle(b"reply")
    scene.questions.go_on()
    for _ in range(relaying_module.MOST_TRIES):
        scene.questions.look()
    assert scene.front.lost == [] and scene.questions.any
    scene.questions.look()
    assert scene.front.lost == [(b"%d" % number, "no room for the reply") for number in range(3)]
    assert not scene.questions.any


def test_who_takes_one_reply_slowly_loses_none(scene: Scene) -> None:
    for number in range(3):
        scene.ask(b"%d" % number)
    scene.front.answers.error = SendTimeoutError("no room")
    for asked in tuple(scene.back.asked):
        asked.settle(b"reply")
    scene.questions.go_on()
    for taken in range(100):
        scene.front.taken = taken // 5
        scene.questions.look()
    assert scene.front.lost == [] and scene.questions.any


def test_why_there_is_no_reply_waits_for_room_too(scene: Scene) -> None:
    scene.ask(b"0")
    scene.front.answers.error = SendTimeoutError("no room")
    scene.back.asked[0].settle(RequestFailedError("nobody knows"))
    scene.questions.go_on()
    assert scene.front.answers.given == [] and scene.front.lost == []
    scene.front.answers.error = None
    scene.questions.look()
    assert scene.front.answers.given == [(b"nobody knows", True)] and not scene.questions.any


def test_the_replies_that_wait_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying_module, "MOST_UNSAID", 3000)
    for number in range(3):
        scene.ask(b"%d" % number)
    scene.front.answers.error = SendTimeoutError("no room")
    for asked in tuple(scene.back.asked):
        asked.settle(bytes(900))
    scene.questions.go_on()
    assert scene.front.lost == [(b"2", "no room for the reply")]
    scene.front.answers.error = None
    scene.questions.look()
    assert len(scene.front.answers.given) == 2
    scene.ask(b"3")
    scene.front.answers.error = SendTimeoutError("no room")
    scene.back.asked[0].settle(bytes(1000))
    scene.questions.go_on()
    assert len(scene.front.lost) == 1, "what has been said does not count any more"


def test_who_has_most_replies_that_wait_loses_some_and_nobody_else(scene: Scene,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying_module, "MOST_UNSAID", 3000)
    scene.back.max_message_size = 5000
    scene.front.answers.error = SendTimeoutError("no room")
    for number in range(2):
        scene.ask(b"%d" % number)
        scene.back.asked[-1].settle(bytes(900))
        scene.questions.go_on()
    scene.ask(b"q" * 500, b"q" * 16)
    scene.back.asked[-1].settle(bytes(100))
    scene.questions.go_on()
    assert scene.front.lost == [(b"1", "no room for the reply")]
    scene.front.answers.error = None
    scene.questions.look()
    assert sorted(len(data) for data, _ in scene.front.answers.given) == [100, 900]


def test_what_was_asked_counts_for_a_reply_that_waits_and_small_ones_are_not_free(
        scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying_module, "MOST_UNSAID", 4500)
    scene.back.max_message_size = 5000
    scene.front.answers.error = SendTimeoutError("no room")
    for data in (bytes(2400), b"1", b"2", b"3"):
        scene.ask(data)
        scene.back.asked[-1].settle(b"")
        scene.questions.go_on()
    assert scene.front.lost == [(b"3", "no room for the reply")]


def test_only_a_few_wait_for_room_at_the_sink(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of those are looked at whenever something happens there."""
    monkeypatch.setattr(relaying_module, "MOST_UNPLACED", 3)
    scene.back.has_room = False
    for number in range(10):
        scene.ask(b"%d" % number)
    assert [asked.data for asked in scene.back.asked] == [b"0", b"1", b"2"] and not scene.questions.news
    scene.back.has_room = True
    for asked in tuple(scene.back.asked):
        asked.lane = "somebody's"
        asked.wake()
    while scene.questions.news:
        scene.questions.go_on()
    assert len(scene.back.asked) == 10


def test_whoever_is_to_be_looked_at_is_noted_once(scene: Scene) -> None:
    scene.ask(b"?")
    before = scene.woken
    for _ in range(1000):
        scene.back.asked[0].wake()
    assert scene.woken == before + 1
    scene.questions.go_on()
    scene.back.asked[0].wake()
    assert scene.woken == before + 2 and scene.questions.news


def test_a_reply_that_is_too_long_for_the_front_is_told(scene: Scene) -> None:
    scene.ask(b"what?")
    scene.back.asked[0].settle(b"!" * 1001)
    scene.questions.go_on()
    ((reason, fails),) = scene.front.answers.given
    assert fails and b"1001" in reason and not scene.questions.any


def test_the_requests_of_those_who_have_gone_are_forgotten(scene: Scene) -> None:
    scene.ask(b"1", b"a" * 16)
    scene.ask(b"2", b"b" * 16)
    scene.front.gone.add(b"a" * 16)
    scene.questions.look()
    assert [asked.data for asked in scene.back.asked] == [b"2"] and scene.questions.any


def test_of_too_many_requests_the_oldest_is_given_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying_module, "MOST_QUESTIONS", 3)
    for number in range(5):
        scene.ask(b"%d" % number)
    assert [asked.data for asked in scene.back.asked] == [b"2", b"3", b"4"]
    assert scene.front.answers.given == [(b"given up by the proxy: too many requests wait for a reply", True)] * 2


def test_a_flood_of_requests_is_given_up_in_portions_and_what_comes_then_waits(
        scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile replies are handed on, to others and to who floods; and to find whose request goes costs nothing."""
    monkeypatch.setattr(relaying_module, "MOST_QUESTIONS", 500)
    monkeypatch.setattr(relaying_module, "MOST_COME", 300)
    for number in range(400):
        scene.ask(b"%d" % number, b"modest%02d" % (number % 40) * 2)
    for _ in range(5000):
        scene.front.request(b"flood", b"f" * 16)
    steps = 0
    while scene.front.coming:
        steps += 1
        with pytest.raises(TimeoutError):
            while True:
                scene.relay.step(NOW)
        if steps % 5 == 0:
            scene.back.asked[0].settle(b"reply %d" % steps)
        scene.questions.go_on()
        assert len(scene.questions._open) + len(scene.questions._coming) <= 500 + 100
        assert len(scene.questions._come) <= 300
    assert steps < 60
    while scene.questions.news:
        scene.questions.go_on()
    replies = [data for data, fails in scene.front.answers.given if not fails]
    assert len(replies) == steps // 5
    assert len(scene.back.asked) == 500 and sum(asked.data != b"flood" for asked in scene.back.asked) > 380


@pytest.mark.parametrize(("most", "size"), [("MOST_QUESTIONS", 10), ("MOST_ASKED", 10_000)])
def test_many_who_flood_at_the_same_time_have_no_more_than_one(
        scene: Scene, monkeypatch: pytest.MonkeyPatch, most: str, size: int) -> None:
    monkeypatch.setattr(relaying_module, most, 500 if most == "MOST_QUESTIONS" else 500 * size)
    monkeypatch.setattr(relaying_module, "MOST_COME", 300)
    scene.back.max_message_size = size
    for number in range(6000):
        scene.front.request(bytes(size), b"flood%03d" % (number % 30) * 2)
    while scene.front.coming:
        with pytest.raises(TimeoutError):
            while True:
                scene.relay.step(NOW)
        scene.questions.go_on()
        assert len(scene.questions._open) + len(scene.questions._coming) <= 500 + 100
    while scene.questions.news:
        scene.questions.go_on()
    assert len(scene.back.asked) == 500


def test_of_requests_that_come_back_few_are_looked_at_all_the_time_and_the_others_go_first_in_their_turn(
        scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying_module, "MOST_UNPLACED", 2)
    for number in range(6):
        scene.ask(b"%d" % number)
    scene.back.has_room = False
    scene.ask(b"late")
    for asked in scene.back.asked.copy():  # their peer has gone
        asked.lane = None
        asked.wake()
    scene.questions.go_on()
    assert len(scene.back.asked) == 2 and len(scene.questions._coming) == 5
    scene.back.has_room = True
    for _ in range(4):
        for asked in scene.back.asked.copy():
            asked.lane = "somebody's"
            asked.wake()
        scene.questions.go_on()
    assert len(scene.back.asked) == 7 and not scene.questions._coming
    for asked in scene.back.asked.copy():
        asked.settle(asked.data)
    scene.questions.go_on()
    assert sorted(data for data, _ in scene.front.answers.given) == [b"%d" % number for number in range(6)] + [b"late"]


def test_who_has_many_small_requests_costs_nobody_a_large_one(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying_module, "MOST_QUESTIONS", 5)
    scene.back.max_message_size = 100_000
    scene.ask(bytes(90_000), b"a" * 16)
    for number in range(9):
        scene.ask(b"%d" % number, b"b" * 16)
    assert [len(asked.data) for asked in scene.back.asked] == [90_000, 1, 1, 1, 1]


def test_what_the_sinks_disk_has_no_room_for_is_handed_back_and_the_next_one_is_passed_on(scene: Scene) -> None:
    scene.front.kept(b"kept")
    scene.front.message(b"sent once")
    scene.back.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert scene.relay.step(NOW) and scene.relay.step(NOW)
    assert scene.front.settled == [(b"kept", False)] and scene.front.lost == [(b"sent once", "not passed on")]
    scene.back.error = None
    scene.front.message(b"next")
    assert scene.relay.step(NOW) and scene.back.given == [b"next"]


def test_of_too_many_bytes_of_requests_the_oldest_is_given_up_of_who_has_most(
        scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying_module, "MOST_ASKED", 5 * relaying_module.SMALLEST)
    scene.ask(b"modest", b"a" * 16)
    for number in range(9):
        scene.ask(b"%d" % number, b"b" * 16)
    assert [asked.data for asked in scene.back.asked] == [b"modest", b"5", b"6", b"7", b"8"]
    assert len(scene.front.answers.given) == 5
    for asked in scene.back.asked.copy():
        asked.settle(b"reply")
    scene.questions.go_on()
    for number in range(4):  # there is room again
        scene.ask(b"%d" % number, b"b" * 16)
    assert len(scene.back.asked) == 4


def test_who_has_gone_takes_no_room_though_he_was_not_asked_for_yet(
        scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying_module, "MOST_UNPLACED", 1)
    monkeypatch.setattr(relaying_module, "MOST_ASKED", 3 * relaying_module.SMALLEST)
    scene.back.has_room = False
    scene.ask(b"first", b"a" * 16)
    for _ in range(2):
        scene.ask(b"waits", b"b" * 16)
    scene.front.gone.add(b"b" * 16)
    scene.questions.look()
    for _ in range(2):
        scene.ask(b"new", b"c" * 16)
    assert scene.front.answers.given == []


def test_at_the_end_all_who_have_asked_are_told(scene: Scene) -> None:
    scene.ask(b"1")
    scene.front.request(b"2")
    assert scene.relay.step(NOW)  # and not asked yet
    scene.questions.end()
    assert scene.front.answers.given == [(b"the proxy has ended", True)] * 2
    assert scene.back.asked == [] and not scene.questions.any and not scene.questions.news
    scene.front.request(b"late")
    assert scene.relay.step(NOW)
    assert scene.front.answers.given == [(b"the proxy has ended", True)] * 3 and not scene.questions.any


def test_at_the_end_nobody_is_told_who_has_no_room_and_that_is_counted(
        scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying_module, "MOST_UNPLACED", 2)
    scene.back.has_room = False
    for number in range(5):
        scene.ask(b"%d" % number)
    scene.front.answers.error = SendTimeoutError("no room")
    scene.questions.end()
    assert len(scene.front.lost) == 5 and not scene.questions.any


def test_what_is_said_of_the_end_twice_is_counted_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks when it is over says it, too, while its thread does."""
    scene.front.answers.error = SendTimeoutError("no room")
    for number in range(5):
        scene.ask(b"%d" % number)
    lose, lost = scene.front.lose, scene.front.lost

    def lose_and_end(delivery: Delivery, reason: str) -> None:
        lose(delivery, reason)
        if len(lost) == 2:
            scene.questions.end()

    monkeypatch.setattr(scene.front, "lose", lose_and_end)
    for asked in tuple(scene.back.asked):
        asked.settle(b"reply")
    scene.questions.go_on()
    scene.questions.end()
    assert sorted(data for data, _ in lost) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_request_in_hand_at_the_end_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.front.request(b"1")
    scene.questions.end()
    monkeypatch.setattr(scene.questions, "ask", lambda delivery: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        scene.relay.step(NOW)
    monkeypatch.undo()
    scene.relay.end()
    assert scene.front.answers.given == [(b"the proxy has ended", True)]
