"""A WebSocket of the `websockets` package, as `WirePeer` wants a socket."""

from __future__ import annotations

from typing import Any

from websockets.exceptions import ConnectionClosed

from .wire_peer import TIMEOUT

__all__ = ["WebSocketStream"]


class WebSocketStream:
    """Each send is one message; a receive gives one, whatever size is asked for, and nothing at the end."""

    def __init__(self, websocket: Any) -> None:
        self._websocket = websocket

    def settimeout(self, seconds: float) -> None:
        """Every receive has its own."""

    def sendall(self, data: bytes) -> None:
        self._websocket.send(data)

    def recv(self, size: int) -> bytes:
        try:
            data = self._websocket.recv(timeout=TIMEOUT)
        except ConnectionClosed:
            return b""
        assert isinstance(data, bytes)
        return data
