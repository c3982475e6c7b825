"""The settings of a Søcket for the tests of its parts."""

from __future__ import annotations

from typing import Any

from netmsg import AckMode, DeliveryGuarantee, OnDuplicate, OnFull, SendMode
from netmsg.messaging.settings import Settings, checked

__all__ = ["settings"]


def settings(**changes: Any) -> Settings:
    """Those that a Søcket has by default, but for ``changes``."""
    values: dict[str, Any] = {
        "send_mode": SendMode.ROUNDROBIN, "delivery_guarantee": DeliveryGuarantee.AT_MOST_ONCE,
        "reconnection_delay": None, "send_hwm": 10_000, "send_hwm_bytes": 64 * 2**20, "recv_hwm": 10_000,
        "recv_hwm_bytes": 64 * 2**20, "on_full": OnFull.BLOCK, "max_message_size": 64 * 2**20,
        "max_connections": 10_000, "heartbeat_interval": 5.0, "heartbeat_timeout": 15.0, "handshake_timeout": 10.0,
        "ack_mode": AckMode.ON_RECV, "resend_after": 5.0, "max_resends": None, "max_unacked": None,
        "dedupe": 100_000, "on_duplicate": OnDuplicate.PROBE, "authorize": None, "linger": 5.0,
    }
    return checked(Settings(**(values | changes)))
