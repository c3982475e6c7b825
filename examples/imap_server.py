"""As little of an IMAP server (RFC 9051) as a client needs to upgrade with STARTTLS and log in.

    python3 examples/imap_server.py cert.pem key.pem
    python3 -c "import imaplib; i = imaplib.IMAP4('localhost', 8143); i.starttls(); print(i.login('me', 'secret'))"
"""

import argparse
import ssl
import sys
import threading

from netmsg import EndOfStream, SocketStream, create_tcp_server


def serve(stream: SocketStream) -> None:
    with stream:
        try:
            converse(stream)
        except EndOfStream:
            pass  # without LOGOUT
        except OSError as error:
            print("lost a client:", error)


def converse(stream: SocketStream) -> None:
    def say(line: str) -> None:
        stream.send_all(f"{line}\r\n".encode())

    say("* OK IMAP4rev1 at your service")
    for line in stream.receive_delimited_chunks(b"\r\n", 1000, timeout=60):
        tag, command, *arguments = line.decode().split(" ")
        command = command.upper()
        if command == "CAPABILITY":
            say("* CAPABILITY IMAP4rev1" + ("" if stream.tls else " STARTTLS LOGINDISABLED"))
            say(f"{tag} OK done")
        elif command == "STARTTLS" and not stream.tls:
            say(f"{tag} OK begin TLS now")
            stream.start_tls(timeout=10)
        elif command == "LOGIN" and not stream.tls:
            say(f"{tag} NO not in the clear")
        elif command == "LOGIN":
            print("Login of", arguments[0], "under TLS")
            say(f"{tag} OK welcome")
        elif command == "LOGOUT":
            say("* BYE")
            say(f"{tag} OK bye")
            return
        else:
            say(f"{tag} OK ignored")


def main() -> None:
    parser = argparse.ArgumentParser(description="Let IMAP clients log in, under TLS.")
    parser.add_argument("certificate", help="PEM file with the certificate")
    parser.add_argument("key", help="PEM file with its private key")
    parser.add_argument("--port", type=int, default=8143, help="port to listen on, 0 for a free one (%(default)s)")
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
