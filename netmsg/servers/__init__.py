"""Servers: one selector thread for all connections, and a pool of worker threads for the handlers."""
