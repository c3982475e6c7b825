"""Non-blocking transports: bytes that go as far as they can, over a socket, in memory, under TLS
or in WebSocket's frames."""
