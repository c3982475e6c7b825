"""Functions that can be called over the network: JSON-RPC 2.0, one request a line.

    python3 examples/rpc_server.py
    python3 examples/rpc_client.py add 1 2
    echo '{"jsonrpc":"2.0","id":1,"method":"add","params":[1,2]}' | nc -N localhost 8886
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from typing import Any

from netmsg import JSONCodec, PacketConnection, PacketServer, create_tcp_server


def add(*numbers: float) -> float:
    return math.fsum(numbers)


def sleep(seconds: float) -> str:
    time.sleep(min(seconds, 10))  # holds one of the eight workers, and nobody else
    return "awake"


FUNCTIONS: dict[str, Callable[..., Any]] = {"add": add, "sleep": sleep, "upper": str.upper}


def answer(request: Any) -> dict[str, Any]:
    number = request.get("id") if isinstance(request, dict) else None
    reply = {"jsonrpc": "2.0", "id": number}
    try:
        method, parameters = request["method"], request.get("params", [])
    except (TypeError, KeyError, AttributeError):
        return reply | {"error": {"code": -32600, "message": "not a request"}}
    if method not in FUNCTIONS:
        return reply | {"error": {"code": -32601, "message": f"there is no {method!r}"}}
    try:
        return reply | {"result": FUNCTIONS[method](*parameters)}
    except Exception as error:
        return reply | {"error": {"code": -32000, "message": repr(error)}}


def handle(client: PacketConnection[Any], request: Any) -> None:
    client.send_packet(answer(request))


def main() -> None:
    parser = argparse.ArgumentParser(description="Let functions be called.")
    parser.add_argument("--port", type=int, default=8886, help="port to listen on, 0 for a free one (%(default)s)")
    args = parser.parse_args()

    with PacketServer(handle, create_tcp_server(args.port), codec=JSONCodec()) as server:
        print("listening on port", server.port)
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
