"""The arguments that users give, checked: each function raises ``TypeError`` or ``ValueError`` that names the argument.

What has a class of its own (a codec, a handler, an SSLContext) is checked where that is.
"""

from __future__ import annotations

import math
import sys
from typing import Any

__all__ = [
    "check_address",
    "check_bool",
    "check_callable",
    "check_count",
    "check_delimiter",
    "check_enum",
    "check_host",
    "check_port",
    "check_range",
    "check_seconds",
    "check_size",
    "check_str",
    "check_timeout",
]


# Numbers

def check_count(name: str, count: int, least: int = 1) -> None:
    """An ``int``, however large."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} must be an int, not {type(count).__name__}")
    if count < least:
        raise ValueError(f"{name} must be at least {least}, not {count}")


def check_size(name: str, size: int, *, least: int = 1) -> None:
    """An ``int`` that the system can count to: of bytes, or of what it keeps for us."""
    if type(size) is int and least <= size <= sys.maxsize:
        return  # without a further call: every receive passes here
    check_count(name, size, least)
    if size > sys.maxsize:
        raise ValueError(f"{name} is too large: {size}")


def check_range(name: str, number: int, least: int, most: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{name} must be an int, not {type(number).__name__}")
    if not least <= number <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {number}")


def check_port(port: int) -> None:
    check_range("port", port, 0, 65535)


# Times

def check_timeout(timeout: float | None) -> None:
    """Seconds, with an end or not, or ``None`` for ever."""
    if timeout is None:
        return
    if isinstance(timeout, (str, bytes)):
        raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
    if math.isnan(timeout) or timeout < 0:
        raise ValueError(f"timeout must be None or at least 0, not {timeout!r}")


def check_seconds(name: str, seconds: float, *, zero: bool = False) -> None:
    """Seconds of which there is an end, more than none unless ``zero`` is allowed."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {type(seconds).__name__}")
    if not math.isfinite(seconds) or seconds < 0 or not (seconds or zero):
        raise ValueError(f"{name} must be {'at least' if zero else 'more than'} 0 seconds, not {seconds}")


# Texts, bytes and functions

def check_str(name: str, text: str) -> None:
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, not {type(text).__name__}")


def check_delimiter(delimiter: bytes) -> bytes:
    """``delimiter``, anything like bytes, as what it is now."""
    try:
        if type(delimiter) is not bytes:
            delimiter = bytes(memoryview(delimiter))
    except TypeError:
        raise TypeError(f"delimiter must be bytes, not {type(delimiter).__name__}") from None
    if not delimiter:
        raise ValueError("the delimiter is empty")
    return delimiter


def check_enum(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be one of {kind.__name__}, not {value!r}")


def check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def check_callable(name: str, function: object) -> None:
    """A function, or ``None``."""
    if function is not None and not callable(function):
        raise TypeError(f"{name} must be a function, not {type(function).__name__}")


# Addresses

def check_host(host: str) -> str:
    """``host`` without the brackets of an IPv6 literal in a URL."""
    check_str("host", host)
    host = host.removeprefix("[").removesuffix("]")
    if not host:
        raise ValueError("host is empty")
    if "\0" in host:
        raise ValueError(f"host has a NUL in it: {host!r}")
    return host


def check_address(name: str, address: Any) -> tuple[str, int]:
    """``address``, a (host, port) whose items are still to be checked."""
    if not isinstance(address, tuple):
        raise TypeError(f"{name} must be a (host, port), not {type(address).__name__}")
    if len(address) != 2:
        raise ValueError(f"{name} must be a (host, port), not {address!r}")
    return address
