"""Threaded, blocking networking and messaging, from the standard library alone."""

from .errors import (
    ClosedError,
    ConnectFailedError,
    ConnectionBrokenError,
    DelimiterNotFoundError,
    EndOfStream,
    ForkedError,
    IncompleteReadError,
    LocalProtocolError,
    NetmsgError,
    PacketDecodeError,
    PacketEncodeError,
    ProtocolError,
    QueueFullError,
    RemoteProtocolError,
    SendTimeoutError,
    TLSHandshakeError,
    UndeliveredError,
    UnknownPeerError,
)
from .messaging.admission import OnDuplicate
from .messaging.delivery import AckMode, DeliveryGuarantee
from .messaging.engine import SocketStats
from .messaging.events import (
    AcceptError,
    Connected,
    Connecting,
    Disconnected,
    Dropped,
    DuplicatePeer,
    Event,
    Full,
    HandshakeFailed,
    Listening,
    Retrying,
    Undelivered,
)
from .messaging.peers import PeerInfo
from .messaging.receipts import Receipt
from .messaging.routing import OnFull, SendMode
from .messaging.smart_socket import Delivery, Socket, Søcket
from .reactor.io_thread import IOThread
from .tls import TLSInfo

__version__ = "0.1.0"

__all__ = [
    "AcceptError",
    "AckMode",
    "ClosedError",
    "ConnectFailedError",
    "Connected",
    "Connecting",
    "ConnectionBrokenError",
    "DelimiterNotFoundError",
    "Delivery",
    "DeliveryGuarantee",
    "Disconnected",
    "Dropped",
    "DuplicatePeer",
    "EndOfStream",
    "Event",
    "ForkedError",
    "Full",
    "HandshakeFailed",
    "IOThread",
    "IncompleteReadError",
    "Listening",
    "LocalProtocolError",
    "NetmsgError",
    "OnDuplicate",
    "OnFull",
    "PacketDecodeError",
    "PacketEncodeError",
    "PeerInfo",
    "ProtocolError",
    "QueueFullError",
    "Receipt",
    "RemoteProtocolError",
    "Retrying",
    "SendMode",
    "SendTimeoutError",
    "Socket",
    "SocketStats",
    "Søcket",
    "TLSHandshakeError",
    "TLSInfo",
    "Undelivered",
    "UndeliveredError",
    "UnknownPeerError",
]
