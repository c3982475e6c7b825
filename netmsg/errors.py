"""Every error that netmsg raises, in one tree.

::

    NetmsgError(Exception)
    ├── ClosedError(OSError)                     this side closed the object
    ├── ForkedError(RuntimeError)                used in a forked child
    ├── EndOfStream(EOFError)                    the peer finished sending, cleanly, between items
    ├── IncompleteReadError(EOFError)            ... in the middle of one
    ├── ConnectionBrokenError(ConnectionError)   reset, broken pipe, truncated TLS
    ├── ConnectFailedError(ConnectionError)      no address could be connected to
    ├── TLSHandshakeError(ssl.SSLError)          the cause keeps the original
    ├── SendTimeoutError(TimeoutError)           a send ran out of time
    ├── DelimiterNotFoundError(ValueError)       what was read stays readable
    ├── ProtocolError
    │   ├── RemoteProtocolError(ConnectionError) the peer broke a rule
    │   └── LocalProtocolError                   the caller did
    ├── PacketDecodeError(ValueError)
    ├── PacketEncodeError(ValueError)
    ├── QueueFullError(TimeoutError)             OnFull.RAISE and a full send queue
    ├── UnknownPeerError(LookupError)            a request to a peer that is not connected
    ├── RequestFailedError                       the other end does not answer a request
    └── UndeliveredError                         a receipt whose message was given up on

"You closed it", "they finished" and "it broke" are three different errors: code that may go on after one of them
rarely may after the others.
"""

from __future__ import annotations

import errno
import ssl
from copy import copy
from typing import Final, TypeVar

__all__ = [
    "ClosedError",
    "ConnectFailedError",
    "ConnectionBrokenError",
    "DelimiterNotFoundError",
    "EndOfStream",
    "ForkedError",
    "IncompleteReadError",
    "LocalProtocolError",
    "NetmsgError",
    "PacketDecodeError",
    "PacketEncodeError",
    "ProtocolError",
    "QueueFullError",
    "RemoteProtocolError",
    "RequestFailedError",
    "SendTimeoutError",
    "TLSHandshakeError",
    "UndeliveredError",
    "UnknownPeerError",
]

E = TypeVar("E", bound=BaseException)

IDENTITY: Final = "_netmsg_identity"
"""The attribute that `identity` is kept in."""


class NetmsgError(Exception):
    """The root of the tree."""


class ClosedError(NetmsgError, OSError):
    """This side closed the object, before the call or during it."""


class ForkedError(NetmsgError, RuntimeError):
    """The object was made by the parent process and is used in a child after ``os.fork()``."""


class EndOfStream(NetmsgError, EOFError):
    """The peer finished sending, cleanly, between two items."""


class IncompleteReadError(NetmsgError, EOFError):
    """The peer finished sending in the middle of an item.

    ``partial`` holds the bytes that did come, ``expected`` how many were wanted (``None`` where that is unknown).
    """

    def __init__(self, partial: bytes, expected: int | None = None) -> None:
        wanted = "" if expected is None else f" of {expected}"
        super().__init__(f"the stream ended after {len(partial)}{wanted} bytes")
        self.partial = partial
        self.expected = expected

    def __reduce__(self) -> tuple[type[IncompleteReadError], tuple[bytes, int | None]]:
        return type(self), (self.partial, self.expected)


class ConnectionBrokenError(NetmsgError, ConnectionError):
    """The connection was reset, timed out in the kernel, or cut in mid-TLS; ``errno`` and ``__cause__`` are kept."""


TOLD_ONCE: Final = {
    errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EHOSTDOWN,
    errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ENOPROTOOPT, errno.EPROTO, errno.EACCES,
}
"""Why a connection was lost, as the kernel tells whoever asks first, be it by sending: who receives afterwards is told
of an end, as if the peer had finished."""


def again(error: E) -> E:
    """The like of ``error``, for who keeps it and raises it more than once: each time it is raised an error takes hold
    of what is alive in all the frames that it passes."""
    like = copy(error)
    like.__dict__.pop(IDENTITY, None)
    like.__cause__ = error.__cause__
    return like


def as_broken(error: OSError) -> OSError:
    """What to raise for an error of the network, which itself may be kept: `ConnectionBrokenError`, or the like of one
    of this tree."""
    if isinstance(error, NetmsgError):
        return again(error)
    broken = ConnectionBrokenError(error.errno, error.strerror or str(error))
    broken.__cause__ = error
    return broken


def bare(error: E) -> E:
    """The same, to be kept: without the tracebacks, which keep alive the frames that it has passed and all that is in
    them."""
    part: BaseException | None = error
    seen = set()
    while part is not None and id(part) not in seen:
        seen.add(id(part))
        part.__traceback__ = None
        part = part.__cause__ or part.__context__
    return error


def identity(error: BaseException) -> object:
    """What stands for ``error``, for who has to know it again and must not keep it alive, with all that is alive in its
    traceback. Its ``id()`` does not: once it is gone another one may have that."""
    token: object = error.__dict__.setdefault(IDENTITY, object())
    return token


def is_identified(error: BaseException) -> bool:
    """Whether it has been asked for its `identity`."""
    return IDENTITY in error.__dict__


class ConnectFailedError(NetmsgError, ConnectionError):
    """No address could be connected to; ``attempts`` lists every (address, error)."""

    def __init__(self, message: str, attempts: list[tuple[object, OSError]]) -> None:
        super().__init__(message)
        self.attempts = attempts

    def __reduce__(self) -> tuple[type[ConnectFailedError], tuple[str, list[tuple[object, OSError]]]]:
        return type(self), (str(self), self.attempts)


class TLSHandshakeError(NetmsgError, ssl.SSLError):
    """TLS could not be established; ``__cause__`` is the original, such as ``ssl.SSLCertVerificationError``."""

    def __str__(self) -> str:
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class SendTimeoutError(NetmsgError, TimeoutError):
    """A send ran out of time.

    ``bytes_sent`` says how much of a stream's data went out; ``sent`` how many messages of a ``send_many`` were
    accepted. Where time ran out while an outbox was being written, the text says that of the others it is not known.
    """

    def __init__(self, message: str, *, bytes_sent: int = 0, sent: int = 0) -> None:
        super().__init__(message)
        self.bytes_sent = bytes_sent
        self.sent = sent


class DelimiterNotFoundError(NetmsgError, ValueError):
    """No delimiter within ``max_bytes``; the bytes read are still there for the next call."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"no delimiter within the first {max_bytes} bytes")
        self.max_bytes = max_bytes

    def __reduce__(self) -> tuple[type[DelimiterNotFoundError], tuple[int]]:
        return type(self), (self.max_bytes,)


class ProtocolError(NetmsgError):
    """Somebody broke the rules of the protocol: see the two subclasses for who."""


class RemoteProtocolError(ProtocolError, ConnectionError):
    """The peer did: a malformed or oversized frame, a wrong version, plaintext injected before TLS."""


class LocalProtocolError(ProtocolError):
    """The caller did: sending after ``send_eof``, ``recv`` with manual acknowledgement, and the like."""


class PacketDecodeError(NetmsgError, ValueError):
    """Received bytes are not a valid packet; ``data`` holds them."""

    def __init__(self, message: str, data: bytes = b"") -> None:
        super().__init__(message)
        self.data = data


class PacketEncodeError(NetmsgError, ValueError):
    """The packet cannot be expressed in this codec."""


class QueueFullError(NetmsgError, TimeoutError):
    """The send queue is full and the socket was made with ``OnFull.RAISE``. ``sent`` says how many messages of a
    ``send_many`` were accepted."""

    sent = 0


class UnknownPeerError(NetmsgError, LookupError):
    """A request was addressed to a peer that is not connected."""


class RequestFailedError(NetmsgError):
    """The other end answered a request with `Delivery.fail`; ``reason`` is what it says."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UndeliveredError(NetmsgError):
    """The message of this receipt was given up on: dropped, resent too often, or still unacknowledged at close."""
