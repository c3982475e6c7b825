"""Clients that send and receive whole packets."""
