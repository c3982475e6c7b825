"""The check of the checks: engines that were broken deliberately, by a line or two, and the promise that tells."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from netmsg.errors import QueueFullError
from netmsg.messaging import overflow
from netmsg.messaging.accounts import Accounts
from netmsg.messaging.closing import Closing
from netmsg.messaging.credit import Credit
from netmsg.messaging.delivery import Arrivals, Due, Ledger, Sorted
from netmsg.messaging.events import Connected, EventQueue
from netmsg.messaging.greeting import Greeting
from netmsg.messaging.inbox import Inbox
from netmsg.messaging.kept import Kept
from netmsg.messaging.lane import Lane
from netmsg.messaging.losses import Losses
from netmsg.messaging.overflow import Overflow
from netmsg.messaging.peers import Peer
from netmsg.messaging.population import Population
from netmsg.messaging.receiving import Receiver
from netmsg.messaging.reconnecting import Endpoint
from netmsg.messaging.remembering import Remembering
from netmsg.messaging.requests import Requests
from netmsg.messaging.room import Room
from netmsg.messaging.routing import Router
from netmsg.messaging.sending import Sender
from netmsg.messaging.squeezing import Squeezed
from netmsg.messaging.storing import Storing
from netmsg.messaging.subscribing import Subscriptions
from netmsg.messaging.sweeping import Sweep
from netmsg.reactor.channel import Channel
from netmsg.storage.outbox import Change
from netmsg.wire.legacy import LegacyDecoder

from . import fine_print, lasting_promises, promises, talk_promises, world
from .lasting import FIRST as LASTING
from .lasting import draw_any
from .security import contexts
from .talk import FIRST as TALK
from .world import World, run

Patch = pytest.MonkeyPatch
SEEDS: Final = 500
"""Within so many each is to be found."""

FOUND_BY: Final[dict[str, tuple[int, ...]]] = {
    "what was sent is given back with the rest": (489,),
    "what is given back goes behind the newer": (147,),
    "whoever comes is let in": (44,),
    "what a peer has not acknowledged goes with it": (73,),
    "what was sent counts as acknowledged": (73,),
    "the newest is dropped for the oldest": (193,),
    "the oldest is dropped for the newest": (443,),
    "a handshake has no deadline": (51,),
    "nothing is sent again": (49, 96),
    "closing does not linger": (14,),
    "resends come too early": (206,),
    "replies are not sent": (100_056,),
    "what waits to be taken is kept for the newest": (100_132,),
    "a proxy acknowledges what is on its way": (100_136,),
    "what is noted is not looked for": (200_140, 200_309),
}
"""Where to look first, of those that few worlds find."""
MUTANTS: Final[dict[str, tuple[str, Callable[[Patch], None], int]]] = {}
"""By name: the promise that it breaks, how the engine is broken, and the first seed to look at."""


def mutant(promise: str, first: int = 0) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def add(function: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS[function.__name__.replace("_", " ")] = promise, function, first
        return function

    return add


@mutant("marks hold")
def the_receive_mark_is_not_looked_at(patch: Patch) -> None:
    patch.setattr(Credit, "room", lambda self, past_mark=False: 1 << 40)


@mutant("marks hold")
def the_send_mark_is_not_looked_at(patch: Patch) -> None:
    patch.setattr(Router, "waiting_has_room", lambda self: True)
    patch.setattr(Router, "has_room", lambda self, lane, once=False: True)


@mutant("everybody is connected")
def a_lost_connection_is_not_dialled_again(patch: Patch) -> None:
    patch.setattr(Endpoint, "_wait", lambda self, *why: None)


@mutant("everybody is connected")
def nobody_says_that_he_is_alive(patch: Patch) -> None:
    patch.setattr(Peer, "heartbeat", lambda self: None)


@mutant("everything arrives")
def nothing_is_sent_again(patch: Patch) -> None:
    patch.setattr(Ledger, "due", lambda self, lane, now: [])
    patch.setattr(Ledger, "begin_anew", lambda self, message_id, now: False)


@mutant("everything arrives")
def what_waits_is_not_handed_to_who_has_room(patch: Patch) -> None:
    patch.setattr(Router, "refill", lambda self, lane: [])


@mutant("everything arrives")
def a_full_peer_is_not_read_again(patch: Patch) -> None:
    patch.setattr(Accounts, "taken_from", lambda self, credit: None)
    patch.setattr(Sweep, "_look_at", lambda self, peer, now, late: None)


@mutant("nothing fails inside")
def a_step_raises(patch: Patch) -> None:
    patch.setattr(Router, "leave", lambda self, lane: 1 // 0)


@mutant("nothing comes from nowhere")
def a_message_loses_its_first_letter(patch: Patch) -> None:
    arrived = Receiver.one_arrived
    patch.setattr(Receiver, "one_arrived", lambda self, peer, payload: arrived(self, peer, payload[1:]))


@mutant("at most once")
def what_was_sent_is_given_back_with_the_rest(patch: Patch) -> None:
    taking_back = Lane.take_back

    def take_back(self: Lane) -> list[Any]:
        if self.writing is not None:
            self.writing.counts.clear()
        return taking_back(self)

    patch.setattr(Lane, "take_back", take_back)


@mutant("ids once a receiver")
def duplicates_are_not_known(patch: Patch) -> None:
    patch.setattr(Arrivals, "sort", lambda self, sender, ids, bodies: (
        self._held.setdefault(sender, set()).update(ids), Sorted(ids, bodies, [], 0))[1])


@mutant("in order")
def what_is_given_back_goes_behind_the_newer(patch: Patch) -> None:
    def put_back(self: Kept, messages: list[Any]) -> None:
        for message in messages:
            self.add(message)

    patch.setattr(Kept, "put_back", put_back)


@mutant("nothing reliable is lost")
def what_a_peer_has_not_acknowledged_goes_with_it(patch: Patch) -> None:
    patch.setattr(Lane, "take_unacked", lambda self: self.unacked.clear() or [])


@mutant("receipts are true")
def what_was_sent_counts_as_acknowledged(patch: Patch) -> None:
    leaving = Sender.leave

    def leave(self: Sender, peer: Peer) -> None:
        self.ledger.acknowledge([*peer.lane.unacked])
        peer.lane.unacked.clear()
        leaving(self, peer)

    patch.setattr(Sender, "leave", leave)


@mutant("receipts are true")
def what_is_taken_is_not_acknowledged(patch: Patch) -> None:
    patch.setattr(Receiver, "_send_acks", lambda self, sender, ids: None)


@mutant("everything is accounted for")
def drops_are_not_counted(patch: Patch) -> None:
    patch.setattr(Losses, "drop", lambda self, reason, count: None)


@mutant("everything arrives")
def a_message_is_lost_on_its_way_to_the_user(patch: Patch) -> None:
    arrived = Receiver.one_arrived
    patch.setattr(Receiver, "one_arrived", lambda self, peer, payload: (
        None if payload.endswith(b"3.") else arrived(self, peer, payload)))


@mutant("idling costs nothing")
def the_selector_tells_of_room_all_the_time(patch: Patch) -> None:
    watch = Channel.watch

    def watching(self: Channel) -> None:
        watch(self)
        if self.watched:
            self._ask_for(3)

    patch.setattr(Channel, "watch", watching)


@mutant("idling costs nothing")
def who_is_turned_away_is_not_told_by_whom(patch: Patch) -> None:
    patch.setattr(Population, "_introduce", lambda *whom: None)


@mutant("close ends in time")
def lingering_has_no_end(patch: Patch) -> None:
    begin = Closing._begin
    patch.setattr(Closing, "_begin", lambda self, linger: begin(self, float("inf")))


@mutant("nothing is left behind")
def what_is_being_dialled_is_forgotten(patch: Patch) -> None:
    patch.setattr(Endpoint, "_cancel", lambda self: None)


# The fine print

@mutant("only the invited are there")
def whoever_comes_is_let_in(patch: Patch) -> None:
    patch.setattr(Population, "judged", lambda self, peer, verdict, error: self._authorized(peer))


@mutant("a full queue does what was chosen")
def a_full_queue_drops_what_was_to_wait(patch: Patch) -> None:
    def wait(self: Room, draft: object, deadline: object) -> None:
        raise QueueFullError("full")

    patch.setattr(Room, "wait", wait)


@mutant("who goes was chosen")
def the_newest_is_dropped_for_the_oldest(patch: Patch) -> None:
    patch.setattr(overflow, "squeeze_in", lambda router, message, identity, dropped: Squeezed([], refused=True))


@mutant("who goes was chosen")
def the_oldest_is_dropped_for_the_newest(patch: Patch) -> None:
    newest = Overflow._drop_newest
    patch.setattr(Overflow, "_drop_newest", lambda self, draft, receipt: (
        newest(self, draft, receipt) if receipt is None else self._drop_oldest(draft)))


@mutant("events tell everything")
def nobody_hears_of_who_comes(patch: Patch) -> None:
    add = EventQueue.add
    patch.setattr(EventQueue, "add", lambda self, event: None if isinstance(event, Connected) else add(self, event))


@mutant("everybody has his turn")
def the_first_with_room_gets_everything(patch: Patch) -> None:
    patch.setattr(Router, "turn", property(lambda self: 0, lambda self, turn: None), raising=False)


@mutant("what is published comes to all")
def one_subscriber_is_passed_over(patch: Patch) -> None:
    publish = Router.publish
    patch.setattr(Router, "publish", lambda self, message, lanes: publish(self, message, [*lanes][1:] or lanes))


@mutant("nothing is sent again for nothing")
def resends_come_too_early(patch: Patch) -> None:
    patch.setattr(Ledger, "due", lambda self, lane, now: [
        Due(message_id, not self.may_resend(message_id, now)) for message_id in lane.unacked])


@mutant("nobody is at the door")
def a_handshake_has_no_deadline(patch: Patch) -> None:
    patch.setattr(Greeting, "_too_slow", lambda self: None)


@mutant("close tells what it gave up")
def nothing_counts_as_given_up(patch: Patch) -> None:
    patch.setattr(Closing, "_given_up", property(lambda self: 0, lambda self, count: None), raising=False)


@mutant("close waits for what is on its way")
def closing_does_not_linger(patch: Patch) -> None:
    begin = Closing._begin
    patch.setattr(Closing, "_begin", lambda self, linger: begin(self, 0.0))


# Talk

@mutant("each gets its own answer", TALK)
def replies_go_to_whoever_has_asked_first(patch: Patch) -> None:
    patch.setattr(Requests, "_asked", lambda self, identity, correlation_id: next(
        (one for one in self._waiting.values() if not one.settled and one.lane is not None), None))


@mutant("who may answer does", TALK)
def replies_are_not_sent(patch: Patch) -> None:
    patch.setattr(Sender, "answer", lambda self, *arguments, **options: None)


@mutant("a request is served once", TALK)
def a_request_that_is_lost_is_asked_of_another(patch: Patch) -> None:
    patch.setattr(Requests, "lost", lambda self, lane: self.returned(
        [one.message for one in self._waiting.values() if one.lane is lane]))


@mutant("nothing is remembered of requests", TALK)
def what_is_over_is_kept(patch: Patch) -> None:
    patch.setattr(Requests, "over", lambda self, request: None)


@mutant("nothing comes unwanted", TALK)
def what_comes_is_not_looked_at(patch: Patch) -> None:
    patch.setattr(Subscriptions, "wants", lambda self, payload: True)


@mutant("the newest comes", TALK)
def what_waits_to_be_taken_is_kept_for_the_newest(patch: Patch) -> None:
    patch.setattr(Inbox, "replace", staticmethod(lambda batch, message, size: bool(batch.queue and batch.count)))


@mutant("the newest comes", TALK)
def what_waits_to_be_sent_is_kept_for_the_newest(patch: Patch) -> None:
    newest = Sender._send_newest
    patch.setattr(Sender, "_send_newest", lambda self, data, identity: (
        None if any(lane.queue for lane in self.router.ring) else newest(self, data, identity)))


@mutant("the old are understood", TALK)
def an_old_message_is_overheard(patch: Patch) -> None:
    sort = LegacyDecoder._sort
    patch.setattr(LegacyDecoder, "_sort", lambda self, body, runs: (
        0 if body.endswith(b".3.") else sort(self, body, runs)))


@mutant("receipts are true", TALK)
def a_proxy_acknowledges_what_is_on_its_way(patch: Patch) -> None:
    patch.setattr(Sender, "follow", lambda self, receipt, tell: tell(True))


@mutant("nothing stored is lost", LASTING)
def what_is_sent_is_told_and_not_written(patch: Patch) -> None:
    begin = Storing.begin

    def written_by_nobody(self: Storing, *arguments: Any, **options: Any) -> Any:
        sending = begin(self, *arguments, **options)
        if sending is not None:
            self._committer._urgent[-1] = self._committer._urgent[-1]._replace(  # type: ignore[attr-defined]
                change=Change((), ()))
        return sending

    patch.setattr(Storing, "begin", written_by_nobody)


@mutant("nothing remembered comes again", LASTING)
def what_is_noted_is_not_looked_for(patch: Patch) -> None:
    patch.setattr(Remembering, "look_for", lambda self, sender, message_ids, then: then(frozenset()))


@mutant("no file stays open", LASTING)
def an_outbox_is_not_closed(patch: Patch) -> None:
    patch.setattr(Storing, "close", lambda self: None)


@pytest.mark.untraced
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_engine_is_found_out(name: str, monkeypatch: Patch) -> None:
    promise, break_it, first = MUTANTS[name]
    break_it(monkeypatch)
    monkeypatch.setattr(world, "SETTLED_WITHIN", 60.0)  # what does not come then does not come later
    for seed in (*FOUND_BY.get(name, ()), *range(first, first + SEEDS)):
        if any(broken.name == promise for broken in run(World(draw_any(seed), contexts))):
            return
    pytest.fail(f"in {SEEDS} worlds nobody has noticed that {name}")


def test_each_promise_has_a_mutant() -> None:
    source = "".join(Path(file).read_text(encoding="utf-8")
                     for file in (promises.__file__, fine_print.__file__, talk_promises.__file__,
                                  lasting_promises.__file__))
    assert {promise for promise, _, _ in MUTANTS.values()} == set(re.findall(r'promise\("([a-z ]+)"', source))
