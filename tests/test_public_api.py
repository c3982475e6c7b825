"""The names that users see are those of the contract, and no more: what else there is begins with an underscore, or is
in a class that users never hold."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.pairs import TIMEOUT

import netmsg

SØCKET = {
    "bind", "bind_unix", "connect", "connect_unix", "identity", "bound_addresses", "bound_port", "bound_urls", "send",
    "send_many", "recv", "recv_identity", "recv_many", "recv_delivery", "deliveries", "messages", "identity_messages",
    "json_messages", "send_string", "recv_string", "send_json", "recv_json", "request", "serve_requests", "peers",
    "subscribe", "unsubscribe",
    "wait_for_peers", "events", "stats", "fileno", "close", "closed",
}
NETWORK_OBJECT = {"close", "closed", "fileno"}
BYTE_STREAM = NETWORK_OBJECT | {
    "send_all", "send_file", "receive_file", "receive", "receive_into", "receive_exactly", "receive_until",
    "receive_chunks", "receive_delimited_chunks", "send_eof", "start_tls", "do_handshake", "tls", "local_address",
    "remote_address", "socket", "makefile", "abort",
}
DATAGRAM_SOCKET = NETWORK_OBJECT | {
    "from_socket", "send", "send_to", "receive", "receive_packets", "request", "local_address", "socket",
}
DATAGRAM_CLIENT = NETWORK_OBJECT | {
    "send_packet", "recv_packet", "iter_received_packets", "socket", "local_address", "remote_address",
}
SERVER = NETWORK_OBJECT | {
    "start", "serve_forever", "stop_accepting", "shutdown", "addresses", "port", "stats",
}
CODEC = {"encode", "decode", "decoder", "map"}
CODECS = ["Codec", "LineCodec", "JSONCodec", "StructCodec", "LengthPrefixedCodec", "DelimitedCodec", "NetstringCodec"]
MEMBERS = {
    "ByteStream": BYTE_STREAM,
    "SocketStream": BYTE_STREAM | {"from_socket", "send_fds", "receive_fds", "peer_credentials"},
    "Listener": NETWORK_OBJECT | {"from_socket", "accept", "accept_connections", "addresses", "port"},
    "UDPSocket": DATAGRAM_SOCKET | {"join_group", "leave_group"},
    "UNIXDatagramSocket": DATAGRAM_SOCKET,
    "PacketClient": DATAGRAM_CLIENT | {"send_eof", "start_tls", "tls", "peer_credentials", "abort"},
    "DatagramClient": DATAGRAM_CLIENT,
    "StreamServer": SERVER,
    "PacketServer": SERVER | {"clients"},
    "DatagramServer": SERVER,
    "PacketConnection": NETWORK_OBJECT | {
        "send_packet", "start_tls", "tls", "abort", "local_address", "remote_address", "peer_credentials", "socket",
        "server", "state"},
    "DatagramPeer": {"send_packet", "local_address", "remote_address", "server"},
    **dict.fromkeys(CODECS, CODEC),
    "Decoder": {"feed", "end"},
    "IOThread": {"close", "closed"},
    "TLSInfo": {"version", "cipher", "alpn_protocol", "peer_certificate", "peer_certificate_der", "server_hostname",
                "count", "index"},
    "PeerCredentials": {"pid", "uid", "gid", "count", "index"},
    "Søcket": SØCKET,
    "Receipt": {"wait", "acked", "failed", "message_id"},
    "Delivery": {"data", "identity", "is_request", "ack", "nack", "reply", "fail"},
    "SocketProxy": {"getsockopt", "setsockopt", "getsockname", "getpeername", "family", "type", "proto", "fileno"},
    "PeerInfo": {"identity", "address", "tls", "dialect", "connected_since", "sent", "received", "queued", "unacked",
                 "count", "index"},
    "SendMode": {"ROUNDROBIN", "PUBLISH"},
    "DeliveryGuarantee": {"AT_MOST_ONCE", "AT_LEAST_ONCE"},
    "AckMode": {"ON_RECV", "MANUAL", "ON_ARRIVAL"},
    "OnNoPeer": {"KEEP", "DROP"},
    "OnFull": {"BLOCK", "DROP_OLDEST", "DROP_NEWEST", "RAISE", "DISCONNECT"},
    "OnDuplicate": {"PROBE", "REJECT", "TAKEOVER"},
}
"""What the contract names and is there, by class; ``count`` and ``index`` are every tuple's."""
EVENTS = ["Listening", "Connecting", "Connected", "HandshakeFailed", "Disconnected", "Retrying", "DuplicatePeer",
          "Full", "Dropped", "Undelivered", "AcceptError"]


def public(thing: object) -> set[str]:
    return {member for member in dir(thing) if not member.startswith("_")}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_class_has_the_members_of_the_contract_and_no_others(name: str) -> None:
    members = public(getattr(netmsg, name))
    assert members <= MEMBERS[name]
    assert MEMBERS[name] - members <= {"closed"}  # which may be an attribute of the object


def known_as(thing: object) -> str:
    """The name of its class, or of the one that users see of it."""
    return next(kind.__name__ for kind in type(thing).__mro__ if kind.__name__ in MEMBERS)


@contextlib.contextmanager
def one_of_each(path: Path) -> Iterator[list[Any]]:
    """An object of each class that is there to be held, in use where that makes a difference."""
    met: queue.Queue[Any] = queue.Queue()
    with contextlib.ExitStack() as stack:
        def held(thing: Any) -> Any:
            return stack.enter_context(thing)

        io = held(netmsg.IOThread())
        servers = [
            held(netmsg.StreamServer(met.put, netmsg.create_tcp_server(), io_thread=io)),
            held(netmsg.PacketServer(lambda client, packet: met.put(client), netmsg.create_tcp_server(),
                                     codec=netmsg.LineCodec(), io_thread=io)),
            held(netmsg.DatagramServer(lambda client, packet: met.put(client), netmsg.create_udp_socket(),
                                       codec=netmsg.LineCodec(), io_thread=io)),
        ]
        clients = [
            held(netmsg.connect_tcp("localhost", servers[0].port, timeout=TIMEOUT)),
            held(netmsg.PacketClient(("localhost", servers[1].port), netmsg.LineCodec(), connect_timeout=TIMEOUT)),
            held(netmsg.DatagramClient(servers[2].addresses[0], netmsg.LineCodec())),
        ]
        for client in clients[1:]:
            client.send_packet("here", timeout=TIMEOUT)
        sock = held(netmsg.Søcket(io_thread=io, linger=0))
        codecs: list[Any] = [
            netmsg.LineCodec(), netmsg.JSONCodec(), netmsg.StructCodec("!H"), netmsg.LengthPrefixedCodec(),
            netmsg.DelimitedCodec(b";"), netmsg.NetstringCodec()]
        yield [
            io, sock, *servers, *clients, *(met.get(timeout=TIMEOUT) for _ in clients),
            *map(held, netmsg.memory_stream_pair()), held(netmsg.create_tcp_server()), clients[0].socket,
            held(netmsg.create_udp_socket()), held(netmsg.create_unix_datagram_socket(path=path / "s")), *codecs]


def test_nor_has_an_object_and_it_has_them_all(tmp_path: Path) -> None:
    with one_of_each(tmp_path) as things:
        shown = [(known_as(thing), public(thing)) for thing in things]
    assert shown == [(name, MEMBERS[name]) for name, _ in shown]
    assert {"ByteStream", "SocketStream", "PacketConnection", "DatagramPeer"} <= {name for name, _ in shown}


@pytest.mark.parametrize("codec", [
    netmsg.LineCodec(), netmsg.JSONCodec(), netmsg.StructCodec("!H"), netmsg.LengthPrefixedCodec(),
    netmsg.DelimitedCodec(b";"), netmsg.NetstringCodec(), netmsg.LineCodec(encoding="latin-1", newline="ab"),
], ids=lambda codec: type(codec).__name__)
def test_what_codecs_make_shows_no_more_than_what_they_stand_for(codec: Any) -> None:
    for one in (codec, codec.map(decode=str), codec.map(decode=str).map(encode=str)):
        assert public(one) == CODEC
        assert public(one.decoder()) == MEMBERS["Decoder"]


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_says_who_where_why_and_when(name: str) -> None:
    fields = {field.name for field in dataclasses.fields(getattr(netmsg, name))}
    more = {"Retrying": {"delay", "phase"}, "HandshakeFailed": {"phase", "dialled"}, "Dropped": {"count"},
            "Undelivered": {"message_id"}}
    assert fields == {"address", "peer", "reason", "error", "at"} | more.get(name, set())


@pytest.mark.parametrize("name", sorted(SØCKET - {"identity", "bound_addresses", "bound_port", "bound_urls", "closed"}))
def test_what_can_block_takes_its_timeout_by_keyword(name: str) -> None:
    parameters = inspect.signature(getattr(netmsg.Søcket, name)).parameters
    for each in ("timeout", "linger", "connect_timeout", "ssl_context", "server_hostname"):
        if each in parameters:
            assert parameters[each].kind is inspect.Parameter.KEYWORD_ONLY
    assert ("timeout" in parameters) == (name in {
        "bind", "send", "send_many", "send_string", "send_json", "recv", "recv_identity", "recv_many", "recv_delivery",
        "recv_string", "recv_json", "request", "serve_requests", "wait_for_peers", "events"})


def test_everything_public_is_listed_and_everything_listed_is_there() -> None:
    assert sorted(netmsg.__all__) == list(netmsg.__all__)
    for name in netmsg.__all__:
        assert getattr(netmsg, name).__doc__, f"{name} has no docstring"
