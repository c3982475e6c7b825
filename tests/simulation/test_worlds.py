"""Some hundreds of worlds: see `simulation`. `make simulate` has as many as you like."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import PYTHON

from .lasting import FIRST as LASTING
from .lasting import draw_any
from .security import contexts
from .shrinking import shrink
from .talk import FIRST as TALK
from .world import World, run

WORLDS = sorted({*range(64), *range(TALK, TALK + 36), *range(LASTING, LASTING + 24)} - {3, 9, 19, 25, 34})
"""All but those that take more than some seconds, which are for `make simulate`."""
AT_A_TIME = 6
KEPT = (
    77,  # at rest too early: what was still under way counted as idling
    143,  # a mark that a connection's last words pass
    286,  # a challenger that had gone was waited for, and what was read behind it came late
    320,  # calls for a network thread that was never begun with
    1036,  # what is given up for `max_resends` while a close lingers
    1802,  # and in a world without faults
    33644,  # at most once, and a peer that is disconnected for not keeping up
    38001,  # what another peer had been given, behind what came after it
    30603,  # messages that wait for ``authorize`` at the other end, and are sent again
    31320,  # an introduction in pieces
    35510,  # who gives up a handshake before the other end has done with probing dials until he is told by chance
    63975,  # what an intruder asks, and does not wait for
    65868,  # one by TLS whose connection breaks while it is closing, and which was told of room for ever
    67205,  # two faults that kill the same program, each of which lets it begin anew
    68554,  # a crowd that says HELLO to one who lets in one at a time, and does not leave
    71970,  # a large message still came, in pieces of 17 bytes, when all else was settled
    5080,  # intruders who wait outside until the one before has gone
    100250,  # what is published to several proxies comes by each
    100325,  # the newest of what goes through a proxy
    100496,  # what one has refused, another one gets later
    100657,  # what a proxy sends at most once, to those who take a part of it
    100742,  # an old message that proxies send at least once
    101207,  # who dials goes past the limit of those who may come
    101270,  # what a proxy drops, because its back refuses at the mark
    101519,  # news by way of a proxy, which sends them to several
    102321,  # the newest, and one sent by identity that took its place
    120674,  # what a proxy sends at most once, to one who refuses it
    121124,  # at rest too early: a crowd still waited outside, where few are let in at a time
    122877,  # the same, in a world without faults
    122932,  # what came by TLS before a connection broke, and had to wait for what came by the one before
    201132,  # one acknowledges twice at a time what it had refused before
    201363,  # a program that dies when a message is stored, and before it is told
    133634,  # what a proxy's back refuses at the mark comes again, behind what came after it
    134422,  # many at a time to one who is new, until he has said how many he holds
    135290,  # what a proxy had acknowledged, and sent at most once when a connection broke
    142076,  # both ends dial and take over, and one is slow to let the other in: they took turns
    211628,  # what a later life of its sender gave up, refused
    140500,  # two that were never bound nor connected, and have heard of losses
    104526,  # both ends dial, and one lets the other in so slowly that they disagreed about who was first, for ever
)
"""Seeds that failed once, here or in the library."""
LONG = (
    30259,  # one of two ways to the same Søcket, dialled for ever, by TLS in pieces of 17 bytes
    31742,  # at rest too early: who lingers still had something to send
    133920,  # much that comes in pieces of 17 bytes, at once
    35208,  # more than a slow network can carry in the time that was given
)
"""The same; for `make soak`, for they take their time."""


@pytest.mark.untraced
@pytest.mark.parametrize("first", range(0, len(WORLDS), AT_A_TIME))
def test_all_promises_hold(first: int) -> None:
    for seed in WORLDS[first:first + AT_A_TIME]:
        assert not run(World(draw_any(seed), contexts)), f"make simulate SEEDS=1 FROM={seed}"


@pytest.mark.parametrize("seed", KEPT + (LONG if os.environ.get("NETMSG_SOAK") else ()))
def test_what_has_failed_once_holds(seed: int) -> None:
    assert not run(World(draw_any(seed), contexts))


TELL = """
import sys
from simulation.lasting import draw_any
from simulation.security import contexts
from simulation.world import World, run
for seed in map(int, sys.argv[1:]):
    world = World(draw_any(seed), contexts, story=True)
    run(world)
    print(seed, *world.story, sep="\\n")
"""


def told(salt: str, *seeds: int) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": salt, "PYTHONPATH": os.pathsep.join(
        [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])}
    return subprocess.run([*PYTHON, "-c", TELL, *map(str, seeds)], env=environment, capture_output=True,
                          text=True, check=True, timeout=50).stdout


def test_the_same_seed_tells_the_same_story() -> None:
    seeds = 0, 1, 2, 4
    one = told("1", *seeds)
    assert one == told("2", *seeds) and one.count("\n") > 500


def test_another_seed_tells_another_story() -> None:
    assert told("1", 0) != told("1", 1)


def test_a_world_is_shrunk_to_what_matters() -> None:
    plan = draw_any(5)
    culprit = plan.sends[len(plan.sends) // 2]
    least = shrink(plan, lambda plan: any(send.at == culprit.at for send in plan.sends))
    assert [send.at for send in least.sends] == [culprit.at] and not least.faults and len(least.tenants) == 2


def test_a_failing_seed_is_told_with_the_command_that_repeats_it(monkeypatch: pytest.MonkeyPatch,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    from netmsg.messaging.losses import Losses

    from . import __main__ as command

    monkeypatch.setattr(Losses, "drop", lambda self, reason, count: None)
    monkeypatch.setattr(command, "shrink", lambda plan, fails: plan)
    monkeypatch.setattr(multiprocessing, "Pool", InPlace)
    monkeypatch.setattr(sys, "argv", ["simulate", "1", "4"])
    assert command.main() == 1
    said = capsys.readouterr().out
    assert "everything is accounted for" in said and "make simulate SEEDS=1 FROM=" in said
    assert "fate" in said and "connections" in said


class InPlace:
    """A pool of no processes."""

    def __init__(self, jobs: int) -> None:
        self.imap_unordered = map

    def __enter__(self) -> InPlace:
        return self

    def __exit__(self, *_: object) -> None:
        pass
