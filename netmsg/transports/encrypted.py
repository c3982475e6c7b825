"""TLS over another transport: a socket, memory, or TLS again."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from typing import Final

from ..errors import TOLD_ONCE, ConnectionBrokenError, TLSHandshakeError, again, bare
from ..locks import new_lock
from ..tls import TLSEngine, TLSInfo
from .plain import Buffer, Transport, first_piece

__all__ = ["TLSTransport"]

CIPHERTEXT_SIZE: Final = 65_536
MODEST_SIZE: Final = 8_192
"""So much ciphertext is taken at a time from a peer of whose records little plaintext comes: OpenSSL works for 20 µs at
each key update, of 27 bytes."""
FRUITLESS_ROUNDS: Final = 3
"""So often a call takes ciphertext of which nothing comes: enough for the largest record, and no more than is done in
milliseconds. Key updates and session tickets can come for ever, and others wait."""
MOST_UNSENT: Final = 262_144
"""So much ciphertext may wait for room below: several times what `PLAINTEXT_PIECE` allows for."""
PLAINTEXT_PIECE: Final = 65_536
"""TLS encrypts at most so much ahead of what is below, for back-pressure."""
RECORD_SIZE: Final = 16_384
"""The most that one record holds. In pieces of that size, what `TLSTransport.send_many` has not reported when the
connection breaks cannot be decrypted at the other end."""


class TLSTransport:
    """One thread may receive while another sends. The one that receives may find that there is something to send
    (alerts, key updates, session tickets); it sends it if nobody else is sending, and otherwise leaves it to that one,
    who looks again before it goes.

    ==============  ==================================================================================
    lock            guards; what is done under it
    ==============  ==================================================================================
    ``_sending``    the front of the ciphertext to be sent; non-blocking sends. Before ``_state``
    ``_state``      the TLS engine, and that its ciphertext is queued in its order; never a system call
    ==============  ==================================================================================

    ``standard_compatible=False`` takes a connection that ends without a goodbye for one that ends with it.
    """

    receive_into: Callable[[memoryview], int] | None = None

    def __init__(self, below: Transport, context: ssl.SSLContext, *, server_side: bool,
                 server_hostname: str | None = None, standard_compatible: bool = True,
                 piece: int = PLAINTEXT_PIECE) -> None:
        self.handshaking = True
        self.answered = False
        self._piece = piece
        self.calls_back = server_side and context.sni_callback is not None
        self.tls: TLSInfo | None = None
        self._below = below
        self._engine = TLSEngine(context, server_side=server_side, server_hostname=server_hostname,
                                 standard_compatible=standard_compatible)
        self._state = new_lock()
        self._sending = new_lock()
        self._received: deque[bytes] = deque()  # ciphertext that the engine has not been handed yet
        self._plaintext: list[bytes] = []
        self._ciphertext: deque[memoryview] = deque()
        self._appetite = MODEST_SIZE
        self._taken = 0  # ciphertext taken last
        self._gained = 0  # and the plaintext that came of it
        self._counts: list[int] = []  # of bytes taken below and not yet taken off `_ciphertext`
        self._ending = False
        self._server_side = server_side
        self._at_end = False
        self._failure: OSError | None = None  # kept; raised is another one each time
        self._forestalled = False  # our goodbye has gone, and the other end went before that of the transport below
        self._lost: OSError | None = None  # why the connection was lost, as sending was told: see `TOLD_ONCE`

    def feed(self, ciphertext: bytes) -> None:
        """Hand over what was received before this was made: a ClientHello that came right behind STARTTLS."""
        self._received.append(ciphertext)

    def handshake(self) -> None:
        engine = self._engine
        rounds = FRUITLESS_ROUNDS
        try:
            while True:
                with self._state:
                    complete = engine.do_handshake()
                self.answered = self.answered or engine.has_ciphertext
                self._flush()
                if complete:
                    break
                if not rounds:
                    raise BlockingIOError  # though there may be more: see `receive`
                rounds -= 1
                self._receive_ciphertext()
        except TLSHandshakeError:
            self._flush_quietly()  # the alert that tells the peer why
            raise
        self.tls = engine.info()
        self.handshaking = False

    def _receive_ciphertext(self) -> None:
        received = self._received
        if not received:
            if 2 * self._gained < self._taken:
                self._appetite = max(self._appetite // 2, MODEST_SIZE)
            elif self._taken >= self._appetite:
                self._appetite = min(self._appetite * 2, CIPHERTEXT_SIZE)
            received.extend(map(self._below.receive, (self._appetite,)))  # see netmsg.uninterrupted
            if not received[0] and self._lost is not None:
                raise again(self._lost)
            self._taken = len(received[0])
            self._gained = 0
        add = self._engine.add_ciphertext
        with self._state:
            add(received)

    def _check_backlog(self) -> None:
        """What a peer asks for (answers to key updates) and does not receive may not pile up here."""
        if self._ciphertext and sum(map(len, self._ciphertext.copy())) > MOST_UNSENT:
            raise ConnectionBrokenError("the peer has TLS answer all the time, and does not receive the answers")

    def receive(self, max_bytes: int, /) -> bytes:
        """See `Transport.receive`. ``BlockingIOError`` also stands for "later, for the sake of others": then what is
        below has more, and whoever waits for that is told at once, or there is more in here (`readable`)."""
        rounds = FRUITLESS_ROUNDS
        plaintext = self._plaintext
        wanted = max_bytes - sum(map(len, plaintext))  # mostly nothing: what an interrupted call has left
        while wanted > 0 and not self._at_end and self._failure is None:
            try:
                with self._state:
                    before = len(plaintext)
                    found = self._engine.read_to(plaintext, wanted)
                    if found and not plaintext[-1]:
                        del plaintext[-1]
                        self._at_end = True
                    gained = sum(map(len, plaintext[before:]))  # and never of all of them: records may be tiny
                    wanted -= gained
                    self._gained += gained
                if not found:
                    if plaintext:
                        break
                    self._check_backlog()
                    if not rounds:
                        raise BlockingIOError
                    rounds -= 1
                    self._receive_ciphertext()
            except BlockingIOError:
                self._flush_quietly()
                raise
            except (ConnectionBrokenError, TLSHandshakeError) as error:
                self._failure = error  # told after what came before it
                bare(error)
                break
            except OSError as error:
                if error.errno is None:
                    raise  # not of the network: a signal handler raised it
                self._failure = error
                bare(error)
                break
        self._flush_quietly()
        if not plaintext:
            if self._failure is not None:
                raise again(self._failure)
            return b""
        if len(plaintext) == 1:
            # No call from here to the return, and so no interrupt.
            chunk = plaintext[0]
            del plaintext[0]
            return chunk
        count = len(plaintext)
        joined = b"".join(plaintext[:count])
        del plaintext[:count]  # and not what `end_sending` may have added
        return joined

    def send_one(self, buffer: Buffer, /) -> int:
        return self.send_many([buffer])

    def send_many(self, buffers: list[Buffer], /) -> int:
        engine = self._engine
        self._flush()
        if not self._ciphertext and not engine.written:
            piece = first_piece(buffers, self._piece)
            try:
                with self._state:
                    engine.write(piece)
            finally:
                if type(piece) is memoryview:
                    piece.release()  # an error would keep it, and the caller could not resize what it is of
            self._flush()
        if self._ciphertext or not engine.written:
            raise BlockingIOError
        sent = sum(engine.written)
        fresh: list[int] = []
        engine.written = fresh
        return sent

    def unreported(self) -> int:
        """At the end: the bytes of the piece that `send_many` has not returned the number of, if all of it has left
        nevertheless, as while something was received."""
        if self._ciphertext:
            return 0
        sent = sum(self._engine.written)
        self._engine.written = []
        return sent

    @property
    def readable(self) -> bool:
        return (self._at_end or self._failure is not None or bool(self._plaintext) or bool(self._received)
                or self._engine.readable or self._below.readable)

    @property
    def unsent(self) -> bool:
        return (bool(self._ciphertext) or self._ending or self._engine.has_ciphertext
                or self._below.unsent and not self._forestalled)

    @property
    def finishing(self) -> bool:
        # After the last flight of a TLS 1.3 server there are tickets at most, which a client may never read.
        info = self.tls
        last = info is not None and not (self._server_side and info.version == "TLSv1.3")
        return self._below.finishing or (last and self.unsent)

    @property
    def stalled(self) -> bool:
        return self._engine.stalled or self._below.stalled

    @property
    def begun(self) -> bool:
        return self._engine.begun

    def report(self, counts: list[int], /) -> None:
        """They may still wait for room below, and go before anything else does."""
        engine = self._engine
        with self._state:
            engine.settle_write()
        written = engine.written
        total = sum(written)
        fresh: list[int] = []
        # No call from here on, and so neither an interrupt nor another thread.
        if total and engine.written is written:
            counts += (total,)
            engine.written = fresh

    def flush(self) -> None:
        self._below.flush()
        self._flush()

    def _flush(self) -> None:
        """Send what ciphertext there is, as far as it goes; whoever is sending already does it for all."""
        ciphertext = self._ciphertext
        counts = self._counts
        while True:
            if self._engine.has_ciphertext:
                with self._state:
                    self._engine.take_ciphertext(ciphertext)
            if not (ciphertext or self._ending) or self._sending.locked():
                return
            with self._sending:
                while True:  # not "while ciphertext": see `netmsg.streams.turns.Turn`
                    if not ciphertext and not counts:
                        break
                    if not counts:
                        try:
                            counts.extend(map(self._below.send_one, (ciphertext[0],)))  # see netmsg.uninterrupted
                        except BlockingIOError:
                            return
                        except OSError as error:
                            if error.errno in TOLD_ONCE:
                                self._lost = error  # before any call
                                self._lost = again(error)  # which is not raised
                            raise
                    rest = ciphertext[0][counts[0]:]
                    if rest:
                        ciphertext[0] = rest
                        del counts[0]
                    else:
                        del ciphertext[0]
                        del counts[0]
                if self._ending and not self._engine.has_ciphertext:
                    try:
                        self._below.end_sending()
                    except OSError as error:
                        if error.errno in TOLD_ONCE:
                            self._lost = error
                            self._lost = again(error)
                        self._ending = False  # there is nobody any more to tell
                        if self._below.tls is None:
                            raise
                        self._forestalled = True
                        return
                    self._ending = False

    def _flush_quietly(self) -> None:
        """The same on the receiving side, where it is for reading to say that the connection broke."""
        try:
            self._flush()
        except OSError:
            pass

    def end_sending(self) -> None:
        with self._state:
            self._decrypt()  # or OpenSSL would take what has come for a breach behind our goodbye
            self._engine.close_notify()
        self._ending = True
        self._flush()

    def _decrypt(self) -> None:
        """All that has come. Under ``_state``."""
        assert self._state.locked()
        while self._failure is None and not self._at_end:
            try:
                if not self._engine.read_to(self._plaintext, CIPHERTEXT_SIZE):
                    break
            except OSError as error:
                self._failure = bare(error)
                break
            if not self._plaintext[-1]:
                del self._plaintext[-1]
                self._at_end = True
