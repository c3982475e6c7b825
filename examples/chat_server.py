"""A chat room for a thousand people, most of whom say nothing most of the time. A program that sends lines will do:

    python3 examples/chat_server.py
    nc localhost 8885        (or telnet, or socat), several times

Each person is a conversation, written from top to bottom; while it waits at a ``yield`` it costs no thread.
"""

import argparse
import sys
from collections.abc import Generator

from netmsg import LineCodec, PacketConnection, PacketServer, create_tcp_server


def say(room: PacketServer[str, str], text: str) -> None:
    """Tell everybody who has a name. Whoever does not keep up misses it: one slow reader is not to hold up the room."""
    for client in room.clients():
        if client.state is not None:
            try:
                client.send_packet(text, timeout=0)
            except OSError:
                pass  # too slow, or gone: its own conversation sees to that


def join(client: PacketConnection[str]) -> Generator[float | None, str, None]:
    client.send_packet("Who are you?")
    try:
        name = yield 60.0
    except TimeoutError:
        client.send_packet("Too slow, sorry.")
        return
    client.state = name = name.strip()
    say(client.server, f"* {name} is here")
    try:
        while True:
            line = yield None
            say(client.server, f"{name}: {line.strip()}")
    finally:
        client.state = None
        say(client.server, f"* {name} has left")


def main() -> None:
    parser = argparse.ArgumentParser(description="A chat room.")
    parser.add_argument("--port", type=int, default=8885, help="port to listen on, 0 for a free one (%(default)s)")
    args = parser.parse_args()

    with PacketServer(join, create_tcp_server(args.port), codec=LineCodec()) as server:
        print("listening on port", server.port)
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
