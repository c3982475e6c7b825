"""Targets: WebSocket, its opening and its frames, at both ends."""

from __future__ import annotations

import base64
import re
from typing import Final

from netmsg.errors import RemoteProtocolError
from netmsg.wire.websocket import LONGEST_CONTROL_PAYLOAD, LONGEST_HEADER, Side, WebSocket
from netmsg.wire.websocket_opening import LONGEST_HEADER_SECTION, ClientOpening, ServerOpening

from .inputs import Input

__all__ = ["FROM_THE_CLIENT", "MASKING_KEY", "WE_CLOSE", "client_openings", "server_openings", "websocket_frames"]

KEY: Final = b"the sample nonce"
MASKING_KEY: Final = b"\x37\xfa\x21\x3d"
FROM_THE_CLIENT: Final = 0x01
"""If this bit of the choice is set, it is the server that is tested."""
WE_CLOSE: Final = 0x02
"""If this one is, it has sent a Close frame before."""
REFUSED: Final = (400, 403, 405, 426, 431)
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def drawn_key(size: int) -> bytes:
    return (KEY if size == len(KEY) else MASKING_KEY)[:size]


# Frames

def read_plainly(data: bytes, masked: bool) -> tuple[bytes, str]:
    """The payload that is in ``data``, and how that ends: ``closed``, ``wrong``, or nothing. From the RFC alone."""
    payload = b""
    position = 0
    in_message = False
    while len(data) - position >= 2:
        first, second = data[position:position + 2]
        fin, opcode, length = first >> 7, first & 15, second & 127
        if first & 0x70 or opcode not in (CONTINUATION, BINARY, CLOSE, PING, PONG) or second >> 7 != masked:
            return payload, "wrong"
        if opcode & 8 and (not fin or length > 125):
            return payload, "wrong"
        if not opcode & 8 and (opcode == CONTINUATION) != in_message:
            return payload, "wrong"
        position += 2
        wide = {126: 2, 127: 8}.get(length, 0)
        if wide:
            number = data[position:position + wide]
            if len(number) < wide:
                break
            length = int.from_bytes(number, "big")
            if length < (126 if wide == 2 else 1 << 16) or length >> 63:
                return payload, "wrong"
            position += wide
        key = data[position:position + 4] if masked else bytes(4)
        position += 4 * masked
        body = bytes(byte ^ key[at % 4] for at, byte in enumerate(data[position:position + length])
                     ) if len(key) == 4 else b""
        if not opcode & 8:
            payload += body
            in_message = not fin
        elif len(body) < length or len(key) < 4:
            break
        elif opcode == CLOSE:
            return payload, "closed" if is_a_close(body) else "wrong"
        position += length
    return payload, ""


def is_a_close(body: bytes) -> bool:
    code = int.from_bytes(body[:2], "big")
    try:
        body[2:].decode()
    except UnicodeDecodeError:
        return False
    return not body or len(body) > 1 and (code in (1000, 1001, 1002, 1003) or 1007 <= code <= 1014
                                          or 3000 <= code <= 4999)


def outcome(websocket: WebSocket) -> tuple[object, ...]:
    return (websocket.ended, str(websocket.error), websocket.close_code, websocket.close_reason, websocket.closing)


def websocket_frames(data: bytes) -> None:
    """The payload is what a plain reading finds, and so is how it ends; the answers are frames that the other end
    understands; cut otherwise it is the same. What is held is the beginning of one frame. Behind a Close frame or an
    error nothing is heard. What is sent on arrives."""
    drawn = Input(data)
    side, other_side = ((Side.SERVER, Side.CLIENT) if drawn.choice & FROM_THE_CLIENT else (Side.CLIENT, Side.SERVER))
    expected, end = read_plainly(drawn.data, side is Side.SERVER)
    found: list[tuple[object, ...]] = []
    for chunks in ([drawn.data], drawn.pieces()):
        websocket = WebSocket(side, drawn_key)
        if drawn.choice & WE_CLOSE:
            websocket.close()
        payload = b""
        for chunk in chunks:
            payload += websocket.receive(chunk)
            held = max(len(value) for value in vars(websocket).values() if isinstance(value, bytes))
            assert held <= LONGEST_HEADER + LONGEST_CONTROL_PAYLOAD
        assert payload == expected
        assert (websocket.ended, websocket.error is not None) == (end == "closed", end == "wrong")
        assert websocket.error is None or isinstance(websocket.error, RemoteProtocolError)
        if end:
            assert websocket.receive(drawn.data) == b""
            assert websocket.closing
        answers = websocket.take_answers()
        found.append((*outcome(websocket), answers))
        websocket.end_of_stream()
        assert websocket.ended or websocket.error is not None
    assert found[0] == found[1]
    assert len(answers) <= 2 * (LONGEST_HEADER + LONGEST_CONTROL_PAYLOAD)
    assert read_plainly(answers, other_side is Side.SERVER) == (b"", "closed" if websocket.closing else "")
    arrives(expected, WebSocket(side, drawn_key), WebSocket(other_side, drawn_key))


def arrives(payload: bytes, here: WebSocket, there: WebSocket) -> None:
    wire = b"".join(here.encode(payload)) + here.ping(payload[:LONGEST_CONTROL_PAYLOAD])
    assert there.receive(wire) == payload and there.error is None
    assert here.receive(there.take_answers()) == b"" and here.error is None


# Openings

def server_openings(data: bytes) -> None:
    """One answer, and the same however the request is cut; 101 for what is accepted, and one of five others with the
    error for what is not. What has been accepted has a key, a host and an origin that may be; what is behind it is kept
    to the byte. Without an answer it is no longer than the longest. Nothing of what was asked stands in a refusal."""
    drawn = Input(data)
    found = []
    for chunks in ([drawn.data], drawn.pieces()):
        opening = ServerOpening(["https://example.org"])
        answer = rest = b""
        for chunk in chunks:
            if opening.over:
                rest += chunk
                continue
            answer = opening.receive(chunk)
            assert bool(answer) is opening.over
            rest = opening.rest
        if not opening.over:
            assert len(drawn.data) < LONGEST_HEADER_SECTION and b"\r\n\r\n" not in drawn.data
        if opening.error is None and opening.over:
            accepted(opening, drawn.data, answer)
            assert drawn.data.endswith(b"\r\n\r\n" + rest)
        elif opening.over:
            refused(answer, opening)
            rest = b""
        found.append((opening.over, str(opening.error), answer, opening.path, opening.origin, rest))
    assert found[0] == found[1]


def accepted(opening: ServerOpening, request: bytes, answer: bytes) -> None:
    assert answer.startswith(b"HTTP/1.1 101 ") and answer.endswith(b"\r\n\r\n")
    section = request[:request.index(b"\r\n\r\n")].decode("latin-1")
    assert len(section) + 4 <= LONGEST_HEADER_SECTION
    assert opening.origin.lower() in ("", "https://example.org")
    assert section.startswith(f"GET {opening.path} HTTP/1.1\r\n")
    keys = re.findall(r"(?im)^sec-websocket-key:[ \t]*([^ \t\r]*)", section)
    assert len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    client = ClientOpening("example.org", 80, random=lambda size: base64.b64decode(keys[0]))
    client.receive(answer)
    if f"Sec-WebSocket-Key: {keys[0]}\r\n".encode() in client.request:  # else its last bits are not those of base64
        assert client.over and client.error is None and client.rest == b""


def refused(answer: bytes, opening: ServerOpening) -> None:
    status = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert isinstance(opening.error, RemoteProtocolError) and opening.path == opening.rest.decode() == ""
    assert status is not None and int(status[1]) in REFUSED
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nContent-Length: %d" % len(body) in head and b"\r\nConnection: close" in head
    answer.decode("ascii")


def client_openings(data: bytes) -> None:
    """However the answer is cut, it is accepted or not. What has been accepted has status 101 and proves that the key
    was read; what is behind it is kept to the byte. Who never ends is not listened to for ever."""
    drawn = Input(data)
    found = []
    for chunks in ([drawn.data], drawn.pieces()):
        opening = ClientOpening("server.example.com", 80, "/chat", random=drawn_key)
        rest = b""
        for chunk in chunks:
            if opening.over:
                rest += chunk
                continue
            opening.receive(chunk)
            rest = opening.rest
        is_accepted = opening.over and opening.error is None
        if is_accepted:
            section = drawn.data[:drawn.data.index(b"\r\n\r\n")]
            assert section.startswith(b"HTTP/1.1 101") and ACCEPT in section
            assert drawn.data.endswith(b"\r\n\r\n" + rest)
        if not opening.over:
            assert len(drawn.data) < LONGEST_HEADER_SECTION and b"\r\n\r\n" not in drawn.data
        assert opening.error is None or isinstance(opening.error, RemoteProtocolError)
        found.append((opening.over, is_accepted, rest if is_accepted else b""))
    assert found[0] == found[1]


ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""For `KEY`: section 1.3 of the RFC."""
