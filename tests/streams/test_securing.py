"""A stream's way under TLS, over a link that does what it is told to."""

from __future__ import annotations

import errno
import ssl
from typing import Any

import pytest
from support.interrupts import Interrupted
from support.scripted import after, scripted

from netmsg import ClosedError, ConnectionBrokenError, LocalProtocolError, RemoteProtocolError, TLSHandshakeError
from netmsg.deadline import Deadline
from netmsg.sockets.waiting import READ, WRITE
from netmsg.streams.connection import FOREVER

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def test_the_handshake_waits_for_the_other_end_and_sends_what_it_needs() -> None:
    inside, link, transport = scripted()
    transport.handshaking = True
    transport.shakes += (BlockingIOError(), BlockingIOError())
    link.happenings += (READ, READ)
    with pytest.raises(LocalProtocolError, match="in the clear"):
        inside.securing.do_handshake(FOREVER)  # for there is no TLS in this transport
    assert link.waits == [READ, READ]
    assert not inside.is_shaking_hands


def test_it_is_not_over_before_its_end_is_sent() -> None:
    inside, link, transport = scripted()
    transport.handshaking = transport.unsent = transport.finishing = True

    def finish() -> None:
        transport.finishing = False

    link.happenings.append(after(finish, events=WRITE))
    with pytest.raises(LocalProtocolError):
        inside.securing.do_handshake(FOREVER)
    assert link.waits == [WRITE]
    assert not transport.unsent


def test_a_timeout_of_the_caller_leaves_it_to_the_next() -> None:
    inside, _, transport = scripted()
    transport.handshaking = True
    transport.shakes.append(BlockingIOError())
    with pytest.raises(TimeoutError):
        inside.receiving.take(Deadline(0), inside.receiving.some, 1)
    assert not inside.connection.closed
    transport.incoming.append(b"abc")
    assert inside.receiving.take(FOREVER, inside.receiving.some, 10) == b"abc"


@pytest.mark.parametrize("error", [TLSHandshakeError("no"), ConnectionResetError(errno.ECONNRESET, "reset")])
def test_a_failure_closes_the_stream_and_is_what_it_was_closed_for(error: OSError) -> None:
    inside, link, transport = scripted()
    transport.handshaking = True
    transport.shakes.append(error)
    with pytest.raises(TLSHandshakeError):
        inside.receiving.take(FOREVER, inside.receiving.some, 1)
    assert link.calls[-1] == "close"
    with pytest.raises(ClosedError) as caught:
        inside.connection.check()
    assert isinstance(caught.value.__cause__, TLSHandshakeError)
    assert inside.sending.error is inside.receiving.error is caught.value.__cause__


def test_an_interrupt_of_the_first_one_does_not() -> None:
    inside, link, transport = scripted()
    transport.handshaking = True
    transport.shakes.append(BlockingIOError())
    link.happenings.append(Interrupted())
    with pytest.raises(Interrupted):
        inside.securing.do_handshake(FOREVER)
    assert not inside.connection.closed


def test_its_own_time_counts_too(tls_contexts: Contexts) -> None:
    inside, link, transport = scripted()
    inside.expect_tls(tls_contexts[0], server_side=True)
    inside.begin_tls(0)
    assert link.calls == ["go_under_tls"]
    with pytest.raises(TLSHandshakeError, match="in time"):
        inside.receiving.take(Deadline(10), inside.receiving.some, 1)
    assert inside.connection.closed


def test_what_somebody_else_has_shaken_has_no_time_of_its_own_any_more() -> None:
    inside, link, transport = scripted()
    inside.expect_tls(None, server_side=True)
    inside.handshake_over()
    transport.handshaking = True
    transport.shakes.append(BlockingIOError())
    link.happenings.append(READ)
    with pytest.raises(LocalProtocolError):
        inside.securing.do_handshake(FOREVER)


def test_start_tls_needs_to_know_which_end_it_is_and_what_with(tls_contexts: Contexts) -> None:
    inside, link, _ = scripted()
    server, client = tls_contexts
    start = inside.securing.start_tls
    cases: list[tuple[tuple[Any, ...], type[Exception]]] = [
        ((client, None, "localhost", True), ValueError),
        ((None, False, "localhost", True), ValueError),
        ((server, True, "localhost", True), ValueError),
        ((True, True, None, True), TypeError),
        ((client, False, None, True), ValueError),  # it checks host names, and there is none
    ]
    for arguments, error in cases:
        with pytest.raises(error):
            start(FOREVER, *arguments)
    assert link.calls == [] and not inside.connection.closed


def test_what_was_received_in_the_clear_is_an_injection_on_the_client(tls_contexts: Contexts) -> None:
    inside, link, transport = scripted()
    transport.incoming.append(b"go ahead\ninjected")
    receiving = inside.receiving
    assert receiving.take(FOREVER, receiving.until, b"\n", 100) == b"go ahead"
    with pytest.raises(RemoteProtocolError, match="8 bytes"):
        inside.securing.start_tls(FOREVER, tls_contexts[1], False, "localhost", True)
    assert inside.connection.closed
    assert "reset" in link.calls
    assert transport.sent == []


def test_and_goes_into_the_handshake_on_the_server(tls_contexts: Contexts) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = tls_contexts[1].wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    inside, _, transport = scripted()
    transport.incoming.append(b"go ahead\n" + outgoing.read())
    receiving = inside.receiving
    assert receiving.take(FOREVER, receiving.until, b"\n", 100) == b"go ahead"
    with pytest.raises(TimeoutError):
        inside.securing.start_tls(Deadline(0), tls_contexts[0], True, None, True)
    assert transport.sent  # its hello in return
    assert inside.connection.closed  # it is neither in the clear nor under TLS


def test_nothing_is_upgraded_behind_a_send_that_was_cut_short(tls_contexts: Contexts) -> None:
    inside, link, _ = scripted()
    inside.sending.under_way = [3], 8
    with pytest.raises(ConnectionBrokenError, match="cut short"):
        inside.securing.start_tls(FOREVER, tls_contexts[1], False, "localhost", True)
    assert "go_under_tls" not in link.calls
