"""The check of the checks: a library that was broken deliberately, by a line or two, is found out."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final, NamedTuple

import pytest
from support.strikes import SignalStrike, strike_everywhere

from netmsg import ConnectionBrokenError
from netmsg.clients.packet_client import PacketClient
from netmsg.packets.delimited import DelimitedDecoder
from netmsg.packets.framed import FrameDecoder
from netmsg.servers.packet_service import PacketService
from netmsg.servers.send_queue import SendQueue
from netmsg.servers.steps import Steps
from netmsg.streams.connection import Connection
from netmsg.streams.read_ahead import ReadAhead
from netmsg.streams.receiving import Receiving
from netmsg.streams.sending import Sending
from netmsg.tls.engine import TLSEngine
from netmsg.transports.encrypted import TLSTransport

from .secured import VERSIONS
from .streams import Operation, StreamWorld
from .test_small_streams import script, send_several
from .worlds import everywhere, run

SEEDS: Final = 120
"""Within so many each is to be found."""


class Mutant(NamedTuple):
    owner: type
    method: str
    line: str
    instead: str
    promise: str
    """The one that it breaks, as is told."""


BYTES: Final = "nothing is lost, doubled or reordered"
PACKETS: Final = "each packet once, in order"
WHOLE: Final = "what was sent arrives whole"

MUTANTS: Final = {
    "what is taken is gone before it is handed out": Mutant(
        Receiving, "take", "taken = data[start:end]\n            ahead.position = end + dropped",
        "ahead.position = end + dropped\n            taken = bytes(memoryview(data)[start:end])", BYTES),
    "a chunk is dropped before it is moved": Mutant(
        ReadAhead, "front", "self.data = self.more[0]\n            self.position = 0\n            del self.more[0]",
        "self.data = self.more.pop(0)\n            self.position = 0", BYTES),
    "what was received is noted after the call": Mutant(
        Receiving, "_receive_once", "results.extend(map(receive, (argument,)))", "results.append(receive(argument))",
        BYTES),
    "what an interrupted call has written to a buffer is not given back": Mutant(
        Receiving, "receive_into", "if counts and counts[0]:", "if False:", BYTES),
    "a stall loses what is there": Mutant(
        Receiving, "_receive_once", "except BlockingIOError:\n                pass",
        "except BlockingIOError:\n                ahead.clear()", BYTES),
    "what was split comes back in the wrong order": Mutant(
        ReadAhead, "unsplit", "items = self.joining[::-1]", "items = self.joining[:]", BYTES),
    "what comes before a delimiter that is too far is lost": Mutant(
        Receiving, "until", "if at > max_bytes:", "if at > max_bytes:\n            ahead.clear()", BYTES),
    "what has gone is noted after the call": Mutant(
        Sending, "send_pieces", "counts.extend(map(transport.send_one, (rest,)))",
        "counts.append(transport.send_one(rest))", BYTES),
    "a cut send is forgotten": Mutant(
        Sending, "conclude", "if begun and done < size and self.error is None:", "if False:", "a cut send is the last"),
    "a send that is cut says that nothing has gone": Mutant(
        Sending, "too_late", "done = sum(counts)", "done = 0", "a timeout tells how much has gone"),
    "errors come through as they are": Mutant(
        Connection, "broken", "return as_broken(bare(error))", "return bare(error)", "it has raised"),
    "a reset that a send was told of is an end": Mutant(
        Sending, "send_pieces", "self.connection.lost = error", "pass", "an end is one"),
    "a stall is a timeout for who has time": Mutant(
        Connection, "wait", "transport = self.transport", "transport = self.transport\n        deadline.__class__(0)\n"
        "        raise TimeoutError", "a wait ends"),
    "a line is cut where nobody has asked": Mutant(
        Receiving, "until", "return at, len(delimiter)", "return max(0, at - 1), len(delimiter) + 1", BYTES),
    "packets come in the wrong order": Mutant(Steps, "decode", "packets.reverse()", "pass", PACKETS),
    "what comes during a step is overwritten": Mutant(
        PacketService, "received", "steps.unread.append(chunk)\n            if not steps.busy:",
        "steps.unread[:] = [chunk][steps.busy:]\n            if not steps.busy:", PACKETS),
    "a step begins while another one is under way": Mutant(
        PacketService, "received", "if steps.state is not RESTING or steps.packets or steps.upgrading:",
        "if steps.packets or steps.upgrading:", "steps never overlap"),
    "a bad packet is passed over": Mutant(
        FrameDecoder, "_feed_some", "return [_decode_error(frames[0], error)]", "return []", PACKETS),
    "a delimiter in two pieces is not seen": Mutant(
        DelimitedDecoder, "_split", "overlap = min(len(delimiter) - 1, self._kept)", "overlap = 0", PACKETS),
    "what waits is not sent once there is room": Mutant(
        PacketService, "has_room", "self.queue.flush()", "pass", "everything comes to its end"),
    "what a queue has sent is noted after the call": Mutant(
        SendQueue, "_send", "self._counts.extend(map(self.transport.send_one, (buffer,)))",
        "self._counts.append(self.transport.send_one(buffer))", WHOLE),
    "what waits is counted twice": Mutant(
        SendQueue, "put", "self.size += size", "self.size += 2 * size", "what waits is counted"),
    "the end is not told": Mutant(
        PacketService, "_end", "if self.steps.wants_the_end:", "if False:", "the end is told"),
    "an end is not noticed": Mutant(
        PacketService, "ended", "self.received(b\"\")", "pass", "everything comes to its end"),
    "a client's decoder is not saved from interrupts": Mutant(
        PacketClient, "_decode", "if in_main_thread():", "if False:", PACKETS),
    "a client's packet is gone before it is handed out": Mutant(
        PacketClient, "_recv", "packet: Any = kept[-1]\n            del kept[-1]", "packet: Any = kept.pop()", PACKETS),
}

SECURED: Final = {
    "what a read has decrypted is not found out": Mutant(
        TLSEngine, "_read_interruptibly", "if self._reading is not None:", "if False:", BYTES),
    "plaintext is dropped before it is handed out": Mutant(
        TLSTransport, "receive", "chunk = plaintext[0]\n            del plaintext[0]",
        "chunk = bytes(memoryview(plaintext.pop(0)))", BYTES),
    "an end without a goodbye is one": Mutant(
        TLSEngine, "read_to", "if self._standard_compatible:", "if False:", "an end is one"),
}
"""Under TLS."""


def broken(mutant: Mutant) -> Callable[..., Any]:
    """The method with that line instead. It counts as the library's, for an interrupt is to come in it, too."""
    method: FunctionType = inspect.unwrap(getattr(mutant.owner, mutant.method))
    source = inspect.getsource(method)
    assert source.count(mutant.line) == 1, f"the line is there {source.count(mutant.line)} times"
    names: dict[str, Any] = {}
    code = compile("from __future__ import annotations\nif True:\n" + source.replace(mutant.line, mutant.instead),
                   method.__code__.co_filename, "exec")
    exec(code, method.__globals__, names)
    made: Callable[..., Any] = names[mutant.method]
    return made


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_library_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    monkeypatch.setattr(mutant.owner, mutant.method, broken(mutant))
    for seed in range(SEEDS):
        if any(mutant.promise in found for found in run(seed)):
            return
    pytest.fail(f"in the worlds of {SEEDS} seeds nobody has noticed that {name}")


def test_ciphertext_that_is_sent_twice_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noted after the call."""
    monkeypatch.setattr(TLSTransport, "_flush", broken(Mutant(
        TLSTransport, "_flush", "counts.extend(map(self._below.send_one, (ciphertext[0],)))",
        "counts.append(self._below.send_one(ciphertext[0]))", "")))
    with pytest.raises(ConnectionBrokenError):
        strike_everywhere(lambda strike: send_several(VERSIONS[0], strike), kind=SignalStrike)


@pytest.mark.parametrize("name", SECURED)
def test_a_broken_tls_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = SECURED[name]
    monkeypatch.setattr(mutant.owner, mutant.method, broken(mutant))
    found: list[str] = []
    for kind in ("receive", "send_all"):
        for version in VERSIONS:
            calls = script(kind, True, ahead=False)
            everywhere(found, kind, StreamWorld(f"{kind}: {version}", version, calls), 2)
            calls.append(Operation(0, "send_all", 1000))
            everywhere(found, kind, StreamWorld(f"{kind}, cut: {version}", version, calls), 2)
            if any(mutant.promise in one for one in found):
                return
    pytest.fail(f"nobody has noticed that {name}: {found[:3]}")
