"""A chat of pages in browsers and of programs: serve the page, and send every message that comes to everybody.

Run it, open the address that it prints in a browser, twice, and let a program join in:

    python3 examples/browser/browser_chat.py
    python3 examples/chat.py

Pages come by WebSocket and programs by TCP, to the same port. Only the page that is served here may come: a page from
elsewhere on the web, in the same browser, is refused, for it has another origin. The page itself is served by the
standard library, at a port of its own.
"""

import argparse
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from netmsg import SendMode, Søcket

HERE = Path(__file__).parent
HOST = "127.0.0.1"
FILES = {"/": ("index.html", "text/html"), "/netmsg.js": ("netmsg.js", "text/javascript")}


class PageHandler(BaseHTTPRequestHandler):
    """Answers with one of the two files that make the page."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path not in FILES:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        name, kind = FILES[path]
        content = (HERE / name).read_bytes()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody wants to know."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a chat to browsers and programs.")
    parser.add_argument("--port", type=int, default=25000, help="port of the Søcket, 0 for a free one (%(default)s)")
    parser.add_argument("--page-port", type=int, default=8000, help="port of the page, 0 for a free one (%(default)s)")
    args = parser.parse_args()

    # A page that is too slow, and has as much waiting for it as the high-water mark allows, loses the oldest messages
    # and holds up nobody: that is how publishing is.
    with (ThreadingHTTPServer((HOST, args.page_port), PageHandler) as pages,
          Søcket(send_mode=SendMode.PUBLISH) as sock):
        # To a browser these are two origins, whatever they stand for.
        origins = [f"http://{name}:{pages.server_port}" for name in ("localhost", "127.0.0.1")]
        sock.bind(HOST, args.port, websocket_origins=origins)
        threading.Thread(target=pages.serve_forever).start()
        try:
            print("bound to port", sock.bound_port)
            print(f"the page is at {origins[0]}/?port={sock.bound_port}")
            for message in sock.messages():
                sock.send(message)
        finally:
            pages.shutdown()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
