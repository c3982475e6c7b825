"""Workers come with the work and go without it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from support.pairs import TIMEOUT
from support.servers import eventually, said

from netmsg.deadline import Deadline
from netmsg.servers import worker_pool
from netmsg.servers.worker_pool import WorkerPool
from netmsg.standing_in import standing_in


@pytest.fixture(params=[True, False], ids=["patient", "eager"])
def patient(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def pool(patient: bool) -> Iterator[WorkerPool]:
    pool = WorkerPool(4, patient=patient)
    yield pool
    pool.close()
    pool.join(Deadline(TIMEOUT))
    assert pool.workers == 0


def run(pool: WorkerPool) -> None:
    """What a server does with `WorkerPool.dispatch`."""
    deadline = time.monotonic() + TIMEOUT
    while pool.dispatch():
        assert time.monotonic() < deadline


def waiting_at(barrier: threading.Barrier) -> Callable[[], None]:
    def wait() -> None:
        barrier.wait(TIMEOUT)

    return wait


def test_all_tasks_are_run_in_the_end(pool: WorkerPool) -> None:
    done = threading.Semaphore(0)
    for _ in range(1000):
        pool.put(done.release)
        if _ % 7 == 0:
            run(pool)
    run(pool)
    for _ in range(1000):
        assert done.acquire(timeout=TIMEOUT)
    assert 1 <= pool.workers <= 4


def test_tasks_that_wait_for_each_other_get_a_worker_each(pool: WorkerPool) -> None:
    barrier = threading.Barrier(5)
    for _ in range(4):
        pool.put(waiting_at(barrier))
    run(pool)
    barrier.wait(TIMEOUT)
    assert pool.workers == 4


def test_never_more_than_the_most(pool: WorkerPool) -> None:
    gate, running, most = threading.Event(), [0], [0]
    lock = threading.Lock()
    done = threading.Semaphore(0)

    def task() -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        gate.wait(TIMEOUT)
        with lock:
            running[0] -= 1
        done.release()

    for _ in range(20):
        pool.put(task)
        run(pool)
    eventually(lambda: running[0] == 4)
    gate.set()
    for _ in range(20):
        assert done.acquire(timeout=TIMEOUT)
    assert most[0] == 4


def test_90_workers_beyond_need_go_away(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "IDLE", 0.05)
    barrier = threading.Barrier(5)
    for _ in range(4):
        pool.put(waiting_at(barrier))
    run(pool)
    barrier.wait(TIMEOUT)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(f"netmsg-worker-{pool.number}-")]
    assert len(threads) == 4
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    assert pool.workers == 0
    again = threading.Event()
    pool.put(again.set)
    run(pool)
    assert again.wait(TIMEOUT)


def test_one_worker_does_what_one_can_do() -> None:
    """A patient pool's short tasks do not make workers take the interpreter lock from each other."""
    pool = WorkerPool(8, patient=True)
    idents = set()
    done = threading.Semaphore(0)

    def task() -> None:
        idents.add(threading.get_ident())
        done.release()

    try:
        for _ in range(100):
            pool.put(task)
        while pool.tasks:
            pool.dispatch()
        for _ in range(100):
            assert done.acquire(timeout=TIMEOUT)
        assert len(idents) < 8
    finally:
        pool.close()
        pool.join(Deadline(TIMEOUT))


def test_a_task_that_is_put_while_the_last_is_taken_is_not_forgotten(pool: WorkerPool) -> None:
    """The race that the lock around looking and falling idle is for."""
    for _ in range(2000):
        first, second = threading.Event(), threading.Event()
        pool.put(first.set)
        run(pool)
        pool.put(second.set)
        run(pool)
        assert first.wait(TIMEOUT) and second.wait(TIMEOUT)


@pytest.mark.parametrize("late", [False, True], ids=["soon", "late"])
def test_a_pool_with_idle_workers_is_not_taken_for_saturated(late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "IDLE", 0.2 if late else TIMEOUT)
    pool = WorkerPool(2, patient=True)
    barrier, gate = threading.Barrier(3), threading.Event()

    def compute() -> None:
        over = time.perf_counter() + 0.003
        while time.perf_counter() < over:
            pass

    def wait() -> None:
        gate.wait(TIMEOUT)

    try:
        for _ in range(2):
            pool.put(waiting_at(barrier))
        run(pool)
        barrier.wait(TIMEOUT)
        for task in (compute, wait):
            pool.put(task)  # one computes, the other waits: and one worker is enough for both
        run(pool)
        if late:
            eventually(lambda: pool.workers == 1)
        done = threading.Event()
        pool.put(done.set)
        run(pool)
        assert done.wait(TIMEOUT / 2)
    finally:
        gate.set()
        monkeypatch.setattr(worker_pool, "IDLE", 0.1)
        pool.close()
        pool.join(Deadline(TIMEOUT))


def test_a_closed_pool_finishes_its_tasks(patient: bool) -> None:
    pool = WorkerPool(2, patient=patient)
    gate, done = threading.Event(), []
    pool.put(lambda: done.append(gate.wait(TIMEOUT)))
    run(pool)
    pool.put(lambda: done.append(True))
    run(pool)
    pool.close()
    gate.set()
    pool.join(Deadline(TIMEOUT))
    assert done == [True, True]
    assert pool.workers == 0


def test_no_more_threads_to_be_had(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch,
                                   caplog: pytest.LogCaptureFixture) -> None:
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name.startswith("netmsg-worker"):
            raise RuntimeError("can't start new thread")
        start(thread)

    done = threading.Event()
    monkeypatch.setattr(threading.Thread, "start", fail)
    pool.put(done.set)
    pool.dispatch()
    pool.dispatch()
    assert pool.short_of_threads
    assert len(said(caplog)) == 1
    monkeypatch.setattr(threading.Thread, "start", start)
    run(pool)
    assert done.wait(TIMEOUT)
    assert not pool.short_of_threads


class Client:
    """That is waited for."""

    _awaited = True

    def __init__(self, *, deaf: bool = False, for_longer: float = 0.0) -> None:
        self.deaf = deaf
        self.for_longer = for_longer
        self.gone = threading.Event()

    def _silent_since(self) -> float:
        return time.monotonic() - (worker_pool.DEAF + self.for_longer if self.deaf else 0)

    def _give_up_for_others(self) -> None:
        self._awaited = False
        self.gone.set()


def test_of_too_many_only_those_that_take_nothing_are_given_up_and_no_more_than_needed() -> None:
    pool = WorkerPool(2, patient=False)
    pool.spare = 3
    waiting = threading.Semaphore(0)
    quick, first, second, third = Client(), Client(deaf=True), Client(deaf=True), Client(deaf=True)

    def wait_for(client: Client) -> None:
        with standing_in(client):
            waiting.release()
            client.gone.wait(TIMEOUT)

    try:
        for client in (quick, first, first, second, third):
            pool.give_up_deaf()
            assert not any(client.gone.is_set() for client in (quick, first, second, third))
            pool.put(partial(wait_for, client))
            run(pool)
            assert waiting.acquire(timeout=TIMEOUT)
        assert pool.give_up_deaf()
        assert [client.gone.is_set() for client in (quick, first, second, third)] == [False, True, False, False]
    finally:
        for client in (quick, first, second, third):
            client.gone.set()
        pool.close()
        pool.join(Deadline(TIMEOUT))


def test_the_longest_silent_go_first_and_not_the_longest_awaited() -> None:
    pool = WorkerPool(1, patient=False)
    pool.spare = 2
    waiting = threading.Semaphore(0)
    clients = Client(deaf=True), Client(), Client(deaf=True, for_longer=2.0), Client(deaf=True, for_longer=1.0)

    def wait_for(client: Client) -> None:
        with standing_in(client):
            waiting.release()
            client.gone.wait(TIMEOUT)

    try:
        for client in clients[:3]:
            pool.put(partial(wait_for, client))
            run(pool)
            assert waiting.acquire(timeout=TIMEOUT)
        assert pool.give_up_deaf()
        assert [client.gone.is_set() for client in clients] == [False, False, True, False]
        pool.put(lambda: wait_for(clients[3]))
        run(pool)
        assert waiting.acquire(timeout=TIMEOUT)
        assert pool.give_up_deaf()
        assert [client.gone.is_set() for client in clients] == [False, False, True, True]
    finally:
        for client in clients:
            client.gone.set()
        pool.close()
        pool.join(Deadline(TIMEOUT))


def test_of_who_reads_slowly_the_kernel_tells_often_enough() -> None:
    class Slow(Client):
        def _silent_since(self) -> float:
            return time.monotonic() - 1.2  # see `worker_pool.DEAF`

    pool = WorkerPool(1, patient=False)
    pool.spare = 1
    waiting = threading.Semaphore(0)
    clients = Slow(), Slow()

    def wait_for(client: Client) -> None:
        with standing_in(client):
            waiting.release()
            client.gone.wait(TIMEOUT)

    try:
        for client in clients:
            pool.put(partial(wait_for, client))
            run(pool)
            assert waiting.acquire(timeout=TIMEOUT)
        assert pool.give_up_deaf()
        assert not any(client.gone.is_set() for client in clients)
    finally:
        for client in clients:
            client.gone.set()
        pool.close()
        pool.join(Deadline(TIMEOUT))


def test_while_none_of_them_takes_nothing_it_is_to_be_looked_again() -> None:
    pool = WorkerPool(1, patient=False)
    pool.spare = 1
    waiting = threading.Semaphore(0)
    clients = Client(), Client()

    def wait_for(client: Client) -> None:
        with standing_in(client):
            waiting.release()
            client.gone.wait(TIMEOUT)

    try:
        for client in clients:
            pool.put(partial(wait_for, client))
            run(pool)
            assert waiting.acquire(timeout=TIMEOUT)
        assert pool.give_up_deaf()
        assert not any(client.gone.is_set() for client in clients)
        clients[1].deaf = True
        assert pool.give_up_deaf()
        assert [client.gone.is_set() for client in clients] == [False, True]
    finally:
        for client in clients:
            client.gone.set()
        pool.close()
        pool.join(Deadline(TIMEOUT))


def test_nor_is_the_looking_over_while_one_more_may_work_who_may_take_long_without_waiting_for_a_client() -> None:
    pool = WorkerPool(2, patient=False)
    pool.spare = 1
    waiting, over = threading.Semaphore(0), threading.Event()
    clients = Client(deaf=True), Client(deaf=True)

    def wait_for(client: Client) -> None:
        with standing_in(client):
            waiting.release()
            client.gone.wait(TIMEOUT)

    def work() -> None:
        waiting.release()
        over.wait(TIMEOUT)

    try:
        for client in clients:
            pool.put(partial(wait_for, client))
            run(pool)
            assert waiting.acquire(timeout=TIMEOUT)
        assert pool.give_up_deaf()
        assert not any(client.gone.is_set() for client in clients)
        pool.put(work)
        run(pool)
        assert waiting.acquire(timeout=TIMEOUT)
        assert pool.give_up_deaf()
        assert [client.gone.is_set() for client in clients] == [True, False]
    finally:
        over.set()
        for client in clients:
            client.gone.set()
        pool.close()
        pool.join(Deadline(TIMEOUT))


def test_a_wait_inside_of_another_one_is_stood_in_for_once(pool: WorkerPool) -> None:
    seen: list[int] = []
    done = threading.Event()

    def task() -> None:
        with standing_in(Client()):
            with standing_in(Client()):
                seen.append(pool.stand_ins)
            seen.append(pool.stand_ins)
        seen.append(pool.stand_ins)
        with standing_in(Client()):
            seen.append(pool.stand_ins)
        done.set()

    pool.put(task)
    run(pool)
    assert done.wait(TIMEOUT)
    assert seen == [1, 1, 0, 1]
