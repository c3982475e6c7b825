"""A time server that is found by multicast: clients ask a group of addresses, and whoever serves the time answers.

    python3 examples/multicast_time_server.py
    python3 examples/multicast_time_client.py

Several may run at once; each answers. Only this machine is asked: the group is joined on the loopback interface.
"""

import argparse
import socket
import sys
import time

from netmsg import DatagramPeer, DatagramServer, create_udp_socket

GROUP = "239.255.77.77"


def handle(client: DatagramPeer[bytes], packet: bytes) -> None:
    if packet == b"time?":
        client.send_packet(time.strftime("%H:%M:%S").encode())
        print("Told", client.remote_address)


def main() -> None:
    parser = argparse.ArgumentParser(description="Tell the time to whoever asks the group.")
    parser.add_argument("--port", type=int, default=8887, help="port of the group, 0 for a free one (%(default)s)")
    parser.add_argument("--interface", default="127.0.0.1", help="address of the interface (%(default)s)")
    args = parser.parse_args()

    sock = create_udp_socket(port=args.port, interface=None, family=socket.AF_INET, reuse_port=True)
    sock.join_group(GROUP, args.interface)
    with DatagramServer(handle, sock) as server:
        print("listening on port", server.port)
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
