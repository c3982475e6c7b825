"""All targets. Each is a function of some bytes that fails if what its docstring says does not hold of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from . import file_targets, name_targets, packet_targets, stream_targets, websocket_targets

__all__ = ["TARGETS", "Target"]


class Target(NamedTuple):
    function: Callable[[bytes], None]
    share: int
    """Of a thousand mutated inputs."""


TARGETS: Final = {
    "envelopes": Target(stream_targets.envelopes, 150),
    "old_frames": Target(stream_targets.old_frames, 80),
    "sessions": Target(stream_targets.sessions, 130),
    "sniffing": Target(stream_targets.sniffing, 60),
    "websocket_frames": Target(websocket_targets.websocket_frames, 140),
    "server_openings": Target(websocket_targets.server_openings, 70),
    "client_openings": Target(websocket_targets.client_openings, 60),
    "line_packets": Target(packet_targets.line_packets, 50),
    "delimited_packets": Target(packet_targets.delimited_packets, 40),
    "json_packets": Target(packet_targets.json_packets, 50),
    "length_prefixed_packets": Target(packet_targets.length_prefixed_packets, 30),
    "netstring_packets": Target(packet_targets.netstring_packets, 30),
    "struct_packets": Target(packet_targets.struct_packets, 20),
    "urls": Target(name_targets.urls, 50),
    "unix_paths": Target(name_targets.unix_paths, 10),
    "outbox_files": Target(file_targets.outbox_files, 20),
    "seen_files": Target(file_targets.seen_files, 10),
}
"""By name, which is that of its corpus too."""
