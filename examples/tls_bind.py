"""Mutual TLS, the end that binds: the time server of the demo, for peers with the right certificate only.

Make two pairs of certificate and key as ``examples/README.md`` says, and start both ends where those files are:

    python3 examples/tls_bind.py --cert server.cert --key server.key --verify client.cert
    python3 examples/tls_connect.py --cert client.cert --key client.key --verify server.cert

``--verify`` names what the peers' certificates are checked against: their own certificate, the simple solution, or that
of an authority which signed them. All there is to TLS is the context that is passed to `bind`.
"""

import argparse
import itertools
import ssl
import sys
import time

from netmsg import Søcket


def main() -> None:
    parser = argparse.ArgumentParser(description="Send the current time, over TLS, to peers that can be verified.")
    parser.add_argument("--cert", default="server.cert", help="this end's certificate, a PEM file (%(default)s)")
    parser.add_argument("--key", default="server.key", help="its key, a secret (%(default)s)")
    parser.add_argument("--verify", default="client.cert", help="what verifies the peers (%(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (%(default)s)")
    parser.add_argument("--port", type=int, default=25000, help="port to bind to, 0 for a free one (%(default)s)")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between messages (%(default)s)")
    parser.add_argument("--count", type=int, help="end after so many messages")
    args = parser.parse_args()

    ctx = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ctx.verify_mode = ssl.CERT_REQUIRED
    ctx.load_verify_locations(args.verify)
    ctx.load_cert_chain(certfile=args.cert, keyfile=args.key)

    with Søcket() as sock:
        sock.bind(args.host, args.port, ssl_context=ctx)
        print("bound to port", sock.bound_port)
        for _ in itertools.islice(itertools.count(), args.count):
            sock.send(time.ctime().encode())
            time.sleep(args.interval)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
