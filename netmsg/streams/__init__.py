"""Blocking byte streams."""
