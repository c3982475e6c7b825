"""Hundreds of small worlds in which nothing is lost, doubled or reordered. ``run(SEED)`` of `worlds` repeats one."""

from __future__ import annotations

import pytest

from .worlds import run

SEEDS = 200
AT_ONCE = 25


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_all_promises_hold(first: int) -> None:
    assert [broken for seed in range(first, first + AT_ONCE) for broken in run(seed)] == []
