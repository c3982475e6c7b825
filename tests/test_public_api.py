"""The names that users see are those of the contract, and no more: what else there is begins with an underscore, or is
in a class that users never hold."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

import netmsg

SØCKET = {
    "bind", "bind_unix", "connect", "connect_unix", "identity", "bound_addresses", "bound_port", "bound_urls", "send",
    "send_many", "recv", "recv_identity", "recv_many", "recv_delivery", "deliveries", "messages", "identity_messages",
    "json_messages", "send_string", "recv_string", "send_json", "recv_json", "request", "peers", "wait_for_peers",
    "events", "stats", "fileno", "close", "closed",
}
MEMBERS = {
    "Søcket": SØCKET,
    "Receipt": {"wait", "acked", "failed", "message_id"},
    "Delivery": {"data", "identity", "is_request", "ack", "nack", "reply"},
    "SocketProxy": {"getsockopt", "setsockopt", "getsockname", "getpeername", "family", "type", "proto", "fileno"},
    "PeerInfo": {"identity", "address", "tls", "dialect", "connected_since", "sent", "received", "queued", "unacked",
                 "count", "index"},  # the last two are every tuple's
    "SendMode": {"ROUNDROBIN", "PUBLISH"},
    "DeliveryGuarantee": {"AT_MOST_ONCE", "AT_LEAST_ONCE"},
    "AckMode": {"ON_RECV", "MANUAL", "ON_ARRIVAL"},
    "OnFull": {"BLOCK", "DROP_OLDEST", "DROP_NEWEST", "RAISE", "DISCONNECT"},
    "OnDuplicate": {"PROBE", "REJECT", "TAKEOVER"},
}
"""What the contract names and is there, by class."""
EVENTS = ["Listening", "Connecting", "Connected", "HandshakeFailed", "Disconnected", "Retrying", "DuplicatePeer",
          "Full", "Dropped", "Undelivered", "AcceptError"]


@pytest.mark.parametrize("name", MEMBERS)
def test_a_class_has_the_members_of_the_contract_and_no_others(name: str) -> None:
    assert {member for member in dir(getattr(netmsg, name)) if not member.startswith("_")} == MEMBERS[name]


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
        "recv_string", "recv_json", "request", "wait_for_peers", "events"})


def test_everything_public_is_listed_and_everything_listed_is_there() -> None:
    assert sorted(netmsg.__all__) == list(netmsg.__all__)
    for name in netmsg.__all__:
        assert getattr(netmsg, name).__doc__, f"{name} has no docstring"
