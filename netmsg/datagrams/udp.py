"""UDP: IPv4 and IPv6, connected or not, multicast and broadcast."""

from __future__ import annotations

import errno
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

from ..checks import check_host, check_port, check_range
from ..deadline import Deadline
from ..sockets.addresses import Address, check_family, host_and_port
from ..sockets.adopting import check_socket
from ..sockets.listening import share_port
from ..sockets.resolving import resolve_within
from ..waiting import Waiters
from .datagram_socket import DatagramSocket

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["UDPSocket", "create_udp_socket"]

MAPPED: Final = "::ffff:"
"""How a dual-stack socket shows the addresses of IPv4."""


class _Default:
    def __repr__(self) -> str:
        return "<localhost with a port, unbound without>"


DEFAULT: Final = _Default()


class UDPSocket(DatagramSocket):
    """A UDP socket; see `create_udp_socket` and, for what holds of all its members, `DatagramSocket`."""

    @classmethod
    def from_socket(cls, sock: socket.socket) -> UDPSocket:
        """Take over a UDP socket that was made elsewhere. ``TypeError`` or ``ValueError`` for anything else, which then
        stays its owner's."""
        check_socket(sock, socket.SOCK_DGRAM, (socket.AF_INET, socket.AF_INET6), "a UDP socket")
        try:
            sock.getpeername()
        except OSError as error:
            if error.errno is None:
                raise  # a signal handler raised it
            return cls(sock, connected=False)
        return cls(sock, connected=True)

    def __init__(self, sock: socket.socket, *, connected: bool) -> None:
        self._resolving = Waiters()  # who waits for an address to send to
        super().__init__(sock, connected=connected)
        self._peer = self._address(sock.getpeername()) if connected else None

    @property
    def _fixed_target(self) -> Any:
        return self._peer

    def _is_target(self, sender: Any) -> bool:
        return self._connected  # the kernel sees to it

    def _address(self, address: Any) -> Any:
        if isinstance(address, tuple) and address[0].startswith(MAPPED) and "." in address[0]:
            return address[0].removeprefix(MAPPED), address[1]
        return host_and_port(address)

    def close(self) -> None:
        """Close; what was sent is on its way. Idempotent, from any thread or signal handler. Whoever waits in a call
        gets `ClosedError`."""
        try:
            super().close()
        finally:
            self._resolving.notify_all()

    def _resolved(self, host: str, port: int, deadline: Deadline) -> Any:
        host = check_host(host)
        check_port(port)
        family = self._socket.family
        dual = family == socket.AF_INET6 and not self._inside(
            self._socket.getsockopt, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        for candidate, address in _addresses(host, port, deadline, self._resolving, lambda: self.closed):
            if candidate == family:
                return address
            if dual and candidate == socket.AF_INET:
                return MAPPED + address[0], port, 0, 0
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} has no address of this socket's family")

    def _target(self, address: Any, deadline: Deadline) -> Any:
        if address is None:
            if not self._connected:
                raise ValueError("an address is needed: the socket is not connected")
            return None
        if self._connected:
            raise ValueError("the socket is connected: no address may be given")
        host, port = address[:2]
        return self._resolved(host, port, deadline)

    def send(self, data: ReadableBuffer, host: str | None = None, port: int | None = None, *,
             timeout: float | None = None) -> None:
        """Send one datagram to ``host`` and ``port``, or without them to what the socket is connected to.

        ``OSError(EMSGSIZE)`` if it is too long. On a connected socket ``ConnectionRefusedError`` says that nobody
        listened to an earlier one.
        """
        deadline = Deadline(timeout)
        self._check()
        if (host is None) != (port is None):
            raise ValueError("host and port go together")
        if host is None or port is None:
            self._send(data, self._target(None, deadline), deadline)
            return
        if self._connected:
            raise ValueError("the socket is connected: no address may be given")
        self._send(data, self._resolved(host, port, deadline), deadline)

    def send_to(self, data: ReadableBuffer, address: tuple[str, int], *, timeout: float | None = None) -> None:
        """`send` to an address as `receive` gave it."""
        host, port = address[:2]
        self.send(data, host, port, timeout=timeout)

    # Multicast

    def join_group(self, group: str, interface: str | None = None) -> None:
        """Receive what is sent to a multicast ``group`` too, on ``interface`` (its name or, for IPv4, its address; by
        default the ``%scope`` of the group, and without one the system's choice). ``OSError`` if there is no such
        interface, ``ValueError`` if it is none on which there is the group, or that is no group."""
        self._membership(group, interface, join=True)

    def leave_group(self, group: str, interface: str | None = None) -> None:
        """Undo `join_group`."""
        self._membership(group, interface, join=False)

    def _membership(self, group: str, interface: str | None, *, join: bool) -> None:
        self._check()
        family, packed, scope = _group(group)
        if family == socket.AF_INET:
            option = socket.IP_ADD_MEMBERSHIP if join else socket.IP_DROP_MEMBERSHIP
            address, index = _ipv4_interface(interface)
            self._inside(self._socket.setsockopt, socket.IPPROTO_IP, option,
                         packed + address + struct.pack("@i", index))
        else:
            option = socket.IPV6_JOIN_GROUP if join else socket.IPV6_LEAVE_GROUP
            index = scope if interface is None else socket.if_nametoindex(interface)
            if scope not in (0, index):
                raise ValueError(f"{group!r} is not on the interface {interface!r}")
            self._inside(self._socket.setsockopt, socket.IPPROTO_IPV6, option, packed + struct.pack("@I", index))


def _group(group: str) -> tuple[int, bytes, int]:
    """The family and the packed address of a multicast group, and the index of the interface that its scope names (0 if
    it has none). Raises ``ValueError``, and ``OSError`` if there is no such interface."""
    address, percent, scope = group.partition("%")
    try:
        if not percent:
            return socket.AF_INET, socket.inet_pton(socket.AF_INET, address), 0
    except OSError:
        pass  # of IPv6, then
    try:
        packed = socket.inet_pton(socket.AF_INET6, address)
    except OSError:
        raise ValueError(f"{group!r} is no multicast group") from None
    if not percent:
        return socket.AF_INET6, packed, 0
    is_index = scope.isdecimal() and len(scope) < 10
    return socket.AF_INET6, packed, int(scope) if is_index else socket.if_nametoindex(scope)


def _ipv4_interface(interface: str | None) -> tuple[bytes, int]:
    """The address and the index that name an interface to the kernel."""
    if interface is None:
        return bytes(4), 0
    try:
        return socket.inet_pton(socket.AF_INET, interface), 0
    except OSError:
        return bytes(4), socket.if_nametoindex(interface)


def create_udp_socket(*, port: int = 0, interface: str | None | _Default = DEFAULT, target_host: str | None = None,
                      target_port: int | None = None, family: int = socket.AF_UNSPEC, reuse_port: bool = False,
                      broadcast: bool = False, multicast_ttl: int | None = None, multicast_loop: bool = True,
                      multicast_interface: str | None = None, timeout: float | None = None) -> UDPSocket:
    """A UDP socket.

    With ``port``: bound to it on ``interface``, by default on localhost; ``None`` is every interface, of IPv4 and IPv6
    at once (IPv4 senders are shown as IPv4). With ``target_host`` and ``target_port``: connected, so that it sends to
    and receives from there alone. ``"localhost"`` is 127.0.0.1, here and wherever datagrams are sent to (``::1`` with
    ``family=AF_INET6``). ``reuse_port`` lets several sockets share the port, as receivers of multicast do.
    ``multicast_ttl`` is the number of networks that multicast may cross (1 by default), ``multicast_interface`` the
    name of the interface that it leaves by (or its IPv4 address, which counts for groups of IPv4 alone), and
    ``multicast_loop`` says whether this machine gets it too. ``timeout`` is for resolving names.
    """
    deadline = Deadline(timeout)
    check_port(port)
    if interface is not None and not isinstance(interface, _Default):
        interface = check_host(interface)
    check_family(family)
    if (target_host is None) != (target_port is None):
        raise ValueError("target_host and target_port go together")
    if multicast_ttl is not None:
        check_range("multicast_ttl", multicast_ttl, 0, 255)
    target = None
    if target_host is not None and target_port is not None:
        check_port(target_port)
        target = _resolved_target(check_host(target_host), target_port, interface, port, family, deadline)
        family = target[0]
    family, own, dual = _own(interface, port, family, target, deadline)
    sock = socket.socket(family or socket.AF_INET, socket.SOCK_DGRAM)
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            share_port(sock)
        if broadcast:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        _set_multicast(sock, dual, multicast_ttl, multicast_loop, multicast_interface)
        _bind_and_connect(sock, own, target)
        return UDPSocket(sock, connected=target is not None)
    except BaseException:
        sock.close()
        raise


def _resolved_target(host: str, port: int, interface: str | None | _Default, own_port: int, family: int,
                     deadline: Deadline) -> Address:
    targets = _addresses(host, port, deadline)
    if isinstance(interface, str) and family == socket.AF_UNSPEC:  # of which both have to be
        family = _common_family(targets, _addresses(interface, own_port, deadline))
    return _first(targets, family, host)


def _bind_and_connect(sock: socket.socket, own: Address | None, target: Address | None) -> None:
    if own is not None:
        sock.bind(own[1])
    elif target is None:  # so that it can be answered at once
        sock.bind(_any(sock.family, 0)[1])
    if target is not None:
        sock.connect(target[1])
        _drop_strangers(sock)


def _own(interface: str | None | _Default, port: int, family: int, target: Address | None,
         deadline: Deadline) -> tuple[int, Address | None, bool]:
    """The family, where to bind (``None``: nowhere in particular), and whether that is to be IPv4 as well."""
    if isinstance(interface, str):
        own = _first(_addresses(interface, port, deadline), family, interface)
        return own[0], own, False
    if interface is None:
        dual = family == socket.AF_UNSPEC and _has_ipv6()
        family = socket.AF_INET6 if dual else family or socket.AF_INET
        return family, _any(family, port), dual
    if not port:
        return family, None, False
    family = family or socket.AF_INET
    if target is not None:  # which may be anywhere
        return family, _any(family, port), False
    return family, (family, _with_port("127.0.0.1" if family == socket.AF_INET else "::1", port)), False


def _has_ipv6() -> bool:
    """Whether the kernel has: ``socket.has_ipv6`` tells how Python was built."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
        return False
    return True


def _any(family: int, port: int) -> Address:
    return family, _with_port("0.0.0.0" if family == socket.AF_INET else "::", port)


def _drop_strangers(sock: socket.socket) -> None:
    """What came between binding and connecting."""
    sock.setblocking(False)
    try:
        while True:
            sock.recv(1)
    except OSError as error:  # nothing more
        if error.errno is None:
            raise  # a signal handler raised it


def _addresses(host: str, port: int, deadline: Deadline, *giving_up: Any) -> list[Address]:
    """``"localhost"`` is 127.0.0.1 before ::1, whatever the system's table of hosts says: there a socket with a port is
    by default, and datagrams that go to the other one just vanish."""
    if host.lower() != "localhost":
        return resolve_within(deadline, host, port, *giving_up)
    return [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port, 0, 0))]


def _with_port(host: str, port: int) -> Any:
    return (host, port, 0, 0) if ":" in host else (host, port)


def _common_family(targets: list[Address], own: list[Address]) -> int:
    families = {family for family, _ in own}
    return next((family for family, _ in targets if family in families), socket.AF_UNSPEC)


def _first(addresses: list[Address], family: int, host: str) -> Address:
    for address in addresses:
        if family in (socket.AF_UNSPEC, address[0]):
            return address
    raise socket.gaierror(socket.EAI_NONAME, f"{host!r} has no address of this family")


def _set_multicast(sock: socket.socket, dual: bool, ttl: int | None, loop: bool, interface: str | None) -> None:
    address, index = _ipv4_interface(interface)
    if sock.family == socket.AF_INET or dual:
        if ttl is not None:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
        if not loop:  # not every system lets a dual-stack socket have what it has already
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, loop)
        if interface is not None:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF,
                            bytes(4) + address + struct.pack("@i", index))
    if sock.family == socket.AF_INET6:
        if ttl is not None:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)
        if not loop:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, loop)
        if interface is not None and not (dual and not index):  # which is an address of IPv4
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex(interface))
