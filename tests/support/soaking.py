"""What came of the scenarios at length, as a page of the documentation: only what was run, as it came out."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Outcome", "document"]


class Outcome(NamedTuple):
    """Of one scenario."""

    scenario: str
    load: str
    """What was held all the while."""
    faults: str
    """What was done to it, and how often."""
    sent: int | None
    """Messages; ``None`` where there are none, or others are counted."""
    delivered: int | None
    duplicated: int | None
    lost: int | None

    @property
    def cells(self) -> tuple[str, ...]:
        numbers = ("–" if number is None else f"{number:,}"
                   for number in (self.sent, self.delivered, self.duplicated, self.lost))
        return (self.scenario, self.load, self.faults, *numbers)


HEADINGS = "scenario", "load", "faults", "sent", "delivered", "duplicated", "lost"


def document(outcomes: Sequence[Outcome], passed: int, failed: int, seconds: float) -> str:
    """``passed`` and ``failed`` are all tests that were run, those among them that have nothing to count."""
    rows = [HEADINGS, ["---"] * len(HEADINGS), *(outcome.cells for outcome in outcomes)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    where = (f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} "
             f"{platform.release()} {platform.machine()}, {len(os.sched_getaffinity(0))} CPUs")
    return f"""---
orphan: true
---

# What came of a soak

`make soak` runs the scenarios of [how netmsg is tested](testing.md) at length, and writes this page. The last time it
took {seconds / 60:.0f} minutes, on {where}: {passed:,} tests passed, {failed:,} failed.

Where messages were counted:

{table}

*Sent* is what `send` had accepted, or what had been written to a log before; *delivered*, what a receiver has had of
it; *duplicated*, what it has had more than once though it had acknowledged it; *lost*, what it has never had.
"""
