"""Certificates for the worlds in which there is TLS: made once, and only then. By RSA, whose signatures are all of one
length: what is encrypted takes as many bytes each time."""

from __future__ import annotations

import functools
import ssl

import trustme

__all__ = ["contexts"]


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For the ends that bind and that connect, as ``simulated.test``."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.num_tickets = 0  # whose length depends on chance
    authority.issue_cert("simulated.test", key_type=trustme.KeyType.RSA).configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    return server, client
