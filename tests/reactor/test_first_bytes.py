"""Whom a connection is for, told by its first bytes."""

from __future__ import annotations

from support.channels import READ, Loop, Outlet, Script, Socket, User, as_any

from netmsg.reactor.channel import Channel
from netmsg.reactor.sniffing import sniff


class Case:
    def __init__(self, *incoming: bytes | OSError) -> None:
        self.loop = Loop()
        self.sock = Socket()
        self.stranger, self.friend = User(), User()
        self.seen: list[bytes] = []
        self.channel = Channel(as_any(self.loop), as_any(self.sock), Script(*incoming), as_any(Outlet()), self.stranger)
        sniff(self.channel, self.judge)
        self.channel.open(None)
        self.channel.watch()

    def judge(self, first: bytes) -> User | None:
        self.seen.append(first)
        return self.friend if len(first) >= 4 else None

    def read(self) -> None:
        self.loop.tell(self.sock, READ)


def test_the_bytes_by_which_it_was_told_are_not_lost() -> None:
    case = Case(b"he", b"ll", b"o", b" there")
    case.read()
    assert case.seen == [b"he", b"hell"]
    assert case.friend.told == [b"hell"]
    for _ in range(2):
        case.read()
    assert case.friend.told == [b"hell", b"o", b" there"] and len(case.seen) == 2
    assert case.stranger.told == [("shaken", None)]


def test_what_happens_before_that_is_told_to_the_first_user() -> None:
    case = Case(b"he", b"")
    case.read()
    case.channel.user.has_room()
    case.channel._crashed(ValueError("x"))
    case.channel.user.left(given_up=True)
    told = case.stranger.told
    assert told[:3] == [("shaken", None), ("ended", None), "room"]
    assert told[3][0] == "crashed" and told[4] == ("left", True)
    assert case.friend.told == []


def test_what_the_judge_says_of_nobody_may_come_in_one_piece() -> None:
    case = Case(b"hello, all at once")
    case.read()
    assert case.friend.told == [b"hello, all at once"]
