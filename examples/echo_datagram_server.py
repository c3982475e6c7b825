"""A connectionless server: every datagram goes back to where it came from. Over IPv4, IPv6 or a UNIX socket.

    python3 examples/echo_datagram_server.py
    python3 examples/echo_datagram_client.py

The same with ``--host ::1``, with ``--unix /tmp/echo``, and with ``--unix @echo`` (the abstract namespace of Linux),
for both. SIGTERM and Ctrl-C end it in good order.
"""

import argparse
import signal
import sys

from netmsg import UDPSocket, UNIXDatagramSocket, create_udp_socket, create_unix_datagram_socket


def main() -> None:
    parser = argparse.ArgumentParser(description="Send every datagram back.")
    parser.add_argument("--host", default="127.0.0.1", help="address to receive at (%(default)s)")
    parser.add_argument("--port", type=int, default=8883, help="port to receive at, 0 for a free one (%(default)s)")
    parser.add_argument("--unix", metavar="PATH", help="a UNIX socket instead")
    args = parser.parse_args()

    sock: UDPSocket | UNIXDatagramSocket
    if args.unix:
        sock = create_unix_datagram_socket(path=args.unix.replace("@", "\0", 1))
        print("receiving at", args.unix)
    else:
        sock = create_udp_socket(port=args.port, interface=args.host)
        print("receiving at port", sock.local_address[1])
    signal.signal(signal.SIGTERM, lambda *_: sock.close())
    with sock:
        for data, address in sock.receive_packets():
            print(f"RCVD {data!r} from {address!r}")
            sock.send_to(data, address)
    print("closed")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
