"""``make simulate SEEDS=N FROM=K``: the worlds of the seeds K to K+N-1, one after the other, on all cores.

It tells how it gets on, and in the end what there was. A seed that breaks a promise is told at once, with the command
that repeats it; the first of them as a story, shrunk as far as it goes. Then the exit status is 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from typing import Final, NamedTuple

from .lasting import draw_any
from .plan import Plan
from .security import contexts
from .shrinking import shrink
from .world import World, run

TELL_EVERY: Final = 10.0
STORIES: Final = 3
"""So many of those that fail are told as stories."""
LONGEST_STORY: Final = 400


class Found(NamedTuple):
    """What became of a seed."""

    seed: int
    broken: tuple[str, ...]
    counts: Counter[str]


def explore(seed: int) -> Found:
    world = World(draw_any(seed), contexts)
    try:
        broken = [str(one) for one in run(world)]
    except Exception as error:  # of the world's own
        broken = [f"the world itself: {error!r}"]
    return Found(seed, tuple(broken), world.counts())


def story_of(plan: Plan) -> list[str]:
    world = World(plan, contexts, story=True)
    run(world)
    return world.story or []


def tell_story(seed: int, broken: str) -> None:
    """The shortest that is found."""
    name = broken.partition(":")[0]

    def fails(plan: Plan) -> bool:
        try:
            return any(one.name == name for one in run(World(plan, contexts))[:1])
        except Exception:
            return False

    plan = shrink(draw_any(seed), fails)
    print(f"\nThe least of it that still does so ({len(plan.tenants)} Søckets, {len(plan.sends)} sends, "
          f"{len(plan.faults)} faults):")
    for tenant in plan.tenants:
        print(f"  {tenant}")
    for line in story_of(plan)[-LONGEST_STORY:]:
        print(f"  {line}")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("seeds", type=int, help="how many")
    parser.add_argument("start", type=int, nargs="?", default=0, help="the first one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args()
    since = time.monotonic()
    told = since
    totals: Counter[str] = Counter()
    failed: list[Found] = []
    done = 0
    seeds = range(options.start, options.start + options.seeds)
    with multiprocessing.Pool(options.jobs) as pool:
        for found in pool.imap_unordered(explore, seeds):
            done += 1
            totals += found.counts
            if found.broken:
                failed.append(found)
                print(f"seed {found.seed}: {found.broken[0]}\n  again: make simulate SEEDS=1 FROM={found.seed}",
                      flush=True)
            now = time.monotonic()
            if now - told >= TELL_EVERY or done == options.seeds:
                told = now
                print(f"{done} of {options.seeds} seeds, {done / (now - since):.1f} a second, "
                      f"{totals['seconds'] / 3600:.1f} simulated hours, {len(failed)} failed", flush=True)
    for found in failed[:STORIES]:
        print(f"\nseed {found.seed}: {'; '.join(found.broken)}")
        tell_story(found.seed, found.broken[0])
    print(f"\n{done} seeds from {options.start} in {time.monotonic() - since:.0f} s:")
    for name, count in sorted(totals.items()):
        print(f"  {name:<28}{count:>14,}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
