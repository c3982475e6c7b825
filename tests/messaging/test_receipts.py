"""Receipts: what is known of one message, and what waiting for it comes to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netmsg import UndeliveredError
from netmsg.deadline import Deadline
from netmsg.messaging.receipts import Receipt

ID = bytes(range(16))


class Keeper:
    """Who keeps the message: outstanding until the test says otherwise."""

    def __init__(self) -> None:
        self.outstanding = True
        self.at_look: Callable[[], None] = lambda: None
        """What another thread does when somebody looks."""
        self.while_waiting: Callable[[], None] = lambda: None
        self.waits: list[tuple[Receipt, float | None]] = []
        self.asked: list[bytes] = []

    def is_outstanding(self, message_id: bytes) -> bool:
        self.asked.append(message_id)
        self.at_look()
        return self.outstanding

    def wait_for_receipt(self, receipt: Receipt, deadline: Deadline) -> bool:
        self.waits.append((receipt, deadline.remaining()))
        self.while_waiting()
        return receipt._settled

    def trouble(self) -> str:
        return "; no connection to anybody"

    def acknowledge(self) -> None:
        self.outstanding = False

    def give_up(self, receipt: Receipt, reason: str) -> None:
        """As the ledger does: told first, and forgotten second."""
        receipt._fail(reason)
        self.outstanding = False


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
def receipt(keeper: Keeper) -> Receipt:
    return Receipt(keeper, ID)


def test_a_message_on_its_way_is_neither_acknowledged_nor_failed(keeper: Keeper, receipt: Receipt) -> None:
    assert receipt.message_id == ID
    assert not receipt.acked and not receipt.failed and not receipt._settled
    assert set(keeper.asked) == {ID}


def test_an_acknowledged_message_stays_so(keeper: Keeper, receipt: Receipt) -> None:
    keeper.acknowledge()
    assert receipt.acked and not receipt.failed and receipt._settled


def test_a_message_that_is_given_up_on_was_not_acknowledged(keeper: Keeper, receipt: Receipt) -> None:
    keeper.give_up(receipt, "resent in vain")
    assert receipt.failed and not receipt.acked and receipt._settled


def test_one_that_is_told_to_have_failed_is_so_before_the_keeper_forgets_it(receipt: Receipt) -> None:
    receipt._fail("resent in vain")
    assert receipt.failed and not receipt.acked and receipt._settled


def test_whoever_looks_while_it_is_given_up_on_does_not_see_it_acknowledged(keeper: Keeper,
                                                                            receipt: Receipt) -> None:
    keeper.at_look = lambda: keeper.give_up(receipt, "resent in vain")
    assert not receipt.acked
    assert receipt.failed


def test_waiting_ends_with_the_acknowledgement(keeper: Keeper, receipt: Receipt) -> None:
    keeper.while_waiting = keeper.acknowledge
    receipt.wait(timeout=5)
    ((waited_for, remaining),) = keeper.waits
    assert waited_for is receipt and remaining is not None and 0 < remaining <= 5


def test_without_a_timeout_it_waits_for_ever(keeper: Keeper, receipt: Receipt) -> None:
    keeper.acknowledge()
    receipt.wait()
    assert keeper.waits == [(receipt, None)]


def test_a_message_that_is_given_up_on_raises_why_each_time(keeper: Keeper, receipt: Receipt) -> None:
    keeper.while_waiting = lambda: keeper.give_up(receipt, "given up at close")
    for _ in range(2):
        with pytest.raises(UndeliveredError, match="^given up at close$"):
            receipt.wait(timeout=5)


@pytest.mark.parametrize("timeout, shown", [(0, "0"), (0.25, "0.25"), (30 * 86400, "2.592e+06")])
def test_a_timeout_says_which_message_how_long_and_what_is_wrong(keeper: Keeper, receipt: Receipt, timeout: float,
                                                                 shown: str) -> None:
    with pytest.raises(TimeoutError) as caught:
        receipt.wait(timeout=timeout)
    assert str(caught.value) == (f"message {ID.hex()} was not acknowledged within {shown} s"
                                 "; no connection to anybody")
    assert not receipt.failed, "the message is still on its way"
    keeper.acknowledge()
    receipt.wait(timeout=timeout)


@pytest.mark.parametrize("timeout, error", [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_a_timeout_that_makes_no_sense_is_refused_before_waiting(keeper: Keeper, receipt: Receipt, timeout: float,
                                                                 error: type[Exception]) -> None:
    with pytest.raises(error):
        receipt.wait(timeout=timeout)
    assert not keeper.waits


def test_it_shows_what_is_known(keeper: Keeper, receipt: Receipt) -> None:
    assert repr(receipt) == f"<Receipt {ID.hex()} outstanding>"
    keeper.acknowledge()
    assert repr(receipt) == f"<Receipt {ID.hex()} acked>"
    receipt._fail("late")
    assert repr(receipt) == f"<Receipt {ID.hex()} failed>"


def test_it_is_small_and_takes_nothing_else_in(receipt: Receipt) -> None:
    """There are as many as there are messages."""
    assert not hasattr(receipt, "__dict__")
    with pytest.raises(AttributeError):
        receipt.acked = True  # type: ignore[misc]
