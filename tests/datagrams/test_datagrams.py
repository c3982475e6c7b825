"""UDP and UNIX datagram sockets. The numbers are those of the list of behaviours."""

from __future__ import annotations

import errno
import gc
import os
import secrets
import select
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.blocking import until_polling
from support.forking import fork
from support.pairs import TIMEOUT, Background, until

from netmsg import (
    ClosedError, ForkedError, SendTimeoutError, UDPSocket, UNIXDatagramSocket, create_udp_socket,
    create_unix_datagram_socket,
)

HOSTS = ["127.0.0.1", "::1"]


def bound(host: str, **options: Any) -> UDPSocket:
    return create_udp_socket(interface=host, **options)


@pytest.mark.parametrize("host", HOSTS)
def test_44_a_reply_goes_to_the_address_that_receive_gave(host: str) -> None:
    with bound(host) as server, create_udp_socket(family=server_family(host)) as client:
        client.send(b"ping", host, server.local_address[1])
        data, address = server.receive(timeout=TIMEOUT)
        assert data == b"ping" and address[0] == host and len(address) == 2
        server.send_to(b"pong", address)
        assert client.receive(timeout=TIMEOUT) == (b"pong", server.local_address)
        server.send(b"again", *address)
        assert client.receive(timeout=TIMEOUT)[0] == b"again"


def server_family(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def test_45_an_unbound_socket_has_a_port() -> None:
    with create_udp_socket() as sock:
        assert sock.local_address[1] > 0
    assert sock.local_address[1] > 0 and sock.closed and sock.fileno() == -1


def test_45_a_port_is_bound_to_localhost() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with create_udp_socket(port=port) as sock:
        assert sock.local_address == ("127.0.0.1", port)
        with pytest.raises(OSError) as raised:
            create_udp_socket(port=port)
        assert raised.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("host", HOSTS)
def test_46_a_connected_socket_hears_no_strangers(host: str) -> None:
    with bound(host) as server, bound(host) as stranger:
        with create_udp_socket(target_host=host, target_port=server.local_address[1]) as client:
            client.send(b"hello")
            address = server.receive(timeout=TIMEOUT)[1]
            stranger.send_to(b"intruder", address)
            server.send_to(b"reply", address)
            assert client.receive(timeout=TIMEOUT) == (b"reply", server.local_address)
            with pytest.raises(TimeoutError):
                client.receive(timeout=0.05)
            with pytest.raises(ValueError):
                client.send(b"x", host, 1)


def test_46_refusal_is_told_on_a_connected_socket() -> None:
    with bound("127.0.0.1") as server:
        port = server.local_address[1]
    with create_udp_socket(target_host="127.0.0.1", target_port=port) as client:
        client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            client.receive(timeout=TIMEOUT)


def test_47_too_long_is_an_error_on_either_side() -> None:
    with bound("127.0.0.1") as server, create_udp_socket() as client:
        with pytest.raises(OSError) as raised:
            client.send_to(bytes(70_000), server.local_address)
        assert raised.value.errno == errno.EMSGSIZE
        client.send_to(b"x" * 100, server.local_address)
        client.send_to(b"short", server.local_address)
        with pytest.raises(OSError) as raised:
            server.receive(99, timeout=TIMEOUT)
        assert raised.value.errno == errno.EMSGSIZE
        assert server.receive(99, timeout=TIMEOUT)[0] == b"short"


def test_47_an_iterator_skips_and_counts_them(caplog: pytest.LogCaptureFixture) -> None:
    with bound("127.0.0.1") as server, create_udp_socket() as client:
        for data in (b"1", b"x" * 100, b"2"):
            client.send_to(data, server.local_address)
        packets = server.receive_packets(99)
        assert [next(packets)[0], next(packets)[0]] == [b"1", b"2"]
        assert "dropped" in caplog.text and "1 were skipped" in caplog.text


def test_47_the_largest_and_the_empty_one_arrive() -> None:
    with bound("127.0.0.1") as server, create_udp_socket() as client:
        for data in (bytes(65_507), b""):
            client.send_to(data, server.local_address)
            assert server.receive(timeout=TIMEOUT)[0] == data


def test_48_multicast_reaches_all_who_joined() -> None:
    group = "239.255.23.5"
    with create_udp_socket(interface=None, reuse_port=True, family=socket.AF_INET) as one:
        port = one.local_address[1]
        with create_udp_socket(port=port, interface=None, reuse_port=True, family=socket.AF_INET) as other, \
                create_udp_socket(multicast_ttl=0, multicast_interface="127.0.0.1") as sender:
            for receiver in (one, other):
                receiver.join_group(group, "127.0.0.1")
            sender.send(b"to all", group, port)
            for receiver in (one, other):
                assert receiver.receive(timeout=TIMEOUT)[0] == b"to all"
            one.leave_group(group, "127.0.0.1")
            with pytest.raises(OSError):
                one.leave_group(group, "127.0.0.1")
            with pytest.raises(ValueError):
                one.join_group("nonsense")


def test_48_multicast_over_ipv6() -> None:
    with create_udp_socket(interface="::") as receiver:
        with create_udp_socket(family=socket.AF_INET6, multicast_ttl=0, multicast_interface="lo") as sender:
            receiver.join_group("ff01::2305", "lo")
            try:
                sender.send(b"to all", "ff01::2305%lo", receiver.local_address[1])
            except OSError as error:
                if error.errno != errno.ENETUNREACH:
                    raise
                pytest.skip("this machine has no route for IPv6 multicast")
            else:
                assert receiver.receive(timeout=TIMEOUT)[0] == b"to all"
            finally:
                receiver.leave_group("ff01::2305", "lo")
                with pytest.raises(OSError):
                    receiver.leave_group("ff01::2305", "lo")


@pytest.mark.parametrize("interface", ["127.0.0.1", "lo"])
def test_48_multicast_options_of_a_dual_stack_socket_count_for_ipv4_too(interface: str) -> None:
    group = "239.255.23.6"
    with create_udp_socket(interface="0.0.0.0") as receiver:
        receiver.join_group(group, "127.0.0.1")
        with create_udp_socket(interface=None, multicast_ttl=0, multicast_interface=interface) as sender:
            sender.send(b"to all", group, receiver.local_address[1])
        assert receiver.receive(timeout=TIMEOUT)[0] == b"to all"
    with create_udp_socket(interface=None, multicast_ttl=7, multicast_loop=False) as sender:
        assert sender.socket.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 7
        assert sender.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS) == 7
        assert not sender.socket.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP)
        assert not sender.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP)


def test_48_the_scope_of_a_group_is_where_it_is_joined() -> None:
    group, index = "ff12::2305", socket.if_nametoindex("lo")
    with create_udp_socket(interface="::") as receiver:
        for scope in ("lo", str(index)):
            receiver.join_group(f"{group}%{scope}")
            receiver.leave_group(group, "lo")
            receiver.join_group(f"{group}%{scope}", "lo")
            receiver.leave_group(f"{group}%lo")
        for nowhere in ("nonsense", "", "9" * 20):
            with pytest.raises(OSError):
                receiver.join_group(f"{group}%{nowhere}")
        with pytest.raises(ValueError):
            receiver.join_group(f"{group}%{index + 1}", "lo")


def test_48_broadcast_has_to_be_asked_for() -> None:
    with create_udp_socket(interface=None) as receiver:
        port = receiver.local_address[1]
        with create_udp_socket() as sender, pytest.raises(PermissionError):
            sender.send(b"x", "127.255.255.255", port)
        with create_udp_socket(broadcast=True) as sender:
            sender.send(b"to all", "127.255.255.255", port)
            assert receiver.receive(timeout=TIMEOUT)[0] == b"to all"


def test_every_interface_is_dual_stack_and_shows_ipv4_as_ipv4() -> None:
    with create_udp_socket(interface=None) as server:
        port = server.local_address[1]
        for host in HOSTS:
            with bound(host) as client:
                client.send(b"x", host, port)
                data, address = server.receive(timeout=TIMEOUT)
                assert address == client.local_address
                server.send_to(b"reply", address)
                assert client.receive(timeout=TIMEOUT)[0] == b"reply"


def test_every_interface_is_all_of_ipv4_where_the_kernel_has_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutIPv6(socket.socket):
        def __init__(self, family: int = -1, *arguments: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *arguments)

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    with create_udp_socket(interface=None) as server, create_udp_socket() as client:
        client.send(b"x", "127.0.0.1", server.local_address[1])
        assert server.receive(timeout=TIMEOUT)[0] == b"x"


# UNIX datagrams

def test_49_datagrams_by_path(tmp_path: Path) -> None:
    with create_unix_datagram_socket(path=tmp_path / "server", mode=0o600) as server:
        assert stat.S_IMODE(os.stat(tmp_path / "server").st_mode) == 0o600
        with create_unix_datagram_socket(target_path=tmp_path / "server") as client:
            client.send(b"ping")
            data, address = server.receive(timeout=TIMEOUT)
            assert data == b"ping" and address == client.local_address and address.startswith("\0")
            server.send_to(b"pong", address)
            assert client.receive(timeout=TIMEOUT) == (b"pong", str(tmp_path / "server"))
            with pytest.raises(ValueError):
                client.send(b"x", tmp_path / "other")
        with pytest.raises(ValueError):
            server.send(b"x")
        with pytest.raises(OSError) as raised:
            create_unix_datagram_socket(path=tmp_path / "server")
        assert raised.value.errno == errno.EADDRINUSE
    assert not (tmp_path / "server").exists()
    with create_unix_datagram_socket() as client, pytest.raises(FileNotFoundError):
        client.send(b"x", tmp_path / "server")


def test_49_abstract_names_and_anonymous_senders() -> None:
    name = "\0netmsg-" + secrets.token_hex(8)
    with create_unix_datagram_socket(path=name) as server, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as anonymous:
        anonymous.sendto(b"x", name)
        assert server.receive(timeout=TIMEOUT) == (b"x", "")


def test_49_a_receiver_may_restart(tmp_path: Path) -> None:
    with create_unix_datagram_socket(target_path=tmp_path / "server") as client:
        for number in range(2):
            with create_unix_datagram_socket(path=tmp_path / "server") as server:
                client.send(b"%d" % number)
                assert server.receive(timeout=TIMEOUT)[0] == b"%d" % number
            with pytest.raises(FileNotFoundError):
                client.send(b"nobody")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stale:
        stale.bind(str(tmp_path / "server"))
    with create_unix_datagram_socket(path=tmp_path / "server"):
        pass


def test_49_where_the_receiver_does_not_keep_up_sending_waits(tmp_path: Path) -> None:
    with create_unix_datagram_socket(path=tmp_path / "server") as server:
        with create_unix_datagram_socket(target_path=tmp_path / "server") as client:
            sent = 0
            with pytest.raises(SendTimeoutError):
                while True:
                    client.send(b"x" * 1000, timeout=0.1)
                    sent += 1
            sending = Background(client.send, b"last", timeout=TIMEOUT)
            for _ in range(sent):
                assert server.receive(timeout=TIMEOUT)[0] == b"x" * 1000
            sending.result()
            assert server.receive(timeout=TIMEOUT)[0] == b"last"


def test_49_a_full_buffer_of_ones_own_keeps_the_timeout(tmp_path: Path) -> None:
    with create_unix_datagram_socket(path=tmp_path / "server"):
        with create_unix_datagram_socket(target_path=tmp_path / "server") as client:
            started, cpu = time.monotonic(), time.process_time()
            with pytest.raises(SendTimeoutError):
                for _ in range(100):
                    client.send(bytes(60_000), timeout=0.3)
            assert time.monotonic() - started < 3 and time.process_time() - cpu < 0.3


# What holds of both

@pytest.fixture(params=["udp", "unix"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """A server, and a client that is connected to it."""
    if request.param == "udp":
        server: Any = bound("127.0.0.1")
        client: Any = create_udp_socket(target_host="127.0.0.1", target_port=server.local_address[1])
    else:
        server = create_unix_datagram_socket(path=tmp_path / "server")
        client = create_unix_datagram_socket(target_path=tmp_path / "server")
    with server, client:
        yield server, client


def test_50_close_wakes_who_receives(pair: tuple[Any, Any]) -> None:
    server, _ = pair
    waiting = [Background(server.receive) for _ in range(3)]
    iterating = Background(lambda: list(server.receive_packets()))
    until_polling(*waiting, iterating)
    server.close()
    for thread in waiting:
        with pytest.raises(ClosedError):
            thread.result()
    assert iterating.result() == []
    for call in (server.receive, lambda: server.send_to(b"x", server.local_address),
                 lambda: server.request(b"x", server.local_address), server.receive_packets):
        with pytest.raises(ClosedError):
            call()
    server.close()


def test_a_timeout_is_kept(pair: tuple[Any, Any]) -> None:
    server, client = pair
    for timeout in (0, 0.05):
        with pytest.raises(TimeoutError):
            server.receive(timeout=timeout)
    client.send(b"x", timeout=0)
    assert server.receive(timeout=TIMEOUT)[0] == b"x"
    calls: list[Callable[[], object]] = [
        lambda: server.receive(timeout=-1), lambda: server.receive_packets(timeout=float("nan")),
        lambda: client.send(b"x", timeout=-1), lambda: client.request(b"x", timeout=-1),
        lambda: server.receive(0), lambda: client.request(b"x", interval=0), lambda: client.request(b"x", retries=-1)]
    for call in calls:
        with pytest.raises(ValueError):
            call()
    for call in (lambda: server.receive("5"), lambda: client.send("text"), lambda: client.request(b"x", retries=1.5)):
        with pytest.raises(TypeError):
            call()


def test_an_iterator_has_a_budget_of_waiting(pair: tuple[Any, Any]) -> None:
    server, client = pair
    for number in range(3):
        client.send(b"%d" % number)
    started = time.monotonic()
    packets = server.receive_packets(timeout=0.2)
    assert [data for data, _ in packets] == [b"0", b"1", b"2"]
    assert 0.2 <= time.monotonic() - started < 2
    client.send(b"late")
    assert [data for data, _ in packets] == [b"late"]  # asked again: what is there without waiting


def answering(server: Any, function: Callable[[int, bytes], list[bytes]]) -> Background:
    def answer() -> int:
        count = 0
        for data, address in server.receive_packets():
            count += 1
            try:
                for reply in function(count, data):
                    server.send_to(reply, address)
            except ClosedError:
                break  # the test is over, and was asked once more
        return count

    return Background(answer)


def test_51_a_request_is_answered(pair: tuple[Any, Any]) -> None:
    server, client = pair
    thread = answering(server, lambda count, data: [data.upper()])
    assert client.request(b"hello", timeout=TIMEOUT) == b"HELLO"
    server.close()
    assert thread.result() == 1


def test_51_a_lost_request_is_sent_again(pair: tuple[Any, Any]) -> None:
    server, client = pair
    thread = answering(server, lambda count, data: [data] if count == 3 else [])
    assert client.request(b"again", interval=0.05) == b"again"
    server.close()
    assert thread.result() == 3


def test_51_answers_that_do_not_match_are_passed_over(pair: tuple[Any, Any]) -> None:
    server, client = pair
    thread = answering(server, lambda count, data: [b"old answer", b"new answer"])
    assert client.request(b"x", match=lambda answer: answer.startswith(b"new")) == b"new answer"
    server.close()
    thread.result()


def test_51_it_gives_up_after_its_retries(pair: tuple[Any, Any]) -> None:
    server, client = pair
    thread = answering(server, lambda count, data: [])
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        client.request(b"x", interval=0.05, retries=2)
    assert 0.15 <= time.monotonic() - started < 2
    with pytest.raises(TimeoutError):
        client.request(b"x", timeout=0.1)
    server.close()
    assert thread.result() == 4


def test_51_a_late_answer_to_one_request_is_none_to_the_next(pair: tuple[Any, Any]) -> None:
    server, client = pair
    thread = answering(server, lambda count, data: [data, data])
    for number in range(5):
        assert client.request(b"%d" % number, timeout=TIMEOUT) == b"%d" % number
        assert select.select([client], [], [], TIMEOUT)[0]  # the second answer has come
    server.close()
    thread.result()


def test_51_a_late_answer_behind_a_refusal_is_none_to_the_next_request() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        address = server.getsockname()
        client = create_udp_socket(target_host=address[0], target_port=address[1])
        client.send(b"?")
        server.sendto(b"late", client.local_address)
    with client:
        client.send(b"nobody there")
        with create_udp_socket(port=address[1]) as server_again:  # loopback: the refusal is there by now
            thread = answering(server_again, lambda count, data: [data])
            assert client.request(b"x", timeout=TIMEOUT) == b"x"
            server_again.close()
            thread.result()


def test_51_nobody_behind_a_path_is_the_cause_of_the_timeout(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
        gone.bind(os.fspath(tmp_path / "stale"))
    with create_unix_datagram_socket(target_path=tmp_path / "stale") as client:
        with pytest.raises(TimeoutError) as raised:
            client.request(b"x", interval=0.05, retries=1)
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)


def test_51_a_server_that_makes_no_room_is_the_cause_of_the_timeout(tmp_path: Path) -> None:
    with (create_unix_datagram_socket(path=tmp_path / "server") as server,
          create_unix_datagram_socket(target_path=tmp_path / "server") as client):
        with pytest.raises(SendTimeoutError):
            while True:
                client.send(b"x", timeout=0)
        asking = Background(client.request, b"x", interval=0.05, retries=2)
        with pytest.raises(TimeoutError) as raised:
            asking.result()
        assert isinstance(raised.value.__cause__, SendTimeoutError)
        asking = Background(client.request, b"late", interval=0.05, retries=200)
        while server.receive(timeout=TIMEOUT)[0] != b"late":
            pass
        server.send_to(b"answer", client.local_address)
        assert asking.result() == b"answer"


def test_51_a_server_behind_a_path_may_restart(tmp_path: Path) -> None:
    with create_unix_datagram_socket(target_path=tmp_path / "server") as client:
        with pytest.raises(TimeoutError) as raised:
            client.request(b"x", interval=0.05, retries=1)
        assert isinstance(raised.value.__cause__, FileNotFoundError)
        asking = Background(client.request, b"x", interval=0.2, retries=20)
        until_polling(asking)
        with create_unix_datagram_socket(path=tmp_path / "server") as server:
            thread = answering(server, lambda count, data: [data])
            assert asking.result() == b"x"
            server.close()
            thread.result()


def test_51_nobody_there_is_the_cause_of_the_timeout() -> None:
    with bound("127.0.0.1") as server:
        port = server.local_address[1]
    with create_udp_socket(target_host="127.0.0.1", target_port=port) as client:
        with pytest.raises(TimeoutError) as raised:
            client.request(b"x", interval=0.05, retries=1)
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)


def test_51_strangers_are_ignored() -> None:
    with bound("127.0.0.1") as server, bound("127.0.0.1") as stranger, bound("127.0.0.1") as client:
        stranger.send_to(b"first!", client.local_address)
        thread = answering(server, lambda count, data: [data])
        assert client.request(b"x", server.local_address, timeout=TIMEOUT) == b"x"
        with pytest.raises(ValueError):
            client.request(b"x")
        server.close()
        thread.result()


def test_51_a_server_that_is_not_there_yet_may_come() -> None:
    with bound("127.0.0.1") as server:
        port = server.local_address[1]
    with create_udp_socket(target_host="127.0.0.1", target_port=port) as client:
        asking = Background(client.request, b"x", interval=0.2, retries=20)
        until_polling(asking)  # for an answer, or, as nobody is there, for the next try
        with create_udp_socket(port=port) as server:
            thread = answering(server, lambda count, data: [data])
            assert asking.result() == b"x"
            server.close()
            thread.result()


def test_an_interrupt_ends_a_blocked_call(pair: tuple[Any, Any]) -> None:
    import signal

    class Interrupt(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupt

    server, client = pair
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupt):
            server.receive()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    client.send(b"usable")
    assert server.receive(timeout=TIMEOUT)[0] == b"usable"


@pytest.mark.parametrize("options, error", [
    ({"port": "5"}, TypeError), ({"port": 65536}, ValueError), ({"target_host": "localhost"}, ValueError),
    ({"target_port": 5}, ValueError), ({"family": 99}, ValueError), ({"multicast_ttl": 256}, ValueError),
    ({"interface": 5}, TypeError), ({"timeout": -1}, ValueError),
])
def test_wrong_arguments_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        create_udp_socket(**options)


def test_only_udp_sockets_are_taken_over() -> None:
    with socket.socket() as stream, pytest.raises(ValueError):
        UDPSocket.from_socket(stream)
    with pytest.raises(TypeError):
        UDPSocket.from_socket("udp")  # type: ignore[arg-type]
    raw = socket.socket(type=socket.SOCK_DGRAM)
    raw.bind(("127.0.0.1", 0))
    with UDPSocket.from_socket(raw) as server, create_udp_socket() as client:
        client.send_to(b"x", server.local_address)
        assert server.receive(timeout=TIMEOUT)[0] == b"x"


def test_one_left_to_the_collector_warns() -> None:
    sock = create_udp_socket()
    with pytest.warns(ResourceWarning, match="unclosed <UDPSocket"):
        del sock
        gc.collect()


def test_a_forked_child_cannot_use_it(pair: tuple[Any, Any]) -> None:
    server, client = pair
    child = fork()
    if not child:
        status = 1
        try:
            server.receive(timeout=1)
        except ForkedError:
            status = 0
        finally:
            server.close()
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    client.send(b"unharmed")
    assert server.receive(timeout=TIMEOUT)[0] == b"unharmed"
    if isinstance(server.local_address, str):
        assert os.path.exists(server.local_address)


def test_many_threads_may_use_one(pair: tuple[Any, Any]) -> None:
    server, client = pair
    received = []

    def receive() -> None:
        for data, _ in server.receive_packets():
            received.append(data)

    threads = [Background(receive) for _ in range(4)]
    for number in range(200):
        client.send(b"%d" % number)
    until(lambda: len(received) == 200)
    server.close()
    for thread in threads:
        thread.result()
    assert sorted(map(int, received)) == list(range(200))


# What was found by attacking it

class Flooded(socket.socket):
    """A socket to which a stranger sends faster than anybody can receive."""

    def recvmsg(self, *_: Any) -> Any:
        return b"flood", [], 0, ("127.0.0.1", 9)


def test_51_a_flood_does_not_prolong_a_request() -> None:
    flooded = Flooded(type=socket.SOCK_DGRAM)
    flooded.bind(("127.0.0.1", 0))
    with UDPSocket.from_socket(flooded) as client, bound("127.0.0.1") as server:
        for options in ({"timeout": 0.05}, {"interval": 0.02, "retries": 1}):
            asking = Background(client.request, b"question", server.local_address, **options)
            with pytest.raises(TimeoutError, match="no answer in time from .*127.0.0.1"):
                asking.result()
        assert [server.receive(timeout=0)[0] for _ in range(2)] == [b"question"] * 2


def test_51_a_strangers_long_datagram_is_passed_over(tmp_path: Path) -> None:
    with create_unix_datagram_socket(path=tmp_path / "server") as server, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger, \
            create_unix_datagram_socket(path=tmp_path / "client") as client:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        long = bytes(300_000)
        stranger.sendto(long, str(tmp_path / "client"))

        def answer(count: int, data: bytes) -> list[bytes]:
            stranger.sendto(long, str(tmp_path / "client"))
            return [data]

        thread = answering(server, answer)
        assert client.request(b"x", tmp_path / "server", timeout=TIMEOUT) == b"x"
        server.close()
        thread.result()


def test_51_an_answer_that_is_too_long_is_an_error_and_not_cut(tmp_path: Path) -> None:
    with create_unix_datagram_socket(path=tmp_path / "server") as server, \
            create_unix_datagram_socket(target_path=tmp_path / "server") as client:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        thread = answering(server, lambda count, data: [bytes((1 << 18) + len(data) - 1)])
        assert client.request(b"1", timeout=TIMEOUT, interval=TIMEOUT) == bytes(1 << 18)
        with pytest.raises(OSError) as raised:
            client.request(b"12", timeout=TIMEOUT, interval=TIMEOUT)
        assert raised.value.errno == errno.EMSGSIZE
        server.close()
        thread.result()


@pytest.fixture
def unix_trio(tmp_path: Path) -> Iterator[tuple[Any, Any, Any]]:
    """A server, a client of it, and a stranger."""
    with create_unix_datagram_socket(path=tmp_path / "server") as server, \
            create_unix_datagram_socket(path=tmp_path / "client", target_path=tmp_path / "server") as client, \
            create_unix_datagram_socket(path=tmp_path / "stranger") as stranger:
        yield server, client, stranger


class Closing(UNIXDatagramSocket):
    """Is closed when it has a stranger's datagram."""

    strangers = 0

    def _is_strange(self, sender: Any) -> bool:
        self.strangers += 1
        self.close()
        return True


def test_close_ends_a_receive_to_which_strangers_send_all_the_time(tmp_path: Path) -> None:
    own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    own.bind(str(tmp_path / "own"))
    with create_unix_datagram_socket() as stranger, Closing(own, str(tmp_path / "target")) as sock:
        for _ in range(3):
            stranger.send(b"intruder", tmp_path / "own", timeout=TIMEOUT)
        with pytest.raises(ClosedError):
            sock.receive(timeout=TIMEOUT)
        assert sock.strangers == 1


def test_46_a_unix_socket_with_a_target_hears_no_strangers(unix_trio: tuple[Any, Any, Any]) -> None:
    server, client, stranger = unix_trio
    address = client.local_address
    for timeout in (0, 0.05, TIMEOUT):
        for _ in range(3):
            stranger.send(b"intruder", address)
        server.send(b"reply", address)
        assert client.receive(timeout=timeout) == (b"reply", server.local_address)
    stranger.send(bytes(1000), address)  # one that would be too long, too
    server.send(b"reply", address)
    assert client.receive(100, timeout=TIMEOUT)[0] == b"reply"
    for timeout in (0, 0.05):
        stranger.send(b"intruder", address)
        with pytest.raises(TimeoutError):
            client.receive(timeout=timeout)
    stranger.send(b"intruder", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
        nameless.sendto(b"intruder", address)
    server.send(b"1", address), stranger.send(b"intruder", address), server.send(b"2", address)
    assert [data for data, _ in client.receive_packets(timeout=0.05)] == [b"1", b"2"]


def test_46_the_target_is_known_by_any_name_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    with create_unix_datagram_socket(path=tmp_path / "server") as server:
        for name in ("server", "./server", "link/server"):
            with create_unix_datagram_socket(target_path=name) as client:
                client.send(b"x")
                server.send_to(b"reply", server.receive(timeout=TIMEOUT)[1])
                assert client.receive(timeout=TIMEOUT)[0] == b"reply"


def test_46_a_flood_of_strangers_does_not_prolong_a_receive(tmp_path: Path) -> None:
    class FloodedByPath(socket.socket):
        def recvmsg(self, *_: Any) -> Any:
            return b"flood", [], 0, "/stranger"

    flooded = FloodedByPath(socket.AF_UNIX, socket.SOCK_DGRAM)
    with UNIXDatagramSocket(flooded, str(tmp_path / "server")) as client:
        for timeout in (0, 0.02):
            with pytest.raises(TimeoutError):
                Background(client.receive, timeout=timeout).result()


def test_unix_sockets_from_elsewhere_are_taken_over(tmp_path: Path) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with UNIXDatagramSocket.from_socket(one) as a, UNIXDatagramSocket.from_socket(other) as b:
        thread = answering_connected(b)
        assert a.request(b"hello", timeout=TIMEOUT) == b"HELLO"
        thread.result()
    assert one.fileno() == other.fileno() == -1
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(tmp_path / "made"))
    with UNIXDatagramSocket.from_socket(made) as server:
        assert server.local_address == str(tmp_path / "made")
        dialled = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        dialled.bind(str(tmp_path / "dialled"))
        dialled.connect(str(tmp_path / "made"))
        with UNIXDatagramSocket.from_socket(dialled) as client:
            assert client.socket.getpeername() == str(tmp_path / "made")
            client.send(b"x")
            data, address = server.receive(timeout=TIMEOUT)
            server.send_to(data, address)
            assert client.receive(timeout=TIMEOUT) == (b"x", str(tmp_path / "made"))
            with pytest.raises(ValueError):
                client.send(b"x", tmp_path / "dialled")
    assert (tmp_path / "made").exists()  # whoever made it sees to it


def answering_connected(sock: Any) -> Background:
    return Background(lambda: sock.send(sock.receive(timeout=TIMEOUT)[0].upper()))


def test_only_unix_datagram_sockets_are_taken_over() -> None:
    one, other = socket.socketpair()
    with one, other, socket.socket(type=socket.SOCK_DGRAM) as udp:
        for wrong in (one, udp):
            with pytest.raises(ValueError):
                UNIXDatagramSocket.from_socket(wrong)
            assert wrong.fileno() >= 0
        with pytest.raises(TypeError):
            UNIXDatagramSocket.from_socket("unix")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        UNIXDatagramSocket.from_socket(one)


def test_localhost_is_where_a_socket_with_a_port_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``::1 localhost`` first in the system's table, as is usual, too."""
    real: Any = socket.getaddrinfo

    def six_first(host: Any, port: Any, *arguments: Any, flags: int = 0, **options: Any) -> Any:
        if host != "localhost" or flags & socket.AI_NUMERICHOST:
            return real(host, port, *arguments, flags=flags, **options)
        return [*real("::1", port, *arguments, **options), *real("127.0.0.1", port, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", six_first)
    with bound("127.0.0.1") as probe:
        port = probe.local_address[1]
    with create_udp_socket(port=port) as server:
        with create_udp_socket(target_host="localhost", target_port=port) as connected, \
                create_udp_socket() as unbound, create_udp_socket(interface=None) as dual, \
                create_udp_socket(interface="localhost") as local:
            connected.send(b"hello", timeout=TIMEOUT)
            for sender in (unbound, dual, local):
                sender.send(b"hello", "localhost", port, timeout=TIMEOUT)
            for _ in range(4):
                data, address = server.receive(timeout=TIMEOUT)
                assert data == b"hello" and address[0] == "127.0.0.1"
    with bound("::1") as server, \
            create_udp_socket(target_host="localhost", target_port=server.local_address[1],
                              family=socket.AF_INET6) as client:
        assert client.socket.getpeername()[:2] == server.local_address[:2]


def test_a_target_and_an_interface_agree_on_a_family() -> None:
    with bound("::1") as server:
        port = server.local_address[1]
        with create_udp_socket(target_host="localhost", target_port=port, interface="::1") as client:
            client.send(b"x")
            assert server.receive(timeout=TIMEOUT)[1] == client.local_address
        with pytest.raises(socket.gaierror, match="no address of this family"):
            create_udp_socket(target_host="::1", target_port=port, interface="127.0.0.1")
