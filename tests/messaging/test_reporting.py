"""What the log says of a Søcket, and what its errors say of the endpoints: nothing fails in silence, nothing floods."""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
import subprocess
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.loops import Loop
from support.pairs import TIMEOUT, Background, connected, until, wait_for_event
from support.processes import PYTHON
from support.wire_peer import DATA, accept, dial, frame, listening

import netmsg.messaging.reporting
from netmsg import (
    Connecting, DeliveryGuarantee, Disconnected, Event, HandshakeFailed, IOThread, OnFull, Retrying, SendMode,
    SendTimeoutError, Søcket,
)
from netmsg.messaging.life import Life
from netmsg.messaging.losses import Losses
from netmsg.messaging.reporting import Reporter
from netmsg.reactor.io_thread import reactor_of
from netmsg.speaking import wait_until_said


class Kept(logging.Handler):
    """What was logged, in words."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()
        self.records.append(record)

    def texts(self, level: int = logging.WARNING) -> list[str]:
        return [record.getMessage() for record in self.records if record.levelno == level]

    def wait_for(self, pattern: str, level: int = logging.WARNING) -> str:
        until(lambda: any(re.search(pattern, text) for text in self.texts(level)))
        return next(text for text in self.texts(level) if re.search(pattern, text))


@pytest.fixture
def kept() -> Iterator[Kept]:
    logger, handler = logging.getLogger("netmsg"), Kept()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
def free_port() -> Iterator[int]:
    """One that is bound, and on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def three_attempts(sock: Søcket) -> None:
    for _ in range(4):
        wait_for_event(sock, Connecting)


# Endpoints that are dialled


def test_an_endpoint_that_refuses_is_warned_of_once(kept: Kept, free_port: int) -> None:
    with Søcket(linger=0) as sock:
        sock.connect(port=free_port)
        three_attempts(sock)
        text = kept.wait_for("no connection")
        assert f"127.0.0.1:{free_port}" in text and "connecting failed" in text and "refused" in text
        assert sock.identity.hex()[:8] in text
    assert len(kept.texts()) == 1


def test_each_endpoint_is_warned_of_for_itself(kept: Kept, free_port: int) -> None:
    with Søcket(linger=0) as sock:
        sock.connect(port=free_port)
        sock.connect("no.such.host.invalid", 1)
        sock.connect_unix(f"/tmp/netmsg-nobody-{os.getpid()}")
        kept.wait_for(f"127.0.0.1:{free_port}: connecting failed")
        kept.wait_for("no.such.host.invalid:1: resolving failed.*no.such.host.invalid")
        kept.wait_for(f"/tmp/netmsg-nobody-{os.getpid()}: connecting failed")


def test_after_the_quiet_time_it_is_warned_of_again(
        kept: Kept, free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netmsg.messaging.reporting, "QUIET", 0.01)
    with Søcket(linger=0) as sock:
        sock.connect(port=free_port)
        until(lambda: len(kept.texts()) >= 3)


def test_tls_that_fails_is_warned_of_on_both_sides(
        kept: Kept, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        a.bind(port=0, ssl_context=tls_contexts[0])
        b.connect("localhost", a.bound_port, ssl_context=True)
        kept.wait_for(f"no connection to localhost:{a.bound_port}: TLS failed: .*certificate verify failed")
        kept.wait_for(r"a connection from 127.0.0.1:\d+ was refused: TLS failed: ")


def test_plain_to_a_tls_port_says_so(kept: Kept, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with Søcket(linger=0) as a, Søcket(linger=0) as b:
        a.bind("tls://127.0.0.1:0", ssl_context=tls_contexts[0])
        b.connect(f"tcp://127.0.0.1:{a.bound_port}")
        kept.wait_for(f"no connection to 127.0.0.1:{a.bound_port}: HELLO failed: ")
        kept.wait_for("was refused: TLS failed")


def test_a_peer_that_hangs_up_without_hello_is_warned_of(kept: Kept) -> None:
    with listening() as listener, Søcket(linger=0) as sock:
        port = listener.getsockname()[1]
        sock.connect(port=port)
        accept(listener).close()
        kept.wait_for(f"127.0.0.1:{port}: HELLO failed: ")


def test_who_is_not_authorized_is_warned_of_with_its_identity(kept: Kept) -> None:
    with Søcket(linger=0, authorize=lambda peer: False) as a, Søcket(linger=0) as b:
        a.bind(port=0)
        b.connect(port=a.bound_port)
        text = kept.wait_for("was refused: authorizing failed: not authorized")
        assert b.identity.hex() in text
        event = wait_for_event(a, HandshakeFailed)
        assert (event.phase, event.dialled) == ("authorizing", False)
        failed = wait_for_event(b, HandshakeFailed)
        assert (failed.phase, failed.dialled) == ("HELLO", True)


def test_a_lost_connection_is_no_failure(kept: Kept) -> None:
    with Søcket(linger=0) as b, listening() as listener:
        b.connect(port=listener.getsockname()[1])
        with accept(listener) as peer:
            peer.shake_hands()
            b.wait_for_peers(timeout=TIMEOUT)
        assert wait_for_event(b, Retrying).phase == ""
        with accept(listener) as again:
            again.shake_hands()
            b.wait_for_peers(timeout=TIMEOUT)
    assert kept.texts() == []


def test_closing_is_no_failure(kept: Kept) -> None:
    for _ in range(3):
        with Søcket() as a, Søcket() as b:
            a.bind(port=0)
            b.connect(port=a.bound_port)
    assert kept.texts() == []


# Who connects to us


def test_strangers_of_one_host_are_warned_of_once(kept: Kept) -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        for _ in range(20):
            with dial(sock.bound_port) as stranger:
                stranger.send(b"SSH-2.0-x\r\n")
                wait_for_event(sock, HandshakeFailed)
        kept.wait_for("127.0.0.1:.* was refused: HELLO failed: not a Søcket: its first bytes are b'SSH-2'")
    assert len(kept.texts()) == 1


def test_a_flood_from_everywhere_is_told_of_in_bounds(kept: Kept) -> None:
    nowhere: Any = None
    reporter = Reporter(bytes(16), Loop(), Life(), nowhere, Losses())  # type: ignore[arg-type]
    for number in range(5000):
        host = f"10.0.{number // 250}.{number % 250}"
        reporter.tell(HandshakeFailed((host, 1234), None, "not a Søcket", None, phase="HELLO"))
    wait_until_said(TIMEOUT)
    assert 1000 <= len(kept.texts()) <= 1001


def test_a_peer_that_breaks_the_protocol_is_warned_of(kept: Kept) -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands(bytes(4))
            wait_for_event(sock, Disconnected)
        kept.wait_for("the peer at 127.0.0.1:.* broke the protocol.*an empty envelope")


def test_connections_made_and_lost_are_information(kept: Kept) -> None:
    logging.getLogger("netmsg").setLevel(logging.INFO)
    try:
        with connected() as (a, b):
            kept.wait_for(f"connected to peer {a.identity.hex()} at 127.0.0.1:{a.bound_port}", logging.INFO)
            b.close()
            kept.wait_for(f"lost peer {b.identity.hex()} at 127.0.0.1:", logging.INFO)
    finally:
        logging.getLogger("netmsg").setLevel(logging.NOTSET)
    assert kept.texts() == []


# Messages that are lost


def counted(kept: Kept, pattern: str) -> int:
    return sum(int(match[1]) for text in kept.texts() if (match := re.search(pattern, text)))


def test_all_that_is_dropped_is_told_in_few_words(kept: Kept) -> None:
    with Søcket(send_hwm=1, on_full=OnFull.DROP_NEWEST, linger=0) as sock:
        for _ in range(1000):
            sock.send(b"x")
        sock.close()
    until(lambda: counted(kept, r"(\d+) messages? (?:was|were) dropped: send queue full") == 999)
    assert len([text for text in kept.texts() if "dropped" in text]) <= 2  # at once, and the rest at the end


def test_what_is_dropped_while_all_is_quiet_is_told_when_the_time_is_up(
        kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netmsg.messaging.reporting, "QUIET", 0.2)
    with Søcket(send_mode=SendMode.PUBLISH, send_hwm=2, linger=0) as sock:
        sock.bind(port=0)
        for _ in range(100):
            sock.send(b"x")
        until(lambda: counted(kept, r"(\d+) messages? (?:was|were) dropped") == 98)
        assert sum(sock.stats().dropped.values()) == 98


def test_an_interrupt_on_the_way_to_the_network_thread_silences_nothing(
        kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(netmsg.messaging.reporting, "QUIET", 1.0)
    with IOThread() as io, Søcket(send_mode=SendMode.PUBLISH, send_hwm=1, linger=0, io_thread=io) as sock:
        sock.bind(port=0)
        for _ in range(2):
            sock.send(b"x")
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(reactor_of(io), "call", interrupted)
            sock.send(b"dropped while all is quiet")
        sock.send(b"x")
        until(lambda: counted(kept, r"(\d+) messages? (?:was|were) dropped") == 3)


def test_what_is_sent_by_identity_to_nobody_is_told(kept: Kept) -> None:
    with Søcket(linger=0) as sock:
        sock.send(b"x", b"I" * 16)
        kept.wait_for("1 message was dropped: peer not connected")


def test_what_close_gives_up_is_told_before_it_returns(kept: Kept, free_port: int) -> None:
    with Søcket() as sock:
        sock.connect(port=free_port)
        sock.send_many([b"x"] * 7)
        wait_for_event(sock, Retrying)
        assert sock.close(linger=0) == 7
        (text,) = [text for text in kept.texts() if "given up" in text]
        assert "7 messages were given up at close" in text and f"127.0.0.1:{free_port}: connecting failed" in text


def test_what_is_resent_in_vain_is_told(kept: Kept) -> None:
    with Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, max_resends=0, resend_after=0.05,
                linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as peer:
            peer.shake_hands()
            sock.send(b"x")
            peer.read_kind(4)
            kept.wait_for("1 message was given up, resent as often as max_resends allows")


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PYTHON, "-c", textwrap.dedent(program)],
                          capture_output=True, text=True, timeout=30)


def test_without_any_configuration_python_prints_the_warnings(free_port: int) -> None:
    result = run(f"""
        import time
        from netmsg import Søcket
        sock = Søcket(linger=0.3).connect(port={free_port})
        sock.send(b"x")
        sock.send(b"y")
    """)
    first, second = result.stderr.splitlines()
    assert f"no connection to 127.0.0.1:{free_port}: connecting failed" in first
    assert "2 messages were given up at close" in second  # at exit: nobody has closed it
    assert (result.returncode, result.stdout) == (0, "")


# The user's handlers


class Misbehaved(logging.Handler):
    """Does something that a handler had better not."""

    def __init__(self, act: Any) -> None:
        super().__init__()
        self._act = act

    def handle(self, record: logging.LogRecord) -> bool:
        self._act(record)
        return True


@pytest.fixture
def misbehaved(request: pytest.FixtureRequest) -> Iterator[list[logging.Handler]]:
    handlers: list[logging.Handler] = []
    yield handlers
    for handler in handlers:
        logging.getLogger("netmsg").removeHandler(handler)


def misbehave(handlers: list[logging.Handler], act: Any) -> None:
    handlers.append(Misbehaved(act))
    logging.getLogger("netmsg").addHandler(handlers[-1])


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
def test_a_handler_that_raises_harms_nobody(
        error: type[BaseException], misbehaved: list[logging.Handler], free_port: int,
        capsys: pytest.CaptureFixture[str]) -> None:
    called = threading.Event()

    def act(record: logging.LogRecord) -> None:
        called.set()
        raise error("the handler's own")

    misbehave(misbehaved, act)
    with connected() as (a, b):
        b.connect(port=free_port)
        assert called.wait(TIMEOUT)
        three_attempts(b)
        a.send(b"x")
        assert b.recv(timeout=TIMEOUT) == b"x"
    until(lambda: "the handler's own" in capsys.readouterr().err)


def test_a_handler_that_blocks_holds_up_no_message(misbehaved: list[logging.Handler], free_port: int) -> None:
    blocked, release = threading.Event(), threading.Event()

    def act(record: logging.LogRecord) -> None:
        assert not threading.current_thread().name.startswith("netmsg-io-")
        blocked.set()
        release.wait(TIMEOUT)

    misbehave(misbehaved, act)
    try:
        with connected({"send_hwm": 1, "on_full": OnFull.DROP_NEWEST}) as (a, b):
            b.connect(port=free_port)
            assert blocked.wait(TIMEOUT)
            three_attempts(b)
            for number in range(100):
                b.send(b"%d" % number)
                assert a.recv(timeout=TIMEOUT) == b"%d" % number
            a.send(b"to nobody", b"I" * 16)  # dropped, and to be told: not now
    finally:
        release.set()


def test_a_handler_may_use_a_socket_itself(misbehaved: list[logging.Handler], free_port: int) -> None:
    with connected() as (a, b):
        misbehave(misbehaved, lambda record: b.send_string(record.getMessage(), timeout=TIMEOUT))
        b.connect(port=free_port)
        assert f"127.0.0.1:{free_port}" in a.recv_string(timeout=TIMEOUT)


def test_a_handler_may_close_the_socket_that_it_is_told_of(misbehaved: list[logging.Handler]) -> None:
    with Søcket(send_hwm=1, on_full=OnFull.DROP_NEWEST, linger=0) as sock:
        misbehave(misbehaved, lambda record: sock.close())
        sock.send(b"1")
        sock.send(b"2")
        until(lambda: sock.closed)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_can_log_on(free_port: int) -> None:
    result = run(f"""
        import os, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from netmsg import Søcket
        with Søcket(linger=0) as sock:
            sock.connect(port={free_port})
            sock.send(b"x")
            child = os.fork()
            if child == 0:
                mine = Søcket(linger=0.2).connect(port={free_port})
                mine.send(b"y")
                mine.send(b"y")
                mine.close()
                sys.stderr.flush()
                os._exit(0)
            os.waitpid(child, 0)
    """)
    assert result.returncode == 0
    assert "2 messages were given up at close" in result.stderr and "1 message was given up" in result.stderr


# What errors say


def test_wait_for_peers_says_what_it_waited_for_and_what_is_wrong(free_port: int) -> None:
    with Søcket(linger=0) as sock:
        with pytest.raises(TimeoutError, match="neither bound nor connected"):
            sock.wait_for_peers(timeout=0)
        sock.connect(port=free_port)
        wait_for_event(sock, Retrying)
        with pytest.raises(TimeoutError, match=rf"0 of 2 peers.*127.0.0.1:{free_port}: connecting failed: .*refused"):
            sock.wait_for_peers(2, timeout=0)


def test_wait_for_peers_says_who_was_refused() -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0)
        with dial(sock.bound_port) as stranger:
            stranger.send(b"GET / HTTP/1.1\r\n")
            wait_for_event(sock, HandshakeFailed)
        with pytest.raises(TimeoutError, match="127.0.0.1 was refused: HELLO failed: a WebSocket client"):
            sock.wait_for_peers(timeout=0)


def test_many_failing_endpoints_are_counted() -> None:
    with Søcket(linger=0) as sock:
        for number in range(5):
            sock.connect_unix(f"/tmp/netmsg-nobody-{os.getpid()}-{number}")
        for _ in range(5):
            wait_for_event(sock, Retrying)
        with pytest.raises(TimeoutError, match="and 2 more fail"):
            sock.wait_for_peers(timeout=0)


def test_an_endpoint_that_is_connected_again_is_no_trouble() -> None:
    with listening() as listener, Søcket(linger=0) as sock:
        sock.connect(port=listener.getsockname()[1])
        accept(listener).close()
        with accept(listener) as peer:
            peer.shake_hands()
            sock.wait_for_peers(timeout=TIMEOUT)
            with pytest.raises(TimeoutError) as raised:
                sock.wait_for_peers(2, timeout=0)
            assert str(raised.value) == "1 of 2 peers connected within 0 s"


def test_an_endpoint_that_is_still_connecting_is_named() -> None:
    with listening() as listener, Søcket(linger=0) as sock:
        port = listener.getsockname()[1]
        sock.connect(port=port)
        with accept(listener):
            with pytest.raises(TimeoutError, match=f"127.0.0.1:{port} is not past (HELLO|connecting) yet"):
                sock.wait_for_peers(timeout=0)


@pytest.mark.parametrize("many", [False, True])
def test_a_send_that_times_out_says_why(free_port: int, many: bool) -> None:
    with Søcket(send_hwm=1, linger=0) as sock:
        sock.connect(port=free_port)
        sock.send(b"1")
        wait_for_event(sock, Retrying)
        with pytest.raises(SendTimeoutError,
                           match=rf"no room.*0 peers connected.*127.0.0.1:{free_port}: connecting failed") as raised:
            sock.send_many([b"2"], timeout=0) if many else sock.send(b"2", timeout=0)
        assert raised.value.sent == 0


def test_a_send_by_identity_that_times_out_names_the_peer() -> None:
    with Søcket(send_hwm=1, delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, linger=0) as sock:
        sock.bind(port=0)
        sock.send(b"1", b"I" * 16)
        with pytest.raises(SendTimeoutError, match=f"peer {(b'I' * 16).hex()} not connected"):
            sock.send(b"2", b"I" * 16, timeout=0)


def test_a_receipt_that_times_out_says_why(free_port: int) -> None:
    with Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, linger=0) as sock:
        sock.connect(port=free_port)
        receipt = sock.send(b"x")
        wait_for_event(sock, Retrying)
        with pytest.raises(TimeoutError, match=f"{receipt.message_id.hex()} was not acknowledged within 0 s; "
                                               f"no connection to 127.0.0.1:{free_port}: connecting failed"):
            receipt.wait(timeout=0)


# What events keep


def chain(error: BaseException | None) -> Iterator[BaseException]:
    if error is not None:
        yield error
        yield from chain(error.__cause__)
        yield from chain(error.__context__)
        for _, attempt in getattr(error, "attempts", ()):
            yield from chain(attempt)


def errors_of(sock: Søcket, *kinds: type[Event]) -> list[BaseException]:
    return [wait_for_event(sock, kind, lambda event: event.error is not None).error or Exception() for kind in kinds]


def test_unread_events_keep_no_frames(free_port: int, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    def authorize(peer: Any) -> bool:
        nothing: dict[str, bool] = {}
        try:
            return nothing["nothing"]
        except KeyError:
            return peer.no_such_attribute  # type: ignore[no-any-return]

    errors: list[BaseException] = []
    with Søcket(linger=0) as a, Søcket(linger=0) as b, Søcket(linger=0, authorize=authorize) as c:
        a.bind(port=0)
        with dial(a.bound_port) as stranger:
            stranger.send(b"\x99" * 100)
            errors += errors_of(a, HandshakeFailed)
        with dial(a.bound_port) as peer:
            peer.shake_hands(frame(DATA, b"begin of a message" * 10_000)[:100_000])
            a.wait_for_peers(timeout=TIMEOUT)
            peer.reset()
            errors += errors_of(a, Disconnected)
        b.connect(port=free_port)
        b.connect("no.such.host.invalid", 1)
        errors += errors_of(b, Retrying, Retrying)
        c.bind(port=0, ssl_context=tls_contexts[0])
        b.connect("localhost", c.bound_port, ssl_context=True)
        errors += errors_of(c, HandshakeFailed)
        b.connect("localhost", c.bound_port, ssl_context=tls_contexts[1])
        errors += [wait_for_event(c, HandshakeFailed, lambda event: event.phase == "authorizing").error or Exception()]
    assert len(errors) == 6
    found = [link for error in errors for link in chain(error)]
    assert len(found) > len(errors)
    assert [link for link in found if link.__traceback__ is not None] == []
    assert all(link.obj is None for link in found if isinstance(link, AttributeError))


def test_a_socket_that_works_says_nothing(kept: Kept) -> None:
    """Nothing is said of a Søcket that works."""
    with connected() as (a, b):
        receiver = Background(lambda: [a.recv(timeout=TIMEOUT) for _ in range(100)])
        for number in range(100):
            b.send(b"%d" % number)
        assert len(receiver.result()) == 100
    assert kept.records == []
