"""Where a Søcket binds and connects, written as one string. Pure.

=======================  ==============================================================================
``tcp://host:port``      plain; an IPv6 address in brackets: ``tcp://[::1]:5000``
``tls://host:port``      the same under TLS
``unix:///path``         a UNIX socket: all that follows ``unix://``, which is not decoded in any way
``unix:@name``           one of the abstract namespace (Linux)
``ws://host:port/path``  WebSocket; the path, with a query if need be, and the port may be left out
``wss://...``            the same under TLS
=======================  ==============================================================================
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final, NamedTuple

__all__ = ["Place", "check_hostname", "parse_url", "url_of"]

FORMS: Final = "tcp://host:port, tls://host:port, unix:///path, unix:@name, ws://host:port/path or wss://host:port/path"
SCHEMES: Final = {"tcp": False, "tls": True, "ws": False, "wss": True}
"""Of addresses with a port, and whether under TLS."""
WEBSOCKET_PORTS: Final = {"ws": 80, "wss": 443}
"""Those that need not be named."""
LONGEST_NAME: Final = 253
LONGEST_LABEL: Final = 63


class Place(NamedTuple):
    """What a URL says."""

    host: str
    """Without brackets; empty for a UNIX socket."""
    port: int
    path: str
    """Of a UNIX socket, with a leading NUL in the abstract namespace; else empty."""
    tls: bool
    resource: str = ""
    """Of a WebSocket: the path, from the slash on, and the query; else empty."""


def parse_url(text: str) -> Place | None:
    """What ``text`` says if it is a URL; ``None`` if it is to be a host name.

    Raises ``ValueError`` for one that is malformed.
    """
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if not colon or not (rest.startswith("//") or scheme == "unix"):
        return None
    if scheme == "unix":
        return Place("", 0, _unix_path(text, rest), False)
    if scheme not in SCHEMES:
        raise ValueError(f"{text!r}: there is no scheme {scheme!r}; write {FORMS}")
    rest, resource = rest.removeprefix("//"), ""
    if scheme in WEBSOCKET_PORTS:
        rest, resource = _split_resource(text, rest)
        if ":" not in rest.rpartition("]")[2]:
            rest += f":{WEBSOCKET_PORTS[scheme]}"
    host, port = _host_and_port(text, scheme, rest)
    return Place(host, port, "", SCHEMES[scheme], resource)


def _split_resource(text: str, rest: str) -> tuple[str, str]:
    """See RFC 6455, section 3: no fragment, and no user before the host."""
    found = re.search("[/?#]", rest)
    resource = "" if found is None else rest[found.start():]
    if not re.fullmatch(r"[!\"$-~]*", resource):
        raise ValueError(f"{text!r}: what follows the port has a '#' in it, or what is to be percent-encoded")
    return rest.removesuffix(resource) if resource else rest, resource if resource.startswith("/") else "/" + resource


def _unix_path(text: str, rest: str) -> str:
    if rest.startswith("@") and len(rest) > 1:
        return "\0" + rest[1:]
    path = rest.removeprefix("//")
    if not rest.startswith("///") or path.endswith("/"):
        raise ValueError(f"{text!r}: a UNIX socket is unix:///path, the path being absolute, or unix:@name")
    return path


def _host_and_port(text: str, scheme: str, rest: str) -> tuple[str, int]:
    host, _, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ipv6(host):
            raise ValueError(f"{text!r}: {host!r} is no IPv6 address; write {scheme}://[address]:port")
    elif ":" in host or _is_ipv6(rest):
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets: {scheme}://[address]:port")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{text!r} has no host, or no port from 0 to 65535; write {scheme}://host:port")
    try:
        check_hostname(host)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None
    return host, int(port)


def check_hostname(host: str) -> str:
    """``host``, a name or an address, without the brackets that an IPv6 address may stand in.

    Raises ``ValueError``, which says what to write, for what can be neither.
    """
    if not host:
        raise ValueError("hostname is empty")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if _is_ipv6(bare):
        return bare
    name, colon, port = host.rpartition(":")
    if colon and port.isdecimal() and (":" not in name or name.startswith("[")):
        raise ValueError(f"{host!r} is no host name: give the port apart, or write 'tcp://{host}'")
    if host == "*":
        raise ValueError("'*' is no host name: bind(None, port) listens on every interface")
    if "/" in host:
        raise ValueError(f"{host!r} is no host name: a UNIX socket is 'unix:///path'")
    found = re.search(r"[^\w.-]", host)
    if found:
        raise ValueError(f"{host!r} is no host name: it has {found[0]!r} in it; a URL is {FORMS}")
    labels = host.removesuffix(".").split(".")
    if len(host) > LONGEST_NAME or not all(0 < len(label) <= LONGEST_LABEL for label in labels):
        raise ValueError(f"{host!r} is no host name: its parts have 1 to {LONGEST_LABEL} characters, and all together "
                         f"{LONGEST_NAME} at most")
    return host


def _is_ipv6(text: str) -> bool:
    try:
        scope = ipaddress.IPv6Address(text).scope_id
    except ValueError:
        return False
    return scope is None or re.fullmatch(r"[\w.-]+", scope) is not None


def url_of(address: Any, tls: bool = False, path: str = "") -> str:
    """An address, ``(host, port)`` or the path of a UNIX socket, as a URL; ``path``: that of WebSocket's."""
    if isinstance(address, str):
        return f"unix:@{address[1:]}" if address.startswith("\0") else f"unix://{address}"
    host, port = address
    scheme = ("wss" if tls else "ws") if path else ("tls" if tls else "tcp")
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"
