"""Bob's machine loses its power and comes back under the same identity, while Ada still has the connection of before,
which nobody has told her is dead. Her next heartbeat finds out, and she lets the new one in."""

from __future__ import annotations

from simulation.plan import Fault, Plan, Send, Tenant, Way
from simulation.scenarios import happen

SLOW_TO_NOTICE = {"heartbeat_interval": 5.0, "heartbeat_timeout": 60.0}


def test_a_ghost_gives_way_to_the_one_who_has_come_back() -> None:
    world = happen(Plan(
        seed=4,
        tenants=(
            Tenant("ada", "ada", SLOW_TO_NOTICE, binds=("tcp",)),
            Tenant("bob", "bob", SLOW_TO_NOTICE, ways=(Way("tcp", "ada"),)),
        ),
        sends=(Send(0.5, "bob", 3, 10), Send(4.0, "bob", 3, 10)),
        faults=(Fault(2.0, 3.0, "power", "bob"),),
        quiet_at=12.0,
    ))
    second = [sent for sent in world.journal.sent.values() if sent.life == 1]
    assert len(second) == 3
    for sent in second:
        delivered, = sent.deliveries
        assert delivered.at < 3.0 + 5.0 + 2.0, "a heartbeat interval and a bit"
