"""Worlds that are written down, one a file, to be read as stories. In each of them all promises hold, and what the
story is about besides."""

from __future__ import annotations

from simulation.plan import Plan
from simulation.security import contexts
from simulation.world import World, run

__all__ = ["happen"]


def happen(plan: Plan) -> World:
    """What has become of it. All promises have held."""
    world = World(plan, contexts, story=True)
    broken = run(world)
    assert not broken, "\n".join([*(world.story or []), str(broken[0])])
    return world
