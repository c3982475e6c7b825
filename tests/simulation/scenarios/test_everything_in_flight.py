"""Bob has been sent two hundred messages and has acknowledged hardly any when his program ends in an instant. What he
had not acknowledged comes to his next life, and nothing else."""

from __future__ import annotations

from simulation.plan import Fault, Plan, Send, Taking, Tenant, Way
from simulation.scenarios import happen

from netmsg import AckMode, DeliveryGuarantee, SendMode

COUNT = 200


def test_what_was_in_flight_comes_to_the_next_life() -> None:
    world = happen(Plan(
        seed=6,
        tenants=(
            Tenant("ada", "ada", {"send_mode": SendMode.ROUNDROBIN,
                                  "delivery_guarantee": DeliveryGuarantee.AT_LEAST_ONCE}, ways=(Way("tcp", "bob"),)),
            Tenant("bob", "bob", {"ack_mode": AckMode.MANUAL}, binds=("tcp",), taking=Taking(every=0.01, most=1)),
        ),
        sends=(Send(1.0, "ada", COUNT, 10),),
        faults=(Fault(1.5, 2.0, "kill", "bob"),),
        quiet_at=10.0,
    ))
    first = {sent.number for sent in world.journal.order["bob", 0]}
    second = [sent.number for sent in world.journal.order["bob", 1]]
    assert 20 < len(first) < 100
    assert first | set(second) == set(range(1, COUNT + 1)) and second == sorted(second)
    assert len(first & set(second)) <= 2, "what it had acknowledged does not come again"
    assert all(sent.receipt is not None and sent.receipt.acked for sent in world.journal.sent.values())
