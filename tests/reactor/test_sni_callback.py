"""A user's ``sni_callback`` takes its time: whoever else is on the network thread does not notice."""

from __future__ import annotations

import ssl
import threading

import pytest
import trustme
from support.pairs import TIMEOUT, Background

from netmsg import IOThread, LineCodec, PacketClient, PacketServer, StreamServer, Søcket, connect_tcp, create_tcp_server


class Slow:
    """A server's context whose callback waits until it may go on; and a client's."""

    def __init__(self, authority: trustme.CA) -> None:
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.asked_in: list[str] = []
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.server.sni_callback = self._called
        authority.issue_cert("localhost").configure_cert(self.server)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)

    def _called(self, *_: object) -> None:
        self.asked_in.append(threading.current_thread().name)
        self.asked.set()
        assert self.go_on.wait(TIMEOUT)


@pytest.fixture
def slow(authority: trustme.CA) -> Slow:
    return Slow(authority)


@pytest.mark.parametrize("kind", ["stream", "packet"])
def test_the_other_users_of_a_servers_network_thread_go_on(kind: str, slow: Slow) -> None:
    with IOThread() as io:
        listener = create_tcp_server(ssl_context=slow.server)
        server: StreamServer | PacketServer[str, str]
        if kind == "stream":
            server = StreamServer(lambda stream: stream.send_all(stream.receive_until(b"\n") + b"\n"), listener,
                                  io_thread=io)
        else:
            server = PacketServer(lambda client, line: client.send_packet(line), listener, codec=LineCodec(),
                                  io_thread=io)
        pings = PacketServer(lambda client, line: client.send_packet(line), create_tcp_server(), codec=LineCodec(),
                             io_thread=io)
        with server, pings:
            waiting = Background(connect_tcp, "localhost", server.port, ssl_context=slow.client, timeout=TIMEOUT)
            assert slow.asked.wait(TIMEOUT)
            with PacketClient(("localhost", pings.port), LineCodec()) as client:
                client.send_packet("ping")
                assert client.recv_packet(timeout=TIMEOUT) == "ping"
            slow.go_on.set()
            with waiting.result() as stream:
                stream.send_all(b"hello\n")
                assert stream.receive_until(b"\n", timeout=TIMEOUT) == b"hello"
    assert not any(name.startswith("netmsg-io") for name in slow.asked_in)


def test_the_other_peers_of_a_søcket_go_on(slow: Slow) -> None:
    with Søcket(linger=0) as sock, Søcket(linger=0) as waiting, Søcket(linger=0) as other:
        sock.bind("localhost", 0, ssl_context=slow.server).bind(port=0)
        waiting.connect("localhost", sock.bound_port, ssl_context=slow.client, connect_timeout=TIMEOUT)
        assert slow.asked.wait(TIMEOUT)
        other.connect(*sock.bound_addresses[-1])
        other.send(b"ping")
        assert sock.recv(timeout=TIMEOUT) == b"ping"
        slow.go_on.set()
        waiting.send(b"hello")
        assert sock.recv(timeout=TIMEOUT) == b"hello"
    assert not any(name.startswith("netmsg-io") for name in slow.asked_in)


def test_a_client_that_goes_while_it_is_asked_about_is_forgotten(slow: Slow) -> None:
    with Søcket(linger=0) as sock, Søcket(linger=0) as waiting:
        sock.bind("localhost", 0, ssl_context=slow.server)
        waiting.connect("localhost", sock.bound_port, ssl_context=slow.client)
        assert slow.asked.wait(TIMEOUT)
        waiting.close()
        sock.close()
        slow.go_on.set()
