"""WebSocket's opening handshake: one request of HTTP and one answer, after which the frames of `netmsg.wire.websocket`
follow.

Source: RFC 6455, sections 1.3, 4 and 10.2; for the form of HTTP, RFC 9112.

The server half answers what it refuses with a status and a line of text:

======  ====================================================================
status  when
======  ====================================================================
400     it is no well-formed request, or the key is missing or wrong
403     it comes from a page whose origin is not among those that are allowed
405     the method is not GET
426     no upgrade to WebSocket is asked for, or to another version than 13
431     the header section is longer than `LONGEST_HEADER_SECTION`
======  ====================================================================

Neither half ever agrees on an extension or a subprotocol.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from http import HTTPStatus
from typing import Final

from ..errors import RemoteProtocolError

__all__ = ["ANY_ORIGIN", "LONGEST_HEADER_SECTION", "ClientOpening", "ServerOpening"]

LONGEST_HEADER_SECTION: Final = 8192
"""Bytes, with the empty line at its end."""
ANY_ORIGIN: Final = "*"
"""Stands for every origin among those that are allowed."""
VERSION: Final = "13"
KEY_SIZE: Final = 16
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_END: Final = b"\r\n\r\n"
_UPGRADE: Final = "websocket"

_NAME: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE: Final = r"[\t\x20-\x7e\x80-\xff]*"
_FIELD: Final = re.compile(f"({_NAME}):({_VALUE})")
_REQUEST_LINE: Final = re.compile(rf"({_NAME}) ([\x21-\x7e]+) HTTP/1\.1")
_STATUS_LINE: Final = re.compile(rf"HTTP/1\.([01]) ([0-9]{{3}})(?: ({_VALUE}))?")
_ANSWERS_BEGIN: Final = b"HTTP/1."
_OURS: Final = {"host", "upgrade", "connection", "content-length", "transfer-encoding"}
"""The headers of a request that nobody else may set, beside those whose names begin with ``_OUR_PREFIX``."""
_OUR_PREFIX: Final = "sec-websocket-"


def _accept_of(key: str) -> str:
    """The ``Sec-WebSocket-Accept`` that proves that a server has understood (section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()).decode("ascii")


class _Refused(Exception):
    """The other half has broken a rule; ``status`` and ``fields`` are for the answer to a request."""

    def __init__(self, text: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST, *fields: str) -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.fields = fields


class _Fields:
    """The header lines below the first one."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._values: dict[str, list[str]] = {}
        for line in lines:
            match = _FIELD.fullmatch(line)
            if match is None:  # such as one that goes on with the line before it, which RFC 9112 has done away with
                raise _Refused("A header line is malformed.")
            self._values.setdefault(match[1].lower(), []).append(match[2].strip(" \t"))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def single(self, name: str) -> str:
        """The value of a header that may stand there once; empty if it does not."""
        values = self._values.get(name, [""])
        if len(values) > 1:
            raise _Refused(f"The header {name} stands there more than once.")
        return values[0]

    def tokens(self, name: str) -> set[str]:
        """The values of a header that is a list, in lower case."""
        return {token.strip(" \t").lower() for value in self._values.get(name, []) for token in value.split(",")}


class _HeaderSection:
    """The lines up to the first empty one, in pieces of any size."""

    def __init__(self) -> None:
        self._received = bytearray()

    def add(self, chunk: bytes) -> int:
        """Where it ends, once it does, and else -1. Raises `_Refused` if that is too far away."""
        received = self._received
        looked_at = max(0, len(received) - len(_END) + 1)
        received += chunk
        end = received.find(_END, looked_at, LONGEST_HEADER_SECTION)
        if end < 0 and len(received) >= LONGEST_HEADER_SECTION:
            raise _Refused(f"The header section is longer than {LONGEST_HEADER_SECTION} bytes.",
                           HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        return end

    def beginning(self, size: int) -> bytes:
        return bytes(self._received[:size])

    def first_line(self) -> str | None:
        end = self._received.find(b"\r\n", 0, LONGEST_HEADER_SECTION)
        return None if end < 0 else self._received[:end].decode("latin-1")

    def take(self, end: int) -> tuple[list[str], bytes]:
        """The lines, and what came behind them; nothing of it is kept."""
        received, self._received = self._received, bytearray()
        return received[:end].decode("latin-1").split("\r\n"), bytes(received[end + len(_END):])


class ServerOpening:
    """The half of the server: one request, which it answers (sections 4.2.1 and 4.2.2)."""

    def __init__(self, allowed_origins: Collection[str]) -> None:
        """``allowed_origins``: whose pages may connect, such as ``https://example.org``, or `ANY_ORIGIN`. A request
        that names no origin does not come from a page, and what it may do is not for this to say."""
        self._allowed = {origin.lower() for origin in allowed_origins}
        self._section = _HeaderSection()
        self.over = False
        """Whether it has been answered."""
        self.error: RemoteProtocolError | None = None
        """Why it was refused, if it was."""
        self.rest = b""
        """What came behind an accepted request: the first frames."""
        self.path = ""
        """Of an accepted request, as it stands there; with the query."""
        self.origin = ""
        """The page's, as it says; empty if there is none."""

    def receive(self, chunk: bytes) -> bytes:
        """The answer, which is to be sent, once the request is complete; and else nothing. A refused connection is to
        be closed behind it."""
        assert not self.over
        try:
            end = self._section.add(chunk)
            if end < 0:
                return b""
            lines, self.rest = self._section.take(end)
            answer = self._judge(lines)
        except _Refused as refused:
            self.rest = b""
            self.error = RemoteProtocolError(
                f"a WebSocket client was refused with status {refused.status.value}: {refused.text}")
            answer = _refusal(refused)
        self.over = True
        return answer

    def _judge(self, lines: list[str]) -> bytes:
        """The answer to a good request; raises `_Refused`."""
        match = _REQUEST_LINE.fullmatch(lines[0])
        if match is None:
            raise _Refused("The first line is not a request of HTTP/1.1.")
        method, path = match.groups()
        if method != "GET":
            raise _Refused("The method has to be GET.", HTTPStatus.METHOD_NOT_ALLOWED, "Allow: GET")
        fields = _Fields(lines[1:])
        if not fields.single("host"):
            raise _Refused("The header host is missing.")
        if "transfer-encoding" in fields or fields.single("content-length").strip("0"):
            raise _Refused("The request has a body.")  # which would be taken for frames
        if _UPGRADE not in fields.tokens("upgrade") or "upgrade" not in fields.tokens("connection"):
            raise _Refused("Only WebSocket is spoken here.", HTTPStatus.UPGRADE_REQUIRED, f"Upgrade: {_UPGRADE}")
        if fields.single("sec-websocket-version") != VERSION:
            raise _Refused(f"Only version {VERSION} of WebSocket is spoken here.", HTTPStatus.UPGRADE_REQUIRED,
                           f"Upgrade: {_UPGRADE}", f"Sec-WebSocket-Version: {VERSION}")
        key = fields.single("sec-websocket-key")
        if not _is_key(key):
            raise _Refused(f"The header sec-websocket-key is not the base64 of {KEY_SIZE} bytes.")
        origin = fields.single("origin")
        if "origin" in fields and not {origin.lower(), ANY_ORIGIN} & self._allowed:
            raise _Refused("Pages of this origin are not allowed.", HTTPStatus.FORBIDDEN)
        self.path, self.origin = path, origin
        return _message("HTTP/1.1 101 Switching Protocols", f"Upgrade: {_UPGRADE}", "Connection: Upgrade",
                        f"Sec-WebSocket-Accept: {_accept_of(key)}")


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == KEY_SIZE
    except ValueError:
        return False


def _message(*lines: str) -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _refusal(refused: _Refused) -> bytes:
    """Nothing of the request stands in it: what a page on the web makes of it is not in our hands."""
    text = f"{refused.text}\r\n"
    connection = "close, Upgrade" if refused.status is HTTPStatus.UPGRADE_REQUIRED else "close"
    return _message(f"HTTP/1.1 {refused.status.value} {refused.status.phrase}", f"Connection: {connection}",
                    *refused.fields, "Content-Type: text/plain", f"Content-Length: {len(text)}") + text.encode("ascii")


class ClientOpening:
    """The half of the client: the `request`, and what the server makes of it (sections 4.1 and 4.2.2)."""

    def __init__(self, host: str, port: int, path: str = "/", headers: Mapping[str, str] | None = None, *,
                 secure: bool = False, random: Callable[[int], bytes] = os.urandom) -> None:
        """``host``: without brackets. ``path``: with the query. ``secure``: under TLS, which has another port that
        goes without saying. ``random(size)`` returns so many bytes.

        Raises ``ValueError`` for what cannot stand in a request, and for a header that is not for others to set.
        """
        for what, text in (("host", host), ("path", path)):
            if not re.fullmatch(r"[\x21-\x7e]+", text):
                raise ValueError(f"the {what} {text!r} has characters that cannot stand in a request")
        if not path.startswith("/"):
            raise ValueError(f"the path {path!r} does not begin with a slash")
        lines = []
        for name, value in (headers or {}).items():
            _check_header(name, value)
            lines.append(f"{name}: {value}")
        key = base64.b64encode(random(KEY_SIZE)).decode("ascii")
        authority = "[" + host.partition("%")[0] + "]" if ":" in host else host  # its zone means nothing over there
        if port != (443 if secure else 80):
            authority += f":{port}"
        self.request = _message(f"GET {path} HTTP/1.1", f"Host: {authority}", f"Upgrade: {_UPGRADE}",
                                "Connection: Upgrade", f"Sec-WebSocket-Key: {key}",
                                f"Sec-WebSocket-Version: {VERSION}", *lines)
        """What is to be sent."""
        self._expected = _accept_of(key)
        self._section = _HeaderSection()
        self.over = False
        """Whether the answer has come, or as much of it as is needed to know that it is none, or no good one."""
        self.error: RemoteProtocolError | None = None
        """Why there is no WebSocket connection, if there is none; with the status, if the server has said one."""
        self.rest = b""
        """What came behind the answer: the first frames."""

    def receive(self, chunk: bytes) -> None:
        """Some of the answer."""
        assert not self.over
        try:
            end = self._section.add(chunk)
            self._judge_beginning()
            if end < 0:
                return
            lines, rest = self._section.take(end)
            self._judge(_Fields(lines[1:]))
            self.rest = rest
        except _Refused as refused:
            self.error = RemoteProtocolError(f"the WebSocket handshake failed: {refused.text}")
        self.over = True

    def _judge_beginning(self) -> None:
        """What does not speak HTTP may never send an empty line, and what refuses may have much to say about it."""
        first = self._section.beginning(len(_ANSWERS_BEGIN))
        if not _ANSWERS_BEGIN.startswith(first):
            raise _Refused(f"the other end does not speak HTTP: its first bytes are {first!r}")
        line = self._section.first_line()
        if line is None:
            return
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise _Refused(f"the first line of the answer is {line[:100]!r}")
        minor, status, reason = match.groups(default="")
        if status != "101":
            raise _Refused(f"the server answered with status {status} {reason[:100]}".rstrip())
        if minor != "1":
            raise _Refused("the server answered with status 101 in HTTP/1.0")

    def _judge(self, fields: _Fields) -> None:
        """The headers of an answer whose status is right."""
        if fields.tokens("upgrade") != {_UPGRADE} or "upgrade" not in fields.tokens("connection"):
            raise _Refused("the server answered with status 101, and upgrades to something else than WebSocket")
        if fields.single("sec-websocket-accept") != self._expected:
            raise _Refused("the server answered with status 101, and a wrong Sec-WebSocket-Accept")
        for name in ("Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"):
            if name.lower() in fields:
                raise _Refused(f"the server answered with status 101, and a {name} that was not asked for")


def _check_header(name: str, value: str) -> None:
    if not re.fullmatch(_NAME, name):
        raise ValueError(f"{name!r} is not the name of a header")
    if name.lower() in _OURS or name.lower().startswith(_OUR_PREFIX):
        raise ValueError(f"the header {name!r} belongs to the handshake itself")
    if not re.fullmatch(_VALUE, value):
        raise ValueError(f"the value of the header {name!r} has characters that cannot stand in it")
