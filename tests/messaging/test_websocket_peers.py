"""Peers that come, or are reached, by WebSocket: the real `websockets` package and netmsg itself at the other end."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from support.pairs import TIMEOUT, Background, until, wait_for_event
from support.websocket_streams import WebSocketStream
from support.wire_peer import DATA, HELLO, WirePeer, dial, frame, hello, listening
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve

from netmsg import Connected, ConnectFailedError, DeliveryGuarantee, HandshakeFailed, Retrying, Søcket

PAGE = "https://example.org"


class Page:
    """A peer in a browser's place: frames of version 1 in binary messages."""

    def __init__(self, websocket: Any) -> None:
        self.websocket = websocket
        self.identity = b"page".ljust(16, b".")
        self.wire = WirePeer(WebSocketStream(websocket), self.identity)

    def send(self, *frames: bytes) -> None:
        self.websocket.send(b"".join(frames))


@contextmanager
def page(sock: Søcket, **options: Any) -> Iterator[Page]:
    with connect(f"ws://127.0.0.1:{sock.bound_port}/", origin=options.pop("origin", PAGE), compression=None,
                 max_size=None, **options) as websocket:
        yield Page(websocket)


@pytest.fixture
def sock() -> Iterator[Søcket]:
    with Søcket(linger=0) as sock:
        yield sock.bind(port=0, websocket_origins=[PAGE])


# Those who come


def test_a_page_of_an_allowed_origin_is_a_peer(sock: Søcket) -> None:
    with page(sock) as peer:
        peer.wire.shake_hands(frame(DATA, b"hello"))
        assert sock.recv_identity(timeout=TIMEOUT) == (peer.identity, b"hello")
        sock.send(b"x" * 300_000, peer.identity)
        assert peer.wire.read_kind(DATA)[1] == b"x" * 300_000
        (info,) = sock.peers()
        assert info.dialect == "version 1" and info.tls is None


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_frames_may_be_cut_into_messages_anyhow(sock: Søcket, size: int) -> None:
    with page(sock) as peer:
        said = hello(peer.identity) + b"".join(frame(DATA, b"%d" % number) for number in range(20))
        for at in range(0, len(said), size):
            peer.send(said[at:at + size])
        assert [sock.recv(timeout=TIMEOUT) for _ in range(20)] == [b"%d" % number for number in range(20)]


def test_messages_behind_the_request_are_read(sock: Søcket) -> None:
    """All in one segment, masked by nothing but zeros."""
    with dial(sock.bound_port) as peer:
        said = hello(peer.identity) + frame(DATA, b"hasty")
        peer.send(b"GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
                  + bytes((0x82, 0x80 | len(said))) + bytes(4) + said)
        assert sock.recv(timeout=TIMEOUT) == b"hasty"


def test_every_dialect_comes_by_the_same_port(sock: Søcket) -> None:
    with page(sock) as one, dial(sock.bound_port) as two, dial(sock.bound_port) as three, Søcket(linger=0) as four:
        one.wire.shake_hands()
        two.shake_hands()
        three.send(frame(0, b"")[:3] + b"\x10" + three.identity)  # aiomsg of 2019
        four.connect(f"ws://127.0.0.1:{sock.bound_port}/")
        sock.wait_for_peers(4, timeout=TIMEOUT)
        assert sorted(info.dialect for info in sock.peers()) == ["legacy", "version 1", "version 1", "version 1"]


@pytest.mark.parametrize("origins, origin, status", [
    ([PAGE], "https://evil.example", 403), ([], PAGE, 403), ([], None, 403), (["https://other.example"], PAGE, 403)])
def test_pages_of_other_origins_are_refused_and_an_event_says_so(origins: list[str], origin: Any, status: int) -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0, websocket_origins=origins)
        with pytest.raises(InvalidStatus) as caught, page(sock, origin=origin):
            pass
        assert caught.value.response.status_code == status
        assert "WebSocket" in wait_for_event(sock, HandshakeFailed).reason
        assert not sock.peers()


@pytest.mark.parametrize("origins, origin", [(["*"], "https://evil.example"), (["*"], None), ([PAGE], None),
                                             ([PAGE.upper()], PAGE)])
def test_others_are_let_in(origins: list[str], origin: Any) -> None:
    with Søcket(linger=0) as sock:
        sock.bind(port=0, websocket_origins=origins)
        with page(sock, origin=origin) as peer:
            peer.wire.shake_hands()
            wait_for_event(sock, Connected)


@pytest.mark.parametrize("request_, status", [
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"426"), (b"GET / HTTP/1.0\r\n\r\n", b"400"),
    (b"GET /" + b"x" * 9000, b"431"),
])
def test_a_request_that_is_no_upgrade_is_answered(sock: Søcket, request_: bytes, status: bytes) -> None:
    with dial(sock.bound_port) as peer:
        peer.send(request_)
        assert peer.read_exactly(12) == b"HTTP/1.1 " + status
        peer.wait_for_end()
    assert wait_for_event(sock, HandshakeFailed).reason.startswith("WebSocket: ")


def test_a_request_that_never_ends_is_the_end_of_that_connection() -> None:
    with Søcket(linger=0, handshake_timeout=0.2) as sock:
        sock.bind(port=0, websocket_origins=["*"])
        with dial(sock.bound_port) as peer:
            peer.send(b"GET / HTTP/1.1\r\n")
            peer.wait_for_end()
        assert "handshake" in wait_for_event(sock, HandshakeFailed).reason


def test_text_is_refused_with_1003(sock: Søcket) -> None:
    with page(sock) as peer:
        peer.wire.shake_hands()
        peer.websocket.send("text")
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                peer.websocket.recv(timeout=TIMEOUT)
        assert caught.value.rcvd is not None and caught.value.rcvd.code == 1003
    until(lambda: not sock.peers())


def test_a_websocket_in_a_websocket_is_a_stranger(sock: Søcket) -> None:
    with page(sock) as peer:
        peer.send(b"GET / HTTP/1.1\r\n")
        assert "WebSocket" in wait_for_event(sock, HandshakeFailed).reason


def test_pings_are_answered_and_a_goodbye_is_returned(sock: Søcket) -> None:
    with page(sock) as peer:
        peer.wire.shake_hands()
        assert peer.websocket.ping().wait(TIMEOUT)
        peer.send(frame(DATA, b"last"))
        peer.websocket.close()
        assert peer.websocket.close_code == 1000
    assert sock.recv(timeout=TIMEOUT) == b"last"
    until(lambda: not sock.peers())


def test_over_tls_and_over_a_unix_socket(tmp_path: Any, tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server_tls, client_tls = tls_contexts
    with Søcket(linger=1) as sock, Søcket(linger=1) as other:
        sock.bind("wss://localhost:0", ssl_context=server_tls)
        assert sock.bound_urls[0].startswith("wss://")
        other.connect(f"wss://localhost:{sock.bound_port}", ssl_context=client_tls)
        other.send(b"x" * 500_000)
        assert sock.recv(timeout=TIMEOUT) == b"x" * 500_000
        (info,) = sock.peers()
        assert info.tls is not None
        sock.bind_unix(tmp_path / "socket", websocket_origins=["*"])
        with ExitStack() as stack:
            from websockets.sync.client import unix_connect
            websocket = stack.enter_context(unix_connect(str(tmp_path / "socket"), "ws://localhost/"))
            Page(websocket).wire.shake_hands(frame(DATA, b"by UNIX"))
            assert sock.recv(timeout=TIMEOUT) == b"by UNIX"


# Those who are reached


@contextmanager
def server(answer: Any, **options: Any) -> Iterator[Server]:
    with serve(answer, "127.0.0.1", 0, compression=None, **options) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


def echo(websocket: ServerConnection) -> None:
    peer = WirePeer(WebSocketStream(websocket))
    peer.shake_hands()
    while True:
        try:
            _, body = peer.read_kind(DATA)
        except EOFError:
            return
        peer.send(frame(DATA, body))


def test_a_websocket_server_is_reached_and_reached_again() -> None:
    seen: list[Any] = []

    def once(websocket: ServerConnection) -> None:
        assert websocket.request is not None
        seen.append((websocket.request.path, websocket.request.headers.get("Authorization")))
        if len(seen) == 1:
            WirePeer(WebSocketStream(websocket)).shake_hands()
        else:
            echo(websocket)

    with server(once) as running, Søcket(linger=0) as sock:
        port = running.socket.getsockname()[1]
        sock.connect(f"ws://127.0.0.1:{port}/chat?room=1", websocket_headers={"Authorization": "Bearer x"})
        until(lambda: len(seen) == 2)
        sock.wait_for_peers(timeout=TIMEOUT)
        for size in (0, 1, 125, 126, 65_535, 65_536, 200_000):
            sock.send(b"x" * size)
            assert sock.recv(timeout=TIMEOUT) == b"x" * size
        assert seen == [("/chat?room=1", "Bearer x")] * 2


@pytest.mark.parametrize("status", [301, 403, 404, 503])
def test_who_refuses_is_named_with_the_status(status: int) -> None:
    def refuse(connection: ServerConnection, request: Any) -> Any:
        return connection.respond(status, "no")

    with server(echo, process_request=refuse) as running, Søcket(linger=0) as sock:
        sock.connect(f"ws://127.0.0.1:{running.socket.getsockname()[1]}")
        event = wait_for_event(sock, Retrying)
        assert str(status) in event.reason and isinstance(event.error, ConnectFailedError)
        with pytest.raises(TimeoutError, match=str(status)):
            sock.wait_for_peers(timeout=0.01)


def test_who_does_not_speak_it_is_told_from_who_does() -> None:
    with listening() as listener, Søcket(linger=0) as sock:
        sock.connect(f"ws://127.0.0.1:{listener.getsockname()[1]}")
        conn, _ = listener.accept()
        with conn:
            conn.sendall(hello(b"i" * 16))
            assert "WebSocket" in wait_for_event(sock, Retrying).reason


def test_what_fails_below_it_is_said_to_have_failed_there(
        tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """Nobody trusts the certificate."""
    server_tls, _ = tls_contexts
    with Søcket(linger=0) as sock, Søcket(linger=0) as other:
        sock.bind("wss://localhost:0", ssl_context=server_tls)
        other.connect(f"wss://localhost:{sock.bound_port}")
        assert wait_for_event(other, HandshakeFailed).phase == "TLS"
        assert wait_for_event(sock, HandshakeFailed).phase == "TLS"


@pytest.mark.parametrize("guarantee", DeliveryGuarantee)
def test_between_two_of_netmsg_everything_goes_as_ever(guarantee: DeliveryGuarantee) -> None:
    with Søcket(delivery_guarantee=guarantee) as one, Søcket(delivery_guarantee=guarantee) as two:
        one.bind("ws://127.0.0.1:0/")
        two.connect(one.bound_urls[0])
        sent = [b"%d" % number * (number % 50) for number in range(3000)]
        sending = Background(two.send_many, sent)
        assert [one.recv(timeout=TIMEOUT) for _ in sent] == sent
        sending.result()
        asking = Background(two.request, b"what", timeout=TIMEOUT)
        one.recv_delivery(timeout=TIMEOUT).reply(b"that")
        assert asking.result() == b"that"
        (info,) = two.peers()
        one.send(b"named", two.identity)
        assert two.recv(timeout=TIMEOUT) == b"named" and info.identity == one.identity
        assert two.close() == 0


def test_a_broken_connection_is_made_again_and_nothing_at_least_once_is_lost() -> None:
    with Søcket(linger=0) as server_one, Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE) as sock:
        server_one.bind("ws://127.0.0.1:0")
        sock.connect(server_one.bound_urls[0])
        receipts = [sock.send(b"%d" % number) for number in range(100)]
        assert server_one.recv(timeout=TIMEOUT) == b"0"
        port = server_one.bound_port
        server_one.close(linger=0)
        with Søcket(linger=0) as server_two:
            server_two.bind(f"ws://127.0.0.1:{port}")
            got = [server_two.recv(timeout=TIMEOUT) for _ in range(99)]
            assert got == [b"%d" % number for number in range(1, 100)]
            for receipt in receipts:
                receipt.wait(timeout=TIMEOUT)


# What is refused at once


@pytest.mark.parametrize("origins, error", [
    ("https://example.org", TypeError), ([5], TypeError), (["example.org"], ValueError),
    (["https://example.org/path"], ValueError), (["https://"], ValueError), ([""], ValueError),
    (["https://example.org:443"], ValueError), (["http://[::1]:80"], ValueError),
    (["https://*.example.org"], ValueError)])
def test_what_is_no_origin_is_refused(origins: Any, error: type[Exception]) -> None:
    with Søcket() as sock:
        with pytest.raises(error, match="websocket_origins"):
            sock.bind(port=0, websocket_origins=origins)


@pytest.mark.parametrize("headers", [{"A": "b\r\nC: d"}, {"Upgrade": "h2c"}, {"a b": "c"}])
def test_headers_that_cannot_be_sent_are_refused(headers: dict[str, str]) -> None:
    with Søcket() as sock:
        with pytest.raises(ValueError):
            sock.connect("ws://127.0.0.1:1", websocket_headers=headers)
        with pytest.raises(ValueError, match="ws://"):
            sock.connect("tcp://127.0.0.1:1", websocket_headers={"A": "b"})


def test_hello_is_what_is_said_first() -> None:
    """By who has dialled, within WebSocket."""
    said: list[tuple[int, bytes]] = []

    def listen(websocket: ServerConnection) -> None:
        said.append(WirePeer(WebSocketStream(websocket)).read_frame())

    with server(listen) as running, Søcket(linger=0) as sock:
        sock.connect(f"ws://127.0.0.1:{running.socket.getsockname()[1]}")
        until(lambda: bool(said))
        assert said[0] == (HELLO, b"\x01" + sock.identity)
