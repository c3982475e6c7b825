"""A connectionless client: each line as a datagram, and what comes back. The client of ``echo_datagram_server.py``.

    python3 examples/echo_datagram_server.py
    python3 examples/echo_datagram_client.py
"""

import argparse
import sys

from netmsg import UDPSocket, UNIXDatagramSocket, create_udp_socket, create_unix_datagram_socket

MESSAGE = """\
This is a bunch of lines, each
of which will be sent in a single
UDP datagram. No error detection
or correction will occur.
Crazy bananas! £€ should go through."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Have lines echoed, a datagram each.")
    parser.add_argument("--host", default="127.0.0.1", help="host to send to (%(default)s)")
    parser.add_argument("--port", type=int, default=8883, help="port to send to (%(default)s)")
    parser.add_argument("--unix", metavar="PATH", help="a UNIX socket instead; @ is the abstract namespace")
    args = parser.parse_args()

    sock: UDPSocket | UNIXDatagramSocket
    if args.unix:
        sock = create_unix_datagram_socket(target_path=args.unix.replace("@", "\0", 1))
    else:
        sock = create_udp_socket(target_host=args.host, target_port=args.port)
    with sock:
        for line in MESSAGE.splitlines():
            data = line.encode("utf-8")
            echoed = sock.request(data, match=lambda answer: answer == data)
            print(f"RCVD {echoed.decode('utf-8')!r}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
