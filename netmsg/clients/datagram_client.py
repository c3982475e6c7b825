"""Packets over datagrams, one in each."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar, Union

from ..checks import check_address, check_timeout
from ..datagrams.datagram_socket import DatagramSocket
from ..datagrams.udp import UDPSocket, create_udp_socket
from ..datagrams.unix import UNIXDatagramSocket, create_unix_datagram_socket
from ..deadline import Deadline
from ..errors import ClosedError
from ..interrupts import in_main_thread
from ..packets.codec import Codec, check_codec
from ..sockets.proxy import SocketProxy
from ..waiting import ONE
from .received import ReceivedPackets

__all__ = ["DatagramClient"]

LARGEST: Final = 262_144
"""Bytes in a UNIX datagram; those of UDP are shorter."""

S = TypeVar("S")
R = TypeVar("R")


class DatagramClient(Generic[S, R]):
    """Sends packets to one other end, and receives packets from it alone, each in a datagram of its own, as ``codec``
    has them. Datagrams over UDP may get lost, be doubled, and overtake each other.

    :param target: a (host, port), the path of a UNIX datagram socket, a connected ``socket.socket`` of datagrams (which
        belongs to the client from then on; ``OSError`` if it is not connected, and then it stays its owner's), or a
        `UDPSocket` or `UNIXDatagramSocket` that has a target.
    :param connect_timeout: seconds for name resolution.
    :param local_address: what to send from: (host, port), or for a UNIX target the path, which is removed on close. Not
        with a socket, which has one (``ValueError``).

    May be used from any thread. Every ``timeout`` is in seconds, ``None`` for ever, 0 for one try; running out raises
    ``TimeoutError``. After `close`, also while a call is blocked, `ClosedError`. A context manager.
    """

    def __init__(self, target: Union[tuple[str, int], str, bytes, os.PathLike[str], socket.socket, DatagramSocket],
                 codec: Codec[S, R], *, connect_timeout: float | None = None,
                 local_address: Union[tuple[str, int], str, bytes, os.PathLike[str], None] = None) -> None:
        check_codec(codec)
        check_timeout(connect_timeout)
        self._codec = codec
        self._socket: Any = _open(target, local_address, connect_timeout)
        self._sender = self._socket._fixed_target  # of all that comes

    def send_packet(self, packet: S, *, timeout: float | None = None) -> None:
        """Send one packet. `PacketEncodeError` if the codec cannot express it, ``OSError(EMSGSIZE)`` if it is too long
        for a datagram; ``ConnectionRefusedError`` says that nobody listened, to an earlier one over UDP."""
        check_timeout(timeout)
        self._socket.send(self._codec.encode(packet), timeout=timeout)

    def recv_packet(self, *, timeout: float | None = None) -> R:
        """The next packet; `PacketDecodeError` for a datagram that is none. ``ConnectionRefusedError`` says that nobody
        listened to an earlier `send_packet` over UDP."""
        return self._recv(timeout)

    def _recv(self, timeout: float | None, *, now: bool = False) -> R:
        sock = self._socket
        left, occupancy = sock._left, sock._occupancy
        interruptible = in_main_thread()
        data = None
        try:
            try:
                data, _ = sock._receive_now(LARGEST) if now else sock.receive(LARGEST, timeout=timeout)
                return self._codec.decode(data)
            except OSError as error:
                if error.errno is not None or not interruptible:  # no signal handler's: see `Codec.map`
                    data = None
                raise
            except Exception:
                data = None
                raise
        except BaseException:
            # No call but into C, and so no further interrupt keeps it from being left to others: see `WakeUp`.
            if data is not None:
                left += ([(data, (), 0, self._sender)],)
                if occupancy.inside:
                    try:
                        for signal in occupancy.wake_up.signals[:1]:
                            os.write(signal.ends[-1], ONE)
                    except BlockingIOError:
                        pass  # it is set
            raise

    def _wait_for_packet(self, deadline: Deadline) -> None:
        """Wait until a datagram is there. Raises ``TimeoutError``."""
        if not self._socket._wait_readable(deadline):
            raise TimeoutError("timed out")

    def _take_packet(self) -> R:
        """`recv_packet`, with ``BlockingIOError`` where it would wait."""
        return self._recv(0, now=True)

    def iter_received_packets(self, *, timeout: float | None = 0) -> Iterator[R]:
        """Iterate over what comes while no more than ``timeout`` seconds in all are spent waiting (0: what is there
        already; ``None``: for ever). A `PacketDecodeError` comes through, and the iterator may be asked again."""
        return ReceivedPackets(self, timeout)

    def __iter__(self) -> Iterator[R]:
        return ReceivedPackets(self, None)

    @property
    def socket(self) -> SocketProxy:
        """The socket's options and addresses."""
        proxy: SocketProxy = self._socket.socket
        return proxy

    @property
    def local_address(self) -> Any:
        """(host, port), or the path of a UNIX socket; also after close."""
        return self._socket.local_address

    @property
    def remote_address(self) -> Any:
        """The other end's."""
        return self._socket._fixed_target

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return bool(self._socket.closed)

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return int(self._socket.fileno())

    def close(self) -> None:
        """Close; what was sent is on its way. Idempotent, from any thread or signal handler."""
        self._socket.close()

    def __enter__(self) -> DatagramClient[S, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._socket!r}>"


def _open(target: Any, local_address: Any, timeout: float | None) -> DatagramSocket:
    if local_address is not None and isinstance(target, (DatagramSocket, socket.socket)):
        raise ValueError("local_address does not go with a socket, which has one")
    if isinstance(target, DatagramSocket):
        if target.closed:
            raise ClosedError("the socket is closed")
        if target._fixed_target is None:
            raise ValueError("the socket is not connected: packets need somebody to go to")
        return target
    if isinstance(target, socket.socket):
        target.getpeername()  # raises OSError if it is not connected
        if target.family == getattr(socket, "AF_UNIX", None):
            return UNIXDatagramSocket.from_socket(target)
        return UDPSocket.from_socket(target)
    if isinstance(target, tuple):
        host, port = check_address("target", target)
        if local_address is None:
            return create_udp_socket(target_host=host, target_port=port, timeout=timeout)
        own_host, own_port = check_address("local_address", local_address)
        return create_udp_socket(target_host=host, target_port=port, interface=own_host, port=own_port,
                                 timeout=timeout)
    if isinstance(target, (str, bytes, os.PathLike)):
        return create_unix_datagram_socket(path=local_address, target_path=target, timeout=timeout)
    raise TypeError("target must be a (host, port), the path of a UNIX socket, a socket.socket, a UDPSocket or a "
                    f"UNIXDatagramSocket, not {type(target).__name__}")
