"""The ``ssl.SSLContext`` that a user gives, checked before anything is opened."""

from __future__ import annotations

import ssl

from ..checks import check_str
from .engine import TLSEngine, verified_hostname

__all__ = ["check_server_context", "client_context"]


def check_server_context(context: ssl.SSLContext | None) -> None:
    """Raises ``TypeError``, ``ValueError``."""
    if context is not None and not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl_context must be an ssl.SSLContext, not {type(context).__name__}")
    if context is not None:
        _try(context, True, None)


def client_context(context: ssl.SSLContext | bool | None,
                   server_hostname: str | None) -> tuple[ssl.SSLContext | None, str | None]:
    """The context to connect with (``True`` is the default one) and the name to check the certificate against.

    Raises ``TypeError``, ``ValueError``.
    """
    if server_hostname is not None:
        check_str("server_hostname", server_hostname)
    if context is None:
        return None, None
    if context is True:
        context = ssl.create_default_context()
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl_context must be an ssl.SSLContext or True, not {type(context).__name__}")
    name = verified_hostname(context, server_hostname)
    _try(context, False, name)
    return context, name


def _try(context: ssl.SSLContext, server_side: bool, name: str | None) -> None:
    """Find out now whether connections can be made with ``context``: one for the other side, or a name that cannot be
    one, would fail every one of them."""
    try:
        TLSEngine(context, server_side=server_side, server_hostname=name)
    except (ValueError, ssl.SSLError, UnicodeError) as error:
        purpose = "bind" if server_side else "connect"
        raise ValueError(f"this ssl_context cannot be used to {purpose}: {error}") from error
