"""A server that ends in good order when it is told to: SIGTERM, Ctrl-C, or a client's word.

    python3 examples/graceful_server.py & sleep 1; echo work | nc localhost 8890 & sleep 1; kill %1; wait

From then on it accepts nobody, idle clients are let go at once, and those it is working for get their answers, for up
to five seconds.
"""

import argparse
import signal
import sys
import time

from netmsg import LineCodec, PacketConnection, PacketServer, create_tcp_server


def handle(client: PacketConnection[str], packet: str) -> None:
    if packet == "stop":
        client.server.shutdown()
    elif packet == "work":
        print("working")
        time.sleep(2)
    client.send_packet(f"{packet}: done")


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve until told to stop.")
    parser.add_argument("--port", type=int, default=8890, help="port to listen on, 0 for a free one (%(default)s)")
    args = parser.parse_args()

    server = PacketServer(handle, create_tcp_server(args.port), codec=LineCodec())
    signal.signal(signal.SIGTERM, lambda *_: server.shutdown(wait=False))
    print("listening on port", server.port)
    server.serve_forever()
    print("served", server.stats().packets_received, "packets")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
