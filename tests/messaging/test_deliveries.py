"""What ``recv_delivery`` returns: one message, and the means to answer for it."""

from __future__ import annotations

import pytest

from netmsg.errors import ClosedError, ForkedError
from netmsg.messaging.credit import Credit
from netmsg.messaging.deliveries import Delivery
from netmsg.messaging.inbox import Batch

SENDER = b"s" * 16
ID = bytes(range(16))


class Settler:
    """The receiving half: it notes what it is told, or says that it is closed."""

    def __init__(self) -> None:
        self.settled: list[tuple[Delivery, bool]] = []
        self.error: Exception | None = None

    def settle(self, delivery: Delivery, accept: bool) -> None:
        if self.error is not None:
            raise self.error
        self.settled.append((delivery, accept))


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


def test_a_reply_is_promised_for_later(settler: Settler) -> None:
    with pytest.raises(NotImplementedError):
        deliver(settler).reply(b"answer")


def test_it_does_not_show_what_may_be_secret_or_large(settler: Settler) -> None:
    assert repr(deliver(settler, b"secret")) == f"<Delivery of 6 bytes from {SENDER.hex()}>"


def test_it_is_small_and_takes_nothing_else_in(settler: Settler) -> None:
    delivery = deliver(settler)
    assert not hasattr(delivery, "__dict__")
    with pytest.raises(AttributeError):
        delivery.answered = True  # type: ignore[attr-defined]
