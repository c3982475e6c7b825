"""Give a name and print the greeting, under TLS: the client of ``tls_server.py``.

    python3 examples/tls_server.py cert.pem key.pem
    python3 examples/tls_client.py cert.pem
"""

import argparse
import ssl
import sys

from netmsg import connect_tcp


def main() -> None:
    parser = argparse.ArgumentParser(description="Be greeted by tls_server.py.")
    parser.add_argument("authority", help="PEM file with the certificate to trust")
    parser.add_argument("--host", default="localhost", help="host to connect to (%(default)s)")
    parser.add_argument("--port", type=int, default=1234, help="port to connect to (%(default)s)")
    parser.add_argument("--name", default="Client", help="whom to greet (%(default)s)")
    args = parser.parse_args()

    context = ssl.create_default_context(cafile=args.authority)
    with connect_tcp(args.host, args.port, ssl_context=context, timeout=10) as client:
        client.send_all(args.name.encode() + b"\n")
        print(client.receive_until(b"\n", 1024, timeout=10).decode())
        assert client.tls is not None
        print("by", client.tls.version)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
