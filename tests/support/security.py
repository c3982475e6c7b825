"""With TLS or without, for both ends of a connection: contexts for ours, files for a peer in another process."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

import trustme


class Security(NamedTuple):
    """What each end needs in order to bind and to connect; ``None`` without TLS."""

    bind: ssl.SSLContext | None = None
    connect: ssl.SSLContext | None = None
    peer_bind: dict[str, str] | None = None
    """Paths of PEM files: ``authority``, and ``certificate`` with its key."""
    peer_connect: dict[str, str] | None = None


def write_certificate(directory: Path, authority: trustme.CA, name: str, *names: str) -> dict[str, str]:
    """Write a new certificate with its key, and that of the authority, into ``directory``."""
    certificate, trusted = directory / f"{name}.pem", directory / "authority.pem"
    authority.issue_cert(name, *names).private_key_and_cert_chain_pem.write_to_path(str(certificate))
    authority.cert_pem.write_to_path(str(trusted))
    return {"authority": str(trusted), "certificate": str(certificate)}
