"""A client over a socket that was connected elsewhere: it belongs to the client from then on.

    python3 examples/packet_server.py
    python3 examples/packet_client_socket.py
"""

import argparse
import socket
import sys

from netmsg import JSONCodec, PacketClient


def main() -> None:
    parser = argparse.ArgumentParser(description="Send one packet through a socket that is there already.")
    parser.add_argument("--host", default="localhost", help="where the server is (%(default)s)")
    parser.add_argument("--port", type=int, default=9000, help="the server's port (%(default)s)")
    args = parser.parse_args()

    sock = socket.create_connection((args.host, args.port))
    with PacketClient(sock, JSONCodec()) as client:
        client.send_packet({"data": 42})
        print("Received", client.recv_packet(timeout=30))
    print("The socket is", "closed" if sock.fileno() < 0 else "open")

    with socket.socket() as unconnected:
        try:
            PacketClient(unconnected, JSONCodec())
        except OSError as error:
            print("Another one is refused, and stays its owner's:", error.strerror)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
