"""Call a function of ``rpc_server.py``, and print what it returns.

    python3 examples/rpc_server.py
    python3 examples/rpc_client.py add 1 2
    python3 examples/rpc_client.py upper '"hello"'
"""

import argparse
import json
import sys

from netmsg import JSONCodec, PacketClient


def main() -> int:
    parser = argparse.ArgumentParser(description="Call a function.")
    parser.add_argument("--host", default="localhost", help="where the server is (%(default)s)")
    parser.add_argument("--port", type=int, default=8886, help="the server's port (%(default)s)")
    parser.add_argument("method", help="add, sleep or upper")
    parser.add_argument("parameters", nargs="*", help="as JSON has them")
    args = parser.parse_args()

    request = {"jsonrpc": "2.0", "id": 1, "method": args.method, "params": [json.loads(one) for one in args.parameters]}
    with PacketClient((args.host, args.port), JSONCodec(), connect_timeout=5) as client:
        client.send_packet(request)
        reply = client.recv_packet(timeout=30)
    if "error" in reply:
        print(reply["error"]["message"])
        return 1
    print(reply["result"])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
