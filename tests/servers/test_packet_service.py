"""What joins the parts of one client's connection, with a loop, a network and a server of the test's own."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import Any

import pytest
from support.channels import READ, WRITE, Loop, Script, Socket, as_any
from support.homes import Home

from netmsg import ClosedError, ConnectionBrokenError, EndOfStream, LineCodec, TLSHandshakeError
from netmsg.reactor.handshaking import PendingHandshakes
from netmsg.servers import alarm, patience, starting_tls
from netmsg.servers.handlers import FunctionHandler, GeneratorHandler
from netmsg.servers.packet_home import Terms, TLSTerms
from netmsg.servers.packet_service import PacketService
from netmsg.servers.starting_tls import Upgrade
from netmsg.servers.steps import OVER, RESTING, STEPPING

MARK = 1000


class Case:
    """A client, its handler and its server."""

    def __init__(self, *incoming: bytes | OSError, handler: Any = None, conversation: Any = None, workers: bool = False,
                 idle_timeout: float | None = None, room: int | None = None, user_codec: bool = False) -> None:
        self.loop = Loop()
        self.home = Home()
        self.script = Script(*incoming, room=room)
        self.sock = Socket(self.script)
        self.heard: list[Any] = []
        codec = LineCodec()
        terms = Terms(io=as_any(self.loop), encode=codec.encode, decoder=codec.decoder, decodes_in_steps=user_codec,
                      has_workers=workers, tasks=self.home.tasks if workers else (), idle_timeout=idle_timeout,
                      send_hwm_bytes=MARK, send_timeout=8.0, handshakes=PendingHandshakes(self.loop.machine.readable))
        self.service: PacketService[str] = PacketService(self.home, terms, TLSTerms(None, True, True, 10.0),
                                                         as_any(self.sock), ("there", 1))
        self.service.client = self
        self.service.steps.handler = GeneratorHandler(conversation, self) if conversation is not None \
            else FunctionHandler(handler or (lambda client, packet: client.heard.append(packet)), self)
        self.service._start()
        self.loop.run()

    def send(self, data: bytes) -> None:
        """As the handler does."""
        service = self.service
        if service.runner.corked:
            service.queue.put_aside(data)
        elif service.queue.put(data) and service.queue.blocked:
            self.loop.call(service.look)

    def work(self) -> None:
        """Have a worker do what there is to be done."""
        while self.home.tasks:
            self.home.tasks.pop(0)()
            self.loop.run()

    def read(self) -> bool:
        return self.loop.tell(self.sock, READ)

    @property
    def events(self) -> int:
        return self.loop.events(self.sock)


def by(monkeypatch: pytest.MonkeyPatch, case: Case) -> Case:
    """By the clock of its loop."""
    for module in (alarm, patience, starting_tls):
        monkeypatch.setattr(module, "time", case.loop)
    return case


def echo(client: Any, packet: str) -> None:
    client.send(packet.encode() + b"\n")


def listen(client: Any) -> Generator[Any, Any, None]:
    while True:
        try:
            client.heard.append((yield))
        except Exception as error:
            client.heard.append(type(error))
            if not isinstance(error, TimeoutError):
                return


# From packet to answer

@pytest.mark.parametrize("workers", [True, False])
def test_packets_are_handled_and_answers_sent(workers: bool) -> None:
    case = Case(b"one\ntw", b"o\n", handler=echo, workers=workers)
    assert case.events == READ
    case.read()
    case.work()
    case.read()
    case.work()
    assert case.script.sent == b"one\ntwo\n"
    assert case.service.packets_received == case.service.packets_sent == 2
    assert case.events == READ and not case.loop.calls


def test_what_a_step_on_the_loop_sends_goes_all_at_once() -> None:
    sizes: list[int] = []

    def twice(client: Any, packet: str) -> None:
        echo(client, packet)
        echo(client, packet)
        sizes.append(len(client.script.sent))

    case = Case(b"one\n", handler=twice)
    case.read()
    assert sizes == [0] and case.script.sent == b"one\none\n"


def test_what_comes_during_a_step_is_received_once_and_handled_after_it() -> None:
    case = Case(b"one\n", b"two\n", b"three\n", workers=True)
    for _ in range(3):
        case.read()
    assert case.service.steps.unread == [b"two\n"] and case.events == 0
    case.work()
    case.read()
    case.work()
    assert case.heard == ["one", "two", "three"] and case.events == READ


def test_what_a_users_codec_makes_of_it_is_for_a_worker_to_find_out() -> None:
    case = Case(b"one\n", workers=True, user_codec=True)
    case.read()
    assert case.service.steps.unread == [b"one\n"] and len(case.home.tasks) == 1
    case.work()
    assert case.heard == ["one"]


def test_what_the_end_is_to_a_users_codec_is_for_a_worker_to_find_out_too() -> None:
    case = Case(b"one\n", b"", workers=True, user_codec=True)
    case.read()
    case.work()
    case.read()
    assert case.service.steps.ending is None and len(case.home.tasks) == 1
    case.work()
    assert isinstance(case.service.steps.ending, EndOfStream)
    assert case.home.told[-1:] == ["gone"]


def test_a_conversation_begins_in_a_step_of_its_own() -> None:
    case = Case(b"one\n", conversation=listen, workers=True)
    assert not case.service.established
    case.read()
    case.work()
    assert case.service.established and case.heard == ["one"]


def test_a_client_whose_conversation_waits_for_a_worker_is_said_goodbye_to_when_the_server_stops() -> None:
    case = Case(conversation=listen, workers=True)
    case.home._stopping = case.home._finishing = True
    case.service._finish()
    case.loop.run()
    assert case.script.ended and case.home.told == ["gone"]
    case.work()
    assert case.heard == [] and case.home.told == ["gone"]


def test_nor_does_it_begin_when_a_worker_comes_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    case = by(monkeypatch, Case(conversation=listen, workers=True))
    case.home._stopping = case.home._finishing = True
    case.loop.machine.missing = 1
    case.service._finish()
    case.work()
    assert case.heard == [] and case.home.told == [] and case.script.ended
    case.loop.machine.missing = 0
    case.loop.advance(1.0)
    assert case.heard == [] and case.home.told == ["gone"]


# Above the mark

def test_a_client_above_its_mark_is_neither_read_nor_handled_until_it_has_room() -> None:
    def answer(client: Any, packet: str) -> None:
        client.heard.append(packet)
        client.send(bytes(MARK))

    case = Case(b"one\ntwo\n", b"three\n", handler=answer, room=0, workers=True)
    case.read()
    case.work()
    assert case.heard == ["one"] and case.events == WRITE
    assert case.loop.pending  # it has its time
    for _ in range(2):
        case.script.room = MARK
        case.loop.tell(case.sock, WRITE)
        case.work()
    case.read()
    case.work()
    assert case.heard == ["one", "two", "three"]


def test_and_it_is_closed_when_it_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = by(monkeypatch, Case(b"one\ntwo\n", handler=lambda client, packet: client.send(bytes(MARK)), room=0))
    case.read()
    case.loop.advance(9.0)
    assert case.home.told == ["slow", "gone"] and case.sock.closed


# Time

@pytest.mark.parametrize("conversation", [None, listen])
def test_who_is_silent_for_too_long_is_closed_or_the_handler_hears_of_it(conversation: Any,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    case = by(monkeypatch, Case(b"one\n", conversation=conversation))
    object.__setattr__(case.service.terms, "idle_timeout", 5.0)
    case.loop.advance(3.0)
    case.read()
    case.loop.advance(4.9)
    assert case.heard == ["one"] and case.home.told == []
    case.loop.advance(0.2)
    if conversation is None:
        assert case.home.told == ["idle", "gone"]
    else:
        assert case.heard == ["one", TimeoutError] and case.home.told == []


def test_what_has_come_by_then_is_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(client: Any) -> Generator[Any, Any, None]:
        client.heard.append((yield 1.0))
        client.heard.append((yield 1.0))

    case = by(monkeypatch, Case(conversation=begin))
    case.script.incoming.append(b"just\n")
    case.service.runner.alarm.expect(1.0)
    case.service.look()
    case.loop.advance(1.0)
    assert case.heard == ["just"]


# The end

@pytest.mark.parametrize("workers", [True, False])
def test_the_end_of_the_client_is_the_end_once_its_packets_are_handled(workers: bool) -> None:
    case = Case(b"one\n", b"", handler=echo, workers=workers)
    case.read()
    case.read()
    case.work()
    case.loop.run()
    assert case.script.sent == b"one\n" and case.script.ended and case.sock.closed
    assert case.home.told == ["gone"] and case.service.steps.state is OVER
    assert case.loop.pending == []


def test_a_broken_connection_is_heard_of_and_no_goodbye_is_said() -> None:
    case = Case(b"one\n", ConnectionResetError(), conversation=listen)
    case.read()
    case.read()
    assert case.heard == ["one", ConnectionBrokenError]
    assert not case.script.ended and case.sock.closed and case.home.told == ["gone"]


def test_closing_waits_until_all_has_gone() -> None:
    case = Case(b"one\n", handler=lambda client, packet: client.send(bytes(100)), room=10)
    case.read()
    case.service.close()
    case.loop.run()
    assert not case.script.ended and case.events == WRITE and case.service.closed
    case.script.room = None
    case.loop.tell(case.sock, WRITE)
    assert case.script.sent == bytes(100) and case.script.ended and case.sock.closed
    assert case.home.told == ["gone"]


def test_aborting_does_not() -> None:
    case = Case(b"one\n", handler=lambda client, packet: client.send(bytes(100)), room=10)
    case.read()
    case.service.abort()
    case.loop.run()
    assert not case.script.ended and case.sock.closed and case.home.told == ["gone"]


def test_a_step_under_way_is_told_when_it_has_ended() -> None:
    case = Case(b"one\n", conversation=listen, workers=True)
    case.work()
    case.read()
    case.service._cut()
    case.loop.run()
    assert case.sock.closed and case.home.told == [] and case.service.steps.state is STEPPING
    case.work()
    assert case.heard == [ClosedError] and case.home.told == ["gone"]


def test_who_is_cut_before_its_handler_has_begun_is_gone_at_once() -> None:
    case = Case(conversation=listen, workers=True)
    case.service._cut()
    assert case.home.told == ["gone"]
    case.work()
    assert case.heard == [] and case.service.steps.state is OVER


def test_a_server_that_stops_closes_who_is_idle_and_handles_what_has_come() -> None:
    idle, busy = Case(workers=True), Case(b"one\ntwo\nhalf", b"not read\n", workers=True)
    busy.read()
    for case in (idle, busy):
        case.home._stopping = case.home._finishing = True
        case.service._finish()
        case.loop.run()
    assert idle.home.told == ["gone"] and busy.home.told == []
    busy.work()
    assert busy.heard == ["one", "two"] and busy.home.told == ["gone"]


def test_a_goodbye_that_is_never_taken_is_the_end_of_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    case = by(monkeypatch, Case(b"bye\n", handler=lambda client, packet: client.service.close()))
    case.loop.machine.missing = 1
    case.read()
    case.loop.advance(7.5)
    assert case.home.told == [] and case.script.ended
    case.loop.advance(1.0)
    assert case.home.told == ["slow", "gone"]


def test_a_step_that_fails_on_the_loop_ends_this_one_alone() -> None:
    case = Case()
    for crashed in (case.service.channel._crashed, case.service.backpressure._crashed, case.service.runner._crashed):
        crashed(ValueError())
    case.loop.run()
    assert case.sock.closed and case.home.told == ["gone"]


def test_in_a_forked_child_only_the_copy_is_closed() -> None:
    case = Case()
    case.service._abandon()
    assert case.sock.closed and case.service.closed and case.home.told == []


# STARTTLS

class Starting:
    """A handler that has asked for TLS, on the loop, with a handshake of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *steps: Any, room: int | None = None) -> None:
        self.case = by(monkeypatch, Case(b"STARTTLS\n", handler=self.handle, room=room))
        self.other = Script(handshake=list(steps))

    def handle(self, client: Any, packet: str) -> None:
        client.heard.append(packet)
        if packet == "STARTTLS":
            service = client.service
            client.send(b"go ahead\n")
            service._upgrade = Upgrade(service.channel, service.queue, service.steps, as_any(self.other), 5.0,
                                       service._upgrade_is_too_slow)
            service._upgrade.begin()
            client.send(b"secret\n")
            client.loop.call(service.look)


def test_what_was_sent_before_goes_in_the_clear_and_the_rest_after_the_handshake(
        monkeypatch: pytest.MonkeyPatch) -> None:
    starting = Starting(monkeypatch, BlockingIOError(), None, room=3)
    case, steps = starting.case, starting.case.service.steps
    case.read()
    assert case.script.sent == b"go " and steps.upgrading and not case.service.channel.shaking
    case.script.room = None
    case.loop.tell(case.sock, WRITE)
    assert case.script.sent == b"go ahead\n" and case.service.channel.shaking and starting.other.sent == b""
    starting.other.incoming.append(b"under TLS\n")
    case.loop.tell(case.sock, READ)
    assert starting.other.sent == b"secret\n" and not steps.upgrading
    case.read()
    assert case.heard == ["STARTTLS", "under TLS"] and case.script.sent == b"go ahead\n"
    assert case.loop.pending == []


def test_a_handshake_that_fails_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    starting = Starting(monkeypatch, TLSHandshakeError("no"))
    starting.case.read()
    assert starting.case.home.told == ["handshake failed", "gone"] and starting.other.sent == b""


@pytest.mark.parametrize("room", [3, None])
def test_and_so_is_one_that_takes_too_long(room: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    starting = Starting(monkeypatch, BlockingIOError(), None, room=room)
    starting.case.read()
    starting.case.loop.advance(4.9)
    assert starting.case.home.told == []
    starting.case.loop.advance(0.2)
    assert starting.case.home.told == ["handshake failed", "gone"] and starting.case.loop.pending == []


def test_a_client_hello_that_did_not_wait_is_for_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    starting = Starting(monkeypatch, BlockingIOError(), None, room=3)
    starting.case.read()
    starting.case.service.steps.unread.append(b"ClientHello")
    starting.case.script.room = None
    starting.case.loop.tell(starting.case.sock, WRITE)
    assert list(starting.other.incoming) == [b"ClientHello"] and not starting.case.service.steps.unread


def test_workers_go_on_where_the_loop_has_left_off_whatever_thread_they_are() -> None:
    case = Case(b"one\n", b"two\n", handler=echo, workers=True)
    for _ in range(2):
        case.read()
        worker = threading.Thread(target=case.home.tasks.pop())
        worker.start()
        worker.join(10)
        case.loop.run()
    assert case.script.sent == b"one\ntwo\n" and case.service.steps.state is RESTING
    assert case.service.runner.thread is None
