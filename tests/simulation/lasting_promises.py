"""The promises of what outlives a program: each a function that raises `BrokenPromise`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .promises import BrokenPromise, lost_behind, partners, promise, why

if TYPE_CHECKING:
    from .world import World

__all__ = ["AT_REST", "AT_THE_END", "BrokenPromise"]


def nothing_stored_is_lost(world: World) -> None:
    """With an outbox what `send` has accepted is delivered, whoever has died since, if there is somebody to take it;
    but for what a disk loses that was not to be waited for."""
    users = {user.name: user for user in world.users if user.closing_since is None}
    for sent in world.journal.sent.values():
        user = users.get(sent.sender)
        if not sent.is_stored or user is None:
            continue
        there = partners(world, user)
        if not there or (sent.to is not None and sent.to not in there):
            continue
        if sent.receipt is not None and sent.receipt.failed and "resends" in why(sent.receipt):
            continue
        if user.life > sent.life and user.tenant.option("max_resends") is not None and user.socket.stats().undelivered:
            continue  # a later life may have given it up, of which its receipt knows nothing
        forgetful = user.tenant.option("outbox_sync") == "normal" and user.program.host.disk.lost
        promise("nothing stored is lost", sent.deliveries or forgetful or lost_behind(world, sent),
                "%s was stored, and nobody got it", sent)


def nothing_remembered_comes_again(world: World) -> None:
    """With a memory a message is not handed over that an earlier life had noted."""
    promise("nothing remembered comes again", not world.journal.again, "to %s came %s, which it had had",
            *(world.journal.again or [("", "")])[0])


def no_file_stays_open(world: World) -> None:
    """After `close` nobody has a file open."""
    for host in world.network.hosts.values():
        still = [path for path, owner in host.disk.owners.items() if not owner.dead]
        promise("no file stays open", not still, "%s has %s open", host.name, still)


AT_REST: Final = (nothing_stored_is_lost, nothing_remembered_comes_again)
AT_THE_END: Final = (nothing_remembered_comes_again, no_file_stays_open)
