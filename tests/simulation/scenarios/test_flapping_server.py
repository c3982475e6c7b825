"""Ada's program ends every two seconds and begins anew a second later. Bob and Cyd, who send at least once, get through
in the end with everything, each message once to each life of hers."""

from __future__ import annotations

from simulation.plan import Fault, Plan, Send, Tenant, Way
from simulation.scenarios import happen

from netmsg import DeliveryGuarantee, SendMode

RELIABLE = {"send_mode": SendMode.ROUNDROBIN, "delivery_guarantee": DeliveryGuarantee.AT_LEAST_ONCE,
            "heartbeat_interval": 1.0, "heartbeat_timeout": 3.0, "resend_after": 1.0}


def test_who_sends_at_least_once_gets_through() -> None:
    world = happen(Plan(
        seed=3,
        tenants=(
            Tenant("ada", "ada", {"heartbeat_interval": 1.0, "heartbeat_timeout": 3.0}, binds=("tcp",)),
            Tenant("bob", "bob", RELIABLE, ways=(Way("tcp", "ada"),)),
            Tenant("cyd", "cyd", RELIABLE, ways=(Way("tcp", "ada"),)),
        ),
        sends=tuple(Send(moment / 20, who, 1, 10) for moment in range(300) for who in ("bob", "cyd")),
        faults=tuple(Fault(2.0 * turn, 2.0 * turn + 1.0, "kill", "ada") for turn in range(1, 8)),
        quiet_at=17.0,
    ))
    assert len(world.faults) == 7
    assert all(sent.receipt is not None and sent.receipt.acked for sent in world.journal.sent.values())
