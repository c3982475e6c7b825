"""Say hello to whoever sends a datagram with a name.

    python3 examples/udp_server.py
    python3 examples/udp_client.py
"""

import argparse
import sys

from netmsg import create_udp_socket


def main() -> None:
    parser = argparse.ArgumentParser(description="Say hello to UDP clients.")
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=1234, help="port to listen on, 0 for a free one (%(default)s)")
    args = parser.parse_args()

    with create_udp_socket(port=args.port, interface=args.host) as sock:
        print("listening on port", sock.local_address[1])
        for packet, address in sock.receive_packets(1024):
            sock.send_to(b"Hello, " + packet, address)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
