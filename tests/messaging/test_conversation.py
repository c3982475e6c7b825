"""Conversations: the thread that waits for a message reads the connection itself, and stops as soon as anything else
than one message at a time is going on."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support import loops
from support.forking import fork
from support.pairs import TIMEOUT, Background, connected, until, wait_for_event
from support.servers import said
from support.wire_peer import ACK, DATA, DATA_REQ, HEARTBEAT, WirePeer, dial, frame

from netmsg import ClosedError, DeliveryGuarantee, Disconnected, IOThread, Søcket
from netmsg.messaging import conversation as conversation_module
from netmsg.messaging.conversation import MOST, TURNS, Conversation
from netmsg.reactor.io_thread import reactor_of
from netmsg.waiting import Signal, Waiters

# By itself


class Loop(loops.Loop):
    """With what a conversation is about."""

    def __init__(self) -> None:
        super().__init__()
        self.conversation: Any = None
        self.waiters: Any = None
        self.answers = 0

    def answering(self) -> None:
        self.answers += 1


class Speaker:
    """A peer of which the test decides whether it may be lent, and whether what comes is a message."""

    def __init__(self, *, lendable: bool = True, heard: bool = True) -> None:
        self.sock, self.other = socket.socketpair()
        self.lendable = lendable
        self.heard = heard
        self.lent = False
        self.broken = False
        self.crash: type[Exception] | None = None

    def lend(self) -> bool:
        self.lent = self.lendable
        return self.lendable

    def take_back(self) -> None:
        self.lent = False
        if self.broken:
            raise ArithmeticError("on taking back")

    def _crashed(self, error: Exception) -> None:
        self.crash = type(error)

    def hear(self) -> bool:
        self.sock.recv(100)
        return self.heard

    def close(self) -> None:
        self.sock.close()
        self.other.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    loop.waiters = Waiters()
    loop.conversation = Conversation(loop, loop.waiters, loop.answering)  # type: ignore[arg-type]
    yield loop
    loop.conversation.end()
    del loop.conversation, loop.waiters


@pytest.fixture
def speaker() -> Iterator[Speaker]:
    speaker = Speaker()
    yield speaker
    speaker.close()


@pytest.fixture
def other() -> Iterator[Speaker]:
    other = Speaker()
    yield other
    other.close()


def talk(loop: Loop, speaker: Speaker, turns: int = TURNS) -> None:
    for _ in range(turns):
        loop.conversation.overhear(speaker)
    loop.run()


def test_it_begins_after_so_many_messages_in_a_row(loop: Loop, speaker: Speaker) -> None:
    talk(loop, speaker, TURNS - 1)
    assert loop.conversation.ticket() is None and not speaker.lent
    talk(loop, speaker, 1)
    assert loop.conversation.ticket() is loop.conversation and speaker.lent


def test_a_pause_begins_the_count_anew(loop: Loop, speaker: Speaker) -> None:
    talk(loop, speaker, TURNS - 1)
    loop.now += 1
    talk(loop, speaker, TURNS - 1)
    assert not speaker.lent


def test_anything_but_a_single_message_begins_the_count_anew(loop: Loop, speaker: Speaker) -> None:
    talk(loop, speaker, TURNS - 1)
    loop.conversation.interrupt()
    talk(loop, speaker, TURNS - 1)
    assert not speaker.lent


def test_with_two_threads_waiting_there_is_none(loop: Loop, speaker: Speaker) -> None:
    waiters = loop.waiters
    waiters.waiting.extend([threading.Lock(), threading.Lock()])
    talk(loop, speaker, 3 * TURNS)
    assert not speaker.lent


def test_a_peer_that_has_more_going_on_is_not_lent(loop: Loop, speaker: Speaker) -> None:
    speaker.lendable = False
    talk(loop, speaker)
    assert loop.conversation.ticket() is None


def test_the_waiting_thread_hears_messages_and_time_running_out(loop: Loop, speaker: Speaker) -> None:
    talk(loop, speaker)
    ticket = loop.conversation.ticket()
    assert not ticket.acquire(True, 0.0)
    speaker.other.send(b"message")
    assert ticket.acquire(True, -1) and loop.answers == 1 and not loop.calls


def test_what_is_not_a_message_is_for_the_network_thread(loop: Loop, speaker: Speaker) -> None:
    talk(loop, speaker)
    ticket = loop.conversation.ticket()
    speaker.heard = False
    speaker.other.send(b"something else")
    assert ticket.acquire(True, -1) and loop.answers == 0
    assert loop.conversation.ticket() is None  # from here on it is waited for as usual
    assert speaker.lent
    loop.run()
    assert not speaker.lent


def test_the_waiting_thread_is_woken_once(loop: Loop, speaker: Speaker) -> None:
    talk(loop, speaker)
    ticket = loop.conversation.ticket()
    ticket.release()
    with pytest.raises(RuntimeError):
        ticket.release()
    assert ticket.acquire(True, -1)
    assert not loop.conversation.ticket().acquire(True, 0.0)


def test_whom_an_interrupt_kept_from_waking_it_leaves_that_to_the_next(
        loop: Loop, speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(signal: Signal) -> None:
        raise KeyboardInterrupt

    talk(loop, speaker)
    ticket = loop.conversation.ticket()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Signal, "set", interrupted)
        ticket.release()
    with suppress(RuntimeError):
        ticket.release()
    assert ticket.acquire(True, 0.0)


def test_a_second_thread_ends_it(loop: Loop, speaker: Speaker) -> None:
    talk(loop, speaker)
    loop.waiters.waiting.append(loop.conversation.ticket())
    assert loop.conversation.ticket() is None
    loop.run()
    assert not speaker.lent


def test_it_ends_when_nothing_is_heard_any_more(loop: Loop, speaker: Speaker) -> None:
    talk(loop, speaker)
    speaker.other.send(b"message")
    loop.conversation.ticket().acquire(True, -1)
    loop.run_timer()
    assert speaker.lent
    loop.run_timer()
    assert not speaker.lent and not loop.timers and loop.conversation.ticket() is None


def test_whoever_waits_is_woken_at_the_end(loop: Loop, speaker: Speaker) -> None:
    talk(loop, speaker)
    ticket = loop.conversation.ticket()
    loop.waiters.waiting.append(ticket)
    loop.conversation.end()
    assert ticket.acquire(True, 0.0)


def test_who_begins_to_take_turns_joins_the_conversation(loop: Loop, speaker: Speaker, other: Speaker) -> None:
    talk(loop, speaker)
    talk(loop, other)
    assert speaker.lent and other.lent and len(loop.timers) == 1
    for number, one in enumerate((speaker, other, speaker), 1):
        one.other.send(b"message")
        assert loop.conversation.ticket().acquire(True, -1) and loop.answers == number
    loop.run_timer()
    loop.run_timer()
    assert not speaker.lent and not other.lent


def test_whoever_waits_is_woken_when_another_joins(loop: Loop, speaker: Speaker, other: Speaker) -> None:
    talk(loop, speaker)
    ticket = loop.conversation.ticket()
    loop.waiters.waiting.append(ticket)
    talk(loop, other)
    assert ticket.acquire(True, 0.0), "it would go on polling the first alone"


def test_a_conversation_of_many_is_none(loop: Loop) -> None:
    speakers = [Speaker() for _ in range(MOST + 1)]
    for one in speakers:
        talk(loop, one)
    assert not any(one.lent for one in speakers) and loop.conversation.ticket() is None
    for one in speakers:
        one.close()


def test_what_the_taker_has_left_is_taken_back_before_anything_new_begins(loop: Loop, speaker: Speaker,
                                                                          other: Speaker) -> None:
    talk(loop, speaker)
    for _ in range(TURNS):
        loop.conversation.overhear(other)
    speaker.heard = False
    speaker.other.send(b"something else")
    loop.conversation.ticket().acquire(True, -1)
    assert speaker.lent and len(loop.calls) == 2, "the beginning of the new, and the end of the old"
    loop.run()
    assert not speaker.lent and not other.lent


def test_without_a_descriptor_there_is_none(loop: Loop, speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(conversation_module, "Signal", none_left)
        talk(loop, speaker)
        assert not speaker.lent and loop.conversation.ticket() is None
    talk(loop, speaker)
    assert speaker.lent


@pytest.mark.parametrize("first", [True, False])
def test_a_peer_that_cannot_be_taken_back_keeps_nobody_else(loop: Loop, speaker: Speaker, other: Speaker,
                                                            first: bool, caplog: pytest.LogCaptureFixture) -> None:
    broken, sound = (speaker, other) if first else (other, speaker)
    broken.broken = True
    talk(loop, speaker)
    talk(loop, other)
    loop.conversation.end()
    assert not sound.lent and broken.crash is ArithmeticError and sound.crash is None
    said(caplog)
    caplog.clear()  # it keeps the traceback, and with it the conversation's descriptor


def test_a_step_that_fails_ends_the_conversation_and_nothing_else(loop: Loop, speaker: Speaker) -> None:
    talk(loop, speaker)
    loop.conversation._crashed(ArithmeticError())
    assert not speaker.lent and loop.conversation.ticket() is None


@pytest.mark.parametrize("timeout", [30 * 86400, 1e12])
def test_months_may_be_waited_for(loop: Loop, speaker: Speaker, timeout: float) -> None:
    talk(loop, speaker)
    speaker.other.send(b"message")
    assert loop.conversation.ticket().acquire(True, timeout)


def test_two_threads_never_share_the_ticket(loop: Loop, speaker: Speaker) -> None:
    """One has it and does not wait yet; the other would take its wake-ups."""
    talk(loop, speaker)
    assert loop.conversation.ticket() is not None
    assert Background(loop.conversation.ticket).result() is None
    loop.run()
    assert not speaker.lent


# With a Søcket, and peers of every kind


@pytest.mark.parametrize("way", ["tcp", "unix", "tls"])
def test_clients_that_come_one_after_the_other_and_take_turns_are_all_answered(
        way: str, tmp_path: Path, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """Each comes when the others are in the middle of their conversation."""
    server_context, client_context = tls_contexts if way == "tls" else (None, None)
    with Søcket(linger=0) as server:
        if way == "unix":
            server.bind_unix(tmp_path / "server")
        else:
            server.bind("localhost", 0, ssl_context=server_context)

        def answer() -> None:
            for identity, message in server.identity_messages():
                server.send(message, identity)

        answering = Background(answer)
        over = threading.Event()

        def ask(talking: threading.Event) -> int:
            with Søcket(linger=0) as client:
                if way == "unix":
                    client.connect_unix(tmp_path / "server")
                else:
                    client.connect("localhost", server.bound_port, ssl_context=client_context)
                number = 0
                while not over.is_set() or number < 10 * TURNS:
                    client.send(b"%d" % number)
                    assert client.recv(timeout=TIMEOUT) == b"%d" % number
                    number += 1
                    if number == 4 * TURNS:
                        talking.set()
            return number

        clients = []
        for _ in range(5):
            talking = threading.Event()
            clients.append(Background(ask, talking))
            assert talking.wait(TIMEOUT)
        over.set()
        assert all(client.result() >= 10 * TURNS for client in clients)
        server.close()
        answering.result()


# With a Søcket, and a peer whose every byte the test decides


class Echo:
    """A Søcket whose peer has a conversation with it: ``echo(message)`` is one turn."""

    def __init__(self, **options: Any) -> None:
        self.io = IOThread()
        self.sock = Søcket(linger=0, io_thread=self.io, **options).bind(port=0)
        self.peer = dial(self.sock.bound_port)
        self.peer.shake_hands()
        self.sock.wait_for_peers(timeout=TIMEOUT)

    def turn(self, number: int = 0) -> None:
        waiting = Background(self.sock.recv, timeout=TIMEOUT) if number % 4 == 0 else None
        self.peer.send(frame(DATA, b"%d" % number))
        message = waiting.result() if waiting else self.sock.recv(timeout=TIMEOUT)
        assert message == b"%d" % number

    def converse(self) -> None:
        """Talk until the conversation is on: until a message is received while the network thread does nothing."""
        def listens() -> bool:
            answer_thread = Background(self._answer, 3 * TURNS)
            for number in range(3 * TURNS):
                self.peer.send(frame(DATA, b"ping %d" % number))
                assert self.peer.read_kind(DATA)[1] == b"ping %d" % number
            answer_thread.result()
            go_on = threading.Event()

            def stand_still() -> None:
                go_on.wait(TIMEOUT)

            reactor_of(self.io).call(stand_still)
            try:
                self.peer.send(frame(DATA, b"by itself"))
                assert self.sock.recv(timeout=0.1) == b"by itself"
            except TimeoutError:
                go_on.set()
                assert self.sock.recv(timeout=TIMEOUT) == b"by itself"
                return False
            finally:
                go_on.set()
            return True

        until(listens)

    def _answer(self, count: int) -> None:
        for _ in range(count):
            identity, message = self.sock.recv_identity(timeout=TIMEOUT)
            self.sock.send(message, identity)

    def close(self) -> None:
        self.peer.close()
        self.io.close()
        del self.sock  # the descriptor for selectors lives as long as the object


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


def test_the_waiting_thread_reads_by_itself(echo: Echo) -> None:
    echo.converse()
    stats = echo.sock.stats()
    assert stats.received % (3 * TURNS + 1) == 0
    for number in range(100):
        echo.turn(number)
    assert echo.sock.stats().received == stats.received + 100
    assert echo.sock.stats().bytes_received == stats.bytes_received + 90 * 7 + 10 * 6


@pytest.mark.parametrize("pieces, messages", [
    pytest.param([frame(HEARTBEAT), frame(DATA, b"1")], [b"1"], id="a heartbeat"),
    pytest.param([frame(HEARTBEAT) + frame(DATA, b"1")], [b"1"], id="a heartbeat in one segment"),
    pytest.param([frame(DATA, b"1") + frame(DATA, b"2") + frame(DATA, b"3")], [b"1", b"2", b"3"], id="a run"),
    pytest.param([frame(DATA, b"12345")[:3], frame(DATA, b"12345")[3:]], [b"12345"], id="half a header"),
    pytest.param([frame(DATA, b"12345")[:7], frame(DATA, b"12345")[7:]], [b"12345"], id="half a message"),
    pytest.param([frame(DATA, b"1") + frame(DATA, b"23")[:4], frame(DATA, b"23")[4:]], [b"1", b"23"],
                 id="one and a half"),
    pytest.param([frame(DATA, b"x" * 500_000), frame(DATA, b"2")], [b"x" * 500_000, b"2"], id="large"),
    pytest.param([frame(DATA, b""), frame(DATA, b"2")], [b"", b"2"], id="empty"),
    pytest.param([frame(0x7F, b"?"), frame(DATA, b"2")], [b"2"], id="an unknown type"),
])
@pytest.mark.parametrize("waiting", [True, False], ids=["waited for", "not waited for"])
def test_what_comes_in_the_middle_arrives_in_order(echo: Echo, pieces: list[bytes], messages: list[bytes],
                                                   waiting: bool) -> None:
    echo.peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(2):
        echo.converse()

        def receive_all() -> list[bytes]:
            return [echo.sock.recv(timeout=TIMEOUT) for _ in messages]

        receiving = Background(receive_all) if waiting else None
        for piece in pieces:
            echo.peer.send(piece)
        assert (receiving.result() if receiving else receive_all()) == messages


def test_a_message_to_be_acknowledged_is(echo: Echo) -> None:
    echo.converse()
    receiving = Background(echo.sock.recv, timeout=TIMEOUT)
    echo.peer.send(frame(DATA_REQ, b"i" * 16 + b"reliable"))
    assert receiving.result() == b"reliable"
    until(lambda: echo.sock.stats().received)
    assert echo.peer.read_kind(ACK)[1] == b"i" * 16


@pytest.mark.parametrize("end, reason", [
    (lambda peer: peer.close(), "closed the connection"),
    (lambda peer: peer.reset(), "broke"),
    (lambda peer: peer.send(frame(DATA, b"last") + b"\0\0\0\0\0"), "protocol error"),
], ids=["end", "reset", "violation"])
@pytest.mark.parametrize("waiting", [True, False], ids=["waited for", "not waited for"])
def test_the_end_is_noticed(echo: Echo, end: Callable[[WirePeer], None], reason: str, waiting: bool) -> None:
    echo.converse()
    receiving = Background(echo.sock.recv, timeout=TIMEOUT) if waiting else None
    end(echo.peer)
    assert reason in str(wait_for_event(echo.sock, Disconnected).reason)
    if reason == "protocol error":
        assert (receiving.result() if receiving else echo.sock.recv(timeout=TIMEOUT)) == b"last"
    elif receiving:
        with dial(echo.sock.bound_port) as another:
            another.shake_hands(frame(DATA, b"another"))
            assert receiving.result() == b"another"


def test_another_peer_wakes_the_waiting_thread(echo: Echo) -> None:
    echo.converse()
    receiving = Background(echo.sock.recv, timeout=TIMEOUT)
    with dial(echo.sock.bound_port) as another:
        another.shake_hands(frame(DATA, b"another"))
        assert receiving.result() == b"another"
    for number in range(10):
        echo.turn(number)


def test_close_wakes_the_waiting_thread(echo: Echo) -> None:
    echo.converse()
    receiving = Background(echo.sock.recv)
    until(lambda: receiving.is_alive())
    echo.sock.close()
    with pytest.raises(ClosedError):
        receiving.result()


def test_a_timeout_is_kept(echo: Echo) -> None:
    echo.converse()
    with pytest.raises(TimeoutError):
        echo.sock.recv(timeout=0)
    with pytest.raises(TimeoutError):
        echo.sock.recv(timeout=0.05)
    echo.turn(1)


def test_several_threads_may_come_to_wait(echo: Echo) -> None:
    echo.converse()
    waiting = [Background(echo.sock.recv, timeout=TIMEOUT) for _ in range(4)]
    for number in range(4):
        echo.peer.send(frame(DATA, b"%d" % number))
    assert sorted(thread.result() for thread in waiting) == [b"0", b"1", b"2", b"3"]


def test_a_descriptor_asked_for_in_the_middle_tells_of_messages(echo: Echo) -> None:
    echo.converse()
    descriptor = echo.sock.fileno()
    for number in range(3 * TURNS):
        assert select.select([descriptor], [], [], 0)[0] == []
        echo.peer.send(frame(DATA, b"%d" % number))
        assert select.select([descriptor], [], [], TIMEOUT)[0] == [descriptor]
        assert echo.sock.recv(timeout=0) == b"%d" % number


def test_the_peers_silence_is_noticed() -> None:
    echo = Echo(heartbeat_interval=0.1, heartbeat_timeout=0.5)
    echo.converse()
    receiving = Background(echo.sock.recv, timeout=TIMEOUT)
    assert "nothing heard" in str(wait_for_event(echo.sock, Disconnected).reason)
    with dial(echo.sock.bound_port) as another:
        another.shake_hands(frame(DATA, b"another"))
        assert receiving.result() == b"another"
    echo.close()


def test_a_forked_child_leaves_the_conversation_alone(echo: Echo) -> None:
    echo.converse()
    child = fork()
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    for number in range(40):
        echo.turn(number)


def test_two_søckets_converse_with_every_message_in_its_place() -> None:
    with connected() as (server, client):
        def answer() -> None:
            for _ in range(3000):
                identity, message = server.recv_identity(timeout=TIMEOUT)
                server.send(message, identity)

        answering = Background(answer)
        for number in range(1000):
            run = 1 + (number // 100) % 3  # now in turn, now more at once
            for _ in range(run if number < 900 else 3):
                client.send(b"%d" % number)
            for _ in range(run if number < 900 else 3):
                assert client.recv(timeout=TIMEOUT) == b"%d" % number
        sent = sum(1 + (number // 100) % 3 if number < 900 else 3 for number in range(1000))
        for number in range(3000 - sent):
            client.send(b"rest")
            assert client.recv(timeout=TIMEOUT) == b"rest"
        answering.result()
        assert client.stats().received == server.stats().received == 3000


def test_reliable_messages_converse_too() -> None:
    with connected(connector={"delivery_guarantee": DeliveryGuarantee.AT_LEAST_ONCE}) as (server, client):
        for number in range(200):
            receipt = client.send(b"%d" % number)
            identity, message = server.recv_identity(timeout=TIMEOUT)
            server.send(message, identity)
            assert client.recv(timeout=TIMEOUT) == b"%d" % number
            assert receipt is not None
            receipt.wait(timeout=TIMEOUT)
