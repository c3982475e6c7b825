"""`proxy`: two Søckets, and whatever comes by the one leaves by the other."""

from __future__ import annotations

import logging
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from support.interrupts import Interrupted, handling
from support.pairs import TIMEOUT, Background, until, until_waiting, wait_for_event

from netmsg import (
    AckMode, ClosedError, DeliveryGuarantee, Full, OnFull, RequestFailedError, SendMode, Søcket, UndeliveredError,
    proxy,
)

RELIABLE: dict[str, Any] = {"delivery_guarantee": DeliveryGuarantee.AT_LEAST_ONCE}


def threads_of_proxies() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("netmsg-proxy-")]


@pytest.fixture(autouse=True)
def _all_threads_end() -> Iterator[None]:
    yield
    assert threads_of_proxies() == []  # when `proxy` returns they have


class Middle:
    """A proxy that runs, and those who come to it."""

    def __init__(self, front: Søcket, back: Søcket, ends: ExitStack) -> None:
        self.front = front
        self.back = back
        self._ends = ends

    def _connected(self, to: Søcket, options: dict[str, Any]) -> Søcket[Any]:
        sock = self._ends.enter_context(Søcket(**{"linger": 0, **options}))
        sock.connect(port=to.bound_port)
        sock.wait_for_peers(timeout=TIMEOUT)
        return sock

    def creator(self, **options: Any) -> Søcket[Any]:
        return self._connected(self.front, options)

    def worker(self, **options: Any) -> Søcket[Any]:
        return self._connected(self.back, options)


@contextmanager
def relaying(front: dict[str, Any] | None = None, back: dict[str, Any] | None = None,
             **options: Any) -> Iterator[Middle]:
    """Whatever happens in here, the proxy ends with it."""
    with ExitStack() as ends:
        with (Søcket(**{"linger": 0, **(front or {})}).bind(port=0) as a,
              Søcket(**{"linger": 0, **(back or {})}).bind(port=0) as b):
            call = Background(proxy, a, b, **options)
            try:
                yield Middle(a, b, ends)
            finally:
                a.close()
                assert call.result() is None


@contextmanager
def interrupted_when_running() -> Iterator[None]:
    """The proxy that is begun in here is interrupted as soon as its threads are there."""
    main = threading.get_ident()

    def strike() -> None:
        until(lambda: len(threads_of_proxies()) == 2)
        signal.pthread_kill(main, signal.SIGUSR1)

    with handling():
        striking = Background(strike)
        with pytest.raises(Interrupted):
            yield
        striking.result()


def take_all(sock: Søcket, count: int) -> list[int]:
    return [int(sock.recv(timeout=TIMEOUT)) for _ in range(count)]


# Messages


@pytest.mark.parametrize("ack_mode", AckMode)
@pytest.mark.parametrize("sends", [{}, RELIABLE], ids=["once", "at least once"])
@pytest.mark.parametrize("back", [{}, RELIABLE], ids=["once behind", "at least once behind"])
def test_what_comes_in_front_leaves_behind_in_order(back: dict[str, Any], sends: dict[str, Any],
                                                    ack_mode: AckMode) -> None:
    with relaying({"ack_mode": ack_mode}, back) as middle:
        worker, creator = middle.worker(), middle.creator(**sends)
        for number in range(500):
            creator.send(b"%d" % number)
        assert take_all(worker, 500) == [*range(500)]
        until(lambda: creator.stats().unacked == 0)


def test_a_hundred_thousand_with_many_in_flight() -> None:
    """Far more than fit: each waits where it is until there is room behind it."""
    count = 100_000
    with relaying({"recv_hwm": 2000}, {**RELIABLE, "send_hwm": 1000}) as middle:
        worker = middle.worker(recv_hwm=500)
        creator = middle.creator(**RELIABLE, send_hwm=3000)
        sending = Background(lambda: [creator.send(b"%d" % number) for number in range(count)])
        assert take_all(worker, count) == [*range(count)]
        sending.result()
        until(lambda: creator.stats().unacked == 0)
        assert middle.front.stats().duplicates == worker.stats().duplicates == 0


def test_it_is_acknowledged_in_front_when_it_has_been_behind() -> None:
    with relaying({}, RELIABLE) as middle:
        worker, creator = middle.worker(ack_mode=AckMode.MANUAL), middle.creator(**RELIABLE)
        receipts = [creator.send(b"%d" % number) for number in range(3)]
        deliveries = [worker.recv_delivery(timeout=TIMEOUT) for _ in receipts]
        until(lambda: middle.back.stats().unacked == 3)
        assert not any(receipt.acked for receipt in receipts)
        deliveries[1].ack()
        receipts[1].wait(timeout=TIMEOUT)
        assert not receipts[0].acked and not receipts[2].acked


def test_where_the_back_sends_at_most_once_it_is_acknowledged_when_that_has_accepted_it() -> None:
    with relaying() as middle:
        middle.creator(**RELIABLE).send(b"nobody is there yet").wait(timeout=TIMEOUT)
        assert middle.worker().recv(timeout=TIMEOUT) == b"nobody is there yet"


def test_what_had_come_before_it_began_is_not_acknowledged_too_soon() -> None:
    with (Søcket(linger=0).bind(port=0) as front, Søcket(linger=0, **RELIABLE).bind(port=0) as back,
          Søcket(linger=0, resend_after=0.1, **RELIABLE).connect(port=front.bound_port) as creator):
        receipt = creator.send(b"early")
        until(lambda: front.stats().received == 1)
        call = Background(proxy, front, back)
        with Søcket(ack_mode=AckMode.MANUAL).connect(port=back.bound_port) as worker:
            delivery = worker.recv_delivery(timeout=TIMEOUT)
            assert not receipt.acked
            delivery.ack()
            receipt.wait(timeout=TIMEOUT)
        front.close()
        call.result()


def test_nor_is_what_had_been_begun_to_be_taken() -> None:
    with (Søcket(linger=0).bind(port=0) as front, Søcket(linger=0, **RELIABLE).bind(port=0) as back,
          Søcket(linger=0, **RELIABLE).connect(port=front.bound_port) as creator):
        receipts = creator.send_many(b"%d" % number for number in range(100))
        assert receipts is not None
        until(lambda: front.stats().received == 100)
        assert front.recv(timeout=TIMEOUT) == b"0"
        call = Background(proxy, front, back)
        receipts[0].wait(timeout=TIMEOUT)
        until(lambda: back.stats().queued >= 99)
        assert not any(receipt.acked for receipt in receipts[1:])
        with Søcket().connect(port=back.bound_port) as worker:
            assert take_all(worker, 99) == [*range(1, 100)]
            receipts[-1].wait(timeout=TIMEOUT)
        until(lambda: creator.stats().unacked == 0)
        credit = front._engine.sender.router.ring[0].owner.credit
        assert (credit.pending, credit.pending_bytes) == (0, 0)
        front.close()
        call.result()


def test_what_the_back_gives_up_goes_back_to_its_sender() -> None:
    with relaying({}, {**RELIABLE, "max_resends": 0, "resend_after": 0.1}) as middle:
        middle.worker(ack_mode=AckMode.MANUAL)
        creator = middle.creator(**RELIABLE, max_resends=0, resend_after=0.1)
        receipt = creator.send(b"nobody does it")
        with pytest.raises(UndeliveredError):
            receipt.wait(timeout=TIMEOUT)


def test_a_message_is_held_back_until_there_is_room_behind() -> None:
    with relaying({"recv_hwm": 5}, {"send_hwm": 3}) as middle:
        creator = middle.creator(send_hwm=5)
        sending = Background(lambda: [creator.send(b"%d" % number) for number in range(1000)])
        until_waiting(sending)
        assert take_all(middle.worker(), 1000) == [*range(1000)]
        sending.result()


def test_workers_share_what_creators_send() -> None:
    with relaying() as middle:
        workers = [middle.worker() for _ in range(3)]
        middle.back.wait_for_peers(3, timeout=TIMEOUT)
        creators = [middle.creator() for _ in range(2)]
        for creator in creators:
            for number in range(300):
                creator.send(b"%d" % number)
        assert Counter(sum((take_all(worker, 200) for worker in workers), [])) == Counter([*range(300)] * 2)


def test_a_proxy_of_a_publisher_publishes() -> None:
    with relaying({}, {"send_mode": SendMode.PUBLISH}) as middle:
        subscribers = [middle.worker() for _ in range(3)]
        middle.back.wait_for_peers(3, timeout=TIMEOUT)
        creator = middle.creator()
        for number in range(100):
            creator.send(b"%d" % number)
        assert [take_all(subscriber, 100) for subscriber in subscribers] == [[*range(100)]] * 3


def test_both_ways() -> None:
    with relaying(both_ways=True) as middle:
        worker, creator = middle.worker(), middle.creator()
        creator.send(b"there")
        assert worker.recv(timeout=TIMEOUT) == b"there"
        worker.send(b"and back")
        assert creator.recv(timeout=TIMEOUT) == b"and back"


def test_one_way_only_unless_asked() -> None:
    with relaying() as middle:
        worker, creator = middle.worker(), middle.creator()
        worker.send(b"nobody takes it")
        creator.send(b"1")
        assert worker.recv(timeout=TIMEOUT) == b"1"
        assert creator.stats().received == 0


def test_what_is_too_long_behind_is_logged_and_goes_back(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "netmsg"), relaying({}, {"max_message_size": 10}) as middle:
        worker = middle.worker()
        middle.creator().send(b"x" * 11)
        receipt = middle.creator(**RELIABLE, max_resends=0, resend_after=0.1).send(b"y" * 11)
        with pytest.raises(UndeliveredError):
            receipt.wait(timeout=TIMEOUT)
        middle.creator().send(b"short")
        assert worker.recv(timeout=TIMEOUT) == b"short"
        assert middle.front.stats().dropped == {"not passed on": 1}
        until(lambda: caplog.text.count("it has 11 bytes, and the other end of the proxy takes 10") >= 1)


def test_a_back_that_refuses_at_its_mark_loses_nothing_that_is_kept() -> None:
    with relaying({}, {"on_full": OnFull.RAISE, "send_hwm": 1}) as middle:
        creator = middle.creator(**RELIABLE, resend_after=0.1)
        for number in range(5):
            creator.send(b"%d" % number)
        worker = middle.worker()
        assert sorted(take_all(worker, 5)) == [*range(5)]
        until(lambda: creator.stats().unacked == 0)


# Requests


@pytest.mark.parametrize("back", [{}, RELIABLE], ids=["once behind", "at least once behind"])
def test_requests_and_their_replies_pass(back: dict[str, Any]) -> None:
    with relaying({}, back) as middle:
        worker, asker = middle.worker(), middle.creator()
        serving = Background(worker.serve_requests, bytes.upper)
        asking = [Background(lambda name=name: [asker.request(name + b"%d" % number) for number in range(30)])
                  for name in (b"a", b"b", b"c", b"d")]
        for name, call in zip((b"A", b"B", b"C", b"D"), asking):
            assert call.result() == [name + b"%d" % number for number in range(30)]
        worker.close()
        serving.result()


def test_a_request_waits_for_somebody_who_answers() -> None:
    with relaying() as middle:
        asking = Background(middle.creator().request, b"anybody?", timeout=None)
        until_waiting(asking)
        worker = middle.worker()
        worker.recv_delivery(timeout=TIMEOUT).reply(b"me")
        assert asking.result() == b"me"


def test_why_a_request_is_not_answered_passes_too() -> None:
    with relaying() as middle:
        worker, asker = middle.worker(), middle.creator()
        asking = Background(asker.request, b"?")
        worker.recv_delivery(timeout=TIMEOUT).fail("not today")
        with pytest.raises(RequestFailedError, match="^not today$"):
            asking.result()
        asking = Background(asker.request, b"?")
        worker.recv_delivery(timeout=TIMEOUT)
        worker.close()
        with pytest.raises(RequestFailedError, match="has ended before it replied"):
            asking.result()


def test_requests_the_other_way_round_with_both_ways() -> None:
    with relaying(both_ways=True) as middle:
        worker, creator = middle.worker(), middle.creator()
        asking = Background(worker.request, b"from behind")
        creator.recv_delivery(timeout=TIMEOUT).reply(b"from in front")
        assert asking.result() == b"from in front"


def test_nothing_is_remembered_of_requests_whose_asker_has_gone() -> None:
    with relaying() as middle:
        asker = middle.creator()
        asking = Background(asker.request, b"nobody answers", timeout=None)
        requesting = middle.back._engine.sender.requesting
        until(lambda: len(requesting._requests))
        asker.close()
        with pytest.raises(ClosedError):
            asking.result()
        until(lambda: not len(requesting._requests))


def test_those_who_have_asked_are_told_when_the_proxy_ends() -> None:
    with relaying() as middle:
        worker, asker = middle.worker(), middle.creator()
        asking = Background(asker.request, b"?", timeout=None)
        worker.recv_delivery(timeout=TIMEOUT)
        middle.back.close()
        with pytest.raises(RequestFailedError, match="has ended"):
            asking.result()


# The end


@pytest.mark.parametrize("which", [0, 1], ids=["front", "back"])
@pytest.mark.parametrize("both_ways", [False, True])
def test_it_ends_when_either_is_closed(which: int, both_ways: bool) -> None:
    with Søcket().bind(port=0) as front, Søcket().bind(port=0) as back:
        call = Background(proxy, front, back, both_ways=both_ways)
        until(lambda: len(threads_of_proxies()) == 2 + 2 * both_ways)
        (front, back)[which].close()
        assert call.result() is None
        assert not (back, front)[which].closed
        with pytest.raises(ClosedError):
            proxy(front, back)


@pytest.mark.parametrize("which", [0, 1], ids=["front", "back"])
def test_it_ends_while_there_is_no_room_too(which: int) -> None:
    with (Søcket(linger=0).bind(port=0) as front, Søcket(linger=0, send_hwm=1).bind(port=0) as back,
          Søcket(linger=0).connect(port=front.bound_port) as creator):
        call = Background(proxy, front, back)
        for _ in range(2):
            creator.send(b"one waits, and there is no room for the other")
        wait_for_event(back, Full)
        (front, back)[which].close()
        assert call.result() is None
        assert front.stats().dropped.get("not passed on: the proxy has ended") == 1


def test_what_is_in_hand_when_the_back_closes_stays_with_its_sender() -> None:
    with (Søcket(linger=0).bind(port=0) as front, Søcket(linger=0, send_hwm=1).bind(port=0) as back,
          Søcket(linger=0, resend_after=0.1, **RELIABLE).connect(port=front.bound_port) as creator):
        call = Background(proxy, front, back)
        receipts = [creator.send(b"%d" % number) for number in range(2)]
        receipts[0].wait(timeout=TIMEOUT)
        wait_for_event(back, Full)
        back.close()
        call.result()
        assert not receipts[1].acked and not receipts[1].failed
        with Søcket(linger=0).bind(port=0) as another:
            call = Background(proxy, front, another)
            with Søcket().connect(port=another.bound_port) as worker:
                creator.send(b"2")
                assert sorted(take_all(worker, 2)) == [1, 2]
            front.close()
            call.result()


def test_an_interrupt_ends_it_and_leaves_both_open() -> None:
    with Søcket(linger=0).bind(port=0) as front, Søcket(linger=0).bind(port=0) as back:
        with interrupted_when_running():
            proxy(front, back)
        assert threads_of_proxies() == [] and not front.closed and not back.closed
        call = Background(proxy, front, back)  # and it may be begun again
        with (Søcket(linger=0).connect(port=front.bound_port) as creator,
              Søcket(linger=0).connect(port=back.bound_port) as worker):
            creator.send(b"1")
            assert worker.recv(timeout=TIMEOUT) == b"1"
        front.close()
        call.result()


def test_it_ends_while_there_is_always_something_to_take() -> None:
    with relaying() as middle:
        flooding = threading.Event()
        creator, worker = middle.creator(), middle.worker()

        def flood() -> None:
            with suppress(ClosedError):
                while not flooding.is_set():
                    creator.send(b"more")

        calls = [Background(flood), Background(lambda: [None for _ in worker.messages()])]
        until(lambda: worker.stats().received > 1000)
        middle.back.close(linger=0)
        until(lambda: not threads_of_proxies(), timeout=2.0)
        flooding.set()
        worker.close()
        creator.close(linger=0)
        for call in calls:
            call.result()


def test_nobody_follows_any_more_when_it_has_ended() -> None:
    """Or every proxy that has been would be kept, and asked, for as long as its Søckets are."""
    with Søcket().bind(port=0) as front, Søcket().bind(port=0) as back:
        for _ in range(3):
            with interrupted_when_running():
                proxy(front, back)
        for sock in (front, back):
            assert sock._engine._closing.followers == []
            assert sock._engine.sender._expecting.followers == set()


# Bad input


def test_it_joins_two_søckets() -> None:
    with Søcket() as sock, Søcket() as other:
        with pytest.raises(ValueError, match="two Søckets, not one"):
            proxy(sock, sock)
        for wrong in (None, "tcp://localhost:25000", 7):
            with pytest.raises(TypeError, match="proxy joins two Søckets, not"):
                proxy(sock, wrong)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                proxy(wrong, sock)  # type: ignore[arg-type]
        other.close()
        for pair in ((sock, other), (other, sock)):
            with pytest.raises(ClosedError):
                proxy(*pair)


def test_what_is_taken_from_its_front_elsewhere_is_acknowledged_by_hand() -> None:
    with relaying() as middle:
        until(lambda: len(threads_of_proxies()) == 2)
        with pytest.raises(Exception, match="recv_delivery"):
            middle.front.recv(timeout=0)
