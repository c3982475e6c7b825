"""The selector thread: readiness, timers, wake-ups, and what moves bytes without blocking."""
