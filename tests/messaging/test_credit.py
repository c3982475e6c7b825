"""What one identity may send before anybody takes it."""

from __future__ import annotations

from netmsg.messaging.credit import PAST_MARK, Credit


def test_room_is_what_the_mark_leaves() -> None:
    credit = Credit(b"a", 10, 1000)
    assert credit.room() == 10 and credit.pending == 0
    credit.arrived += 4
    assert credit.room() == 6 and credit.pending == 4
    credit.taken += 3
    assert credit.room() == 9 and credit.pending == 1


def test_at_the_mark_in_bytes_there_is_none() -> None:
    credit = Credit(b"a", 10, 1000)
    credit.arrived, credit.arrived_bytes = 1, 1000
    assert credit.room() == 0
    credit.taken, credit.taken_bytes = 1, 1000
    assert credit.room() == 10


def test_past_the_mark_there_is_a_bound_as_well() -> None:
    """Acknowledgements stand behind messages; who never acknowledges is read no further than so far."""
    credit = Credit(b"a", 10, 1000)
    credit.arrived = 10
    assert credit.room() == 0
    assert credit.room(past_mark=True) == 10 + PAST_MARK
    credit.arrived += 10 + PAST_MARK
    assert credit.room(past_mark=True) == 0
    credit.arrived, credit.arrived_bytes = 1, 2000
    assert credit.room(past_mark=True) == 0
