"""A client of packets: whatever JSON can express goes out and comes back whole. One thing after the other is shown:
connecting, sending and receiving, timeouts, what is no packet, several at once, options of the socket, the end.

    python3 examples/packet_server.py
    python3 examples/packet_client.py
"""

import argparse
import socket
import sys

from netmsg import EndOfStream, JSONCodec, PacketClient, PacketDecodeError, PacketEncodeError


def main() -> None:
    parser = argparse.ArgumentParser(description="Send packets, and print what comes back.")
    parser.add_argument("--host", default="localhost", help="where the server is (%(default)s)")
    parser.add_argument("--port", type=int, default=9000, help="the server's port (%(default)s)")
    args = parser.parse_args()

    # Everything about connecting is done here: the name is looked up, all its addresses are tried.
    with PacketClient((args.host, args.port), JSONCodec(), connect_timeout=30, max_recv_size=1024) as client:
        print("Connected to", client.remote_address)

        client.send_packet({"data": 42})
        print("Received", client.recv_packet(timeout=30))

        try:
            client.recv_packet(timeout=0.1)
        except TimeoutError:
            print("Nothing more for now")

        try:
            client.send_packet(object())
        except PacketEncodeError as error:
            print("Not sent:", error)

        for number in range(3):
            client.send_packet(number)
        for packet in client.iter_received_packets(timeout=0.5):  # half a second of waiting in all
            print("Received", packet)

        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        print("Keep-alive:", bool(client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)))

        client.send_packet("last")
        client.send_eof()  # nothing more to say; what the server still has to say comes
        try:
            while True:
                try:
                    print("Received", client.recv_packet(timeout=30))
                except PacketDecodeError as error:
                    print("Not JSON:", error.data)  # and the next packet comes nevertheless
        except EndOfStream:
            print("The server has finished")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
