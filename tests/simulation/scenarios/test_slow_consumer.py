"""Ada publishes to three, and Dan takes nothing for a long time. Bob and Cyd get everything all the same, at once; Dan
gets the newest in the end, and what he did not get is counted."""

from __future__ import annotations

from simulation.plan import Plan, Send, Taking, Tenant, Way
from simulation.scenarios import happen

from netmsg import SendMode

COUNT = 600


def test_one_who_is_slow_costs_the_others_nothing() -> None:
    world = happen(Plan(
        seed=5,
        tenants=(
            Tenant("ada", "ada", {"send_mode": SendMode.PUBLISH, "send_hwm": 50}, binds=("tcp",)),
            Tenant("bob", "bob", ways=(Way("tcp", "ada"),)),
            Tenant("cyd", "cyd", ways=(Way("tcp", "ada"),)),
            Tenant("dan", "dan", {"recv_hwm": 10}, ways=(Way("tcp", "ada"),), taking=Taking(every=1.0, since=25.0)),
        ),
        sends=tuple(Send(1.0 + moment / 30, "ada", 1, 1000) for moment in range(COUNT)),
        quiet_at=30.0,
        send_buffer=4_096,
        receive_buffer=4_096,
    ))
    got = {name: [sent.number for sent in world.journal.order[name, 0]] for name in ("bob", "cyd", "dan")}
    assert got["bob"] == got["cyd"] == list(range(1, COUNT + 1))
    assert got["dan"] == sorted(got["dan"]) and got["dan"][-1] == COUNT and len(got["dan"]) < 200
    for sent in world.journal.sent.values():
        assert all(delivered.at - sent.at < 0.1 for delivered in sent.deliveries if delivered.to != "dan"), sent
