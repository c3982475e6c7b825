"""Two sockets: receive on one and answer the sender, by identity; publish what it said on the other.

Peers of the first port send ``message id, NUL, data`` and get ``message id, NUL, ok`` back; peers of the second port,
of which there may be thousands, are all sent the data. In three terminals:

    python3 examples/identity_relay.py
    python3 examples/receiver.py --connect 127.0.0.1:25001
    python3 examples/identity_client.py

A send with an ``identity`` goes to that peer alone, whatever the send mode.
"""

import argparse
import sys

from netmsg import SendMode, Søcket


def main() -> None:
    parser = argparse.ArgumentParser(description="Publish what peers send, and tell each that it is done.")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to (%(default)s)")
    parser.add_argument("--port", type=int, default=25000, help="port that receives, 0 for a free one (%(default)s)")
    parser.add_argument("--publish-port", type=int, default=25001, help="port that publishes (%(default)s)")
    args = parser.parse_args()

    with Søcket() as sock1, Søcket(send_mode=SendMode.PUBLISH) as sock2:
        sock1.bind(args.host, args.port)
        sock2.bind(args.host, args.publish_port)
        print("bound to port", sock1.bound_port)
        print("publishing on port", sock2.bound_port)
        while True:
            peer_id, message = sock1.recv_identity()
            message_id, _, data = message.partition(b"\x00")
            sock2.send(data)
            sock1.send(message_id + b"\x00ok", identity=peer_id)
            print("relayed", message_id.decode(), "of", peer_id.hex())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
