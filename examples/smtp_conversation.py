"""The mail server of ``smtp_server.py`` once more, as a conversation: any number of clients, eight threads.

A certificate for it, and then any client of SMTP (RFC 5321, 3207):

    openssl req -newkey rsa:2048 -nodes -keyout key.pem -x509 -days 365 -out cert.pem -subj "/CN=localhost" \
        -addext "subjectAltName=DNS:localhost"
    python3 examples/smtp_conversation.py cert.pem key.pem
    python3 -c "import smtplib; s = smtplib.SMTP('localhost', 8025); s.starttls(); s.sendmail('a', ['b'], 'Hello')"
"""

import argparse
import ssl
import sys
from collections.abc import Generator

from netmsg import LineCodec, PacketConnection, PacketDecodeError, PacketServer, create_tcp_server

Conversation = Generator[float, str, None]
PATIENCE = 60.0


def mail(client: PacketConnection[str]) -> Conversation:
    """From DATA to the dot."""
    client.send_packet("354 end with a dot")
    last = ""
    while (line := (yield PATIENCE)) != ".":
        last = line.removeprefix(".")
    print("Mail", "under TLS:" if client.tls else "in the clear:", last)
    client.send_packet("250 taken")


def serve(client: PacketConnection[str]) -> Conversation:
    client.send_packet("220 localhost at your service")
    while True:
        try:
            command, _, argument = (yield PATIENCE).partition(" ")
        except PacketDecodeError:
            client.send_packet("500 that is no line of UTF-8")
            continue
        except TimeoutError:
            client.send_packet("421 too slow")
            return
        command = command.upper()
        if command == "EHLO":
            client.send_packet("250-localhost")
            if not client.tls:
                client.send_packet("250-STARTTLS")
            client.send_packet("250 8BITMIME")
        elif command == "STARTTLS" and not client.tls:
            client.send_packet("220 go ahead")
            client.start_tls()  # what the client sent behind its STARTTLS would end the connection here
        elif command == "DATA":
            yield from mail(client)
        elif command == "QUIT":
            client.send_packet("221 bye")
            return
        elif command in ("HELO", "MAIL", "RCPT", "RSET", "NOOP"):
            client.send_packet("250 ok")
        else:
            client.send_packet("502 not implemented")


def main() -> None:
    parser = argparse.ArgumentParser(description="Take mail, and print its last line.")
    parser.add_argument("certificate", help="PEM file with the certificate")
    parser.add_argument("key", help="PEM file with its private key")
    parser.add_argument("--port", type=int, default=8025, help="port to listen on, 0 for a free one (%(default)s)")
    args = parser.parse_args()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(args.certificate, args.key)
    listener = create_tcp_server(args.port, ssl_context=context, autostart_tls=False)
    with PacketServer(serve, listener, codec=LineCodec(newline="\r\n", max_packet_size=1000)) as server:
        print("listening on port", server.port)
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
