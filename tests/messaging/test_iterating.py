"""Iterators over what a Søcket receives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from netmsg.errors import ClosedError
from netmsg.messaging.iterating import UntilClosed


def scripted(*results: Any) -> Callable[[], Any]:
    left = list(results)

    def take() -> Any:
        result = left.pop(0)
        if isinstance(result, BaseException):
            raise result
        return result

    return take


def test_it_ends_when_it_is_closed() -> None:
    assert list(UntilClosed(scripted(1, 2, ClosedError()))) == [1, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no JSON"), TimeoutError()])
def test_it_goes_on_after_whatever_else_is_raised(error: BaseException) -> None:
    messages = UntilClosed(scripted(1, error, 2, ClosedError()))
    assert next(messages) == 1
    with pytest.raises(type(error)):
        next(messages)
    assert list(messages) == [2]
