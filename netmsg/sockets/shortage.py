"""What goes wrong for a time, and not for good."""

from __future__ import annotations

import errno
from typing import Final

__all__ = ["OUT_OF_RESOURCES"]

OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What a call fails with while there are too many descriptors or too little memory: it may work later."""
