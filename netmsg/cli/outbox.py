"""``netmsg outbox``: what waits in the file of an outbox, oldest first."""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from typing import TYPE_CHECKING, Final

from ..storage.outbox import Stored, StoredMessages

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_to", "run"]

SHOWN: Final = 40
"""Bytes of a message that are shown."""

DONE: Final = 0
FAILED: Final = 1


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "outbox", help="list and count what waits in the file of an outbox",
        description="List what waits in the file of an outbox (Søcket(outbox=PATH)), oldest first, and count it. A file"
                    " that is in use cannot be looked at; one that is looked at is not changed.")
    parser.add_argument("path", help="the file")
    parser.add_argument("--count", action="store_true", help="count only")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each message, its data in base64, and"
                                                            " one for the counts")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    try:
        file = StoredMessages(arguments.path)
        try:
            _look(file, arguments)
        finally:
            file.close()
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        print(f"netmsg outbox: {error}", file=sys.stderr)
        return FAILED
    return DONE


def _look(file: StoredMessages, arguments: argparse.Namespace) -> None:
    if not arguments.count:
        show = _as_json if arguments.json else _as_text
        for message in file:
            print(show(message))
    counts = {_whose(addressee): {"messages": messages, "bytes": size}
              for addressee, (messages, size) in file.counts().items()}
    messages = sum(count["messages"] for count in counts.values())
    size = sum(count["bytes"] for count in counts.values())
    if arguments.json:
        print(json.dumps({"messages": messages, "bytes": size, "for": counts}))
    else:
        print(f"{messages} message{'' if messages == 1 else 's'}, {size} bytes")
        for whose, count in counts.items():
            print(f"  {count['messages']} for {whose}")


def _whose(addressee: bytes | None) -> str:
    return "anybody" if addressee is None else addressee.hex()


def _as_json(message: Stored) -> str:
    return json.dumps({"id": message.message_id.hex(), "for": _whose(message.addressee), "sent_at": message.at,
                       "bytes": len(message.payload), "data": base64.b64encode(message.payload).decode("ascii")})


def _as_text(message: Stored) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(message.at))
    more = "..." if len(message.payload) > SHOWN else ""
    return (f"{when}  {message.message_id.hex()}  for {_whose(message.addressee)}  {len(message.payload)} bytes  "
            f"{message.payload[:SHOWN]!r}{more}")
