"""Send the lines that are typed, and print the messages that arrive: a peer for ``relay.py``.

Run the relay in one terminal and this in two others; end it with Ctrl-D or Ctrl-C:

    python3 examples/relay.py
    python3 examples/chat.py
    python3 examples/chat.py

One thread reads the keyboard and sends while another receives on the same Søcket, which may be used from any thread.
Closing it ends ``messages()`` in the other thread, so nothing has to be said to stop that one.
"""

import argparse
import sys
import threading

from netmsg import Søcket


def print_messages(sock: Søcket) -> None:
    for message in sock.messages():
        print(message.decode())


def main() -> None:
    parser = argparse.ArgumentParser(description="Send the lines of standard input and print what arrives.")
    parser.add_argument("--host", default="127.0.0.1", help="where the relay is (%(default)s)")
    parser.add_argument("--port", type=int, default=25000, help="the relay's port (%(default)s)")
    args = parser.parse_args()

    with Søcket() as sock:
        sock.connect(args.host, args.port)
        threading.Thread(target=print_messages, args=(sock,)).start()
        for line in sys.stdin:
            sock.send(line.rstrip("\n").encode())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
