"""What the promises look at that no user can see. All of it is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netmsg import Receipt, Søcket

    from .program import Program

__all__ = ["given_up", "left_behind", "received", "waiting_to_be_taken"]


def received(one: Søcket[Any]) -> set[bytes]:
    """The identities that hold a part of the receive marks."""
    return set(one._engine.receiver._accounts._accounts)


def waiting_to_be_taken(one: Søcket[Any]) -> int:
    """Messages received that no user has been handed."""
    inbox = one._inbox
    return sum(len(batch.queue) for batch in (inbox.last, *inbox._batches))


def given_up(receipt: Receipt) -> str:
    """Why."""
    return receipt._failed


def left_behind(program: Program) -> list[str]:
    """What a program still has that has closed all of its Søckets."""
    found = []
    machine = program.machine
    reactor = machine.reactor
    timers = [timer for _, _, timer in reactor.timers if timer.function is not None]
    if timers:
        found.append(f"{len(timers)} timers, such as {timers[0].function}")
    if machine.poller.watched:
        found.append(f"{machine.poller.watched} watched descriptors")
    if machine.host.descriptors:
        found.append(f"{len(machine.host.descriptors)} descriptors")
    if reactor.work or len(reactor.calls) > (0 if machine.rounds else 1):  # of one that was never begun with
        found.append(f"work: {[*reactor.work, *reactor.calls]}")
    if reactor._users:
        found.append("users of the network thread")
    for user in program.users:
        engine = user.socket._engine
        for name, there in (("messages", engine.sender.router.unplaced),
                            ("unacknowledged messages", engine.sender.ledger.outstanding),
                            ("resends", engine.sender.ledger._resends),
                            ("peers", engine.connections.open or engine.connections.handshaking),
                            ("a ring", engine.sender.router.ring)):
            if there:
                found.append(f"{name} of {user.name}")
    return found
