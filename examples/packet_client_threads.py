"""One thread sends while another receives, on one client, in the clear or under TLS: no lock is needed.

    python3 examples/packet_server.py
    python3 examples/packet_client_threads.py

With ``--ca`` it speaks TLS: see ``packet_server.py``.
"""

import argparse
import ssl
import sys
import threading
from typing import Any

from netmsg import JSONCodec, PacketClient


def send_everything(client: PacketClient[Any, Any], count: int) -> None:
    for number in range(count):
        client.send_packet({"number": number})
    client.send_eof()


def main() -> None:
    parser = argparse.ArgumentParser(description="Send and receive at the same time.")
    parser.add_argument("--host", default="localhost", help="where the server is (%(default)s)")
    parser.add_argument("--port", type=int, default=9000, help="the server's port (%(default)s)")
    parser.add_argument("--count", type=int, default=10_000, help="packets (%(default)s)")
    parser.add_argument("--ca", help="PEM file with the authority to trust: with TLS")
    args = parser.parse_args()

    context = ssl.create_default_context(cafile=args.ca) if args.ca else None
    with PacketClient((args.host, args.port), JSONCodec(), connect_timeout=30, ssl_context=context) as client:
        sender = threading.Thread(target=send_everything, args=(client, args.count))
        sender.start()
        received = sum(1 for packet in client)  # until the server has finished
        sender.join()
        print(f"{received} of {args.count} packets came back", "under TLS" if client.tls else "in the clear")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
