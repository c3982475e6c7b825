"""Messages that were lost, by cause."""

from __future__ import annotations

import pytest
from support.midst import in_the_midst, lines

from netmsg.messaging.losses import Losses


def test_nothing_is_lost_at_first() -> None:
    losses = Losses()
    assert losses.dropped == {} and losses.undelivered == 0


def test_each_cause_is_counted_for_itself() -> None:
    losses = Losses()
    losses.drop("full", 2)
    losses.drop("gone", 1)
    losses.drop("full", 3)
    assert losses.dropped == {"full": 5, "gone": 1} and losses.undelivered == 0


def test_who_is_interrupted_in_counting_keeps_nobody_else_from_it() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    losses = Losses()
    within = lines(Losses.drop)[-1]
    with in_the_midst(Losses.drop, within, interrupt), pytest.raises(KeyboardInterrupt):
        losses.drop("full", 1)
    losses.drop("full", 1)
    assert losses.dropped == {"full": 1}
