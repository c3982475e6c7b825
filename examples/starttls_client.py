"""Begin in the clear and go on under TLS: the client of ``starttls_server.py``.

    python3 examples/starttls_server.py cert.pem key.pem
    python3 examples/starttls_client.py cert.pem
"""

import argparse
import ssl
import sys

from netmsg import connect_tcp


def main() -> None:
    parser = argparse.ArgumentParser(description="Send lines to starttls_server.py.")
    parser.add_argument("authority", help="PEM file with the certificate to trust")
    parser.add_argument("--host", default="localhost", help="host to connect to (%(default)s)")
    parser.add_argument("--port", type=int, default=1234, help="port to connect to (%(default)s)")
    args = parser.parse_args()

    context = ssl.create_default_context(cafile=args.authority)
    with connect_tcp(args.host, args.port, ssl_context=context, autostart_tls=False, timeout=10) as client:
        client.send_all(b"DUMMY\n")
        client.send_all(b"STARTTLS\n")
        client.start_tls(timeout=10)
        # From here on everything is encrypted.
        client.send_all(b"ENCRYPTED\n")
        client.send_all(b"QUIT\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
