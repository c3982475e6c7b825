"""The real aiomsg in a process of its own, as the tests see it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from netmsg import DeliveryGuarantee, SendMode

PROGRAM = Path(__file__).parent.parent / "interop" / "aiomsg_peer.py"
TIMEOUT = 15.0

Message = tuple[bytes, bytes]
"""Identity of the sender, payload."""


class AiomsgProcess:
    """A running ``aiomsg_peer.py``, to which requests are made."""

    def __init__(self, python: Path, *, heartbeat: tuple[float, float] | None = None) -> None:
        """``heartbeat``: other intervals and timeouts than aiomsg's 5 and 15 s."""
        options = [] if heartbeat is None else ["--heartbeat", *map(str, heartbeat)]
        self._process = subprocess.Popen([python, "-u", PROGRAM, *options], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._stdin, False)
        self._unread = bytearray()
        self._answers: dict[int, dict[str, Any]] = {}
        self._count = 0
        try:
            self.answer(0)
        except BaseException:
            self.kill()
            raise

    def start(self, do: str, **arguments: Any) -> int:
        """Make a request, and do not wait for the `answer`: its number."""
        self._count += 1
        line = memoryview(json.dumps({"n": self._count, "do": do, **arguments}).encode() + b"\n")
        deadline = time.monotonic() + TIMEOUT
        while line:
            if not select.select([], [self._stdin], [], max(0.0, deadline - time.monotonic()))[1]:
                raise TimeoutError(f"aiomsg did not take the request {do!r}")
            line = line[os.write(self._stdin, line):]
        return self._count

    def answer(self, number: int, timeout: float = TIMEOUT) -> Any:
        """The answer to request ``number``; those to others are kept for them."""
        deadline = time.monotonic() + timeout
        while number not in self._answers:
            if not select.select([self._stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"aiomsg did not answer request {number} within {timeout:g} s")
            chunk = os.read(self._stdout, 1 << 20)
            if not chunk:
                raise EOFError(f"aiomsg ended, with status {self._process.wait(TIMEOUT)}")
            *lines, self._unread = (self._unread + chunk).split(b"\n")
            for line in lines:
                document = json.loads(line)
                self._answers[document["n"]] = document
        document = self._answers.pop(number)
        if "error" in document:
            raise RuntimeError(f"aiomsg: {document['error']}")
        return document["result"]

    def call(self, do: str, **arguments: Any) -> Any:
        """Make a request and wait for its answer."""
        return self.answer(self.start(do, **arguments))

    def bind(self, port: int = 0, *, tls: dict[str, str] | None = None, mode: SendMode = SendMode.ROUNDROBIN,
             guarantee: DeliveryGuarantee = DeliveryGuarantee.AT_MOST_ONCE) -> AiomsgSocket:
        made = self.call("bind", port=port, tls=tls, mode=mode.name, guarantee=guarantee.name)
        return AiomsgSocket(self, made)

    def connect(self, *ports: int, tls: dict[str, str] | None = None, mode: SendMode = SendMode.ROUNDROBIN,
                guarantee: DeliveryGuarantee = DeliveryGuarantee.AT_MOST_ONCE) -> AiomsgSocket:
        made = self.call("connect", ports=ports, tls=tls, mode=mode.name, guarantee=guarantee.name)
        return AiomsgSocket(self, made)

    def wait_for_frames(self, kind: int, count: int) -> dict[int, int]:
        """Wait until aiomsg has read so many frames of one type: how many it has read, by type."""
        frames = self.call("wait_for_frames", kind=f"{kind:#04x}", count=count)
        return {int(name, 16): number for name, number in frames.items()}

    def close_sockets(self) -> None:
        self.call("close_all")

    def pause(self) -> None:
        """SIGSTOP, and wait until it has taken effect."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """``kill -9``, also while it is paused. Idempotent."""
        self._process.kill()
        self._end()

    def close(self) -> None:
        """Let it end by itself."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(TIMEOUT)
        finally:
            self.kill()

    def _end(self) -> None:
        self._process.wait(TIMEOUT)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


class AiomsgSocket:
    """A Søcket of aiomsg's."""

    def __init__(self, process: AiomsgProcess, made: dict[str, Any]) -> None:
        self.identity = bytes.fromhex(made["identity"])
        self.port: int = made["port"]
        """Where it is bound; 0 if it is not."""
        self._process = process
        self._number = made["socket"]

    def send(self, *messages: bytes, to: bytes | None = None) -> None:
        self._process.call("send", socket=self._number, messages=[message.hex() for message in messages],
                           to=None if to is None else to.hex())

    def receive(self, count: int) -> list[Message]:
        return _messages(self._process.call("receive", socket=self._number, count=count))

    def receive_until(self, last: bytes) -> list[Message]:
        """The messages before ``last``."""
        return _messages(self._process.call("receive_until", socket=self._number, last=last.hex()))

    def start_echo(self, count: int) -> None:
        """Send the next ``count`` messages back to their senders, in the background."""
        self._process.start("echo", socket=self._number, count=count)

    def wait_for_peers(self, count: int) -> set[bytes]:
        """Wait until exactly ``count`` peers are connected: their identities."""
        return {bytes.fromhex(identity)
                for identity in self._process.call("wait_for_peers", socket=self._number, count=count)}

    def wait_for_acks(self, count: int) -> dict[str, int]:
        """Wait until ``count`` messages have been acknowledged: how many are ``acknowledged``, are still ``waiting``,
        and have been ``resent`` then."""
        found: dict[str, int] = self._process.call("wait_for_acks", socket=self._number, count=count)
        return found

    def close(self) -> None:
        self._process.call("close", socket=self._number)


def _messages(pairs: Sequence[Sequence[str]]) -> list[Message]:
    return [(bytes.fromhex(identity), bytes.fromhex(message)) for identity, message in pairs]


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port of 127.0.0.1 that nobody is given by chance, and on which one after another can listen.

    It stays bound, without listening, by a socket that allows its address to be used again.
    """
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.bind(("127.0.0.1", 0))
        yield reservation.getsockname()[1]
