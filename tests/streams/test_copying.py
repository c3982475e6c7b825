"""`receive_file` and `send_file`, over a link that does what it is told to: nothing of a file is lost or doubled."""

from __future__ import annotations

import errno
import io
from typing import Any

import pytest
from support.interrupts import Interrupted
from support.scripted import scripted

from netmsg import ConnectionBrokenError, EndOfStream, IncompleteReadError, LocalProtocolError, SendTimeoutError
from netmsg.deadline import Deadline
from netmsg.sockets.waiting import WRITE
from netmsg.streams.connection import FOREVER
from netmsg.streams.copying import receive_file, send_file


class Unseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False


class Interrupting(io.BytesIO):
    """Takes ``takes`` bytes, and is interrupted before it has said so."""

    takes: int | None = 2

    def write(self, data: Any) -> int:
        if self.takes is None:
            return super().write(data)
        super().write(data[:self.takes])
        self.takes = None
        raise Interrupted


def nothing_by_kernel(deadline: Deadline, file: Any, offset: int, count: int, counts: list[int]) -> None:
    """Leaves all of it to be read."""


def test_exactly_so_many_bytes_and_the_rest_stays() -> None:
    inside, _, transport = scripted()
    transport.incoming += (b"abc", b"def")
    file = io.BytesIO()
    assert receive_file(inside.receiving, FOREVER, file, 4) == 4
    assert file.getvalue() == b"abcd"
    assert inside.receiving.take(FOREVER, inside.receiving.some, 10) == b"ef"


def test_all_to_the_end_or_too_little() -> None:
    inside, _, transport = scripted()
    transport.incoming += (b"abc", b"def", b"")
    file = io.BytesIO()
    assert receive_file(inside.receiving, FOREVER, file, None) == 6
    with pytest.raises(EndOfStream):
        receive_file(inside.receiving, FOREVER, file, 1)
    inside, _, transport = scripted()
    transport.incoming += (b"abc", b"")
    with pytest.raises(IncompleteReadError) as caught:
        receive_file(inside.receiving, FOREVER, io.BytesIO(), 4)
    assert (caught.value.partial, caught.value.expected) == (b"", 4)


def test_where_an_interrupt_kept_the_file_from_saying_what_it_took_its_position_does() -> None:
    inside, _, transport = scripted()
    transport.incoming.append(b"abcdef")
    file = Interrupting()
    with pytest.raises(Interrupted):
        receive_file(inside.receiving, FOREVER, file, 6)
    assert file.getvalue() == b"ab"
    file.seek(0)  # it is its owner's again
    assert receive_file(inside.receiving, FOREVER, file, 4) == 4
    assert file.getvalue() == b"cdef"


def test_a_file_that_takes_a_part_and_then_nothing() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            super().write(data[:2])
            raise BlockingIOError(errno.EAGAIN, "full", 2)

    inside, _, transport = scripted()
    transport.incoming.append(b"abcd")
    file = Full()
    assert receive_file(inside.receiving, FOREVER, file, 4) == 4
    assert file.getvalue() == b"abcd"


def test_a_timeout_leaves_in_the_file_what_came() -> None:
    inside, _, transport = scripted()
    transport.incoming.append(b"abc")
    file = io.BytesIO()
    with pytest.raises(TimeoutError):
        receive_file(inside.receiving, Deadline(0), file, 6)
    assert file.getvalue() == b"abc"
    transport.incoming.append(b"def")
    assert receive_file(inside.receiving, FOREVER, file, 3) == 3
    assert file.getvalue() == b"abcdef"


def test_a_file_is_sent_by_the_kernel_as_far_as_that_goes() -> None:
    inside, _, transport = scripted()
    file = io.BytesIO(b"0123456789")

    def by_kernel(deadline: Deadline, of: Any, offset: int, count: int, counts: list[int]) -> None:
        assert of is file and (offset, count) == (2, 8)
        counts.append(3)

    assert send_file(inside.sending, FOREVER, file, 2, None, by_kernel) == 8
    assert transport.sent == [b"56789"]
    assert file.tell() == 10


def test_a_file_that_is_too_short_is_not_sent_at_all() -> None:
    inside, _, transport = scripted()
    with pytest.raises(ValueError):
        send_file(inside.sending, FOREVER, io.BytesIO(b"abc"), 1, 3, nothing_by_kernel)
    assert transport.sent == []
    inside.sending.check()


def test_a_timeout_part_way_says_how_far_it_came_and_nothing_more_is_sent() -> None:
    inside, _, transport = scripted()
    transport.room += (3, BlockingIOError())
    with pytest.raises(SendTimeoutError) as caught:
        send_file(inside.sending, Deadline(0), io.BytesIO(b"abcdef"), 0, None, nothing_by_kernel)
    assert caught.value.bytes_sent == 3
    with pytest.raises(ConnectionBrokenError, match="after 3 of 6 bytes"):
        inside.sending.check()


def test_a_file_that_has_become_shorter_is_a_send_that_was_cut_short() -> None:
    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            self.truncate(2)
            return super().read(size)

    inside, _, transport = scripted()
    with pytest.raises(EOFError, match="2 of 6"):
        send_file(inside.sending, FOREVER, Shrinking(b"abcdef"), 0, None, nothing_by_kernel)
    with pytest.raises(ConnectionBrokenError, match="after 2 of 6 bytes"):
        inside.sending.check()


def test_all_of_what_nobody_knows_the_length_of() -> None:
    inside, link, transport = scripted()
    link.happenings.append(WRITE)
    assert send_file(inside.sending, FOREVER, Unseekable(b"abcdef"), 0, None, nothing_by_kernel) == 6
    assert link.waits == [WRITE]  # before anything was read
    inside.sending.in_turn(FOREVER, inside.sending.send_all, b"ghi")
    assert transport.sent == [b"abcdef", b"ghi"]


def test_what_was_taken_out_of_such_a_file_and_has_not_gone_is_a_send_that_was_cut_short() -> None:
    inside, link, transport = scripted()
    link.happenings += (WRITE, Interrupted())
    transport.room.append(BlockingIOError())
    with pytest.raises(Interrupted):
        send_file(inside.sending, FOREVER, Unseekable(b"abcdef"), 0, 6, nothing_by_kernel)
    with pytest.raises(ConnectionBrokenError, match="after 0 of 6 bytes"):
        inside.sending.check()


def test_no_file_is_sent_behind_the_end() -> None:
    inside, _, _ = scripted()
    inside.sending.in_turn(FOREVER, inside.sending.send_eof)
    with pytest.raises(LocalProtocolError):
        send_file(inside.sending, FOREVER, io.BytesIO(b"abc"), 0, None, nothing_by_kernel)
