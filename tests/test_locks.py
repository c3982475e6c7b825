"""Locks under interrupts. The storms run in a process of their own, which is theirs to interrupt."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from support.processes import Program

from netmsg.locks import Guarded, Lock, new_lock

STORM = """
import signal, sys, threading
from netmsg.locks import Guarded, new_lock, new_reentrant_lock

INTERRUPTS = 2000
INTERVAL = 0.0002
interrupts = 0

def interrupt(number, frame):
    global interrupts
    interrupts += 1
    if interrupts > INTERRUPTS:
        signal.setitimer(signal.ITIMER_REAL, 0)
    elif frame.f_code in (take.__code__, Guarded.__enter__.__code__):
        raise KeyboardInterrupt

lock = {"lock": new_lock, "reentrant lock": new_reentrant_lock, "guarded lock": lambda: Guarded(threading.Lock()),
        "guarded reentrant lock": lambda: Guarded(threading.RLock())}[sys.argv[1]]()
over = False
inside = intruders = 0

def take():
    global inside, intruders
    with lock:
        # No call in here, and so no interrupt.
        intruders += inside
        inside += 1
        inside -= 1

def contend():
    while not over:
        take()

rivals = [threading.Thread(target=contend) for _ in range(int(sys.argv[2]))]
for rival in rivals:
    rival.start()
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, INTERVAL, INTERVAL)
while interrupts <= INTERRUPTS:
    try:
        take()
    except KeyboardInterrupt:
        pass
over = True
rivals.append(threading.Thread(target=take))
rivals[-1].start()
for rival in rivals:
    rival.join()
print("unlocked, intruders:", intruders)
"""


@pytest.mark.untraced
@pytest.mark.parametrize("kind", ["lock", "reentrant lock", "guarded lock", "guarded reentrant lock"])
@pytest.mark.parametrize("rivals", [0, 1], ids=["alone", "contended"])
def test_a_storm_of_interrupts_leaves_no_lock_locked(kind: str, rivals: int) -> None:
    with Program("-c", STORM, kind, str(rivals)) as program:
        assert program.read_line() == "unlocked, intruders: 0"
        assert program.finish() == 0


@pytest.mark.parametrize("make", [new_lock, lambda: Guarded(threading.Lock())], ids=["lock", "guarded lock"])
def test_a_lock_tells_whether_it_is_locked(make: Callable[[], Lock]) -> None:
    lock = make()
    assert not lock.locked()
    with lock:
        assert lock.locked()
    assert not lock.locked()
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    assert not lock.locked()
