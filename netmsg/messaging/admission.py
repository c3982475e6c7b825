"""Who stays when a second connection comes under an identity that is connected already. Pure."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple

from .choices import OnDuplicate

__all__ = ["AT_ONCE", "CROSSED", "Claim", "Decision", "RECONNECTED", "Verdict", "decide"]

MOST_OF_ONE: Final = 128
"""Connections of one identity, those included that are only read to their end."""
AT_ONCE: Final = 0.5
"""Seconds for which one connection was open when the other one began, at most, if both ends have dialled at once. But
neither end knows how long the other one takes to let somebody in: as long as that has not shown itself, it may have
dialled at once."""
RECONNECTED: Final = "the old connection has been closed by its peer, which has connected again"
CROSSED: Final = "both ends dialled: the other connection stays"


class Claim(NamedTuple):
    """A newcomer under the identity of a peer."""

    own: bytes
    """This end's identity,"""
    identity: bytes
    """and the one that is claimed."""
    dialled: bool
    """Whether this end has dialled the newcomer."""
    old_dialled: bool
    """Whether it has dialled the old connection."""
    old_for: float
    """Seconds for which that was open when the newcomer began; below 0 if the newcomer was first."""
    old_is_agreed: bool
    """Whether it is known that the other end has let it in, too."""
    old_is_gone: bool
    """Whether its peer has closed it, behind what is still to be read;"""
    is_gone: bool
    """and the newcomer's."""
    same_certificate: bool
    """Whether both have shown the same, verified one."""
    connections: int
    """How many this identity has."""


class Verdict(Enum):
    """What becomes of a newcomer."""

    REFUSE = "refuse"
    """It is closed."""
    REFUSE_FOR_THE_OLD = "refuse for the old"
    """The same; what has dialled it rests until the old one has gone."""
    READ = "read"
    """The old one stays, and the new one is read to its end, for it may have brought something."""
    HAND_OVER = "hand over"
    """The new one takes over, and the old one is read to its end, first."""
    FOLLOW = "follow"
    """Both have gone: they are read to their ends, the old one first."""
    REPLACE = "replace"
    """The new one takes over; the old one is dead, or closed for it."""
    PROBE = "probe"
    """The old one has to show itself."""


class Decision(NamedTuple):
    verdict: Verdict
    reason: str = ""
    alive: bool = False
    """Handing over: whether the old one may be sent on to its end;"""
    crossed: bool = False
    """and whether both ends have dialled at once, so that the peer is still the one that it was."""


def decide(claim: Claim, policy: OnDuplicate) -> Decision:
    """Which of the two stays; both ends come to the same end."""
    crossing = claim.dialled != claim.old_dialled
    crossed = crossing and (claim.old_for < AT_ONCE or not claim.old_is_agreed)
    if claim.connections >= MOST_OF_ONE:
        return Decision(Verdict.REFUSE, "too many connections under this identity are still to be read")
    if claim.is_gone:  # nothing is to be handed over to it
        if crossing:
            return Decision(Verdict.READ, CROSSED)
        if claim.old_is_gone and policy is not OnDuplicate.REJECT:
            return Decision(Verdict.FOLLOW, "its peer has closed it, and connected again")
        return Decision(Verdict.REFUSE_FOR_THE_OLD, "its peer has closed it")
    if claim.old_is_gone and (crossing or policy is not OnDuplicate.REJECT):
        # Its goodbye waits behind messages that nobody has taken: they are not lost. Where both ends have dialled, it
        # may be that the other one was the first to decide.
        return Decision(Verdict.HAND_OVER, RECONNECTED, crossed=crossed)
    if crossed:
        # The connection dialled by the greater identity stays, on either side.
        dialler = claim.own if claim.dialled else claim.identity
        if dialler == max(claim.own, claim.identity):
            return Decision(Verdict.HAND_OVER, CROSSED, alive=True, crossed=True)
        return Decision(Verdict.READ, CROSSED)
    if not crossing and claim.same_certificate:
        return Decision(Verdict.REPLACE, "the same certificate, connecting again")
    if policy is OnDuplicate.TAKEOVER:
        return Decision(Verdict.REPLACE, "taken over")
    if policy is OnDuplicate.REJECT:
        return Decision(Verdict.REFUSE_FOR_THE_OLD, "the identity is connected already")
    return Decision(Verdict.PROBE)
