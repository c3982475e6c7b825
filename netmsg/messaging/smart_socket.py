"""The Søcket: messages instead of bytes, many peers behind one object, and nothing to do about connections."""

from __future__ import annotations

import json
import os
import ssl
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Self, Union, overload

from ..checks import check_callable, check_count, check_port, check_seconds, check_str, check_timeout
from ..deadline import Deadline
from ..errors import ClosedError, LocalProtocolError, QueueFullError, SendTimeoutError
from ..interrupts import is_of_a_signal_handler
from ..reactor.io_thread import IOThread, reactor_of
from ..sockets.addresses import host_and_port, unix_path
from ..speaking import wait_until_said
from ..storage.files import PathLike
from ..tls.contexts import client_context
from ..wire.envelope import DATA_HEADERS
from . import exiting
from .arguments import (
    DEFAULT_PORT, Buffer, Options, carrier_of_bind, carrier_of_connect, check_identity, message_of, place_of, prefix_of,
    taken_from,
)
from .carriers import Carrier
from .choices import AckMode, DeliveryGuarantee, OnDuplicate, OnFull, OnNoPeer, SendMode
from .deliveries import Delivery
from .dispatching import BURST
from .engine import engine_of
from .events import Event
from .inbox import Batch
from .iterating import UntilClosed
from .receipts import Receipt
from .serving import Serving
from .settings import Settings, checked, default_policy
from .snapshots import PeerInfo, SocketStats
from .urls import check_hostname

if TYPE_CHECKING:
    from typing_extensions import TypeVar, Unpack

    R = TypeVar("R", bound=Union[Receipt, None], default=Union[Receipt, None], covariant=True)
    """What `Søcket.send` returns: a receipt of a Søcket that sends at least once, ``None`` of another."""
else:
    from typing import TypeVar

    R = TypeVar("R", covariant=True)

__all__ = ["Socket", "Søcket"]

SAID_WITHIN: Final = 0.5
"""Seconds that `close` waits for the log, so that what there was to say is said when it returns."""
FOREVER: Final = Deadline(None)


def _converted(convert: Callable[[bytes], Any], batch: Batch, data: Any) -> tuple[Any, Exception | None]:
    try:
        return convert(data if batch.bare else data[1]), None
    except Exception as error:
        if is_of_a_signal_handler(error):
            raise
        return None, error


class Søcket(Generic[R]):
    """A smart socket: `bind` it, `connect` it, or both, several times over; then `send` and `recv` messages.

    It reconnects, buffers while nobody is there, sends heartbeats and notices when a peer is dead, all in a background
    thread (``netmsg-io-N``). It may be used from any thread, and is a context manager.

    :param send_mode: which peers a message goes to: ``ROUNDROBIN``, one peer in turn, or ``PUBLISH``, all of them.
    :param delivery_guarantee: ``AT_MOST_ONCE``, or ``AT_LEAST_ONCE``: messages are kept, and sent again, until the
        receiver acknowledges them; `send` returns a `Receipt`. Not for ``PUBLISH`` (``ValueError``).
    :param identity: 16 bytes by which peers know this socket; random by default. It outlives connections. To a peer
        it is only a name: use ``authorize`` to tie it to a certificate.
    :param reconnection_delay: a function that returns the seconds to wait before connecting again; called in a thread
        of its own. By default an exponential backoff with full jitter, from 0.1 s up to 2 s. Under 10 ms is 10 ms; and
        what it raises, or returns that makes no sense, or not within a second, is logged and the default used.
    :param send_hwm: the high-water mark: how many messages may wait for each peer, and for all peers to come.
    :param send_hwm_bytes: the same in bytes. Both are soft: by one message for each sending thread, and in bytes by
        what messages too small to be counted (below ``send_hwm_bytes / send_hwm``) add up to, at most as much again.
    :param recv_hwm: how many messages received from a peer may wait for `recv` before it is not read any further. The
        mark belongs to its identity: who connects again does not begin anew.
    :param recv_hwm_bytes: the same in bytes.
    :param on_full: what `send` does at the mark; by default ``BLOCK``, with ``PUBLISH`` ``DROP_OLDEST``.
    :param max_message_size: longer messages are refused: by `send` with ``ValueError``, from a peer by closing the
        connection. Give both ends the same: a message that only its sender allows breaks every connection it takes.
    :param max_connections: at so many connections accepting pauses.
    :param heartbeat_interval: seconds without sending after which a heartbeat is sent.
    :param heartbeat_timeout: seconds of silence after which a connection is dead. A netmsg peer that announces
        heartbeats as rare as that is given two and a half of its own intervals, up to four times these seconds.
    :param handshake_timeout: seconds that TLS, HELLO and authorization may take.
    :param ack_mode: when an at-least-once message is acknowledged: ``ON_RECV``, ``MANUAL`` or ``ON_ARRIVAL``.
    :param resend_after: seconds without acknowledgement after which a message is sent again, whatever else goes on;
        each further time takes longer.
    :param max_resends: how often, before it is given up on; ``None``: no limit.
    :param max_unacked: how many messages a peer may have without acknowledging them; ``None``: what the peer says it
        holds, or 200. With 1, work is distributed fairly: a worker gets the next job when it has done the last.
    :param dedupe: how many acknowledged message ids are remembered, so as to recognise duplicates.
    :param on_duplicate: what happens when an identity connects a second time.
    :param authorize: a function of a `PeerInfo` that says whether to let it in; called after TLS and HELLO and before
        any message, in a thread of its own: one for all calls of this Søcket, so a slow one holds up the next. Whoever
        has gone before its turn is not asked about.
    :param linger: how long `close` waits, in seconds, for messages on their way; ``math.inf`` for ever.
    :param io_thread: an `IOThread` to share with others.
    :param on_no_peer: what becomes of a message while nobody is there: ``KEEP``, up to the mark, for the first who
        comes, or ``DROP``, and count it. At least once only ``KEEP`` (``ValueError``).
    :param conflate: keep only the newest message: one for each peer, or for the first who comes, to be sent, and one of
        each peer to be received; older ones are dropped and counted as ``conflated``. What the kernel has been handed
        goes: see ``send_buffer``. Requests, replies, and what peers send at least once are all kept. At least once
        ``ValueError``.
    :param send_buffer: bytes that the kernel is to hold for each connection of what was sent (SO_SNDBUF), and
    :param recv_buffer: of what has come (SO_RCVBUF); ``None``: as it likes, which may be megabytes. Small ones keep
        what waits where the marks are, and where it can still be dropped; large ones help on long, fast ways.
    :param outbox: the path of a file in which messages are kept until they are acknowledged, of this process and the
        next ones, which send them again. AT_LEAST_ONCE only (``ValueError``), and not with ``DROP_OLDEST``. `send` then
        returns once the message is there, and may raise ``OSError``, for a full disk for example: then it is not. The
        file is made if there is none, and has an identity for good: another ``identity`` is a ``ValueError``. A file
        that is in use, damaged, of a newer version or something else is an ``OSError``, and left as it is.
    :param outbox_sync: ``"full"``: what is kept outlives a crash of the machine; ``"normal"``: one of the program, and
        the disk is not waited for.
    :param dedupe_path: the path of a file in which the ids are kept of the ``dedupe`` newest messages, of those sent at
        least once, that have been handed over; with ``MANUAL``, that have been acknowledged. Each is there before its
        acknowledgement leaves, and `Delivery.ack` returns when it is: so a receiver that is started again knows what it
        has had. Not with ``ON_ARRIVAL`` (``ValueError``). For files that cannot be used as with ``outbox``.

    For type checkers it is generic in what `send` returns: ``Søcket[Receipt]`` sends at least once, ``Søcket[None]`` at
    most once, and a plain ``Søcket`` may be either.
    """

    __slots__ = ("__weakref__", "_engine", "_inbox", "_io", "_life", "_manual", "_small", "_hwm", "_router",
                 "_max_size", "_default_linger", "_sender")

    @overload
    def __init__(self: Søcket[None], send_mode: SendMode = ...,
                 delivery_guarantee: Literal[DeliveryGuarantee.AT_MOST_ONCE] = ..., identity: bytes | None = ...,
                 reconnection_delay: Callable[[], float] | None = ..., **options: Unpack[Options]) -> None: ...

    @overload
    def __init__(self: Søcket[Receipt], send_mode: SendMode,
                 delivery_guarantee: Literal[DeliveryGuarantee.AT_LEAST_ONCE], identity: bytes | None = ...,
                 reconnection_delay: Callable[[], float] | None = ..., **options: Unpack[Options]) -> None: ...

    @overload
    def __init__(self: Søcket[Receipt], send_mode: SendMode = ..., *,
                 delivery_guarantee: Literal[DeliveryGuarantee.AT_LEAST_ONCE], identity: bytes | None = ...,
                 reconnection_delay: Callable[[], float] | None = ..., **options: Unpack[Options]) -> None: ...

    @overload
    def __init__(self: Søcket[Receipt | None], send_mode: SendMode = ..., delivery_guarantee: DeliveryGuarantee = ...,
                 identity: bytes | None = ..., reconnection_delay: Callable[[], float] | None = ...,
                 **options: Unpack[Options]) -> None: ...

    def __init__(
        self,
        send_mode: SendMode = SendMode.ROUNDROBIN,
        delivery_guarantee: DeliveryGuarantee = DeliveryGuarantee.AT_MOST_ONCE,
        identity: bytes | None = None,
        reconnection_delay: Callable[[], float] | None = None,
        *,
        send_hwm: int = 10_000,
        send_hwm_bytes: int = 64 * 2**20,
        recv_hwm: int = 10_000,
        recv_hwm_bytes: int = 64 * 2**20,
        on_full: OnFull | None = None,
        max_message_size: int = 64 * 2**20,
        max_connections: int = 10_000,
        heartbeat_interval: float = 5.0,
        heartbeat_timeout: float = 15.0,
        handshake_timeout: float = 10.0,
        ack_mode: AckMode = AckMode.ON_RECV,
        resend_after: float = 5.0,
        max_resends: int | None = None,
        max_unacked: int | None = None,
        dedupe: int = 100_000,
        outbox: PathLike | None = None,
        on_duplicate: OnDuplicate = OnDuplicate.PROBE,
        authorize: Callable[[PeerInfo], bool] | None = None,
        linger: float = 5.0,
        io_thread: IOThread | None = None,
        on_no_peer: OnNoPeer = OnNoPeer.KEEP,
        conflate: bool = False,
        send_buffer: int | None = None,
        recv_buffer: int | None = None,
        outbox_sync: str = "full",
        dedupe_path: PathLike | None = None,
    ) -> None:
        settings = checked(Settings(
            send_mode, delivery_guarantee, reconnection_delay, send_hwm, send_hwm_bytes, recv_hwm, recv_hwm_bytes,
            default_policy(send_mode) if on_full is None else on_full, max_message_size, max_connections,
            heartbeat_interval, heartbeat_timeout, handshake_timeout, ack_mode, resend_after, max_resends,
            max_unacked, dedupe, on_duplicate, authorize, linger, on_no_peer, conflate,
            send_buffer, recv_buffer, outbox, outbox_sync, dedupe_path))
        if identity is not None:
            check_identity(identity)
        self._engine = engine = engine_of(identity, settings, reactor_of(io_thread))
        self._life = engine.life
        self._io = engine.io
        self._sender = engine.sender
        self._inbox = engine.receiver.inbox
        self._router = engine.sender.router
        self._manual = ack_mode is AckMode.MANUAL
        self._hwm = send_hwm
        self._small = min(engine.sender.router.large, len(DATA_HEADERS), max_message_size + 1)
        self._max_size = max_message_size
        self._default_linger = linger

    # Making connections

    def bind(self, hostname: str | None = "127.0.0.1", port: int = DEFAULT_PORT, *,
             ssl_context: ssl.SSLContext | None = None, websocket_origins: Sequence[str] = (),
             timeout: float | None = None) -> Self:
        """Let peers connect to ``hostname`` (``None``: every interface) and ``port`` (0: a free one, `bound_port`).

        Or to a URL in place of both: ``tcp://host:port``, ``tls://host:port`` (which needs an ``ssl_context``),
        ``unix:///path`` or ``unix:@abstract``, ``ws://host:port/path`` or ``wss://...``. Returns the socket itself. May
        be called several times, and mixed with `connect`. A name that stands for several addresses is listened on at
        all of them. With an ``ssl_context`` peers have to speak TLS.

        ``websocket_origins`` names the origins whose pages may connect by WebSocket, such as ``https://example.org``
        (``"*"``: any). Programs, which name no origin, may then do so as well, and with ``ws://`` or ``wss://`` in any
        case; at whatever path, for the Søcket does not look at it. Peers that speak otherwise come by the same port.

        ``timeout`` bounds the resolution of the name (``TimeoutError``). Raises ``OSError`` at once, such as for an
        address in use or a name that is not known; ``ValueError`` for what is neither a host name nor a URL, or for a
        port beside a URL, and for what is no origin; `ClosedError`.
        """
        deadline = Deadline(timeout)
        place = place_of(hostname, port)
        if place is not None and place.path:
            return self.bind_unix(place.path, ssl_context=ssl_context, websocket_origins=websocket_origins)
        path = ""
        if place is not None:
            path = place.resource
            if place.tls and ssl_context is None:
                raise ValueError(f"{hostname!r} needs an ssl_context, with the certificate to show")
            hostname, port = place.host, place.port
        check_port(port)
        if hostname is not None:
            hostname = check_hostname(hostname)
        self._engine.opening.bind(hostname, port, carrier_of_bind(ssl_context, websocket_origins, path), deadline)
        return self

    def bind_unix(self, path: str | bytes | os.PathLike[str], *, ssl_context: ssl.SSLContext | None = None,
                  websocket_origins: Sequence[str] = ()) -> Self:
        """Let peers connect to a UNIX socket at ``path``; a leading NUL means the abstract namespace.

        The file of a socket that nobody listens on any more is replaced, and removed on `close`. Raises ``OSError``
        for a path that is in use, ``NotImplementedError`` where there are no UNIX sockets, and what `bind` does.
        """
        carrier = carrier_of_bind(ssl_context, websocket_origins)
        self._engine.opening.bind_unix(unix_path(path), carrier)
        return self

    def connect(self, hostname: str = "127.0.0.1", port: int = DEFAULT_PORT, *,
                ssl_context: ssl.SSLContext | bool | None = None, server_hostname: str | None = None,
                connect_timeout: float = 5.0, websocket_headers: Mapping[str, str] | None = None) -> Self:
        """Connect to a peer that binds, in the background, and again whenever the connection is lost.

        A URL may stand in place of ``hostname`` and ``port``, as in `bind`; with ``tls://`` and ``wss://`` the
        ``ssl_context`` is ``True`` unless you give one. With ``ws://`` and ``wss://`` the peer is reached by WebSocket,
        and ``websocket_headers`` go with the request, such as ``{"Authorization": "Bearer ..."}``. Returns the socket
        itself, at once. ``ssl_context`` may be ``True`` for ``ssl.create_default_context()``; ``server_hostname`` is
        the name to check the certificate against, the host's by default. ``connect_timeout`` is what one attempt may
        take, resolution included. What becomes of the attempts is told by `events`, and the log is warned of the first
        that fails.

        Raises `ClosedError`; ``ValueError`` for what is neither a host name nor a URL, for a port beside a URL, and for
        a context that checks names where there is none, and for headers that cannot be sent.
        """
        check_seconds("connect_timeout", connect_timeout)
        check_str("hostname", hostname)
        place = place_of(hostname, port)
        if place is not None and place.path:
            return self.connect_unix(place.path, ssl_context=ssl_context, server_hostname=server_hostname,
                                     connect_timeout=connect_timeout)
        if place is not None:
            if place.tls and ssl_context is None:
                ssl_context = True
            hostname, port = place.host, place.port
        check_port(port)
        if port == 0:
            raise ValueError("port 0 cannot be connected to")
        hostname = check_hostname(hostname)
        context, name = client_context(ssl_context, server_hostname if server_hostname is not None else hostname)
        carrier = carrier_of_connect(context, name, place, websocket_headers)
        self._engine.opening.connect((hostname, int(port)), carrier, connect_timeout)
        return self

    def connect_unix(self, path: str | bytes | os.PathLike[str], *, ssl_context: ssl.SSLContext | bool | None = None,
                     server_hostname: str | None = None, connect_timeout: float = 5.0) -> Self:
        """The same to a UNIX socket path, which has no host name: a context that checks names needs one."""
        check_seconds("connect_timeout", connect_timeout)
        context, name = client_context(ssl_context, server_hostname)
        self._engine.opening.connect(unix_path(path), Carrier(context, name), connect_timeout)
        return self

    # What it is

    @property
    def identity(self) -> bytes:
        """16 bytes by which peers know this socket."""
        return self._engine.identity

    @property
    def bound_addresses(self) -> list[Any]:
        """Where peers can connect: (host, port) or path, in the order of the `bind` calls."""
        self._life.check_process()
        return [host_and_port(acceptor.address) for acceptor in self._engine.places.acceptors]

    @property
    def bound_urls(self) -> list[str]:
        """The same as URLs, which `connect` takes: ``tcp://127.0.0.1:25000``, ``tls://...``, ``unix:///path``."""
        self._life.check_process()
        return list(self._engine.places.bound_urls)

    @property
    def bound_port(self) -> int:
        """The port of the first `bind`. Raises `LocalProtocolError` before."""
        for address in self.bound_addresses:
            if isinstance(address, tuple):
                return int(address[1])
        raise LocalProtocolError("the Søcket is not bound to a port")

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._life.closing

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self._router.ring)} peers"
        return f"<Søcket {self.identity.hex()} {state}>"

    # Sending

    def send(self, data: Buffer, identity: bytes | None = None, *, timeout: float | None = None) -> R:
        """Send one message: to the next peer in turn, to all (``PUBLISH``), or to the one of ``identity``.

        Returns as soon as the message is queued: ``None``, or with AT_LEAST_ONCE a `Receipt`. While no peer is there it
        waits for the first. At the high-water mark ``on_full`` decides; with ``BLOCK``, ``timeout`` bounds the wait for
        room, and `SendTimeoutError` says that the message was not accepted, and what is wrong with the endpoints that
        it would have gone to. By identity to an absent peer, an
        at-most-once message is dropped (and counted, and an event), an at-least-once message kept for it.

        Raises `ClosedError`, `QueueFullError` (``OnFull.RAISE``), ``ValueError`` for a message longer than
        ``max_message_size``, ``TypeError`` for anything but bytes.
        """
        if type(data) is bytes and identity is None and timeout is None:
            # The hot path takes no lock. It ends early, before anything unusual: see `Sender.fast_ring`.
            ring = self._sender.fast_ring
            if ring:
                size = len(data)
                router = self._router
                turn = router.turn
                if turn >= len(ring):
                    turn = 0
                peer = ring[turn]
                queue = peer.queue
                count = len(queue)
                if size < self._small and count < self._hwm:
                    router.turn = turn + 1
                    queue.append(DATA_HEADERS[size] + data)  # that is all of a `Queued` message
                    # Append first, look second. A peer on the list of work will be seen to, dead or alive.
                    io = self._io
                    if count < BURST and peer in io.work and not io.asleep:
                        return None  # type: ignore[return-value]
                    self._sender.kick(peer)
                    return None  # type: ignore[return-value]
        if timeout is not None:
            check_timeout(timeout)
        if type(data) is not bytes or len(data) > self._max_size:
            data = message_of(data, self._max_size)
        if identity is not None:
            check_identity(identity)
        return self._sender.send(data, identity, timeout)  # type: ignore[return-value]

    @overload
    def send_many(self: Søcket[None], iterable: Iterable[Buffer], identity: bytes | None = None, *,
                  timeout: float | None = None) -> None: ...

    @overload
    def send_many(self: Søcket[Receipt], iterable: Iterable[Buffer], identity: bytes | None = None, *,
                  timeout: float | None = None) -> list[Receipt]: ...

    @overload
    def send_many(self, iterable: Iterable[Buffer], identity: bytes | None = None, *,
                  timeout: float | None = None) -> list[Receipt] | None: ...

    def send_many(self, iterable: Iterable[Buffer], identity: bytes | None = None, *,
                  timeout: float | None = None) -> list[Receipt] | None:
        """`send` each message of ``iterable``, with one ``timeout`` for all; cheaper than one by one.

        Returns ``None``, or with AT_LEAST_ONCE a list of receipts. When time runs out the `SendTimeoutError`, and with
        `OnFull.RAISE` the `QueueFullError`, says in ``sent`` how many were accepted; the rest was not, unless the text
        says that this is not known (of an outbox that was being written). The messages in front of one that is refused
        (``TypeError``, ``ValueError``) are sent.
        """
        deadline = Deadline(timeout)
        if isinstance(iterable, (bytes, bytearray, memoryview, str)):
            raise TypeError("send_many takes an iterable of messages, not one message")
        if identity is not None:
            check_identity(identity)
        exiting.check_open(self._life)
        if self._sender.storing is not None:
            return self._store_many(iterable, identity, deadline)
        receipts: list[Receipt] = []
        sent = 0
        receipt: Receipt | None
        try:
            for data in iterable:
                if identity is None and timeout is None:
                    receipt = self.send(data)
                else:
                    receipt = self._sender.send(message_of(data, self._max_size), identity, deadline.remaining())
                if receipt is not None:
                    receipts.append(receipt)
                sent += 1
        except (QueueFullError, SendTimeoutError) as error:
            error.sent = sent
            raise
        return receipts if self._sender.reliable else None

    def _store_many(self, iterable: Iterable[Buffer], identity: bytes | None, deadline: Deadline) -> list[Receipt]:
        """As many in one transaction as there is room for."""
        receipts: list[Receipt] = []
        messages = (message_of(data, self._max_size) for data in iterable)
        try:
            while True:
                some, refused = taken_from(messages, *self._sender.room_for(identity))
                receipts += self._sender.store(some, identity, deadline)
                if refused is not None:
                    raise refused
                if not some:
                    return receipts
        except (QueueFullError, SendTimeoutError) as error:
            error.sent += len(receipts)
            raise

    def send_string(self, text: str, identity: bytes | None = None, *, timeout: float | None = None) -> R:
        """`send` text as UTF-8."""
        check_timeout(timeout)
        check_str("text", text)
        return self.send(text.encode("utf-8"), identity, timeout=timeout)

    def send_json(self, document: Any, identity: bytes | None = None, *, timeout: float | None = None,
                  **options: Any) -> R:
        """`send` a JSON document, as UTF-8. Further keyword arguments are for ``json.dumps``, which may raise."""
        check_timeout(timeout)
        return self.send(json.dumps(document, **options).encode("utf-8"), identity, timeout=timeout)

    def request(self, data: Buffer, identity: bytes | None = None, *, timeout: float | None = 5.0) -> bytes:
        """Send a request, and return its reply. Any number of threads may at a time, and each gets its own.

        It goes to the next peer in turn that can answer (those of netmsg can), whatever the send mode, or to the one of
        ``identity``. Where none is there, or has room in its queue, it waits for one, whatever ``on_full`` says. It is
        sent at most once: if its peer goes before it was sent, another one gets it; if afterwards, nobody can tell what
        became of it, and `ConnectionBrokenError` is raised at once.

        Blocks up to ``timeout`` seconds. Raises ``TimeoutError``, as `SendTimeoutError` if it was given to nobody;
        `RequestFailedError` if the other end has said so (`Delivery.fail`); `UnknownPeerError` for an ``identity`` that
        is not connected, `LocalProtocolError` for one that does not answer requests; `ClosedError`, also while
        waiting; ``ValueError`` and ``TypeError`` as `send`.
        """
        check_timeout(timeout)
        data = message_of(data, self._max_size)
        if identity is not None:
            check_identity(identity)
        exiting.check_open(self._life)
        return self._sender.requesting.request(data, identity, timeout)

    # Receiving

    def recv(self, *, timeout: float | None = None) -> bytes:
        """The next message, from any peer.

        Blocks up to ``timeout`` seconds (``TimeoutError``); a message is handed to exactly one of several threads.
        Raises `ClosedError` when the socket is closed, also while waiting; with ``AckMode.MANUAL``
        `LocalProtocolError`: use `recv_delivery`.
        """
        if timeout is not None:
            check_timeout(timeout)
        batch = self._inbox.current
        queue = batch.queue
        if queue:
            # No call between taking and returning: see netmsg.messaging.inbox.
            data: bytes = queue[0]
            del queue[0]
            return data
        return self._take(timeout)[1]  # type: ignore[no-any-return]

    def recv_identity(self, *, timeout: float | None = None) -> tuple[bytes, bytes]:
        """The next message as (identity of the sender, message); otherwise like `recv`."""
        if timeout is not None:
            check_timeout(timeout)
        batch = self._inbox.current
        queue = batch.queue
        if queue:
            data: bytes = queue[0]
            del queue[0]
            return batch.identity, data
        batch, data = self._take(timeout)
        return batch.identity, data

    def _take(self, timeout: float | None) -> tuple[Batch, Any]:
        """The slow way: the next batch has to be made current, or waited for."""
        if self._manual:
            raise LocalProtocolError("with AckMode.MANUAL messages are received by recv_delivery()")
        if self._life.over:
            exiting.check_open(self._life)
        taken = self._inbox.take(FOREVER if timeout is None else FOREVER.sooner(timeout))
        if taken is None:  # no call but here: who is interrupted has not taken anything
            raise self._ended()
        batch, message = taken
        return taken if batch.bare else (batch, message[1])

    def subscribe(self, prefix: Buffer) -> None:
        """Be handed only those messages that begin with ``prefix`` (up to 255 bytes), or with that of another
        subscription; ``b""`` is the beginning of all.

        It concerns what is sent at most once, by whomever; what is sent at least once and requests always come.
        Publishers that are netmsg's (`SendMode.PUBLISH`) are told, now and at every connection, and do not send the
        rest; what others send is looked at when it comes. What has come already is delivered. Idempotent, from any
        thread. Raises ``ValueError`` for a longer prefix, and for more than 10,000 subscriptions; `ClosedError`.
        """
        exiting.check_open(self._life)
        self._sender.subscriptions.add(prefix_of(prefix))

    def unsubscribe(self, prefix: Buffer) -> None:
        """Take a subscription back. Without any, every message comes again. Idempotent, from any thread."""
        exiting.check_open(self._life)
        self._sender.subscriptions.remove(prefix_of(prefix))

    def _acknowledge_by_hand(self) -> None:
        """As with `AckMode.MANUAL`, from here on."""
        self._manual = True
        self._engine.receiver.acknowledge_by_hand()

    def _ended(self) -> ClosedError:
        """What to raise for there being nothing more to take."""
        exiting.check_open(self._life)
        return ClosedError("the Søcket is closed")

    def recv_many(self, max_messages: int, *, timeout: float | None = None) -> list[bytes]:
        """What messages there are: at least one, waited for as by `recv`, and at most ``max_messages``."""
        deadline = Deadline(timeout)
        check_count("max_messages", max_messages, 1)
        if self._manual:
            raise LocalProtocolError("with AckMode.MANUAL messages are received by recv_delivery()")
        exiting.check_open(self._life)
        taken = self._inbox.take_many(max_messages, deadline)
        if taken is None:
            raise self._ended()
        return taken

    def recv_delivery(self, *, timeout: float | None = None) -> Delivery:
        """The next message with its sender and the means to acknowledge it; otherwise like `recv`."""
        deadline = Deadline(timeout)
        exiting.check_open(self._life)
        delivery = self._engine.receiver.take_delivery(deadline)
        if delivery is None:
            raise self._ended()
        return delivery

    def serve_requests(self, handler: Callable[[bytes], Buffer | None], *, max_workers: int = 8,
                       timeout: float | None = None) -> None:
        """Answer requests with what ``handler(data)`` returns, until the socket is closed.

        The handler is called in up to ``max_workers`` threads (``netmsg-serve-N-M``) at a time. What it raises, and
        returning anything but bytes, is logged, and the request answered with `Delivery.fail`, in which the one who has
        asked is told the name of the exception's type and nothing more. Messages that are no requests are handed to
        ``handler`` too, and what it returns is dropped; with ``AckMode.MANUAL`` they are acknowledged when it has
        returned, and refused (`Delivery.nack`) when it has raised. Who has asked and takes his replies slowly keeps
        nobody else waiting: they stand in line for him, and when these are 4 MiB, nothing more of his is taken. If he
        takes nothing for 15 s they are lost; and from then on, while there is no room for a reply to him, what he
        asks is dropped, counted and an event. Replies that stand in line at `close` are sent while that lingers.

        Returns when the socket is closed, by whomever, a handler too. After ``timeout`` seconds, if given, it raises
        ``TimeoutError``, and nothing more is taken; handlers that run then go on in their threads, and what they return
        is sent, unless the socket is closed by then. The same holds for whoever interrupts it. Raises `ClosedError` if
        it is closed already; ``RuntimeError`` where no thread can be started.
        """
        deadline = Deadline(timeout)
        check_callable("handler", handler)
        if handler is None:
            raise TypeError("handler must be callable")
        check_count("max_workers", max_workers, 1)
        exiting.check_open(self._life)
        serving = Serving(self._engine.receiver.take_delivery, self._inbox.waiters.notify_all, handler, max_workers,
                          self._engine.answering, self._engine.receiver.settle_soon)
        closed = serving.closed
        try:
            self._engine.follow_closing(closed)
            if self._life.closing:
                closed()  # meanwhile
            if not serving.run(deadline):
                raise TimeoutError(f"serve_requests: not closed within {timeout:g} s")
        finally:
            self._engine.unfollow_closing(closed)
        exiting.stay_blocked()

    def recv_string(self, *, timeout: float | None = None) -> str:
        """`recv` UTF-8 text. Raises ``UnicodeDecodeError``; the message is gone then."""
        text: str = self._recv_as(lambda data: data.decode("utf-8"), timeout)
        return text

    def recv_json(self, *, timeout: float | None = None, **options: Any) -> Any:
        """`recv` a JSON document. Further keyword arguments are for ``json.loads``.

        Raises ``ValueError`` for anything else; the message is gone then.
        """
        return self._recv_as(partial(json.loads, **options), timeout)

    def _recv_as(self, convert: Callable[[bytes], Any], timeout: float | None) -> Any:
        """`recv`, converted before it is taken: who is interrupted in the middle gets it the next time."""
        deadline = Deadline(timeout)
        if self._manual:
            raise LocalProtocolError("with AckMode.MANUAL messages are received by recv_delivery()")
        exiting.check_open(self._life)
        converted = self._inbox.take_as(partial(_converted, convert), deadline)
        if converted is None:
            raise self._ended()
        value, error = converted
        if error is not None:
            try:
                raise error
            finally:
                del error, converted  # or it would keep itself alive, by this frame
        return value

    def messages(self) -> Iterator[bytes]:
        """Iterate over the messages as `recv` returns them, until the socket is closed."""
        return UntilClosed(self.recv)

    __iter__ = messages

    def identity_messages(self) -> Iterator[tuple[bytes, bytes]]:
        """The same with `recv_identity`."""
        return UntilClosed(self.recv_identity)

    def json_messages(self, **options: Any) -> Iterator[Any]:
        """The same with `recv_json`: a message that is no JSON raises, and the iterator can be asked for the next."""
        return UntilClosed(partial(self.recv_json, **options))

    def deliveries(self) -> Iterator[Delivery]:
        """The same with `recv_delivery`."""
        return UntilClosed(self.recv_delivery)

    def fileno(self) -> int:
        """A descriptor for ``selectors``, ``select`` and ``poll``: readable while a message waits, and when the socket
        is closed; -1 afterwards. Not to be read from."""
        self._life.check_process()
        return -1 if self.closed else self._inbox.fileno()

    # Looking

    def peers(self) -> list[PeerInfo]:
        """The peers connected now."""
        return self._engine.peers()

    def wait_for_peers(self, n: int = 1, *, timeout: float | None = None) -> None:
        """Block until at least ``n`` peers are connected.

        Raises `ClosedError`, and ``TimeoutError``, which says what is wrong with the endpoints.
        """
        deadline = Deadline(timeout)
        check_count("n", n, 0)
        exiting.check_open(self._life)
        try:
            there = self._engine.wait_for_peers(n, deadline)
        except ClosedError:
            exiting.stay_blocked()
            raise
        if not there:
            raise TimeoutError(f"{len(self._router.ring)} of {n} peers connected within {timeout:g} s"
                               f"{self._engine.trouble()}")

    def events(self, *, timeout: float | None = None) -> Iterator[Event]:
        """Iterate over what happened and happens: connections made and lost, messages dropped, and so on.

        The newest 1000 events are kept for whoever asks; several iterators share them. ``timeout`` bounds the wait for
        each (``TimeoutError``; the iterator can be asked again). Ends when the socket is closed.
        """
        check_timeout(timeout)
        self._life.check_process()
        return self._engine.events.iterate(timeout, self._life.check_process)

    def stats(self) -> SocketStats:
        """Counters, in total and per peer. Raises `ForkedError`."""
        return self._engine.stats()

    # The end

    def close(self, *, linger: float | None = None) -> int:
        """Close the socket: at once for everybody who uses it, and in the background gracefully for the messages.

        Every blocked call, and every later one, raises `ClosedError`. Waits up to ``linger`` seconds (by default the
        socket's; ``math.inf``: for ever) until what was queued has been sent, and acknowledged if it is to be, and
        the peers have read it. Messages received and not taken are discarded, unacknowledged.

        Returns the number of messages given up. Idempotent: a second caller waits for the same result, and with a
        shorter ``linger`` shortens the waiting of the first. May be called
        from any thread, callback or signal handler; where waiting is impossible (in netmsg's own threads, or when the
        handler has interrupted netmsg itself) it returns 0 at once, and the closing goes on.
        """
        check_timeout(linger)
        given_up = self._engine.close(self._default_linger if linger is None else linger)
        if not self._io.is_current:
            wait_until_said(SAID_WITHIN)
        return given_up

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is None or engine.closing_has_begun or engine.life.forked:
            return
        open_until_now = not engine.life.closing
        description = repr(self)
        engine.begin_close(self._default_linger)
        if open_until_now:  # and not a `close` that was interrupted
            warnings.warn(f"unclosed {description}", ResourceWarning, stacklevel=2, source=self)


Socket = Søcket
