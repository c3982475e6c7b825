"""Opportunistic TLS: lines in the clear until the client says ``STARTTLS``, and encrypted ones from there on.

The iterator over the lines goes on across the upgrade. What somebody may have injected in the clear behind the line
``STARTTLS`` is never taken for a line of the client's.

    python3 examples/starttls_server.py cert.pem key.pem
    python3 examples/starttls_client.py cert.pem
"""

import argparse
import ssl
import sys

from netmsg import SocketStream, create_tcp_server


def serve(client: SocketStream) -> None:
    with client:
        for line in client.receive_delimited_chunks(b"\n", 100, timeout=30):
            print(f'Received "{line.decode()}"', "encrypted" if client.tls else "in the clear")
            if line == b"STARTTLS":
                client.start_tls(timeout=10)
            elif line == b"QUIT":
                return


def main() -> None:
    parser = argparse.ArgumentParser(description="Receive lines, and upgrade to TLS on request.")
    parser.add_argument("certificate", help="PEM file with the certificate")
    parser.add_argument("key", help="PEM file with its private key")
    parser.add_argument("--host", default="localhost", help="interface to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=1234, help="port to listen on, 0 for a free one (%(default)s)")
    args = parser.parse_args()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(args.certificate, args.key)
    with create_tcp_server(args.port, args.host, ssl_context=context, autostart_tls=False) as server:
        print("listening on port", server.port)
        for client in server.accept_connections():
            try:
                serve(client)
            except OSError as error:  # whatever the client or the network did
                print("lost a client:", error)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
