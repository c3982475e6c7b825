"""What ``bind`` and ``connect`` do: from a checked address to a listener, or an endpoint that is dialled."""

from __future__ import annotations

import os
import socket
from typing import Final

from ..deadline import Deadline
from ..reactor.accepting import Acceptor
from ..reactor.callbacks import Callbacks
from ..reactor.reactor import Reactor
from ..sockets.addresses import host_and_port
from ..sockets.listening import tcp_addresses
from ..sockets.options import size_buffers
from .carriers import Carrier
from .closing import Closing
from .doors import Doors
from .events import AcceptError, EventQueue, Listening
from .life import Life
from .places import Places
from .population import Population
from .reconnecting import Complain, Endpoint, naming
from .settings import Settings
from .urls import url_of

__all__ = ["Opening"]

BACKLOG: Final = 4096


class Opening:
    """Asked by any thread."""

    def __init__(self, settings: Settings, life: Life, io: Reactor, events: EventQueue, places: Places, doors: Doors,
                 population: Population, closing: Closing, delaying: Callbacks,
                 complain: Complain) -> None:
        self._settings = settings
        self._life = life
        self._io = io
        self._machine = io.machine
        self._steps = io.scope(life.crash)
        self._events = events
        self._places = places
        self._doors = doors
        self._population = population
        self._closing = closing
        self._delaying = delaying
        self._complain = complain

    def bind(self, hostname: str | None, port: int, carrier: Carrier, deadline: Deadline) -> None:
        """Listen at every address of a name."""
        self._life.check_open()
        if hostname is None:
            addresses = tcp_addresses(None, port)
        else:
            try:
                addresses = self._machine.resolve(deadline, hostname, port)
            except socket.gaierror as error:
                raise naming(error, hostname) from error
        socks = self._machine.listen_tcp(addresses, port, BACKLOG)
        try:
            while True:
                if not socks:
                    break
                self._listen(socks.pop(0), carrier)
        finally:
            for sock in socks:
                sock.close()

    def bind_unix(self, path: str, carrier: Carrier) -> None:
        self._life.check_open()
        self._listen(self._machine.listen_unix(path, BACKLOG), carrier)

    def _listen(self, sock: socket.socket, carrier: Carrier) -> None:
        """Accept peers on a listening socket, which this takes over and closes if it raises."""
        acceptor = None
        population = self._population
        try:
            self._closing.attach()
            size_buffers(sock, self._settings.send_buffer, self._settings.recv_buffer)  # before the first connection
            acceptor = Acceptor(self._io, sock, lambda conn, address: population.accepted(conn, address, carrier),
                                lambda error: self._events.add(AcceptError(address, None, str(error), error)),
                                owns_file=True)
            address = host_and_port(acceptor.address)
            self._steps.call(self._start_accepting, acceptor)
            self._events.add(Listening(address))
            # No call from here on, and so no interrupt.
            acceptors = self._places.acceptors
            acceptors += (acceptor,)
        except BaseException:
            if acceptor is None:
                sock.close()
            else:
                self._io.call(acceptor.close)
            raise
        if self._life.closing:  # meanwhile
            self._io.call(acceptor.close)
        if isinstance(address, str) and not address.startswith("\0"):
            address = os.path.abspath(address)
        self._places.bound_urls.append(url_of(address, tls=carrier.context is not None, path=carrier.path))

    def _start_accepting(self, acceptor: Acceptor) -> None:
        if self._life.closed:
            acceptor.close()
        else:
            if self._doors.regulate():
                acceptor.pause()  # it need not be among the others yet
            acceptor.start()

    def connect(self, target: tuple[str, int] | str, carrier: Carrier, connect_timeout: float) -> None:
        """Dial ``target`` from now on, until closed."""
        self._closing.attach()
        endpoint = Endpoint(target, self._population, self._life, self._io, self._events, self._delaying,
                            self._complain, carrier=carrier, connect_timeout=connect_timeout,
                            reconnection_delay=self._settings.reconnection_delay)
        endpoints = self._places.endpoints
        try:
            self._io.call(endpoint.start)
            # No call from here on, and so no interrupt.
            endpoints += (endpoint,)
        except BaseException:
            self._io.call(endpoint.stop)
            raise
        if self._life.closing:  # meanwhile
            self._io.call(endpoint.stop)
