"""One endpoint, by itself: who resolves, who dials, who is brought the connections and who decides about delays are
stand-ins."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

import pytest
from support.servers import said
from support.stand_ins import Loop, ScriptedSocket

from netmsg.errors import ConnectFailedError
from netmsg.messaging import reconnecting
from netmsg.messaging.carriers import Carrier
from netmsg.messaging.events import Connecting, Event, EventQueue, Retrying
from netmsg.messaging.life import Life
from netmsg.messaging.reconnecting import Endpoint
from netmsg.sockets.addresses import Address

V4: Address = (socket.AF_INET, ("192.0.2.1", 7000))
V6: Address = (socket.AF_INET6, ("2001:db8::1", 7000, 0, 0))
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
THEIRS = b"t" * 16


class Dial:
    """In the place of `netmsg.reactor.dialling.Dial`."""

    def __init__(self, io: Any, addresses: list[Address], done: Callable[[Any, list[tuple[Address, OSError]]], None]
                 ) -> None:
        self.io = io
        self.addresses = addresses
        self.done = done
        self.started = self.cancelled = self.abandoned = False

    def start(self) -> None:
        self.started = True

    def cancel(self) -> None:
        self.cancelled = True

    def abandon(self) -> None:
        self.abandoned = True


class Connection:
    """What becomes of a dialled socket."""

    open_since: float | None = None
    phase = "TLS"


class Delaying:
    """In the place of the thread that the user's function is called on."""

    def __init__(self) -> None:
        self.asked: list[Callable[[Any, BaseException | None], None]] = []

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...],
            done: Callable[[Any, BaseException | None], None]) -> None:
        self.asked.append(done)


class Scene:
    """An endpoint and all around it; it is the welcome of its connections, too."""

    def __init__(self, target: tuple[str, int] | str = ("example.org", 7000), **changes: Any) -> None:
        self.loop = Loop()
        self.life = Life()
        self.told: list[Event] = []
        self.delaying = Delaying()
        self.complaints: list[str] = []
        self.lookups = self.loop.machine.lookups
        self.dials: list[Dial] = []
        self.brought: list[tuple[Any, ...]] = []
        self.wanted = True
        self.unwanted = 0
        self.fails = False
        options: dict[str, Any] = dict(carrier=Carrier(), connect_timeout=10.0,
                                       reconnection_delay=None) | changes
        self.endpoint = Endpoint(target, self, self.life, self.loop.io, EventQueue(self.told.append),
                                 self.delaying, self.complain, **options)  # type: ignore[arg-type]

    # What the endpoint asks for

    def dial(self, *arguments: Any) -> Dial:
        if self.fails:
            raise ArithmeticError("on dialling")
        self.dials.append(Dial(*arguments))
        return self.dials[-1]

    def connected(self, sock: Any, target: Any, endpoint: Endpoint, carrier: Carrier) -> Connection:
        if self.fails:
            raise ArithmeticError("on welcoming")
        self.brought.append((sock, target, carrier))
        return Connection()

    def wants(self, endpoint: Endpoint) -> bool:
        return self.wanted

    def without(self, endpoint: Endpoint) -> None:
        self.unwanted += 1

    def complain(self, function: str, text: str, *arguments: Any, error: BaseException | None = None) -> None:
        self.complaints.append(f"{function}() {text % arguments}")

    # What the test has happen

    def start(self) -> None:
        self.endpoint.start()

    def resolves(self, found: list[Address] | OSError = [V4]) -> None:
        self.lookups[-1][2](found)
        self.loop.settle()

    def connects(self) -> ScriptedSocket:
        """A whole attempt, from the name to a connection that is not past its handshake."""
        if self.dials == [] or self.dials[-1].cancelled or self.brought:
            self.resolves()
        sock = ScriptedSocket()
        self.dials[-1].done(sock, [])
        return sock

    def opens(self) -> None:
        self.connects()
        self.connection.open_since = self.loop.clock.now
        self.endpoint.opened(THEIRS)

    def fail(self) -> None:
        """A whole attempt, in vain."""
        self.resolves()
        self.dials[-1].done(None, [(V4, REFUSED)])
        self.loop.settle()

    @property
    def connection(self) -> Connection:
        assert isinstance(self.endpoint.peer, Connection)
        return self.endpoint.peer

    @property
    def retries(self) -> list[Retrying]:
        return [event for event in self.told if isinstance(event, Retrying)]

    @property
    def attempts(self) -> int:
        return sum(isinstance(event, Connecting) for event in self.told)


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scene]:
    def make(*arguments: Any, **options: Any) -> Scene:
        scene = Scene(*arguments, **options)
        monkeypatch.setattr(reconnecting, "Dial", scene.dial)
        return scene

    return make


@pytest.fixture
def scene(scenes: Callable[..., Scene]) -> Scene:
    return scenes()


# One attempt


def test_the_name_is_resolved_and_all_of_its_addresses_are_dialled(scene: Scene) -> None:
    scene.start()
    assert scene.lookups[0][:2] == ("example.org", 7000) and scene.endpoint.connecting
    scene.resolves([V6, V4])
    assert scene.dials[0].addresses == [V6, V4] and scene.dials[0].started
    assert [type(event) for event in scene.told] == [Connecting] and scene.told[0].address == ("example.org", 7000)


def test_a_unix_socket_is_dialled_at_once(scenes: Callable[..., Scene]) -> None:
    scene = scenes("/run/søcket")
    scene.start()
    assert scene.lookups == [] and scene.dials[0].addresses == [(socket.AF_UNIX, "/run/søcket")]


def test_a_connection_is_brought_to_those_who_want_it(scenes: Callable[..., Scene]) -> None:
    carrier = Carrier(server_hostname="other.example.org")
    scene = scenes(carrier=carrier)
    scene.start()
    sock = scene.connects()
    assert scene.brought == [(sock, ("example.org", 7000), carrier)]
    assert scene.endpoint.connecting, "not before the handshake is over"
    scene.endpoint.opened(THEIRS)
    assert not scene.endpoint.connecting and scene.endpoint.leads_to == THEIRS


def test_a_name_that_does_not_resolve_is_named(scene: Scene) -> None:
    scene.start()
    scene.resolves(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    (retry,) = scene.retries
    assert retry.phase == "resolving" and "'example.org'" in retry.reason and retry.delay == 0.1
    assert isinstance(retry.error, socket.gaierror) and isinstance(retry.error.__cause__, socket.gaierror)


def test_an_error_that_names_it_already_stays_as_it_is(scene: Scene) -> None:
    scene.start()
    error = socket.gaierror(socket.EAI_NONAME, "'example.org' cannot be resolved")
    scene.resolves(error)
    assert scene.retries[0].error is error


def test_of_several_addresses_that_fail_each_reason_is_told_once(scene: Scene) -> None:
    scene.start()
    scene.resolves([V6, V4])
    unreachable = OSError(errno.ENETUNREACH, "unreachable")
    scene.dials[0].done(None, [(V6, unreachable), (V4, REFUSED), (V4, REFUSED)])
    (retry,) = scene.retries
    assert retry.phase == "connecting" and retry.reason.count("refused") == 1 and "unreachable" in retry.reason
    assert isinstance(retry.error, ConnectFailedError)
    assert [address for address, _ in retry.error.attempts][:2] == [("2001:db8::1", 7000), ("192.0.2.1", 7000)]


def test_a_name_without_an_address_says_so(scene: Scene) -> None:
    scene.start()
    scene.resolves([])
    scene.dials[0].done(None, [])
    assert scene.retries[0].reason == "no address"


def test_no_connection_in_time(scenes: Callable[..., Scene]) -> None:
    scene = scenes(connect_timeout=3.0)
    scene.start()
    scene.resolves()
    scene.loop.pass_time(3.0)
    assert scene.retries[0].reason == "no connection within 3 s" and scene.retries[0].phase == "connecting"
    assert scene.dials[0].cancelled


def test_a_connection_that_is_there_has_the_time_of_its_handshake(scene: Scene) -> None:
    scene.start()
    scene.connects()
    scene.loop.pass_time(100.0)
    assert scene.retries == []


def test_a_resolver_that_answers_too_late_is_not_heard(scenes: Callable[..., Scene]) -> None:
    scene = scenes(connect_timeout=3.0)
    scene.start()
    scene.loop.pass_time(3.2)
    assert scene.attempts == 2 and scene.retries[0].phase == "resolving"
    scene.lookups[0][2]([V6])
    scene.loop.settle()
    assert scene.dials == []
    scene.resolves([V4])
    assert [dial.addresses for dial in scene.dials] == [[V4]]


def test_a_step_that_fails_is_a_failure_of_this_attempt(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.start()
    scene.fails = True
    scene.resolves()
    assert scene.retries[0].reason == "connecting failed: ArithmeticError('on dialling')"
    scene.fails = False
    scene.loop.pass_time(0.2)
    scene.resolves()
    assert scene.dials[0].started
    said(caplog)


def test_a_connection_that_cannot_be_welcomed_is_closed(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.start()
    scene.resolves()
    scene.fails = True
    sock = ScriptedSocket()
    scene.dials[0].io.call(scene.dials[0].done, sock, [])
    scene.loop.settle()
    assert sock.closed and scene.retries[0].reason == "connecting failed: ArithmeticError('on welcoming')"
    said(caplog)


# Again and again


def test_delays_double_up_to_two_seconds(scene: Scene) -> None:
    scene.start()
    for _ in range(7):
        scene.fail()
        scene.loop.pass_time(2.0)
    assert [round(retry.delay, 6) for retry in scene.retries] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert scene.attempts == 8


def test_it_is_dialled_again_when_the_delay_is_over_and_not_before(scene: Scene) -> None:
    scene.start()
    scene.fail()
    assert not scene.endpoint.connecting
    scene.loop.pass_time(0.09)
    assert scene.attempts == 1
    scene.loop.pass_time(0.02)
    assert scene.attempts == 2 and scene.endpoint.connecting


def test_without_any_delay_a_moment_is_waited(scene: Scene) -> None:
    scene.loop.machine.luck = 0.0
    scene.start()
    scene.fail()
    assert scene.retries[0].delay == 0.01 and scene.loop.delays == [0.01]


@pytest.mark.parametrize("open_for, delays", [(5.0, [0.1, 0.1]), (4.9, [0.1, 0.2])], ids=["stable", "brief"])
def test_after_a_stable_connection_delays_are_short_again(scene: Scene, open_for: float, delays: list[float]) -> None:
    scene.start()
    scene.fail()
    scene.loop.pass_time(0.1)
    scene.opens()
    scene.endpoint.ended(open_for, "the peer closed the connection", None)
    assert [retry.delay for retry in scene.retries] == delays


def test_a_handshake_that_fails_is_told_by_how_far_it_came(scene: Scene) -> None:
    scene.start()
    scene.connects()
    scene.endpoint.ended(0.0, "TLS: bad certificate", None)
    assert scene.retries[0].phase == "TLS" and scene.endpoint.peer is None and not scene.endpoint.connecting
    scene.loop.pass_time(0.1)
    assert scene.attempts == 2


def test_a_connection_that_was_open_has_failed_in_no_phase(scene: Scene) -> None:
    scene.start()
    scene.opens()
    scene.endpoint.ended(9.0, "the peer closed the connection", None)
    assert (scene.retries[0].phase, scene.retries[0].reason) == ("", "the peer closed the connection")


# The user's delay


@pytest.fixture
def asking(scenes: Callable[..., Scene]) -> Scene:
    """The user's function is about to answer how long is to be waited."""
    scene = scenes(reconnection_delay=float)
    scene.start()
    scene.fail()
    assert scene.retries == [] and len(scene.delaying.asked) == 1
    return scene


def test_the_users_delay_is_waited(asking: Scene) -> None:
    asking.delaying.asked[0](0.7, None)
    asking.loop.settle()
    assert asking.retries[0].delay == 0.7
    asking.loop.pass_time(0.7)
    assert asking.attempts == 2


@pytest.mark.parametrize("wish", [-1, float("nan"), float("inf"), "soon", None])
def test_a_delay_that_is_none_is_complained_of(asking: Scene, wish: Any) -> None:
    asking.delaying.asked[0](wish, None)
    asking.loop.settle()
    assert asking.retries[0].delay == 0.1
    assert asking.complaints == [f"reconnection_delay() returned {wish!r}, which is no number of seconds: using 0.10"]


def test_a_delay_that_cannot_even_be_shown(asking: Scene) -> None:
    class Nasty:
        def __float__(self) -> float:
            raise SystemExit

        def __repr__(self) -> str:
            raise KeyboardInterrupt

    asking.delaying.asked[0](Nasty(), None)
    asking.loop.settle()
    assert asking.retries[0].delay == 0.1 and "an object of Nasty" in asking.complaints[0]


def test_where_the_users_function_raises_the_delay_is_the_usual_one(asking: Scene) -> None:
    asking.delaying.asked[0](None, ArithmeticError())
    asking.loop.settle()
    assert asking.retries[0].delay == 0.1 and asking.complaints == [], "whoever called it has said it"


def test_a_function_that_does_not_return_is_not_waited_for(asking: Scene) -> None:
    asking.loop.pass_time(1.05)
    assert asking.complaints == ["reconnection_delay() does not return: using 0.10 s"]
    assert asking.attempts == 2, "the delay has been waited already"
    asking.delaying.asked[0](0.5, None)
    asking.loop.settle()
    assert len(asking.retries) == 1


def test_while_the_søcket_closes_the_function_is_not_asked(scenes: Callable[..., Scene]) -> None:
    scene = scenes(reconnection_delay=float)
    scene.start()
    scene.life.begin_closing()
    scene.fail()
    assert scene.delaying.asked == [] and len(scene.retries) == 1


# Two ways to one peer


def test_an_endpoint_at_rest_is_not_dialled(scene: Scene) -> None:
    scene.start()
    scene.connects()
    scene.endpoint.rest(THEIRS)
    scene.endpoint.ended(0.0, "the identity is connected already", None)
    scene.loop.pass_time(100.0)
    assert scene.attempts == 1 and scene.retries == [] and scene.endpoint.leads_to == THEIRS
    assert scene.endpoint.trouble == ""


def test_it_is_dialled_again_when_it_is_woken(scene: Scene) -> None:
    scene.start()
    scene.connects()
    scene.endpoint.rest(THEIRS)
    scene.endpoint.wake("the other connection has gone")
    assert scene.retries[0].reason == "the other connection has gone"
    scene.loop.pass_time(0.1)
    assert scene.attempts == 2
    scene.opens()
    scene.endpoint.ended(9.0, "the peer closed the connection", None)
    assert len(scene.retries) == 2, "it does not rest any more"


# While the Søcket closes


def test_who_is_not_wanted_any_more_is_not_dialled_again(scene: Scene) -> None:
    scene.start()
    scene.opens()
    scene.wanted = False
    scene.endpoint.ended(9.0, "over", None)
    scene.loop.pass_time(100.0)
    assert scene.unwanted == 1 and scene.attempts == 1 and scene.retries == []


def test_while_it_closes_it_is_dialled_again_soon(scene: Scene) -> None:
    scene.start()
    for _ in range(4):
        scene.fail()
        scene.loop.pass_time(2.0)
    scene.life.begin_closing()
    scene.fail()
    assert scene.retries[-1].delay == 0.1


def test_what_was_to_be_dialled_later_is_dialled_soon(scene: Scene) -> None:
    scene.start()
    for _ in range(5):
        scene.fail()
        scene.loop.pass_time(2.0)
    scene.fail()
    assert scene.loop.delays == [2.0]
    scene.life.begin_closing()
    scene.endpoint.hurry()
    assert scene.loop.delays == [0.1]
    before = scene.attempts
    scene.loop.pass_time(0.1)
    assert scene.attempts == before + 1


def test_hurry_does_not_wait_for_the_users_delay(asking: Scene) -> None:
    asking.life.begin_closing()
    asking.endpoint.hurry()
    asking.delaying.asked[0](60.0, None)
    asking.loop.pass_time(0.1)
    assert asking.attempts == 2 and asking.retries == []


@pytest.mark.parametrize("state", ["connecting", "connected", "resting", "stopped"])
def test_who_has_nothing_to_wait_for_need_not_hurry(scene: Scene, state: str) -> None:
    scene.start()
    if state == "connected":
        scene.opens()
    elif state == "resting":
        scene.connects()
        scene.endpoint.rest(THEIRS)
    elif state == "stopped":
        scene.endpoint.stop()
    scene.endpoint.hurry()
    scene.loop.pass_time(0.2)
    assert scene.attempts == 1


def test_what_had_been_given_up_is_revived(scene: Scene) -> None:
    scene.start()
    scene.opens()
    scene.wanted = False
    scene.endpoint.ended(9.0, "over", None)
    scene.endpoint.revive()
    scene.loop.pass_time(0.1)
    assert scene.attempts == 2


def test_so_is_one_whose_last_attempt_came_to_nothing(scenes: Callable[..., Scene]) -> None:
    scene = scenes(connect_timeout=3.0)
    scene.start()
    scene.resolves()
    scene.wanted = False
    scene.loop.pass_time(3.0)
    assert scene.unwanted == 1
    scene.endpoint.revive()
    scene.loop.pass_time(0.1)
    assert scene.attempts == 2


def test_whoever_was_said_goodbye_to_is_there_again_when_it_is_connected_again(scene: Scene) -> None:
    assert not scene.endpoint.took_leave
    scene.endpoint.took_leave = True
    scene.start()
    scene.opens()
    assert not scene.endpoint.took_leave


def test_what_is_about_to_be_dialled_need_not_be_revived(scene: Scene) -> None:
    scene.start()
    scene.fail()
    scene.loop.pass_time(0.06)
    scene.endpoint.revive()
    scene.loop.pass_time(0.05)
    assert scene.attempts == 2, "not later than it was to be"


# The end


@pytest.mark.parametrize("when", ["resolving", "connecting", "waiting"])
def test_when_it_is_stopped_nothing_comes_any_more(scene: Scene, when: str) -> None:
    scene.start()
    if when == "connecting":
        scene.resolves()
    elif when == "waiting":
        scene.fail()
    before = len(scene.dials)
    scene.endpoint.stop()
    if when == "resolving":
        scene.resolves()
    scene.loop.pass_time(100.0)
    assert scene.attempts == 1 and len(scene.dials) == before and scene.loop.delays == []
    assert not scene.endpoint.connecting and all(dial.cancelled for dial in scene.dials[:1] if when == "connecting")


def test_a_connection_that_is_up_stays_and_is_the_last(scene: Scene) -> None:
    scene.start()
    scene.opens()
    scene.endpoint.stop()
    assert scene.endpoint.peer is scene.connection
    scene.endpoint.ended(9.0, "over", None)
    scene.loop.pass_time(100.0)
    assert scene.attempts == 1 and scene.unwanted == 1


@pytest.mark.parametrize("end", ["stopped", "closed"])
def test_who_has_come_too_late_is_not_dialled(scene: Scene, end: str) -> None:
    if end == "stopped":
        scene.endpoint.stop()
    else:
        scene.life.begin_closing()
        scene.life.end()
    scene.start()
    assert scene.attempts == 0 and scene.lookups == []


def test_a_delay_that_is_decided_after_the_end_is_ignored(asking: Scene) -> None:
    asking.endpoint.stop()
    asking.delaying.asked[0](0.5, None)
    asking.loop.pass_time(100.0)
    assert asking.retries == [] and asking.attempts == 1


def test_a_forked_child_closes_its_copies(scene: Scene) -> None:
    scene.start()
    scene.endpoint.abandon()
    scene.resolves()
    scene.endpoint.abandon()
    assert scene.dials[0].abandoned and not scene.dials[0].cancelled


# What is said of it


def test_what_is_in_the_way_is_told_in_words(scene: Scene) -> None:
    endpoint = scene.endpoint
    assert endpoint.trouble == ""
    scene.start()
    assert endpoint.trouble == "example.org:7000 is not past resolving yet"
    scene.resolves()
    assert endpoint.trouble == "example.org:7000 is not past connecting yet"
    scene.dials[-1].done(None, [(V4, REFUSED)])
    assert endpoint.trouble == "no connection to example.org:7000: connecting failed: [Errno 111] refused"
    scene.loop.pass_time(0.1)
    scene.resolves()
    scene.dials[-1].done(ScriptedSocket(), [])
    assert endpoint.trouble == "no connection to example.org:7000: connecting failed: [Errno 111] refused"
    scene.connection.open_since = 1.0
    endpoint.opened(THEIRS)
    assert endpoint.trouble == ""
    endpoint.ended(9.0, "the peer closed the connection", None)
    assert endpoint.trouble == "no connection to example.org:7000: the peer closed the connection"


def test_a_first_connection_is_not_past_its_handshake_yet(scene: Scene) -> None:
    scene.start()
    scene.connects()
    assert scene.endpoint.trouble == "example.org:7000 is not past TLS yet"
