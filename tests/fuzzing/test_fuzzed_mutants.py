"""The check of the checks: parsers that were broken deliberately, by a line, are found by as many inputs as the suite
has time for."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from typing import Final

import pytest

from netmsg.messaging import urls
from netmsg.packets import delimited
from netmsg.storage import files
from netmsg.wire import framing, sniffing, version_1, websocket, websocket_opening
from netmsg.wire.framing import EnvelopeDecoder
from netmsg.wire.legacy import LegacyDecoder
from netmsg.wire.messages import Run
from netmsg.wire.websocket import WebSocket

from .driving import explore, mutated

Patch = pytest.MonkeyPatch
MUTANTS: Final[dict[str, tuple[str, Callable[[Patch], None]]]] = {}
"""By name: the target that tells, and how the parser is broken."""


def mutant(target: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def add(function: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS[function.__name__.replace("_", " ")] = target, function
        return function

    return add


@mutant("envelopes")
def any_frame_may_be_of_any_length(patch: Patch) -> None:
    patch.setattr(EnvelopeDecoder, "_limit", lambda self, kind: 1 << 32)


@mutant("envelopes")
def what_comes_behind_a_large_frame_is_lost(patch: Patch) -> None:
    gather = EnvelopeDecoder._gather
    patch.setattr(EnvelopeDecoder, "_gather", lambda self, chunk, room, runs: gather(
        self, chunk[:self._missing], room, runs))


@mutant("envelopes")
def an_error_is_forgotten(patch: Patch) -> None:
    decode = EnvelopeDecoder.decode

    def forgetful(self: EnvelopeDecoder, chunk: bytes, room: int) -> list[Run]:
        self.error = None
        return decode(self, chunk, room)

    patch.setattr(EnvelopeDecoder, "decode", forgetful)


@mutant("sessions")
def every_version_is_taken_for_ours(patch: Patch) -> None:
    patch.setattr(version_1, "parse_hello", lambda body: body[1:])


@mutant("sessions")
def nobody_is_let_in(patch: Patch) -> None:
    patch.setattr(framing, "HANDSHAKE_BOUND", -1)


@mutant("old_frames")
def an_old_message_may_be_as_long_as_a_request(patch: Patch) -> None:
    plausible = LegacyDecoder._is_plausible
    patch.setattr(LegacyDecoder, "_is_plausible", lambda self, size, bound: plausible(self, size, self._bound))


@mutant("sniffing")
def the_version_of_tls_is_not_looked_at(patch: Patch) -> None:
    patch.setattr(sniffing, "_BEGINNINGS", (*sniffing._BEGINNINGS, (b"\x16", sniffing.Sniffed.TLS)))


@mutant("websocket_frames")
def the_key_begins_anew_with_each_piece(patch: Patch) -> None:
    def payload(self: WebSocket, piece: bytes) -> bytes:
        self._missing -= len(piece)
        return piece if self._key is None else websocket.masked(piece, self._key)

    patch.setattr(WebSocket, "_payload", payload)


@mutant("websocket_frames")
def any_status_code_may_be_sent(patch: Patch) -> None:
    patch.setattr(websocket, "_may_be_sent", lambda code: True)


@mutant("server_openings")
def two_keys_are_as_good_as_one(patch: Patch) -> None:
    patch.setattr(websocket_opening._Fields, "single", lambda self, name: self._values.get(name, [""])[0])


@mutant("delimited_packets")
def a_delimiter_in_two_pieces_is_overlooked(patch: Patch) -> None:
    patch.setattr(delimited, "min", lambda *overlaps: 0, raising=False)


@mutant("urls")
def anything_may_stand_in_a_host_name(patch: Patch) -> None:
    patch.setattr(urls, "check_hostname", lambda host: host)


@mutant("outbox_files")
def a_damaged_file_is_not_looked_through(patch: Patch) -> None:
    patch.setattr(files, "MOST_CHECKED", -1)


@mutant("outbox_files")
def damage_has_no_number(patch: Patch) -> None:
    patch.setattr(files, "ERRNO", {sqlite3.SQLITE_CORRUPT: 0})


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_parser_is_found(name: str, monkeypatch: Patch) -> None:
    target, break_it = MUTANTS[name]
    break_it(monkeypatch)
    failure = explore(target, mutated(target))
    assert failure is not None
    assert re.search(rf"python -m fuzzing {target} --again [\w+/=]*\n", str(failure))
