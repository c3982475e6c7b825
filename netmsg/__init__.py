"""Threaded, blocking networking and messaging, from the standard library alone."""

from .clients.datagram_client import DatagramClient
from .clients.packet_client import PacketClient
from .datagrams.udp import UDPSocket, create_udp_socket
from .datagrams.unix import UNIXDatagramSocket, create_unix_datagram_socket
from .errors import (
    ClosedError, ConnectFailedError, ConnectionBrokenError, DelimiterNotFoundError, EndOfStream, ForkedError,
    IncompleteReadError, LocalProtocolError, NetmsgError, PacketDecodeError, PacketEncodeError, ProtocolError,
    QueueFullError, RemoteProtocolError, RequestFailedError, SendTimeoutError, TLSHandshakeError, UndeliveredError,
    UnknownPeerError,
)
from .messaging.choices import AckMode, DeliveryGuarantee, OnDuplicate, OnFull, OnNoPeer, SendMode
from .messaging.deliveries import Delivery
from .messaging.events import (
    AcceptError, Connected, Connecting, Disconnected, Dropped, DuplicatePeer, Event, Full, HandshakeFailed, Listening,
    Retrying, Undelivered,
)
from .messaging.proxying import proxy
from .messaging.receipts import Receipt
from .messaging.smart_socket import Socket, Søcket
from .messaging.snapshots import PeerInfo, SocketStats
from .packets.codec import Codec, Decoder
from .packets.delimited import DelimitedCodec
from .packets.json_lines import JSONCodec
from .packets.length_prefixed import LengthPrefixedCodec
from .packets.lines import LineCodec
from .packets.netstrings import NetstringCodec
from .packets.structs import StructCodec
from .reactor.io_thread import IOThread
from .servers.datagram_server import DatagramPeer, DatagramServer
from .servers.packet_server import PacketConnection, PacketServer
from .servers.stats import ServerStats
from .servers.stream_server import StreamServer
from .sockets.proxy import SocketProxy
from .streams.byte_stream import ByteStream
from .streams.connecting import connect_tcp, connect_unix
from .streams.listener import Listener, create_tcp_server, create_unix_server
from .streams.memory import memory_stream_pair
from .streams.socket_stream import PeerCredentials, SocketStream
from .tls import TLSInfo

__version__ = "0.1.0"

__all__ = [
    "AcceptError",
    "AckMode",
    "ByteStream",
    "ClosedError",
    "Codec",
    "ConnectFailedError",
    "Connected",
    "Connecting",
    "ConnectionBrokenError",
    "DatagramClient",
    "DatagramPeer",
    "DatagramServer",
    "Decoder",
    "DelimitedCodec",
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
    "JSONCodec",
    "LengthPrefixedCodec",
    "LineCodec",
    "Listener",
    "Listening",
    "LocalProtocolError",
    "NetmsgError",
    "NetstringCodec",
    "OnDuplicate",
    "OnFull",
    "OnNoPeer",
    "PacketClient",
    "PacketConnection",
    "PacketDecodeError",
    "PacketEncodeError",
    "PacketServer",
    "PeerCredentials",
    "PeerInfo",
    "ProtocolError",
    "QueueFullError",
    "Receipt",
    "RemoteProtocolError",
    "RequestFailedError",
    "Retrying",
    "SendMode",
    "SendTimeoutError",
    "ServerStats",
    "Socket",
    "SocketProxy",
    "SocketStats",
    "SocketStream",
    "StreamServer",
    "StructCodec",
    "Søcket",
    "TLSHandshakeError",
    "TLSInfo",
    "UDPSocket",
    "UNIXDatagramSocket",
    "Undelivered",
    "UndeliveredError",
    "UnknownPeerError",
    "connect_tcp",
    "connect_unix",
    "create_tcp_server",
    "create_udp_socket",
    "create_unix_datagram_socket",
    "create_unix_server",
    "memory_stream_pair",
    "proxy",
]
