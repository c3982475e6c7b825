"""One client of a packet server that is none: its real `PacketService`, with the machine of its handler's steps, over a
connection that is none, and a loop and workers whose turns are dealt out. One seed decides how; in the midst of what
one thread does another one may come, wherever the interpreter changes threads."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import pytest
from support.channels import READ, WRITE, Loop, as_any
from support.homes import Home
from support.strikes import SignalStrike, Strike, Struck

from netmsg import ClosedError, ConnectionBrokenError, LineCodec, PacketDecodeError, SendTimeoutError
from netmsg.reactor.handshaking import PendingHandshakes
from netmsg.servers import alarm, patience, starting_tls
from netmsg.servers.handlers import FunctionHandler, GeneratorHandler
from netmsg.servers.packet_home import Terms, TLSTerms
from netmsg.servers.packet_server import PacketConnection
from netmsg.servers.packet_service import PacketService
from netmsg.servers.steps import OVER

from ..promises import promise
from .formats import FORMATS, stream_of, understood
from .wires import WireSocket, connect

__all__ = ["Act", "PacketWorld"]

ROUNDS: Final = 200
"""So many are enough for everything to come to its end, when nothing is in the way any more."""
LOOP, WORKER, USER = "the loop", "a worker", "the user"
ACTS: Final = {"read": LOOP, "write": LOOP, "turn": LOOP, "time": LOOP, "stop": LOOP, "work": WORKER, "send": USER,
               "close": USER, "abort": USER, "arrive": "", "end": "", "reset": ""}
"""Who does what; the last ones are the other end's."""
RARELY: Final = ("stop", "close", "abort", "end", "reset")


@dataclass(frozen=True)
class Act:
    kind: str
    amount: int = 0
    meanwhile: tuple[str, ...] = ()
    """What others do in the midst of it."""
    place: int = 1
    """After so many looks of the interpreter's for somebody else."""

    def __str__(self) -> str:
        others = ", ".join(self.meanwhile)
        return f"{self.kind}, and {others} at place {self.place}" if others else self.kind


class SmallHome(Home):
    """The server."""

    def _check_process(self) -> None:
        """It is still this one."""


class PacketWorld:
    """``name`` is its seed."""

    def __init__(self, name: str) -> None:
        dice = random.Random(name)
        self.name = name
        self.format = FORMATS[dice.choice([*FORMATS])]
        self._count = dice.choice((3, 10, 30))
        self._workers = dice.random() < 0.7
        self._converses = dice.random() < 0.5
        self._in_steps = dice.random() < 0.3
        self._mark = dice.choice((30, 300, 100_000))
        self._idle = dice.choice((None, None, 2.0))
        self._answers = dice.choice(((0,), (0, 10, 5_000), ()))  # of which sizes, one after the other
        self.script = [*self._draw(dice)]

    def _draw(self, dice: random.Random) -> Iterator[Act]:
        kinds = ["arrive", "arrive", "read", "read", "write", "turn", "turn", "time", "send"]
        others = ["read", "write", "turn", "turn", "send", "time"]
        if self._workers:
            kinds += ["work"] * 4
            others += ["work"] * 4
        for _ in range(dice.choice((10, 30, 60))):
            kind = dice.choice(RARELY) if dice.random() < 0.015 else dice.choice(kinds)
            meanwhile = []
            if ACTS[kind] == USER and dice.random() < 0.3:
                meanwhile = ["interrupt"]
            elif ACTS[kind] and dice.random() < 0.5:
                for _ in range(dice.choice((1, 1, 3))):
                    other = "close" if dice.random() < 0.02 else dice.choice(others)
                    if not ACTS[other] == LOOP == ACTS[kind]:
                        meanwhile.append(other)
            yield Act(kind, dice.choice((1, 3, 20, 200, 3_000)), tuple(meanwhile),
                      dice.randint(1, 60))

    # What happens

    def run(self, strikes: Mapping[int, Strike] = {}) -> None:
        """Raises `BrokenPromise`. ``strikes``: in which of its acts; interrupts, in those of users
        alone."""
        with pytest.MonkeyPatch.context() as patch:
            self._begin(patch)
            for number, act in enumerate(self.script):
                before = len(self.heard)
                self._perform(act, strikes.get(number))
                if act.kind == "work" and len(self.heard) > before:
                    self.handled.append(number)
            self._finish()
        self._check()

    def _begin(self, patch: pytest.MonkeyPatch) -> None:
        dice = random.Random(f"{self.name}/wires")
        self._loop = Loop()
        for module in (alarm, patience, starting_tls):
            patch.setattr(module, "time", self._loop)
        self.home = SmallHome()
        self.sock: WireSocket = connect(dice)[0]
        self._coming = stream_of(self.format, dice, self._count)
        self.heard: list[Any] = []
        self.handled: list[int] = []
        """In which acts a worker has handed out packets."""
        self.ended: list[type[Exception]] = []
        """What the handler was told in the end."""
        self.accepted: list[str] = []
        """Answers, and what else was sent."""
        self.doubtful: list[str] = []
        """Those that may have gone, though their sending was interrupted, or refused."""
        self.cut_short = False
        """Whether this side has closed, or the connection was reset."""
        self.dropped = False
        """Whether what was sent may be."""
        self._inside = self._overlaps = False
        terms = Terms(io=as_any(self._loop), encode=LineCodec().encode, decoder=self.format.codec.decoder,
                      decodes_in_steps=self._in_steps and self._workers, has_workers=self._workers,
                      tasks=self.home.tasks if self._workers else (), idle_timeout=self._idle,
                      send_hwm_bytes=self._mark, send_timeout=8.0,
                      handshakes=PendingHandshakes(self._loop.machine.readable))
        self.service: PacketService[str] = PacketService(self.home, terms, TLSTerms(None, True, True, 10.0),
                                                         as_any(self.sock), ("there", 1))
        self.client: PacketConnection[str] = PacketConnection(as_any(self.home), self.service)
        self.service.client = self.client
        self.service.steps.handler = GeneratorHandler(self._converse, self.client) if self._converses \
            else FunctionHandler(self._hear, self.client)
        self.service._start()

    def _perform(self, act: Act, strike: Strike | None) -> None:
        """Whoever is interrupted closes again, but does not send again."""
        try:
            with strike or self._in_the_midst(act):
                self._as(act.kind, act.amount)
        except Struck:
            if act.kind in ("close", "abort"):
                self._as(act.kind)
        self._check_queue()

    def _in_the_midst(self, act: Act) -> AbstractContextManager[object]:
        if "interrupt" in act.meanwhile:
            return SignalStrike(act.place)
        return self.others(act.meanwhile, act.place) if act.meanwhile else nullcontext()

    def others(self, kinds: Sequence[str], place: int) -> SignalStrike:
        """Others do these, one after the other, at the ``place``-th look of the interpreter's for them."""
        def come_in(where: str) -> None:
            if self.service.queue.lock.locked():
                strike.left = 1  # who has it goes on first
                return
            for kind in kinds:
                self._as(kind, who="other")

        strike = SignalStrike(place, come_in)
        return strike

    def _as(self, kind: str, amount: int = 20, who: str = "user") -> None:
        """Do it, as the thread whose business it is."""
        loop = self._loop
        before = loop.is_current, loop.ident
        if ACTS[kind] in (WORKER, USER):
            loop.is_current, loop.ident = False, -1
        try:
            self._do(kind, amount, who)
        finally:
            loop.is_current, loop.ident = before

    def _do(self, kind: str, amount: int, who: str) -> None:
        if kind == "arrive":
            self.sock.incoming.taken += self._coming[:amount]
            self._coming = self._coming[amount:]
        elif kind == "end":
            self.sock.incoming.ended = True
            self._coming = b""
        elif kind == "reset":
            self._coming = b""
            self.cut_short = self.dropped = True
            self.sock.be_reset()
        elif kind == "read":
            self._tell(READ)
        elif kind == "write":
            self._tell(WRITE)
        elif kind == "turn":
            self._loop.run()
        elif kind == "time":
            self._loop.advance(amount / 100)
        elif kind == "work":
            if self.home.tasks:
                self.home.tasks.pop(0)()
        elif kind == "send":
            self._send(f"{who} {len(self.accepted)} {len(self.doubtful)} " + "s" * amount)
        elif kind == "stop":
            self.cut_short = True
            self.home._stopping = self.home._finishing = True
            self.service._finish()
        elif kind == "close":
            self.cut_short = True
            self.client.close()
        else:
            self.cut_short = self.dropped = True
            self.client.abort()

    def _tell(self, event: int) -> None:
        """What the selector would."""
        if not self.sock.closed and self.sock.ready & event:
            self._loop.tell(self.sock, event)

    # The handler

    def _hear(self, client: Any, packet: Any) -> None:
        self._overlaps = self._overlaps or self._inside
        self._inside = True
        self.heard.append(packet)
        assert client.remote_address == ("there", 1)  # which asks the library: somebody else may come in between
        if self._answers:
            self._send(f"handler {len(self.heard)} " + "a" * self._answers[len(self.heard) % len(self._answers)])
        self._inside = False

    def _send(self, text: str) -> None:
        try:
            self.client.send_packet(text, timeout=0)
        except SendTimeoutError:
            return
        except (ClosedError, ConnectionBrokenError):
            self.doubtful.append(text)  # it may have been closed, or broken, by the time it had gone
            return
        except Struck:
            self.doubtful.append(text)
            raise
        self.accepted.append(text)

    def _converse(self, client: Any) -> Generator[Any, Any, None]:
        while True:
            try:
                packet = yield
            except TimeoutError:
                continue
            except PacketDecodeError:
                self._hear(client, "bad")
            except Exception as error:
                self.ended.append(type(error))
                return
            else:
                self._hear(client, packet)

    # The end

    def _finish(self) -> None:
        """Nothing is in the way any more: all comes to its end, and nobody is given up for being slow."""
        slow = self.home.told.count("slow")
        self.sock.incoming.go_easy()
        self.sock.outgoing.go_easy()
        if not self.sock.incoming.ended and not self.sock.is_reset:
            self._as("arrive", 1 << 20)
            self._as("end")
        for _ in range(ROUNDS):
            for kind in ("turn", "read", "write", "work"):
                self._as(kind)
            if self.home.told[-1:] == ["gone"] and not (self.home.tasks or self._loop.calls):
                break
            self._loop.advance(0.3)
        promise("everything comes to its end", "gone" in self.home.told and self.home.told.count("slow") == slow,
                "%s, the server was told %s", self.service.steps.state, self.home.told)

    def _check_queue(self) -> None:
        queue = self.service.queue
        if queue.failure is None:
            waiting = sum(map(len, queue.buffers)) + sum(map(len, queue.later or ()))
            promise("what waits is counted", queue.size == waiting, "%d bytes are said to wait, and %d do", queue.size,
                    waiting)

    def _check(self) -> None:
        home, service = self.home, self.service
        given_up = bool({"slow", "idle", "blocked"} & {told for told in home.told if isinstance(told, str)})
        promise("steps never overlap", not self._overlaps, "a packet was handed to a handler that was at another one")
        packets, _ = understood(self.format, bytes(self.sock.incoming.taken))
        if not self._converses and "bad" in packets:
            packets = packets[:packets.index("bad")]
        promise("each packet once, in order", self.heard == packets[:len(self.heard)],
                "%r was heard, and %r sent", self.heard, packets)
        if not (self.cut_short or given_up):
            promise("each packet once, in order", self.heard == packets, "%r was heard, and %r sent", self.heard,
                    packets)
            if self._converses:
                promise("the end is told", len(self.ended) == 1, "the handler was told %s", self.ended)
        promise("the end is told", len(self.ended) <= 1, "the handler was told %s", self.ended)
        wrong = [told for told in home.told if told not in ("slow", "idle", "gone", "bad packet")
                 and told != (PacketDecodeError, True)]
        promise("nothing fails inside", not wrong, "the server was told %s", wrong)
        promise("nothing is left behind", home.told.count("gone") == 1 and service.steps.state is OVER
                and self.sock.closed and not self._loop.pending and not service.steps.packets,
                "%s, told %s, timers %s", service.steps.state, home.told, self._loop.pending)
        self._check_answers(given_up)

    def _check_answers(self, given_up: bool) -> None:
        lines = bytes(self.sock.outgoing.taken).decode().split("\n")
        last = lines.pop()
        promise("what was sent arrives whole", not last or self.dropped or given_up, "half of one has gone: %r", last)
        arrived = [line for line in lines if line in self.doubtful]
        promise("what was sent arrives whole", len(arrived) == len({*arrived}), "%r has arrived twice", arrived)
        for who in ("handler", "user", "other"):
            sent = [line for line in self.accepted if line.startswith(who)]
            got = [line for line in lines if line.startswith(who) and line not in arrived]
            if self.dropped or given_up:
                sent = sent[:len(got)]
            promise("what was sent arrives whole", got == sent, "%r was sent, and %r arrived", sent, got)
