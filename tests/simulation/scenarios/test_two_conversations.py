"""Bob and Cyd each talk with Ada, a question and its answer at a time. Nobody has to wait for the other."""

from __future__ import annotations

from simulation.plan import Plan, Send, Taking, Tenant, Way
from simulation.scenarios import happen


def test_two_conversations_with_one_server_go_on_side_by_side() -> None:
    world = happen(Plan(
        seed=1,
        tenants=(
            Tenant("ada", "ada", binds=("tcp",), taking=Taking(replies=True)),
            Tenant("bob", "bob", ways=(Way("tcp", "ada"),)),
            Tenant("cyd", "cyd", ways=(Way("tcp", "ada"),)),
        ),
        sends=(*(Send(1.0 + second / 10, "bob", 1, 10) for second in range(80)),
               *(Send(2.05 + second / 10, "cyd", 1, 10) for second in range(70))),
        quiet_at=10.0,
    ))
    answers = [sent for sent in world.journal.sent.values() if sent.sender == "ada"]
    questions = [sent for sent in world.journal.sent.values() if sent.sender != "ada"]
    assert len(questions) == 150 and len(answers) == 150
    for sent in (*questions, *answers):
        delivered, = sent.deliveries
        assert delivered.at - sent.at < 0.01, sent
