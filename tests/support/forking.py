"""Forking where threads run, which is the very thing to be tested."""

from __future__ import annotations

import os
import warnings


def fork() -> int:
    """``os.fork()``. From Python 3.12 on it warns that other threads run, and here a warning is an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"This process \(pid=\d+\) is multi-threaded", DeprecationWarning)
        return os.fork()
