"""A server of three words: ``ping`` is answered with ``pong``, ``upgrade`` goes on under TLS, ``quit`` ends.

    python3 examples/upgrade_server.py cert.pem key.pem
    python3 examples/upgrade_client.py cert.pem
"""

import argparse
import ssl
import sys
import threading

from netmsg import SocketStream, create_tcp_server


def handle(client: SocketStream) -> None:
    print("Client connected")
    with client:
        for line in client.receive_delimited_chunks(b"\n", timeout=60):
            request = line.decode()
            print(f"Read '{request}'")
            if request == "quit":
                break
            if request == "ping":
                print("Sending pong")
                client.send_all(b"pong\n")
            elif request == "upgrade":
                print("Upgrading")
                client.start_tls(timeout=10)
    print("Client closed")


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer pings, and upgrade to TLS on request.")
    parser.add_argument("certificate", help="PEM file with the certificate")
    parser.add_argument("key", help="PEM file with its private key")
    parser.add_argument("--host", default="localhost", help="interface to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=10001, help="port to listen on, 0 for a free one (%(default)s)")
    args = parser.parse_args()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(args.certificate, args.key)
    with create_tcp_server(args.port, args.host, ssl_context=context, autostart_tls=False) as server:
        print("listening on port", server.port)
        for client in server.accept_connections():
            threading.Thread(target=handle, args=(client,)).start()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
