"""Echo servers of every kind, of lines, and what drives them: `echo_load.c`, compiled when it is first needed.

The ``sink`` is the server, its pattern says which; SIZE is that of a line, and how many connections there are is part
of the pattern: ``inline:50``. It ends when it is sent the line ``quit``, with the seconds that it was busy for.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from netmsg import LineCodec, PacketServer, StreamServer, create_tcp_server

from .contract import DEADLINE, HOST, SINK, Job, Report

QUIT = "quit "
QUIT_BYTES = QUIT.encode()
SOURCE_FILE = Path(__file__).with_name("echo_load.c")


class _Run:
    """One server process: how its handlers say that the time has come, and what it reports."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.over = threading.Event()

    def begin(self, port: int) -> None:
        self._cpu = time.process_time()
        self._job.announce(port)

    def finish(self, line: str) -> None:
        self._seconds = float(line.removeprefix(QUIT))
        self.over.set()

    def report(self) -> Report:
        return Report((time.process_time() - self._cpu) / self._seconds)


def _packets(workers: int) -> Callable[[_Run], None]:
    def serve(run: _Run) -> None:
        def handler(client: Any, packet: str) -> None:
            if packet.startswith(QUIT):
                run.finish(packet)
            client.send_packet(packet)

        with PacketServer(handler, create_tcp_server(interface=HOST), codec=LineCodec(), max_workers=workers) as server:
            run.begin(server.port)
            run.over.wait(DEADLINE)
            server.shutdown(timeout=0.1)
    return serve


def _streams(run: _Run) -> None:
    def handler(stream: Any) -> None:
        for line in stream.receive_delimited_chunks(b"\n"):
            if line.startswith(QUIT_BYTES):
                run.finish(line.decode())
            stream.send_all(line + b"\n")

    with StreamServer(handler, create_tcp_server(interface=HOST)) as server:
        run.begin(server.port)
        run.over.wait(DEADLINE)
        server.shutdown(timeout=0.1)


def _threading(run: _Run) -> None:
    class Handler(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            while line := self.rfile.readline():
                if line.startswith(QUIT_BYTES):
                    run.finish(line.decode())
                self.wfile.write(line)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 4096

    with Server((HOST, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        run.begin(server.server_address[1])
        run.over.wait(DEADLINE)
        server.shutdown()


async def _serve_asyncio(run: _Run) -> None:
    over = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line.startswith(QUIT_BYTES):
                run.finish(line.decode())
                over.set()
            writer.write(line)

    server = await asyncio.start_server(handle, HOST, 0, backlog=4096)
    run.begin(server.sockets[0].getsockname()[1])
    await over.wait()
    os._exit(_print(run.report()))  # the tasks of a thousand connections need not be taken down


def _asyncio(run: _Run) -> None:
    asyncio.run(_serve_asyncio(run))


def _uvloop(run: _Run) -> None:
    import uvloop

    uvloop.run(_serve_asyncio(run))


def _easynetwork(run: _Run) -> None:
    from easynetwork.protocol import StreamProtocol
    from easynetwork.serializers import StringLineSerializer
    from easynetwork.servers import StandaloneTCPNetworkServer
    from easynetwork.servers.handlers import AsyncStreamClient, AsyncStreamRequestHandler

    class Handler(AsyncStreamRequestHandler[str, str]):
        async def handle(self, client: AsyncStreamClient[str]) -> AsyncGenerator[None, str]:
            packet = yield
            if packet.startswith(QUIT):
                run.finish(packet)
                os._exit(_print(run.report()))
            await client.send_packet(packet)

    server = StandaloneTCPNetworkServer(HOST, 0, StreamProtocol(StringLineSerializer()), Handler(), backlog=4096)
    up = threading.Event()
    threading.Thread(target=server.serve_forever, kwargs={"is_up_event": up}, daemon=True).start()
    up.wait(DEADLINE)
    run.begin(server.get_addresses()[0].port)
    run.over.wait(DEADLINE)


SERVERS: dict[str, Callable[[_Run], None]] = {
    "inline": _packets(0), "workers": _packets(8), "streams": _streams, "threading": _threading, "asyncio": _asyncio,
    "uvloop": _uvloop, "easynetwork": _easynetwork}


def _compiled() -> Path:
    """The load generator, made anew when its source has changed. Raises ``CalledProcessError``, ``OSError``."""
    program = Path(tempfile.gettempdir()) / f"netmsg-echo-load-{os.getuid()}-{SOURCE_FILE.stat().st_mtime_ns}"
    if not program.exists():
        unfinished = program.with_suffix(f".{os.getpid()}")
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", unfinished, SOURCE_FILE], check=True)
        unfinished.rename(program)
    return program


def _print(report: Report) -> int:
    print(json.dumps(asdict(report)), flush=True)
    return 0


def _raise_limits() -> None:
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """Run the role that the command line asks for."""
    signal.alarm(DEADLINE)
    _raise_limits()
    role, pattern, size, count, port = sys.argv[1:]
    server, connections = pattern.split(":")
    if role == SINK:
        run = _Run(Job(int(size), int(count), int(port)))
        SERVERS[server](run)
        _print(run.report())
    else:
        program = _compiled()
        os.execv(program, [str(program), port, connections, size, count])


if __name__ == "__main__":
    main()
