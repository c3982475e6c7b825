"""The page that a soak writes."""

from __future__ import annotations

from support.soaking import Outcome, document


def test_it_tells_what_was_counted_and_nothing_else() -> None:
    page = document([Outcome("killed again and again", "one sender", "200 kills", 12_345, 12_345, 0, 0),
                     Outcome("nothing to count", "a crowd", "1,000 strangers", None, None, None, None)], 2000, 1, 330.0)
    assert "| killed again and again | one sender | 200 kills | 12,345 | 12,345 | 0 | 0 |" in page
    assert "| nothing to count | a crowd | 1,000 strangers | – | – | – | – |" in page
    assert "took 6 minutes" in page and "2,000 tests passed, 1 failed" in page
