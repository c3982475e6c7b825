"""Byte streams inside one process: the same contract without a network, for tests and lessons."""

from __future__ import annotations

from ..checks import check_size
from .byte_stream import ByteStream
from .links import memory_links

__all__ = ["memory_stream_pair"]


class _MemoryStream(ByteStream):
    def __repr__(self) -> str:
        return f"<memory stream {'closed' if self.closed else 'open'}>"


def memory_stream_pair(*, buffer_size: int = 65536) -> tuple[ByteStream, ByteStream]:
    """Two streams that are connected to each other. Each direction holds up to ``buffer_size`` bytes that have been
    sent and not received; beyond that, sending blocks."""
    check_size("buffer_size", buffer_size)
    one, other = memory_links(buffer_size)
    return _MemoryStream(one), _MemoryStream(other)
