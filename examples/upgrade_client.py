"""Ping in the clear, upgrade, and ping again: the client of ``upgrade_server.py``.

    python3 examples/upgrade_server.py cert.pem key.pem
    python3 examples/upgrade_client.py cert.pem
"""

import argparse
import ssl
import sys

from netmsg import connect_tcp


def main() -> None:
    parser = argparse.ArgumentParser(description="Talk to upgrade_server.py, before and after an upgrade to TLS.")
    parser.add_argument("authority", help="PEM file with the certificate to trust")
    parser.add_argument("--host", default="localhost", help="host to connect to (%(default)s)")
    parser.add_argument("--port", type=int, default=10001, help="port to connect to (%(default)s)")
    args = parser.parse_args()

    context = ssl.create_default_context(cafile=args.authority)
    with connect_tcp(args.host, args.port, ssl_context=context, autostart_tls=False, timeout=10) as client:
        for upgraded in (False, True):
            if upgraded:
                print("Sending upgrade")
                client.send_all(b"upgrade\n")
                client.start_tls(timeout=10)
            print("The connection is", client.tls.version if client.tls else "in the clear")
            print("Sending ping")
            client.send_all(b"ping\n")
            print("Received:", client.receive_until(b"\n", timeout=10).decode())
        print("Sending quit")
        client.send_all(b"quit\n")
    print("Client disconnected")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
