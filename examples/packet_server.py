"""A server of packets: each line of JSON that a client sends goes back to it, with the number of lines so far.

    python3 examples/packet_server.py
    python3 examples/packet_client.py

The handler runs in one of eight worker threads; a client that says nothing costs none. With a certificate and its key
(``tls_server.py`` says how to make them) it speaks TLS:

    python3 examples/packet_server.py --certificate cert.pem --key key.pem
    python3 examples/packet_client_threads.py --ca cert.pem
"""

import argparse
import ssl
import sys
from typing import Any

from netmsg import JSONCodec, PacketConnection, PacketServer, create_tcp_server


def handle(client: PacketConnection[Any], packet: object) -> None:
    client.state = (client.state or 0) + 1
    client.send_packet({"number": client.state, "packet": packet})


def main() -> None:
    parser = argparse.ArgumentParser(description="Send every packet back.")
    parser.add_argument("--port", type=int, default=9000, help="port to listen on, 0 for a free one (%(default)s)")
    parser.add_argument("--certificate", help="PEM file with the certificate: with TLS")
    parser.add_argument("--key", help="PEM file with its private key")
    args = parser.parse_args()

    context = None
    if args.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(args.certificate, args.key)
    with PacketServer(handle, create_tcp_server(args.port, ssl_context=context), codec=JSONCodec()) as server:
        print("listening on port", server.port)
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
