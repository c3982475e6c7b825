"""Mutual TLS, the end that connects: the time client of the demo, which checks whom it listens to, and is checked.

Make two pairs of certificate and key as ``examples/README.md`` says, and start both ends where those files are:

    python3 examples/tls_bind.py --cert server.cert --key server.key --verify client.cert
    python3 examples/tls_connect.py --cert client.cert --key client.key --verify server.cert

The server's certificate has to be for the ``--host`` that is connected to. A Søcket tries for ever, and quietly, as the
other end may be up later; but with certificates there is much to get wrong, so what fails is printed here until there
is a connection.
"""

import argparse
import itertools
import ssl
import sys

from netmsg import Connected, Retrying, Søcket


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the times that a verified server sends over TLS.")
    parser.add_argument("--cert", default="client.cert", help="this end's certificate, a PEM file (%(default)s)")
    parser.add_argument("--key", default="client.key", help="its key, a secret (%(default)s)")
    parser.add_argument("--verify", default="server.cert", help="what verifies the server (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="where the server is (%(default)s)")
    parser.add_argument("--port", type=int, default=25000, help="the server's port (%(default)s)")
    parser.add_argument("--count", type=int, help="end after so many messages")
    args = parser.parse_args()

    ctx = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    ctx.verify_mode = ssl.CERT_REQUIRED
    ctx.check_hostname = True
    ctx.load_verify_locations(args.verify)
    ctx.load_cert_chain(certfile=args.cert, keyfile=args.key)

    with Søcket() as sock:
        sock.connect(args.host, args.port, ssl_context=ctx)
        for event in sock.events():
            if isinstance(event, Connected):
                break
            if isinstance(event, Retrying):
                print("not connected:", event.reason)
        for message in itertools.islice(sock.messages(), args.count):
            print(message.decode())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
