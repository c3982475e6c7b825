"""Values of the wrong types."""

from __future__ import annotations

from typing import Any


def wrong(value: object) -> Any:
    """For where the types do not allow it and the test is about what happens then."""
    return value
