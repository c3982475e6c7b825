"""Send a name to ``udp_server.py`` and print the greeting.

The socket is connected, so it hears nobody else; and ``request`` sends again what gets lost.

    python3 examples/udp_server.py
    python3 examples/udp_client.py
"""

import argparse
import sys

from netmsg import create_udp_socket


def main() -> None:
    parser = argparse.ArgumentParser(description="Be greeted by udp_server.py.")
    parser.add_argument("--host", default="127.0.0.1", help="host to send to (%(default)s)")
    parser.add_argument("--port", type=int, default=1234, help="port to send to (%(default)s)")
    parser.add_argument("--name", default="Client", help="whom to greet (%(default)s)")
    args = parser.parse_args()

    with create_udp_socket(target_host=args.host, target_port=args.port) as sock:
        print(sock.request(args.name.encode()).decode())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
