"""As little of an FTP server (RFC 959, 4217) as a client needs to store a file, with TLS on both of its connections.

    python3 examples/ftp_server.py cert.pem key.pem
    python3 -c "import ftplib, io, ssl; f = ftplib.FTP_TLS(context=ssl.create_default_context(cafile='cert.pem'));
    f.connect('localhost', 8021); f.login(); f.prot_p(); f.storbinary('STOR x', io.BytesIO(b'content')); f.quit()"
"""

import argparse
import io
import ssl
import sys
import threading

from netmsg import EndOfStream, Listener, SocketStream, create_tcp_server


class Session:
    """One client's control connection, and the listener of its next transfer."""

    def __init__(self, control: SocketStream, context: ssl.SSLContext) -> None:
        self.control = control
        self.context = context
        self.private = False
        self.transfer: Listener | None = None

    def reply(self, line: str) -> None:
        self.control.send_all(f"{line}\r\n".encode())

    def run(self) -> None:
        self.reply("220 at your service")
        for line in self.control.receive_delimited_chunks(b"\r\n", 1000, timeout=60):
            command, _, argument = line.decode().partition(" ")
            if command == "AUTH":
                self.reply("234 begin TLS now")
                self.control.start_tls(timeout=10)
            elif command == "PROT":
                self.private = argument == "P"
                self.reply("200 ok")
            elif command in ("EPSV", "PASV"):
                self.listen(command)
            elif command == "STOR":
                self.store(argument)
            elif command == "QUIT":
                self.reply("221 bye")
                return
            else:
                self.reply("230 ok" if command in ("USER", "PASS") else "200 ok")

    def listen(self, command: str) -> None:
        self.transfer = create_tcp_server(interface="127.0.0.1", ssl_context=self.context if self.private else None)
        port = self.transfer.port
        if command == "EPSV":
            self.reply(f"229 listening (|||{port}|)")
        else:
            self.reply(f"227 listening (127,0,0,1,{port >> 8},{port & 255})")

    def store(self, name: str) -> None:
        if self.transfer is None:
            self.reply("425 where to?")
            return
        self.reply("150 go ahead")
        content = io.BytesIO()
        with self.transfer, self.transfer.accept(timeout=10) as stream:
            size = stream.receive_file(content, timeout=30)
        self.transfer = None
        print("Stored", name, "of", size, "bytes", "under TLS" if self.private else "in the clear")
        self.reply("226 stored")


def serve(stream: SocketStream, context: ssl.SSLContext) -> None:
    with stream:
        try:
            Session(stream, context).run()
        except EndOfStream:
            pass  # without QUIT
        except OSError as error:
            print("lost a client:", error)


def main() -> None:
    parser = argparse.ArgumentParser(description="Let FTP clients store files, and forget them.")
    parser.add_argument("certificate", help="PEM file with the certificate")
    parser.add_argument("key", help="PEM file with its private key")
    parser.add_argument("--port", type=int, default=8021, help="port to listen on, 0 for a free one (%(default)s)")
    args = parser.parse_args()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(args.certificate, args.key)
    with create_tcp_server(args.port, "127.0.0.1", ssl_context=context, autostart_tls=False) as server:
        print("listening on port", server.port)
        for stream in server.accept_connections():
            threading.Thread(target=serve, args=(stream, context)).start()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
