"""The list of behaviours is numbered, and each number has a test that names it."""

from __future__ import annotations

import re
from pathlib import Path

BEHAVIOURS = set(range(1, 91))


def test_every_behaviour_has_a_test_that_names_it() -> None:
    named = {int(number) for path in Path(__file__).parent.rglob("test_*.py")
             for number in re.findall(r"^def test_(\d+)_", path.read_text(encoding="utf-8"), re.MULTILINE)}
    assert named == BEHAVIOURS
