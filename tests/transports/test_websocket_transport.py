"""WebSocket over a socket that takes only some of it, and over TLS: nothing is lost, sent twice, or forgotten."""

from __future__ import annotations

import errno
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.channels import READ, WRITE, Loop, Outlet, Script, Socket, User, as_any
from support.handshakes import shake
from support.scripted import ScriptedTransport
from support.strikes import SignalStrike, Strike, Struck, strike_everywhere
from support.wrong import wrong
from websockets.sync.client import connect

from netmsg.errors import ConnectionBrokenError, RemoteProtocolError
from netmsg.reactor.channel import Channel
from netmsg.transports.encrypted import TLSTransport
from netmsg.transports.plain import PlainTransport, Transport
from netmsg.transports.websocket import FRAME_SIZE, WebSocketTransport
from netmsg.wire.websocket import Opcode, Side, WebSocket
from netmsg.wire.websocket_opening import ClientOpening, ServerOpening

ORIGIN = "https://example.org"
PATIENCE = 30.0

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]
Pair = tuple[WebSocketTransport, WebSocketTransport]


def client_opening(origin: str = ORIGIN) -> ClientOpening:
    return ClientOpening("localhost", 25000, headers={"Origin": origin})


def server_opening() -> ServerOpening:
    return ServerOpening([ORIGIN])


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        for sock in (one, other):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        yield one, other


@pytest.fixture(params=["plain", "tls"])
def unshaken(request: pytest.FixtureRequest, sockets: tuple[socket.socket, socket.socket],
             tls_contexts: Contexts) -> Pair:
    """A server and a client."""
    below: list[Transport] = [PlainTransport(sock) for sock in sockets]
    if request.param == "tls":
        below = [TLSTransport(below[0], tls_contexts[0], server_side=True),
                 TLSTransport(below[1], tls_contexts[1], server_side=False, server_hostname="localhost")]
    return WebSocketTransport(below[0], server_opening()), WebSocketTransport(below[1], client_opening())


@pytest.fixture
def pair(unshaken: Pair) -> Pair:
    shake(*unshaken)
    return unshaken


@pytest.fixture(params=["server", "client"])
def sides(request: pytest.FixtureRequest, pair: Pair) -> Pair:
    """One end and the other."""
    return pair if request.param == "server" else (pair[1], pair[0])


def receive(transport: Transport, size: int = 65_536) -> bytes | None:
    try:
        return transport.receive(size)
    except BlockingIOError:
        return None


def receive_all(transport: Transport, *, meanwhile: Callable[[], object] = lambda: None) -> bytes:
    """Everything up to the end."""
    got = b""
    deadline = time.monotonic() + PATIENCE
    while (chunk := receive(transport)) != b"":
        got += chunk or b""
        meanwhile()
        assert time.monotonic() < deadline
    return got


def send(transport: Transport, payload: bytes) -> int:
    """As much of it as goes at once."""
    sent = 0
    while sent < len(payload):
        try:
            sent += transport.send_one(payload[sent:])
        except BlockingIOError:
            break
    return sent


class Scripted:
    """One end over a transport that does what the script says, beyond its handshake; and what the other end makes of
    what it has sent."""

    def __init__(self, side: Side) -> None:
        self.script = ScriptedTransport()
        if side is Side.SERVER:
            self.script.incoming.append(client_opening().request)
            self.transport = WebSocketTransport(self.script, server_opening(), random=bytes)
        else:
            opening = client_opening()
            self.script.incoming.append(server_opening().receive(opening.request))
            self.transport = WebSocketTransport(self.script, opening, random=bytes)
        self.transport.handshake()
        self.script.sent.clear()
        self.other = WebSocket(Side.CLIENT if side is Side.SERVER else Side.SERVER)
        self.header = 2 if side is Side.SERVER else 6

    def frame(self, opcode: Opcode, payload: bytes) -> bytes:
        """A short one of this end's; a key of zeros does not show in the payload."""
        mask = self.header == 6
        return bytes((0x80 | opcode, mask << 7 | len(payload))) + bytes(self.header - 2) + payload

    def heard(self) -> bytes:
        """By the other end, since the last time."""
        data = b"".join(self.script.sent)
        self.script.sent.clear()
        return self.other.receive(data)

    def says(self, *frames: bytes) -> None:
        self.script.incoming.append(b"".join(frames))

    def binary(self, payload: bytes) -> bytes:
        return b"".join(self.other.encode(payload))


@pytest.fixture(params=Side, ids=lambda side: str(side.value))
def scripted(request: pytest.FixtureRequest) -> Scripted:
    return Scripted(request.param)


# The handshake

def test_both_ends_shake_hands_and_understand_each_other(pair: Pair) -> None:
    server, client = pair
    assert server.answered and not server.readable and not server.unsent
    assert client.send_one(b"to the server") == 13 and server.send_many([b"to ", memoryview(b"the client")]) == 13
    assert receive(server) == b"to the server" and receive(client) == b"to the client"
    assert (server.tls is None) is (client.tls is None)
    assert not (server.calls_back or server.stalled or server.begun or server.finishing)


def test_what_was_received_before_is_handed_over_and_what_follows_the_request_is_kept() -> None:
    script = ScriptedTransport()
    opening, other = client_opening(), WebSocket(Side.CLIENT)
    data = opening.request + b"".join(other.encode(b"at once"))
    script.incoming.extend(bytes((byte,)) for byte in data[9:-3])
    transport = WebSocketTransport(script, server_opening())
    transport.feed(data[:9])
    transport.handshake()
    assert not transport.handshaking and transport.answered
    opening.receive(b"".join(script.sent))
    assert opening.over and opening.error is None
    script.incoming.append(data[-3:])
    got = b""
    while len(got) < 7:
        got += receive(transport) or b""
    assert got == b"at once"


def test_a_first_frame_with_the_answer_is_readable() -> None:
    script, opening = ScriptedTransport(), client_opening()
    script.incoming.append(server_opening().receive(opening.request) + b"\x82\x05first")
    transport = WebSocketTransport(script, opening)
    transport.handshake()
    assert transport.readable and receive(transport) == b"first" and not transport.readable


def test_a_handshake_waits_for_room_for_its_answer() -> None:
    script = ScriptedTransport()
    script.incoming.append(client_opening().request)
    script.room.extend([10, BlockingIOError()])
    transport = WebSocketTransport(script, server_opening())
    with pytest.raises(BlockingIOError):
        transport.handshake()
    assert transport.handshaking and transport.unsent and transport.answered
    transport.handshake()
    assert not transport.handshaking and not transport.unsent
    assert b"".join(script.sent).startswith(b"HTTP/1.1 101 ") and b"".join(script.sent).endswith(b"\r\n\r\n")


def test_a_request_waits_for_room() -> None:
    script, opening = ScriptedTransport(), client_opening()
    script.room.extend([10, BlockingIOError()])
    transport = WebSocketTransport(script, opening)
    with pytest.raises(BlockingIOError):
        transport.handshake()
    assert transport.unsent
    transport.flush()
    assert not transport.unsent and b"".join(script.sent) == opening.request


def test_a_page_of_another_origin_is_told_so(sockets: tuple[socket.socket, socket.socket]) -> None:
    server = WebSocketTransport(PlainTransport(sockets[0]), server_opening())
    client = WebSocketTransport(PlainTransport(sockets[1]), client_opening("https://evil.example"))
    with pytest.raises(BlockingIOError):
        client.handshake()
    with pytest.raises(RemoteProtocolError, match="403"):
        server.handshake()
    assert server.handshaking and server.answered and not server.unsent
    with pytest.raises(RemoteProtocolError, match="the server answered with status 403 Forbidden"):
        client.handshake()


def test_an_end_amid_the_handshake_is_an_error(unshaken: Pair, sockets: tuple[socket.socket, socket.socket]) -> None:
    server, _ = unshaken
    sockets[1].close()
    with pytest.raises(OSError, match="WebSocket handshake|EOF|handshake"):
        server.handshake()


# Sending

def test_a_frame_that_is_taken_at_once_counts_at_once(scripted: Scripted) -> None:
    assert scripted.transport.send_one(b"payload") == 7
    assert scripted.heard() == b"payload" and not scripted.transport.unsent and not scripted.transport.begun


def test_nothing_of_nothing_is_sent(scripted: Scripted) -> None:
    assert scripted.transport.send_many([b"", b""]) == 0 and scripted.transport.send_one(b"") == 0
    assert not scripted.script.sent


def test_several_buffers_are_one_frame(scripted: Scripted) -> None:
    assert scripted.transport.send_many([b"one", memoryview(b"two"), b"three"]) == 11
    assert len(scripted.script.sent) == 1 and scripted.heard() == b"onetwothree"


def test_a_frame_is_of_bounded_size(scripted: Scripted) -> None:
    assert scripted.transport.send_many([b"x" * 60_000] * 10) == FRAME_SIZE
    assert scripted.heard() == b"x" * FRAME_SIZE


def test_what_is_counted_is_payload_and_what_was_begun_is_finished_first(scripted: Scripted) -> None:
    payload = bytes(range(100))
    for taken in range(scripted.header + len(payload)):
        scripted.script.room.extend([taken, BlockingIOError()] if taken else [BlockingIOError()])
        count = 0
        if taken > scripted.header:
            count = scripted.transport.send_one(payload)
            assert count == taken - scripted.header
        else:
            with pytest.raises(BlockingIOError):
                scripted.transport.send_one(payload)
        assert scripted.transport.unsent and scripted.transport.begun
        # The rest is in there already, whatever the caller has in his buffer now; he owes no more than its size.
        assert scripted.transport.send_one(payload[count:] + b"more") == len(payload) - count
        assert scripted.heard() == payload and not scripted.transport.unsent and not scripted.transport.begun


def test_a_frame_a_byte_at_a_time_counts_a_byte_at_a_time(scripted: Scripted) -> None:
    payload = b"payload"
    counts: list[int] = []
    for _ in range(scripted.header + len(payload)):
        scripted.script.room.extend([1, BlockingIOError()])
        try:
            counts.append(scripted.transport.send_one(payload[sum(counts):]))
        except BlockingIOError:
            pass
    assert counts == [1] * len(payload) and scripted.heard() == payload and not scripted.transport.unsent


def test_what_is_reported_is_not_counted_again(scripted: Scripted) -> None:
    scripted.script.room.extend([scripted.header + 2, BlockingIOError()])
    assert scripted.transport.send_one(b"payload") == 2
    counts: list[int] = []
    scripted.transport.report(counts)
    assert counts == [5] and not scripted.transport.begun and scripted.transport.unsent
    scripted.transport.report(counts)
    assert counts == [5]
    assert scripted.transport.send_one(b"behind it") == 9
    assert scripted.heard() == b"payloadbehind it"


def test_what_a_flush_has_sent_is_counted_by_the_next_send(scripted: Scripted) -> None:
    scripted.script.room.append(BlockingIOError())
    with pytest.raises(BlockingIOError):
        scripted.transport.send_one(b"payload")
    scripted.transport.flush()
    assert not scripted.transport.unsent and scripted.transport.begun
    assert scripted.transport.send_one(b"payload") == 7
    assert scripted.heard() == b"payload"


def test_at_the_end_is_known_what_has_gone_and_was_not_counted(scripted: Scripted) -> None:
    scripted.script.room.extend([BlockingIOError(), scripted.header + 3, BlockingIOError()])
    with pytest.raises(BlockingIOError):
        scripted.transport.send_one(b"payload")
    scripted.transport.flush()
    assert scripted.transport.unreported() == 3 and scripted.transport.unreported() == 0
    assert scripted.heard() == b"pay"


def test_at_the_end_is_known_what_has_gone_under_tls(sockets: tuple[socket.socket, socket.socket],
                                                     tls_contexts: Contexts) -> None:
    below = TLSTransport(PlainTransport(sockets[1]), tls_contexts[1], server_side=False, server_hostname="localhost")
    server = WebSocketTransport(TLSTransport(PlainTransport(sockets[0]), tls_contexts[0], server_side=True),
                                server_opening())
    client = WebSocketTransport(below, client_opening())
    shake(server, client)
    sent = 0
    with pytest.raises(BlockingIOError):
        while True:
            sent += client.send_one(b"x" * 1000)
    got = b""
    while below.unsent:
        got += receive(server) or b""
        below.flush()
    assert client.unreported() == 1000
    while (chunk := receive(server)) is not None:
        got += chunk
    assert len(got) == sent + 1000


def test_a_large_payload_goes_through_a_small_buffer(sides: Pair) -> None:
    one, other = sides
    payload = bytes(range(256)) * 1000
    sent, got = 0, b""
    deadline = time.monotonic() + PATIENCE
    while len(got) < len(payload):
        sent += send(one, payload[sent:])
        got += receive(other) or b""
        assert time.monotonic() < deadline
    assert got == payload and sent == len(payload)


# Answers

def test_a_ping_is_answered_and_payload_behind_it_comes(scripted: Scripted) -> None:
    scripted.says(scripted.other.ping(b"?"))
    assert receive(scripted.transport) is None
    assert scripted.script.sent == [scripted.frame(Opcode.PONG, b"?")]
    scripted.says(scripted.other.ping(b"!"), scripted.binary(b"payload"))
    assert receive(scripted.transport) == b"payload"
    assert scripted.script.sent[1:] == [scripted.frame(Opcode.PONG, b"!")]


def test_the_latest_answer_waits_for_the_end_of_the_frame_that_is_being_sent(scripted: Scripted) -> None:
    scripted.script.room.extend([scripted.header + 1, BlockingIOError()])
    assert scripted.transport.send_one(b"payload") == 1
    for number in range(1000):
        scripted.script.room.append(BlockingIOError())
        scripted.says(scripted.other.ping(b"%d" % number))
        assert receive(scripted.transport) is None
    assert scripted.transport.unsent
    scripted.transport.flush()
    assert not scripted.transport.unsent
    assert b"".join(scripted.script.sent) == (scripted.frame(Opcode.BINARY, b"payload")
                                              + scripted.frame(Opcode.PONG, b"999"))


def test_pings_without_end_do_not_keep_a_call_inside(scripted: Scripted) -> None:
    left = len(scripted.other.ping()) * 10_000
    scripted.says(scripted.other.ping() * 10_000)
    while left:
        assert receive(scripted.transport) is None
        before, left = left, sum(len(piece) for piece in scripted.script.incoming if isinstance(piece, bytes))
        assert 0 < before - left <= 8192


# The end

def test_the_end_of_what_is_sent_is_the_end_of_what_is_received(sides: Pair) -> None:
    one, other = sides
    one.send_one(b"last words")
    one.end_sending()
    assert receive_all(other, meanwhile=one.flush) == b"last words"
    assert other.readable and receive(other) == b""
    assert receive_all(one, meanwhile=other.flush) == b"", "the answer to a Close frame is a Close frame"


def test_a_close_waits_behind_what_was_not_taken(sides: Pair) -> None:
    one, other = sides
    sent = 0
    while (count := send(one, b"a" * 65_536)) == 65_536:
        sent += count
    sent += count
    counts: list[int] = []
    one.report(counts)
    one.end_sending()
    assert one.unsent
    got = receive_all(other, meanwhile=one.flush)
    assert got == b"a" * (sent + sum(counts)) and not one.unsent


def test_who_has_said_goodbye_still_hears_what_was_on_its_way(sides: Pair) -> None:
    one, other = sides
    other.send_one(b"on its way")
    one.end_sending()
    assert receive(one) == b"on its way"


@pytest.mark.parametrize("closing", ["here", "there"])
def test_nothing_is_sent_behind_a_close(sides: Pair, closing: str) -> None:
    one, other = sides
    if closing == "here":
        one.end_sending()
    else:
        other.end_sending()
        assert receive_all(one) == b""
    with pytest.raises(BrokenPipeError) as caught:
        one.send_one(b"too late")
    assert caught.value.errno == errno.EPIPE and not one.begun
    one.end_sending()
    assert receive_all(other) == b""


def test_a_close_is_answered_behind_the_frame_that_is_being_sent(scripted: Scripted) -> None:
    scripted.script.room.extend([scripted.header + 1, BlockingIOError(), BlockingIOError()])
    assert scripted.transport.send_one(b"payload") == 1
    scripted.other.close(1001)
    scripted.says(scripted.other.take_answers())
    assert receive(scripted.transport) == b"" and scripted.transport.unsent
    assert scripted.transport.send_one(b"ayload") == 6
    with pytest.raises(BrokenPipeError):
        scripted.transport.send_one(b"more")
    assert scripted.heard() == b"payload" and scripted.other.ended and scripted.other.close_code == 1001
    scripted.transport.end_sending()
    assert scripted.script.has_ended and not scripted.script.sent


def test_an_end_without_a_close_is_a_breach_behind_what_came_before(scripted: Scripted) -> None:
    scripted.says(scripted.binary(b"payload"))
    scripted.script.incoming.append(b"")
    assert receive(scripted.transport) == b"payload"
    for _ in range(2):
        with pytest.raises(ConnectionBrokenError, match="without a Close frame"):
            scripted.transport.receive(100)
        assert scripted.transport.readable


def test_a_violation_is_answered_and_told_behind_what_came_before(scripted: Scripted) -> None:
    scripted.says(scripted.binary(b"payload"), b"\x70\0")
    assert receive(scripted.transport) == b"payload"
    for _ in range(2):
        with pytest.raises(RemoteProtocolError, match="reserved bit"):
            scripted.transport.receive(100)
    assert scripted.heard() == b"" and scripted.other.close_code == 1002


def test_an_error_below_goes_up_as_it_is(scripted: Scripted) -> None:
    scripted.says(scripted.binary(b"payload"))
    scripted.script.incoming.append(ConnectionResetError(errno.ECONNRESET, "reset"))
    assert receive(scripted.transport) == b"payload"
    with pytest.raises(ConnectionResetError):
        scripted.transport.receive(100)
    scripted.script.room.append(BrokenPipeError(errno.EPIPE, "broken"))
    with pytest.raises(BrokenPipeError):
        scripted.transport.send_one(b"payload")


def test_an_answer_that_cannot_be_sent_does_not_hide_what_has_come(scripted: Scripted) -> None:
    scripted.script.room.append(BrokenPipeError(errno.EPIPE, "broken"))
    scripted.says(scripted.other.ping(b"?"), scripted.binary(b"payload"))
    assert receive(scripted.transport) == b"payload"


def test_a_goodbye_that_cannot_be_said_is_not_tried_again(scripted: Scripted) -> None:
    scripted.script.ends.append(OSError(errno.ENOTCONN, "gone"))
    with pytest.raises(OSError):
        scripted.transport.end_sending()
    assert not scripted.transport.unsent


def test_no_more_is_returned_than_was_asked_for(scripted: Scripted) -> None:
    scripted.says(scripted.binary(b"0123456789"), scripted.binary(b"abc"))
    got: list[bytes] = []
    while sum(map(len, got)) < 13:
        got.append(scripted.transport.receive(4))
        assert scripted.transport.readable is (sum(map(len, got)) < 13)
    assert b"".join(got) == b"0123456789abc" and max(map(len, got)) == 4


# Interrupts and threads

kinds_of_strikes = pytest.mark.parametrize("kind", [
    Strike, pytest.param(SignalStrike, marks=pytest.mark.untraced)])


@kinds_of_strikes
def test_an_interrupted_send_loses_nothing_and_repeats_nothing(kind: type[Strike]) -> None:
    payload = bytes(range(200))

    def trial(strike: Strike) -> None:
        scripted = Scripted(Side.CLIENT)
        scripted.script.room.extend([4, BlockingIOError(), 50, BlockingIOError(), BlockingIOError(), 3])
        counts: list[int] = []
        again: list[bytes] = [payload]
        while sum(counts) < len(payload):
            again[0] = payload[sum(counts):]
            try:
                with strike:
                    counts.extend(map(scripted.transport.send_one, again))
            except BlockingIOError:
                pass
            except Struck:
                scripted.transport.report(counts)
        assert sum(counts) == len(payload)
        scripted.script.room.clear()
        assert scripted.transport.send_one(b"behind it") == 9
        assert scripted.heard() == payload + b"behind it"

    assert strike_everywhere(trial, kind=kind) > 50


@kinds_of_strikes
def test_an_interrupted_receive_loses_nothing_and_repeats_nothing(kind: type[Strike]) -> None:
    def trial(strike: Strike) -> None:
        scripted = Scripted(Side.SERVER)
        frames = [scripted.binary(b"first"), scripted.other.ping(b"?"), scripted.binary(b"second" * 30)]
        scripted.other.close(1000)
        data = b"".join([*frames, scripted.other.take_answers()])
        for start in range(0, len(data), 17):
            scripted.says(data[start:start + 17])
        got: list[bytes] = []
        while not got or got[-1]:
            try:
                with strike:
                    got.extend(map(scripted.transport.receive, (10,)))
            except (BlockingIOError, Struck):
                pass
        scripted.transport.flush()
        assert b"".join(got) == b"first" + b"second" * 30
        assert b"".join(scripted.script.sent) == b"\x8a\x01?\x88\x02\x03\xe8"

    assert strike_everywhere(trial, kind=kind) > 100


@kinds_of_strikes
def test_an_interrupted_goodbye_is_said_once(kind: type[Strike]) -> None:
    def trial(strike: Strike) -> None:
        scripted = Scripted(Side.CLIENT)
        done = False
        while not done:
            try:
                with strike:
                    scripted.transport.end_sending()
                done = True
            except Struck:
                pass
        data = b"".join(scripted.script.sent)
        assert scripted.script.has_ended and scripted.heard() == b""
        assert scripted.other.ended and len(data) == scripted.header + 2

    assert strike_everywhere(trial, kind=kind) > 10


def test_the_callers_buffer_is_let_go_of_and_may_change(scripted: Scripted) -> None:
    buffer = bytearray(b"payload")
    view = memoryview(buffer)
    scripted.script.room.append(BlockingIOError())
    with pytest.raises(BlockingIOError):
        scripted.transport.send_one(view)
    view.release()
    buffer[:] = b"something longer"
    assert scripted.transport.send_one(bytes(buffer)) == 7
    assert scripted.heard() == b"payload"


def test_one_thread_receives_while_another_sends(sockets: tuple[socket.socket, socket.socket]) -> None:
    """And answers pings, which get in between two frames: else the other end could not read them."""
    payload = bytes(range(251)) * 2000
    opening, ping, decoder = client_opening(), WebSocket(Side.CLIENT).ping(b"?" * 100), WebSocket(Side.CLIENT)
    server = WebSocketTransport(PlainTransport(sockets[0]), server_opening())
    server.feed(opening.request)
    server.handshake()
    opening.receive(sockets[1].recv(1000))
    assert opening.over and opening.error is None
    deadline = time.monotonic() + PATIENCE

    def wait(sock: socket.socket, *, write: bool) -> None:
        assert time.monotonic() < deadline
        select.select([] if write else [sock], [sock] if write else [], [], 0.05)

    def send_from_server() -> None:
        sent = 0
        while sent < len(payload):
            try:
                sent += server.send_many([payload[sent:sent + 3000], payload[sent + 3000:sent + 5000]])
            except BlockingIOError:
                wait(sockets[0], write=True)

    def receive_at_server() -> bytes:
        got = b""
        while len(got) < len(payload):
            try:
                got += server.receive(65_536)
            except BlockingIOError:
                if not server.readable:
                    wait(sockets[0], write=False)
        return got

    def send_from_client() -> None:
        encoder = WebSocket(Side.CLIENT)
        data = b"".join(b"".join(encoder.encode(payload[start:start + 1000])) + ping
                        for start in range(0, len(payload), 1000))
        while data:
            try:
                data = data[sockets[1].send(data):]
            except BlockingIOError:
                wait(sockets[1], write=True)

    def receive_at_client() -> bytes:
        got = b""
        while len(got) < len(payload):
            try:
                got += decoder.receive(sockets[1].recv(65_536))
            except BlockingIOError:
                wait(sockets[1], write=False)
        return got

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call) for call in (send_from_server, send_from_client)]
        received = [pool.submit(call) for call in (receive_at_server, receive_at_client)]
        assert [call.result() for call in received] == [payload, payload]
        assert [call.result() for call in calls] == [None, None]
    assert decoder.error is None and not server.begun


# In its place

class OnAChannel:
    """A server's end, that of a `Channel` on a loop that the test drives."""

    def __init__(self, *incoming: bytes | OSError) -> None:
        self.loop, self.sock, self.user = Loop(), Socket(), User()
        self.script = Script(*incoming)
        self.transport = WebSocketTransport(self.script, server_opening(), random=bytes)
        self.other = WebSocket(Side.CLIENT)
        self.channel = Channel(as_any(self.loop), as_any(self.sock), self.transport, as_any(Outlet()), self.user)

    def open(self) -> None:
        self.script.feed(client_opening().request)
        self.channel.open(10.0)
        self.loop.run()
        self.channel.watch()
        self.told()
        self.heard()

    def comes(self, data: bytes) -> None:
        self.script.feed(data)
        self.loop.tell(self.sock, READ)

    def told(self) -> list[Any]:
        told, self.user.told = self.user.told, []
        return told

    def heard(self) -> bytes:
        heard, self.script.sent = self.script.sent, b""
        return heard


def test_a_channel_shakes_hands_and_tells_of_payload() -> None:
    end = OnAChannel()
    request = client_opening().request
    end.channel.open(10.0)
    for start in range(0, len(request), 50):
        assert end.channel.shaking and end.loop.events(end.sock) == READ
        end.comes(request[start:start + 50])
    assert end.told() == [("shaken", None)] and end.heard().startswith(b"HTTP/1.1 101 ")
    end.channel.watch()
    end.comes(b"".join(end.other.encode(b"payload")))
    assert end.told() == [b"payload"]
    end.comes(end.other.ping(b"?"))
    assert end.told() == ["nothing"] and end.heard() == b"\x8a\x01?"


def test_a_channel_hears_of_a_refusal() -> None:
    end = OnAChannel(client_opening("https://evil.example").request)
    end.channel.open(10.0)
    (what, error), = end.told()
    assert what == "shaken" and isinstance(error, RemoteProtocolError)
    assert end.heard().startswith(b"HTTP/1.1 403 ")


def test_a_channel_waits_for_room_for_a_pong() -> None:
    end = OnAChannel()
    end.open()
    end.script.room = 0
    end.comes(end.other.ping(b"?"))
    assert end.loop.events(end.sock) == READ | WRITE
    end.script.room = None
    end.channel.flush()
    end.channel.watch()
    assert end.heard() == b"\x8a\x01?" and end.loop.events(end.sock) == READ


def test_a_channel_ends_when_the_other_end_closes() -> None:
    end = OnAChannel()
    end.open()
    last = b"".join(end.other.encode(b"last"))
    end.other.close(1001)
    end.comes(last + end.other.take_answers())
    end.loop.tell(end.sock, READ)
    assert end.told() == [b"last", ("ended", None)] and end.heard() == b"\x88\x02\x03\xe9"
    end.channel.leave(1.0, answered=True)
    assert end.told() == [("left", False)] and end.script.ended and not end.heard()


def test_a_channel_takes_leave_with_a_close_and_drops_what_comes_before_the_answer() -> None:
    end = OnAChannel()
    end.open()
    end.loop.machine.missing = 1  # bytes that are not acknowledged yet
    end.channel.leave(1.0, answered=True)
    assert end.heard() == b"\x88\x02\x03\xe8" and end.script.ended
    end.comes(b"".join(end.other.encode(b"dropped")))
    assert end.told() == []
    end.other.close()
    end.comes(end.other.take_answers())
    assert end.told() == [("left", False)] and not end.heard()


def test_a_channel_is_upgraded_by_what_its_first_bytes_are() -> None:
    """As in ``netmsg.messaging.greeting``: told by the first bytes, over a transport that has been in use."""
    loop, sock, user, script = Loop(), Socket(), User(), Script()
    channel = Channel(as_any(loop), as_any(sock), script, as_any(Outlet()), user)
    channel.open(None)
    channel.watch()
    other, request = WebSocket(Side.CLIENT), client_opening().request
    script.feed(request[:4])
    loop.tell(sock, READ)
    assert user.told.pop() == request[:4]
    transport = WebSocketTransport(script, server_opening())
    transport.feed(request[:4])
    channel.upgrade(transport, 10.0)
    script.feed(request[4:] + b"".join(other.encode(b"at once")))
    loop.tell(sock, READ)
    assert user.told == [("shaken", None), ("shaken", None)] and channel.transport is transport
    assert script.sent.startswith(b"HTTP/1.1 101 ")
    assert transport.readable, "no event will come: who upgrades a channel has it receive"
    channel.receive()
    assert user.told[2:] == [b"at once"]


def test_a_client_of_another_implementation_is_served(sockets: tuple[socket.socket, socket.socket]) -> None:
    """A real one, in a thread of its own."""
    server = WebSocketTransport(PlainTransport(sockets[0]), server_opening())
    messages = [b"", b"a", b"b" * 126, b"c" * 100_000]

    def be_client() -> tuple[bytes, int | None]:
        sockets[1].setblocking(True)
        with connect("ws://localhost/", sock=sockets[1], compression=None, origin=wrong(ORIGIN), max_size=None,
                     proxy=None) as client:
            got = b""
            for message in messages:
                client.send(message)
            assert client.ping(b"?").wait(PATIENCE)
            while len(got) < sum(map(len, messages)):
                piece = client.recv(PATIENCE)
                assert isinstance(piece, bytes)
                got += piece
        return got, client.protocol.close_code

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(be_client)
        deadline = time.monotonic() + PATIENCE
        while server.handshaking:
            assert time.monotonic() < deadline
            select.select([sockets[0]], [], [], 0.05)
            try:
                server.handshake()
            except BlockingIOError:
                pass
        echo = b""
        while (chunk := receive(server)) != b"":
            assert time.monotonic() < deadline
            echo += chunk or b""
            echo = echo[send(server, echo):]
            if not chunk:
                select.select([sockets[0]], [sockets[0]] if echo else [], [], 0.05)
        server.flush()
        sockets[0].shutdown(socket.SHUT_WR)  # the other end waits for that: who serves ends the connection
        assert call.result() == (b"".join(messages), 1000)
