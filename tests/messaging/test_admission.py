"""Who stays when a second connection comes under an identity that is connected already: every case there is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netmsg import OnDuplicate
from netmsg.messaging.admission import AT_ONCE, CROSSED, MOST_OF_ONE, RECONNECTED, Claim, Decision, Verdict, decide

LESSER, GREATER = b"a" * 16, b"b" * 16
TAKEOVER, REJECT, PROBE = OnDuplicate.TAKEOVER, OnDuplicate.REJECT, OnDuplicate.PROBE

WHAT_THERE_IS: dict[str, tuple[Any, ...]] = {
    "own": (LESSER, GREATER),
    "dialled": (False, True),
    "old_dialled": (False, True),
    "old_for": (0.0, AT_ONCE / 2, AT_ONCE, 3600.0),
    "old_is_agreed": (False, True),
    "old_is_gone": (False, True),
    "is_gone": (False, True),
    "same_certificate": (False, True),
    "connections": (1, MOST_OF_ONE - 1, MOST_OF_ONE, MOST_OF_ONE + 1),
    "policy": tuple(OnDuplicate),
}


class Case(NamedTuple):
    """One claim under one policy."""

    claim: Claim
    policy: OnDuplicate

    @property
    def facts(self) -> dict[str, object]:
        """What the table is about."""
        claim = self.claim
        dialler = claim.own if claim.dialled else claim.identity
        return {
            "crossing": claim.dialled != claim.old_dialled,
            "at_once": claim.old_for < AT_ONCE or not claim.old_is_agreed,
            "by_the_greater": dialler == GREATER,
            "old_is_gone": claim.old_is_gone,
            "is_gone": claim.is_gone,
            "same_certificate": claim.same_certificate,
            "too_many": claim.connections >= MOST_OF_ONE,
            "policy": self.policy,
        }


def every_case() -> Iterator[Case]:
    for values in product(*WHAT_THERE_IS.values()):
        found = dict(zip(WHAT_THERE_IS, values))
        policy = found.pop("policy")
        yield Case(Claim(identity=GREATER if found["own"] == LESSER else LESSER, **found), policy)


class Row:
    """What is decided where all of this is so, whatever else may be."""

    def __init__(self, name: str, decision: Decision, **facts: object) -> None:
        self.name = name
        self.decision = decision
        self.facts = facts

    def covers(self, case: Case) -> bool:
        found = case.facts
        return all(found[name] in wanted if isinstance(wanted, tuple) else found[name] == wanted
                   for name, wanted in self.facts.items())


HERE: dict[str, Any] = {"too_many": False, "is_gone": False}
"""The newcomer may be let in."""
ONE_WAY: dict[str, Any] = {**HERE, "crossing": False}
"""The same end has dialled both."""
LATE: dict[str, Any] = {**HERE, "crossing": True, "at_once": False, "old_is_gone": False}
"""Each end has dialled one, and not at once."""
STRANGER: dict[str, Any] = {**ONE_WAY, "same_certificate": False}

CONNECTED_AGAIN = Decision(Verdict.HAND_OVER, RECONNECTED)
SAME = Decision(Verdict.REPLACE, "the same certificate, connecting again")
TAKEN_OVER = Decision(Verdict.REPLACE, "taken over")
TAKEN = Decision(Verdict.REFUSE_FOR_THE_OLD, "the identity is connected already")

TABLE = [
    Row("too many of one identity",
        Decision(Verdict.REFUSE, "too many connections under this identity are still to be read"), too_many=True),
    Row("a newcomer that has gone, and both ends dialled", Decision(Verdict.READ, CROSSED),
        too_many=False, is_gone=True, crossing=True),
    Row("a newcomer that has gone", Decision(Verdict.REFUSE_FOR_THE_OLD, "its peer has closed it"),
        too_many=False, is_gone=True, crossing=False, old_is_gone=False),
    Row("both have gone", Decision(Verdict.FOLLOW, "its peer has closed it, and connected again"),
        too_many=False, is_gone=True, crossing=False, old_is_gone=True, policy=(PROBE, TAKEOVER)),
    Row("both have gone, which rejecting does not look at",
        Decision(Verdict.REFUSE_FOR_THE_OLD, "its peer has closed it"),
        too_many=False, is_gone=True, crossing=False, old_is_gone=True, policy=REJECT),
    Row("both ends dialled at once, the greater the newcomer",
        Decision(Verdict.HAND_OVER, CROSSED, alive=True, crossed=True),
        **HERE, crossing=True, old_is_gone=False, at_once=True, by_the_greater=True),
    Row("both ends dialled at once, the greater the old one", Decision(Verdict.READ, CROSSED),
        **HERE, crossing=True, old_is_gone=False, at_once=True, by_the_greater=False),
    Row("the old one has gone", CONNECTED_AGAIN, **ONE_WAY, old_is_gone=True, policy=(PROBE, TAKEOVER)),
    Row("both ends dialled, and the old one has gone", CONNECTED_AGAIN, **HERE, crossing=True, old_is_gone=True,
        at_once=False),
    Row("both ends dialled at once, and the other one was the first to decide",
        Decision(Verdict.HAND_OVER, RECONNECTED, crossed=True), **HERE, crossing=True, old_is_gone=True, at_once=True),
    Row("the old one is there, and the certificate the same", SAME, **ONE_WAY, old_is_gone=False,
        same_certificate=True),
    Row("the old one has gone, which rejecting does not look at, and the certificate is the same", SAME, **ONE_WAY,
        old_is_gone=True, same_certificate=True, policy=REJECT),
    Row("TAKEOVER", TAKEN_OVER, **STRANGER, old_is_gone=False, policy=TAKEOVER),
    Row("TAKEOVER by another way", TAKEN_OVER, **LATE, policy=TAKEOVER),
    Row("REJECT", TAKEN, **STRANGER, policy=REJECT),
    Row("REJECT by another way", TAKEN, **LATE, policy=REJECT),
    Row("PROBE", Decision(Verdict.PROBE), **STRANGER, old_is_gone=False, policy=PROBE),
    Row("PROBE by another way", Decision(Verdict.PROBE), **LATE, policy=PROBE),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_table(row: Row) -> None:
    cases = [case for case in every_case() if row.covers(case)]
    assert cases
    for claim, policy in cases:
        assert decide(claim, policy) == row.decision, (claim, policy)


def test_the_table_has_every_case_once() -> None:
    for case in every_case():
        assert len([row for row in TABLE if row.covers(case)]) == 1, case


def test_the_table_has_every_verdict() -> None:
    assert {row.decision.verdict for row in TABLE} == set(Verdict)


def test_whoever_is_closed_is_told_why() -> None:
    for claim, policy in every_case():
        verdict, reason, alive, crossed = decide(claim, policy)
        assert bool(reason) == (verdict is not Verdict.PROBE), "of a probe the outcome is told"
        assert not alive or verdict is Verdict.HAND_OVER, "only who is read to its end can be sent on to it"
        assert not crossed or verdict is Verdict.HAND_OVER


# Both ends

identities = st.tuples(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16)).filter(
    lambda both: both[0] != both[1])


class End(NamedTuple):
    """What one end sees of two connections, one dialled by each, and what it is told to do about them."""

    own_came_first: bool
    """Whether the connection that it has dialled is the old one here."""
    old_for: float
    old_is_agreed: bool
    old_is_gone: bool
    same_certificate: bool
    connections: int
    policy: OnDuplicate


ends = st.builds(End, st.booleans(), st.floats(0.0, 3600.0), st.booleans(), st.just(False), st.booleans(),
                 st.integers(1, MOST_OF_ONE - 1), st.sampled_from(OnDuplicate)).filter(
    lambda end: end.old_for < AT_ONCE or not end.old_is_agreed)


def dialler_of_the_one_that_stays(own: bytes, other: bytes, end: End) -> bytes:
    claim = Claim(own, other, not end.own_came_first, end.own_came_first, end.old_for, end.old_is_agreed,
                  end.old_is_gone, False, end.same_certificate, end.connections)
    verdict, reason, *_ = decide(claim, end.policy)
    assert reason == CROSSED
    old, new = (own, other) if end.own_came_first else (other, own)
    return {Verdict.HAND_OVER: new, Verdict.READ: old}[verdict]


@given(identities, ends, ends)
def test_when_both_dial_at_once_both_keep_the_same_connection(both: tuple[bytes, bytes], here: End,
                                                              there: End) -> None:
    """In whatever order the two came to each, and whatever each has been told to do about duplicates."""
    one, other = both
    assert dialler_of_the_one_that_stays(one, other, here) == dialler_of_the_one_that_stays(other, one, there)


@given(identities, ends)
def test_when_both_dial_at_once_that_of_the_greater_stays(both: tuple[bytes, bytes], end: End) -> None:
    one, other = both
    assert dialler_of_the_one_that_stays(one, other, end) == max(both)


@given(identities, st.booleans(), ends)
def test_nobody_loses_its_place_to_who_has_gone(both: tuple[bytes, bytes], dialled: bool, end: End) -> None:
    one, other = both
    for old_dialled in (False, True):
        claim = Claim(one, other, dialled, old_dialled, end.old_for, end.old_is_agreed, end.old_is_gone, True,
                      end.same_certificate, end.connections)
        assert decide(claim, end.policy).verdict in (Verdict.READ, Verdict.REFUSE_FOR_THE_OLD)
