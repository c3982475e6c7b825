"""The real aiomsg as a program: it does what it is told on standard input and answers on standard output.

Runs under an interpreter that has aiomsg, and knows nothing of netmsg. A request is one line of JSON,
``{"n": 1, "do": "bind", ...}``; the answer is ``{"n": 1, "result": ...}`` or ``{"n": 1, "error": "..."}``. Requests are
worked on side by side, each answered when it is done. The end of the input is the end of the program. Payloads and
identities are in hexadecimal.

aiomsg is used as it is, but for being watched: its connections, its messages without acknowledgement and the frames it
reads are counted, so that a request can wait for them. Its heartbeat, 5 s and 15 s, can be made quicker. The one of
2019, which speaks the legacy dialect, hands asyncio an argument that is not there any more, and is kept from it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import aiomsg

LONGEST_REQUEST = 2**25
LEGACY = not hasattr(aiomsg, "envelope")


class Bell:
    """Rung whenever something has changed, for those who wait for a condition."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()
        self._rung = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._rung.wait()


BELL = Bell()
FRAMES: Counter[str] = Counter()
"""How many frames have been read, by their first byte; of the legacy dialect, by what that would be."""


class Connections(aiomsg.ConnectionsDict):  # type: ignore[misc]
    """The connections of a socket, which tell when one comes or goes."""

    def __setitem__(self, identity: bytes, connection: Any) -> None:
        super().__setitem__(identity, connection)
        BELL.ring()

    def __delitem__(self, identity: bytes) -> None:
        super().__delitem__(identity)
        BELL.ring()


class Unacknowledged(dict[bytes, asyncio.TimerHandle]):
    """The messages without acknowledgement. aiomsg pops those acknowledged, and deletes those it sends again."""

    def __init__(self) -> None:
        super().__init__()
        self.acknowledged = 0
        self.resent = 0

    def pop(self, message_id: bytes, default: Any = None) -> Any:
        handle = super().pop(message_id, default)
        self.acknowledged += handle is not None
        BELL.ring()
        return handle

    def __delitem__(self, message_id: bytes) -> None:
        super().__delitem__(message_id)
        self.resent += 1
        BELL.ring()


def count_legacy_frames() -> None:
    read = aiomsg.msgproto.read_msg
    known: WeakSet[Any] = WeakSet()

    async def counting(reader: Any) -> Any:
        body = await read(reader)
        if reader not in known:
            known.add(reader)
            kind = "0x01"  # the identity
        elif body == b"aiomsg-heartbeat":
            kind = "0x02"
        else:
            kind = {b"\0REQ\0": "0x04", b"\0REP\0": "0x05"}.get(body[16:21], "0x03")
        FRAMES[kind] += 1
        BELL.ring()
        return body

    aiomsg.msgproto.read_msg = counting


TASKS: list[Any] = []


def keep_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
    """Neither aiomsg nor asyncio does: they would be collected at some time."""
    TASKS.append(asyncio.Task(coroutine, loop=loop, **options))
    return TASKS[-1]


def without_its_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, loop=None, **options: function(*arguments, **options)


def count_frames() -> None:
    decode = aiomsg.envelope.decode

    def counting(envelope: bytes) -> Any:
        FRAMES[f"{envelope[0]:#04x}"] += 1
        BELL.ring()
        return decode(envelope)

    aiomsg.envelope.decode = counting


def quicken_heartbeat(interval: float, timeout: float) -> None:
    class Connection(aiomsg.Connection):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.heartbeat_interval = interval
            self.heartbeat_timeout = timeout

    aiomsg.Connection = Connection


def tls_context(files: dict[str, str] | None, purpose: ssl.Purpose) -> ssl.SSLContext | None:
    """For mutual TLS, from PEM files: ``authority``, and ``certificate`` with its key."""
    if files is None:
        return None
    context = ssl.create_default_context(purpose, cafile=files["authority"])
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(files["certificate"])
    return context


def name_of(identity: bytes) -> str:
    """Of a peer. In the legacy dialect a HELLO of version 1 is taken for an identity, two bytes and all."""
    return identity[2:].hex() if LEGACY and len(identity) == 18 else identity.hex()


class Requests:
    """What can be asked for; a socket is named by the number that ``bind`` or ``connect`` gave it."""

    def __init__(self) -> None:
        self._sockets: dict[int, aiomsg.Søcket] = {}
        self._connect_tasks: list[Any] = []
        self._count = 0

    def _make(self, mode: str, guarantee: str) -> tuple[int, aiomsg.Søcket]:
        sock = aiomsg.Søcket(aiomsg.SendMode[mode], aiomsg.DeliveryGuarantee[guarantee])
        sock._connections = Connections()
        sock.waiting_for_acks = Unacknowledged()
        self._count += 1
        self._sockets[self._count] = sock
        return self._count, sock

    async def bind(self, port: int, tls: dict[str, str] | None, mode: str, guarantee: str) -> dict[str, Any]:
        number, sock = self._make(mode, guarantee)
        await sock.bind("127.0.0.1", port, tls_context(tls, ssl.Purpose.CLIENT_AUTH))
        return {"socket": number, "identity": sock.identity.hex(), "port": sock.server.sockets[0].getsockname()[1]}

    async def connect(self, ports: list[int], tls: dict[str, str] | None, mode: str, guarantee: str) -> dict[str, Any]:
        number, sock = self._make(mode, guarantee)
        for port in ports:
            await sock.connect("127.0.0.1", port, tls_context(tls, ssl.Purpose.SERVER_AUTH))
            # aiomsg keeps the task of its latest connect() alone, and asyncio none: the others are collected at some
            # time, and then never connect.
            self._connect_tasks.append(getattr(sock, "connect_task", None))
        return {"socket": number, "identity": sock.identity.hex(), "port": 0}

    async def send(self, socket: int, messages: list[str], to: str | None) -> None:
        identity = None if to is None else next(
            (peer for peer in self._sockets[socket]._connections if name_of(peer) == to), bytes.fromhex(to))
        for message in messages:
            await self._sockets[socket].send(bytes.fromhex(message), identity)

    async def receive(self, socket: int, count: int) -> list[tuple[str, str]]:
        """``count`` messages with their senders."""
        received = [await self._sockets[socket].recv_identity() for _ in range(count)]
        return [(name_of(identity), message.hex()) for identity, message in received]

    async def receive_until(self, socket: int, last: str) -> list[tuple[str, str]]:
        """The messages before ``last``, with their senders."""
        received: list[tuple[str, str]] = []
        while True:
            identity, message = await self._sockets[socket].recv_identity()
            if message.hex() == last:
                return received
            received.append((name_of(identity), message.hex()))

    async def echo(self, socket: int, count: int) -> None:
        """Send ``count`` messages back to where they came from."""
        sock = self._sockets[socket]
        for _ in range(count):
            identity, message = await sock.recv_identity()
            await sock.send(message, identity)

    async def wait_for_peers(self, socket: int, count: int) -> list[str]:
        """Wait until exactly ``count`` peers are connected: their identities."""
        connections = self._sockets[socket]._connections
        await BELL.until(lambda: len(connections) == count)
        return [name_of(identity) for identity in connections]

    async def wait_for_acks(self, socket: int, count: int) -> dict[str, int]:
        """Wait until ``count`` messages have been acknowledged since the socket was made: how things stand then."""
        waiting = self._sockets[socket].waiting_for_acks
        await BELL.until(lambda: waiting.acknowledged >= count)
        return {"acknowledged": waiting.acknowledged, "waiting": len(waiting), "resent": waiting.resent}

    async def wait_for_frames(self, kind: str, count: int) -> dict[str, int]:
        """Wait until ``count`` frames that begin with ``kind`` have been read by this process: all it has read."""
        await BELL.until(lambda: FRAMES[kind] >= count)
        return dict(FRAMES)

    async def close(self, socket: int) -> None:
        sock = self._sockets.pop(socket)
        await (sock.close(1.0) if LEGACY else sock.close())  # that of 2019 waits in vain, once it has bound

    async def close_all(self) -> None:
        for socket in list(self._sockets):
            await self.close(socket)


async def answer(requests: Requests, request: dict[str, Any]) -> None:
    number, name = request.pop("n"), request.pop("do")
    try:
        say({"n": number, "result": await getattr(requests, name)(**request)})
    except Exception as error:
        say({"n": number, "error": repr(error)})


def say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


async def main(options: argparse.Namespace) -> None:
    if LEGACY:
        asyncio.get_running_loop().set_task_factory(keep_task)
        count_legacy_frames()
        asyncio.open_connection = without_its_loop(asyncio.open_connection)
    else:
        count_frames()
    if options.heartbeat:
        quicken_heartbeat(*options.heartbeat)
    lines = asyncio.StreamReader(LONGEST_REQUEST)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    requests = Requests()
    say({"n": 0, "result": {"pid": os.getpid()}})
    under_way = set()
    async for line in lines:
        task = asyncio.create_task(answer(requests, json.loads(line)))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    for task in under_way:
        task.cancel()
    await requests.close_all()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heartbeat", nargs=2, type=float, metavar=("INTERVAL", "TIMEOUT"), help="in seconds")
    asyncio.run(main(parser.parse_args()))
