"""The small worlds of one seed, and what is broken in them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from support.strikes import SignalStrike, Strike, Struck

from .clients import ClientWorld
from .packets import PacketWorld
from .secured import VERSIONS
from .streams import RECEIVES, StreamWorld

__all__ = ["everywhere", "run"]

OFTEN: Final = 6
SELDOM: Final = 50
"""In the worlds of one seed out of so many something is interrupted at every place where it can be; the latter under
TLS, where each is a handshake more."""
WORK: Final = 4
"""Of the steps in one world so many are tried."""
PLACES: Final = 50
"""As many are in most calls."""
BEHIND: Final = 6
"""After an interrupt so much happens, before everything comes to its end, that what it did is seen."""
MANY: Final = 300
STRIDE: Final = 13
"""After so many places, which are those of one loop over and over, only one in so many is tried."""


class SmallWorld(Protocol):
    """What all of them have."""

    script: list[Any]
    """What happens, one after the other."""

    def run(self, strikes: Mapping[int, Strike] = {}) -> None:
        """Raises `BrokenPromise`. ``strikes``: in which of what happens."""


def run(seed: int) -> list[str]:
    """The promises that are broken, each with where: nothing, if all of them hold. In the main thread, where interrupts
    come."""
    dice = random.Random(f"{seed}/worlds")
    name = str(seed)
    broken: list[str] = []
    streams, client = StreamWorld(name), ClientWorld(name)
    for label, world in (("streams", streams), ("client", client), ("packets", PacketWorld(name))):
        _note(broken, f"{label} of seed {seed}", world.run)
    for label, one in (("streams", streams), ("client", client)):
        strikes = {number: SignalStrike(dice.randint(1, PLACES)) for number in range(len(one.script))}
        _note(broken, f"{label} of seed {seed}, with interrupts all the time", one.run, strikes)
    if seed % OFTEN == 0:
        everywhere(broken, f"streams of seed {seed}", streams, _small(streams, dice))
    elif seed % OFTEN == 1 and len(client.script) < 20:
        everywhere(broken, f"client of seed {seed}", client, dice.randrange(len(client.script)))
    elif seed % OFTEN == 2:
        _packets_everywhere(broken, f"packets of seed {seed}", PacketWorld(name), dice)
    elif seed % OFTEN == 3:
        secured = StreamWorld(name, dice.choice(VERSIONS))
        _note(broken, f"streams of seed {seed} under TLS", secured.run)
        if seed % SELDOM == 3:
            everywhere(broken, f"streams of seed {seed} under TLS", secured, _small(secured, dice))
    return broken


def _small(world: StreamWorld, dice: random.Random) -> int:
    """One of its operations that moves few bytes."""
    small = [number for number, what in enumerate(world.script)
             if what.size < 1000 and (what.kind not in RECEIVES or RECEIVES[what.kind].interruptible)]
    return dice.choice(small) if small else 0


def _packets_everywhere(broken: list[str], label: str, world: PacketWorld, dice: random.Random) -> None:
    """Interrupts are for users; among the others the interpreter changes threads."""
    of_users = [number for number, act in enumerate(world.script) if act.kind in ("send", "close", "abort")]
    _note(broken, label, world.run)
    handled = world.handled[:WORK]
    kinds = dice.choice((("arrive", "read", "read", "work", "turn"), ("send", "turn", "write", "work")))
    if of_users:
        everywhere(broken, label, PacketWorld(world.name), dice.choice(of_users))
    for at in reversed(handled):
        everywhere(broken, f"{label}, with others", world, at, lambda place: world.others(kinds, place))


def everywhere(broken: list[str], label: str, world: SmallWorld, at: int,
               kind: Callable[[int], SignalStrike] = SignalStrike) -> None:
    """Have its call of number ``at`` struck at the first place, at the second and so on. Its script ends soon behind
    that."""
    del world.script[at + BEHIND:]
    place = 1
    while True:
        strike = kind(place)
        _note(broken, f"{label}, {world.script[at]} struck at place {place}", world.run, {at: strike})
        if not strike.struck:
            return
        place += 1 if place < MANY else STRIDE


def _note(broken: list[str], label: str, function: Callable[..., None], *arguments: Any) -> None:
    try:
        function(*arguments)
    except (Exception, Struck) as error:
        broken.append(f"{label}: {error}" if isinstance(error, AssertionError) else f"{label}: it has raised {error!r}")
