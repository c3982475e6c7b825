"""Targets: what users write, and what they may have from somebody else."""

from __future__ import annotations

import ipaddress
import os
import re

from netmsg.messaging.urls import check_hostname, parse_url, url_of
from netmsg.sockets.addresses import LONGEST_UNIX_PATH, unix_path

__all__ = ["unix_paths", "urls"]


def urls(data: bytes) -> None:
    """Only ``ValueError`` comes of what is none. Of what is one, a host and a port, or a path, and nothing of both;
    what it says, written as a URL, says the same again. So does a host name, which has none of the signs of a URL."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        place = parse_url(text)
    except ValueError as error:
        assert type(error) is ValueError
        return
    if place is None:
        try:
            host = check_hostname(text)
        except ValueError as error:
            assert type(error) is ValueError
            return
        check_host(host)
        again = parse_url(url_of((host, 1)))
        assert again is not None and (again.host, again.port) == (host, 1)
    elif place.path:
        assert (place.host, place.port, place.resource, place.tls) == ("", 0, "", False)
        assert place.path.startswith("\0") or place.path.startswith("/") and not place.path.endswith("/")
        assert parse_url(url_of(place.path)) == place
    else:
        check_host(place.host)
        assert 0 <= place.port <= 65535
        assert re.fullmatch(r"(/[!-~]*)?", place.resource)
        assert parse_url(url_of((place.host, place.port), place.tls, place.resource)) == place


def check_host(host: str) -> None:
    """It is an address, or can stand in a line of HTTP and be resolved."""
    assert host and not re.search(r"[\s\0/@\[\]?#]", host)
    if ":" in host:
        ipaddress.IPv6Address(host)
    else:
        assert len(host) <= 253


def unix_paths(data: bytes) -> None:
    """Only ``ValueError`` comes of what the kernel would cut short or take for another one; anything else is the same
    path as ``str``."""
    try:
        path = unix_path(data)
    except ValueError as error:
        assert type(error) is ValueError
        assert not data or b"\0" in data[1:] or len(data) > LONGEST_UNIX_PATH
    else:
        assert os.fsencode(path) == data and b"\0" not in data[1:] and 0 < len(data) <= LONGEST_UNIX_PATH
        assert unix_path(path) == path
