"""TLS without a socket: ciphertext and plaintext, in and out."""

from .engine import TLSEngine, TLSInfo, verified_hostname

__all__ = ["TLSEngine", "TLSInfo", "verified_hostname"]
