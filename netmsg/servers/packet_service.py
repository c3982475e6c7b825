"""One client of a packet server, below what its handler sees: the `Steps` of the handler, the `Channel` that they get
their bytes from, the `SendQueue`, the `Backpressure`; and here what joins them.

Steps run in a worker, or on the loop if there are no workers. Everything else happens on the loop, but for what is
marked otherwise.
"""

from __future__ import annotations

import socket
import ssl
from threading import get_ident
from typing import Any, Final, Generic, TypeVar

from ..deadline import Deadline
from ..errors import ConnectionBrokenError, PacketDecodeError, TLSHandshakeError, as_broken, bare
from ..reactor.channel import Channel
from ..sockets.addresses import host_and_port
from ..sockets.lingering import reset_on_close
from ..transports.encrypted import TLSTransport
from ..transports.plain import PlainTransport, Transport
from .backpressure import Backpressure
from .packet_home import Home, Terms, TLSTerms
from .send_queue import SendQueue
from .starting_tls import Upgrade
from .step_runner import StepRunner
from .steps import NEW, OVER, RESTING, STEPPING, Next, Steps

__all__ = ["PacketService"]

BROKEN: Final = (ConnectionBrokenError, TLSHandshakeError)
"""After these nothing can be sent any more."""

S = TypeVar("S")


class PacketService(Generic[S]):
    """What is done for one client."""

    __slots__ = ("client", "address", "local_address", "terms", "tls_terms", "io", "queue", "steps", "channel",
                 "backpressure", "runner", "_home", "_aborted", "_upgrade")

    def __init__(self, home: Home, terms: Terms, tls_terms: TLSTerms, sock: socket.socket, address: Any) -> None:
        self.client: Any = None
        """What the handler sees; ``None`` once it is over."""
        self.address = host_and_port(address)
        self.local_address = host_and_port(sock.getsockname())
        self.terms = terms
        self.tls_terms = tls_terms
        self.io = terms.io
        transport: Transport = PlainTransport(sock)
        if tls_terms.context is not None and tls_terms.autostart:
            transport = TLSTransport(transport, tls_terms.context, server_side=True,
                                     standard_compatible=tls_terms.standard_compatible)
        self.queue = SendQueue(transport)
        self.channel = Channel(terms.io, sock, transport, self.queue, self)
        self.steps = Steps(terms.decoder(), self, self.channel.unread, self.queue, terms.send_hwm_bytes, terms.tasks)
        self.backpressure = Backpressure(self, terms, self.queue, self.channel)
        self.runner = StepRunner(self, home, terms, self.steps, self.channel, self.queue, self.backpressure)
        self._home = home
        self._aborted = False
        self._upgrade: Upgrade | None = None

    # From any thread

    @property
    def closed(self) -> bool:
        """See `netmsg.servers.backpressure.Client`."""
        return self.steps.closed

    @property
    def has_the_turn(self) -> bool:
        """See `netmsg.servers.backpressure.Client`."""
        return self.runner.thread == get_ident()

    def close(self) -> None:
        """Close, once what was sent has gone."""
        self.steps.closed = True
        self.backpressure.tell()
        self.io.call(self.look)

    def abort(self) -> None:
        """Close at once, dropping everything."""
        self._aborted = True  # first: the loop may come to see that it is closed before it is told to reset it
        self.steps.closed = True
        self.backpressure.tell()
        self.io.call(self._reset)

    def give_up(self, kind: str, why: str) -> None:
        """Close at once, for the sake of others."""
        self._home._given_up(kind, self.address, why)
        self.abort()

    @property
    def established(self) -> bool:
        """Whether the handler has begun, and is not to come to its end."""
        return self.steps.state is not NEW and not self.steps.closed

    @property
    def packets_received(self) -> int:
        """How many the handler has been handed."""
        return self.steps.received

    @property
    def packets_sent(self) -> int:
        """How many have been accepted for sending."""
        return self.queue.packets

    @property
    def _unsent(self) -> int:
        """See `netmsg.servers.connection_server.Connection`."""
        return self.queue.size if self.queue.waits else 0

    def start_tls(self, context: ssl.SSLContext, standard_compatible: bool, timeout: float | None) -> bool:
        """Go on under TLS, from the packets that are sent from now on. In a step; whether it is over, for good or ill:
        on the loop nothing waits for that."""
        transport = TLSTransport(self.channel.transport, context, server_side=True,
                                 standard_compatible=self.tls_terms.standard_compatible and standard_compatible)
        self._upgrade = upgrade = Upgrade(self.channel, self.queue, self.steps, transport, timeout,
                                          self._upgrade_is_too_slow)
        upgrade.begin()
        self.io.call(self.look)
        return not self.io.is_current and self.backpressure.wait(upgrade.is_over, Deadline(None))

    def _upgrade_is_too_slow(self) -> None:
        if self._upgrade is not None and not self._upgrade.is_over():
            self.channel.cancel_handshake()
            self.shaken(TLSHandshakeError("the TLS handshake was not finished in time"))

    # See `netmsg.servers.steps.Client`

    def bad_packet(self) -> None:
        self._home._bad_packet()

    def too_silent(self) -> None:
        self._home._given_up("idle", self.address, "it was silent for too long", usual=True)

    def failed(self, error: BaseException, *, expected: bool) -> None:
        self._home._step_failed(self, error, expected=expected)

    def decoder_failed(self, error: PacketDecodeError) -> None:
        self._home._handler_failed(self.address, error, expected=False)

    # See `netmsg.servers.connection_server.Connection`, on the loop

    def _start(self) -> None:
        self.channel.open(self.tls_terms.timeout, self.terms.handshakes)

    def _finish(self) -> None:
        """The server is stopping: close if idle, and otherwise once what has been received is handled. The end of a
        step comes here again."""
        if self.channel.shaking and not self.steps.upgrading:
            self._cut()
        elif self.steps.state is NEW:
            self._dismiss()
        elif not self.steps.busy:
            if not self.steps.has_received:
                self.steps.closed = True
            self.look()

    def _dismiss(self) -> None:
        """Its handler has not begun, and does not any more."""
        steps = self.steps
        steps.closed = True  # first: a worker may be just about to begin
        if steps.state is NEW:
            steps.finish()
            self._say_goodbye()

    def _cut(self) -> None:
        steps = self.steps
        steps.closed = True
        if not self.channel.closed:
            self.channel.close(reset=steps.state is STEPPING)  # its handler is not at the end, nor is what it has sent
            self.runner.alarm.cancel()
            self.backpressure.cancel()
            if self._upgrade is not None:
                self._upgrade.cancel()
        if steps.state is NEW:
            steps.finish()
        self._end_handler()

    def _crashed(self, error: Exception) -> None:
        self._cut()

    def _abandon(self) -> None:
        self.steps.closed = True
        self.channel.abandon()

    # See `netmsg.reactor.channel.User`

    def shaken(self, error: OSError | None) -> None:
        steps = self.steps
        if self._upgrade is not None:
            self._upgrade.cancel()
        if error is not None:
            self._home._handshake_failed(self.address, error)
            error = bare(error)
            steps.ending = as_broken(error)
            self.queue.failure = error
            if steps.state is NEW:
                self._cut()
                return
        elif steps.upgrading:
            self.queue.release(self.channel.transport)
            steps.upgrading = False
        else:
            self._begin()
            return
        self.backpressure.tell()
        self.look()

    def _begin(self) -> None:
        if self.steps.handler.hears_errors:
            self.runner.schedule()
            self._watch()
        else:
            self.steps.rest()
            self.runner.expect_packet()
            self.look()

    def received(self, chunk: bytes) -> None:
        steps = self.steps
        if steps.state is not RESTING or steps.packets or steps.upgrading:
            steps.unread.append(chunk)
            if not steps.busy:  # a step that has stopped at the mark meanwhile has left some
                self.look()
        elif self.terms.decodes_in_steps:
            steps.unread.append(chunk)
            self.runner.schedule()  # and from here on the packets are the step's
        else:
            steps.decode(chunk)
            if steps.packets:
                self.runner.schedule()
            elif steps.ending is not None or self._home._finishing:
                self.io.call(self.look)

    def nothing_came(self) -> None:
        """Which does not matter here."""

    def ended(self, error: OSError | None) -> None:
        if error is None:
            self.received(b"")
        else:
            self.steps.ending = error
            self.look()

    def has_room(self) -> None:
        """Send what waits."""
        self.queue.flush()
        if not self.queue.blocked:
            self.channel.flush()
        self.look()

    def left(self, *, given_up: bool) -> None:
        if given_up:
            self.backpressure.close_slow()
        else:
            self._cut()

    # What there is to be done, on the loop

    def look(self) -> None:
        """Do what there is to do, after anything has changed."""
        steps, backpressure = self.steps, self.backpressure
        if self.channel.closed:
            self._end_handler()
            return
        backpressure.look()
        if steps.upgrading and self._upgrade is not None:
            if self.queue.failure is not None:
                self._break()
            if self._upgrade.look(self.io, self.terms.handshakes):
                return
        next = Next.NOTHING if self.channel.shaking else steps.next(finishing=self._home._finishing)
        if next is Next.END:
            self._end()
            return
        if next is Next.DECODE:
            self.channel.paused = False
            self.received(steps.unread.pop())
        elif next is Next.STEP:
            if not backpressure.gives_way():
                self.runner.schedule()
        elif next is Next.CATCH_UP:
            backpressure.be_patient()
        elif next is Next.LISTEN:
            self.channel.paused = False
            self.runner.alarm.arm(self.io, self._timed_out)
            if steps.behind:
                backpressure.be_patient()
        self._watch()

    def _watch(self) -> None:
        """Have the channel tell of what is wanted now."""
        steps = self.steps
        self.channel.reading = not (steps.closed or steps.ending is not None or steps.upgrading
                                    or self._home._finishing or steps.behind)
        self.channel.watch()
        if self.channel.more and not steps.busy:
            self.channel.go_on()

    def _break(self) -> None:
        """What a send has failed with is the end."""
        if self.steps.ending is None and self.queue.failure is not None:
            self.steps.ending = as_broken(self.queue.failure)

    # See `netmsg.servers.backpressure.Client`

    def heard(self) -> object:
        steps = self.steps
        if steps.busy or steps.packets or steps.unread:
            return object()  # it is the client who waits
        return steps.received

    def broke(self) -> None:
        self._break()
        self.look()

    def gave_way(self) -> None:
        steps = self.steps
        if steps.packets and not (steps.busy or steps.closed or steps.behind):
            self.runner.schedule()
        self.look()

    def _timed_out(self) -> None:
        """Perhaps the time is up in which the handler wants a packet."""
        steps, channel = self.steps, self.channel
        if not self.runner.alarm.fired(self.io, self._timed_out):
            return
        if steps.busy or steps.closed or steps.upgrading or channel.shaking:
            return
        if steps.packets or steps.unread:
            return  # they wait for room at a client that is behind
        steps.late = True
        channel.reading = True
        channel.receive()  # one try, for a handler that would not wait
        if steps.busy or channel.closed or steps.ending is not None:
            return
        if steps.wants_the_end:
            self.runner.schedule()
        else:
            self.too_silent()
            self._end()

    # The end, on the loop

    def _end(self) -> None:
        """Tell the handler, if it wants to know, and then let what was sent arrive."""
        if self.steps.wants_the_end:
            self.runner.schedule()
            return
        self.steps.finish()
        if self._aborted:
            self._reset()
        elif isinstance(self.steps.ending, BROKEN) or self.queue.failure is not None:
            self._cut()
        else:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        queue, channel = self.queue, self.channel
        if channel.leaving:
            channel.watch()
            return
        self.backpressure.leave()
        ended = queue.end()
        if queue.failure is not None:
            self._cut()
        elif ended:
            self.backpressure.be_patient_no_more()
            channel.leave(self.terms.send_timeout, answered=queue.packets > 0)
        else:
            self._watch()

    def _reset(self) -> None:
        if not self.channel.closed:
            reset_on_close(self.channel.socket)
        self._cut()

    def _end_handler(self) -> None:
        """And then nothing is left of the connection."""
        steps = self.steps
        if steps.busy or steps.state is OVER:
            return
        if steps.wants_the_end:
            self.runner.schedule()
        else:
            steps.finish()
            steps.end()
            self.client = self._upgrade = None
            self.backpressure.end()
            self.runner.end()
            self._home._forget(self)
