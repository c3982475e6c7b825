"""Holds many connections open that say nothing: ``idle_clients.py PORT COUNT``, until the end of its input."""

from __future__ import annotations

import resource
import socket
import sys
import time


def connect(port: int) -> socket.socket:
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=30)
        except OSError:  # the server is at its backlog's limit
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def main() -> None:
    port, count = map(int, sys.argv[1:])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sockets = [connect(port) for _ in range(count)]
    print("connected", flush=True)
    sys.stdin.read()
    for sock in sockets:
        sock.close()


main()
