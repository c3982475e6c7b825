r"""``tcp_server.py`` under TLS. A certificate for trying it out:

    openssl req -x509 -newkey rsa:2048 -subj '/CN=localhost' -addext 'subjectAltName=DNS:localhost' \
        -keyout key.pem -out cert.pem -nodes -days 365
    python3 examples/tls_server.py cert.pem key.pem
    python3 examples/tls_client.py cert.pem
"""

import argparse
import ssl
import sys
import threading

from netmsg import EndOfStream, SocketStream, TLSHandshakeError, create_tcp_server


def serve(client: SocketStream) -> None:
    with client:
        try:
            name = client.receive_until(b"\n", 1024, timeout=30)
        except (EndOfStream, TLSHandshakeError):
            return
        client.send_all(b"Hello, %s\n" % name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Say hello to TLS clients.")
    parser.add_argument("certificate", help="PEM file with the certificate")
    parser.add_argument("key", help="PEM file with its private key")
    parser.add_argument("--host", default="localhost", help="interface to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=1234, help="port to listen on, 0 for a free one (%(default)s)")
    args = parser.parse_args()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(args.certificate, args.key)
    with create_tcp_server(args.port, args.host, ssl_context=context) as server:
        print("listening on port", server.port)
        for client in server.accept_connections():
            threading.Thread(target=serve, args=(client,)).start()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
