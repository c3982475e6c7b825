"""WebSocket's opening handshake, both halves, and what they make of anything else."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.envelopes import pieces
from support.wrong import wrong
from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from netmsg.errors import RemoteProtocolError
from netmsg.wire.websocket_opening import ANY_ORIGIN, LONGEST_HEADER_SECTION, ClientOpening, ServerOpening

ORIGIN = "https://example.org"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""Both from section 1.3 of the RFC."""

REQUEST = {"Host": "server.example.com", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": KEY,
           "Origin": ORIGIN, "Sec-WebSocket-Version": "13"}
ANSWER = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}


def message(first: str, headers: dict[str, str], *more: str) -> bytes:
    lines = [first, *(f"{name}: {value}" for name, value in headers.items()), *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def request(*more: str, first: str = "GET /chat?a=b HTTP/1.1", without: str = "", **changed: str) -> bytes:
    """A good one, but for ``changed`` headers, whose names are written with underscores, and some ``more`` lines."""
    headers = REQUEST | {name.replace("_", "-"): value for name, value in changed.items()}
    headers.pop(without, None)
    return message(first, headers, *more)


def answer(*more: str, first: str = "HTTP/1.1 101 Switching Protocols", without: str = "", **changed: str) -> bytes:
    headers = ANSWER | {name.replace("_", "-"): value for name, value in changed.items()}
    headers.pop(without, None)
    return message(first, headers, *more)


def server() -> ServerOpening:
    return ServerOpening([ORIGIN, "http://localhost:8000"])


def client() -> ClientOpening:
    return ClientOpening("server.example.com", 80, "/chat", random=lambda size: base64.b64decode(KEY))


def refused(data: bytes) -> tuple[str, dict[str, str], str]:
    """The status, the headers and the text with which ``data`` is."""
    opening = server()
    said = opening.receive(data)
    head, _, body = said.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert opening.over and opening.rest == b""
    assert isinstance(opening.error, RemoteProtocolError) and status.split()[1] in str(opening.error)
    assert headers["Connection"].split(", ")[0] == "close" and headers["Content-Length"] == str(len(body))
    assert body.endswith(b".\r\n") and body.strip().decode() in str(opening.error)
    return status.removeprefix("HTTP/1.1 "), headers, body.decode()


# The server's half

def test_the_example_of_the_rfc_is_accepted() -> None:
    opening = server()
    assert opening.receive(request()) == answer()
    assert opening.over and opening.error is None
    assert (opening.path, opening.origin, opening.rest) == ("/chat?a=b", ORIGIN, b"")


@given(st.lists(st.integers(0, 300), max_size=30))
def test_a_request_is_the_same_in_any_pieces_and_what_follows_it_is_kept(cuts: list[int]) -> None:
    opening = server()
    said, rest = b"", b""
    for piece in pieces(request() + b"\x82\x00\r\n\r\nframes", cuts):
        if opening.over:
            rest += piece
        else:
            said += opening.receive(piece)
    assert said == answer()
    assert opening.rest + rest == b"\x82\x00\r\n\r\nframes"


def test_a_request_a_byte_at_a_time_is_answered_at_its_last_byte_and_soon() -> None:
    opening = server()
    data = request(Cookie="x" * 7500)
    begun = time.process_time()
    said = [opening.receive(bytes((byte,))) for byte in data]
    assert b"".join(said[:-1]) == b"" and said[-1] == answer()
    assert time.process_time() - begun < 2


@pytest.mark.parametrize("data", [
    request(Upgrade="WebSocket", Connection="keep-alive, UPGRADE"),
    request(Upgrade="h2c,websocket"),
    request("upgrade: h2c", "connection: close"),
    request("X-Empty:", "X-Odd:\t\xe4 value, with \"all\" of it \t"),
    request(first="GET http://server.example.com/chat?a=b HTTP/1.1"),
    request(Origin="HTTPS://Example.org"),
    request(Origin="http://localhost:8000"),
    request(without="Origin"),
    request(Content_Length="0"),
    request(Sec_WebSocket_Extensions="permessage-deflate", Sec_WebSocket_Protocol="chat"),
])
def test_good_requests_are_accepted_and_nothing_is_negotiated(data: bytes) -> None:
    opening = server()
    assert opening.receive(data) == answer() and opening.error is None


@pytest.mark.parametrize("data, text", [
    (b"\r\n\r\n", "not a request"),
    (b"GET /\r\n\r\n", "not a request"),
    (request(first="GET /  HTTP/1.1"), "not a request"),
    (request(first="GET / HTTP/1.0"), "not a request"),
    (request(first="GET / HTTP/2"), "not a request"),
    (request(first="GET /\xe4 HTTP/1.1"), "not a request"),
    (request(first="GET /\nX: y HTTP/1.1"), "not a request"),
    (request(" folded"), "malformed"),
    (request("no colon"), "malformed"),
    (request("Name : value"), "malformed"),
    (request(": value"), "malformed"),
    (request("Name: a\nOther: b"), "malformed"),
    (request("Name: a\rb"), "malformed"),
    (request("Name: a\0b"), "malformed"),
    (request(without="Host"), "host is missing"),
    (request("host: another"), "host stands there more than once"),
    (request("origin: another"), "origin stands there more than once"),
    (request("sec-websocket-key: another"), "key stands there more than once"),
    (request("sec-websocket-version: 13"), "version stands there more than once"),
    (request(Content_Length="5"), "has a body"),
    (request(Content_Length="0", CONTENT_LENGTH="0"), "content-length stands there more than once"),
    (request(Transfer_Encoding="chunked"), "has a body"),
    (request(without="Sec-WebSocket-Key"), "sec-websocket-key is not"),
    (request(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25j"), "sec-websocket-key is not"),
    (request(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ"), "sec-websocket-key is not"),
    (request(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ== "[:-2] + "\xe4="), "sec-websocket-key is not"),
    (request(Sec_WebSocket_Key="!" + KEY), "sec-websocket-key is not"),
])
def test_malformed_requests_are_refused(data: bytes, text: str) -> None:
    status, _, body = refused(data)
    assert status == "400 Bad Request" and text in body


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "get"])
def test_another_method_is_refused(method: str) -> None:
    status, headers, _ = refused(request(first=f"{method} / HTTP/1.1"))
    assert status == "405 Method Not Allowed" and headers["Allow"] == "GET"


@pytest.mark.parametrize("data", [
    request(without="Upgrade"), request(without="Connection"), request(Upgrade="h2c"), request(Connection="close"),
    request(Upgrade="websockets"), request(Connection="upgraded"), message("GET / HTTP/1.1", {"Host": "localhost"})])
def test_a_request_that_is_no_upgrade_is_told_which_one_would_do(data: bytes) -> None:
    status, headers, _ = refused(data)
    assert status == "426 Upgrade Required" and headers["Upgrade"] == "websocket"
    assert headers["Connection"] == "close, Upgrade"


@pytest.mark.parametrize("data", [request(Sec_WebSocket_Version="8"), request(Sec_WebSocket_Version="13, 8"),
                                  request(Sec_WebSocket_Version="013"), request(without="Sec-WebSocket-Version")])
def test_another_version_is_told_which_one_would_do(data: bytes) -> None:
    status, headers, _ = refused(data)
    assert status == "426 Upgrade Required" and headers["Sec-WebSocket-Version"] == "13"


@pytest.mark.parametrize("origin", ["https://example.org.evil.example", "http://example.org", "https://example.org:444",
                                    "null", "", "*", "https://example.org, http://localhost:8000"])
def test_pages_of_other_origins_are_refused(origin: str) -> None:
    status, _, body = refused(request(Origin=origin))
    assert status == "403 Forbidden" and "example" not in body


@pytest.mark.parametrize("origin", ["https://example.com", "null"])
def test_any_origin_is_allowed_where_that_is_spelled_out(origin: str) -> None:
    opening = ServerOpening([ANY_ORIGIN])
    assert opening.receive(request(Origin=origin)) == answer() and opening.origin == origin
    closed = ServerOpening([])
    assert b" 403 " in closed.receive(request(Origin=origin)) and closed.error is not None


def of_size(size: int) -> bytes:
    return request(Cookie="x" * (size - len(request(Cookie=""))))


@pytest.mark.parametrize("piece", [1, 1000, LONGEST_HEADER_SECTION, 100_000])
def test_the_header_section_is_bounded(piece: int) -> None:
    for data, status in ((of_size(LONGEST_HEADER_SECTION) + b"frames" * 2000, b"101 Switching Protocols"),
                         (of_size(LONGEST_HEADER_SECTION + 1), b"431 Request Header Fields Too Large"),
                         (b"GET /" + b"x" * 100_000, b"431 Request Header Fields Too Large")):
        opening = server()
        said = b""
        fed = 0
        while not opening.over:
            said += opening.receive(data[fed:fed + piece])
            fed += piece
        assert said.startswith(b"HTTP/1.1 " + status)
        assert fed < LONGEST_HEADER_SECTION + piece


@given(st.one_of(
    st.binary(max_size=200).map(lambda data: b"GET " + data + b"\r\n\r\n"),
    st.tuples(st.integers(0, 250), st.binary(max_size=9)).map(
        lambda change: request()[:change[0]] + change[1] + request()[change[0] + 1:])))
def test_anything_at_all_is_answered_or_waited_for(data: bytes) -> None:
    opening = server()
    said = opening.receive(data)
    assert bool(said) is opening.over
    if opening.over:
        assert said.startswith(b"HTTP/1.1 101 " if opening.error is None else b"HTTP/1.1 4")


def test_a_line_full_of_blanks_takes_no_time() -> None:
    opening = server()
    begun = time.process_time()
    opening.receive(request("Name: x" + " \t" * 3500 + "\0"))
    assert opening.error is not None and time.process_time() - begun < 1


# The client's half

def test_the_request_is_that_of_the_rfc() -> None:
    assert client().request == message("GET /chat HTTP/1.1", {
        "Host": "server.example.com", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13"})


@pytest.mark.parametrize("host, port, secure, authority", [
    ("localhost", 25000, False, "localhost:25000"), ("localhost", 80, False, "localhost"),
    ("localhost", 80, True, "localhost:80"), ("localhost", 443, True, "localhost"),
    ("localhost", 443, False, "localhost:443"), ("127.0.0.1", 1, False, "127.0.0.1:1"),
    ("::1", 25000, False, "[::1]:25000"), ("fe80::1%eth0", 80, False, "[fe80::1]")])
def test_the_host_is_that_of_the_url(host: str, port: int, secure: bool, authority: str) -> None:
    lines = ClientOpening(host, port, secure=secure).request.decode().split("\r\n")
    assert lines[:2] == ["GET / HTTP/1.1", f"Host: {authority}"]


def test_every_key_is_another_one() -> None:
    assert len({ClientOpening("localhost", 80).request for _ in range(10)}) == 10


def test_headers_are_added() -> None:
    opening = ClientOpening("localhost", 80, headers={"Authorization": "Bearer x y", "Origin": ORIGIN, "X": "ä"})
    assert b"\r\nAuthorization: Bearer x y\r\nOrigin: https://example.org\r\nX: \xe4\r\n\r\n" in opening.request


@pytest.mark.parametrize("name, value", [
    ("X", "a\r\nY: b"), ("X", "a\nb"), ("X", "a\rb"), ("X", "a\0b"), ("X", "\u20ac"),
    ("X\r\nY", "a"), ("X Y", "a"), ("X:", "a"), ("", "a"), ("Ä", "a"), ("X\n", "a"),
    ("Host", "a"), ("UPGRADE", "a"), ("connection", "a"), ("Content-Length", "1"), ("Transfer-Encoding", "chunked"),
    ("Sec-WebSocket-Key", "a"), ("sec-websocket-protocol", "a"), ("Sec-WebSocket-Extensions", "a")])
def test_headers_that_would_break_the_request_are_not_added(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="header"):
        ClientOpening("localhost", 80, headers={name: value})


@pytest.mark.parametrize("host, path", [
    ("local host", "/"), ("localhost\r\nX: y", "/"), ("", "/"), ("localhost", ""), ("localhost", "path"),
    ("localhost", "/a b"), ("localhost", "/\r\nX: y"), ("localhost", "/\u00e4"), ("localhost", "/\n")])
def test_hosts_and_paths_that_would_break_the_request_are_not_asked_for(host: str, path: str) -> None:
    with pytest.raises(ValueError):
        ClientOpening(host, 80, path)


@given(st.lists(st.integers(0, 200), max_size=30))
def test_an_answer_is_the_same_in_any_pieces_and_what_follows_it_is_kept(cuts: list[int]) -> None:
    opening = client()
    rest = b""
    for piece in pieces(answer() + b"frames", cuts):
        if opening.over:
            rest += piece
        else:
            opening.receive(piece)
    assert opening.over and opening.error is None and opening.rest + rest == b"frames"


@pytest.mark.parametrize("data", [
    answer(Upgrade="WebSocket", Connection="upgrade, keep-alive"), answer("Server: x", first="HTTP/1.1 101"),
    answer(first="HTTP/1.1 101 Ça va")])
def test_good_answers_are_accepted(data: bytes) -> None:
    opening = client()
    opening.receive(data)
    assert opening.over and opening.error is None


@pytest.mark.parametrize("data, text", [
    (answer(first="HTTP/1.1 302 Found"), "status 302 Found"),
    (b"HTTP/1.1 403 Forbidden\r\n", "status 403 Forbidden"),
    (b"HTTP/1.0 404 Not Found\r\n", "status 404 Not Found"),
    (b"HTTP/1.1 500 " + b"x" * 8000 + b"\r\n", "status 500 " + "x" * 100),
    (answer(first="HTTP/1.0 101 Switching Protocols"), "status 101 in HTTP/1.0"),
    (answer(first="HTTP/1.1 1010"), "first line of the answer is"),
    (answer(first="HTTP/1.1 101\tx"), "first line of the answer is"),
    (b"SSH-2.0", "does not speak HTTP"), (b"\0", "does not speak HTTP"), (b"HTTP/2", "does not speak HTTP"),
    (answer(without="Upgrade"), "something else than WebSocket"),
    (answer(Upgrade="h2c"), "something else than WebSocket"),
    (answer(Upgrade="websocket, h2c"), "something else than WebSocket"),
    (answer(without="Connection"), "something else than WebSocket"),
    (answer(Connection="close"), "something else than WebSocket"),
    (answer(without="Sec-WebSocket-Accept"), "a wrong Sec-WebSocket-Accept"),
    (answer(Sec_WebSocket_Accept=ACCEPT.lower()), "a wrong Sec-WebSocket-Accept"),
    (answer(f"sec-websocket-accept: {ACCEPT}"), "accept stands there more than once"),
    (answer(Sec_WebSocket_Extensions="permessage-deflate"), "a Sec-WebSocket-Extensions"),
    (answer(Sec_WebSocket_Protocol="chat"), "a Sec-WebSocket-Protocol"),
    (answer(" folded"), "malformed"),
    (b"HTTP/1.1 101 x\r\nX: " + b"x" * 10_000, "longer than 8192 bytes"),
])
@pytest.mark.parametrize("feed", [lambda data: [data], lambda data: [bytes((byte,)) for byte in data]],
                         ids=["at once", "dripping"])
def test_other_answers_are_errors(data: bytes, text: str, feed: Callable[[bytes], list[bytes]]) -> None:
    opening = client()
    for piece in feed(data):
        if not opening.over:
            opening.receive(piece)
    assert opening.over and opening.rest == b""
    assert isinstance(opening.error, RemoteProtocolError) and text in str(opening.error)


@given(st.binary(max_size=200).map(lambda data: b"HTTP/1.1 101 \r\n" + data + b"\r\n\r\n"))
def test_any_answer_at_all_is_judged(data: bytes) -> None:
    opening = client()
    opening.receive(data)
    assert opening.over and opening.error is not None


# Both, and another implementation

def test_both_halves_agree() -> None:
    one, other = ClientOpening("::1", 25000, "/a?b", {"Origin": ORIGIN}), server()
    one.receive(other.receive(one.request))
    assert one.over and one.error is None and (other.path, other.origin) == ("/a?b", ORIGIN)


def test_the_refusal_of_one_half_is_understood_by_the_other() -> None:
    one, other = ClientOpening("localhost", 25000, headers={"Origin": "https://evil.example"}), server()
    one.receive(other.receive(one.request))
    assert "status 403 Forbidden" in str(one.error)


def test_another_implementation_is_answered() -> None:
    other = ClientProtocol(parse_uri("ws://localhost:25000/path"), origin=wrong(ORIGIN))
    other.send_request(other.connect())
    opening = server()
    other.receive_data(opening.receive(b"".join(other.data_to_send())))
    event, = other.events_received()
    assert isinstance(event, Response) and event.status_code == 101 and other.handshake_exc is None


def test_another_implementation_understands_a_refusal() -> None:
    other = ClientProtocol(parse_uri("ws://localhost:25000/path"), origin=wrong("https://evil.example"))
    other.send_request(other.connect())
    other.receive_data(server().receive(b"".join(other.data_to_send())))
    event, = other.events_received()
    assert isinstance(event, Response) and event.status_code == 403
    assert event.body == b"Pages of this origin are not allowed.\r\n"


@pytest.mark.parametrize("origin, text", [(ORIGIN, ""), ("https://evil.example", "status 403 Forbidden")])
def test_another_implementation_answers(origin: str, text: str) -> None:
    opening = ClientOpening("localhost", 25000, headers={"Origin": origin})
    other = ServerProtocol(origins=[wrong(ORIGIN)])
    other.receive_data(opening.request)
    received, = other.events_received()
    other.send_response(other.accept(wrong(received)))
    opening.receive(b"".join(other.data_to_send()))
    assert opening.over and (text in str(opening.error) if text else opening.error is None)
