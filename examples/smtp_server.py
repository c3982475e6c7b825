"""A small mail server with STARTTLS, which prints the mail it is given. Any client of SMTP (RFC 5321, 3207) will do:

    python3 examples/smtp_server.py cert.pem key.pem
    python3 -c "import smtplib; s = smtplib.SMTP('localhost', 8025); s.starttls(); s.sendmail('a', ['b'], 'Hello')"
"""

import argparse
import ssl
import sys
import threading

from netmsg import EndOfStream, SocketStream, create_tcp_server


class Session:
    """One client's conversation."""

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream

    def reply(self, *lines: str) -> None:
        self.stream.send_all("".join(f"{line}\r\n" for line in lines).encode())

    def line(self) -> str:
        return self.stream.receive_until(b"\r\n", 1000, timeout=60).decode()

    def run(self) -> None:
        self.reply("220 localhost at your service")
        while True:
            command, _, argument = self.line().partition(" ")
            command = command.upper()
            if command == "EHLO":
                offered = [] if self.stream.tls else ["250-STARTTLS"]
                self.reply("250-localhost", *offered, "250 8BITMIME")
            elif command == "STARTTLS" and not self.stream.tls:
                self.reply("220 go ahead")
                self.stream.start_tls(timeout=10)
            elif command == "DATA":
                self.reply("354 end with a dot")
                mail = []
                while (line := self.line()) != ".":
                    mail.append(line.removeprefix("."))
                print("Mail", "under TLS:" if self.stream.tls else "in the clear:", *mail[-1:])
                self.reply("250 taken")
            elif command == "QUIT":
                self.reply("221 bye")
                return
            elif command in ("HELO", "MAIL", "RCPT", "RSET", "NOOP"):
                self.reply("250 ok")
            else:
                self.reply("502 not implemented")


def serve(stream: SocketStream) -> None:
    with stream:
        try:
            Session(stream).run()
        except EndOfStream:
            pass  # without QUIT
        except OSError as error:
            print("lost a client:", error)


def main() -> None:
    parser = argparse.ArgumentParser(description="Take mail, and print its last line.")
    parser.add_argument("certificate", help="PEM file with the certificate")
    parser.add_argument("key", help="PEM file with its private key")
    parser.add_argument("--port", type=int, default=8025, help="port to listen on, 0 for a free one (%(default)s)")
    args = parser.parse_args()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(args.certificate, args.key)
    with create_tcp_server(args.port, ssl_context=context, autostart_tls=False) as server:
        print("listening on port", server.port)
        for stream in server.accept_connections():
            threading.Thread(target=serve, args=(stream,)).start()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
