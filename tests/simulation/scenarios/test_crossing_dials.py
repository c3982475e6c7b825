"""Ada and Bob dial each other in the same instant, far apart. One of the two connections stays, the same at both ends,
and what was sent on the other meanwhile is neither lost nor doubled."""

from __future__ import annotations

import pytest
from simulation.plan import Plan, Send, Tenant, Way
from simulation.scenarios import happen


@pytest.mark.parametrize("latency", [0.00001, 0.01, 0.2])
def test_of_two_connections_that_cross_one_stays(latency: float) -> None:
    world = happen(Plan(
        seed=2,
        tenants=(
            Tenant("ada", "ada", binds=("tcp",), ways=(Way("tcp", "bob"),)),
            Tenant("bob", "bob", binds=("tcp",), ways=(Way("tcp", "ada"),)),
        ),
        sends=tuple(Send(moment / 50, who, 1, 10) for moment in range(100) for who in ("ada", "bob")),
        quiet_at=3.0,
        latency=latency,
    ))
    assert all(len(sent.deliveries) == 1 for sent in world.journal.sent.values())
    for name in ("ada", "bob"):
        got = [sent.number for sent in world.journal.order[name, 0]]
        assert got == sorted(got) and len(got) == 100
    assert "both ends dialled: the other connection stays" in "\n".join(world.story or [])
