"""Find the time servers, and ask the first of them again, by itself.

    python3 examples/multicast_time_server.py
    python3 examples/multicast_time_client.py

The question to the group may get lost like any datagram, and is asked a few times; so is the one to the server, by
``request``, which resends by itself.
"""

import argparse
import sys

from netmsg import UDPSocket, create_udp_socket

GROUP = "239.255.77.77"


def find_servers(sock: UDPSocket, port: int) -> list[tuple[str, int]]:
    found: dict[tuple[str, int], str] = {}
    for _ in range(3):
        sock.send(b"time?", GROUP, port)
        for answer, server in sock.receive_packets(timeout=0.3):
            if server not in found:
                found[server] = answer.decode()
                print(f"It is {found[server]} at {server}")
    return list(found)


def main() -> int:
    parser = argparse.ArgumentParser(description="Find time servers.")
    parser.add_argument("--port", type=int, default=8887, help="port of the group (%(default)s)")
    parser.add_argument("--interface", default="127.0.0.1", help="address of the interface (%(default)s)")
    args = parser.parse_args()

    with create_udp_socket(interface=args.interface, multicast_interface=args.interface) as sock:
        servers = find_servers(sock, args.port)
        if not servers:
            print("Nobody has answered")
            return 1
        print("And now", sock.request(b"time?", servers[0], interval=0.5).decode())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
