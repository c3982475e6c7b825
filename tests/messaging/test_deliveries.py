"""What ``recv_delivery`` returns: one message, and the means to answer for it."""

from __future__ import annotations

from typing import Any

import pytest

from netmsg.errors import ClosedError, ForkedError, LocalProtocolError, SendTimeoutError
from netmsg.messaging.credit import Credit
from netmsg.messaging.deliveries import Delivery
from netmsg.messaging.inbox import Batch, RequestBatch

SENDER = b"s" * 16
ID = bytes(range(16))


class Settler:
    """The receiving half: it notes what it is told, or says that it is closed."""

    max_message_size = 100

    def __init__(self) -> None:
        self.settled: list[tuple[Delivery, bool]] = []
        self.answered: list[tuple[bytes, bool, float | None]] = []
        self.error: Exception | None = None

    def settle(self, delivery: Delivery, accept: bool) -> None:
        if self.error is not None:
            raise self.error
        self.settled.append((delivery, accept))

    def answer(self, delivery: Delivery, data: bytes, *, fails: bool, timeout: float | None) -> None:
        if self.error is not None:
            raise self.error
        self.answered.append((data, fails, timeout))


@pytest.fixture
def settler() -> Settler:
    return Settler()


def deliver(settler: Settler, data: bytes = b"data", message_id: bytes | None = ID) -> Delivery:
    return Delivery(settler, Batch(Credit(SENDER, 10, 1000), [(message_id, data)]), data, message_id)


def test_it_has_the_message_and_who_sent_it(settler: Settler) -> None:
    delivery = deliver(settler, b"data")
    assert delivery.data == b"data" and delivery.identity == SENDER
    assert not delivery.is_request


def test_nothing_is_said_of_it_before_it_is_answered_for(settler: Settler) -> None:
    deliver(settler)
    assert not settler.settled


def test_it_is_acknowledged_or_refused(settler: Settler) -> None:
    one, other = deliver(settler), deliver(settler)
    one.ack()
    other.nack()
    assert settler.settled == [(one, True), (other, False)]


def test_who_was_interrupted_may_say_it_again(settler: Settler) -> None:
    """Which of them counts is for the network thread to decide."""
    delivery = deliver(settler)
    delivery.ack()
    delivery.ack()
    assert settler.settled == [(delivery, True)] * 2


@pytest.mark.parametrize("error", [ClosedError("the Søcket is closed"), ForkedError("the parent's")])
def test_answering_says_that_it_is_too_late(settler: Settler, error: Exception) -> None:
    delivery = deliver(settler)
    settler.error = error
    for answer in (delivery.ack, delivery.nack):
        with pytest.raises(type(error)) as caught:
            answer()
        assert caught.value is error
    assert delivery.data == b"data"


def ask(settler: Settler, data: bytes = b"question") -> Delivery:
    return Delivery(settler, RequestBatch(Credit(SENDER, 10, 1000), [(ID, data)]), data, None, ID)


def test_a_request_is_answered(settler: Settler) -> None:
    one, other = ask(settler), ask(settler)
    assert one.is_request and one.data == b"question" and one.identity == SENDER
    one.reply(bytearray(b"answer"))
    other.reply(b"", timeout=2.5)
    assert settler.answered == [(b"answer", False, None), (b"", False, 2.5)]


def test_or_it_is_said_why_not(settler: Settler) -> None:
    ask(settler).fail("no \u00e4pples")
    assert settler.answered == [("no \u00e4pples".encode(), True, None)]


def test_once(settler: Settler) -> None:
    request = ask(settler)
    request.reply(b"answer")
    with pytest.raises(LocalProtocolError, match="answered already"):
        request.reply(b"another")
    with pytest.raises(LocalProtocolError, match="answered already"):
        request.fail("why")
    assert len(settler.answered) == 1


def test_an_answer_that_was_not_accepted_can_be_given_again(settler: Settler) -> None:
    request = ask(settler)
    settler.error = SendTimeoutError("no room")
    with pytest.raises(SendTimeoutError):
        request.reply(b"answer")
    settler.error = None
    request.reply(b"answer")
    assert settler.answered == [(b"answer", False, None)]


def test_what_is_no_request_has_no_answer(settler: Settler) -> None:
    with pytest.raises(LocalProtocolError, match="no request"):
        deliver(settler).reply(b"")
    with pytest.raises(LocalProtocolError, match="no request"):
        deliver(settler).fail("")


def test_an_answer_is_checked(settler: Settler) -> None:
    request: Any = ask(settler)
    for call, argument, timeout, error in ((request.reply, bytes(101), None, ValueError),
                                           (request.reply, "text", None, TypeError),
                                           (request.fail, b"bytes", None, TypeError),
                                           (request.fail, None, None, TypeError),
                                           (request.reply, b"", -1, ValueError), (request.fail, "", -1, ValueError)):
        with pytest.raises(error):
            call(argument, timeout=timeout)
    assert settler.answered == []


def test_a_request_need_not_be_acknowledged(settler: Settler) -> None:
    request = ask(settler)
    request.ack()
    request.reply(b"answer")
    assert settler.settled == [(request, True)], "who knows that there is nothing to do"


def test_it_does_not_show_what_may_be_secret_or_large(settler: Settler) -> None:
    assert repr(deliver(settler, b"secret")) == f"<Delivery of 6 bytes from {SENDER.hex()}>"


def test_it_is_small_and_takes_nothing_else_in(settler: Settler) -> None:
    delivery = deliver(settler)
    assert not hasattr(delivery, "__dict__")
    with pytest.raises(AttributeError):
        delivery.answered = True  # type: ignore[attr-defined]


def test_of_two_that_answer_at_a_time_one_does(settler: Settler) -> None:
    request = ask(settler)
    errors: list[LocalProtocolError] = []

    def meanwhile(delivery: Delivery, data: bytes, *, fails: bool, timeout: float | None) -> None:
        with pytest.raises(LocalProtocolError, match="answered already") as raised:
            request.reply(b"another")
        errors.append(raised.value)

    settler.answer = meanwhile  # type: ignore[method-assign]
    request.reply(b"one")
    assert len(errors) == 1
